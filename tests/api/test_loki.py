"""Loki's API over a real store: answers word for word, as Grafana's Loki source reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from collector import __version__
from collector.api import loki
from collector.api.loki_parameters import ENTRIES_MAX, FORM_BYTES_MAX, Parameters
from collector.api.loki_shapes import sample_text
from collector.clock import SystemClock
from collector.errors import InvalidQuery
from collector.otlp.signals import LOGS
from collector.query.engine import Engine
from collector.ring.ring import Ring
from collector.store import Store
from collector.wal.commit import Committer
from collector.wal.files import OperatingSystemFiles
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from tests.api.asgi import Answer, call
from tests.query.logql.logs import SECOND, Stopped

NOW = 1_700_000_000 * SECOND
CATEGORIZE = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}


def request(service: str, lines: list[tuple[int, str]], **fields: Any) -> bytes:
    """Return a request of lines at these seconds before NOW."""
    resource = {"attributes": [{"key": "service.name", "value": {"string_value": service}}]} if service else {}
    records = [{"time_unix_nano": NOW - ago * SECOND, "body": {"string_value": line}} | fields for ago, line in lines]
    message = LOGS.request_type(resource_logs=[{"resource": resource, "scope_logs": [{"log_records": records}]}])
    return bytes(message.SerializeToString())


REQUESTS = [
    request("shop", [(50, "order 1"), (40, "order 2 failed"), (30, "order 3")], severity_number=9),
    request("cart", [(35, "added"), (25, "removed")], severity_text="WARN", trace_id=bytes(range(16))),
    request("", [(20, "who am I")]),
]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Any]:
    """Return a function that asks the API about REQUESTS: all in the log, and the newest three in the ring."""
    log = Log.open(
        str(tmp_path),
        LOGS,
        files=OperatingSystemFiles(),
        clock=SystemClock(),
        metrics=LogMetrics(CollectorRegistry()),
        logger=structlog.get_logger(),
    )
    store = Store(LOGS, Ring(LOGS, 3, 1 << 20), log, asyncio.get_running_loop())
    committer: Any = Committer(log, "always", 1.0, store.committed)
    store.attach(committer)
    for payload in REQUESTS:
        await store.append(payload)
    engine = Engine(1, 10.0, Stopped(NOW))
    app = Starlette(routes=loki.routes({"logs": store}, engine))

    async def ask(path: str, query: Any = (), **options: Any) -> Answer:
        return await call(app, f"/loki/api/v1{path}", query, **options)

    yield ask
    await store.drain()
    engine.close()
    committer.close()
    log.close()


def ns(ago: float) -> str:
    """Return the time so many seconds before NOW, as text."""
    return str(NOW - ago * SECOND)


def unstated(answer: Answer) -> Any:
    """Return an answer's JSON without its statistics, which must be there."""
    data = answer.json
    assert answer.status == 200
    summary = data["data"].pop("stats")["summary"]
    assert summary["execTime"] == 0
    return data


async def test_save_and_test_of_grafana(api: Any) -> None:
    answer = await api("/query", {"query": "vector(1)+vector(1)", "time": 4 * SECOND, "direction": "backward"})
    assert unstated(answer) == {
        "status": "success",
        "data": {"resultType": "vector", "result": [{"metric": {}, "value": [4, "2"]}]},
    }


async def test_lines_newest_first_with_metadata_among_the_labels(api: Any) -> None:
    answer = await api("/query_range", {"query": '{service_name=~"shop|cart"}'})
    assert unstated(answer) == {
        "status": "success",
        "data": {
            "resultType": "streams",
            "result": [
                {
                    "stream": {
                        "detected_level": "info",
                        "service_name": "shop",
                        "severity_number": "9",
                    },
                    "values": [[ns(30), "order 3"], [ns(40), "order 2 failed"], [ns(50), "order 1"]],
                },
                {
                    "stream": {
                        "detected_level": "warn",
                        "service_name": "cart",
                        "severity_text": "WARN",
                        "trace_id": "000102030405060708090a0b0c0d0e0f",
                    },
                    "values": [[ns(25), "removed"], [ns(35), "added"]],
                },
            ],
        },
    }


