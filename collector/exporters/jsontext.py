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
from cython.cimports.collector.exporters.jsontext import PyOS_double_to_string, Text, put_byte
from cython.cimports.collector.otlp.wire import DEPTH, Extent, next_field
from cython.cimports.cpython.mem import PyMem_Free
from cython.cimports.cpython.unicode import PyUnicode_DecodeUTF8
from cython.cimports.libc.math import isfinite, isnan
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import free, realloc
from cython.cimports.libc.string import memcpy, strlen

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
def put(out: cython.pointer(Text), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t) -> cython.int:
    """Append bytes as they are."""
    room: cython.Py_ssize_t
    grown: cython.p_void
    if out.room - out.length < length:
        room = 2 * out.room + length + 64
        grown = realloc(out.at, room)
        if grown == cython.NULL:
            raise MemoryError
        out.at = cython.cast(cython.pointer(uint8_t), grown)
        out.room = room
    if length:
        memcpy(out.at + out.length, at, length)
    out.length += length
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def release(out: cython.pointer(Text)) -> cython.void:
    """Give the memory back; the text is empty and can be used again."""
    free(out.at)
    out.at = cython.NULL
    out.length = 0
    out.room = 0


@cython.cfunc
def take(out: cython.pointer(Text)):
    """Return the text as a str, and begin a new one."""
    found = PyUnicode_DecodeUTF8(cython.cast(cython.p_char, out.at), out.length, cython.NULL) if out.length else ""
    out.length = 0
    return found


@cython.cfunc
@cython.exceptval(-1)
def put_chars(out: cython.pointer(Text), chars: cython.p_const_char) -> cython.int:
    """Append a literal as it is."""
    return put(out, cython.cast(cython.pointer(cython.const[uint8_t]), chars), strlen(chars))


@cython.cfunc
@cython.exceptval(-1)
def put_string(
    out: cython.pointer(Text), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t
) -> cython.int:
    """Append a JSON string."""
    end: cython.pointer(cython.const[uint8_t]) = at + length
    begin: cython.pointer(cython.const[uint8_t])
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
def put_hex(
    out: cython.pointer(Text), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t
) -> cython.int:
    """Append an id as a JSON string of hexadecimal digits."""
    i: cython.Py_ssize_t
    put_byte(out, 34)
    for i in range(length):
        put_byte(out, _DIGITS[at[i] >> 4])
        put_byte(out, _DIGITS[at[i] & 15])
    return put_byte(out, 34)


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
def _put_base64(
    out: cython.pointer(Text), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t
) -> cython.int:
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
def put_any(
    out: cython.pointer(Text),
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    depth: cython.int,
) -> cython.int:
    """Append the JSON of an AnyValue message."""
    tag: uint32_t = 0
    number: uint64_t = 0
    double: cython.double = 0
    content: Extent
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
        if tag == 10:
            return put_string(out, content.at, content.length)
        if tag == 24:
            return put_signed(out, cython.cast(int64_t, number))
        if tag == 16:
            return put_chars(out, b"true" if number else b"false")
        if tag == 33:
            memcpy(cython.address(double), cython.address(number), 8)
            return put_double(out, double)
        if tag == 58:
            return _put_base64(out, content.at, content.length)
        if tag == 42 and depth < DEPTH:
            return _put_array(out, content.at, content.at + content.length, depth + 1)
        if tag == 50 and depth < DEPTH:
            return put_object(out, content.at, content.at + content.length, 1, depth + 1)
    return put_chars(out, b"null")


@cython.cfunc
@cython.exceptval(-1)
def _put_array(
    out: cython.pointer(Text),
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    depth: cython.int,
) -> cython.int:
    tag: uint32_t = 0
    number: uint64_t = 0
    content: Extent
    first: cython.bint = True
    put_byte(out, 91)
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
        if tag == 10:
            if not first:
                put_byte(out, 44)
            first = False
            put_any(out, content.at, content.at + content.length, depth)
    return put_byte(out, 93)


@cython.cfunc
@cython.exceptval(-1)
def put_object(
    out: cython.pointer(Text),
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    field: uint32_t,
    depth: cython.int,
) -> cython.int:
    """Append a JSON object of the KeyValues in repeated field `field` of a message."""
    tag: uint32_t = 0
    number: uint64_t = 0
    pair: Extent
    key: Extent
    value: Extent
    part: Extent
    inside: cython.pointer(cython.const[uint8_t])
    wanted: uint32_t = field << 3 | 2
    first: cython.bint = True
    put_byte(out, 123)
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(pair))
        if tag != wanted:
            continue
        key.at = value.at = inside = pair.at
        key.length = value.length = 0
        while inside < pair.at + pair.length:
            inside = next_field(
                inside, pair.at + pair.length, cython.address(tag), cython.address(number), cython.address(part)
            )
            if tag == 10:
                key = part
            elif tag == 18:
                value = part
        if not first:
            put_byte(out, 44)
        first = False
        put_string(out, key.at, key.length)
        put_byte(out, 58)
        put_any(out, value.at, value.at + value.length, depth)
    return put_byte(out, 125)


@cython.cfunc
def field_of(message: Extent, wanted: uint32_t) -> Extent:
    """Return the content of a length-delimited field; of length 0 when it is absent."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    found: Extent
    at: cython.pointer(cython.const[uint8_t]) = message.at
    found.at = message.at
    found.length = 0
    while at < message.at + message.length:
        at = next_field(
            at, message.at + message.length, cython.address(tag), cython.address(number), cython.address(part)
        )
        if tag == wanted << 3 | 2:
            found = part
    return found


@cython.cfunc
def closed(out: cython.pointer(Text)):
    """Return an array whose elements were appended, each after a bracket or a comma; None for none."""
    if not out.length:
        return None
    put_byte(out, 93)
    return take(out)


def members(message: bytes, field: int) -> str:
    """Return the object of the KeyValues in repeated field `field` of a message, which has been validated."""
    out: Text
    out.at = cython.NULL
    out.length = out.room = 0
    chars: cython.p_const_char = message
    at: cython.pointer(cython.const[uint8_t]) = cython.cast(cython.pointer(cython.const[uint8_t]), chars)
    try:
        put_object(cython.address(out), at, at + cython.cast(cython.Py_ssize_t, len(message)), field, 0)
        return take(cython.address(out))
    finally:
        release(cython.address(out))


def value(message: bytes) -> str:
    """Return the JSON of one AnyValue message, which has been validated."""
    out: Text
    out.at = cython.NULL
    out.length = out.room = 0
    chars: cython.p_const_char = message
    at: cython.pointer(cython.const[uint8_t]) = cython.cast(cython.pointer(cython.const[uint8_t]), chars)
    try:
        put_any(cython.address(out), at, at + cython.cast(cython.Py_ssize_t, len(message)), 0)
        return take(cython.address(out))
    finally:
        release(cython.address(out))
