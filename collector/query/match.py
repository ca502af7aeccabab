# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Predicates and attribute columns straight over payload bytes, compiled, with the GIL released.

Every function takes a block's payload and arrays of extents (start, length: u32, bytes of the payload), one
for each row, and returns arrays with an entry for each row. Extents come from a block's columns or from
another of these functions; one that reaches outside the payload raises ValueError before anything is read.

`attribute` makes a column out of one attribute: what type it has in each row, and its value. From there on a
query language works with numpy. Cost: about 50 ns a row for a span with ten attributes.
"""

from collections import namedtuple

import cython
import numpy as np
from cython.cimports.collector.otlp.wire import MIX_1, Extent, key_of, mix, next_field
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memchr, memcmp, memcpy

KEYS_MAX = 64
"""Attributes that are looked for in one walk."""
ABSENT, STRING, BOOL, INT, DOUBLE, ARRAY, KVLIST, BYTES, EMPTY = range(9)

Values = namedtuple("Values", ("type", "integer", "double", "start", "length"))  # noqa: PYI024 (typed in match.pyi)
Values.__doc__ = """A column of AnyValues.

`type` u8: 0 absent, or AnyValue's field number: 1 string, 2 bool, 3 int, 4 double, 5 array, 6 key-value list,
7 bytes; 8 a value without content. `integer` i64: of ints and bools. `double` f64: of doubles, and ints converted.
`start`, `length` u32: the content of strings, bytes, arrays and lists.
"""


def checked(payload, starts, lengths) -> tuple:
    """Return starts and lengths as two arrays of u32 without gaps; raise ValueError for extents that are none of it."""
    starts = np.ascontiguousarray(starts, np.uint32)
    lengths = np.ascontiguousarray(lengths, np.uint32)
    if len(starts) != len(lengths):
        raise ValueError("as many starts as lengths")
    if len(starts) and int((starts.astype(np.uint64) + lengths).max()) > len(payload):
        raise ValueError("an extent reaches outside the payload")
    return starts, lengths


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _decode(
    value: Extent,
    base: cython.pointer(cython.const[uint8_t]),
    kind: cython.pointer(uint8_t),
    integer: cython.pointer(int64_t),
    double: cython.pointer(cython.double),
    start: cython.pointer(uint32_t),
    length: cython.pointer(uint32_t),
) -> cython.void:
    """Read an AnyValue: what it holds last is what it holds."""
    tag: uint32_t = 0
    number: uint64_t = 0
    content: Extent
    at: cython.pointer(cython.const[uint8_t]) = value.at
    end: cython.pointer(cython.const[uint8_t]) = value.at + value.length
    kind[0] = 8
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
        if tag == 16:  # bool_value
            kind[0] = 2
            integer[0] = number != 0
            double[0] = 0
        elif tag == 24:  # int_value
            kind[0] = 3
            integer[0] = cython.cast(int64_t, number)
            double[0] = cython.cast(cython.double, integer[0])
        elif tag == 33:  # double_value
            kind[0] = 4
            integer[0] = 0
            memcpy(double, cython.address(number), 8)
        elif tag == 10 or tag == 42 or tag == 50 or tag == 58:
            kind[0] = tag >> 3
            integer[0] = 0
            double[0] = 0
            start[0] = cython.cast(uint32_t, content.at - base)
            length[0] = content.length


def attribute(payload, starts, lengths, field: int, key: bytes) -> Values:
    """Return the first attribute named `key` in repeated field `field` of each message, as a column."""
    return attributes(payload, starts, lengths, field, [key])[0]


def attributes(payload, starts, lengths, field: int, keys: list) -> list:
    """The same for several keys, which are distinct and `KEYS_MAX` at most, in one walk: a column for each."""
    starts, lengths = checked(payload, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    count: cython.int = len(keys)
    if count > KEYS_MAX:
        raise ValueError(f"more than {KEYS_MAX} keys at a time")
    found = np.zeros((count, n), np.bool_)
    value_starts = np.zeros((count, n), np.uint32)
    value_lengths = np.zeros((count, n), np.uint32)
    if n == 0 or len(payload) == 0 or count == 0:
        return [_any_values(payload, value_starts[i], value_lengths[i], found[i]) for i in range(count)]
    view: cython.const[uint8_t][::1] = payload
    base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    is_there: uint8_t[:, ::1] = found.view(np.uint8)
    value_start: uint32_t[:, ::1] = value_starts
    value_length: uint32_t[:, ::1] = value_lengths
    wanted = cython.declare(Extent[64])
    chars: cython.p_const_char
    unnamed: cython.int = -1  # the empty key, which need not be there
    tag: uint32_t = 0
    outer: uint32_t = field << 3 | 2
    number: uint64_t = 0
    pair: Extent
    part: Extent
    value: Extent
    at: cython.pointer(cython.const[uint8_t])
    end: cython.pointer(cython.const[uint8_t])
    inside: cython.pointer(cython.const[uint8_t])
    i: cython.Py_ssize_t
    k: cython.int
    left: cython.int
    for k in range(count):
        chars = keys[k]
        wanted[k].at = cython.cast(cython.pointer(cython.const[uint8_t]), chars)
        wanted[k].length = len(keys[k])
        if wanted[k].length == 0:
            unnamed = k
    with cython.nogil:
        for i in range(n):
            left = count
            at = base + start[i]
            end = at + length[i]
            while at < end and left:
                at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(pair))
                if tag != outer or pair.at == cython.NULL:
                    continue
                k = unnamed
                value.at = pair.at
                value.length = 0
                inside = pair.at
                while inside < pair.at + pair.length:
                    inside = next_field(
                        inside, pair.at + pair.length, cython.address(tag), cython.address(number), cython.address(part)
                    )
                    if tag == 10:
                        k = _place(part, wanted, count)
                        if k < 0:
                            break
                    elif tag == 18:
                        value = part
                if k >= 0 and not is_there[k, i]:
                    is_there[k, i] = 1
                    value_start[k, i] = cython.cast(uint32_t, value.at - base)
                    value_length[k, i] = value.length
                    left -= 1
    return [_any_values(payload, value_starts[i], value_lengths[i], found[i]) for i in range(count)]


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _place(name: Extent, wanted: cython.pointer(Extent), count: cython.int) -> cython.int:
    """Return which of some texts a name is; -1 for none."""
    k: cython.int
    for k in range(count):
        if wanted[k].length == name.length and memcmp(wanted[k].at, name.at, name.length) == 0:
            return k
    return -1


def any_value(payload, starts, lengths) -> Values:
    """Return the AnyValue messages at these extents as a column; an extent of length 0 is absent."""
    starts, lengths = checked(payload, starts, lengths)
    return _any_values(payload, starts, lengths, lengths > 0)


@cython.cfunc
def _any_values(payload, starts, lengths, there):
    n: cython.Py_ssize_t = len(starts)
    out = Values(
        np.zeros(n, np.uint8), np.zeros(n, np.int64), np.zeros(n), np.zeros(n, np.uint32), np.zeros(n, np.uint32)
    )
    if n == 0 or len(payload) == 0:
        return out
    view: cython.const[uint8_t][::1] = payload
    base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    is_there: cython.const[uint8_t][::1] = there.view(np.uint8)
    kinds: uint8_t[::1] = out.type
    integers: int64_t[::1] = out.integer
    doubles: cython.double[::1] = out.double
    value_starts: uint32_t[::1] = out.start
    value_lengths: uint32_t[::1] = out.length
    value: Extent
    i: cython.Py_ssize_t
    with cython.nogil:
        for i in range(n):
            if is_there[i]:
                value.at = base + start[i]
                value.length = length[i]
                _decode(
                    value,
                    base,
                    cython.address(kinds[i]),
                    cython.address(integers[i]),
                    cython.address(doubles[i]),
                    cython.address(value_starts[i]),
                    cython.address(value_lengths[i]),
                )
    return out


def equal(payload, starts, lengths, needle: bytes):
    """Tell for each extent whether its bytes are `needle`."""
    starts, lengths = checked(payload, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    out = np.zeros(n, np.bool_)
    if n == 0:
        return out
    if len(payload) == 0:
        return lengths == len(needle)
    view: cython.const[uint8_t][::1] = payload
    base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    wanted: cython.p_const_char = needle
    wanted_length: cython.Py_ssize_t = len(needle)
    result: uint8_t[::1] = out.view(np.uint8)
    i: cython.Py_ssize_t
    with cython.nogil:
        for i in range(n):
            result[i] = length[i] == wanted_length and memcmp(base + start[i], wanted, wanted_length) == 0
    return out


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _lower(byte: uint8_t) -> uint8_t:
    return byte + 32 if 65 <= byte <= 90 else byte


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _find(
    at: cython.pointer(cython.const[uint8_t]),
    length: cython.Py_ssize_t,
    needle: cython.pointer(cython.const[uint8_t]),
    needle_length: cython.Py_ssize_t,
    rare: cython.Py_ssize_t,
) -> cython.bint:
    """Tell whether the needle occurs: memchr looks for its byte number `rare` where that would stand."""
    found: cython.p_void
    last: cython.pointer(cython.const[uint8_t])
    if length < needle_length:
        return False
    last = at + (length - needle_length + rare)
    at += rare
    while at <= last:
        found = cython.cast(cython.p_void, memchr(at, needle[rare], last - at + 1))
        if found == cython.NULL:
            return False
        at = cython.cast(cython.pointer(cython.const[uint8_t]), found)
        if memcmp(at - rare, needle, needle_length) == 0:
            return True
        at += 1
    return False


_COMMON = b' etaoinsrlhdcum0pf1g2/.:-y="_w,b3v5486k97x{}()jqzETASIONRCLDPMU'
"""Bytes of log lines and attributes, the most frequent first; all others are rare."""


@cython.cfunc
def _rarest(needle: bytes) -> cython.Py_ssize_t:
    """Return the place of the byte by which to look for a text."""
    ranks = [_COMMON.find(byte) % 256 for byte in needle]
    return ranks.index(max(ranks))


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _find_any_case(
    at: cython.pointer(cython.const[uint8_t]),
    length: cython.Py_ssize_t,
    needle: cython.pointer(cython.const[uint8_t]),
    needle_length: cython.Py_ssize_t,
) -> cython.bint:
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    for i in range(length - needle_length + 1):
        k = 0
        while k < needle_length and _lower(at[i + k]) == needle[k]:
            k += 1
        if k == needle_length:
            return True
    return False


def contains(payload, starts, lengths, needle: bytes, ignore_case: bool = False):
    """Tell for each extent whether `needle` occurs in it; with `ignore_case`, ASCII letters of either case."""
    starts, lengths = checked(payload, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    out = np.zeros(n, np.bool_)
    if n == 0:
        return out
    if len(payload) == 0 or len(needle) == 0:
        return np.full(n, len(needle) == 0)
    if ignore_case:
        needle = needle.lower()
    view: cython.const[uint8_t][::1] = payload
    base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    chars: cython.p_const_char = needle
    wanted: cython.pointer(cython.const[uint8_t]) = cython.cast(cython.pointer(cython.const[uint8_t]), chars)
    wanted_length: cython.Py_ssize_t = len(needle)
    any_case: cython.bint = ignore_case
    rare: cython.Py_ssize_t = _rarest(needle)
    result: uint8_t[::1] = out.view(np.uint8)
    i: cython.Py_ssize_t
    with cython.nogil:
        for i in range(n):
            if any_case:
                result[i] = _find_any_case(base + start[i], length[i], wanted, wanted_length)
            else:
                result[i] = _find(base + start[i], length[i], wanted, wanted_length, rare)
    return out


def string_field(payload, starts, lengths, field: int) -> tuple:
    """Return where the length-delimited field of that number lies in each message; length 0 when absent."""
    starts, lengths = checked(payload, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    found_starts = np.zeros(n, np.uint32)
    found_lengths = np.zeros(n, np.uint32)
    if n == 0 or len(payload) == 0:
        return found_starts, found_lengths
    view: cython.const[uint8_t][::1] = payload
    base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    out_start: uint32_t[::1] = found_starts
    out_length: uint32_t[::1] = found_lengths
    wanted: uint32_t = field << 3 | 2
    at: cython.pointer(cython.const[uint8_t])
    end: cython.pointer(cython.const[uint8_t])
    tag: uint32_t = 0
    number: uint64_t = 0
    content: Extent
    i: cython.Py_ssize_t
    with cython.nogil:
        for i in range(n):
            at = base + start[i]
            end = at + length[i]
            while at < end:
                at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
                if tag == wanted and content.at != cython.NULL:
                    out_start[i] = cython.cast(uint32_t, content.at - base)
                    out_length[i] = content.length
    return found_starts, found_lengths


def children(payload, starts, lengths, field: int) -> tuple:
    """Return where every length-delimited field of that number lies: (the message it is in, start, length)."""
    starts, lengths = checked(payload, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    counts = np.zeros(n, np.intp)
    if n == 0 or len(payload) == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.uint32), np.zeros(0, np.uint32)
    view: cython.const[uint8_t][::1] = payload
    base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    count: cython.Py_ssize_t[::1] = counts
    wanted: uint32_t = field << 3 | 2
    at: cython.pointer(cython.const[uint8_t])
    end: cython.pointer(cython.const[uint8_t])
    tag: uint32_t = 0
    number: uint64_t = 0
    content: Extent
    i: cython.Py_ssize_t
    found: cython.Py_ssize_t = 0
    with cython.nogil:
        for i in range(n):
            at = base + start[i]
            end = at + length[i]
            while at < end:
                at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
                if tag == wanted and content.at != cython.NULL:
                    count[i] += 1
                    found += 1
    found_starts = np.zeros(found, np.uint32)
    found_lengths = np.zeros(found, np.uint32)
    out_start: uint32_t[::1] = found_starts
    out_length: uint32_t[::1] = found_lengths
    found = 0
    with cython.nogil:
        for i in range(n):
            if count[i] == 0:
                continue
            at = base + start[i]
            end = at + length[i]
            while at < end:
                at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
                if tag == wanted and content.at != cython.NULL:
                    out_start[found] = cython.cast(uint32_t, content.at - base)
                    out_length[found] = content.length
                    found += 1
    return np.repeat(np.arange(n), counts), found_starts, found_lengths


def fixed64(payload, starts, lengths, field: int):
    """Return the 64-bit field of that number of each message, as it lies there; 0 when absent."""
    starts, lengths = checked(payload, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    values = np.zeros(n, np.uint64)
    if n == 0 or len(payload) == 0:
        return values
    view: cython.const[uint8_t][::1] = payload
    base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    value: uint64_t[::1] = values
    wanted: uint32_t = field << 3 | 1
    at: cython.pointer(cython.const[uint8_t])
    end: cython.pointer(cython.const[uint8_t])
    tag: uint32_t = 0
    number: uint64_t = 0
    content: Extent
    i: cython.Py_ssize_t
    with cython.nogil:
        for i in range(n):
            at = base + start[i]
            end = at + length[i]
            while at < end:
                at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
                if tag == wanted:
                    value[i] = number
    return values


def hashes(payload, starts, lengths):
    """Return `wire.hash_key` of each extent's bytes: 0 for the empty one."""
    starts, lengths = checked(payload, starts, lengths)
    n: cython.Py_ssize_t = len(starts)
    found = np.zeros(n, np.uint64)
    if n == 0 or len(payload) == 0:
        return found
    view: cython.const[uint8_t][::1] = payload
    base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    out: uint64_t[::1] = found
    i: cython.Py_ssize_t
    with cython.nogil:
        for i in range(n):
            if length[i]:
                out[i] = key_of(base + start[i], length[i])
    return found


