# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Postings of one key column: key -> offsets of live records with that key, newest first.

A ring evicts in offset order, so an evicted record is always the oldest of every posting list that it is in.
Hence a list is a chain, and no more: a table maps the key to (newest offset, count), and `back[slot]` is the
distance from a record to the one before it with the same key. The slot of an offset is its low bits.

* append: link the record to the key's newest, count + 1.
* evict the oldest record: count - 1; at 0 the key leaves the table. No search, no link is touched: a walk ends
  where the distance leads to an offset that is no longer live.
* find: walk from the newest; `count` tells how far.

The table is open addressing with linear probing over powers of two, at most three quarters full, and shrinks
again; removal shifts back, so there are no tombstones. Memory: 4 B a slot, 24 B a table place.

A table of a million keys is not moved into a larger one at once, which would take 150 ms: the old one stays until its
entries have followed, some with every key that comes or goes, and each when it is asked for. An entry of the old table
counts as long as it lies behind those that were moved and its `newest` is not negative.

Key columns have a width: 8 (a key of `wire.hash_key`, or a number), 16 (an id; its key is a mix of both halves), 1 (a
small number; its key is the number + 1). Key 0 means absent, and is not indexed. They come as a buffer, the byte where
the first key lies, and a number of keys: a memoryview for each would cost more than a key.

