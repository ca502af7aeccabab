# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows of what was scanned: the columns of a record, and of the group that it lies in.

Numbers of columns are places in block.RECORDS and block.GROUPS. What a row is made of is what the walk has captured of
the record (`Scan`, walk.py), and of the containers around it (`Around`, emit.pxd). There is room for one more row; those of
records are counted by the caller.
"""

import cython
from cython.cimports.collector.otlp.columns import Rows, put8, put32, put64, put_double
from cython.cimports.collector.otlp.emit import *  # noqa: F403
from cython.cimports.collector.otlp.walk import (
    AS_DOUBLE,
    AS_INT,
    ATTRIBUTES,
    BODY,
    FLAGS,
    KIND,
    NAME,
    OTHER_TIME,
    PARENT_SPAN_ID,
    SEVERITY,
    SPAN_ID,
    STATUS,
    TIME,
    TOTAL,
    TRACE_ID,
    Scan,
)
from cython.cimports.collector.otlp.wire import MIX_4, Extent, key_of, mix
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy, memset


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _small(value: uint64_t) -> uint8_t:
    """Fit an enum's number into a byte; 255 stands for all that no version of OTLP has named."""
    return cython.cast(uint8_t, value) if value < 255 else 255


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _place(
    scan: cython.pointer(Scan), around: cython.pointer(Around), at: cython.pointer(cython.const[uint8_t])
) -> uint64_t:
    """Where a byte of this payload will lie in the block's payload."""
    return cython.cast(uint64_t, at - scan.base) + around.before


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _put_id(
    rows: cython.pointer(Rows), scan: cython.pointer(Scan), column: cython.int, slot: cython.int, length: uint32_t
) -> cython.void:
    """Store an id of the right length as it is, and any other as absent: all zero."""
    place: cython.pointer(uint8_t) = rows.column[column] + rows.count * length
    if scan.length[slot] == length:
        memcpy(place, scan.base + scan.value[slot], length)
    else:
        memset(place, 0, length)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _put_extent(
    rows: cython.pointer(Rows),
    scan: cython.pointer(Scan),
    around: cython.pointer(Around),
    column: cython.int,
    extent: cython.pointer(Extent),
) -> cython.void:
    """Store a group's extent in two columns, its start and its length."""
    put32(rows, column, _place(scan, around, extent.at) if extent.at != cython.NULL else 0)
    put32(rows, column + 1, extent.length)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def emit_group(
    rows: cython.pointer(Rows), scan: cython.pointer(Scan), around: cython.pointer(Around), code: cython.int
) -> cython.void:
    """Write the row of the group that `around` describes."""
    put64(rows, 0, around.service_key)
    _put_extent(rows, scan, around, 1, cython.address(around.envelope))
    _put_extent(rows, scan, around, 3, cython.address(around.resource))
    _put_extent(rows, scan, around, 5, cython.address(around.scope_envelope))
    _put_extent(rows, scan, around, 7, cython.address(around.scope))
    _put_extent(rows, scan, around, 9, cython.address(around.service))
    if code == 3:
        _put_extent(rows, scan, around, 11, cython.address(around.metric))
        _put_extent(rows, scan, around, 13, cython.address(around.name))
        _put_extent(rows, scan, around, 15, cython.address(around.unit))
        put8(rows, 17, around.temporality)
        put8(rows, 18, around.monotonic)
    rows.count += 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def emit_span(
    rows: cython.pointer(Rows),
    scan: cython.pointer(Scan),
    around: cython.pointer(Around),
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
) -> cython.void:
    """Write the row of a span."""
    length: uint32_t = scan.length[NAME]
    name: cython.pointer(cython.const[uint8_t]) = scan.base + scan.value[NAME]
    _put_id(rows, scan, 0, TRACE_ID, 16)
    put64(rows, 1, scan.value[TIME])
    put64(rows, 2, scan.value[OTHER_TIME])
    _put_id(rows, scan, 3, SPAN_ID, 8)
    _put_id(rows, scan, 4, PARENT_SPAN_ID, 8)
    put64(rows, 5, key_of(name, length) if length else 0)
    put64(rows, 6, around.service_key)
    put32(rows, 7, _place(scan, around, at))
    put32(rows, 8, end - at)
    put32(rows, 9, around.group)
    put32(rows, 10, _place(scan, around, name) if length else 0)
    put32(rows, 11, length)
    put8(rows, 12, _small(scan.value[KIND]))
    put8(rows, 13, _small(scan.value[STATUS]))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def emit_log(
    rows: cython.pointer(Rows),
    scan: cython.pointer(Scan),
    around: cython.pointer(Around),
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
) -> cython.void:
    """Write the row of a log record."""
    _put_id(rows, scan, 0, TRACE_ID, 16)
    put64(rows, 1, scan.value[TIME] if scan.value[TIME] else scan.value[OTHER_TIME])
    put64(rows, 2, scan.value[OTHER_TIME])
    _put_id(rows, scan, 3, SPAN_ID, 8)
    put64(rows, 4, around.service_key)
    put32(rows, 5, _place(scan, around, at))
    put32(rows, 6, end - at)
    put32(rows, 7, around.group)
    put32(rows, 8, _place(scan, around, scan.base + scan.value[BODY]) if scan.length[BODY] else 0)
    put32(rows, 9, scan.length[BODY])
    put8(rows, 10, _small(scan.value[SEVERITY]))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def emit_point(
    rows: cython.pointer(Rows),
    scan: cython.pointer(Scan),
    around: cython.pointer(Around),
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
) -> cython.void:
    """Write the row of a data point."""
    value: cython.double = 0
    value_type: uint8_t = 0
    if scan.has & (1 << AS_INT):
        value = cython.cast(cython.double, cython.cast(int64_t, scan.value[AS_INT]))
        value_type = 2
    elif scan.has & (1 << AS_DOUBLE):
        memcpy(cython.address(value), cython.address(scan.value[AS_DOUBLE]), 8)
        value_type = 1
    elif scan.has & (1 << TOTAL):
        memcpy(cython.address(value), cython.address(scan.value[TOTAL]), 8)
        value_type = 1
    put64(rows, 0, scan.value[TIME])
    put64(rows, 1, scan.value[OTHER_TIME])
    put_double(rows, 2, value)
    put64(rows, 3, mix(around.series_key ^ scan.value[ATTRIBUTES], MIX_4))
    put64(rows, 4, around.name_key)
    put64(rows, 5, around.service_key)
    put32(rows, 6, _place(scan, around, at))
    put32(rows, 7, end - at)
    put32(rows, 8, around.group)
    put32(rows, 9, scan.value[FLAGS])
    put8(rows, 10, around.type)
    put8(rows, 11, value_type)
