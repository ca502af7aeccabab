# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Rows in the binary form of COPY, compiled: columns of plain Python values in, one run of bytes out.

A row is its number of fields (int16), then for each its length (int32, -1 for NULL) and its bytes, all big endian
(PostgreSQL's documentation, COPY, binary format). `HEADER` and `TRAILER` of copying.py stand around the rows.

    b bytea     t text     j jsonb     q int8     i int4     h int2     d float8     o bool

PostgreSQL has no NUL in texts. In `t` it becomes U+FFFD, and so does its escape in `j`; what a record held is in its own
bytes, so nothing is lost by that but in the column that people read.

jsonb keeps the last one of keys that stand twice: `irregular` tells of which texts it will not hold everything.

The GIL is held: a thousand rows take about a millisecond.
"""

import cython
from cython.cimports.collector.exporters.jsontext import Text, put, put_byte, release
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cython.cimports.cpython.unicode import PyUnicode_AsUTF8AndSize
from cython.cimports.libc.stdint import int64_t, uint8_t, uint64_t
from cython.cimports.libc.string import memchr, memcmp, memcpy

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))
_KEYS = 64


@cython.cfunc
@cython.exceptval(-1)
def _put_number(out: cython.pointer(Text), value: uint64_t, width: cython.int) -> cython.int:
    while width:
        width -= 1
        put_byte(out, cython.cast(uint8_t, value >> (8 * width) & 255))
    return 0


@cython.cfunc
@cython.exceptval(-1)
def _put_text(out: cython.pointer(Text), text) -> cython.int:
    length: cython.Py_ssize_t = 0
    at: _Bytes = cython.cast(_Bytes, PyUnicode_AsUTF8AndSize(text, cython.address(length)))
    found: cython.p_void = memchr(at, 0, length)
    i: cython.Py_ssize_t
    more: cython.Py_ssize_t = 0
    if found == cython.NULL:
        _put_number(out, length, 4)
        return put(out, at, length)
    for i in range(length):
        more += 2 if at[i] == 0 else 0
    _put_number(out, length + more, 4)
    for i in range(length):
        if at[i]:
            put_byte(out, at[i])
        else:
            _put_number(out, 0xEFBFBD, 3)
    return 0


@cython.cfunc
@cython.exceptval(-1)
def _put_json(out: cython.pointer(Text), text) -> cython.int:
    length: cython.Py_ssize_t = 0
    chars: _Bytes = cython.cast(_Bytes, PyUnicode_AsUTF8AndSize(text, cython.address(length)))
    _put_number(out, length + 1, 4)
    put_byte(out, 1)
    put(out, chars, length)
    at: cython.pointer(uint8_t) = out.at + out.length - length
    end: cython.pointer(uint8_t) = out.at + out.length
    while at < end:
        at = cython.cast(cython.pointer(uint8_t), memchr(at, 92, end - at))
        if at == cython.NULL:
            break
        if end - at >= 6 and memcmp(at + 1, b"u0000", 5) == 0:
            memcpy(at + 2, b"fffd", 4)
        at += 2
    return 0


def pack(kinds: str, columns) -> bytes:
    """Return the rows of these columns: lists of equal length, of values of these kinds or None."""
    if len(kinds) != len(columns) or not columns or len({len(one) for one in columns}) != 1:
        raise ValueError("columns and kinds do not fit")
    out: Text
    out.at = cython.NULL
    out.length = out.room = 0
    letters: bytes = kinds.encode()
    kind: cython.p_const_char = letters
    width: cython.Py_ssize_t = len(columns)
    rows: cython.Py_ssize_t = len(columns[0])
    lists: list = list(columns)
    row: cython.Py_ssize_t
    column: cython.Py_ssize_t
    number: int64_t
    double: cython.double
    bits: uint64_t = 0
    try:
        for row in range(rows):
            _put_number(cython.address(out), width, 2)
            for column in range(width):
                values: list = lists[column]
                value = values[row]
                if value is None:
                    _put_number(cython.address(out), 0xFFFFFFFF, 4)
                elif kind[column] == 98:  # b
                    content: bytes = value
                    _put_number(cython.address(out), PyBytes_GET_SIZE(content), 4)
                    put(cython.address(out), cython.cast(_Bytes, PyBytes_AS_STRING(content)), PyBytes_GET_SIZE(content))
                elif kind[column] == 116:  # t
                    _put_text(cython.address(out), value)
                elif kind[column] == 106:  # j
                    _put_json(cython.address(out), value)
                elif kind[column] == 100:  # d
                    double = value
                    memcpy(cython.address(bits), cython.address(double), 8)
                    _put_number(cython.address(out), 8, 4)
                    _put_number(cython.address(out), bits, 8)
                else:
                    number = value
                    bits = cython.cast(uint64_t, number)
                    if kind[column] == 113:  # q
                        _put_number(cython.address(out), 8, 4)
                        _put_number(cython.address(out), bits, 8)
                    elif kind[column] == 105:  # i
                        if not -(2**31) <= number < 2**31:
                            raise ValueError(f"{number} is no int4")
                        _put_number(cython.address(out), 4, 4)
                        _put_number(cython.address(out), bits, 4)
                    elif kind[column] == 104:  # h
                        if not -(2**15) <= number < 2**15:
                            raise ValueError(f"{number} is no int2")
                        _put_number(cython.address(out), 2, 4)
                        _put_number(cython.address(out), bits, 2)
                    elif kind[column] == 111:  # o
                        _put_number(cython.address(out), 1, 4)
                        _put_number(cython.address(out), bits, 1)
                    else:
                        raise ValueError(f"no kind {kinds[column]!r}")
        return PyBytes_FromStringAndSize(cython.cast(cython.p_char, out.at), out.length)
    finally:
        release(cython.address(out))


def irregular(texts: list) -> list:
    """Tell of each JSON object (as jsontext.py writes them) whether jsonb will hold less than it says, as far as the keys of
    the object itself go: one stands twice, or there is a NUL, or there are too many to look."""
    found: list = []
    length: cython.Py_ssize_t = 0
    for text in texts:
        at: _Bytes = cython.cast(_Bytes, PyUnicode_AsUTF8AndSize(text, cython.address(length)))
        found.append(_irregular(at, at + length))
    return found


@cython.cfunc
def _irregular(at: _Bytes, end: _Bytes) -> cython.bint:
    begins: cython.pointer(cython.const[uint8_t])[64]
    lengths: cython.Py_ssize_t[64]
    keys: cython.int = 0
    depth: cython.int = 0
    key: cython.bint = False
    begin: _Bytes
    i: cython.int
    while at < end:
        if at[0] == 34:
            begin = at + 1
            at += 1
            while at < end and at[0] != 34:
                if at[0] == 92:
                    if end - at >= 6 and memcmp(at + 1, b"u0000", 5) == 0:
                        return True
                    at += 1
                at += 1
            if key and depth == 1:
                if keys == _KEYS:
                    return True
                for i in range(keys):
                    if lengths[i] == at - begin and memcmp(begins[i], begin, at - begin) == 0:
                        return True
                begins[keys] = begin
                lengths[keys] = at - begin
                keys += 1
                key = False
        elif at[0] == 123 or at[0] == 91:
            depth += 1
            key = depth == 1
        elif at[0] == 125 or at[0] == 93:
            depth -= 1
        elif at[0] == 44 and depth == 1:
            key = True
        at += 1
    return False