async def test_lines_with_categorized_labels(api: Any) -> None:
    answer = await api("/query_range", {"query": '{service_name="cart"} |= "add"'}, headers=CATEGORIZE)
    metadata = {
        "detected_level": "warn",
        "severity_text": "WARN",
        "trace_id": "000102030405060708090a0b0c0d0e0f",
    }
    assert unstated(answer) == {
        "status": "success",
        "data": {
            "resultType": "streams",
            "result": [
                {
                    "stream": {"service_name": "cart"},
                    "values": [[ns(35), "added", {"structuredMetadata": metadata}]],
                }
            ],
            "encodingFlags": ["categorize-labels"],
        },
    }
    answer = await api(
        "/query_range", {"query": '{service_name="cart"} |= "add" | keep service_name'}, headers=CATEGORIZE
    )
    assert answer.json["data"]["result"][0]["values"] == [[ns(35), "added", {}]]


async def test_what_stages_have_parsed_is_a_category_of_its_own(api: Any) -> None:
    text = (
        '{service_name="shop"} | pattern "<what> <number> <state>" | number > 1 | number < 3'
        ' | keep service_name, state, number | line_format "{{.number}}: {{.state | upper}}"'
    )
    parsed = {"number": "2", "state": "failed"}
    answer = await api("/query_range", {"query": text}, headers=CATEGORIZE)
    [stream] = answer.json["data"]["result"]
    assert stream == {"stream": {"service_name": "shop"}, "values": [[ns(40), "2: FAILED", {"parsed": parsed}]]}
    [stream] = (await api("/query_range", {"query": text})).json["data"]["result"]
    assert stream == {"stream": {"service_name": "shop"} | parsed, "values": [[ns(40), "2: FAILED"]]}
    text = '{service_name="cart"} | json | keep service_name'
    streams = (await api("/query_range", {"query": text, "limit": "1"}, headers=CATEGORIZE)).json["data"]["result"]
    [[_, line, categories]] = streams[0]["values"]
    assert (line, set(categories)) == ("removed", {"parsed"})
    assert categories["parsed"]["__error__"] == "JSONParserErr"


async def test_limit_and_direction(api: Any) -> None:
    query = {"query": '{service_name=~".+"} | drop detected_level, severity_number', "limit": "2"}
    newest = (await api("/query_range", query)).json["data"]["result"]
    assert [each["values"] for each in newest] == [
        [[ns(25), "removed"]],
        [[ns(20), "who am I"]],
    ]
    oldest = (await api("/query_range", query | {"direction": "FORWARD"})).json["data"]["result"]
    assert oldest == [{"stream": {"service_name": "shop"}, "values": [[ns(50), "order 1"], [ns(40), "order 2 failed"]]}]


async def test_the_start_is_included_and_the_end_is_not(api: Any) -> None:
    query = {"query": '{service_name="shop"}', "start": ns(40), "end": ns(30)}
    [stream] = (await api("/query_range", query)).json["data"]["result"]
    assert stream["values"] == [[ns(40), "order 2 failed"]]
    assert (await api("/query_range", query | {"start": ns(30)})).json["data"]["result"] == []
    assert (await api("/query_range", query | {"start": "0", "end": "0"})).json["data"]["result"] == []


async def test_records_without_a_service_are_the_unknown_service(api: Any) -> None:
    answer = await api("/query_range", {"query": '{service_name="unknown_service"}'})
    assert [each["values"] for each in answer.json["data"]["result"]] == [[[ns(20), "who am I"]]]


async def test_a_trace_id_finds_its_lines(api: Any) -> None:
    query = '{service_name=~".+"} | trace_id="000102030405060708090a0b0c0d0e0f"'
    [stream] = (await api("/query_range", {"query": query})).json["data"]["result"]
    assert len(stream["values"]) == 2


async def test_the_log_volume_histogram(api: Any) -> None:
    query = 'sum by (level, detected_level) (count_over_time({service_name=~".+"} | drop __error__ [10s]))'
    answer = await api(
        "/query_range", {"query": query, "start": ns(60), "end": NOW, "step": "10000ms", "limit": 10_000}
    )
    seconds = NOW // SECOND
    assert unstated(answer) == {
        "status": "success",
        "data": {
            "resultType": "matrix",
            "result": [
                {
                    "metric": {"detected_level": "info"},
                    "values": [[seconds - 50, "1"], [seconds - 40, "1"], [seconds - 30, "1"]],
                },
                {"metric": {"detected_level": "unknown"}, "values": [[seconds - 20, "1"]]},
                {"metric": {"detected_level": "warn"}, "values": [[seconds - 30, "1"], [seconds - 20, "1"]]},
            ],
        },
    }


