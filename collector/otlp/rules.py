# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What OTLP's data model demands of a record: the rules by which one is rejected.

Only what a record breaks that makes it useless to everybody: a span without ids, a point without time or value, a
histogram whose buckets contradict each other. Log records are free. A record is judged after its walk, by what that has
captured (walk.py), so a rule costs nothing but a comparison; bounds are read where they lie.
"""

import cython
from cython.cimports.collector.otlp.walk import (
    AS_DOUBLE,
    AS_INT,
    BOUNDS,
    BUCKET_COUNTS,
    FLAGS,
    LACKING,
    SPAN_ID,
    TIME,
    TRACE_ID,
    Scan,
)
from cython.cimports.libc.stdint import uint8_t, uint32_t
from cython.cimports.libc.string import memcpy

REASONS = (
    "trace_id must be 16 bytes and not all zero",
    "span_id must be 8 bytes and not all zero",
    "time_unix_nano is not set",
    "the data point has no value",
    "bucket_counts must have one element more than explicit_bounds, or both none",
    "explicit_bounds must increase strictly",
    "aggregation_temporality is not specified",
    "an exemplar has no value",
)
"""Why a record can be rejected; `judge` and `Added.reasons` (scan.py) count in this order."""


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _is_id(scan: cython.pointer(Scan), slot: cython.int, length: uint32_t) -> cython.bint:
    at: cython.pointer(cython.const[uint8_t]) = scan.base + scan.value[slot]
    i: uint32_t
    if scan.length[slot] != length:
        return False
    for i in range(length):
        if at[i]:
            return True
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _judge_buckets(scan: cython.pointer(Scan)) -> cython.int:
    counts: uint32_t = scan.length[BUCKET_COUNTS] // 8
    bounds: uint32_t = scan.length[BOUNDS] // 8
    at: cython.pointer(cython.const[uint8_t]) = scan.base + scan.value[BOUNDS]
    lower: cython.double
    upper: cython.double
    i: uint32_t
    if (counts == 0 and bounds != 0) or (counts != 0 and counts != bounds + 1):
        return 4
    for i in range(1, bounds):
        memcpy(cython.address(lower), at + 8 * (i - 1), 8)
        memcpy(cython.address(upper), at + 8 * i, 8)
        if not lower < upper:
            return 5
    return -1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def judge(scan: cython.pointer(Scan), code: cython.int, kind: cython.int, temporality: cython.int) -> cython.int:
    """Return the index in REASONS of the rule that a record breaks, or -1.

    `code` is its signal's; `kind` (column `type` of data points) and `temporality` are its metric's.
    """
    if code == 1:
        if not _is_id(scan, TRACE_ID, 16):
            return 0
        return -1 if _is_id(scan, SPAN_ID, 8) else 1
    if code == 2:
        return -1
    if scan.value[TIME] == 0:
        return 2
    if kind <= 2 and not scan.has & (1 << AS_DOUBLE | 1 << AS_INT) and not scan.value[FLAGS] & 1:
        return 3
    if 2 <= kind <= 4 and temporality == 0:
        return 6
    if scan.has & (1 << LACKING):
        return 7
    return _judge_buckets(scan) if kind == 3 else -1
