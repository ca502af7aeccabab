"""Loki's clients against a daemon: Promtail's pushes, Grafana's recorded requests, logcli's tail, Python's logging.

The requests are those of Grafana 13.1 (Explore, its log volume and label browser, live mode, Logs Drilldown), with
the query language's part as it sends it; what is asserted is the shape that it reads, and what it shows.
"""

from __future__ import annotations

import gzip
import json
import logging
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from websockets.sync.client import connect

from tests.daemon import Daemon
from tests.receivers.pushing import protobuf

SECOND = 1_000_000_000
PATH = "/loki/api/v1"
GRAFANA = {
    "X-Loki-Response-Encoding-Flags": "categorize-labels",
    "Accept-Encoding": "gzip",
    "User-Agent": "Grafana/13.1.0",
}
LINES = [
    '{"level":"error","msg":"payment failed","took":"12ms","user":{"id":7}}',
    'level=info msg="order placed" took=7ms',
    "GET /cart 200 in 5 ms",
    "GET /cart 200 in 9 ms",
]


@pytest.fixture(scope="module")
def now() -> int:
    return time.time_ns() // SECOND * SECOND - 60 * SECOND


@pytest.fixture(scope="module")
def pushed(daemon: Daemon, now: int) -> Daemon:
    """A daemon that has Promtail's lines as protobuf, and Alloy's as gzipped JSON."""
    streams = [
        ('{job="shop", filename="/var/log/shop.log", host="a"}', [(now + at, line) for at, line in enumerate(LINES)])
    ]
    headers = {"Content-Type": "application/x-protobuf", "User-Agent": "promtail/3.5.0"}
    answer = daemon.request(daemon.api, "POST", f"{PATH}/push", protobuf(streams), headers)
    assert (answer.code, answer.body) == (204, b"")
    values = [[str(now + 10), "from alloy", {"trace_id": "0af7651916cd43dd8448eb211c80319c"}]]
    body = gzip.compress(json.dumps({"streams": [{"stream": {"job": "alloy"}, "values": values}]}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "User-Agent": "Alloy/1.9"}
    assert daemon.request(daemon.api, "POST", f"{PATH}/push", body, headers).code == 204
    return daemon


def ask(daemon: Daemon, path: str, **query: Any) -> Any:
    return daemon.request(daemon.api, "GET", f"{PATH}{path}?{urlencode(query)}", None, GRAFANA).json()


def test_explore(pushed: Daemon, now: int) -> None:
    answer = ask(
        pushed,
        "/query_range",
        query='{job="shop"} |= `GET`',
        direction="backward",
        limit=1000,
        start=now - SECOND,
        end=now + SECOND,
        step="1000ms",
    )
    assert answer["status"] == "success"
    data = answer["data"]
    assert (data["resultType"], data["encodingFlags"]) == ("streams", ["categorize-labels"])
    labels = {"service_name": "shop", "job": "shop", "filename": "/var/log/shop.log", "host": "a"}
    metadata = {"structuredMetadata": {"detected_level": "unknown"}}
    assert data["result"] == [{"stream": labels, "values": [[str(now + at), LINES[at], metadata] for at in (3, 2)]}]
    assert 2 <= data["stats"]["summary"]["totalLinesProcessed"] <= 4  # the keyword index spares some
    parsed = ask(pushed, "/query_range", query='{job="shop"} | json | user_id=7', start=now, end=now + 9)
    [[_, _, more]] = parsed["data"]["result"][0]["values"]
    assert more["parsed"] == {"level": "error", "msg": "payment failed", "took": "12ms", "user_id": "7"}


def test_the_log_volume(pushed: Daemon, now: int) -> None:
    query = 'sum by (level, detected_level) (count_over_time({job="shop"} | drop __error__ [10s]))'
    data = ask(
        pushed, "/query_range", query=query, start=now, end=now + 10 * SECOND, step="10000ms", direction="backward"
    )
    series = {one["metric"]["detected_level"]: one["values"] for one in data["data"]["result"]}
    assert {level: [count for _, count in values][-1] for level, values in series.items()} == {
        "error": "1",
        "info": "1",
        "unknown": "2",
    }


def test_the_label_browser(pushed: Daemon, now: int) -> None:
    window = {"start": now, "end": now + 60 * SECOND}
    assert {"job", "filename", "host", "service_name"} <= set(ask(pushed, "/labels", **window)["data"])
    assert {"shop", "alloy"} <= set(ask(pushed, "/label/job/values", **window)["data"])
    series = ask(pushed, "/series", **{"match[]": '{host="a"}'}, **window)["data"]
    assert series == [{"service_name": "shop", "job": "shop", "filename": "/var/log/shop.log", "host": "a"}]
    stats = ask(pushed, "/index/stats", query='{job="shop"}', **window)
    assert (stats["streams"], stats["entries"], stats["bytes"]) == (1, 4, sum(map(len, LINES)))


def test_logs_drilldown(pushed: Daemon, now: int) -> None:
    """Its times are ISO, as browsers write them."""

    def iso(ns: int) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(ns // SECOND))

    window = {"start": iso(now), "end": iso(now + 60 * SECOND)}
    volume = ask(pushed, "/index/volume", query='{service_name=~".+"}', limit=5000, **window)["data"]["result"]
    volumes = {one["metric"]["service_name"]: int(one["value"][1]) for one in volume}
    assert volumes["shop"] == sum(map(len, LINES))
    labels = ask(pushed, "/detected_labels", query="", **window)["detectedLabels"]
    assert {"label": "filename", "cardinality": 1} in labels
    fields = {one["label"]: one for one in ask(pushed, "/detected_fields", query='{job="shop"}', **window)["fields"]}
    assert (fields["took"]["type"], fields["took"]["cardinality"]) == ("duration", 2)
    assert sorted(fields["took"]["parsers"]) == ["json", "logfmt"]
    assert fields["user_id"]["jsonPath"] == ["user", "id"]
    assert fields["detected_level"]["parsers"] is None
    values = ask(pushed, "/detected_field/took/values", query='{job="shop"}', **window)["values"]
    assert sorted(values) == ["12ms", "7ms"]
    patterns = ask(pushed, "/patterns", query='{job="shop"}', step="10s", **window)["data"]
    assert ("GET /cart 200 in <_> ms", 2) in [(one["pattern"], sum(n for _, n in one["samples"])) for one in patterns]
    limits = ask(pushed, "/drilldown-limits")
    assert limits["limits"]["volume_enabled"] is limits["pattern_ingester_enabled"] is True
    assert ask(pushed, "/status/buildinfo")["version"]
    assert ask(pushed, "/format_query", query='{job = "x"}')["data"] == '{job="x"}'


def test_a_trace_finds_its_line(pushed: Daemon, now: int) -> None:
    """docker-otel-lgtm's link from a trace, and what reaches the trace's own column."""
    query = '{job="alloy"} | trace_id="0af7651916cd43dd8448eb211c80319c"'
    [stream] = ask(pushed, "/query_range", query=query, start=now, end=now + SECOND)["data"]["result"]
    assert stream["values"][0][1] == "from alloy"


def test_live_mode(pushed: Daemon, now: int) -> None:
    asked = urlencode({"query": '{job="live"} | logfmt | level="warn"'})
    url = f"ws://{pushed.api}{PATH}/tail?{asked}"
    with connect(url, additional_headers={"User-Agent": "Grafana/13.1.0"}, proxy=None) as socket:
        at = time.time_ns()
        streams = [('{job="live"}', [(at, "level=info n=1"), (at + 1, "level=warn n=2")])]
        headers = {"Content-Type": "application/x-protobuf"}
        assert pushed.request(pushed.api, "POST", f"{PATH}/push", protobuf(streams), headers).code == 204
        frame = json.loads(socket.recv(timeout=30))
        assert frame == {
            "streams": [
                {
                    "stream": {
                        "job": "live",
                        "service_name": "live",
                        "detected_level": "warn",
                        "level": "warn",
                        "n": "2",
                    },
                    "values": [[str(at + 1), "level=warn n=2"]],
                }
            ],
            "dropped_entries": [],
        }


@pytest.mark.filterwarnings("ignore:`LoggingHandler`:DeprecationWarning")  # what programs use today
def test_a_python_logging_handler(daemon: Daemon) -> None:
    """Python's own logging, through the OpenTelemetry SDK: selected by service, with its level, and by a word."""
    provider = LoggerProvider(resource=Resource.create({"service.name": "py-app"}))
    provider.add_log_record_processor(
        SimpleLogRecordProcessor(OTLPLogExporter(endpoint=f"http://{daemon.http}/v1/logs"))
    )
    logger = logging.getLogger("shop.checkout")
    handler = LoggingHandler(logger_provider=provider)
    logger.addHandler(handler)
    logger.warning("the card of %s was refused", "ann", extra={"user": "ann"})
    logger.critical("out of paper")
    logger.removeHandler(handler)
    provider.shutdown()
    result = ask(daemon, "/query_range", query='{service_name="py-app"} |= "refused" | user="ann"')["data"]["result"]
    [[_, line, more]] = result[0]["values"]
    assert line == "the card of ann was refused"
    assert more["structuredMetadata"]["detected_level"] == "warn"
    assert more["structuredMetadata"]["scope_name"] == "shop.checkout"
    query = 'sum by (detected_level) (count_over_time({service_name="py-app"}[5m]))'
    levels = {one["metric"]["detected_level"] for one in ask(daemon, "/query", query=query)["data"]["result"]}
    assert levels == {"warn", "fatal"}


def test_an_acknowledged_push_outlives_the_process(tmp_path: Path) -> None:
    at = time.time_ns()
    with Daemon(tmp_path) as daemon:
        headers = {"Content-Type": "application/x-protobuf"}
        body = protobuf([('{job="kept"}', [(at, "acknowledged")])])
        assert daemon.request(daemon.api, "POST", f"{PATH}/push", body, headers).code == 204
        daemon.kill()
    with Daemon(tmp_path) as daemon:
        [stream] = ask(daemon, "/query_range", query='{job="kept"}')["data"]["result"]
        assert [line for _, line, *_ in stream["values"]] == ["acknowledged"]
        metrics = daemon.get("/metrics").body.decode()
        assert 'otelcol_receiver_accepted_log_records_total{receiver="loki",transport="http"} 0' in metrics


def test_tenants_come_to_be_by_being_pushed_to(tmp_path: Path) -> None:
    with Daemon(tmp_path, "tenants.enabled=true") as daemon:
        at = time.time_ns()
        body = protobuf([('{job="x"}', [(at, "mine")])])
        headers = {"Content-Type": "application/x-protobuf", "X-Scope-OrgID": "team-a"}
        codes = []
        while not codes or codes[-1] == 503:
            codes.append(daemon.request(daemon.api, "POST", f"{PATH}/push", body, headers).code)
            assert len(codes) < 1000
        assert codes[-1] == 204
        assert (
            daemon.request(daemon.api, "POST", f"{PATH}/push", body, {"Content-Type": "application/x-protobuf"}).code
            == 401
        )
        query = f"{PATH}/query_range?" + urlencode({"query": '{job="x"}'})
        found = daemon.request(daemon.api, "GET", query, None, {"X-Scope-OrgID": "team-a"}).json()
        assert len(found["data"]["result"]) == 1
        found = daemon.request(daemon.api, "GET", query, None, {"X-Scope-OrgID": "team-b"}).json()
        assert found["data"]["result"] == []
