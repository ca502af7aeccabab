# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The level that a log line tells by itself, compiled, with the GIL released: Loki's rules of discover_log_levels.

A line is looked at in one of three ways. One that begins with `{` and ends with `}` is JSON: the first field of a level's
name (`KEYS`, and SeverityText and its like) that is a text, in the object or in an object inside it. Else, one that has a
`=` is logfmt: the pair whose key comes first in Loki's list, in any case. If that gives no level, and for any other line, the first word
that names one counts, in any case, between the characters that Loki takes for bounds.

No recursion: of JSON two levels are read, and what lies deeper is passed over by counting brackets. Cost: about 1 ns a byte.
"""

import cython
import numpy as np
from cython.cimports.libc.stdint import uint8_t, uint32_t

LEVELS = ("unknown", "trace", "debug", "info", "warn", "error", "fatal", "critical")
"""What the codes mean."""

Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _lower(byte: uint8_t) -> uint8_t:
    return byte | 0x20 if 65 <= byte <= 90 else byte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _same(
    at: Bytes, length: cython.Py_ssize_t, word: cython.p_const_char, word_length: cython.Py_ssize_t
) -> cython.bint:
    """Tell whether a text is a word, which is in lower case, in any case."""
    i: cython.Py_ssize_t
    if length != word_length:
        return False
    for i in range(length):
        if _lower(at[i]) != cython.cast(uint8_t, word[i]):
            return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _exact(
    at: Bytes, length: cython.Py_ssize_t, word: cython.p_const_char, word_length: cython.Py_ssize_t
) -> cython.bint:
    i: cython.Py_ssize_t
    if length != word_length:
        return False
    for i in range(length):
        if at[i] != cython.cast(uint8_t, word[i]):
            return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def named(at: Bytes, length: cython.Py_ssize_t) -> uint8_t:
    """Return the level that a text is a name of; 0 for none."""
    if length < 3 or length > 11:
        return 0
    if _same(at, length, b"info", 4) or _same(at, length, b"inf", 3) or _same(at, length, b"information", 11):
        return 3
    if _same(at, length, b"error", 5) or _same(at, length, b"err", 3):
        return 5
    if _same(at, length, b"warn", 4) or _same(at, length, b"warning", 7) or _same(at, length, b"wrn", 3):
        return 4
    if _same(at, length, b"debug", 5) or _same(at, length, b"dbg", 3):
        return 2
    if _same(at, length, b"trace", 5) or _same(at, length, b"trc", 3):
        return 1
    if _same(at, length, b"fatal", 5):
        return 6
    if _same(at, length, b"critical", 8):
        return 7
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _begins(
    at: Bytes, length: cython.Py_ssize_t, word: cython.p_const_char, word_length: cython.Py_ssize_t
) -> cython.bint:
    return length >= word_length and _same(at, word_length, word, word_length)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _is_space(byte: uint8_t) -> cython.bint:
    return byte == 32 or 9 <= byte <= 13


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _opens(byte: uint8_t) -> cython.bint:
    """Tell whether a word can begin behind this character: space, tab, newline, or one of `[({"'=|`."""
    return (
        byte == 32
        or byte == 9
        or byte == 10
        or byte == 91
        or byte == 40
        or byte == 123
        or byte == 34
        or byte == 39
        or byte == 61
        or byte == 124
    )


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _closes(byte: uint8_t) -> cython.bint:
    """Tell whether a word can end before this character: one of those, or of `])}:,!`."""
    return _opens(byte) or byte == 93 or byte == 41 or byte == 125 or byte == 58 or byte == 44 or byte == 33


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _word(at: Bytes, length: cython.Py_ssize_t) -> uint8_t:
    """Return the level of the first word that names one."""
    i: cython.Py_ssize_t
    left: cython.Py_ssize_t
    size: cython.Py_ssize_t
    found: uint8_t
    first: uint8_t
    before: uint8_t
    for i in range(length):
        before = at[i - 1] if i else 32
        # Most characters follow a letter, behind which no word begins.
        if before > 61 and before != 91 and before != 123 and before != 124:
            continue
        first = _lower(at[i])
        if not (
            first == 105 or first == 101 or first == 119 or first == 100 or first == 116 or first == 102 or first == 99
        ):
            continue
        if not _opens(before):
            continue
        left = length - i
        size = 0
        found = 0
        if first == 105 and _begins(at + i, left, b"info", 4):
            size, found = 4, 3
        elif first == 101 and _begins(at + i, left, b"error", 5):
            size, found = 5, 5
        elif first == 101 and _begins(at + i, left, b"err", 3):
            size, found = 3, 5
        elif first == 119 and _begins(at + i, left, b"warning", 7):
            size, found = 7, 4
        elif first == 119 and _begins(at + i, left, b"warn", 4):
            size, found = 4, 4
        elif first == 100 and _begins(at + i, left, b"debug", 5):
            size, found = 5, 2
        elif first == 116 and _begins(at + i, left, b"trace", 5):
            size, found = 5, 1
        elif first == 102 and _begins(at + i, left, b"fatal", 5):
            size, found = 5, 6
        elif first == 99 and _begins(at + i, left, b"critical", 8):
            size, found = 8, 7
        if found and (size == left or _closes(at[i + size])):
            return found
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _quoted(at: Bytes, end: Bytes) -> Bytes:
    """Return what follows a string, which begins behind its quotation mark; NULL if it does not end."""
    while at < end:
        if at[0] == 92:
            at += 2
        elif at[0] == 34:
            return at + 1
        else:
            at += 1
    return cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def is_key(at: Bytes, length: cython.Py_ssize_t) -> cython.bint:
    """Tell whether a field's name is one of a level, in the spellings that Loki knows."""
    if length == 5:
        return _exact(at, 5, b"level", 5) or _exact(at, 5, b"LEVEL", 5) or _exact(at, 5, b"Level", 5)
    if length == 8:
        return _exact(at, 8, b"severity", 8) or _exact(at, 8, b"SEVERITY", 8) or _exact(at, 8, b"Severity", 8)
    if length == 3:
        return _exact(at, 3, b"lvl", 3) or _exact(at, 3, b"LVL", 3) or _exact(at, 3, b"Lvl", 3)
    if length == 9:
        return _exact(at, 9, b"log.level", 9)
    if length == 12:
        return _exact(at, 12, b"SeverityText", 12)
    if length == 13:
        return (
            _exact(at, 13, b"severity_text", 13)
            or _exact(at, 13, b"Severity_Text", 13)
            or _exact(at, 13, b"SEVERITY_TEXT", 13)
        )
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _json(at: Bytes, end: Bytes) -> uint8_t:
    """Return the level of the first field of a level's name, in an object whose brace was read; 0 for none."""
    level: cython.int = 1
    depth: cython.Py_ssize_t
    key: Bytes
    key_length: cython.Py_ssize_t
    value: Bytes
    while at < end:
        if _is_space(at[0]) or at[0] == 44:
            at += 1
        elif at[0] == 125:
            level -= 1
            at += 1
            if level == 0:
                return 0
        elif at[0] != 34:
            return 0
        else:
            key = at + 1
            at = _quoted(key, end)
            if at == cython.NULL:
                return 0
            key_length = at - key - 1
            while at < end and _is_space(at[0]):
                at += 1
            if at >= end or at[0] != 58:
                return 0
            at += 1
            while at < end and _is_space(at[0]):
                at += 1
            if at >= end:
                return 0
            if at[0] == 34:
                value = at + 1
                at = _quoted(value, end)
                if at == cython.NULL:
                    return 0
                if is_key(key, key_length):
                    return named(value, at - value - 1)
            elif at[0] == 123 and level < 2:
                level += 1
                at += 1
            elif at[0] == 123 or at[0] == 91:
                depth = 0
                while at < end:
                    if at[0] == 34:
                        at = _quoted(at + 1, end)
                        if at == cython.NULL:
                            return 0
                        continue
                    if at[0] == 123 or at[0] == 91:
                        depth += 1
                    elif at[0] == 125 or at[0] == 93:
                        depth -= 1
                    at += 1
                    if depth == 0:
                        break
            else:
                while at < end and at[0] != 44 and at[0] != 125:
                    at += 1
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _rank(at: Bytes, length: cython.Py_ssize_t) -> cython.int:
    """Return the place of a pair's key among the names of a level, in any case; 9 for none."""
    if length == 5 and _same(at, 5, b"level", 5):
        return 0
    if length == 9 and _same(at, 9, b"log.level", 9):
        return 1
    if length == 8 and _same(at, 8, b"severity", 8):
        return 2
    if length == 12 and _same(at, 12, b"severitytext", 12):
        return 3
    if length == 3 and _same(at, 3, b"lvl", 3):
        return 4
    if length == 13 and _same(at, 13, b"severity_text", 13):
        return 5
    return 9


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _logfmt(at: Bytes, end: Bytes) -> uint8_t:
    """Return the level of the pair with the best key; 0 for none. A pair that is none ends it."""
    best: cython.int = 9
    rank: cython.int
    found: uint8_t = 0
    key: Bytes
    key_length: cython.Py_ssize_t
    value: Bytes
    while at < end:
        if at[0] <= 32:
            at += 1
            continue
        key = at
        while at < end and at[0] > 32 and at[0] != 61 and at[0] != 34:
            at += 1
        if at >= end:
            break
        if at[0] == 34:
            break
        if at[0] != 61:
            continue
        key_length = at - key
        if key_length == 0:
            break
        at += 1
        if at < end and at[0] == 34:
            value = at + 1
            at = _quoted(value, end)
            if at == cython.NULL:
                break
            rank = _rank(key, key_length)
            if rank < best:
                best, found = rank, named(value, at - value - 1)
        else:
            value = at
            while at < end and at[0] > 32 and at[0] != 61 and at[0] != 34:
                at += 1
            if at < end and at[0] > 32:
                break
            rank = _rank(key, key_length)
            if rank < best:
                best, found = rank, named(value, at - value)
        if best == 0:
            break
    return found


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _level(at: Bytes, length: cython.Py_ssize_t) -> uint8_t:
    first: Bytes = at
    last: Bytes = at + length
    found: uint8_t = 0
    i: cython.Py_ssize_t
    while first < last and _is_space(first[0]):
        first += 1
    while last > first and _is_space((last - 1)[0]):
        last -= 1
    if last - first >= 2 and first[0] == 123 and (last - 1)[0] == 125:
        found = _json(first + 1, last)
    else:
        for i in range(length):
            if at[i] == 61:
                found = _logfmt(at, at + length)
                break
    return found if found else _word(at, length)


def level_of(line: bytes) -> int:
    """Return the code of one line's level; see `levels`."""
    chars: cython.p_const_char = line
    return _level(cython.cast(Bytes, chars), len(line))


def levels(payload, starts, lengths):
    """Return the code of each line's level, an index of `LEVELS`; 0, unknown, for a line that tells none.

    Lines are extents of the payload (bytes, u32). Raises ValueError for one that reaches outside it.
    """
    starts = np.ascontiguousarray(starts, np.uint32)
    lengths = np.ascontiguousarray(lengths, np.uint32)
    n: cython.Py_ssize_t = len(starts)
    if n != len(lengths):
        raise ValueError("as many starts as lengths")
    out = np.zeros(n, np.uint8)
    if n == 0 or len(payload) == 0:
        return out
    if int((starts.astype(np.uint64) + lengths).max()) > len(payload):
        raise ValueError("an extent reaches outside the payload")
    view: cython.const[uint8_t][::1] = payload
    base: Bytes = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    code: uint8_t[::1] = out
    i: cython.Py_ssize_t
    with cython.nogil:
        for i in range(n):
            code[i] = _level(base + start[i], length[i])
    return out
