"""What a block's columns should be: the protobuf library's verdict on a payload, and its values."""

from __future__ import annotations

import struct

from google.protobuf.message import DecodeError

from collector.errors import Malformed
from collector.otlp.block import Block
from collector.otlp.records import metric, record, resource, scope
from collector.otlp.scan import BlockBuilder
from collector.otlp.signals import METRICS, TRACES, Signal
from collector.otlp.wire import hash_key


def library_accepts(signal: Signal, payload: bytes) -> bool:
    try:
        signal.request_type.FromString(payload)
    except DecodeError:
        return False
    return True


def scanner_accepts(signal: Signal, payload: bytes) -> bool:
    try:
        BlockBuilder(signal).add(payload)
    except Malformed:
        return False
    return True


def all_records(signal: Signal, request) -> list[tuple]:
    """Every record of a request as (envelope, scope container, metric or None, data or None, record)."""
    found = []
    for envelope in getattr(request, f"resource_{'spans' if signal is TRACES else signal.name}"):
        for inner in getattr(envelope, f"scope_{'spans' if signal is TRACES else signal.name}"):
            if signal is not METRICS:
                for item in inner.spans if signal is TRACES else inner.log_records:
                    found.append((envelope, inner, None, None, item))
                continue
            for one in inner.metrics:
                kind = one.WhichOneof("data")
                if kind is not None:
                    data = getattr(one, kind)
                    found.extend((envelope, inner, one, data, point) for point in data.data_points)
    return found


def service_of(envelope) -> str:
    for pair in envelope.resource.attributes:
        if pair.key == "service.name":
            return pair.value.string_value
    return ""


def word(raw: bytes, size: int) -> list[int]:
    return list(struct.unpack(f"<{size // 8}Q", raw if len(raw) == size else bytes(size)))


def assert_columns(signal: Signal, block: Block, payload: bytes) -> None:
    """Compare every column and every lazily decoded part with the library's view of the payload."""
    expected = all_records(signal, signal.request_type.FromString(payload))
    assert block.count == len(expected)
    for row, (envelope, inner, one, data, item) in enumerate(expected):
        group = int(block.column("group")[row])
        assert record(block, row) == item
        assert resource(block, group) == envelope.resource
        assert scope(block, group) == inner.scope
        service = service_of(envelope)
        assert block.column("service")[row] == hash_key(service.encode())
        assert block.group_column("service")[group] == hash_key(service.encode())
        if signal is METRICS:
            kind = one.WhichOneof("data")
            assert metric(block, group).name == one.name
            assert metric(block, group).WhichOneof("data") == kind
            assert block.column("name")[row] == hash_key(one.name.encode())
            assert block.column("type")[row] == 1 + [
                "gauge",
                "sum",
                "histogram",
                "exponential_histogram",
                "summary",
            ].index(kind)
            assert block.column("time")[row] == item.time_unix_nano
            assert block.column("start_time")[row] == item.start_time_unix_nano
            assert block.column("flags")[row] == item.flags
            assert block.group_column("temporality")[group] == getattr(data, "aggregation_temporality", 0) & 0xFF
            assert block.group_column("monotonic")[group] == getattr(data, "is_monotonic", False)
            if kind in ("gauge", "sum"):
                which = item.WhichOneof("value")
                value = float(getattr(item, which)) if which else 0.0
            else:
                value = item.sum
            assert struct.pack("<d", block.column("value")[row]) == struct.pack("<d", value)
            continue
        assert block.column("trace_id")[row].tolist() == word(item.trace_id, 16)
        assert [int(block.column("span_id")[row])] == word(item.span_id, 8)
        if signal is TRACES:
            assert block.column("time")[row] == item.start_time_unix_nano
            assert block.column("end_time")[row] == item.end_time_unix_nano
            assert [int(block.column("parent_span_id")[row])] == word(item.parent_span_id, 8)
            assert block.column("name")[row] == hash_key(item.name.encode())
            assert block.column("kind")[row] == (item.kind if 0 <= item.kind < 255 else 255)
            assert block.column("status")[row] == (item.status.code if 0 <= item.status.code < 255 else 255)
        else:
            assert block.column("time")[row] == (item.time_unix_nano or item.observed_time_unix_nano)
            assert block.column("observed_time")[row] == item.observed_time_unix_nano
            severity = item.severity_number
            assert block.column("severity")[row] == (severity if 0 <= severity < 255 else 255)
            assert bool(block.column("body_length")[row]) == bool(item.body.ByteSize())
    if block.count:
        assert block.min_time == int(block.column("time").min())
        assert block.max_time == int(block.column("time").max())
