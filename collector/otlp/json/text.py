# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""JSON text as RFC 8259 has it: white space, strings and whole values, read where they lie.

The text is UTF-8 and ends with a byte of 0 that is not part of it (as `bytes` and `bytearray` do), which no
rule accepts: so one byte may be read without asking whether the text has ended.

A function takes the place where its part of the text begins and returns the place behind it; NULL when the text
is wrong, and then `Text.failure` says how and `Text.where` at which byte. Strings are checked to the last
byte, those that are only stepped over too: UTF-8 without surrogates, escapes, no control characters. Nothing
here allocates, raises or recurses.

Cost: strings are read 16 bytes at a time up to a quote, a backslash or something that is not plain ASCII.
"""

import cython
from cython.cimports.collector.otlp.json.number import Number, read_number
from cython.cimports.collector.otlp.json.text import *  # noqa: F403
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def broken(
    text: cython.pointer(Text), at: cython.pointer(cython.const[uint8_t]), failure: cython.int
) -> cython.pointer(cython.const[uint8_t]):
    """Say that the text is wrong at a byte."""
    text.failure = failure if at < text.end else ENDED
    text.where = at
    return cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def skip_blank(at: cython.pointer(cython.const[uint8_t])) -> cython.pointer(cython.const[uint8_t]):
    while at[0] == 32 or at[0] == 10 or at[0] == 13 or at[0] == 9:
        at += 1
    return at


# --- strings ----------------------------------------------------------------------------------------------------


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _sequence(at: cython.pointer(cython.const[uint8_t])) -> cython.int:
    """Return the length of the UTF-8 sequence of a character above 0x7F; 0 when it is not one (RFC 3629)."""
    first: uint8_t = at[0]
    second: uint8_t
    if first < 0xC2 or first > 0xF4:
        return 0
    second = at[1]
    if second & 0xC0 != 0x80:
        return 0
    if first < 0xE0:
        return 2
    if at[2] & 0xC0 != 0x80:
        return 0
    if first < 0xF0:
        return 0 if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F) else 3
    if (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F):
        return 0
    return 4 if at[3] & 0xC0 == 0x80 else 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _four_digits(at: cython.pointer(cython.const[uint8_t])) -> cython.int:
    """Return the value of the four hexadecimal digits of an escape; −1 when they are not four."""
    value: cython.int = 0
    digit: uint8_t
    i: cython.int
    for i in range(4):
        digit = at[i]
        if 48 <= digit <= 57:
            value = value << 4 | (digit - 48)
        elif 97 <= digit | 32 <= 102:
            value = value << 4 | ((digit | 32) - 87)
        else:
            return -1
    return value


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _escape(
    text: cython.pointer(Text),
    at: cython.pointer(cython.const[uint8_t]),
    out: cython.pointer(cython.pointer(uint8_t)),
) -> cython.pointer(cython.const[uint8_t]):
    """Read an escape from its backslash on, and write the character, at most 4 bytes."""
    to: cython.pointer(uint8_t) = out[0]
    letter: uint8_t = at[1]
    code: cython.int
    low: cython.int
    if letter == 34 or letter == 92 or letter == 47:
        to[0] = letter
    elif letter == 110:  # n
        to[0] = 10
    elif letter == 116:  # t
        to[0] = 9
    elif letter == 114:  # r
        to[0] = 13
    elif letter == 98:  # b
        to[0] = 8
    elif letter == 102:  # f
        to[0] = 12
    elif letter != 117:  # u
        return broken(text, at + 1, BAD_ESCAPE)
    else:
        code = _four_digits(at + 2)
        if code < 0:
            return broken(text, at, BAD_ESCAPE)
        if code < 0x80:
            to[0] = code
            out[0] = to + 1
            return at + 6
        if code < 0x800:
            to[0] = 0xC0 | code >> 6
            to[1] = 0x80 | code & 0x3F
            out[0] = to + 2
            return at + 6
        if code < 0xD800 or code > 0xDFFF:
            to[0] = 0xE0 | code >> 12
            to[1] = 0x80 | code >> 6 & 0x3F
            to[2] = 0x80 | code & 0x3F
            out[0] = to + 3
            return at + 6
        if code > 0xDBFF or at[6] != 92 or at[7] != 117:
            return broken(text, at, BAD_SURROGATE)
        low = _four_digits(at + 8)
        if low < 0xDC00 or low > 0xDFFF:
            return broken(text, at, BAD_SURROGATE)
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        to[0] = 0xF0 | code >> 18
        to[1] = 0x80 | code >> 12 & 0x3F
        to[2] = 0x80 | code >> 6 & 0x3F
        to[3] = 0x80 | code & 0x3F
        out[0] = to + 4
        return at + 12
    out[0] = to + 1
    return at + 2


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def copy_rest(
    text: cython.pointer(Text),
    at: cython.pointer(cython.const[uint8_t]),
    out: cython.pointer(cython.pointer(uint8_t)),
) -> cython.pointer(cython.const[uint8_t]):
    """Copy a string, from anywhere in it on, with all that `copy_string` leaves out."""
    to: cython.pointer(uint8_t)
    found: uint32_t
    plain: cython.int
    length: cython.int
    while True:
        to = out[0]
        if at[0] >= 0x80:
            length = _sequence(at)
            if length == 0:
                return broken(text, at, NOT_UTF8)
            memcpy(to, at, length)
            at += length
            out[0] = to + length
            continue
        if at[0] == 92:
            at = _escape(text, at, out)
            if at == cython.NULL:
                return cython.NULL
            continue
        if at[0] == 34:
            return at + 1
        if at[0] < 32:
            return broken(text, at, BAD_CONTROL)
        if text.end - at < STRIDE:
            to[0] = at[0]
            at += 1
            out[0] = to + 1
            continue
        found = stops(at)
        memcpy(to, at, STRIDE)
        plain = first_bit(found) if found else STRIDE
        at += plain
        out[0] = to + plain


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def skip_string(text: cython.pointer(Text), at: cython.pointer(cython.const[uint8_t])) -> cython.pointer(
    cython.const[uint8_t]
):
    """Step over a string whose opening quote was just read; return what follows its closing quote."""
    found: uint32_t
    length: cython.int
    character: uint8_t[4]
    to: cython.pointer(uint8_t)
    while True:
        while text.end - at >= STRIDE:
            found = stops(at)
            if found:
                at += first_bit(found)
                break
            at += STRIDE
        if at[0] == 34:
            return at + 1
        if at[0] == 92:
            to = character
            at = _escape(text, at, cython.address(to))
            if at == cython.NULL:
                return cython.NULL
        elif at[0] >= 0x80:
            length = _sequence(at)
            if length == 0:
                return broken(text, at, NOT_UTF8)
            at += length
        elif at[0] < 32:
            return broken(text, at, BAD_CONTROL)
        else:
            at += 1


# --- values -----------------------------------------------------------------------------------------------------


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _skip_key(text: cython.pointer(Text), at: cython.pointer(cython.const[uint8_t])) -> cython.pointer(
    cython.const[uint8_t]
):
    """Step over a key and its colon."""
    if at[0] != 34:
        return broken(text, at, EXPECTED_KEY)
    at = skip_string(text, at + 1)
    if at == cython.NULL:
        return cython.NULL
    at = blank(at)
    return blank(at + 1) if at[0] == 58 else broken(text, at, EXPECTED_COLON)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _skip_plain(text: cython.pointer(Text), at: cython.pointer(cython.const[uint8_t])) -> cython.pointer(
    cython.const[uint8_t]
):
    """Step over a value that is no array and no object."""
    number: Number
    behind: cython.pointer(cython.const[uint8_t])
    if at[0] == 34:
        return skip_string(text, at + 1)
    if at[0] == 45 or 48 <= at[0] <= 57:
        behind = read_number(at, text.end, False, cython.address(number))
        return behind if behind != cython.NULL else broken(text, at, BAD_NUMBER)
    if is_literal(text, at, b"true", 4) or is_literal(text, at, b"null", 4):
        return at + 4
    if is_literal(text, at, b"false", 5):
        return at + 5
    return broken(text, at, EXPECTED_VALUE)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def skip_value(text: cython.pointer(Text), at: cython.pointer(cython.const[uint8_t])) -> cython.pointer(
    cython.const[uint8_t]
):
    """Step over any value, whatever is in it."""
    objects: uint64_t[16]  # a bit for each level: it is an object
    level: cython.int = 0
    bit: uint64_t
    is_object: cython.bint
    while True:
        if at[0] == 123 or at[0] == 91:
            is_object = at[0] == 123
            at = blank(at + 1)
            if at[0] == (125 if is_object else 93):
                at += 1
            else:
                if level == NESTING:
                    return broken(text, at, TOO_NESTED)
                bit = cython.cast(uint64_t, 1) << (level & 63)
                objects[level >> 6] = (objects[level >> 6] | bit) if is_object else (objects[level >> 6] & ~bit)
                level += 1
                if is_object:
                    at = _skip_key(text, at)
                    if at == cython.NULL:
                        return cython.NULL
                continue
        else:
            at = _skip_plain(text, at)
            if at == cython.NULL:
                return cython.NULL
        while True:  # behind a value
            if level == 0:
                return at
            at = blank(at)
            is_object = objects[(level - 1) >> 6] >> ((level - 1) & 63) & 1
            if at[0] == 44:
                at = blank(at + 1)
                if is_object:
                    at = _skip_key(text, at)
                    if at == cython.NULL:
                        return cython.NULL
                break
            if at[0] != (125 if is_object else 93):
                return broken(text, at, EXPECTED_COMMA)
            at += 1
            level -= 1
