# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The protobuf wire format: fields, attributes, UTF-8 and string keys, as compiled primitives.

`skip` checks what it steps over; `next_field` and `find_attribute` are for bytes that a walk has validated,
and stop at the end of their message when it was not. Nothing here allocates or raises, but for `own_fields`.
"""

import cython
from cython.cimports.collector.otlp.wire import (
    DEPTH,
    HIGH_BITS,
    MIX_1,
    MIX_2,
    MIX_3,
    MIX_4,
    SEED,
    Extent,
    mix,
    read_tag,
    read_varint,
)
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp, memcpy


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def key_of(at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t) -> uint64_t:
    word: uint64_t
    h: uint64_t = SEED ^ cython.cast(uint64_t, length)
    while length >= 8:
        memcpy(cython.address(word), at, 8)
        h = mix(h ^ word, MIX_1)
        at += 8
        length -= 8
    if length > 0:
        word = 0
        memcpy(cython.address(word), at, length)
        h = mix(h ^ word, MIX_2)
    h = mix(h ^ MIX_3, MIX_4)
    return h if h != 0 else 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def skip(
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    tag: uint32_t,
    depth: cython.int,
) -> cython.pointer(cython.const[uint8_t]):
    """Step over the value of an unknown field whose tag was just read; NULL when its form is wrong.

    Inside a group the field number 0 passes, as in the protobuf library.
    """
    value: uint64_t
    length: uint32_t = 0
    inner: uint32_t = 0
    wire: uint32_t = tag & 7
    if wire == 0:
        return read_varint(at, end, cython.address(value))
    if wire == 1:
        return at + 8 if end - at >= 8 else cython.NULL
    if wire == 2:
        at = read_tag(at, end, cython.address(length))
        if at == cython.NULL or end - at < length:
            return cython.NULL
        return at + length
    if wire == 5:
        return at + 4 if end - at >= 4 else cython.NULL
    if wire != 3 or depth >= DEPTH:
        return cython.NULL
    while True:
        at = read_tag(at, end, cython.address(inner))
        if at == cython.NULL:
            return cython.NULL
        if inner & 7 == 4:
            return at if inner >> 3 == tag >> 3 else cython.NULL
        at = skip(at, end, inner, depth + 1)
        if at == cython.NULL:
            return cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def next_field(
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    tag: cython.pointer(uint32_t),
    value: cython.pointer(uint64_t),
    content: cython.pointer(Extent),
) -> cython.pointer(cython.const[uint8_t]):
    """Read one field of bytes that have been validated: its tag, and its number or its content.

    `value` is a varint's value or the raw 4 or 8 bytes of a fixed number; `content.at` is NULL for those.
    """
    length: uint32_t = 0
    small: uint32_t = 0
    content.at = cython.NULL
    content.length = 0
    value[0] = 0
    at = read_tag(at, end, tag)
    if at == cython.NULL:
        return end
    if tag[0] & 7 == 2:
        at = read_tag(at, end, cython.address(length))
        if at == cython.NULL or end - at < length:
            return end
        content.at = at
        content.length = length
        return at + length
    if tag[0] & 7 == 0:
        at = read_varint(at, end, value)
    elif tag[0] & 7 == 1:
        if end - at < 8:
            return end
        memcpy(value, at, 8)
        return at + 8
    elif tag[0] & 7 == 5:
        if end - at < 4:
            return end
        memcpy(cython.address(small), at, 4)
        value[0] = small
        return at + 4
    else:
        at = skip(at, end, tag[0], 0)
    return at if at != cython.NULL else end


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_attribute(
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    field: uint32_t,
    key: cython.pointer(cython.const[uint8_t]),
    key_length: cython.Py_ssize_t,
    value: cython.pointer(Extent),
) -> cython.bint:
    """Find the first KeyValue named `key` in repeated field `field` of a validated message.

    `value` becomes its AnyValue's content (of length 0 when the value is empty). False when there is none.
    """
    tag: uint32_t = 0
    number: uint64_t = 0
    pair: Extent
    part: Extent
    wanted: uint32_t = field << 3 | 2
    inside: cython.pointer(cython.const[uint8_t])
    matches: cython.bint
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(pair))
        if tag != wanted or pair.at == cython.NULL:
            continue
        matches = key_length == 0
        value.at = pair.at
        value.length = 0
        inside = pair.at
        while inside < pair.at + pair.length:
            inside = next_field(
                inside, pair.at + pair.length, cython.address(tag), cython.address(number), cython.address(part)
            )
            if tag == 10:  # key
                matches = part.length == key_length and memcmp(part.at, key, key_length) == 0
                if not matches:
                    break
            elif tag == 18:  # value
                value[0] = part
        if matches:
            return True
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_utf8(at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t) -> cython.bint:
    """Tell whether the bytes are UTF-8 as RFC 3629 has it: no surrogates, nothing overlong."""
    end: cython.pointer(cython.const[uint8_t]) = at + length
    word: uint64_t
    first: uint8_t
    second: uint8_t
    while at < end:
        while end - at >= 8:
            memcpy(cython.address(word), at, 8)
            if word & HIGH_BITS:
                break
            at += 8
        if at == end:
            return True
        if end - at < 8 and length >= 8:  # what is left is ASCII if the last 8 bytes are
            memcpy(cython.address(word), end - 8, 8)
            if not word & HIGH_BITS:
                return True
        first = at[0]
        if first < 0x80:
            at += 1
            continue
        if first < 0xC2 or first > 0xF4 or end - at < 2:
            return False
        second = at[1]
        if second & 0xC0 != 0x80:
            return False
        if first < 0xE0:
            at += 2
            continue
        if end - at < 3 or at[2] & 0xC0 != 0x80:
            return False
        if first < 0xF0:
            if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F):
                return False
            at += 3
            continue
        if end - at < 4 or at[3] & 0xC0 != 0x80:
            return False
        if (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F):
            return False
        at += 4
    return True


def hash_key(text: bytes) -> int:
    """Return the 64-bit key by which columns and postings know a string; 0 only for the empty one.

    Keys are the same in every process, so that they may stand on disk. They are not proof against somebody
    who searches for collisions: whoever follows a key compares the bytes.
    """
    return (
        key_of(cython.cast(cython.pointer(cython.const[uint8_t]), cython.cast(cython.p_const_char, text)), len(text))
        if text
        else 0
    )


def own_fields(payload, start: int, length: int, child: int) -> bytes:
    """Return the fields of a message, `length` bytes from `start`, without those of the number `child`, as they stand.

    The message has been validated. Cost: some 5 ns a field, whatever its length.
    """
    if length == 0:
        return b""
    view: cython.const[uint8_t][::1] = payload
    at: cython.pointer(cython.const[uint8_t]) = cython.address(view[start])
    end: cython.pointer(cython.const[uint8_t]) = at + cython.cast(cython.Py_ssize_t, length)
    begin: cython.pointer(cython.const[uint8_t]) = at
    number: uint32_t = child
    tag: uint32_t = 0
    value: uint64_t = 0
    content: Extent
    found: list = []
    while at < end:
        begin = at
        at = next_field(at, end, cython.address(tag), cython.address(value), cython.address(content))
        if tag >> 3 != number:
            found.append(cython.cast(cython.p_char, begin)[: at - begin])
    return b"".join(found)
