"""The best records of a query, the newest or the oldest, as they are found: in the order of (time, place)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.otlp.records import Ref
from collector.query.places import places

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.otlp.block import Block


class Best:
    """The best records so far: the newest or the oldest."""

    def __init__(self, limit: int, *, oldest: bool) -> None:
        self._limit = limit
        self._oldest = oldest
        self._found: list[Ref] = []
        self._worst: tuple[int, int] | None = None  # of those, once there are enough

    def wants(self, min_time: int, max_time: int) -> bool:
        """Tell whether what lies between two times can be better; `Wanted` of slices.py."""
        worst = self._worst
        return worst is None or (min_time <= worst[0] if self._oldest else max_time >= worst[0])

    def wants_one_of(self, block: Block, rows: NDArray[np.intp]) -> bool:
        """Tell whether some rows of a block can be better."""
        if not rows.size:
            return False
        times = block.column("time")[rows]
        return self.wants(int(times.min()), int(times.max()))

    def better(self, refs: list[Ref]) -> list[Ref]:
        """Return the records that are better than the worst of those found, if there are enough."""
        worst = self._worst
        if worst is None:
            return refs
        return [ref for ref in refs if (ref[:2] < worst if self._oldest else ref[:2] > worst)]

    def add(self, refs: list[Ref]) -> None:
        """Take records that were found."""
        if not refs:
            return
        self._found += refs
        if len(self._found) >= self._limit:
            self._found.sort(key=_order, reverse=not self._oldest)
            del self._found[self._limit :]
            self._worst = self._found[-1][:2]

    def add_of(self, refs: list[Ref], select: Callable[[list[Ref]], list[Ref]], at_once: int) -> int:
        """Take those of some records that are selected, asked of the best first; return how many these were."""
        refs.sort(key=_order, reverse=not self._oldest)
        count = 0
        for begin in range(0, len(refs), at_once):
            head = self.better(refs[begin : begin + at_once])
            if not head:
                break
            found = select(head)
            count += len(found)
            self.add(found)
        return count

    def found(self) -> list[Ref]:
        """Return them, the best first."""
        self._found.sort(key=_order, reverse=not self._oldest)
        return self._found[: self._limit]


def split_off(
    block: Block, rows: NDArray[np.intp], limit: int, *, oldest: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows of a block without the `limit` best, and those."""
    order = np.lexsort((rows, block.column("time")[rows]))
    rest, best = (order[limit:], order[:limit]) if oldest else (order[:-limit], order[-limit:])
    return np.sort(rows[rest]), rows[best]


def _order(ref: Ref) -> tuple[int, int]:
    return ref[:2]


def best_of(block: Block, rows: NDArray[np.intp], limit: int, *, oldest: bool) -> list[Ref]:
    """Return refs to the best `limit` rows of one block."""
    if rows.size > limit:
        order = np.lexsort((places(block, rows), block.column("time")[rows]))
        rows = rows[order[:limit] if oldest else order[-limit:]]
    return refs_of(block, rows)


def refs_of(block: Block, rows: NDArray[np.intp]) -> list[Ref]:
    """Return refs to rows of one block."""
    times, offsets = block.column("time")[rows].tolist(), places(block, rows).tolist()
    return [Ref(time, offset, block, row) for time, offset, row in zip(times, offsets, rows.tolist(), strict=True)]
