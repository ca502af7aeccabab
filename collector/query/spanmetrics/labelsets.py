# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Tables of label sets and what is counted by them.

`LabelSets` is a table from a key of three words to a slot, and what is counted in each slot: a row of 32-bit counts and a
row of sums, which their owner takes and sets to zero now and then. Slot 0 is for everything that finds no free slot; a
key that finds none is counted there, and in `folded`. Label sets are told apart by the 64-bit keys of their texts.
"""

import cython
import numpy as np
from cython.cimports.collector.otlp.wire import MIX_2, SEED, mix
from cython.cimports.collector.query.spanmetrics.labelsets import Key
from cython.cimports.libc.stdint import int32_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset


def power_of_two(least: int) -> int:
    """Return the least power of two, from 2 on, that is not below a number."""
    return 1 << max(1, least - 1).bit_length()


@cython.cclass
class LabelSets:
    """What is counted by label set. `counts` and `sums` have a row for each slot."""

    def __cinit__(self, capacity: int, counts: int, sums: int):
        """Make room for `capacity` slots, of which the first is for what is folded."""
        if capacity < 2:
            raise ValueError(f"{capacity} slots are too few")
        self.capacity = capacity
        self.counts = np.zeros((capacity, counts), np.uint32)
        self.sums = np.zeros((capacity, sums), np.float64)
        self._count = self.counts
        self._sum = self.sums
        room: uint64_t = power_of_two(2 * capacity)
        self._mask = room - 1
        self._keys = cython.cast(cython.pointer(Key), calloc(capacity, cython.sizeof(Key)))
        self._places = cython.cast(cython.pointer(int32_t), calloc(room, 4))
        self._free = cython.cast(cython.pointer(int32_t), calloc(capacity, 4))
        self._fresh = cython.cast(cython.pointer(int32_t), calloc(capacity, 4))
        self._notes = cython.cast(cython.pointer(uint32_t), calloc(capacity, 4))
        if (
            self._keys == cython.NULL
            or self._places == cython.NULL
            or self._free == cython.NULL
            or self._fresh == cython.NULL
            or self._notes == cython.NULL
        ):
            raise MemoryError
        slot: cython.Py_ssize_t
        for slot in range(capacity - 1, 0, -1):
            self._free[self._free_count] = slot
            self._free_count += 1

    def __dealloc__(self):
        free(self._keys)
        free(self._places)
        free(self._free)
        free(self._fresh)
        free(self._notes)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        own: cython.Py_ssize_t = self.capacity * (cython.sizeof(Key) + 12) + (self._mask + 1) * 4
        return own + self.counts.nbytes + self.sums.nbytes

    @property
    def free(self) -> int:
        """How many slots are free."""
        return self._free_count

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _place(self, first: uint64_t, second: uint64_t, rest: uint64_t) -> uint64_t:
        """Return the place of a key, or the empty place where it belongs."""
        at: uint64_t = mix(first ^ SEED, second ^ rest * MIX_2) & self._mask
        slot: int32_t = self._places[at]
        while slot != 0 and (
            self._keys[slot].first != first or self._keys[slot].second != second or self._keys[slot].rest != rest
        ):
            at = (at + 1) & self._mask
            slot = self._places[at]
        return at

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _slot(self, first: uint64_t, second: uint64_t, rest: uint64_t, note: uint32_t) -> int32_t:
        """Return the slot of a key, a fresh one if it has none; `note` is remembered with a fresh one."""
        at: uint64_t = self._place(first, second, rest)
        slot: int32_t = self._places[at]
        if slot == 0:
            if self._free_count == 0:
                self.folded += 1
                return 0
            self._free_count -= 1
            slot = self._free[self._free_count]
            self._places[at] = slot
            self._keys[slot].first = first
            self._keys[slot].second = second
            self._keys[slot].rest = rest
            self._fresh[self._fresh_count] = slot
            self._notes[self._fresh_count] = note
            self._fresh_count += 1
        return slot

    def take_fresh(self) -> list:
        """Return (slot, note, first, second, rest) of slots taken since this was last asked."""
        found = [
            (
                self._fresh[i],
                self._notes[i],
                self._keys[self._fresh[i]].first,
                self._keys[self._fresh[i]].second,
                self._keys[self._fresh[i]].rest,
            )
            for i in range(self._fresh_count)
        ]
        self._fresh_count = 0
        return found

    def retire(self, slots) -> None:
        """Take slots away from their keys. They are not free before `release`."""
        gone = set(slots)
        live = [slot for slot in self._taken() if slot not in gone]
        memset(self._places, 0, (self._mask + 1) * 4)
        slot: int32_t
        for slot in live:
            self._places[self._place(self._keys[slot].first, self._keys[slot].second, self._keys[slot].rest)] = slot

    def release(self, slots) -> None:
        """Let retired slots be taken again."""
        slot: int32_t
        for slot in slots:
            self._free[self._free_count] = slot
            self._free_count += 1

    def _taken(self) -> list:
        return [self._places[at] for at in range(self._mask + 1) if self._places[at] != 0]
