# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The walk: validate one message to the bottom, and capture the fields that become columns.

A table of OTLP's fields, made at import from the protobuf descriptors, drives it, so that it accepts and
refuses exactly what the protobuf library does: wire types, lengths, varints, UTF-8, packed numbers, groups,
and 100 levels of nesting. A known field with another wire type is an unknown field; unknown fields are
checked for form and kept.

The children of containers (`resource_spans`, `spans`, `data_points`, …) are DEFERRED: the walk of a container
steps over them, and `scan.py` walks each when it knows the container.

`Scan.merged` is set when a singular field occurs twice, or numbers that are always packed are not: the
protobuf library merges such fields, and an extent cannot.

`Scan.has` tells of STRINDEX for the whole request, and of LACKING for the record at hand.
"""

import cython
from cython.cimports.collector.otlp.walk import *  # noqa: F403
from cython.cimports.collector.otlp.wire import (
    DEPTH,
    MIX_1,
    is_ascii,
    is_utf8,
    key_of,
    mix,
    read_tag,
    read_varint,
    skip,
)
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy

from collector.otlp.signals import SIGNALS

FAILURES = {
    TRUNCATED: "the message ends in the middle of a field",
    BAD_TAG: "a field tag is not valid",
    BAD_VARINT: "a varint is cut short or longer than 10 bytes",
    BAD_LENGTH: "a length reaches beyond the end of its message",
    BAD_UTF8: "a string is not valid UTF-8",
    TOO_DEEP: "messages are nested more than 100 deep",
    BAD_GROUP: "a group or a wire type is not valid",
    BAD_PACKED: "packed numbers are cut short",
    TOO_LARGE: "a payload reaches 4 GiB",
    NO_MEMORY: "no memory for the columns",
}
"""What `Scan.failure` says, in words."""

# One row of FIELDS entries for each message type; row 0 is the unknown message.
_kind = cython.declare(uint8_t[2048])
_child = cython.declare(uint8_t[2048])
_slot = cython.declare(uint8_t[2048])
_once = cython.declare(uint32_t[2048])  # the bit of a field, or of its oneof, that may occur only once
_root = cython.declare(uint8_t[8])
_passes = cython.declare(uint8_t[2048])  # whether it is repeated KeyValues of which nothing is captured


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def root_of(code: cython.int) -> cython.int:
    return _root[code]


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def child_of(message: cython.int, field: cython.int) -> cython.int:
    return _child[message * FIELDS + field]


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fail(scan: cython.pointer(Scan), at: cython.pointer(cython.const[uint8_t]), failure: cython.int) -> cython.bint:
    scan.failure = failure
    scan.at = at
    return False


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _is_plain_pair(at: cython.pointer(cython.const[uint8_t]), length: uint32_t) -> cython.bint:
    """Tell whether these are a KeyValue as nearly all are: a short key, and a short string or a small number, ASCII.

    True says that it is valid; false says nothing. It saves two walks for every attribute.
    """
    key: uint32_t
    value: uint32_t
    if length < 6 or at[0] != 10 or at[1] >= 0x80:
        return False
    key = at[1]
    if length < key + 4 or at[2 + key] != 18:
        return False
    value = at[3 + key]
    if value >= 0x80 or length != key + 4 + value or not is_ascii(at + 2, key):
        return False
    at += 4 + key
    if value >= 2 and at[0] == 10:
        return at[1] == value - 2 and is_ascii(at + 2, at[1])
    if value == 2 and (at[0] == 16 or at[0] == 24):
        return at[1] < 0x80
    return value == 9 and at[0] == 33


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _pass_plain_pairs(
    at: cython.pointer(cython.const[uint8_t]), end: cython.pointer(cython.const[uint8_t])
) -> cython.pointer(cython.const[uint8_t]):
    """Return where a run of plain KeyValues ends that all have the tag at `at`, of one byte: attributes follow each
    other."""
    tag: uint8_t = at[0]
    length: uint32_t
    while end - at >= 2 and at[0] == tag:
        length = at[1]
        if length >= 0x80 or end - at < 2 + length or not _is_plain_pair(at + 2, length):
            break
        at += 2 + length
    return at


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def walk(
    scan: cython.pointer(Scan),
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    message: cython.int,
    depth: cython.int,
) -> cython.bint:
    """Validate one message to the bottom, capturing fields that the table names; false on failure."""
    start: cython.pointer(cython.const[uint8_t])
    body: cython.pointer(cython.const[uint8_t]) = at
    tag: uint32_t = 0
    length: uint32_t = 0
    field: uint32_t
    wire: uint32_t
    entry: uint32_t
    seen: uint32_t = 0
    kind: cython.int
    slot: cython.int
    value: uint64_t = 0
    plain: cython.bint
    packed: cython.pointer(cython.const[uint8_t])
    while at < end:
        start = at
        tag = at[0]
        if tag < 0x80:
            at += 1
        else:
            at = read_tag(at, end, cython.address(tag))
            if at == cython.NULL:
                return fail(scan, start, BAD_TAG)
        field = tag >> 3
        wire = tag & 7
        if field == 0:
            return fail(scan, start, BAD_TAG)
        entry = message * FIELDS + field if field < FIELDS else 0
        kind = _kind[entry]
        # A tag may take more bytes than it needs: then it is none of those that are passed over.
        if start[0] < 0x80 and wire == 2 and _passes[entry] and depth < DEPTH - 1:
            at = _pass_plain_pairs(start, end)
            if at != start:
                continue
            at += 1
        length = 0
        if wire == 2:
            if at < end and at[0] < 0x80:
                length = at[0]
                at += 1
            else:
                at = read_tag(at, end, cython.address(length))
                if at == cython.NULL:
                    return fail(scan, start, BAD_LENGTH)
            if end - at < length:
                return fail(scan, start, BAD_LENGTH)
            body = at
            at += length
            value = body - scan.base
            if kind == STRING:
                if not is_ascii(body, length) and not is_utf8(body, length):
                    return fail(scan, start, BAD_UTF8)
            elif kind == MESSAGE:
                if depth >= DEPTH:
                    return fail(scan, start, TOO_DEEP)
                # The hash of a point's attributes is made of each: they are not passed over.
                plain = _slot[entry] == ATTRIBUTES and depth < DEPTH - 1 and _is_plain_pair(body, length)
                if not plain and not walk(scan, body, at, _child[entry], depth + 1):
                    return False
            elif kind == PACKED64:
                if length % 8 != 0:
                    return fail(scan, start, BAD_PACKED)
            elif kind == PACKED_VARINT:
                packed = body
                while packed < at:
                    packed = read_varint(packed, at, cython.address(value))
                    if packed == cython.NULL:
                        return fail(scan, start, BAD_PACKED)
                value = body - scan.base
            elif kind == PACKED32:
                if length % 4 != 0:
                    return fail(scan, start, BAD_PACKED)
            elif kind != BYTES and kind != DEFERRED:
                continue
        elif wire == 0:
            body = at
            at = read_varint(at, end, cython.address(value))
            if at == cython.NULL:
                return fail(scan, start, BAD_VARINT)
            if kind != VARINT:
                if kind == PACKED_VARINT:
                    scan.merged = True
                continue
        elif wire == 1:
            if end - at < 8:
                return fail(scan, start, TRUNCATED)
            memcpy(cython.address(value), at, 8)
            at += 8
            if kind != FIXED64:
                if kind == PACKED64:
                    scan.merged = True
                continue
        elif wire == 5:
            if end - at < 4:
                return fail(scan, start, TRUNCATED)
            value = 0
            memcpy(cython.address(value), at, 4)
            at += 4
            if kind != FIXED32:
                if kind == PACKED32:
                    scan.merged = True
                continue
        else:
            at = skip(at, end, tag, depth)
            if at == cython.NULL:
                return fail(scan, start, TOO_DEEP if depth >= DEPTH and wire == 3 else BAD_GROUP)
            continue
        if seen & _once[entry]:
            scan.merged = True
        seen |= _once[entry]
        slot = _slot[entry]
        if slot != NOTHING:
            if slot == ATTRIBUTES:
                value = mix(scan.value[ATTRIBUTES] ^ key_of(body, length), MIX_1)
            elif slot == EXEMPLARS:
                if not scan.has & 1 << EXEMPLAR_VALUE:
                    scan.has |= 1 << LACKING
                scan.has &= ~(cython.cast(uint32_t, 1) << EXEMPLAR_VALUE)
            scan.value[slot] = value
            scan.length[slot] = length
            scan.has |= cython.cast(uint32_t, 1) << slot
    return True


# --- the field table, from the protobuf descriptors --------------------------------------------------------

_VARINTS = ("int32", "int64", "uint32", "uint64", "sint32", "sint64", "bool", "enum")

_CAPTURED = {
    "resource": RESOURCE,
    "scope": SCOPE,
    "Metric.name": METRIC_NAME,
    "Metric.unit": UNIT,
    "aggregation_temporality": TEMPORALITY,
    "is_monotonic": MONOTONIC,
    "Span.trace_id": TRACE_ID,
    "Span.span_id": SPAN_ID,
    "Span.parent_span_id": PARENT_SPAN_ID,
    "Span.name": NAME,
    "Span.kind": KIND,
    "Status.code": STATUS,
    "Span.start_time_unix_nano": TIME,
    "Span.end_time_unix_nano": OTHER_TIME,
    "LogRecord.trace_id": TRACE_ID,
    "LogRecord.span_id": SPAN_ID,
    "LogRecord.time_unix_nano": TIME,
    "LogRecord.observed_time_unix_nano": OTHER_TIME,
    "LogRecord.body": BODY,
    "LogRecord.severity_number": SEVERITY,
}
for _point in ("Number", "Histogram", "ExponentialHistogram", "Summary"):
    _CAPTURED |= {
        f"{_point}DataPoint.time_unix_nano": TIME,
        f"{_point}DataPoint.start_time_unix_nano": OTHER_TIME,
        f"{_point}DataPoint.attributes": ATTRIBUTES,
        f"{_point}DataPoint.flags": FLAGS,
        f"{_point}DataPoint.sum": TOTAL,
        f"{_point}DataPoint.exemplars": EXEMPLARS,
    }
_CAPTURED |= {
    "NumberDataPoint.as_double": AS_DOUBLE,
    "NumberDataPoint.as_int": AS_INT,
    "HistogramDataPoint.bucket_counts": BUCKET_COUNTS,
    "HistogramDataPoint.explicit_bounds": BOUNDS,
    "Exemplar.as_double": EXEMPLAR_VALUE,
    "Exemplar.as_int": EXEMPLAR_VALUE,
    "AnyValue.string_value_strindex": STRINDEX,
    "KeyValue.key_strindex": STRINDEX,
}

_KEY_VALUE = "opentelemetry.proto.common.v1.KeyValue"

_DEFERRED = {"resource_spans", "resource_logs", "resource_metrics", "scope_spans", "scope_logs", "scope_metrics"}
_DEFERRED |= {"spans", "log_records", "metrics", "data_points"}
_DEFERRED |= {"gauge", "sum", "histogram", "exponential_histogram", "summary"}


def _field_kind(field) -> int:
    repeated = field.is_repeated
    types = {getattr(field, "TYPE_" + name.upper()): name for name in _VARINTS}
    if field.type in types:
        return PACKED_VARINT if repeated else VARINT
    if field.type in (field.TYPE_DOUBLE, field.TYPE_FIXED64, field.TYPE_SFIXED64):
        return PACKED64 if repeated else FIXED64
    if field.type in (field.TYPE_FLOAT, field.TYPE_FIXED32, field.TYPE_SFIXED32):
        return PACKED32 if repeated else FIXED32
    if field.type == field.TYPE_STRING:
        return STRING
    if field.type == field.TYPE_BYTES:
        return BYTES
    return DEFERRED if field.name in _DEFERRED else MESSAGE


def _fill_tables() -> None:
    numbers: dict = {}
    order: list = []

    def number_of(message) -> int:
        if message.full_name not in numbers:
            numbers[message.full_name] = len(numbers) + 1
            order.append(message)
        return numbers[message.full_name]

    for signal in SIGNALS:
        _root[signal.code] = number_of(signal.request_type.DESCRIPTOR)
    for message in order:  # grows while it is walked
        row: cython.int = numbers[message.full_name] * FIELDS
        bits: dict = {}
        for field in message.fields:
            if field.number >= FIELDS or len(numbers) >= MESSAGES - 1:
                raise RuntimeError(f"{field.full_name} does not fit the scanner's field table")
            entry: cython.int = row + field.number
            _kind[entry] = _field_kind(field)
            if field.message_type is not None:
                _child[entry] = number_of(field.message_type)
            if not field.is_repeated:
                owner = field.containing_oneof.name if field.containing_oneof is not None else field.name
                _once[entry] = 1 << bits.setdefault(owner, len(bits))
            if message.file.package.startswith("opentelemetry.proto."):
                name = f"{message.name}.{field.name}"
                _slot[entry] = _CAPTURED.get(name, _CAPTURED.get(field.name, NOTHING))
            if field.message_type is not None and field.message_type.full_name == _KEY_VALUE:
                _passes[entry] = field.is_repeated and _slot[entry] == NOTHING


_fill_tables()
