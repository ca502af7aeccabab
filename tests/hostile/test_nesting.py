"""S2: values nested to any depth, and records of any width: refused alike in protobuf and JSON, or read back from both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from collector.testing import otlp
from tests.daemon import Daemon
from tests.fuzz.wire import varint
from tests.hostile.resident import cpu_seconds, growth

DEPTHS = (1, 10, 40, 45, 46, 47, 48, 49, 50, 60, 100, 1000, 10_000, 100_000)
CPU_MAX_S = 0.1
TICK_S = 0.01
"""The clock of /proc ticks so often."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("nesting"), "wal.sync=never", "stores.traces.max_bytes=256MiB") as made:
        yield made


def delimited(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def span(trace: int, attributes: bytes) -> bytes:
    """A request of one span with these bytes of attributes."""
    fields = delimited(1, trace.to_bytes(16, "big")) + delimited(2, b"s" * 8) + b"\x39" + (10**18).to_bytes(8, "little")
    return delimited(1, delimited(2, delimited(2, fields + attributes)))


def nested(depth: int, kind: str) -> bytes:
    """An attribute of `depth` arrays, or key-value lists, inside each other, written from the inside out in linear time."""
    pieces = [b"\x10\x01"]
    length = 2
    for _ in range(depth):
        if kind == "array":
            inner = b"\x0a" + varint(length)
        else:
            pair = b"\x0a\x01k\x12" + varint(length)
            length += len(pair)
            pieces.append(pair)
            inner = b"\x0a" + varint(length)
        pieces.append(inner)
        length += len(inner)
        outer = (b"\x2a" if kind == "array" else b"\x32") + varint(length)
        pieces.append(outer)
        length += len(outer)
    value = b"".join(reversed(pieces))
    return delimited(9, delimited(1, b"deep") + delimited(2, value))


def nested_json(trace: int, depth: int, kind: str) -> bytes:
    opening = '{"arrayValue":{"values":[' if kind == "array" else '{"kvlistValue":{"values":[{"key":"k","value":'
    closing = "]}}" if kind == "array" else "}]}}"
    value = opening * depth + '{"boolValue":true}' + closing * depth
    template = (
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"TRACE","spanId":"7373737373737373",'
        '"startTimeUnixNano":"1000000000000000000","attributes":[{"key":"deep","value":VALUE}]}]}]}]}'
    )
    return template.replace("TRACE", f"{trace:032x}").replace("VALUE", value).encode()


@pytest.mark.parametrize("kind", ["array", "list"])
def test_the_same_depth_in_protobuf_and_json(daemon: Daemon, kind: str) -> None:
    verdicts: dict[int, int] = {}
    for depth in DEPTHS:
        trace = depth << 4 | (kind == "array") << 1
        for number, body, headers in (
            (trace + 4, span(trace + 4, nested(depth, kind)), {}),
            (trace + 5, nested_json(trace + 5, depth, kind), {"Content-Type": "application/json"}),
        ):
            before = cpu_seconds(daemon)
            with growth(daemon) as grown:
                answer = daemon.export("/v1/traces", body, headers)
            assert answer.code in (200, 400), (depth, answer)
            assert cpu_seconds(daemon) - before <= CPU_MAX_S + TICK_S
            assert grown.bytes < 16 << 20
            assert verdicts.setdefault(depth, answer.code) == answer.code, "one limit for both"
            if answer.code == 200:
                assert_comes_back(daemon, number, depth, kind)
    assert verdicts[1] == 200
    assert verdicts[1000] == 400


def assert_comes_back(daemon: Daemon, trace: int, depth: int, kind: str) -> None:
    """Read a trace in both forms, and count its levels."""
    found = trace_pb2.TracesData.FromString(
        daemon.get(f"/api/traces/{trace:032x}", {"Accept": "application/protobuf"}).body
    )
    value: Any = found.resource_spans[0].scope_spans[0].spans[0].attributes[0].value
    tree = daemon.get(f"/api/traces/{trace:032x}").json()
    plain = tree["batches"][0]["scopeSpans"][0]["spans"][0]["attributes"][0]["value"]
    for _ in range(depth):
        value = value.array_value.values[0] if kind == "array" else value.kvlist_value.values[0].value
        plain = plain["arrayValue"]["values"][0] if kind == "array" else plain["kvlistValue"]["values"][0]["value"]
    assert value.bool_value
    assert plain == {"boolValue": True}


@pytest.mark.parametrize(
    ("trace", "attributes"),
    [
        (1, delimited(9, b"\x0a\x01k\x12\x02\x10\x01") * 1_000_000),
        (2, delimited(9, b"") * 10_000_000),
        (3, delimited(9, delimited(1, b"k" * (10 << 20)) + b"\x12\x02\x10\x01")),
        (4, delimited(9, delimited(1, b"k") + delimited(2, delimited(1, b"v" * (10 << 20))))),
        (5, delimited(9, b"\x0a\x01k\x12\x02\x10\x01") * 2 + delimited(9, b"\x0a\x01k\x12\x02\x10\x00")),
    ],
    ids=["1M attributes", "10M empty ones", "10 MiB key", "10 MiB value", "duplicate keys"],
)
def test_wide_records_are_stored_and_read_back(daemon: Daemon, trace: int, attributes: bytes) -> None:
    body = span(trace, attributes)
    with growth(daemon) as grown:
        answer = daemon.export("/v1/traces", body)
    assert answer.code == 200, answer
    assert grown.bytes < 3 * len(body) + (16 << 20)
    with growth(daemon) as grown:
        found = daemon.get(f"/api/traces/{trace:032x}", {"Accept": "application/protobuf"})
        assert found.code == 200
        assert delimited(2, b"s" * 8) in found.body
        assert attributes in found.body, "as they were sent"
        as_json = daemon.get(f"/api/traces/{trace:032x}")
        # A trace that would take a lot of room as JSON is refused with a word why.
        assert as_json.code == (200 if len(body) <= 8 << 20 else 422), as_json.body[:200]
        assert daemon.get("/api/search?q=%7B%20.k%20%3D%20true%20%7D").code == 200
        assert daemon.get("/api/v2/search/tags").code == 200
    assert grown.bytes < 16 * len(body) + (64 << 20)


def test_ten_million_attributes_as_json_are_bounded(daemon: Daemon) -> None:
    text = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[' + b"{}," * 10_000_000 + b"{}]}]}]}]}"
    with growth(daemon) as grown:
        answer = daemon.export("/v1/traces", text, {"Content-Type": "application/json"})
    assert answer.code == 200, "a span without ids is told as rejected"
    assert json.loads(answer.body)["partialSuccess"]["rejectedSpans"] in (1, "1")
    assert grown.bytes < 24 * len(text)


def test_numbers_that_are_too_long(daemon: Daemon) -> None:
    good = otlp.traces(1)
    for tail in (
        b"\x0a" + b"\xff" * 9 + b"\x01",  # a length of 2^64 - 1, which is -1
        b"\x0a" + b"\xff" * 20,
        b"\x0a\x80\x80\x80\x80\x10",
        b"\xff" * 11,
        b"\x08" + b"\x80" * 10 + b"\x01",
    ):
        assert daemon.export("/v1/traces", good + tail).code == 400
