"""`/loki/api/v1/push` over a real store: what Promtail, Docker's driver and Alloy send is there under its labels."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from collector.api import loki_push
from collector.otlp.records import tagged
from collector.receivers import loki as pushing
from tests.api.asgi import Answer, call
from tests.live import Live
from tests.receivers.pushing import message, protobuf, request, snappy

NOW = 1_800_000_000_000_000_000
PATH = "/loki/api/v1/push"
PROTOBUF = {"Content-Type": "application/x-protobuf", "User-Agent": "promtail/3.0"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with Live(tmp_path) as made:
        yield made


async def push(live: Live, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    answer = await call(live.app, PATH, method="POST", body=body, headers=headers or PROTOBUF)
    assert live.admission.in_flight_bytes == 0, "what a request held was given back"
    return answer


async def lines(live: Live, query: str) -> list[Any]:
    """Streams with all labels, and lines oldest first."""
    asked = {"query": query, "start": NOW - 10**9, "end": NOW + 10**12, "direction": "forward"}
    answer = await call(live.app, "/loki/api/v1/query_range", asked, headers={})
    assert answer.status == 200, answer.text
    return [
        (one["stream"], [(int(time) - NOW, line) for time, line in one["values"]])
        for one in answer.json["data"]["result"]
    ]


STREAMS = [
    ('{job="varlogs", filename="/var/log/syslog", host="a"}', [(NOW, "one"), (NOW + 1, "two é")]),
    ('{job="varlogs", filename="/var/log/auth.log", host="a"}', [(NOW + 2, "login failed")]),
    ('{app="shop", namespace__x="y", k8s_pod_name="p-1", level="warn"}', [(NOW + 3, "three")]),
]


async def test_a_push_of_promtail_is_selected_by_its_labels(live: Live) -> None:
    answer = await push(live, protobuf(STREAMS))
    assert (answer.status, answer.body) == (204, b"")
    host = {"service_name": "varlogs", "job": "varlogs", "host": "a", "detected_level": "unknown"}
    assert await lines(live, '{job="varlogs"}') == [
        (host | {"filename": "/var/log/auth.log"}, [(2, "login failed")]),
        (host | {"filename": "/var/log/syslog"}, [(0, "one"), (1, "two é")]),
    ]
    assert await lines(live, '{namespace__x=~"y|z"} |= "three"') == [
        (
            {
                "service_name": "shop",
                "app": "shop",
                "namespace__x": "y",
                "k8s_pod_name": "p-1",
                "level": "warn",
                "severity_number": "13",
                "detected_level": "warn",
            },
            [(3, "three")],
        )
    ]
    labels = (await call(live.app, "/loki/api/v1/labels", {"start": NOW - 1, "end": NOW + 10})).json["data"]
    assert labels == sorted({"job", "filename", "host", "app", "namespace__x", "k8s_pod_name", "level", "service_name"})
    assert live.metric("otelcol_receiver_accepted_log_records_total", receiver="loki", transport="http") == 4


async def test_the_same_as_json_and_gzipped(live: Live) -> None:
    streams = [
        {
            "stream": {"job": 'quote " back \\ line', "empty": ""},
            "values": [
                [str(NOW), "a"],
                [str(NOW + 1), "b", {"user": "u1", "trace_id": "0af7651916cd43dd8448eb211c80319c"}],
            ],
        }
    ]
    body = json.dumps({"streams": streams}).encode()
    assert (await push(live, body, JSON)).status == 204
    assert (await push(live, gzip.compress(body), JSON | {"Content-Encoding": "gzip"})).status == 204
    expected = {
        "service_name": 'quote " back \\ line',
        "job": 'quote " back \\ line',
        "user": "u1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "detected_level": "unknown",
    }
    assert (await lines(live, '{job=~".+"} | user="u1"')) == [(expected, [(1, "b"), (1, "b")])]
    record = await call(live.app, "/loki/api/v1/query_range", {"query": '{job=~".+"}', "start": NOW, "end": NOW + 9})
    assert sum(len(one["values"]) for one in record.json["data"]["result"]) == 4


async def test_structured_metadata_goes_where_otlp_has_a_field_for_it(live: Live) -> None:
    metadata = {
        "trace_id": "0AF7651916CD43DD8448EB211C80319C",
        "span_id": "b7ad6b7169203331",
        "severity_number": "17",
        "severity_text": "ERROR",
        "user.id": "7",
        "empty": "",
    }
    assert (await push(live, protobuf([('{service_name="a"}', [(NOW, "x", metadata)])]))).status == 204
    [(labels, _)] = await lines(live, '{service_name="a"}')
    assert labels == {
        "service_name": "a",
        "trace_id": "0AF7651916CD43DD8448EB211C80319C",
        "span_id": "b7ad6b7169203331",
        "severity_number": "17",
        "severity_text": "ERROR",
        "user_id": "7",
        "detected_level": "error",
    }
    block = live.stores["logs"].view().ring.blocks[0]
    assert block.column("severity").tolist() == [17]
    assert block.column("trace_id").any() == False  # noqa: E712 - upper case does not read back the same
    assert block.column("span_id").any()


@pytest.mark.parametrize(
    ("labels", "metadata", "severity", "level"),
    [
        ('{a="b"}', {}, 0, "unknown"),
        ('{a="b", level="ERROR"}', {}, 17, "error"),
        ('{a="b", level="odd"}', {}, 0, "odd"),
        ('{a="b"}', {"level": "debug"}, 5, "debug"),
        ('{a="b", level="info"}', {"detected_level": "crit"}, 9, "crit"),
        ('{a="b"}', {"detected_level": "critical"}, 21, "critical"),
        ('{a="b"}', {"severity_number": "25"}, 0, "unknown"),
        ('{a="b"}', {"severity_number": "07"}, 0, "unknown"),
    ],
)
async def test_levels(live: Live, labels: str, metadata: dict[str, str], severity: int, level: str) -> None:
    assert (await push(live, protobuf([(labels, [(NOW, "x", metadata)])]))).status == 204
    [(found, _)] = await lines(live, '{a="b"}')
    assert found["detected_level"] == level
    assert live.stores["logs"].view().ring.blocks[0].column("severity").tolist() == [severity]


async def test_what_is_wrong_costs_what_it_is_about(live: Live) -> None:
    streams = [
        ('{a="b"}', [(NOW, "kept"), (-1, "too old")]),
        ("{a=b}", [(NOW, "no labels")]),
        ("{}", [(NOW, "none")]),
        ('{a="b", a="c"}', [(NOW, "twice")]),
        ('{a!="b"}', [(NOW, "not equal")]),
        ("{" + ", ".join(f'l{n}="v"' for n in range(65)) + "}", [(NOW, "many")]),
    ]
    answer = await push(live, protobuf(streams))
    assert answer.status == 400
    assert '1 entries of {a="b"} have times before 1970' in answer.text
    assert "error parsing labels '{a=b}' with error: parse error at line 1, col 4" in answer.text
    assert "at least one label pair is required per stream" in answer.text
    assert "duplicate label name: 'a'" in answer.text
    assert "65 label names; limit 64" in answer.text
    assert "(1 entries are stored, 6 are not)" in answer.text
    assert [line for _, found in await lines(live, '{a="b"}') for _, line in found] == ["kept"]
    labels = {"receiver": "loki", "transport": "http"}
    assert live.metric("otelcol_receiver_refused_log_records_total", **labels) == 6
    assert live.metric("ringtail_receiver_requests_total", signal="logs", transport="loki", outcome="partial") == 1


async def test_texts_that_are_not_utf8_are_made_so(live: Live) -> None:
    made = request([('{a="b"}', [(NOW, "", {"k": ""})]), ('{a="b"}', [(NOW + 1, "whole")])])
    made.streams[0].entries[0].line = b"caf\xe9"
    made.streams[0].entries[0].metadata[0].value = b"\xff"
    assert (await push(live, snappy(made.SerializeToString()))).status == 204
    found = await lines(live, '{a="b"}')
    assert [(labels.get("k"), values) for labels, values in found] == [
        ("\N{REPLACEMENT CHARACTER}", [(0, "caf\N{REPLACEMENT CHARACTER}")]),
        (None, [(1, "whole")]),
    ]


HOSTILE = [
    (b"", PROTOBUF, 422, "at least one valid stream"),
    (snappy(b""), PROTOBUF, 422, "at least one valid stream"),
    (b"\xff\xff\xff\xff\xff", PROTOBUF, 400, "snappy"),
    (b"\x80\x80\x80\x80\x08" + b"\x00" * 9, PROTOBUF, 413, "after decompression"),
    (b"\xff\xff\xff\x7f" + b"\x00" * 9, PROTOBUF, 413, "after decompression"),
    (b"\x10\x00\x00", PROTOBUF, 400, "does not inflate"),
    (snappy(b"\x0a\x05\x0a"), PROTOBUF, 400, "no valid form"),
    (snappy(b"\x0a\x02\x12\x01"), PROTOBUF, 400, "no valid form"),
    (snappy(b"\x0b" * 500), PROTOBUF, 400, "no valid form"),
    (snappy(b"\x0a\x00" * 10_001), PROTOBUF, 413, "10001 streams"),
    (snappy(tagged(1, b"\x12\x00" * 200_001)), PROTOBUF, 413, "200001 entries"),
    (snappy(tagged(1, tagged(2, b"\x1a\x00" * 1_000_001))), PROTOBUF, 413, "1000001 labels"),
    (b"{}", JSON, 400, "no push request"),
    (b"[" * 100_000, JSON, 400, "no push request"),
    (b'{"x":' + b"[" * 100_000, JSON, 400, "no push request"),
    (b'{"streams":[]}', JSON, 422, "at least one valid stream"),
    (b'{"streams":[{"stream":{"a":"b"},"values":[[5,"x"]]}]}', JSON, 400, "no push request"),
    (b'{"streams":[{"stream":{"a":"b"},"values":[["5"]]}]}', JSON, 400, "no push request"),
    (b'{"streams":[{"stream":{"a":"b"},"values":[["soon","x"]]}]}', JSON, 400, "Unix nanoseconds"),
    (b'{"streams":[{"stream":{"a":"b"},"values":[["5","x",{"a":{}}]]}]}', JSON, 400, "no push request"),
    (b'{"streams":[{"stream":{"a":"b"},"values":[["99999999999999999999","x"]]}]}', JSON, 400, "Unix nanoseconds"),
    (b'{"streams":[{"stream":{"a b":"b"},"values":[["5","x"]]}]}', JSON, 400, "error parsing labels"),
    (b"x", JSON | {"Content-Encoding": "gzip"}, 400, "gzip"),
    (gzip.compress(b" " * 9_000_000), JSON | {"Content-Encoding": "gzip"}, 413, "after decompression"),
    (b"x", JSON | {"Content-Encoding": "br"}, 415, "gzip"),
    (b"x", JSON | {"Content-Encoding": "snappy"}, 415, "gzip"),
    (b"a=b", {"Content-Type": "text/plain"}, 415, "Content-Type"),
    (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "Content-Type"),
]


@pytest.mark.parametrize(("body", "headers", "code", "words"), HOSTILE)
async def test_hostile_bodies(live: Live, body: bytes, headers: dict[str, str], code: int, words: str) -> None:
    answer = await push(live, body, headers)
    assert (answer.status, words in answer.text) == (code, True), answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert live.stores["logs"].ring.next_offset == 0


async def test_what_announces_or_sends_too_much_is_not_read(live: Live) -> None:
    answer = await push(live, b"x", PROTOBUF | {"Content-Length": "999999999999"})
    assert answer.status == 413
    answer = await push(live, b"x", PROTOBUF | {"Content-Length": "x"})
    assert answer.status == 413
    assert (await push(live, b"x" * (pushing.PUSH_BYTES_MAX + 1))).status == 413


async def test_a_full_budget_and_a_daemon_that_stops_are_told_to_come_again(live: Live) -> None:
    other = live.admission.share()
    other.admit(live.admission.bytes_max)
    answer = await call(live.app, PATH, method="POST", body=protobuf(STREAMS) * 1, headers=PROTOBUF)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    other.release(live.admission.bytes_max)
    await live.admission.drain()
    answer = await push(live, protobuf(STREAMS))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    live.admission.draining = False
    live.pushes._receiver = None
    assert (await push(live, protobuf(STREAMS))).status == 503


async def test_a_large_request_is_made_otlp_in_a_thread(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loki_push, "INLINE_BYTES_MAX", 100)
    body = protobuf([(f'{{job="j{n}"}}', [(NOW + n, "line " * 20, {"n": str(n)})]) for n in range(50)])
    answers = await asyncio.gather(
        *(call(live.app, PATH, method="POST", body=body, headers=PROTOBUF) for _ in range(3))
    )
    assert [answer.status for answer in answers] == [204] * 3
    assert live.stores["logs"].ring.next_offset == 150


async def test_get_is_not_for_pushing(live: Live) -> None:
    assert (await call(live.app, PATH)).status == 405


def test_protobuf_of_json_is_what_a_client_would_send() -> None:
    body = json.dumps({"streams": [{"stream": {"a": "b"}, "values": [[str(NOW + 5), "é", {"k": "v"}]]}]}).encode()
    written = pushing._written(pushing._read_json(body))
    assert message("PushRequest").FromString(written) == request([('{a="b"}', [(NOW + 5, "é", {"k": "v"})])])
