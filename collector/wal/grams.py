# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The grams of texts: all runs of four and of five bytes, by which a substring test can tell that a text does not hold a
needle.

What a text holds as a part, it holds with all its grams. So a set of grams answers for a substring of any kind, across
words and inside of them, digits and punctuation as well; of needles of less than four bytes it knows nothing. Texts and
needles are folded (`words.fold`) before: the set does not tell cases apart.

Grams of four know the shorter needles; but four digits are in any few hundred lines with numbers, which five hardly are.
Texts as random as UUIDs have nearly all of five, too, and telling that would take more bytes than it is worth: a set of
more than `LONG_MAX` of them has none instead, and is told to be DENSE.

A set has a bit for each of `ROWS` hashes: of grams of four bytes, 2^16, and behind them of those of five. Bit `row` is bit
`row` mod 8 of byte `row` / 8. The row of four bytes is (the bytes as a little-endian number x 0x9e3779b1 mod 2^32) >> 16,
that of five 2^16 + ((the bytes as a little-endian number x 0x9e3779b97f4a7c15 mod 2^64) >> 48).

Cost: about 2 ns a byte of text that is ASCII, and what it takes to find the texts; the GIL is released.
"""

import cython
from cython.cimports.collector.otlp.wire import is_ascii, read_varint
from cython.cimports.collector.otlp.texts import (
    ATTRIBUTE_OPAQUE,
    BODY_OPAQUE,
    Texts,
    record_texts,
    release_texts,
    resource_texts,
    scope_texts,
    span_texts,
)
from cython.cimports.collector.otlp.words import fold_text
from cython.cimports.cpython.bytearray import PyByteArray_AS_STRING
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import free, realloc
from cython.cimports.libc.string import memcmp, memcpy, memset

from collector.otlp.signals import TRACES

ROWS = 131072
SET_BYTES = ROWS // 8
LONG_MAX = 16384
DOCUMENTS, OPAQUE_BODIES, OPAQUE_ATTRIBUTES, DENSE = 1, 2, 4, 8

_SPREAD = cython.declare(uint32_t, 0x9E3779B1)
_LONG_SPREAD = cython.declare(uint64_t, 0x9E3779B97F4A7C15)
_SET = cython.declare(cython.Py_ssize_t, 16384)
_LONG_AT = cython.declare(cython.Py_ssize_t, 8192)
_LONG_MAX = cython.declare(cython.Py_ssize_t, 16384)
_SWAP_1 = cython.declare(uint64_t, 0x00AA00AA00AA00AA)
_SWAP_2 = cython.declare(uint64_t, 0x0000CCCC0000CCCC)
_SWAP_4 = cython.declare(uint64_t, 0x00000000F0F0F0F0)
_fold = cython.declare(uint8_t[256])  # ASCII letters folded, everything else as it is

_Folded = cython.struct(at=cython.pointer(uint8_t), room=cython.Py_ssize_t)
_SEEN = cython.declare(cython.Py_ssize_t, 256)
_Seen = cython.struct(at=cython.pointer(cython.const[uint8_t]), length=cython.Py_ssize_t)


@cython.cfunc
def _fill_table() -> cython.void:
    byte: cython.int
    for byte in range(256):
        _fold[byte] = byte + 32 if 65 <= byte <= 90 else byte


_fill_table()


def add(grams: bytearray, block) -> int:
    """Put the grams of all texts of a block's log records or spans, and of their resources and scopes, into a set.

    Returns what the set does not tell of these records: DOCUMENTS, some body is no string but shown as one;
    OPAQUE_BODIES, OPAQUE_ATTRIBUTES, something is shown otherwise than it stands in the payload; DENSE, there are too many
    grams of five. Raises ValueError for a set of another size, or a block whose records lie outside of its payload.
    """
    if len(grams) != _SET:
        raise ValueError(f"a set of {len(grams)} bytes")
    if len(block.payload) == 0:
        return 0
    column = block.column
    group = block.group_column
    payload: cython.const[uint8_t][::1] = block.payload
    start: cython.const[uint32_t][::1] = column("start")
    length: cython.const[uint32_t][::1] = column("length")
    spans: cython.bint = block.signal is TRACES
    body_start: cython.const[uint32_t][::1] = column("start" if spans else "body_start")
    body_length: cython.const[uint32_t][::1] = column("length" if spans else "body_length")
    resource_start: cython.const[uint32_t][::1] = group("resource_start")
    resource_length: cython.const[uint32_t][::1] = group("resource_length")
    scope_start: cython.const[uint32_t][::1] = group("scope_start")
    scope_length: cython.const[uint32_t][::1] = group("scope_length")
    _require_inside(start, length, payload.shape[0])
    _require_inside(body_start, body_length, payload.shape[0])
    _require_inside(resource_start, resource_length, payload.shape[0])
    _require_inside(scope_start, scope_length, payload.shape[0])
    base: cython.pointer(cython.const[uint8_t]) = cython.address(payload[0])
    bits: cython.pointer(uint8_t) = cython.cast(cython.pointer(uint8_t), PyByteArray_AS_STRING(grams))
    texts: Texts
    folded: _Folded
    seen: _Seen[256]
    i: cython.Py_ssize_t
    documents: cython.bint = False
    fine: cython.bint = True
    memset(cython.address(texts), 0, cython.sizeof(Texts))
    memset(cython.address(folded), 0, cython.sizeof(_Folded))
    memset(cython.address(seen[0]), 0, _SEEN * cython.sizeof(_Seen))
    try:
        with cython.nogil:
            for i in range(start.shape[0]):
                texts.count = 0
                if spans:
                    fine = span_texts(cython.address(texts), base + start[i], length[i])
                else:
                    fine = record_texts(cython.address(texts), base + start[i], length[i])
                fine = fine and _add_texts(bits, cython.address(texts), cython.address(folded), cython.address(seen[0]))
                if not fine:
                    break
                documents = documents or not (spans or _is_text(base + body_start[i], body_length[i]))
            for i in range(resource_start.shape[0]):
                if not fine:
                    break
                texts.count = 0
                fine = resource_texts(cython.address(texts), base + resource_start[i], resource_length[i])
                fine = fine and scope_texts(cython.address(texts), base + scope_start[i], scope_length[i])
                fine = fine and _add_texts(bits, cython.address(texts), cython.address(folded), cython.address(seen[0]))
        if not fine:
            raise MemoryError
        return (
            (1 if documents else 0)
            | (2 if texts.flags & BODY_OPAQUE else 0)
            | (4 if texts.flags & ATTRIBUTE_OPAQUE else 0)
            | (8 if _is_dense(bits) else 0)
        )
    finally:
        release_texts(cython.address(texts))
        free(folded.at)


@cython.cfunc
@cython.exceptval(-1)
def _require_inside(
    start: cython.const[uint32_t][::1], length: cython.const[uint32_t][::1], size: cython.Py_ssize_t
) -> cython.int:
    i: cython.Py_ssize_t
    for i in range(start.shape[0]):
        if cython.cast(uint64_t, start[i]) + length[i] > cython.cast(uint64_t, size):
            raise ValueError("an extent reaches outside the payload")
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _is_text(at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t) -> cython.bint:
    """Tell whether a body is a string, or none: an AnyValue of one field, as all are that libraries write."""
    size: uint64_t = 0
    end: cython.pointer(cython.const[uint8_t]) = at + length
    if length == 0:
        return True
    if at[0] != 10:
        return False
    at = read_varint(at + 1, end, cython.address(size))
    return at != cython.NULL and cython.cast(uint64_t, end - at) == size


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _add_texts(
    bits: cython.pointer(uint8_t),
    texts: cython.pointer(Texts),
    folded: cython.pointer(_Folded),
    seen: cython.pointer(_Seen),
) -> cython.bint:
    """Add the grams of some texts; false when there is no memory. `seen` are some of those that were added before."""
    i: cython.Py_ssize_t
    at: cython.pointer(cython.const[uint8_t])
    length: cython.Py_ssize_t
    room: cython.Py_ssize_t
    grown: cython.p_void
    for i in range(texts.count):
        at = texts.text[i].at
        length = texts.text[i].length
        if length < 4 or _was_seen(seen, at, length):
            continue
        if not is_ascii(at, length):
            room = length + length // 2 + 4
            if room > folded.room:
                grown = realloc(folded.at, 2 * room)
                if grown == cython.NULL:
                    return False
                folded.at = cython.cast(cython.pointer(uint8_t), grown)
                folded.room = 2 * room
            length = fold_text(at, length, folded.at)
            at = folded.at
        _add_grams(bits, at, length)
    return True


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _was_seen(
    seen: cython.pointer(_Seen), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t
) -> cython.bint:
    """Tell whether a text of at least four bytes is known to have been seen; from now on it is, until another takes its
    place.
    """
    first: uint32_t = 0
    last: uint32_t = 0
    memcpy(cython.address(first), at, 4)
    memcpy(cython.address(last), at + length - 4, 4)
    first = ((first ^ last << 1) + cython.cast(uint32_t, length)) * _SPREAD
    seen += first >> 24
    if seen.length == length and memcmp(seen.at, at, length) == 0:
        return True
    seen.at = at
    seen.length = length
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _add_grams(
    bits: cython.pointer(uint8_t), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t
) -> cython.void:
    long: uint64_t  # the last five bytes, the newest uppermost
    row: uint32_t
    i: cython.Py_ssize_t
    if length < 4:
        return
    long = (
        cython.cast(uint64_t, _fold[at[0]]) << 8
        | cython.cast(uint64_t, _fold[at[1]]) << 16
        | cython.cast(uint64_t, _fold[at[2]]) << 24
        | cython.cast(uint64_t, _fold[at[3]]) << 32
    )
    row = (cython.cast(uint32_t, long >> 8) * _SPREAD) >> 16
    bits[row >> 3] |= 1 << (row & 7)
    for i in range(4, length):
        long = long >> 8 | cython.cast(uint64_t, _fold[at[i]]) << 32
        row = (cython.cast(uint32_t, long >> 8) * _SPREAD) >> 16
        bits[row >> 3] |= 1 << (row & 7)
        row = cython.cast(uint32_t, (long * _LONG_SPREAD) >> 48)
        bits[_LONG_AT + (row >> 3)] |= 1 << (row & 7)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _is_dense(bits: cython.pointer(uint8_t)) -> cython.bint:
    """Tell whether a set has too many grams of five; then it has none any more."""
    i: cython.Py_ssize_t
    count: cython.Py_ssize_t = 0
    byte: uint8_t
    for i in range(_LONG_AT, _SET):
        byte = bits[i]
        while byte:
            byte &= byte - 1
            count += 1
    if count > _LONG_MAX:
        memset(bits + _LONG_AT, 0, _SET - _LONG_AT)
    return count > _LONG_MAX


def rows_of(needle: bytes) -> tuple:
    """Return the rows of a folded needle's grams of four bytes, each once, in their order."""
    found: dict = {}
    gram: uint32_t
    at: cython.Py_ssize_t
    for at in range(len(needle) - 3):
        gram = int.from_bytes(needle[at : at + 4], "little")
        found[(gram * _SPREAD) >> 16] = None
    return tuple(found)


