"""S3: a text comes back from every query API as it was sent, or is refused with 400."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any
from urllib.parse import quote

import pytest

from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from tests.daemon import Daemon
from tests.hostile.texts import INVALID_UTF8, TEXTS, random_text

NOW_NS = 1_790_000_000_000_000_000
NOW_S = NOW_NS // 10**9
SEED = 3
RANDOM = [random_text(Random(SEED * 1000 + number)) for number in range(100)]
LONG = "0123456789abcdé\0" * (10 << 16)
"""10 MiB, and a little."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(
        tmp_path_factory.mktemp("text"),
        "wal.sync=never",
        *(f"stores.{signal.name}.max_bytes=128MiB" for signal in SIGNALS),
    ) as made:
        yield made


def send(daemon: Daemon, signal: Signal, request: Any, *, as_json: bool) -> None:
    body = request.SerializeToString()
    headers = {}
    if as_json:
        from collector.testing.otlp import to_json

        body, headers = to_json(signal, body), {"Content-Type": "application/json"}
    answer = daemon.export(f"/v1/{signal.name}", body, headers)
    assert answer.code == 200, answer
    assert answer.body in (b"", b"{}"), "nothing was rejected"


@pytest.mark.parametrize("as_json", [False, True], ids=["protobuf", "json"])
def test_spans(daemon: Daemon, as_json: bool) -> None:
    texts = [*TEXTS, *RANDOM, LONG]
    request = TRACES.request_type()
    inner = request.resource_spans.add().scope_spans.add()
    trace = (1 + as_json).to_bytes(16, "big")
    for number, text in enumerate(texts):
        span = inner.spans.add(
            trace_id=trace, span_id=(number + 1).to_bytes(8, "big"), name=text, start_time_unix_nano=NOW_NS
        )
        span.attributes.add(key=text if len(text) < 1000 else "long").value.string_value = text
    send(daemon, TRACES, request, as_json=as_json)
    small = TRACES.request_type()
    small.CopyFrom(request)
    found = TRACES.request_type.FromString(
        daemon.get(f"/api/traces/{trace.hex()}", {"Accept": "application/protobuf"}).body
    )
    spans = [span for envelope in found.resource_spans for scope in envelope.scope_spans for span in scope.spans]
    assert [span.name for span in spans] == texts
    assert [span.attributes[0].value.string_value for span in spans] == texts
    for text in (*TEXTS, *RANDOM[:20]):
        query = f"{{ name = {json.dumps(text)} }}" if text.isprintable() else None
        if query is not None:
            answer = daemon.get(f"/api/search?q={quote(query)}&start={NOW_S - 1}&end={NOW_S + 1}").json()
            names = [span["name"] for one in answer["traces"] for span in one["spanSet"]["spans"]]
            assert text in names


def test_spans_as_json(daemon: Daemon) -> None:
    request = TRACES.request_type()
    inner = request.resource_spans.add().scope_spans.add()
    texts = [*TEXTS, *RANDOM]
    for number, text in enumerate(texts):
        span = inner.spans.add(trace_id=b"j" * 16, span_id=(number + 1).to_bytes(8, "big"), name=text)
        span.attributes.add(key=text).value.string_value = text
    send(daemon, TRACES, request, as_json=False)
    batches = daemon.get(f"/api/traces/{(b'j' * 16).hex()}").json()["batches"]
    spans = [span for batch in batches for scope in batch["scopeSpans"] for span in scope["spans"]]
    assert [span["name"] for span in spans] == texts
    assert [span["attributes"][0]["key"] for span in spans] == texts
    tags = daemon.get("/api/v2/search/tags").json()
    assert set(texts) <= {name for scope in tags["scopes"] for name in scope["tags"]}


