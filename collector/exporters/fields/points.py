# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Data points of the five kinds. See the package."""

import cython
from cython.cimports.collector.exporters.fields.elements import as_double, none_of, one_of
from cython.cimports.collector.exporters.fields.points import (
    DOUBLE,
    EXPONENTIAL_HISTOGRAM,
    HISTOGRAM,
    INTEGER,
    SUMMARY,
    Buckets,
    Exemplar,
    Point,
    Quantile,
)
from cython.cimports.collector.otlp.wire import Extent, next_field, read_varint
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memset

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _zigzag(number: uint64_t) -> int32_t:
    low: uint32_t = cython.cast(uint32_t, number)
    return cython.cast(int32_t, (low >> 1) ^ (0 - (low & 1)))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_point(point: cython.pointer(Point), at: _Bytes, end: _Bytes, kind: cython.int) -> cython.void:
    """Read a data point of a type. What the type does not have is 0, and `has_…` is false; of a summary the sum is there."""
    memset(point, 0, cython.sizeof(Point))
    none_of(cython.address(point.quantiles), end, 6)
    none_of(
        cython.address(point.exemplars), end, 8 if kind == HISTOGRAM else 11 if kind == EXPONENTIAL_HISTOGRAM else 5
    )
    none_of(
        cython.address(point.attributes), end, 9 if kind == HISTOGRAM else 1 if kind == EXPONENTIAL_HISTOGRAM else 7
    )
    if kind < HISTOGRAM:
        _read_number(point, at, end)
    elif kind == HISTOGRAM:
        _read_histogram(point, at, end)
    elif kind == EXPONENTIAL_HISTOGRAM:
        _read_exponential(point, at, end)
    elif kind == SUMMARY:
        _read_summary(point, at, end)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _read_number(point: cython.pointer(Point), at: _Bytes, end: _Bytes) -> cython.void:
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    here: _Bytes
    while at < end:
        here = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 58:
            one_of(cython.address(point.attributes), here)
        elif tag == 33:
            point.as_double = as_double(number)
            point.value_type = DOUBLE
        elif tag == 49:
            point.as_int = cython.cast(int64_t, number)
            point.value_type = INTEGER
        elif tag == 42:
            one_of(cython.address(point.exemplars), here)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _read_histogram(point: cython.pointer(Point), at: _Bytes, end: _Bytes) -> cython.void:
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    here: _Bytes
    while at < end:
        here = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 74:
            one_of(cython.address(point.attributes), here)
        elif tag == 33:
            point.count = number
        elif tag == 41:
            point.sum = as_double(number)
            point.has_sum = True
        elif tag == 50:
            point.bucket_counts = part
        elif tag == 58:
            point.explicit_bounds = part
        elif tag == 66:
            one_of(cython.address(point.exemplars), here)
        elif tag == 89:
            point.min = as_double(number)
            point.has_min = True
        elif tag == 97:
            point.max = as_double(number)
            point.has_max = True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _read_exponential(point: cython.pointer(Point), at: _Bytes, end: _Bytes) -> cython.void:
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    here: _Bytes
    while at < end:
        here = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 10:
            one_of(cython.address(point.attributes), here)
        elif tag == 33:
            point.count = number
        elif tag == 41:
            point.sum = as_double(number)
            point.has_sum = True
        elif tag == 48:
            point.scale = _zigzag(number)
        elif tag == 57:
            point.zero_count = number
        elif tag == 66:
            _read_buckets(cython.address(point.positive), part)
        elif tag == 74:
            _read_buckets(cython.address(point.negative), part)
        elif tag == 90:
            one_of(cython.address(point.exemplars), here)
        elif tag == 97:
            point.min = as_double(number)
            point.has_min = True
        elif tag == 105:
            point.max = as_double(number)
            point.has_max = True
        elif tag == 113:
            point.zero_threshold = as_double(number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _read_summary(point: cython.pointer(Point), at: _Bytes, end: _Bytes) -> cython.void:
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    here: _Bytes
    point.has_sum = True
    while at < end:
        here = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 58:
            one_of(cython.address(point.attributes), here)
        elif tag == 33:
            point.count = number
        elif tag == 41:
            point.sum = as_double(number)
        elif tag == 50:
            one_of(cython.address(point.quantiles), here)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _read_buckets(buckets: cython.pointer(Buckets), message: Extent) -> cython.void:
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 8:
            buckets.offset = _zigzag(number)
        elif tag == 18:
            buckets.counts = part


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def next_count(counts: cython.pointer(Extent), count: cython.pointer(uint64_t)) -> cython.bint:
    """Take the next of a bucket's counts; False when there is none."""
    if not counts.length:
        return False
    at: _Bytes = read_varint(counts.at, counts.at + counts.length, count)
    if at == cython.NULL:
        return False
    counts.length -= cython.cast(uint32_t, at - counts.at)
    counts.at = at
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_quantile(quantile: cython.pointer(Quantile), message: Extent) -> cython.void:
    """Read a quantile of a summary."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    quantile.quantile = quantile.value = 0
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 9:
            quantile.quantile = as_double(number)
        elif tag == 17:
            quantile.value = as_double(number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_exemplar(exemplar: cython.pointer(Exemplar), message: Extent) -> cython.void:
    """Read an Exemplar of a data point."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    here: _Bytes
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    memset(exemplar, 0, cython.sizeof(Exemplar))
    none_of(cython.address(exemplar.attributes), end, 7)
    while at < end:
        here = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 17:
            exemplar.time = number
        elif tag == 25:
            exemplar.as_double = as_double(number)
            exemplar.value_type = DOUBLE
        elif tag == 49:
            exemplar.as_int = cython.cast(int64_t, number)
            exemplar.value_type = INTEGER
        elif tag == 34:
            exemplar.span_id = part
        elif tag == 42:
            exemplar.trace_id = part
        elif tag == 58:
            one_of(cython.address(exemplar.attributes), here)