def strings(payload, starts, lengths) -> list:
    """Return the text at each extent."""
    starts, lengths = checked(payload, starts, lengths)
    return [
        str(payload[start : start + length], "utf-8", "replace")
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]


def keys(payload, starts, lengths, field: int) -> set:
    """Return the distinct keys, other than the empty one, of the attributes in field `field` of the messages.

    A small table of keys that were seen lately spares making an object for each; what it does not have waits until it is
    worth taking the GIL, or for the end.
    """
    starts, lengths = checked(payload, starts, lengths)
    found: set = set()
    n: cython.Py_ssize_t = len(starts)
    if n == 0 or len(payload) == 0:
        return found
    view: cython.const[uint8_t][::1] = payload
    base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
    start: cython.const[uint32_t][::1] = starts
    length: cython.const[uint32_t][::1] = lengths
    wanted: uint32_t = field << 3 | 2
    tag: uint32_t = 0
    number: uint64_t = 0
    pair: Extent
    part: Extent
    at: cython.pointer(cython.const[uint8_t])
    end: cython.pointer(cython.const[uint8_t])
    inside: cython.pointer(cython.const[uint8_t])
    i: cython.Py_ssize_t
    slot: cython.Py_ssize_t
    k: cython.int
    waiting: cython.int = 0
    seen = cython.declare(Extent[256])
    pending = cython.declare(Extent[512])
    for slot in range(256):
        seen[slot].at = cython.NULL
        seen[slot].length = 0
    with cython.nogil:
        for i in range(n):
            at = base + start[i]
            end = at + length[i]
            while at < end:
                at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(pair))
                if tag != wanted or pair.at == cython.NULL:
                    continue
                inside = pair.at
                while inside < pair.at + pair.length:
                    inside = next_field(
                        inside, pair.at + pair.length, cython.address(tag), cython.address(number), cython.address(part)
                    )
                    if tag == 10:
                        if part.length:
                            slot = cython.cast(cython.Py_ssize_t, key_of(part.at, part.length) & 255)
                            if seen[slot].length != part.length or memcmp(seen[slot].at, part.at, part.length) != 0:
                                seen[slot] = part
                                pending[waiting] = part
                                waiting += 1
                                if waiting == 512:
                                    with cython.gil:
                                        for k in range(waiting):
                                            found.add(cython.cast(cython.p_char, pending[k].at)[: pending[k].length])
                                    waiting = 0
                        break
    for k in range(waiting):
        found.add(cython.cast(cython.p_char, pending[k].at)[: pending[k].length])
    return found


