"""Which records were deleted: offsets as ranges, immutable, for any thread.

Ranges are disjoint, rising, and never touch each other. Memory: 16 bytes each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray


class Tombstones:
    """Some offsets."""

    __slots__ = ("_ends", "_firsts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        """Take ranges [first, end) in any order, which may overlap."""
        pairs = np.array(sorted(ranges), np.int64).reshape(-1, 2)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        reached = np.maximum.accumulate(pairs[:, 1]) if len(pairs) else pairs[:, 1]
        begins = np.concatenate(([True], pairs[1:, 0] > reached[:-1])) if len(pairs) else np.empty(0, np.bool_)
        self._firsts: NDArray[np.int64] = pairs[begins, 0]
        self._ends: NDArray[np.int64] = reached[np.append(begins[1:], True)] if len(pairs) else reached

    @classmethod
    def of(cls, offsets: NDArray[Any]) -> Tombstones:
        """Return those of single offsets, in any order."""
        distinct = np.unique(offsets).astype(np.int64)
        made = cls()
        if len(distinct):
            gaps = np.flatnonzero(np.diff(distinct) > 1)
            made._firsts = distinct[np.concatenate(([0], gaps + 1))]
            made._ends = distinct[np.append(gaps, len(distinct) - 1)] + 1
        return made

    def __bool__(self) -> bool:
        return len(self._firsts) > 0

    def __len__(self) -> int:
        """Ranges."""
        return len(self._firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tombstones) and self.ranges() == other.ranges()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Tombstones({self.ranges()})"

    @property
    def records(self) -> int:
        """Offsets."""
        return int((self._ends - self._firsts).sum())

    def ranges(self) -> list[tuple[int, int]]:
        """Return the ranges, rising."""
        return list(zip(self._firsts.tolist(), self._ends.tolist(), strict=True))

    def __or__(self, other: Tombstones) -> Tombstones:
        """Return the offsets of both."""
        if not other or not self:
            return self or other
        return Tombstones([*self.ranges(), *other.ranges()])

    def __sub__(self, other: Tombstones) -> Tombstones:
        """Return the offsets that the other has not."""
        return Tombstones(part for first, end in self.ranges() for part in other.between(first, end))

    def within(self, first: int, end: int) -> Tombstones:
        """Return the offsets in [first, end)."""
        low, high = self._places(first, end)
        if low == 0 and high == len(self) and (not high or (self._firsts[0] >= first and self._ends[-1] <= end)):
            return self
        made = Tombstones()
        made._firsts = np.maximum(self._firsts[low:high], first)
        made._ends = np.minimum(self._ends[low:high], end)
        return made

    def touch(self, first: int, end: int) -> bool:
        """Tell whether any is in [first, end)."""
        low, high = self._places(first, end)
        return low < high

    def between(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield what of [first, end) was not deleted, as ranges, rising."""
        for low, high in self.within(first, end).ranges():
            if first < low:
                yield first, low
            first = high
        if first < end:
            yield first, end

    def left_of(self, offsets: NDArray[Any]) -> NDArray[Any]:
        """Return those of some offsets that were not deleted, in their order."""
        if not len(offsets) or not self:
            return offsets
        places = np.searchsorted(self._firsts, offsets, "right") - 1
        left: NDArray[Any] = offsets[(places < 0) | (self._ends[places] <= offsets)]
        return left

    def _places(self, first: int, end: int) -> tuple[int, int]:
        """Return which ranges, from one to before another, have something in [first, end)."""
        if first >= end:
            return 0, 0
        return int(np.searchsorted(self._ends, first, "right")), int(np.searchsorted(self._firsts, end, "left"))


NONE: Final = Tombstones()
"""Nothing was deleted."""
