# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Data points as rows of typed values: rows.py for the five kinds of points, compiled.

value          int or float of gauges and sums; None of others, and where none was recorded
count, sum, …  None where the kind has none, or it was not recorded
distribution   str, JSON; None of gauges and sums
               {"bounds": […], "counts": […]} of histograms
               {"scale", "zero_count", "zero_threshold", "positive": {"offset", "counts"}, "negative"} of exponential ones
               {"quantiles": [{"quantile", "value"}]} of summaries
"""

import cython
from cython.cimports.collector.exporters.jsontext import (
    Text,
    closed,
    field_of,
    put_byte,
    put_chars,
    put_double,
    put_hex,
    put_object,
    put_signed,
    put_unsigned,
    release,
    take,
)
from cython.cimports.collector.otlp.wire import Extent, next_field, read_varint
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy

from collector.otlp.block import EXPONENTIAL_HISTOGRAM, HISTOGRAM, SUMMARY

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))


def points(block, first: int, end: int) -> dict:
    """Return the columns of a block of data points: type (otlp/block.py), time, start_time, value, count, sum, min, max,
    distribution, attributes, exemplars, flags, group, record."""
    if not 0 <= first < end <= block.count:
        raise ValueError(f"rows {first} to {end} of {block.count}")
    view: cython.const[uint8_t][::1] = block.payload
    starts: cython.const[uint32_t][::1] = block.column("start")
    lengths: cython.const[uint32_t][::1] = block.column("length")
    types: cython.const[uint8_t][::1] = block.column("type")
    point: _Point
    values: list = []
    counts: list = []
    sums: list = []
    lows: list = []
    highs: list = []
    distributions: list = []
    attributes: list = []
    exemplars: list = []
    records: list = []
    i: cython.Py_ssize_t
    begin: _Bytes
    behind: _Bytes
    out: Text
    exemplar: Text
    out.at = exemplar.at = cython.NULL
    out.length = out.room = exemplar.length = exemplar.room = 0
    try:
        for i in range(first, end):
            begin = cython.address(view[0]) + starts[i]
            behind = begin + lengths[i]
            _read_point(cython.address(point), cython.address(exemplar), begin, behind, types[i])
            values.append(point.integer if point.has_integer else point.double if point.has_double else None)
            counts.append(point.count if point.has_count else None)
            sums.append(point.sum if point.has_sum else None)
            lows.append(point.min if point.has_min else None)
            highs.append(point.max if point.has_max else None)
            distributions.append(_distribution(cython.address(out), cython.address(point), begin, behind, types[i]))
            put_object(
                cython.address(out),
                begin,
                behind,
                9 if types[i] == _HISTOGRAM else 1 if types[i] == _EXPONENTIAL else 7,
                0,
            )
            attributes.append(take(cython.address(out)))
            exemplars.append(closed(cython.address(exemplar)))
            records.append(PyBytes_FromStringAndSize(cython.cast(cython.p_char, begin), lengths[i]))
    finally:
        release(cython.address(out))
        release(cython.address(exemplar))
    return {
        "type": block.column("type")[first:end].tolist(),
        "time": block.column("time")[first:end].tolist(),
        "start_time": block.column("start_time")[first:end].tolist(),
        "value": values,
        "count": counts,
        "sum": sums,
        "min": lows,
        "max": highs,
        "distribution": distributions,
        "attributes": attributes,
        "exemplars": exemplars,
        "flags": block.column("flags")[first:end].tolist(),
        "group": block.column("group")[first:end].tolist(),
        "record": records,
    }


_HISTOGRAM = cython.declare(cython.int, HISTOGRAM)
_EXPONENTIAL = cython.declare(cython.int, EXPONENTIAL_HISTOGRAM)
_SUMMARY = cython.declare(cython.int, SUMMARY)

_Point = cython.struct(
    integer=int64_t,
    double=cython.double,
    count=uint64_t,
    sum=cython.double,
    min=cython.double,
    max=cython.double,
    scale=int32_t,
    zero_count=uint64_t,
    zero_threshold=cython.double,
    has_integer=cython.bint,
    has_double=cython.bint,
    has_count=cython.bint,
    has_sum=cython.bint,
    has_min=cython.bint,
    has_max=cython.bint,
)


@cython.cfunc
def _double(number: uint64_t) -> cython.double:
    value: cython.double = 0
    memcpy(cython.address(value), cython.address(number), 8)
    return value


@cython.cfunc
def _zigzag(number: uint64_t) -> int32_t:
    low: uint32_t = cython.cast(uint32_t, number)
    return cython.cast(int32_t, (low >> 1) ^ (0 - (low & 1)))


@cython.cfunc
@cython.exceptval(-1)
def _read_point(
    point: cython.pointer(_Point), exemplar: cython.pointer(Text), at: _Bytes, end: _Bytes, kind: cython.int
) -> cython.int:
    """Read a data point's numbers, and append its exemplars."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    field: uint32_t
    point.has_integer = point.has_double = point.has_sum = point.has_min = point.has_max = False
    point.has_count = kind >= _HISTOGRAM
    point.count = point.zero_count = 0
    point.sum = point.zero_threshold = point.min = point.max = point.double = 0
    point.integer = 0
    point.scale = 0
    if kind == _SUMMARY:
        point.has_sum = True
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        field = tag >> 3
        if kind < _HISTOGRAM:
            if tag == 33:
                point.double = _double(number)
                point.has_double = True
            elif tag == 49:
                point.integer = cython.cast(int64_t, number)
                point.has_integer = True
            elif tag == 42:
                _exemplar(exemplar, part)
        elif tag & 7 == 1 and field == 4:
            point.count = number
        elif tag & 7 == 1 and field == 5:
            point.sum = _double(number)
            point.has_sum = True
        elif kind == _HISTOGRAM:
            if tag == 89:
                point.min = _double(number)
                point.has_min = True
            elif tag == 97:
                point.max = _double(number)
                point.has_max = True
            elif tag == 66:
                _exemplar(exemplar, part)
        elif kind == _EXPONENTIAL:
            if tag == 48:
                point.scale = _zigzag(number)
            elif tag == 57:
                point.zero_count = number
            elif tag == 97:
                point.min = _double(number)
                point.has_min = True
            elif tag == 105:
                point.max = _double(number)
                point.has_max = True
            elif tag == 113:
                point.zero_threshold = _double(number)
            elif tag == 90:
                _exemplar(exemplar, part)
    return 0


