"""One label of many lines: dictionary-encoded, so that a predicate is asked once for each distinct text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

ABSENT, STREAM, METADATA, PARSED = range(4)
"""The category of a label on one line."""
KINDS = 4
"""How many there are."""


class Column(NamedTuple):
    """One label of a batch's rows."""

    codes: NDArray[np.intp]
    """For each row, the place of its text in `values`."""
    values: list[str]
    """Texts; the first is empty, and stands for rows without the label. A label that is there and empty has a code
    of its own, so an empty text can occur twice."""

    def where(self, predicate: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Tell for each row whether its text meets the predicate."""
        return np.fromiter(map(predicate, self.values), np.bool_, len(self.values))[self.codes]


class Entry(NamedTuple):
    """A label of a batch's rows, with its category."""

    codes: NDArray[np.intp]
    values: list[str]
    kinds: NDArray[np.uint8]
    """For each row ABSENT, STREAM, METADATA or PARSED; ABSENT where the code is 0, and only there."""

    @property
    def column(self) -> Column:
        """The texts alone."""
        return Column(self.codes, self.values)

    def narrowed(self, mask: NDArray[np.bool_]) -> Entry:
        """Return the label of the rows that the mask names."""
        return Entry(self.codes[mask], self.values, self.kinds[mask])

    def without(self, gone: NDArray[np.bool_]) -> Entry:
        """Return the label, taken away from some rows."""
        if not gone.any():
            return self
        return Entry(np.where(gone, 0, self.codes), self.values, np.where(gone, ABSENT, self.kinds).astype(np.uint8))

    def under(self, other: Entry) -> Entry:
        """Return the label, replaced on those rows where the other has one."""
        there = other.codes != 0
        if not there.any():
            return self
        if not self.kinds.any():
            return other
        codes = np.where(there, other.codes + (len(self.values) - 1), self.codes)
        return Entry(codes, self.values + other.values[1:], np.where(there, other.kinds, self.kinds))


def nowhere(count: int) -> Entry:
    """Return a label that none of `count` rows has."""
    return Entry(np.zeros(count, np.intp), [""], np.zeros(count, np.uint8))


def parsed(codes: NDArray[np.intp], values: list[str]) -> Entry:
    """Return a parsed label."""
    return Entry(codes, values, np.where(codes != 0, PARSED, ABSENT).astype(np.uint8))


class Builder:
    """A column under construction: texts are filled in only where there is none yet."""

    def __init__(self, count: int, *, keeps_empty: bool = False) -> None:
        """Take the number of rows. With `keeps_empty`, an empty text is one; else it is the same as none."""
        self.codes = np.zeros(count, np.intp)
        self.values = [""]
        self._known: dict[str, int] = {} if keeps_empty else {"": 0}

    def code(self, text: str) -> int:
        """Return the code of a text."""
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = len(self.values)
            self.values.append(text)
        return found

    def open(self, wanted: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the rows among the wanted that have no text yet."""
        return np.flatnonzero(wanted & (self.codes == 0))

    def fill(self, rows: NDArray[np.intp], texts: Iterable[str]) -> None:
        """Fill in a text for each row."""
        code = self.code
        self.codes[rows] = [code(text) for text in texts]

    def fill_numbers(self, rows: NDArray[np.intp], numbers: NDArray[Any], text: Callable[[int], str]) -> None:
        """Fill in texts made of whole numbers, each made once."""
        used, places = np.unique(numbers, return_inverse=True)
        self.codes[rows] = np.array([self.code(text(number)) for number in used.tolist()], np.intp)[places]

    def take(self, column: Column, text: Callable[[str], str]) -> None:
        """Fill in what `text` makes of another column's texts."""
        codes = np.array([self.code(text(value)) if value else 0 for value in column.values], np.intp)
        rows = self.open(column.codes > 0)
        self.codes[rows] = codes[column.codes[rows]]

    def column(self) -> Column:
        """Return the column."""
        return Column(self.codes, self.values)


def compact(numbers: NDArray[np.intp], bound: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the distinct numbers, ascending, and for each number its place among them. All are below `bound`."""
    if bound > 4 * len(numbers) + 1024:
        used, places = np.unique(numbers, return_inverse=True)
        return used, places.reshape(-1)
    used = np.flatnonzero(np.bincount(numbers, minlength=bound))
    table = np.zeros(bound, np.intp)
    table[used] = np.arange(len(used))
    return used, table[numbers]
