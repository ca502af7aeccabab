"""Where time is cut, so that the server sorts little at a time.

First at the edges of days: each has a partition, or shares the rest's. Then within one, into cells between which lie about
`CELL_PAGES` pages of its table. Where that is, a few rows tell, from pages at even distances: their times, in order, are
how time goes by in the table. What was sampled badly, or was written since, makes a cell larger or smaller than it was
meant to be, and nothing else.

A slice is some cells: one at first, more while slices give few records, as those of a rare service do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from collector.exporters.base import PIECE_RECORDS
from collector.exporters.postgres.partitions import DAY_NS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

CELL_PAGES: Final = 1024
"""Of 8 KiB: some ten thousand records, whose order fits the memory that a server sorts in by default."""
CELLS_MAX: Final = 16_384
"""Of one table."""
SAMPLED_PAGES: Final = 256
GROWTH: Final = 4
STEP_MAX: Final = 1024
"""Cells of a slice."""
MANY: Final = 20_000
"""Records of a slice after which the next one is shorter."""
EDGE_NS: Final = 1000
"""Edges lie between microseconds, so that slices do not overlap: that is what the server compares."""


class Stretch(NamedTuple):
    """Time that lies in one table: both inclusive, in ns."""

    start_ns: int
    end_ns: int
    day: int | None
    """Since the epoch; None where the rest has it."""


def stretches(days: Collection[int], start_ns: int, end_ns: int, *, newest_first: bool) -> list[Stretch]:
    """Return the stretches between two times, which are inclusive, in the order in which they are read."""
    found = []
    at = start_ns
    for day in sorted(days):
        first, last = day * DAY_NS, (day + 1) * DAY_NS - 1
        if last < at:
            continue
        if first > end_ns:
            break
        if first > at:
            found.append(Stretch(at, first - 1, None))
        found.append(Stretch(max(at, first), min(last, end_ns), day))
        at = last + 1
    if at <= end_ns:
        found.append(Stretch(at, end_ns, None))
    return found[::-1] if newest_first else found


def sampled(pages: int) -> list[int]:
    """Return the numbers of pages to look at."""
    return np.linspace(0, pages - 1, min(pages, SAMPLED_PAGES)).astype(int).tolist()  # type: ignore[no-any-return]


def cells(stretch: Stretch, pages: int, times: Sequence[int]) -> list[int]:
    """Return the edges of a stretch's cells in order of time, from its start to behind its end; `times` are those of rows
    from everywhere in its table of so many pages, in ns, in any order."""
    first, end = stretch.start_ns, stretch.end_ns + 1
    count = min(pages // CELL_PAGES, CELLS_MAX)
    if len(times) < 2 or count < 2:
        return [first, end]
    ordered = np.sort(np.array(times, np.uint64)) // np.uint64(EDGE_NS)
    places = np.linspace(0, len(ordered) - 1, count + 1)[1:-1]
    edges = np.interp(places, np.arange(len(ordered)), ordered.astype(np.float64))
    inner = {round(edge) * EDGE_NS for edge in edges.tolist()}
    return [first, *sorted(edge for edge in inner if first < edge < end), end]


class Step:
    """How many cells are read at once."""

    def __init__(self) -> None:
        self._cells = 1
        self._cut = False

    def taken(self, edges: list[int], *, newest_first: bool) -> tuple[list[int], list[int]]:
        """Divide edges into those of the next slice, and those of what is left: none at the end."""
        self._cut = len(edges) > self._cells + 1
        if not self._cut:
            return edges, []
        if newest_first:
            return edges[-self._cells - 1 :], edges[: -self._cells]
        return edges[: self._cells + 1], edges[self._cells :]

    def seen(self, records: int) -> None:
        """Go on with more, or fewer, after a slice of so many records. The last slice of a stretch tells nothing when it gave
        few: that day may have had no more."""
        if records > MANY:
            self._cells = max(self._cells // GROWTH, 1)
        elif records < PIECE_RECORDS and self._cut:
            self._cells = min(self._cells * GROWTH, STEP_MAX)
