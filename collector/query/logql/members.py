# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Members of JSON objects in many lines at once, compiled, with the GIL released.

What is looked for is a label's name, which is a member's path in label form: each key trimmed, every character other
than an ASCII letter, a digit or `_` made `_`, the keys joined by `_`, and `_` before a leading digit. The first
member of that name counts. Values are not decoded here: `kind` says what their bytes are. How lenient the walk is
stands in `walk.py`.

Every function takes a buffer and where lines lie in it (start, length: u32), or one line.
"""

import cython
import numpy as np
from cython.cimports.collector.query.logql.walk import (
    NESTING,
    Bytes,
    Value,
    Walk,
    begin,
    next_member,
    read_value,
    string,
    token,
    unescape,
)
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t
from cython.cimports.libc.string import memcmp

from collector.query.match import checked

NONE, PLAIN, ESCAPED, SCALAR, OBJECT, ARRAY, NULL = range(7)
"""What the bytes of a value are: a text as it is, one with escapes, a number or truth value, and what they say."""

OK, BAD_OBJECT, BAD_JSON, BAD_ARRAY, BAD_STRING, BAD_ESCAPE, BAD_VALUE, TOO_DEEP = range(8)
"""What can be wrong with a line."""

NESTING_MAX = NESTING
"""How deep objects may nest in a line that is looked into."""


def _rooms(lengths) -> tuple:
    """Return room for a name and for a key of the longest line."""
    longest = int(lengths.max()) if len(lengths) else 0
    return np.empty(longest + 2 * NESTING_MAX + 8, np.uint8), np.empty(longest + 8, np.uint8)


def json_member(buffer, starts, lengths, name: bytes) -> tuple:
    """Return the member of that name of each line: (kind u8, start u32, length u32).

    Kinds: NONE, PLAIN a text as it is, ESCAPED a text with escapes, SCALAR a number or truth value.
    """
    starts, lengths = checked(buffer, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    kinds, found_starts, found_lengths = np.zeros(n, np.uint8), np.zeros(n, np.uint32), np.zeros(n, np.uint32)
    if n == 0 or len(buffer) == 0:
        return kinds, found_starts, found_lengths
    name_room, key_room = _rooms(lengths)
    names: uint8_t[::1] = name_room
    keys: uint8_t[::1] = key_room
    view: cython.const[uint8_t][::1] = buffer
    base: Bytes = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    kind: uint8_t[::1] = kinds
    out_start: uint32_t[::1] = found_starts
    out_length: uint32_t[::1] = found_lengths
    wanted: cython.p_const_char = name
    wanted_length: cython.Py_ssize_t = len(name)
    walk: Walk
    value: Value
    i: cython.Py_ssize_t
    walk.name = cython.address(names[0])
    walk.key = cython.address(keys[0])
    with cython.nogil:
        for i in range(n):
            if not begin(cython.address(walk), base + start[i], base + start[i] + length[i]):
                continue
            while next_member(cython.address(walk), cython.address(value)):
                if walk.length == wanted_length and memcmp(walk.name, wanted, wanted_length) == 0:
                    kind[i] = value.kind
                    out_start[i] = cython.cast(uint32_t, value.at - base)
                    out_length[i] = cython.cast(uint32_t, value.length)
                    break
    return kinds, found_starts, found_lengths


def json_status(buffer, starts, lengths):
    """Return what is wrong with each line as a JSON object (u8): OK, or one of the faults."""
    starts, lengths = checked(buffer, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    if n == 0 or len(buffer) == 0:
        return np.full(n, BAD_OBJECT, np.uint8)
    statuses = np.zeros(n, np.uint8)
    name_room, key_room = _rooms(lengths)
    names: uint8_t[::1] = name_room
    keys: uint8_t[::1] = key_room
    view: cython.const[uint8_t][::1] = buffer
    base: Bytes = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    status: uint8_t[::1] = statuses
    walk: Walk
    value: Value
    i: cython.Py_ssize_t
    walk.name = cython.address(names[0])
    walk.key = cython.address(keys[0])
    with cython.nogil:
        for i in range(n):
            if begin(cython.address(walk), base + start[i], base + start[i] + length[i]):
                while next_member(cython.address(walk), cython.address(value)):
                    pass
            status[i] = walk.status
    return statuses


def json_members(line: bytes) -> tuple:
    """Return every member of one line, in order, as (name, kind, start, length), and what is wrong with the line."""
    members: list = []
    if len(line) == 0:
        return members, BAD_OBJECT
    name_room: bytearray = bytearray(len(line) + 2 * NESTING + 8)
    key_room: bytearray = bytearray(len(line) + 8)
    names: cython.p_char = name_room
    keys: cython.p_char = key_room
    chars: cython.p_const_char = line
    base: Bytes = cython.cast(Bytes, chars)
    walk: Walk
    value: Value
    walk.name = cython.cast(cython.pointer(uint8_t), names)
    walk.key = cython.cast(cython.pointer(uint8_t), keys)
    if begin(cython.address(walk), base, base + len(line)):
        while next_member(cython.address(walk), cython.address(value)):
            name = cython.cast(cython.p_char, walk.name)[: walk.length]
            members.append((name, value.kind, value.at - base, value.length))
    return members, walk.status


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _member(
    at: Bytes,
    end: Bytes,
    wanted: Bytes,
    wanted_length: cython.Py_ssize_t,
    room: cython.pointer(uint8_t),
    value: cython.pointer(Value),
) -> cython.int:
    """Find the value behind a key of the object at `at`: 0 found, -1 not, or the fault of the value itself."""
    key: Bytes
    key_length: cython.Py_ssize_t
    escaped: cython.bint = False
    fault: cython.int
    if at == end or at[0] != 123:
        return -1
    at = token(at + 1, end)
    while at < end and at[0] == 34:
        key = at + 1
        at = string(key, end, cython.address(escaped))
        if at == cython.NULL:
            return -1
        key_length = at - key
        if escaped:
            key_length = unescape(key, key_length, room)
            key = room
            if key_length < 0:
                return -1
        at = token(at + 1, end)
        if at == end or at[0] != 58:
            return -1
        fault = read_value(at + 1, end, value)
        if key_length == wanted_length and memcmp(key, wanted, wanted_length) == 0:
            return fault
        if fault:
            return -1
        at = token(value.end, end)
        if at == end or at[0] != 44:
            return -1
        at = token(at + 1, end)
    return -1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _element(at: Bytes, end: Bytes, index: int64_t, value: cython.pointer(Value)) -> cython.int:
    """Find an element of the array at `at`: 0 found, -1 not."""
    if at == end or at[0] != 91:
        return -1
    at = token(at + 1, end)
    while at < end and at[0] != 93:
        if read_value(at, end, value):
            return -1
        if index == 0:
            return 0
        index -= 1
        at = token(value.end, end)
        if at == end or at[0] != 44:
            return -1
        at += 1
    return -1


def json_path(buffer, starts, lengths, path: list) -> tuple:
    """Return what stands at a path of each line: (kind u8, start u32, length u32, status u8).

    A step of the path is a key (bytes) or an index (int). Kinds beside those of `json_member`: OBJECT, ARRAY, NULL.
    The status is the fault of a value that is there and broken.
    """
    starts, lengths = checked(buffer, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    kinds, found_starts, found_lengths = np.zeros(n, np.uint8), np.zeros(n, np.uint32), np.zeros(n, np.uint32)
    statuses = np.zeros(n, np.uint8)
    if n == 0 or len(buffer) == 0:
        return kinds, found_starts, found_lengths, statuses
    keys = b"".join(step for step in path if isinstance(step, bytes)) + b"\0"
    sizes = np.array([len(step) if isinstance(step, bytes) else -1 for step in path], np.int64)
    indexes = np.array([0 if isinstance(step, bytes) else step for step in path], np.int64)
    room_array = _rooms(lengths)[1]
    room: uint8_t[::1] = room_array
    view: cython.const[uint8_t][::1] = buffer
    base: Bytes = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    kind: uint8_t[::1] = kinds
    out_start: uint32_t[::1] = found_starts
    out_length: uint32_t[::1] = found_lengths
    status: uint8_t[::1] = statuses
    size: cython.const[int64_t][::1] = sizes
    index: cython.const[int64_t][::1] = indexes
    steps: cython.Py_ssize_t = len(path)
    chars: cython.p_const_char = keys
    key: Bytes
    at: Bytes
    end: Bytes
    value: Value
    fault: cython.int
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    with cython.nogil:
        for i in range(n):
            at = base + start[i]
            end = at + length[i]
            at = token(at, end)
            key = cython.cast(Bytes, chars)
            fault = -1
            for k in range(steps):
                if size[k] >= 0:
                    fault = _member(at, end, key, size[k], cython.address(room[0]), cython.address(value))
                    key += size[k]
                else:
                    fault = _element(at, end, index[k], cython.address(value))
                if fault:
                    break
                at = value.at
                end = value.end
                if value.kind <= 2:
                    at -= 1  # its quote: a text has no members
            if fault == 0:
                kind[i] = value.kind
                out_start[i] = cython.cast(uint32_t, value.at - base)
                out_length[i] = cython.cast(uint32_t, value.length)
            elif fault > 0:
                status[i] = fault
    return kinds, found_starts, found_lengths, statuses


def json_top(line: bytes) -> tuple:
    """Return the members of the object that one line is, not those of objects in it, and what is wrong with the line.

    A member is (key, without its escapes, kind, start, length).
    """
    members: list = []
    if len(line) == 0:
        return members, BAD_OBJECT
    key_room: bytearray = bytearray(len(line) + 8)
    keys: cython.p_char = key_room
    room: cython.pointer(uint8_t) = cython.cast(cython.pointer(uint8_t), keys)
    chars: cython.p_const_char = line
    base: Bytes = cython.cast(Bytes, chars)
    end: Bytes = base + len(line)
    at: Bytes = token(base, end)
    key: Bytes
    key_length: cython.Py_ssize_t
    escaped: cython.bint = False
    fault: cython.int
    value: Value
    if at == end or at[0] != 123:
        return members, BAD_OBJECT
    at = token(at + 1, end)
    if at == end:
        return members, BAD_JSON
    while at[0] == 34:
        key = at + 1
        at = string(key, end, cython.address(escaped))
        if at == cython.NULL:
            return members, BAD_JSON
        key_length = at - key
        if escaped:
            key_length = unescape(key, key_length, room)
            key = room
            if key_length < 0:
                return members, BAD_ESCAPE
        at = token(at + 1, end)
        if at == end or at[0] != 58:
            return members, BAD_JSON
        fault = read_value(at + 1, end, cython.address(value))
        if fault:
            return members, fault
        members.append((cython.cast(cython.p_char, key)[:key_length], value.kind, value.at - base, value.length))
        at = token(value.end, end)
        if at == end:
            return members, BAD_ARRAY
        if at[0] == 125:
            return members, OK
        if at[0] != 44:
            return members, BAD_OBJECT
        at = token(at + 1, end)
        if at == end:
            return members, BAD_ARRAY
    return members, OK if at[0] == 125 else BAD_OBJECT
