# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Bytes that JSON writes as text: hexadecimal for ids, base64 for everything else.

Hexadecimal is read 8 digits at a time within one 64-bit word, in either case of letters: under 10 ns for a
trace id.
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy, memset

_NONE = cython.declare(uint8_t, 255)

_sextet = cython.declare(uint8_t[256])  # of a base64 character, of both alphabets
_nibble = cython.declare(uint8_t[256])  # of a hexadecimal digit
memset(_sextet, _NONE, 256)
memset(_nibble, _NONE, 256)
for _value, _character in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):
    _sextet[ord(_character)] = _value
_sextet[45], _sextet[95] = _sextet[43], _sextet[47]  # - and _ are + and /
for _value in range(16):
    _nibble[ord(f"{_value:x}")] = _nibble[ord(f"{_value:X}")] = _value


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _reaches(word: uint64_t, least: uint64_t) -> uint64_t:
    """Return the high bit of each byte that is at least `least`; all bytes are below 0x80."""
    ones: uint64_t = 0x0101010101010101
    return word + (0x80 - least) * ones & ones << 7


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_hexadecimal(
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    out: cython.pointer(cython.pointer(uint8_t)),
) -> cython.pointer(cython.const[uint8_t]):
    """Read pairs of hexadecimal digits up to something else; return where that is. A byte of 0 stands at `end`."""
    to: cython.pointer(uint8_t) = out[0]
    word: uint64_t = 0
    lower: uint64_t
    letters: uint64_t
    digits: uint64_t
    spaces: uint64_t = 0x2020202020202020
    highs: uint64_t = 0x8080808080808080
    nibbles: uint64_t = 0x0F0F0F0F0F0F0F0F
    pairs: uint64_t = 0x00FF00FF00FF00FF
    fours: uint64_t = 0x0000FFFF0000FFFF
    four: uint32_t
    while end - at >= 8:
        memcpy(cython.address(word), at, 8)
        if word & highs:
            break
        lower = word | spaces
        letters = _reaches(lower, 97) & ~_reaches(lower, 103)
        digits = _reaches(word, 48) & ~_reaches(word, 58)
        if letters | digits != highs:
            break
        word = (lower & nibbles) + (letters >> 7) * 9
        word = (word << 4 | word >> 8) & pairs
        word = (word | word >> 8) & fours
        four = cython.cast(uint32_t, word | word >> 16)
        memcpy(to, cython.address(four), 4)
        to += 4
        at += 8
    while _nibble[at[0]] != _NONE and _nibble[at[1]] != _NONE:
        to[0] = _nibble[at[0]] << 4 | _nibble[at[1]]
        to += 1
        at += 2
    out[0] = to
    return at


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_base64(
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    out: cython.pointer(cython.pointer(uint8_t)),
) -> cython.bint:
    """Decode base64, of both alphabets, padded or not; false when it is not that.

    What is written may overwrite what has been read: `out` may lie before `at` in the same buffer.
    """
    to: cython.pointer(uint8_t) = out[0]
    word: uint32_t
    first: uint32_t
    second: uint32_t
    third: uint32_t
    fourth: uint32_t
    padding: cython.int = 0
    while padding < 2 and end > at and (end - 1)[0] == 61 and (end - at + padding) % 4 == 0:
        end -= 1
        padding += 1
    while end - at >= 4:
        first = _sextet[at[0]]
        second = _sextet[at[1]]
        third = _sextet[at[2]]
        fourth = _sextet[at[3]]
        if (first | second | third | fourth) > 63:
            return False
        word = first << 18 | second << 12 | third << 6 | fourth
        to[0] = word >> 16
        to[1] = word >> 8 & 255
        to[2] = word & 255
        to += 3
        at += 4
    if end - at >= 2:
        first = _sextet[at[0]]
        second = _sextet[at[1]]
        third = _sextet[at[2]] if end - at == 3 else 0
        if (first | second | third) > 63:
            return False
        word = first << 18 | second << 12 | third << 6
        to[0] = word >> 16
        to += 1
        if end - at == 3:
            to[0] = word >> 8 & 255
            to += 1
    elif end != at:
        return False
    out[0] = to
    return True