@cython.cfunc
def _distribution(out: cython.pointer(Text), point: cython.pointer(_Point), at: _Bytes, end: _Bytes, kind: cython.int):
    if kind < _HISTOGRAM:
        return None
    message: Extent
    message.at = at
    message.length = cython.cast(uint32_t, end - at)
    if kind == _HISTOGRAM:
        put_chars(out, b'{"bounds":')
        _packed(out, field_of(message, 7), True)
        put_chars(out, b',"counts":')
        _packed(out, field_of(message, 6), False)
    elif kind == _EXPONENTIAL:
        put_chars(out, b'{"scale":')
        put_signed(out, point.scale)
        put_chars(out, b',"zero_count":')
        put_unsigned(out, point.zero_count)
        put_chars(out, b',"zero_threshold":')
        put_double(out, point.zero_threshold)
        put_chars(out, b',"positive":')
        _buckets(out, field_of(message, 8))
        put_chars(out, b',"negative":')
        _buckets(out, field_of(message, 9))
    else:
        put_chars(out, b'{"quantiles":')
        _quantiles(out, message)
    put_byte(out, 125)
    return take(out)


@cython.cfunc
@cython.exceptval(-1)
def _packed(out: cython.pointer(Text), packed: Extent, doubles: cython.bint) -> cython.int:
    """Append an array of packed doubles or fixed64s."""
    number: uint64_t = 0
    i: cython.Py_ssize_t
    put_byte(out, 91)
    for i in range(packed.length // 8):
        if i:
            put_byte(out, 44)
        memcpy(cython.address(number), packed.at + 8 * i, 8)
        if doubles:
            put_double(out, _double(number))
        else:
            put_unsigned(out, number)
    return put_byte(out, 93)


@cython.cfunc
@cython.exceptval(-1)
def _buckets(out: cython.pointer(Text), message: Extent) -> cython.int:
    tag: uint32_t = 0
    number: uint64_t = 0
    offset: int32_t = 0
    part: Extent
    counts: Extent = field_of(message, 2)
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 8:
            offset = _zigzag(number)
    put_chars(out, b'{"offset":')
    put_signed(out, offset)
    put_chars(out, b',"counts":[')
    at = counts.at
    end = counts.at + counts.length
    while at < end:
        if at != counts.at:
            put_byte(out, 44)
        at = read_varint(at, end, cython.address(number))
        if at == cython.NULL:
            break
        put_unsigned(out, number)
    return put_chars(out, b"]}")


@cython.cfunc
@cython.exceptval(-1)
def _quantiles(out: cython.pointer(Text), message: Extent) -> cython.int:
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    inside: _Bytes
    quantile: cython.double
    value: cython.double
    first: cython.bint = True
    put_byte(out, 91)
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag != 50:
            continue
        quantile = value = 0
        message = part
        inside = message.at
        while inside < message.at + message.length:
            inside = next_field(
                inside, message.at + message.length, cython.address(tag), cython.address(number), cython.address(part)
            )
            if tag == 9:
                quantile = _double(number)
            elif tag == 17:
                value = _double(number)
        put_chars(out, b'{"quantile":' if first else b',{"quantile":')
        first = False
        put_double(out, quantile)
        put_chars(out, b',"value":')
        put_double(out, value)
        put_byte(out, 125)
    return put_byte(out, 93)


@cython.cfunc
@cython.exceptval(-1)
def _exemplar(out: cython.pointer(Text), message: Extent) -> cython.int:
    tag: uint32_t = 0
    number: uint64_t = 0
    time: uint64_t = 0
    integer: int64_t = 0
    double: cython.double = 0
    kind: cython.int = 0
    part: Extent
    trace_id: Extent = field_of(message, 5)
    span_id: Extent = field_of(message, 4)
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 17:
            time = number
        elif tag == 25:
            double = _double(number)
            kind = 1
        elif tag == 49:
            integer = cython.cast(int64_t, number)
            kind = 2
    put_chars(out, b',{"time":' if out.length else b'[{"time":')
    put_unsigned(out, time)
    put_chars(out, b',"value":')
    if kind == 2:
        put_signed(out, integer)
    elif kind == 1:
        put_double(out, double)
    else:
        put_chars(out, b"null")
    if trace_id.length:
        put_chars(out, b',"trace_id":')
        put_hex(out, trace_id.at, trace_id.length)
    if span_id.length:
        put_chars(out, b',"span_id":')
        put_hex(out, span_id.at, span_id.length)
    put_chars(out, b',"attributes":')
    put_object(out, message.at, end, 7, 0)
    return put_byte(out, 125)
