# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Dictionaries of values, compiled: numbering of a field's values over many blocks, and counts by those numbers.

A value is a text, a boolean, an integer or a float; what is absent or null is one value, too. 1, 1.0, "1" and true are
four. Values are numbered in the order in which they come, in a table that stays from block to block: so a record costs a
hash and a comparison of its text, some 20 ns, and nothing is made of it.
"""

import cython
import numpy as np
from cython.cimports.collector.otlp.wire import MIX_1, MIX_2, key_of, mix
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free, malloc, realloc
from cython.cimports.libc.string import memcmp, memcpy

_ABSENT = cython.declare(uint8_t, 0)  # as in match.py
_STRING = cython.declare(uint8_t, 1)
_DOUBLE = cython.declare(uint8_t, 4)
_EMPTY = cython.declare(uint8_t, 8)
_LEAST = cython.declare(uint64_t, 64)  # places of the smallest table
COUNT_MAX = 0xFFFF
"""Values of one dictionary: their numbers have 16 bits."""

_Value = cython.struct(hash=uint64_t, bits=uint64_t, start=uint32_t, length=uint32_t, kind=uint8_t)

_Number = cython.fused_type(uint8_t, uint16_t, int32_t, int64_t)


@cython.cclass
class Dictionary:
    """The values of one field, each once. For one thread at a time."""

    _places: cython.pointer(uint32_t)  # number + 1 of the value there; 0: none
    _values: cython.pointer(_Value)
    _texts: cython.p_char
    _last: cython.pointer(int64_t)
    _mask: uint64_t
    _room: int64_t
    _text_room: int64_t
    count = cython.declare(int64_t, visibility="readonly")
    text_bytes = cython.declare(int64_t, visibility="readonly")

    def __cinit__(self):
        self._mask = _LEAST - 1
        self._room = 32
        self._text_room = 256
        self._places = cython.cast(cython.pointer(uint32_t), calloc(_LEAST, 4))
        self._values = cython.cast(cython.pointer(_Value), malloc(self._room * cython.sizeof(_Value)))
        self._last = cython.cast(cython.pointer(int64_t), malloc(self._room * 8))
        self._texts = cython.cast(cython.p_char, malloc(self._text_room))
        if (
            self._places == cython.NULL  # noqa: PLR1714 - pointers are in no tuple
            or self._values == cython.NULL
            or self._last == cython.NULL
            or self._texts == cython.NULL
        ):
            raise MemoryError

    def __dealloc__(self):
        free(self._places)
        free(self._values)
        free(self._last)
        free(self._texts)

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._text_room + self._room * (cython.sizeof(_Value) + 8) + (self._mask + 1) * 4

    def add(self, payload, kinds, integers, doubles, starts, lengths, count_max: int, text_bytes_max: int):
        """Return the number of each value of a column (u16), as `values.Column` has them; None when there are too many.

        The values must be single, absent or null. What came before a limit was reached is kept. ValueError for a text
        outside the payload.
        """
        kind: cython.const[uint8_t][::1] = np.ascontiguousarray(kinds, np.uint8)
        integer: cython.const[int64_t][::1] = np.ascontiguousarray(integers, np.int64)
        double: cython.const[uint64_t][::1] = np.ascontiguousarray(doubles, np.float64).view(np.uint64)
        start: cython.const[uint32_t][::1] = np.ascontiguousarray(starts, np.uint32)
        length: cython.const[uint32_t][::1] = np.ascontiguousarray(lengths, np.uint32)
        n: cython.Py_ssize_t = kind.shape[0]
        if not (n == integer.shape[0] == double.shape[0] == start.shape[0] == length.shape[0]):
            raise ValueError("columns of one length")
        size: int64_t = len(payload)
        view: cython.const[uint8_t][::1] = payload if size else b"\0"
        base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
        most: int64_t = min(count_max, COUNT_MAX)
        bytes_max: int64_t = text_bytes_max
        out = np.empty(n, np.uint16)
        number: uint16_t[::1] = out
        value: _Value = _Value(0, 0, 0, 0, 0)
        found: int64_t = 0
        i: cython.Py_ssize_t
        with cython.nogil:
            for i in range(n):
                value.kind = kind[i]
                value.bits = 0
                value.start = 0
                value.length = 0
                if value.kind == _STRING:
                    if cython.cast(int64_t, start[i]) + length[i] > size:
                        found = -2
                        break
                    value.start = start[i]
                    value.length = length[i]
                    value.hash = key_of(base + start[i], length[i])
                else:
                    if value.kind == _EMPTY:
                        value.kind = _ABSENT
                    if value.kind == _DOUBLE:
                        value.bits = double[i]
                    elif value.kind != _ABSENT:
                        value.bits = cython.cast(uint64_t, integer[i])
                    value.hash = mix(value.bits ^ MIX_2, MIX_1 ^ value.kind)
                found = self._number(cython.address(value), base, most, bytes_max)
                if found < 0:
                    break
                number[i] = cython.cast(uint16_t, found)
        if found == -2:
            raise ValueError("a text reaches outside the payload")
        if found == -3:
            raise MemoryError
        return None if found == -1 else out

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _number(
        self,
        value: cython.pointer(_Value),
        base: cython.pointer(cython.const[uint8_t]),
        most: int64_t,
        bytes_max: int64_t,
    ) -> int64_t:
        """Return the number of a value, a new one if it is not known; -1 when there are too many, -3 without memory."""
        at: uint64_t = value[0].hash & self._mask
        place: uint32_t
        known: cython.pointer(_Value)
        while True:
            place = self._places[at]
            if place == 0:
                break
            known = self._values + (place - 1)
            if (
                known[0].hash == value[0].hash
                and known[0].kind == value[0].kind
                and known[0].bits == value[0].bits
                and known[0].length == value[0].length
                and memcmp(self._texts + known[0].start, base + value[0].start, value[0].length) == 0
            ):
                return place - 1
            at = (at + 1) & self._mask
        if self.count >= most or self.text_bytes + value[0].length > bytes_max:
            return -1
        return self._append(value, base, at)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _append(
        self, value: cython.pointer(_Value), base: cython.pointer(cython.const[uint8_t]), at: uint64_t
    ) -> int64_t:
        """Take in a value whose place is `at`; return its number, or -3."""
        values: cython.pointer(_Value)
        last: cython.pointer(int64_t)
        texts: cython.p_char
        if self.count == self._room:
            values = cython.cast(cython.pointer(_Value), realloc(self._values, 2 * self._room * cython.sizeof(_Value)))
            if values == cython.NULL:
                return -3
            self._values = values
            last = cython.cast(cython.pointer(int64_t), realloc(self._last, 2 * self._room * 8))
            if last == cython.NULL:
                return -3
            self._last = last
            self._room *= 2
        while self.text_bytes + value[0].length > self._text_room:
            texts = cython.cast(cython.p_char, realloc(self._texts, 2 * self._text_room))
            if texts == cython.NULL:
                return -3
            self._texts = texts
            self._text_room *= 2
        memcpy(self._texts + self.text_bytes, base + value[0].start, value[0].length)
        self._values[self.count] = value[0]
        self._values[self.count].start = cython.cast(uint32_t, self.text_bytes)
        self._last[self.count] = -1
        self.text_bytes += value[0].length
        self.count += 1
        self._places[at] = cython.cast(uint32_t, self.count)
        if cython.cast(uint64_t, self.count) * 2 > self._mask and not self._widen():
            return -3
        return self.count - 1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _widen(self) -> cython.bint:
        """Double the table; False without memory."""
        room: uint64_t = 2 * (self._mask + 1)
        places: cython.pointer(uint32_t) = cython.cast(cython.pointer(uint32_t), calloc(room, 4))
        at: uint64_t
        i: int64_t
        if places == cython.NULL:
            return False
        for i in range(self.count):
            at = self._values[i].hash & (room - 1)
            while places[at] != 0:
                at = (at + 1) & (room - 1)
            places[at] = cython.cast(uint32_t, i + 1)
        free(self._places)
        self._places = places
        self._mask = room - 1
        return True

    def seen(self, numbers, first: int) -> None:
        """Note that values were in records that follow each other, the first at this offset."""
        number: cython.const[uint16_t][::1] = numbers
        n: cython.Py_ssize_t = number.shape[0]
        offset: int64_t = first
        i: cython.Py_ssize_t
        if n and int(numbers.max()) >= self.count:
            raise ValueError("a number of no value")
        with cython.nogil:
            for i in range(n):
                self._last[number[i]] = offset + i

    def last(self):
        """Return the last offset of each value (i64), -1 for one that was never seen."""
        out = np.empty(self.count, np.int64)
        found: int64_t[::1] = out
        if self.count:
            memcpy(cython.address(found[0]), self._last, self.count * 8)
        return out

    def columns(self) -> tuple:
        """Return the values as the parts of a `values.Column`: kinds, integers, doubles, starts, lengths, texts."""
        n: cython.Py_ssize_t = self.count
        kinds = np.zeros(n, np.uint8)
        bits = np.zeros(n, np.uint64)
        starts = np.zeros(n, np.uint32)
        lengths = np.zeros(n, np.uint32)
        kind: uint8_t[::1] = kinds
        bit: uint64_t[::1] = bits
        start: uint32_t[::1] = starts
        length: uint32_t[::1] = lengths
        i: cython.Py_ssize_t
        for i in range(n):
            kind[i] = self._values[i].kind
            bit[i] = self._values[i].bits
            start[i] = self._values[i].start
            length[i] = self._values[i].length
        are_doubles = kinds == _DOUBLE
        integers = np.where(are_doubles, 0, bits.view(np.int64))
        doubles = np.where(are_doubles, bits.view(np.float64), integers.astype(np.float64))
        return kinds, integers, doubles, starts, lengths, self._texts[: self.text_bytes]


def counted(numbers, cells, counts) -> None:
    """Add one to `counts[number, cell]` (i64) for each of some records: numbers u8, u16, i32 or i64, cells i32.

    ValueError for a number or a cell that `counts` does not have; then some may have been counted.
    """
    if numbers.dtype == np.uint8:
        _counted[uint8_t](numbers, cells, counts)
    elif numbers.dtype == np.uint16:
        _counted[uint16_t](numbers, cells, counts)
    elif numbers.dtype == np.int32:
        _counted[int32_t](numbers, cells, counts)
    else:
        _counted[int64_t](numbers, cells, counts)


@cython.cfunc
def _counted(numbers: cython.const[_Number][::1], cells: cython.const[int32_t][::1], counts: int64_t[:, ::1]):
    n: cython.Py_ssize_t = numbers.shape[0]
    rows: int64_t = counts.shape[0]
    width: int64_t = counts.shape[1]
    i: cython.Py_ssize_t
    row: int64_t
    cell: int64_t
    wrong: cython.bint = n != cells.shape[0]
    if not wrong:
        with cython.nogil:
            for i in range(n):
                row = numbers[i]
                cell = cells[i]
                if row < 0 or row >= rows or cell < 0 or cell >= width:
                    wrong = True
                    break
                counts[row, cell] += 1
    if wrong:
        raise ValueError("a number or a cell out of range")