def long_rows_of(needle: bytes) -> tuple:
    """Return the same of its grams of five bytes."""
    found: dict = {}
    gram: uint64_t
    at: cython.Py_ssize_t
    for at in range(len(needle) - 4):
        gram = int.from_bytes(needle[at : at + 5], "little")
        found[65536 + ((gram * _LONG_SPREAD) >> 48)] = None
    return tuple(found)


def transposed(sets: bytearray, count: int) -> bytes:
    """Return `ROWS` rows of (count + 7) / 8 bytes from `count` sets: bit i of a row tells whether set i has its gram.

    Raises ValueError when they are not so many sets.
    """
    n: cython.Py_ssize_t = count
    if n < 1 or len(sets) != n * _SET:
        raise ValueError(f"{len(sets)} bytes are not {count} sets")
    stride: cython.Py_ssize_t = (n + 7) // 8
    rows: bytes = PyBytes_FromStringAndSize(cython.NULL, stride * _SET * 8)
    out: cython.pointer(uint8_t) = cython.cast(cython.pointer(uint8_t), PyBytes_AS_STRING(rows))
    source: cython.pointer(uint8_t) = cython.cast(cython.pointer(uint8_t), PyByteArray_AS_STRING(sets))
    group: cython.Py_ssize_t
    with cython.nogil:
        for group in range(stride):
            _transpose(source + group * 8 * _SET, min(8, n - group * 8), out + group, stride)
    return rows


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _transpose(
    sets: cython.pointer(uint8_t), count: cython.Py_ssize_t, out: cython.pointer(uint8_t), stride: cython.Py_ssize_t
) -> cython.void:
    """Write a byte of each row from up to eight sets, by three swaps of ever larger squares of bits."""
    square: uint64_t
    swap: uint64_t
    column: uint8_t[8]
    at: cython.Py_ssize_t
    i: cython.Py_ssize_t
    memset(cython.address(column[0]), 0, 8)
    for at in range(_SET):
        for i in range(count):
            column[i] = sets[i * _SET + at]
        memcpy(cython.address(square), cython.address(column[0]), 8)
        swap = (square ^ (square >> 7)) & _SWAP_1
        square = square ^ swap ^ (swap << 7)
        swap = (square ^ (square >> 14)) & _SWAP_2
        square = square ^ swap ^ (swap << 14)
        swap = (square ^ (square >> 28)) & _SWAP_4
        square = square ^ swap ^ (swap << 28)
        memcpy(cython.address(column[0]), cython.address(square), 8)
        for i in range(8):
            out[(at * 8 + i) * stride] = column[i]
