# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Bytes under construction, compiled: what texts, rows and columns are written into.

A `Text` is zeroed memory at first, grows by doubling, and keeps its room from one use to the next: `length` 0 begins anew,
`release` gives everything back. Whoever made it releases it.
"""

import cython
from cython.cimports.collector.exporters.text import Text, put, put_byte
from cython.cimports.collector.otlp.wire import Extent, next_field
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.cpython.unicode import PyUnicode_DecodeUTF8
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import free, realloc
from cython.cimports.libc.string import strlen

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))


@cython.cfunc
@cython.exceptval(-1)
def grow(out: cython.pointer(Text), length: cython.Py_ssize_t) -> cython.int:
    """Make room for so many bytes more."""
    room: cython.Py_ssize_t = 2 * out.room + length + 64
    grown: cython.p_void = realloc(out.at, room)
    if grown == cython.NULL:
        raise MemoryError
    out.at = cython.cast(cython.pointer(uint8_t), grown)
    out.room = room
    return 0


@cython.cfunc
@cython.exceptval(-1)
def put_chars(out: cython.pointer(Text), chars: cython.p_const_char) -> cython.int:
    """Append a literal as it is."""
    return put(out, cython.cast(_Bytes, chars), strlen(chars))


@cython.cfunc
@cython.exceptval(-1)
def put_unsigned(out: cython.pointer(Text), value: uint64_t) -> cython.int:
    """Append a number."""
    digits: uint8_t[20]
    at: cython.int = 20
    while True:
        at -= 1
        digits[at] = cython.cast(uint8_t, 48 + value % 10)
        value //= 10
        if value == 0:
            break
    return put(out, cython.address(digits[0]) + at, 20 - at)


@cython.cfunc
@cython.exceptval(-1)
def put_signed(out: cython.pointer(Text), value: int64_t) -> cython.int:
    """Append a number."""
    if value >= 0:
        return put_unsigned(out, cython.cast(uint64_t, value))
    put_byte(out, 45)
    return put_unsigned(out, 0 - cython.cast(uint64_t, value))


@cython.cfunc
@cython.exceptval(-1)
def put_others(out: cython.pointer(Text), message: Extent, child: uint32_t) -> cython.int:
    """Append a message's fields, but those of the number `child`, as they stand."""
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    begin: _Bytes
    kept: _Bytes = at
    tag: uint32_t = 0
    number: uint64_t = 0
    content: Extent
    while at < end:
        begin = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
        if tag >> 3 == child:
            put(out, kept, begin - kept)
            kept = at
    return put(out, kept, end - kept)


@cython.cfunc
def as_bytes(out: cython.pointer(Text)):
    """Return what was written as bytes, and begin anew."""
    found = PyBytes_FromStringAndSize(cython.cast(cython.p_char, out.at), out.length) if out.length else b""
    out.length = 0
    return found


@cython.cfunc
def as_str(at: _Bytes, length: cython.Py_ssize_t):
    """Return UTF-8 as a str."""
    return PyUnicode_DecodeUTF8(cython.cast(cython.p_char, at), length, cython.NULL) if length else ""


@cython.cfunc
def take(out: cython.pointer(Text)):
    """Return the text as a str, and begin a new one."""
    found = PyUnicode_DecodeUTF8(cython.cast(cython.p_char, out.at), out.length, cython.NULL) if out.length else ""
    out.length = 0
    return found


@cython.cfunc
@cython.exceptval(check=False)
def release(out: cython.pointer(Text)) -> cython.void:
    """Give the memory back; the text is empty and can be used again."""
    free(out.at)
    out.at = cython.NULL
    out.length = 0
    out.room = 0
