# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What messages are made of: repeated fields, attributes and their values. See the package."""

import cython
from cython.cimports.collector.exporters.fields.elements import AnyValue, KeyValue, Repeated
from cython.cimports.collector.otlp.wire import Extent, next_field
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def as_double(bits: uint64_t) -> cython.double:
    """Return the double of these bits."""
    value: cython.double = 0
    memcpy(cython.address(value), cython.address(bits), 8)
    return value


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def repeated(message: Extent, field: uint32_t) -> Repeated:
    """Return the repeated field of a message; how many elements it has is not looked up."""
    found: Repeated
    found.at = message.at
    found.end = message.at + message.length
    found.tag = field << 3 | 2
    found.count = 0xFFFFFFFF
    return found


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def next_of(elements: cython.pointer(Repeated), content: cython.pointer(Extent)) -> cython.bint:
    """Take the next element of a repeated field; False when there is none."""
    tag: uint32_t = 0
    number: uint64_t = 0
    while elements.count and elements.at < elements.end:
        elements.at = next_field(elements.at, elements.end, cython.address(tag), cython.address(number), content)
        if tag == elements.tag:
            elements.count -= 1
            return True
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def field_of(message: Extent, field: uint32_t) -> Extent:
    """Return the content of a length-delimited field; of length 0 when it is absent."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    found: Extent
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    found.at = message.at
    found.length = 0
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == field << 3 | 2:
            found = part
    return found


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_key_value(message: Extent) -> KeyValue:
    """Read a KeyValue."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    found: KeyValue
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    found.key.at = found.value.at = at
    found.key.length = found.value.length = 0
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 10:
            found.key = part
        elif tag == 18:
            found.value = part
    return found


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_value(message: Extent) -> AnyValue:
    """Read an AnyValue: which of its fields is set, and to what."""
    found: AnyValue
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    tag: uint32_t = 0
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(found.number), cython.address(found.content))
        if tag == 10 or tag == 24 or tag == 16 or tag == 33 or tag == 58 or tag == 42 or tag == 50:
            found.tag = tag
            return found
    found.tag = 0
    return found
