"""Windows over time: the range (t - range, t] before each step of a query, and the cells that their bounds cut time into.

A line falls into one cell, wherever windows overlap, and is added there once; a window is a run of cells. What a window
holds is then made of its cells, and costs nothing more for each line: counts by the difference of two running sums
(`sums`), everything else by `folded`, which joins runs of 1, 2, 4, … neighbours, so that a window of any length is made
of at most two dozen parts. There is no subtraction, so infinities, NaN and numbers of very different size stay exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIME_MAX = 2**63 - 1
"""The last nanosecond that a window can hold: in the year 2262."""

Parts = tuple["NDArray[Any]", ...]
"""What one run of cells, or of samples, says: arrays of one shape, whose last axis is in the order of time."""
Join = Callable[[Parts, Parts], Parts]
"""Makes one run of a run and the next."""


class Windows:
    """The windows of a query's steps."""

    def __init__(self, steps: NDArray[np.int64], range_ns: int, offset_ns: int) -> None:
        """Take the steps (Unix ns), and a range and an offset in ns of any size."""
        self.range_ns = range_ns
        self.ends_ns = np.array([min(max(step - offset_ns, -1), TIME_MAX) for step in steps.tolist()], np.int64)
        """When each window ends, Unix ns."""
        self.begins_ns = np.array(
            [min(max(step - offset_ns - range_ns, -1), TIME_MAX) for step in steps.tolist()], np.int64
        )
        """And after which time it begins."""
        self._edges = np.unique(np.concatenate((self.ends_ns, self.begins_ns)))
        self.ends = np.searchsorted(self._edges, self.ends_ns)
        """The last cell of each window."""
        self.begins = np.searchsorted(self._edges, self.begins_ns)
        """The cell before the first of each window."""
        self.cells = len(self._edges)
        """How many cells there are. Cell i is (edge i - 1, edge i]; the first is outside all windows."""
        self.start_ns = int(self._edges[0]) + 1
        self.end_ns = int(self._edges[-1])
        gaps = np.diff(self._edges)
        self._width = int(gaps[0]) if len(gaps) and gaps[0] > 0 and (gaps == gaps[0]).all() else 0
        changes = np.zeros(self.cells + 1, np.int64)
        np.add.at(changes, self.begins + 1, 1)
        np.add.at(changes, self.ends + 1, -1)
        covered = np.cumsum(changes[:-1]) > 0
        self.covered: NDArray[np.bool_] | None = None if covered[1:].all() else covered
        """Which cells are in a window; None: all but the first are."""

    def places(self, times: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the cells of times within start_ns to end_ns."""
        signed = times.view(np.int64)
        if self._width:
            return ((signed - self.start_ns) // self._width + 1).astype(np.intp, copy=False)
        return np.searchsorted(self._edges, signed, "left")

    def sums(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sum over every window, of each row of whole numbers in cells."""
        running = np.cumsum(cells, axis=1)
        return running[:, self.ends] - running[:, self.begins]

    def folded(self, cells: Parts, join: Join, nothing: tuple[float, ...]) -> Parts:
        """Return what every window holds, of each row of cells. `nothing` is what no cell says."""
        return folded(cells, self.begins + 1, self.ends - self.begins, join, nothing)


def folded(
    parts: Parts, begins: NDArray[np.intp], lengths: NDArray[np.intp], join: Join, nothing: tuple[float, ...]
) -> Parts:
    """Join the parts of the last axis from each of `begins` on, so many as `lengths` says; `nothing` where that is 0.

    Joined from the left to the right, in any grouping. Cost: the size of the parts and the number of results, each times
    the logarithm of the longest.
    """
    shape = (*parts[0].shape[:-1], len(begins))
    found: Parts = tuple(np.full(shape, start, part.dtype) for part, start in zip(parts, nothing, strict=True))
    at = begins.copy()
    longest = int(lengths.max(initial=0))
    run = 1
    while run <= longest:
        chosen = np.flatnonzero(lengths & run)
        if chosen.size:
            joined = join(tuple(each[..., chosen] for each in found), tuple(part[..., at[chosen]] for part in parts))
            for each, value in zip(found, joined, strict=True):
                each[..., chosen] = value
            at[chosen] += run
        if 2 * run > longest:
            break
        parts = join(tuple(part[..., :-run] for part in parts), tuple(part[..., run:] for part in parts))
        run *= 2
    return found


def added(left: Parts, right: Parts) -> Parts:
    """Join sums."""
    return tuple(np.add(one, other) for one, other in zip(left, right, strict=True))


def least(left: Parts, right: Parts) -> Parts:
    """Join minima. A NaN counts only where there is nothing else."""
    return tuple(np.fmin(one, other) for one, other in zip(left, right, strict=True))


def greatest(left: Parts, right: Parts) -> Parts:
    """Join maxima, likewise."""
    return tuple(np.fmax(one, other) for one, other in zip(left, right, strict=True))


def moments(left: Parts, right: Parts) -> Parts:
    """Join (count, mean, sum of squared distances from it), as Chan, Golub and LeVeque do."""
    count, mean, squares = left
    more, other, others = right
    both = count + more
    share = np.divide(more, both, out=np.zeros_like(both), where=both > 0)
    apart = np.where((count > 0) & (more > 0), other - mean, 0.0)
    return (
        both,
        np.where(count > 0, mean + apart * share, other),
        squares + others + apart * apart * count * share,
    )