def distinct(payload, *extents) -> tuple:
    """Tell which rows have the same bytes: (a code for each row, the first row of each code).

    `extents` are pairs (starts, lengths); rows are alike when they are in all of them. Codes count from 0 in the order
    of their first rows.
    """
    pairs = [checked(payload, starts, lengths) for starts, lengths in extents]
    parts: cython.Py_ssize_t = len(pairs)
    n: cython.Py_ssize_t = len(pairs[0][0])
    codes = np.zeros(n, np.intp)
    firsts = np.zeros(n, np.intp)
    if n == 0 or len(payload) == 0:
        return codes, firsts[: min(n, 1)]
    room: uint64_t = 4
    while room < 2 * cython.cast(uint64_t, n):
        room *= 2
    places = np.full(room, -1, np.intp)
    hashes = np.zeros(n, np.uint64)
    view: cython.const[uint8_t][::1] = payload
    base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
    start: cython.const[uint32_t][:, ::1] = np.stack([starts for starts, _ in pairs])
    length: cython.const[uint32_t][:, ::1] = np.stack([lengths for _, lengths in pairs])
    code: cython.Py_ssize_t[::1] = codes
    first: cython.Py_ssize_t[::1] = firsts
    place: cython.Py_ssize_t[::1] = places
    known: uint64_t[::1] = hashes
    key: uint64_t
    at: uint64_t
    found: cython.Py_ssize_t
    count: cython.Py_ssize_t = 0
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    same: cython.bint
    with cython.nogil:
        for i in range(n):
            key = 0
            for k in range(parts):
                key = mix(key ^ key_of(base + start[k, i], length[k, i]), MIX_1)
            at = key & (room - 1)
            while True:
                found = place[at]
                if found < 0:
                    place[at] = count
                    first[count] = i
                    known[count] = key
                    code[i] = count
                    count += 1
                    break
                same = known[found] == key
                for k in range(parts):
                    if not same:
                        break
                    if (
                        length[k, i] != length[k, first[found]]
                        or memcmp(base + start[k, i], base + start[k, first[found]], length[k, i]) != 0
                    ):
                        same = False
                if same:
                    code[i] = found
                    break
                at = (at + 1) & (room - 1)
    return codes, firsts[:count].copy()