@pytest.mark.parametrize("as_json", [False, True], ids=["protobuf", "json"])
def test_log_records(daemon: Daemon, as_json: bool) -> None:
    texts = [*TEXTS, *RANDOM, LONG]
    service = f"logs-{as_json}"
    request = LOGS.request_type()
    envelope = request.resource_logs.add()
    envelope.resource.attributes.add(key="service.name").value.string_value = service
    inner = envelope.scope_logs.add()
    for number, text in enumerate(texts):
        record = inner.log_records.add(time_unix_nano=NOW_NS + number)
        record.body.string_value = text
        record.attributes.add(key="text").value.string_value = text
    send(daemon, LOGS, request, as_json=as_json)
    query = quote(f'{{service_name="{service}"}}')
    answer = daemon.get(
        f"/loki/api/v1/query_range?query={query}&start={NOW_NS}&end={NOW_NS + 10**9}&limit=1000&direction=forward"
    ).json()
    lines = sorted(
        (int(time), line, stream["stream"]["text"])
        for stream in answer["data"]["result"]
        for time, line in stream["values"]
    )
    assert [line for _, line, _ in lines] == texts
    assert [value for _, _, value in lines] == texts


@pytest.mark.parametrize("as_json", [False, True], ids=["protobuf", "json"])
def test_data_points(daemon: Daemon, as_json: bool) -> None:
    texts = list(dict.fromkeys((*TEXTS, *RANDOM)))
    request = METRICS.request_type()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=f"texts.{as_json}".lower())
    for number, text in enumerate(texts):
        point = metric.gauge.data_points.add(time_unix_nano=NOW_NS, as_double=number)
        point.attributes.add(key="text").value.string_value = text
    send(daemon, METRICS, request, as_json=as_json)
    query = quote(f"texts_{as_json}".lower())
    answer = daemon.get(f"/api/v1/query?query={query}&time={NOW_S + 1}").json()
    found = {float(one["value"][1]): one["metric"]["text"] for one in answer["data"]["result"]}
    assert [found[number] for number in range(len(texts))] == texts
    values = daemon.get(f"/api/v1/label/text/values?start={NOW_S - 1}&end={NOW_S + 1}").json()["data"]
    assert set(texts) <= set(values)


def _span(put: Callable[[Any, str], None]) -> bytes:
    """A request with one odd text, to be replaced by bytes that are no text."""
    request = TRACES.request_type()
    envelope = request.resource_spans.add()
    span = envelope.scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    put((envelope, span), "@@@@@@")
    return bytes(request.SerializeToString())


PLACES: dict[str, Callable[[Any, str], None]] = {
    "name": lambda parts, text: setattr(parts[1], "name", text),
    "key": lambda parts, text: parts[1].attributes.add(key=text),
    "value": lambda parts, text: setattr(parts[1].attributes.add(key="a").value, "string_value", text),
    "nested": lambda parts, text: setattr(
        parts[1].attributes.add(key="a").value.array_value.values.add(), "string_value", text
    ),
    "service": lambda parts, text: setattr(
        parts[0].resource.attributes.add(key="service.name").value, "string_value", text
    ),
    "schema URL": lambda parts, text: setattr(parts[0], "schema_url", text),
    "scope": lambda parts, text: setattr(parts[0].scope_spans[0].scope, "name", text),
    "event": lambda parts, text: setattr(parts[1].events.add(), "name", text),
    "trace state": lambda parts, text: setattr(parts[1], "trace_state", text),
    "status": lambda parts, text: setattr(parts[1].status, "message", text),
}


@pytest.mark.parametrize("place", PLACES)
def test_bytes_that_are_no_utf8_are_refused_everywhere(daemon: Daemon, place: str) -> None:
    template = _span(PLACES[place])
    assert template.count(b"@@@@@@") == 1
    for odd in INVALID_UTF8:
        padded = odd.ljust(6, b"x") if odd != b"\xe2\x82" else odd.rjust(6, b"x")
        assert daemon.export("/v1/traces", template.replace(b"@@@@@@", padded)).code == 400


@pytest.mark.parametrize("odd", [*INVALID_UTF8, rb"\ud800", rb"\udc00\ud800", rb"\ud83d\u0041", rb"\u12", rb"\x41"])
def test_json_that_is_no_text_is_refused(daemon: Daemon, odd: bytes) -> None:
    body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"%s"}]}]}]}' % odd
    assert daemon.export("/v1/traces", body, {"Content-Type": "application/json"}).code == 400
    body = b'{"resourceSpans":[],"%s":1}' % odd
    assert daemon.export("/v1/traces", body, {"Content-Type": "application/json"}).code == 400
