# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""OTLP's values as JSON texts, compiled, straight from payload bytes: what databases keep attributes as.

    string  "text"              bytes   "base64"            array           [...]
    bool    true                int     a number, exact     key-value list  {...}
    double  a number, shortest; "NaN", "Infinity", "-Infinity"      empty   null

Attributes are one object, in their order; a key that stands twice stands twice. Texts are UTF-8; only what JSON must have
escaped is. NUL is written as \\u0000, which PostgreSQL's jsonb refuses. This is not OTLP/JSON (otlp/json/write.py), whose
values name their types: here a person writes `attributes ->> 'http.status_code'`.

The bytes were validated by the scanner. Nesting is bounded by it, and again here: what is deeper than `DEPTH` is null.
"""

import cython
from cython.cimports.collector.exporters.fields.elements import (
    ARRAY_VALUE,
    BOOL_VALUE,
    BYTES_VALUE,
    DOUBLE_VALUE,
    INT_VALUE,
    KVLIST_VALUE,
    STRING_VALUE,
    AnyValue,
    KeyValue,
    Repeated,
    as_double,
    extent,
    next_of,
    read_key_value,
    read_value,
    repeated,
)
from cython.cimports.collector.exporters.jsontext import PyOS_double_to_string
from cython.cimports.collector.exporters.text import Text, put, put_byte, put_chars, put_signed, release, take
from cython.cimports.collector.otlp.wire import DEPTH, Extent
from cython.cimports.cpython.mem import PyMem_Free
from cython.cimports.libc.math import isfinite, isnan
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))
_DIGITS = cython.declare(cython.p_const_char, b"0123456789abcdef")
_BASE64 = cython.declare(cython.p_const_char, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_escaped = cython.declare(uint8_t[256])  # 0, or what follows the backslash; 'u' for the long form


def _fill() -> None:
    byte: cython.int
    for byte in range(256):
        _escaped[byte] = 117 if byte < 0x20 else 0
    for character, letter in {'"': '"', "\\": "\\", "\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}.items():
        byte = ord(character)
        _escaped[byte] = ord(letter)


_fill()


@cython.cfunc
@cython.exceptval(-1)
def put_string(out: cython.pointer(Text), at: _Bytes, length: cython.Py_ssize_t) -> cython.int:
    """Append a JSON string."""
    end: _Bytes = at + length
    begin: _Bytes
    letter: uint8_t
    put_byte(out, 34)
    while at < end:
        begin = at
        while at < end and not _escaped[at[0]]:
            at += 1
        put(out, begin, at - begin)
        if at < end:
            letter = _escaped[at[0]]
            put_byte(out, 92)
            put_byte(out, letter)
            if letter == 117:
                put_chars(out, b"00")
                put_byte(out, _DIGITS[at[0] >> 4])
                put_byte(out, _DIGITS[at[0] & 15])
            at += 1
    return put_byte(out, 34)


@cython.cfunc
@cython.exceptval(-1)
def put_hex(out: cython.pointer(Text), at: _Bytes, length: cython.Py_ssize_t) -> cython.int:
    """Append an id as a JSON string of hexadecimal digits."""
    i: cython.Py_ssize_t
    put_byte(out, 34)
    for i in range(length):
        put_byte(out, _DIGITS[at[i] >> 4])
        put_byte(out, _DIGITS[at[i] & 15])
    return put_byte(out, 34)


@cython.cfunc
@cython.exceptval(-1)
def put_double(out: cython.pointer(Text), value: cython.double) -> cython.int:
    """Append a number, so that reading it gives the same double; what JSON has no number for as a string."""
    if not isfinite(value):
        return put_chars(out, b'"NaN"' if isnan(value) else b'"Infinity"' if value > 0 else b'"-Infinity"')
    shortest: cython.p_char = PyOS_double_to_string(value, 114, 0, 2, cython.NULL)
    if shortest == cython.NULL:
        raise MemoryError
    try:
        return put_chars(out, shortest)
    finally:
        PyMem_Free(shortest)


@cython.cfunc
@cython.exceptval(-1)
def _put_base64(out: cython.pointer(Text), at: _Bytes, length: cython.Py_ssize_t) -> cython.int:
    i: cython.Py_ssize_t = 0
    word: uint32_t
    left: cython.Py_ssize_t
    put_byte(out, 34)
    while i < length:
        left = length - i
        word = cython.cast(uint32_t, at[i]) << 16
        if left > 1:
            word |= cython.cast(uint32_t, at[i + 1]) << 8
        if left > 2:
            word |= at[i + 2]
        put_byte(out, _BASE64[word >> 18])
        put_byte(out, _BASE64[word >> 12 & 63])
        put_byte(out, _BASE64[word >> 6 & 63] if left > 1 else 61)
        put_byte(out, _BASE64[word & 63] if left > 2 else 61)
        i += 3
    return put_byte(out, 34)


@cython.cfunc
@cython.exceptval(-1)
def put_any(out: cython.pointer(Text), message: Extent, depth: cython.int) -> cython.int:
    """Append the JSON of an AnyValue message."""
    value: AnyValue = read_value(message)
    if value.tag == STRING_VALUE:
        return put_string(out, value.content.at, value.content.length)
    if value.tag == INT_VALUE:
        return put_signed(out, cython.cast(int64_t, value.number))
    if value.tag == BOOL_VALUE:
        return put_chars(out, b"true" if value.number else b"false")
    if value.tag == DOUBLE_VALUE:
        return put_double(out, as_double(value.number))
    if value.tag == BYTES_VALUE:
        return _put_base64(out, value.content.at, value.content.length)
    if value.tag == ARRAY_VALUE and depth < DEPTH:
        return _put_array(out, repeated(value.content, 1), depth + 1)
    if value.tag == KVLIST_VALUE and depth < DEPTH:
        return put_object(out, repeated(value.content, 1), depth + 1)
    return put_chars(out, b"null")


@cython.cfunc
@cython.exceptval(-1)
def _put_array(out: cython.pointer(Text), values: Repeated, depth: cython.int) -> cython.int:
    content: Extent
    first: cython.bint = True
    put_byte(out, 91)
    while next_of(cython.address(values), cython.address(content)):
        if not first:
            put_byte(out, 44)
        first = False
        put_any(out, content, depth)
    return put_byte(out, 93)


@cython.cfunc
@cython.exceptval(-1)
def put_object(out: cython.pointer(Text), pairs: Repeated, depth: cython.int) -> cython.int:
    """Append a JSON object of KeyValues."""
    content: Extent
    pair: KeyValue
    first: cython.bint = True
    put_byte(out, 123)
    while next_of(cython.address(pairs), cython.address(content)):
        pair = read_key_value(content)
        if not first:
            put_byte(out, 44)
        first = False
        put_string(out, pair.key.at, pair.key.length)
        put_byte(out, 58)
        put_any(out, pair.value, depth)
    return put_byte(out, 125)


@cython.cfunc
def _extent(message: bytes) -> Extent:
    chars: cython.p_const_char = message
    at: _Bytes = cython.cast(_Bytes, chars)
    return extent(at, at + cython.cast(cython.Py_ssize_t, len(message)))


def members(message: bytes, field: int) -> str:
    """Return the object of the KeyValues in repeated field `field` of a message, which has been validated."""
    out: Text
    out.at = cython.NULL
    out.length = out.room = 0
    try:
        put_object(cython.address(out), repeated(_extent(message), field), 0)
        return take(cython.address(out))
    finally:
        release(cython.address(out))


def value(message: bytes) -> str:
    """Return the JSON of one AnyValue message, which has been validated."""
    out: Text
    out.at = cython.NULL
    out.length = out.room = 0
    try:
        put_any(cython.address(out), _extent(message), 0)
        return take(cython.address(out))
    finally:
        release(cython.address(out))
