# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""OTLP's values as ClickHouse's Native format has them, compiled, straight out of payload bytes.

A value that is no string becomes one, as the Collector writes it: numbers and truth in their shortest form, bytes in base64,
arrays and lists as JSON. Ids are hexadecimal, absent ones empty. Times behind 2**63 - 1 ns, the year 2262, are that.

The bytes were validated by the scanner.
"""

import cython
from cython.cimports.collector.exporters.fields.elements import (
    BYTES_VALUE,
    DOUBLE_VALUE,
    STRING_VALUE,
    AnyValue,
    KeyValue,
    Repeated,
    next_of,
    read_key_value,
    read_value,
)
from cython.cimports.collector.exporters.jsontext import put_any
from cython.cimports.collector.exporters.text import Text, put, put_byte
from cython.cimports.collector.otlp.wire import Extent, write_varint
from cython.cimports.libc.stdint import int64_t, uint8_t, uint64_t
from cython.cimports.libc.string import memcmp, memset

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))
_DIGITS = cython.declare(cython.p_const_char, b"0123456789abcdef")
_LAST: uint64_t = cython.declare(uint64_t, 0x7FFFFFFFFFFFFFFF)


@cython.cfunc
@cython.exceptval(-1)
def put_number(out: cython.pointer(Text), value: uint64_t, width: cython.Py_ssize_t) -> cython.int:
    """Append the low bytes of a number."""
    return put(out, cython.cast(_Bytes, cython.address(value)), width)


@cython.cfunc
@cython.exceptval(-1)
def put_time(out: cython.pointer(Text), value: uint64_t) -> cython.int:
    """Append a time."""
    return put_number(out, value if value <= _LAST else _LAST, 8)


@cython.cfunc
@cython.exceptval(-1)
def put_float(out: cython.pointer(Text), value: cython.double) -> cython.int:
    """Append a double."""
    return put(out, cython.cast(_Bytes, cython.address(value)), 8)


@cython.cfunc
@cython.exceptval(-1)
def put_text(out: cython.pointer(Text), at: _Bytes, length: cython.Py_ssize_t) -> cython.int:
    """Append a string: its length and its bytes."""
    head: uint8_t[10]
    put(out, head, write_varint(head, cython.cast(uint64_t, length)) - head)
    return put(out, at, length)


@cython.cfunc
@cython.exceptval(-1)
def put_extent(out: cython.pointer(Text), part: Extent) -> cython.int:
    """The same, of a field."""
    return put_text(out, part.at, part.length)


@cython.cfunc
@cython.exceptval(-1)
def put_id(out: cython.pointer(Text), at: _Bytes, length: cython.Py_ssize_t) -> cython.int:
    """Append an id as hexadecimal digits; an absent one, or one of zeros, as nothing."""
    digits: uint8_t[64]
    absent: uint8_t[32]
    i: cython.Py_ssize_t
    memset(absent, 0, 32)
    if length > 32:
        length = 32
    if length == 0 or memcmp(at, absent, length) == 0:
        return put_byte(out, 0)
    for i in range(length):
        digits[2 * i] = _DIGITS[at[i] >> 4]
        digits[2 * i + 1] = _DIGITS[at[i] & 15]
    return put_text(out, digits, 2 * length)


@cython.cfunc
@cython.exceptval(-1)
def put_value(out: cython.pointer(Text), scratch: cython.pointer(Text), message: Extent) -> cython.int:
    """Append an AnyValue as a string."""
    value: AnyValue = read_value(message)
    first: _Bytes
    length: cython.Py_ssize_t
    if value.tag == STRING_VALUE:
        return put_extent(out, value.content)
    if value.tag == 0:
        return put_byte(out, 0)
    scratch.length = 0
    put_any(scratch, message, 0)
    first = scratch.at
    length = scratch.length
    if (value.tag == BYTES_VALUE or value.tag == DOUBLE_VALUE) and first[0] == 34:
        first += 1
        length -= 2
    elif value.tag == DOUBLE_VALUE and length > 2 and first[length - 1] == 48 and first[length - 2] == 46:
        length -= 2
    return put_text(out, first, length)


@cython.cfunc
@cython.exceptval(-1)
def put_key_values(
    keys: cython.pointer(Text), values: cython.pointer(Text), scratch: cython.pointer(Text), pairs: Repeated
) -> int64_t:
    """Append KeyValues; return how many."""
    content: Extent
    pair: KeyValue
    count: int64_t = 0
    while next_of(cython.address(pairs), cython.address(content)):
        pair = read_key_value(content)
        put_extent(keys, pair.key)
        put_value(values, scratch, pair.value)
        count += 1
    return count


@cython.cfunc
@cython.exceptval(-1)
def _word(out: cython.pointer(Text), word: cython.p_const_char, length: cython.Py_ssize_t) -> cython.int:
    return put_text(out, cython.cast(_Bytes, word), length)


@cython.cfunc
@cython.exceptval(-1)
def put_kind(out: cython.pointer(Text), kind: uint8_t) -> cython.int:
    """Append a span's kind by name."""
    if kind == 1:
        return _word(out, b"Internal", 8)
    if kind == 2:
        return _word(out, b"Server", 6)
    if kind == 3:
        return _word(out, b"Client", 6)
    if kind == 4:
        return _word(out, b"Producer", 8)
    if kind == 5:
        return _word(out, b"Consumer", 8)
    return _word(out, b"Unspecified", 11)


@cython.cfunc
@cython.exceptval(-1)
def put_status(out: cython.pointer(Text), status: uint8_t) -> cython.int:
    """Append a status by name."""
    if status == 1:
        return _word(out, b"Ok", 2)
    if status == 2:
        return _word(out, b"Error", 5)
    return _word(out, b"Unset", 5)
