# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The words of texts, folded: what keyword indexes are made of, and queries look for in them.

A word is a maximal run of word characters: ASCII letters, digits and `_`, and all of Unicode from U+0080 on but for the
spaces, punctuation, symbols and emoji of `_APART`. So letters of all scripts, with their marks, are words, and the
rule needs no table of Unicode and stays the same with the next version of it: words are on disk, too. Words are folded,
one character to one, by simple case folding of the characters of Unicode 14's basic plane: `K`, `k` and the Kelvin sign
are one. A word of more than WORD_BYTES_MAX bytes, folded, is not among the words, and the flag BODY_LONG or ATTRIBUTE_LONG
(texts.py) says that there is one.

Cost: 2 ns a byte to take the words out of ASCII.
"""

from collections import namedtuple

import cython
from cython.cimports.collector.otlp.texts import ATTRIBUTE, ATTRIBUTE_LONG, BODY_LONG
from cython.cimports.collector.otlp.wire import key_of
from cython.cimports.collector.otlp.words import *  # noqa: F403
from cython.cimports.libc.stdint import uint8_t, uint16_t, uint32_t
from cython.cimports.libc.stdlib import free, realloc
from cython.cimports.libc.string import memcpy

WORD_BYTES_MAX = WORD_BYTES

Found = namedtuple("Found", ("start", "end", "folded"))  # noqa: PYI024 (typed in words.pyi)
Found.__doc__ = """A word of a text: bytes [start, end) of it, and its folded bytes, however many."""

_APART = (
    *((0x80, 0xA9), (0xAB, 0xB1), (0xB4, 0xB4), (0xB6, 0xB8), (0xBB, 0xBB), (0xBF, 0xBF), (0xD7, 0xD7), (0xF7, 0xF7)),
    *((0x060C, 0x060D), (0x061B, 0x061F), (0x066A, 0x066D), (0x06D4, 0x06D4), (0x0964, 0x0965)),
    *((0x2000, 0x206F), (0x20A0, 0x20CF), (0x2190, 0x2BFF), (0x2E00, 0x2E7F), (0x3000, 0x3004), (0x3008, 0x3020)),
    *((0x3030, 0x3030), (0xFE10, 0xFE1F), (0xFE30, 0xFE6F), (0xFEFF, 0xFEFF), (0xFF00, 0xFF0F), (0xFF1A, 0xFF20)),
    *((0xFF3B, 0xFF3E), (0xFF40, 0xFF40), (0xFF5B, 0xFF65), (0xFFE0, 0xFFFF)),
)
"""Characters of the basic plane that are in no word. Beyond it only emoji are not: U+1F000 to U+1FAFF."""

_CASED = (
    *((0xB5, 0x590), (0x10A0, 0x1100), (0x13A0, 0x1400), (0x1C80, 0x1C89), (0x1C90, 0x1CC0), (0x1E00, 0x2000)),
    *((0x2126, 0x2184), (0x2C00, 0x2D30), (0xA640, 0xA69C), (0xA722, 0xA7CB), (0xA7D0, 0xA7DA), (0xAB53, 0xABC0)),
    *((0xA7F5, 0xA7F6), (0xFF21, 0xFF3B)),
)
"""Where the characters lie that have a case, up to Unicode 14."""

_ALIKE = ((0x1FD3, 0x390), (0x1FE3, 0x3B0), (0xFB05, 0xFB06))
"""Characters that later versions of Unicode fold to the other."""

_ascii = cython.declare(uint8_t[256])  # a byte, folded; 0 is in no word, 1 begins a longer character
_wide = cython.declare(uint16_t[65536])  # a character, folded; 0 is in no word


def _folded(character: str) -> int:
    """Return the simple case folding of a character."""
    for folded in (character.casefold(), character.lower()):
        if len(folded) == 1:
            return ord(folded)
    return ord(character)


def _fill_tables() -> None:
    i: cython.int
    for i in range(65536):
        _wide[i] = i
    for i in range(256):
        _ascii[i] = 1 if i >= 128 else ord(chr(i).lower()) if chr(i).isalnum() or i == 95 else 0
    for i in range(128):
        _wide[i] = _ascii[i]
    for first, last in _APART:
        for i in range(first, last + 1):
            _wide[i] = 0
    for first, end in _CASED:
        for i in range(first, end):
            if _wide[i]:
                _wide[i] = _folded(chr(i))
    for i, folded in _ALIKE:
        _wide[i] = folded


_fill_tables()


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _character(
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    code: cython.pointer(uint32_t),
) -> cython.pointer(cython.const[uint8_t]):
    """Read one character of more than one byte; in bytes that are no UTF-8, a byte is a character in no word."""
    first: uint32_t = at[0]
    code[0] = 0x80
    if first < 0xC2 or end - at < 2:
        return at + 1
    if first < 0xE0:
        code[0] = (first & 0x1F) << 6 | (at[1] & 0x3F)
        return at + 2
    if end - at < 3:
        return at + 1
    if first < 0xF0:
        code[0] = (first & 0x0F) << 12 | cython.cast(uint32_t, at[1] & 0x3F) << 6 | (at[2] & 0x3F)
        return at + 3
    if end - at < 4 or first > 0xF4:
        return at + 1
    code[0] = (
        (first & 0x07) << 18
        | cython.cast(uint32_t, at[1] & 0x3F) << 12
        | cython.cast(uint32_t, at[2] & 0x3F) << 6
        | (at[3] & 0x3F)
    )
    return at + 4


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _fold(code: uint32_t) -> uint32_t:
    """Return a character as words have it; 0 for one that is in no word."""
    if code < 65536:
        return _wide[code]
    return 0 if 0x1F000 <= code < 0x1FB00 else code


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _write(out: cython.pointer(uint8_t), code: uint32_t) -> cython.pointer(uint8_t):
    """Write a character in UTF-8; return what follows it."""
    if code < 0x80:
        out[0] = code
        return out + 1
    if code < 0x800:
        out[0] = 0xC0 | code >> 6
        out[1] = 0x80 | (code & 0x3F)
        return out + 2
    if code < 0x10000:
        out[0] = 0xE0 | code >> 12
        out[1] = 0x80 | (code >> 6 & 0x3F)
        out[2] = 0x80 | (code & 0x3F)
        return out + 3
    out[0] = 0xF0 | code >> 18
    out[1] = 0x80 | (code >> 12 & 0x3F)
    out[2] = 0x80 | (code >> 6 & 0x3F)
    out[3] = 0x80 | (code & 0x3F)
    return out + 4


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _word(
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    begin: cython.pointer(cython.pointer(cython.const[uint8_t])),
    out: cython.pointer(cython.pointer(uint8_t)),
) -> cython.pointer(cython.const[uint8_t]):
    """Find the next word, from `begin`, and write it folded; return where it ends. None: nothing is written."""
    to: cython.pointer(uint8_t) = out[0]
    folded: uint8_t
    code: uint32_t = 0
    after: cython.pointer(cython.const[uint8_t])
    while at < end:
        while at < end and _ascii[at[0]] == 0:
            at += 1
        begin[0] = at
        while at < end:
            folded = _ascii[at[0]]
            if folded > 1:
                to[0] = folded
                to += 1
                at += 1
                continue
            if folded == 0:
                break
            after = _character(at, end, cython.address(code))
            code = _fold(code)
            if code == 0:
                if to != out[0]:
                    break
                begin[0] = after
            else:
                to = _write(to, code)
            at = after
        if to != out[0]:
            out[0] = to
            break
    return at


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def text_words(
    words: cython.pointer(Words), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t, kind: cython.int
) -> cython.bint:
    """Take the words of a text of a kind; false when there is no memory. A word may be there several times."""
    grown: cython.p_void
    room: cython.Py_ssize_t
    end: cython.pointer(cython.const[uint8_t]) = at + length
    begin: cython.pointer(cython.const[uint8_t]) = at
    out: cython.pointer(uint8_t)
    to: cython.pointer(uint8_t)
    word: cython.pointer(Word)
    # There are at most as many words as every other byte, and folding makes 3 bytes of 2 at most.
    if words.count + length // 2 + 1 > words.room:
        room = 2 * words.room + length // 2 + 64
        grown = realloc(words.word, room * cython.sizeof(Word))
        if grown == cython.NULL:
            return False
        words.word = cython.cast(cython.pointer(Word), grown)
        words.room = room
    if words.used + length + length // 2 + 4 > words.bytes_room:
        room = 2 * words.bytes_room + length + length // 2 + 64
        grown = realloc(words.folded, room)
        if grown == cython.NULL:
            return False
        words.folded = cython.cast(cython.pointer(uint8_t), grown)
        words.bytes_room = room
    word = words.word + words.count
    out = words.folded + words.used
    while True:
        to = out
        at = _word(at, end, cython.address(begin), cython.address(to))
        if to == out:
            break
        if to - out > WORD_BYTES:
            words.flags |= ATTRIBUTE_LONG if kind == ATTRIBUTE else BODY_LONG
            continue
        word.hash = key_of(out, to - out)
        word.begin = cython.cast(uint32_t, out - words.folded)
        word.length = cython.cast(uint16_t, to - out)
        word.kind = kind
        word += 1
        out = to
    words.count = word - words.word
    words.used = out - words.folded
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def release_words(words: cython.pointer(Words)) -> cython.void:
    """Give back what was taken."""
    free(words.word)
    free(words.folded)
    words.word = cython.NULL
    words.folded = cython.NULL
    words.count = 0
    words.room = 0
    words.used = 0
    words.bytes_room = 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fold_text(
    at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t, out: cython.pointer(uint8_t)
) -> cython.Py_ssize_t:
    """Write a text as `fold` returns it, into half as many bytes again, and 4; return how many were written."""
    to: cython.pointer(uint8_t) = out
    end: cython.pointer(cython.const[uint8_t]) = at + length
    after: cython.pointer(cython.const[uint8_t])
    code: uint32_t = 0
    while at < end:
        if at[0] < 0x80:
            to[0] = at[0] if _ascii[at[0]] == 0 else _ascii[at[0]]
            to += 1
            at += 1
            continue
        after = _character(at, end, cython.address(code))
        code = _fold(code)
        if code == 0:
            memcpy(to, at, after - at)
            to += after - at
        else:
            to = _write(to, code)
        at = after
    return to - out


def words(text: bytes) -> list:
    """Return the words of a text of UTF-8, in their order."""
    chars: cython.p_const_char = text
    base: cython.pointer(cython.const[uint8_t]) = cython.cast(cython.pointer(cython.const[uint8_t]), chars)
    at: cython.pointer(cython.const[uint8_t]) = base
    end: cython.pointer(cython.const[uint8_t]) = base + len(text)
    begin: cython.pointer(cython.const[uint8_t]) = base
    buffer = bytearray(len(text) + len(text) // 2 + 4)
    view: uint8_t[::1] = buffer
    out: cython.pointer(uint8_t) = cython.address(view[0])
    to: cython.pointer(uint8_t)
    found: list = []
    while True:
        to = out
        at = _word(at, end, cython.address(begin), cython.address(to))
        if to == out:
            return found
        found.append(Found(begin - base, at - base, bytes(view[: to - out])))


def fold(text: bytes) -> bytes:
    """Return a text of UTF-8 with its words folded, and what is between them as it is."""
    parts = []
    end = 0
    for word in words(text):
        parts += [text[end : word.start], word.folded]
        end = word.end
    return b"".join([*parts, text[end:]])
