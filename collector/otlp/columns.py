# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows under construction: one growing C array for each column, sealed into a `Table`.

The caller makes room with `reserve`, stores each column of row `count` with the `put…` functions of
columns.pxd, and counts the row. Going back is setting `count` back.
"""

import cython
from cython.cimports.collector.otlp.columns import Rows
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import uint8_t
from cython.cimports.libc.stdlib import free, realloc
from cython.cimports.libc.string import memcpy

from collector.otlp.block import Table


@cython.cfunc
@cython.exceptval(-1)
def shape(rows: cython.pointer(Rows), layout) -> cython.int:
    """Take the columns of a layout; `rows` holds nothing yet."""
    if len(layout.columns) > 24:
        raise ValueError("a layout of more than 24 columns")
    rows.columns = 0
    for dtype, _ in layout.columns.values():
        rows.width[rows.columns] = dtype.itemsize
        rows.column[rows.columns] = cython.NULL
        rows.columns += 1
    rows.count = 0
    rows.room = 0
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def reserve(rows: cython.pointer(Rows), least: cython.Py_ssize_t) -> cython.bint:
    """Make room for one more row; false when there is no memory. The first time, for `least` rows."""
    room: cython.Py_ssize_t = rows.room * 2 if rows.room else least
    i: cython.int
    grown: cython.p_void
    if rows.count < rows.room:
        return True
    for i in range(rows.columns):
        grown = realloc(rows.column[i], room * rows.width[i])
        if grown == cython.NULL:
            return False
        rows.column[i] = cython.cast(cython.pointer(uint8_t), grown)
    rows.room = room
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def release(rows: cython.pointer(Rows)) -> cython.void:
    """Give the arrays back; `rows` can be used again."""
    i: cython.int
    for i in range(rows.columns):
        free(rows.column[i])
        rows.column[i] = cython.NULL
    rows.count = 0
    rows.room = 0


@cython.cfunc
def table_of(rows: cython.pointer(Rows), layout):
    """Copy the rows into one buffer, column after column."""
    buffer: bytes = PyBytes_FromStringAndSize(cython.NULL, layout.row_bytes * rows.count)
    place: cython.p_char = PyBytes_AS_STRING(buffer)
    i: cython.int
    for i in range(rows.columns):
        if rows.count:
            memcpy(place, rows.column[i], rows.width[i] * rows.count)
        place += rows.width[i] * rows.count
    return Table(layout, rows.count, buffer)