Not here: deletion out of order. Cost: about 10 ns for each append and each eviction while the table is cached.
"""

import cython
import numpy as np
from cython.cimports.collector.otlp.wire import MIX_1, SEED, mix
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memcpy

_LEAST = cython.declare(uint64_t, 16)  # places in the smallest table
_AT_ONCE = cython.declare(uint64_t, 1024)  # a table of so many places or fewer is moved at once: 20 µs
_STEP = cython.declare(uint64_t, 16)  # places moved with every key: all of them before the next table is due

_Entry = cython.struct(key=uint64_t, newest=int64_t, count=int64_t)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _key(at: cython.pointer(cython.const[uint8_t]), width: cython.int, row: cython.Py_ssize_t) -> uint64_t:
    low: uint64_t
    high: uint64_t
    if width == 8:
        memcpy(cython.address(low), at + 8 * row, 8)
        return low
    if width == 1:
        return cython.cast(uint64_t, at[row]) + 1
    memcpy(cython.address(low), at + 16 * row, 8)
    memcpy(cython.address(high), at + 16 * row + 8, 8)
    if low == 0 and high == 0:
        return 0
    low = mix(low ^ SEED, high ^ MIX_1)
    return low if low != 0 else 1


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _probe(table: cython.pointer(_Entry), mask: uint64_t, key: uint64_t) -> uint64_t:
    """Return the place of the key, or the empty place where it belongs."""
    at: uint64_t = mix(key, SEED) & mask
    while table[at].count != 0 and table[at].key != key:
        at = (at + 1) & mask
    return at


def key_of_column(column: cython.const[uint8_t][::1], width: int, row: int) -> int:
    """Return the key of one row of a key column, as `find` and `count` take it."""
    if not 0 <= row < column.shape[0] // width:
        raise IndexError(row)
    return _key(cython.address(column[0]), width, row)


def empty_bytes(slots: int) -> int:
    """Return the bytes of postings over so many slots while they hold nothing."""
    room: int = 1 << max(0, slots - 1).bit_length()
    return room * 4 + _LEAST * cython.sizeof(_Entry)


@cython.cclass
class Postings:
    """The postings of one key column over a ring of at most `slots` live records.

    Owned by the event loop's thread. `keys` is the number of keys, `postings` of records in any list.
    """

    slots = cython.declare(cython.Py_ssize_t, visibility="readonly")
    keys = cython.declare(cython.Py_ssize_t, visibility="readonly")
    postings = cython.declare(cython.Py_ssize_t, visibility="readonly")
    _width: cython.int
    _slot_mask: uint64_t
    _mask: uint64_t
    _back: cython.pointer(uint32_t)
    _table: cython.pointer(_Entry)
    _old: cython.pointer(_Entry)  # the table before, while its entries are moved; else NULL
    _old_mask: uint64_t
    _moved: uint64_t  # places of the old table that were moved

    def __cinit__(self, slots: int, width: int):
        room: uint64_t = 1
        if width not in (1, 8, 16) or not 0 < slots < 1 << 31:
            raise ValueError(f"postings of {slots} slots over a column {width} bytes wide")
        while room < cython.cast(uint64_t, slots):
            room *= 2
        self.slots = slots
        self._width = width
        self._slot_mask = room - 1
        self._mask = _LEAST - 1
        self._old = cython.NULL
        self._back = cython.cast(cython.pointer(uint32_t), calloc(room, 4))
        self._table = cython.cast(cython.pointer(_Entry), calloc(_LEAST, cython.sizeof(_Entry)))
        if self._back == cython.NULL or self._table == cython.NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._back)
        free(self._table)
        free(self._old)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        places: uint64_t = self._mask + 1
        if self._old != cython.NULL:
            places += self._old_mask + 1
        return (self._slot_mask + 1) * 4 + places * cython.sizeof(_Entry)

    def append(self, base_offset: int64_t, buffer: bytes, begin: cython.Py_ssize_t, n: cython.Py_ssize_t) -> None:
        """Add `n` consecutive records, whose keys lie in the buffer from byte `begin`.

        `base_offset` is the first one's offset. The caller has evicted first: never more than `slots` are live.
        """
        keys: cython.pointer(cython.const[uint8_t])
        i: cython.Py_ssize_t
        key: uint64_t
        offset: int64_t = base_offset
        at: uint64_t
        self._check(buffer, begin, n)
        keys = cython.cast(cython.pointer(cython.const[uint8_t]), PyBytes_AS_STRING(buffer)) + begin
        for i in range(n):
            key = _key(keys, self._width, i)
            if key == 0:
                continue
            if self._old != cython.NULL:
                self._move(_STEP)
            if (self.keys + 1) * 4 > cython.cast(cython.Py_ssize_t, self._mask + 1) * 3:
                self._resize((self._mask + 1) * 2)
            at = self._place(key)
            if self._table[at].count == 0:
                self._table[at].key = key
                self.keys += 1
                self._back[(offset + i) & self._slot_mask] = 0
            else:
                self._back[(offset + i) & self._slot_mask] = cython.cast(uint32_t, offset + i - self._table[at].newest)
            self._table[at].newest = offset + i
            self._table[at].count += 1
            self.postings += 1

    def evict(self, buffer: bytes, begin: cython.Py_ssize_t, n: cython.Py_ssize_t) -> None:
        """Remove the `n` oldest live records, whose keys lie in the buffer from byte `begin`, in offset order."""
        keys: cython.pointer(cython.const[uint8_t])
        i: cython.Py_ssize_t
        key: uint64_t
        at: uint64_t
        self._check(buffer, begin, n)
        keys = cython.cast(cython.pointer(cython.const[uint8_t]), PyBytes_AS_STRING(buffer)) + begin
        for i in range(n):
            key = _key(keys, self._width, i)
            if key == 0:
                continue
            if self._old != cython.NULL:
                self._move(_STEP)
            at = self._place(key)
            if self._table[at].count == 0:
                raise AssertionError(f"key {key} of an evicted record is not in the postings")
            self._table[at].count -= 1
            self.postings -= 1
            if self._table[at].count == 0:
                self._remove(at)
                if self._mask + 1 > _LEAST and self.keys * 8 < cython.cast(cython.Py_ssize_t, self._mask + 1):
                    self._resize((self._mask + 1) // 2)

    def count(self, key: int) -> int:
        """Return the number of live records with the key."""
        return self._table[self._place(key)].count if key else 0

    def counts(self, buffer: bytes, begin: cython.Py_ssize_t, n: cython.Py_ssize_t) -> object:
        """Return, for each of `n` keys that lie in the buffer from byte `begin`, the number of live records with it."""
        keys: cython.pointer(cython.const[uint8_t])
        i: cython.Py_ssize_t
        key: uint64_t
        self._check(buffer, begin, n)
        keys = cython.cast(cython.pointer(cython.const[uint8_t]), PyBytes_AS_STRING(buffer)) + begin
        found = np.zeros(n, np.int64)
        out: int64_t[::1] = found
        for i in range(n):
            key = _key(keys, self._width, i)
            if key != 0:
                out[i] = self._table[self._place(key)].count
        return found

    def find(self, key: int, first_offset: int, limit: int = 1 << 62, before: int = 1 << 62) -> object:
        """Return offsets of live records with the key, newest first: at most `limit`, all below `before`.

        `first_offset` is the ring's oldest live offset. The one method that any thread may call: it holds the GIL.
        """
        at: uint64_t
        offset: int64_t
        first: int64_t = first_offset
        below: int64_t = before
        n: cython.Py_ssize_t = 0
        distance: uint32_t
        wanted: cython.Py_ssize_t
        if key == 0:
            return np.empty(0, np.int64)
        found = np.empty(min(limit, self._table[self._place(key)].count), np.int64)
        at = self._place(key)  # again: from here on no other thread can run
        wanted = min(len(found), self._table[at].count)
        if wanted <= 0:
            return found[:0]
        out: int64_t[::1] = found
        offset = self._table[at].newest
        while n < wanted and offset >= first:
            if offset < below:
                out[n] = offset
                n += 1
            distance = self._back[offset & self._slot_mask]
            if distance == 0:
                break
            offset -= distance
        return found[:n]

    def items(self) -> list:
        """Return (key, newest offset, count) of every key, in no particular order."""
        found: list = [
            (self._table[i].key, self._table[i].newest, self._table[i].count)
            for i in range(self._mask + 1)
            if self._table[i].count
        ]
        if self._old != cython.NULL:
            found += [
                (self._old[i].key, self._old[i].newest, self._old[i].count)
                for i in range(self._moved, self._old_mask + 1)
                if self._old[i].count and self._old[i].newest >= 0
            ]
        return found

    @cython.cfunc
    @cython.exceptval(-1)
    def _check(self, buffer: bytes, begin: cython.Py_ssize_t, n: cython.Py_ssize_t) -> cython.int:
        """Raise ValueError when the keys do not all lie in the buffer."""
        if buffer is None or begin < 0 or n < 0 or n > (PyBytes_GET_SIZE(buffer) - begin) // self._width:
            raise ValueError(f"{n} keys of {self._width} bytes do not lie in the buffer from byte {begin}")
        return 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _place(self, key: uint64_t) -> uint64_t:
        """Return the table place of the key, or the empty place where it belongs. Moves it there if need be."""
        at: uint64_t = _probe(self._table, self._mask, key)
        was: uint64_t
        if self._table[at].count == 0 and self._old != cython.NULL:
            was = _probe(self._old, self._old_mask, key)
            if was >= self._moved and self._old[was].count != 0 and self._old[was].newest >= 0:
                self._table[at] = self._old[was]
                self._old[was].newest = -1
        return at

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _move(self, places: uint64_t) -> cython.void:
        """Move what the next places of the old table hold."""
        last: uint64_t = self._moved + min(places, self._old_mask + 1 - self._moved)
        entry: cython.pointer(_Entry)
        while self._moved < last:
            entry = self._old + self._moved
            if entry.count != 0 and entry.newest >= 0:
                self._table[_probe(self._table, self._mask, entry.key)] = entry[0]
            self._moved += 1
        if self._moved > self._old_mask:
            free(self._old)
            self._old = cython.NULL

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _remove(self, hole: uint64_t) -> cython.void:
        """Close the hole by moving back entries that a probe would no longer reach."""
        at: uint64_t = hole
        home: uint64_t
        self.keys -= 1
        while True:
            at = (at + 1) & self._mask
            if self._table[at].count == 0:
                break
            home = mix(self._table[at].key, SEED) & self._mask
            if ((at - home) & self._mask) >= ((at - hole) & self._mask):
                self._table[hole] = self._table[at]
                hole = at
        self._table[hole].key = 0
        self._table[hole].newest = 0
        self._table[hole].count = 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _resize(self, places: uint64_t) -> cython.int:
        """Go on with a table of so many places, into which the entries of this one follow."""
        grown: cython.pointer(_Entry)
        if self._old != cython.NULL:
            self._move(self._old_mask + 1)
        grown = cython.cast(cython.pointer(_Entry), calloc(places, cython.sizeof(_Entry)))
        if grown == cython.NULL:
            raise MemoryError
        self._old = self._table
        self._old_mask = self._mask
        self._moved = 0
        self._table = grown
        self._mask = places - 1
        if self._old_mask < _AT_ONCE:
            self._move(self._old_mask + 1)
        return 0
