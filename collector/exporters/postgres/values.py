# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Fields of rows in the binary form of COPY, compiled: the length (int32, -1 for NULL) and the bytes, all big endian.

PostgreSQL has no NUL in texts. In a text it becomes U+FFFD, and so does its escape in JSON; what a record held is in its own
bytes, so nothing is lost by that but in the column that people read.

jsonb keeps the last one of keys that stand twice: `irregular` tells of which objects it will not hold everything.
"""

import cython
from cython.cimports.collector.exporters.text import Text, put, put_byte
from cython.cimports.collector.otlp.wire import Extent
from cython.cimports.cpython.unicode import PyUnicode_AsUTF8AndSize
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memchr, memcmp, memcpy

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))
_KEYS = 64
_EPOCH_US = cython.declare(int64_t, 946684800000000)  # PostgreSQL's own epoch, 2000-01-01, after Unix's


@cython.cfunc
@cython.exceptval(-1)
def put_number(out: cython.pointer(Text), value: uint64_t, width: cython.int) -> cython.int:
    """Append the low bytes of a number, without a length."""
    number: uint8_t[8]
    i: cython.int
    for i in range(width):
        number[i] = cython.cast(uint8_t, value >> (8 * (width - 1 - i)) & 255)
    return put(out, number, width)


@cython.cfunc
@cython.exceptval(-1)
def put_null(out: cython.pointer(Text)) -> cython.int:
    """Append NULL."""
    return put_number(out, 0xFFFFFFFF, 4)


@cython.cfunc
@cython.exceptval(-1)
def put_int8(out: cython.pointer(Text), value: uint64_t) -> cython.int:
    """Append an int8."""
    put_number(out, 8, 4)
    return put_number(out, value, 8)


@cython.cfunc
@cython.exceptval(-1)
def put_int4(out: cython.pointer(Text), value: uint32_t) -> cython.int:
    """Append an int4."""
    put_number(out, 4, 4)
    return put_number(out, value, 4)


@cython.cfunc
@cython.exceptval(-1)
def put_int2(out: cython.pointer(Text), value: uint32_t) -> cython.int:
    """Append an int2."""
    put_number(out, 2, 4)
    return put_number(out, value, 2)


@cython.cfunc
@cython.exceptval(-1)
def put_bool(out: cython.pointer(Text), value: cython.bint) -> cython.int:
    """Append a boolean."""
    put_number(out, 1, 4)
    return put_byte(out, 1 if value else 0)


@cython.cfunc
@cython.exceptval(-1)
def put_double(out: cython.pointer(Text), there: cython.bint, value: cython.double) -> cython.int:
    """Append a float8; NULL where there is none."""
    bits: uint64_t = 0
    if not there:
        return put_null(out)
    memcpy(cython.address(bits), cython.address(value), 8)
    return put_int8(out, bits)


@cython.cfunc
@cython.exceptval(-1)
def put_time(out: cython.pointer(Text), value: uint64_t) -> cython.int:
    """Append Unix ns as a timestamptz: whole microseconds."""
    return put_int8(out, cython.cast(uint64_t, cython.cast(int64_t, value // 1000) - _EPOCH_US))


@cython.cfunc
@cython.exceptval(-1)
def put_bytes(out: cython.pointer(Text), at: _Bytes, length: cython.Py_ssize_t) -> cython.int:
    """Append a bytea."""
    put_number(out, length, 4)
    return put(out, at, length)


@cython.cfunc
@cython.exceptval(-1)
def put_id(out: cython.pointer(Text), at: _Bytes, width: cython.Py_ssize_t) -> cython.int:
    """Append an id as a bytea; one of zeros as NULL."""
    absent: uint8_t[16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    if memcmp(at, cython.address(absent[0]), width) == 0:
        return put_null(out)
    return put_bytes(out, at, width)


@cython.cfunc
@cython.exceptval(-1)
def put_text(out: cython.pointer(Text), text: Extent) -> cython.int:
    """Append a text."""
    i: cython.Py_ssize_t
    more: cython.Py_ssize_t = 0
    if text.length == 0 or memchr(text.at, 0, text.length) == cython.NULL:
        return put_bytes(out, text.at, text.length)
    for i in range(text.length):
        more += 2 if text.at[i] == 0 else 0
    put_number(out, text.length + more, 4)
    for i in range(text.length):
        if text.at[i]:
            put_byte(out, text.at[i])
        else:
            put_number(out, 0xEFBFBD, 3)
    return 0


@cython.cfunc
@cython.exceptval(-1)
def begin_field(out: cython.pointer(Text)) -> cython.Py_ssize_t:
    """Begin a field whose length is not known yet; return where it begins, for `end_field`."""
    put_number(out, 0, 4)
    return out.length


@cython.cfunc
@cython.exceptval(check=False)
def end_field(out: cython.pointer(Text), begin: cython.Py_ssize_t) -> cython.void:
    """Write the length of the field that ends here."""
    length: uint32_t = cython.cast(uint32_t, out.length - begin)
    i: cython.int
    for i in range(4):
        out.at[begin - 4 + i] = cython.cast(uint8_t, length >> (8 * (3 - i)) & 255)


@cython.cfunc
@cython.exceptval(-1)
def begin_json(out: cython.pointer(Text)) -> cython.Py_ssize_t:
    """Begin a jsonb; return where it begins, for `end_json`."""
    begin: cython.Py_ssize_t = begin_field(out)
    put_byte(out, 1)  # the version of jsonb's form
    return begin


@cython.cfunc
@cython.exceptval(check=False)
def end_json(out: cython.pointer(Text), begin: cython.Py_ssize_t) -> cython.void:
    """End it: its length, and what it may not hold."""
    at: cython.pointer(uint8_t) = out.at + begin
    end: cython.pointer(uint8_t) = out.at + out.length
    end_field(out, begin)
    while at < end:
        at = cython.cast(cython.pointer(uint8_t), memchr(at, 92, end - at))
        if at == cython.NULL:
            break
        if end - at >= 6 and memcmp(at + 1, b"u0000", 5) == 0:
            memcpy(at + 2, b"fffd", 4)
        at += 2


def irregular(text: str) -> bool:
    """Tell of a JSON object (as jsontext.py writes it) whether jsonb will hold less than it says, as far as the keys of the
    object itself go: one stands twice, or there is a NUL, or there are too many to look."""
    length: cython.Py_ssize_t = 0
    at: _Bytes = cython.cast(_Bytes, PyUnicode_AsUTF8AndSize(text, cython.address(length)))
    return is_irregular(at, at + length)


@cython.cfunc
@cython.exceptval(check=False)
def is_irregular(at: _Bytes, end: _Bytes) -> cython.bint:
    """The same of a text by its ends."""
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