async def test_rates_scalars_and_milliseconds(api: Any) -> None:
    query = {"query": 'sum(rate({service_name="shop"}[40s])) * 2', "time": (NOW - 25 * SECOND) / 1e9 + 0.5}
    assert unstated(await api("/query", query))["data"] == {
        "resultType": "vector",
        "result": [{"metric": {}, "value": [NOW // SECOND - 24.5, "0.15"]}],
    }
    assert unstated(await api("/query", {"query": "1+1", "time": "4.0"}))["data"] == {
        "resultType": "scalar",
        "result": [4, "2"],
    }
    query = {"query": "1+1", "start": "4.", "end": "6e0", "step": "1.5"}
    assert unstated(await api("/query_range", query))["data"] == {
        "resultType": "matrix",
        "result": [{"metric": {}, "values": [[4, "2"], [5.5, "2"]]}],
    }


async def test_parameters_in_a_form(api: Any) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    body = b"query=%7Bservice_name%3D%22cart%22%7D&limit=1"
    answer = await api("/query_range", {"direction": "forward"}, method="POST", body=body, headers=form)
    assert answer.json["data"]["result"][0]["values"] == [[ns(35), "added"]]
    body = b"match[]={service_name=%22cart%22}&match[]={service_name=%22shop%22}"
    answer = await api("/series", method="POST", body=body, headers=form)
    assert answer.json == {"status": "success", "data": [{"service_name": "cart"}, {"service_name": "shop"}]}


async def test_labels_values_and_series(api: Any) -> None:
    assert (await api("/labels")).json == {"status": "success", "data": ["service_name"]}
    assert (await api("/label")).json == {"status": "success", "data": ["service_name"]}
    values = ["cart", "shop", "unknown_service"]
    assert (await api("/label/service_name/values")).json == {"status": "success", "data": values}
    assert (await api("/label/service_name/values", {"query": '{service_name!="cart"}'})).json["data"] == values[1:]
    assert (await api("/label/service_name/values", {"start": ns(33)})).json["data"] == values
    assert (await api("/label/service_name/values", {"since": "22s"})).json["data"] == ["unknown_service"]
    assert (await api("/label/nowhere/values")).json["data"] == []
    assert (await api("/series", {"match[]": "{}"})).json["data"] == [{"service_name": value} for value in values]


async def test_index_stats(api: Any) -> None:
    answer = await api("/index/stats", {"query": '{service_name="shop"}'})
    assert answer.json == {"streams": 1, "chunks": 1, "entries": 3, "bytes": len("order 1order 2 failedorder 3")}


async def test_lines_at_intervals(api: Any) -> None:
    query = {"query": '{service_name=~".+"} | drop detected_level, severity_number', "interval": "10s"}
    newest = (await api("/query_range", query)).json["data"]["result"]
    assert [value for one in newest for value in one["values"]] == [
        [ns(30), "order 3"],
        [ns(40), "order 2 failed"],
        [ns(50), "order 1"],
        [ns(20), "who am I"],
    ]
    query |= {"interval": "15", "direction": "forward", "limit": "2"}
    oldest = (await api("/query_range", query)).json["data"]["result"]
    assert sorted(value for one in oldest for value in one["values"]) == [[ns(50), "order 1"], [ns(35), "added"]]
    assert (await api("/query_range", query | {"query": '{service_name="none"}'})).json["data"]["result"] == []
    far = query | {"interval": str(10**9)}
    assert [len(one["values"]) for one in (await api("/query_range", far)).json["data"]["result"]] == [1]
    assert [
        len(one["values"])
        for one in (await api("/query_range", far | {"direction": "backward"})).json["data"]["result"]
    ] == [1]


async def test_volumes_of_the_drilldown(api: Any) -> None:
    answer = await api("/index/volume", {"query": '{service_name=~".+"}', "start": ns(60), "end": NOW, "limit": 5000})
    assert answer.json == {
        "status": "success",
        "data": {
            "resultType": "vector",
            "result": [
                {"metric": {"service_name": "shop"}, "value": [NOW // SECOND, "28"]},
                {"metric": {"service_name": "cart"}, "value": [NOW // SECOND, "12"]},
                {"metric": {"service_name": "unknown_service"}, "value": [NOW // SECOND, "8"]},
            ],
            "stats": {},
        },
    }
    query = {
        "query": "{}",
        "start": ns(60),
        "end": NOW,
        "step": "30",
        "aggregateBy": "labels",
        "targetLabels": "service_name",
    }
    data = (await api("/index/volume_range", query)).json["data"]
    assert data["resultType"] == "matrix"
    assert [(one["metric"], [size for _, size in one["values"]]) for one in data["result"]] == [
        ({"service_name": ""}, ["40", "8"])
    ]


async def test_detected_labels(api: Any) -> None:
    assert (await api("/detected_labels", {"start": ns(60), "end": NOW, "query": ""})).json == {
        "detectedLabels": [{"label": "service_name", "cardinality": 3}]
    }
    assert (await api("/detected_labels", {"query": '{service_name="x"}'})).json == {"detectedLabels": []}


async def test_format_query(api: Any) -> None:
    assert (await api("/format_query", {"query": '{foo=   "bar"}'})).json == {
        "status": "success",
        "data": '{foo="bar"}',
    }
    answer = await api("/format_query", {"query": "{foo"})
    assert (answer.status, answer.json["status"]) == (400, "invalid-query")
    assert answer.json["error"].startswith("parse error at line 1, col 5")


async def test_the_limits_that_drilldown_looks_at(api: Any) -> None:
    answer = (await api("/drilldown-limits")).json
    assert answer["pattern_ingester_enabled"] is True
    assert answer["version"] == __version__
    assert answer["limits"]["volume_enabled"] is True
    assert answer["limits"]["max_query_series"] > 0
    assert answer["limits"]["retention_period"] == "0s"


async def test_buildinfo(api: Any) -> None:
    assert (await api("/status/buildinfo")).json["version"] == __version__


async def test_statistics_tell_ring_from_log(api: Any) -> None:
    stats = (await api("/query_range", {"query": '{service_name=~".+"}'})).json["data"]["stats"]
    assert stats["summary"]["totalLinesProcessed"] == 6
    assert stats["summary"]["totalEntriesReturned"] == 6
    assert stats["ingester"]["headChunkLines"] + stats["store"]["decompressedLines"] == 6
    assert stats["store"]["decompressedLines"] == 3


@pytest.mark.parametrize(
    ("path", "query", "words"),
    [
        ("/query_range", {}, "parse error at line 1, col 1: unexpected end of query"),
        ("/query_range", {"query": "{}"}, "empty-compatible"),
        ("/query_range", {"query": '{a="b"} | json x="y["'}, "line 1, col 11: cannot parse expression [y[]"),
        ("/query_range", {"query": '{a="b"}', "limit": "0"}, "limit must be a positive value"),
        ("/query_range", {"query": '{a="b"}', "limit": "x"}, "limit must be a positive value"),
        (
            "/query_range",
            {"query": '{a="b"}', "limit": ENTRIES_MAX + 1},
            f"limit > max_entries_limit_per_query ({ENTRIES_MAX + 1} > {ENTRIES_MAX})",
        ),
        ("/query_range", {"query": '{a="b"}', "direction": "up"}, "direction"),
        ("/query_range", {"query": '{a="b"}', "interval": "-5"}, "interval must be >= 0"),
        ("/query_range", {"query": '{a="b"}', "start": "5", "end": "4"}, "end timestamp must not be before"),
        ("/query_range", {"query": '{a="b"}', "start": "yesterday"}, "start: 'yesterday' is no time"),
        ("/query_range", {"query": '{a="b"}', "end": "2024-13-01T00:00:00Z"}, "end: '2024-13-01T00:00:00Z'"),
        ("/query_range", {"query": "vector(1)", "step": "0"}, "zero or negative"),
        ("/query_range", {"query": "vector(1)", "step": "-1"}, "zero or negative"),
        ("/query_range", {"query": "vector(1)", "step": "5q"}, "step: '5q' is not a duration"),
        ("/query_range", {"query": "vector(1)", "start": "0", "end": "11001.0", "step": "1"}, "11,000 points"),
        ("/query", {"query": '{a="b"}'}, "log queries are not supported as an instant query type"),
        ("/labels", {"query": '{a="b"} |= "x"'}, "expected end of query"),
        ("/series", {}, "match[]"),
        ("/index/stats", {}, "query is needed"),
        ("/index/volume", {}, "query is needed"),
        ("/index/volume", {"query": "{}", "limit": "0"}, "limit must be"),
        ("/index/volume", {"query": "{}", "aggregateBy": "x"}, "aggregateBy must be series or labels"),
        ("/index/volume_range", {"query": "{}", "step": "0"}, "zero or negative"),
        ("/detected_fields", {}, "parse error"),
        ("/detected_fields", {"query": 'rate({a="b"}[5m])'}, "not about metrics"),
        ("/detected_fields", {"query": '{a="b"}', "line_limit": "5001"}, "line_limit"),
        ("/detected_fields", {"query": '{a="b"}', "field_limit": "-1"}, "field_limit"),
        ("/detected_labels", {"query": '{a="b"} |= "x"'}, "expected end of query"),
        ("/patterns", {"query": '{a="b"}', "step": "-1"}, "zero or negative"),
        ("/patterns", {"query": '{a="b"}', "start": "0", "end": "1000000.0", "step": "1"}, "steps"),
    ],
)
async def test_bad_requests_are_answered_as_text(api: Any, path: str, query: dict[str, Any], words: str) -> None:
    answer = await api(path, query)
    assert answer.status == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert words in answer.text


async def test_series_over_the_limit_are_a_bad_request(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.query.logql.metrics.SERIES_MAX", 2)
    answer = await api("/query", {"query": 'count_over_time({service_name=~".+"}[1h])'})
    assert (answer.status, answer.text[:27]) == (400, "maximum number of series (2")


@pytest.mark.parametrize("path", ["/rules", "/delete", "/nothing"])
async def test_what_is_not_there(api: Any, path: str) -> None:
    assert (await api(path)).status == 404


def parameters(**values: str) -> Parameters:
    return Parameters(values.items(), NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000000000000001", 1_700_000_000_000_000_001),
        ("1700000000", 1_700_000_000 * SECOND),
        ("4000000000", 4 * SECOND),
        ("17", 17),
        ("1700000000.000000001", 1_700_000_000_000_000_001),
        ("1.7e9", 1_700_000_000 * SECOND),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * SECOND),
        ("2023-11-14T23:13:20.123456789+01:00", 1_700_000_000_123_456_789),
        ("-5", 0),
        ("99999999999999999999", 2**63 - 1),
    ],
)
def test_forms_of_time(text: str, expected: int) -> None:
    assert parameters(time=text).time("time") == expected


def test_bounds() -> None:
    hour = 3600 * SECOND
    assert parameters().bounds(hour) == (NOW - hour, NOW)
    assert parameters(since="5m").bounds(hour) == (NOW - 300 * SECOND, NOW)
    assert parameters(since="30").bounds(hour) == (NOW - 30 * SECOND, NOW)
    assert parameters(end="100.0", since="5m").bounds(hour) == (0, 100 * SECOND)
    future = str(NOW + hour)
    assert parameters(end=future, since="5m").bounds(hour) == (NOW - 300 * SECOND, NOW + hour)
    assert parameters(start="7", since="5m").bounds(hour) == (7, NOW)


def test_steps() -> None:
    assert parameters(step="2s").steps(0, 5 * SECOND).tolist() == [0, 2 * SECOND, 4 * SECOND]
    assert parameters(step="1h").steps(3, 5).tolist() == [3]
    assert len(parameters().steps(0, 500 * SECOND)) == 251
    assert parameters().steps(0, SECOND).tolist() == [0, SECOND]
    with pytest.raises(InvalidQuery, match="step"):
        parameters(step="1ns").steps(0, SECOND)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"),
        (0.1, "0.1"),
        (1e21, "1000000000000000000000"),
        (1e-7, "0.0000001"),
        (-0.0, "-0"),
        (float("nan"), "NaN"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
    ],
)
def test_sample_values(value: float, text: str) -> None:
    assert sample_text(value) == text


async def test_a_form_is_bounded() -> None:
    engine = Engine(1, 10.0, Stopped(NOW))
    loop = asyncio.get_running_loop()
    app = Starlette(routes=loki.routes({"logs": Store(LOGS, Ring(LOGS, 4, 1 << 20, 0), None, loop)}, engine))
    with pytest.raises(Exception, match=str(FORM_BYTES_MAX)):
        await call(
            app,
            "/loki/api/v1/query_range",
            method="POST",
            body=b"q" * (FORM_BYTES_MAX + 1),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
    engine.close()
