# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Pairs of logfmt in many lines at once, compiled, with the GIL released: `key=value key="quoted value" key`.

What is looked for is a label's name: a key in label form, as in `members.py`. A word that is no pair is passed over, as
Loki does it, up to the next white space; what is wrong with it is told apart (`logfmt_status`).

Every function takes a buffer and where lines lie in it (start, length: u32), or one line.
"""

import cython
import numpy as np
from cython.cimports.collector.query.logql.walk import Bytes, append_key, hex4, string
from cython.cimports.libc.stdint import uint8_t, uint32_t
from cython.cimports.libc.string import memcmp

from collector.query.match import checked

_Pair = cython.struct(
    at=Bytes,
    key=Bytes,
    key_length=cython.Py_ssize_t,
    value=Bytes,
    length=cython.Py_ssize_t,
    kind=cython.int,
    status=cython.int,  # the last fault: 0 none, 1 an unexpected byte, 2 a key, 3 no closing quote, 4 an escape
    byte=uint8_t,
    place=Bytes,
)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _unquotes(at: Bytes, end: Bytes) -> cython.bint:
    """Tell whether every escape in a quoted value of logfmt is one."""
    byte: uint8_t
    while at < end:
        if at[0] != 92:
            at += 1
            continue
        if at + 1 >= end:
            return False
        byte = at[1]
        if byte == 117:
            if hex4(at, end) < 0:
                return False
            at += 6
            continue
        if not (
            byte == 34
            or byte == 92
            or byte == 47
            or byte == 39
            or byte == 98
            or byte == 102
            or byte == 110
            or byte == 114
            or byte == 116
        ):
            return False
        at += 2
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _replaced(at: Bytes, end: Bytes) -> cython.bint:
    """Tell whether a key has U+FFFD, which stands for bytes that were no UTF-8."""
    while end - at >= 3:
        if at[0] == 0xEF and at[1] == 0xBF and at[2] == 0xBD:
            return True
        at += 1
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _pair(pair: cython.pointer(_Pair), end: Bytes) -> cython.bint:
    """Read the next pair of a line; False where there is none: at the end, or at a fault, which is stepped over."""
    at: Bytes = pair.at
    start: Bytes
    escaped: cython.bint = False
    pair.key_length = 0
    pair.length = 0
    pair.kind = 1
    while at < end and at[0] <= 32:
        at += 1
    pair.at = at
    pair.key = at
    pair.value = at
    if at == end:
        return False
    while at < end and at[0] > 32 and at[0] != 61 and at[0] != 34:
        at += 1
    pair.key_length = at - pair.key
    if at < end and at[0] > 32 and (at[0] == 34 or pair.key_length == 0):
        return _unexpected(pair, at, end)
    if _replaced(pair.key, at):
        pair.status = 2
        pair.place = at
        while at < end and at[0] > 32:
            at += 1
        pair.at = at
        return False
    if at == end or at[0] <= 32:
        pair.at = at
        return True
    at += 1
    pair.at = at
    if at == end or at[0] <= 32:
        return True
    if at[0] != 34:
        start = at
        while at < end and at[0] > 32 and at[0] != 61 and at[0] != 34:
            at += 1
        if at < end and at[0] > 32:
            return _unexpected(pair, at, end)
        pair.value = start
        pair.length = at - start
        pair.at = at
        return True
    start = at + 1
    at = string(start, end, cython.address(escaped))
    if at == cython.NULL:
        pair.at = end
        pair.status = 3
        pair.place = end
        return False
    pair.at = at + 1
    if escaped:
        if not _unquotes(start, at):
            pair.status = 4
            pair.place = at + 1
            return False
        pair.kind = 2
    pair.value = start
    pair.length = at - start
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _unexpected(pair: cython.pointer(_Pair), at: Bytes, end: Bytes) -> cython.bint:
    """Note a byte that cannot stand there, and go to the next white space."""
    pair.status = 1
    pair.byte = at[0]
    pair.place = at
    while at < end and at[0] > 32:
        at += 1
    pair.at = at
    return False


def _room(lengths):
    """Return room for the name of the longest line."""
    return np.empty((int(lengths.max()) if len(lengths) else 0) + 8, np.uint8)


def logfmt_member(buffer, starts, lengths, name: bytes, keep_empty: bool, strict: bool) -> tuple:
    """Return the value of the first pair of that name of each line: (kind u8, start u32, length u32).

    Kinds: NONE, PLAIN, and ESCAPED for a quoted value with escapes. Without `keep_empty`, pairs without a value are
    passed over. When `strict`, a line ends where it goes wrong; else that word is passed over.
    """
    starts, lengths = checked(buffer, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    kinds, found_starts, found_lengths = np.zeros(n, np.uint8), np.zeros(n, np.uint32), np.zeros(n, np.uint32)
    if n == 0 or len(buffer) == 0:
        return kinds, found_starts, found_lengths
    name_room = _room(lengths)
    names: uint8_t[::1] = name_room
    view: cython.const[uint8_t][::1] = buffer
    base: Bytes = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    kind: uint8_t[::1] = kinds
    out_start: uint32_t[::1] = found_starts
    out_length: uint32_t[::1] = found_lengths
    wanted: cython.p_const_char = name
    wanted_length: cython.Py_ssize_t = len(name)
    empty: cython.bint = keep_empty
    stops: cython.bint = strict
    room: cython.pointer(uint8_t) = cython.address(names[0])
    end: Bytes
    pair: _Pair
    i: cython.Py_ssize_t
    with cython.nogil:
        for i in range(n):
            pair.at = base + start[i]
            end = pair.at + length[i]
            while pair.at < end:
                if not _pair(cython.address(pair), end):
                    if stops:
                        break
                    continue
                if (
                    pair.key_length >= wanted_length - 1
                    and (empty or pair.length > 0)
                    and append_key(room, 0, pair.key, pair.key_length) == wanted_length
                    and memcmp(room, wanted, wanted_length) == 0
                ):
                    kind[i] = pair.kind
                    out_start[i] = cython.cast(uint32_t, pair.value - base)
                    out_length[i] = cython.cast(uint32_t, pair.length)
                    break
    return kinds, found_starts, found_lengths


def logfmt_status(buffer, starts, lengths) -> tuple:
    """Return the first fault of each line: (status u8, the byte u8, place u32).

    Status: 0 none, 1 an unexpected byte, 2 a key, 3 a quoted value without its end, 4 an escape that is none; the place
    counts bytes from the line's beginning.
    """
    starts, lengths = checked(buffer, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    statuses, bytes_, places = np.zeros(n, np.uint8), np.zeros(n, np.uint8), np.zeros(n, np.uint32)
    if n == 0 or len(buffer) == 0:
        return statuses, bytes_, places
    view: cython.const[uint8_t][::1] = buffer
    base: Bytes = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    status: uint8_t[::1] = statuses
    byte: uint8_t[::1] = bytes_
    place: uint32_t[::1] = places
    end: Bytes
    pair: _Pair
    i: cython.Py_ssize_t
    with cython.nogil:
        for i in range(n):
            pair.at = base + start[i]
            end = pair.at + length[i]
            pair.status = 0
            pair.byte = 0
            while pair.at < end:
                _pair(cython.address(pair), end)
                if pair.status:
                    status[i] = pair.status
                    byte[i] = pair.byte
                    place[i] = cython.cast(uint32_t, pair.place - base - start[i])
                    break
    return statuses, bytes_, places


def logfmt_members(line: bytes, strict: bool) -> list:
    """Return every pair of one line, in order, as (name, kind, start, length)."""
    members: list = []
    if len(line) == 0:
        return members
    name_room: bytearray = bytearray(len(line) + 8)
    names: cython.p_char = name_room
    room: cython.pointer(uint8_t) = cython.cast(cython.pointer(uint8_t), names)
    chars: cython.p_const_char = line
    base: Bytes = cython.cast(Bytes, chars)
    end: Bytes = base + len(line)
    size: cython.Py_ssize_t
    pair: _Pair
    pair.at = base
    while pair.at < end:
        if not _pair(cython.address(pair), end):
            if strict:
                break
            continue
        size = append_key(room, 0, pair.key, pair.key_length)
        if size > 0:
            name = cython.cast(cython.p_char, room)[:size]
            members.append((name, pair.kind, pair.value - base, pair.length))
    return members
