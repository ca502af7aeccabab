"""Records out of blocks, when an answer needs them: decoded one by one, or regrouped as OTLP bytes.

`record`, `resource`, `scope` and `metric` parse just the message they return. `regroup` makes a request out of
any selection of records without parsing one: the records' bytes are copied as they are, and so are the
containers' own fields (schema URLs and fields of later OTLP versions included).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal
from collector.otlp.wire import own_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from collector.otlp.block import Block

RESOURCE_ATTRIBUTES = 1
SCOPE_ATTRIBUTES = 3
SPAN_ATTRIBUTES = 9
LOG_ATTRIBUTES = 6

_RECORD_TYPES: dict[Signal, Any] = {TRACES: trace_pb2.Span, LOGS: logs_pb2.LogRecord}
_POINT_TYPES: tuple[Any, ...] = (
    None,
    metrics_pb2.NumberDataPoint,
    metrics_pb2.NumberDataPoint,
    metrics_pb2.HistogramDataPoint,
    metrics_pb2.ExponentialHistogramDataPoint,
    metrics_pb2.SummaryDataPoint,
)
_DATA_FIELDS = (0, 5, 7, 9, 10, 11)  # the field of Metric that holds the points, by type


class Ref(NamedTuple):
    """One record of a block. Refs order as answers do: by time, then by offset."""

    time: int
    """The record's time in Unix ns."""
    offset: int
    """The record's offset in its signal's log."""
    block: Block
    row: int


def isolate(ref: Ref) -> Ref:
    """Return the same record in a block of its own, so that a large block need not be held for it."""
    block = scan(ref.block.signal, regroup([ref]), ref.offset)
    return Ref(ref.time, ref.offset, block, 0)


def record_bytes(block: Block, row: int) -> bytes:
    """Return one record's own message, serialized."""
    start = block.records.number("start", row)
    return bytes(memoryview(block.payload)[start : start + block.records.number("length", row)])


def record(block: Block, row: int) -> Any:
    """Decode one record: a Span, a LogRecord or one of the five data point messages."""
    if block.signal is METRICS:
        kind = _POINT_TYPES[block.column("type")[row]]
    else:
        kind = _RECORD_TYPES[block.signal]
    return kind.FromString(record_bytes(block, row))


def resource(block: Block, group: int) -> Any:
    """Decode a group's Resource; an empty one when there is none."""
    return resource_pb2.Resource.FromString(group_bytes(block, group, "resource"))


def scope(block: Block, group: int) -> Any:
    """Decode a group's InstrumentationScope; an empty one when there is none."""
    return common_pb2.InstrumentationScope.FromString(group_bytes(block, group, "scope"))


def metric(block: Block, group: int) -> Any:
    """Decode a group's Metric without its points: name, description, unit, data type, temporality."""
    fields = _fields(group_bytes(block, group, "metric"))
    parts = []
    for number, whole, content in fields:
        if number in _DATA_FIELDS:
            own = b"".join(piece for inner, piece, _ in _fields(content) if inner != 1)
            parts.append(tagged(number, own))
        else:
            parts.append(whole)
    return metrics_pb2.Metric.FromString(b"".join(parts))


def group_bytes(block: Block, group: int, part: str) -> bytes:
    """Return the bytes of one part of a group: `resource`, `scope`, `service`, `metric`, `name`, …"""
    start, length = _extent(block, group, part)
    return bytes(memoryview(block.payload)[start : start + length])


def _extent(block: Block, group: int, part: str) -> tuple[int, int]:
    return block.groups.number(f"{part}_start", group), block.groups.number(f"{part}_length", group)


def service_name(block: Block, group: int) -> str:
    """Return the group's service.name, or an empty string."""
    return group_bytes(block, group, "service").decode()


def regroup(refs: Iterable[Ref]) -> bytes:
    """Return one request (TracesData, LogsData, MetricsData) that holds exactly these records.

    Records of containers with the same bytes around them share a container; containers and records keep the
    order of their first appearance. Empty for no records.
    """
    envelopes: dict[bytes, dict[bytes, Any]] = {}
    last: tuple[Block | None, int] = (None, 0)
    outer = inner = b""
    for _, _, block, row in refs:
        group = block.records.number("group", row)
        if last[1] != group or last[0] is not block:
            last = (block, group)
            outer = own_fields(block.payload, *_extent(block, group, "envelope"), 2)
            inner = own_fields(block.payload, *_extent(block, group, "scope_envelope"), 2)
        scopes = envelopes.setdefault(outer, {})
        piece = record_bytes(block, row)
        if block.signal is METRICS:
            whole = group_bytes(block, group, "metric")
            field = _DATA_FIELDS[block.column("type")[row]]
            data = b"".join(content for number, _, content in _fields(whole) if number == field)
            key = (own_fields(whole, 0, len(whole), field), field, own_fields(data, 0, len(data), 1))
            scopes.setdefault(inner, {}).setdefault(key, []).append(tagged(1, piece))
        else:
            scopes.setdefault(inner, []).append(tagged(2, piece))
    parts = []
    for outer, scopes in envelopes.items():
        body = [outer]
        for inner, records in scopes.items():
            body.append(tagged(2, inner + b"".join(_metrics(records) if isinstance(records, dict) else records)))
        parts.append(tagged(1, b"".join(body)))
    return b"".join(parts)


def _metrics(metrics: dict[tuple[bytes, int, bytes], list[bytes]]) -> list[bytes]:
    return [tagged(2, own + tagged(field, data + b"".join(points))) for (own, field, data), points in metrics.items()]


def top_level_fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (number, content) of the length-delimited fields of a validated message, unknown ones too."""
    for number, whole, content in _fields(message):
        if whole[0] & 7 == 2:
            yield number, content


def _fields(message: bytes) -> list[tuple[int, bytes, bytes]]:
    """Split a validated message into (field number, the whole field, its content if length-delimited)."""
    found = []
    at = 0
    while at < len(message):
        begin = at
        tag, at = read_varint(message, at)
        content = b""
        wire = tag & 7
        if wire == 0:
            _, at = read_varint(message, at)
        elif wire == 1:
            at += 8
        elif wire == 5:
            at += 4
        elif wire == 2:
            length, at = read_varint(message, at)
            content = message[at : at + length]
            at += length
        else:
            at = _group_end(message, at)
        found.append((tag >> 3, message[begin:at], content))
    return found


def _group_end(message: bytes, at: int) -> int:
    depth = 1
    while depth:
        tag, at = read_varint(message, at)
        wire = tag & 7
        if wire == 0:
            _, at = read_varint(message, at)
        elif wire == 2:
            length, at = read_varint(message, at)
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            depth += 1 if wire == 3 else -1
    return at


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the varint that lies at a place of a valid message, and the place behind it."""
    result = shift = 0
    while True:
        byte = message[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7


def data_field(kind: int) -> int:
    """Return the field of Metric that holds the points, by the `type` column."""
    return _DATA_FIELDS[kind]


def tagged(field: int, content: bytes) -> bytes:
    """Return a field of bytes, or of a message that is bytes already. Its number is at most 15."""
    length = len(content)
    if length < 0x80:
        return bytes((field << 3 | 2, length)) + content
    if length < 0x4000:
        return bytes((field << 3 | 2, length & 0x7F | 0x80, length >> 7)) + content
    out = bytearray((field << 3 | 2,))
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out) + content


def id_words(raw: bytes) -> np.ndarray:
    """Return an id of 8 or 16 bytes as the words that id columns hold."""
    return np.frombuffer(raw, "u8")
