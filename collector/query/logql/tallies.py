"""Range aggregations: what lines, and samples that `unwrap` made of them, add up to in the windows of each series.

A tally takes lines in any order, each with its series and its cell (`windows.py`), and holds arrays of series by cells.
What it holds does not grow with the lines, but for `quantile_over_time` and `rate_counter`, which need the samples
themselves: up to SAMPLES_MAX.

| aggregation | what a cell holds |
| --- | --- |
| count_over_time, rate | lines |
| bytes_over_time, bytes_rate | lines, bytes |
| sum_over_time, avg_over_time, rate of samples | samples, their sum |
| min_over_time, max_over_time | the smallest, the largest |
| stddev_over_time, stdvar_over_time | samples, mean, sum of squared distances from it |
| first_over_time, last_over_time | the first, the last, with its time and offset |

Semantics are Loki's: a window without samples makes no number, but a `rate_counter` of one sample is 0; standard
deviations are of the population; NaN counts for a minimum or maximum only where there is nothing else, and is the
smallest value of a quantile; of samples of one time the one with the larger offset is the later.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from collector.errors import QueryLimit
from collector.query.logql.quantiles import quantiles
from collector.query.logql.windows import added, folded, greatest, least, moments

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.query.logql.windows import Join, Windows

SAMPLES_MAX: Final = 2_000_000
"""Samples, of 32 bytes each, that one quantile_over_time or rate_counter is made of."""


class Added(NamedTuple):
    """Some lines, for a tally: arrays of one length."""

    series: NDArray[np.intp]
    cells: NDArray[np.intp]
    times: NDArray[np.uint64]
    """Unix ns."""
    offsets: NDArray[np.int64]
    values: NDArray[np.float64] | None
    """Samples, or the bytes of lines; None where the tally counts only."""


Found = tuple["NDArray[np.float64]", "NDArray[np.bool_]"]
"""By series and step: numbers, and whether there is one."""


class Tally(Protocol):
    """One aggregation under way."""

    def add(self, lines: Added, series: int) -> None:
        """Take lines; there are so many series by now."""
        ...

    def over(self, windows: Windows, series: range) -> Found:
        """Return what every window of each of some series comes to. Nothing is added any more."""
        ...


class Grid:
    """Numbers by series and cell, which grow with the series."""

    def __init__(self, cells: int, start: float, kind: type[Any] = np.float64) -> None:
        self._start = start
        self._rows = np.full((1, cells), start, kind)

    def room(self, series: int) -> NDArray[Any]:
        """Return the cells of at least so many series, one after the other."""
        held, cells = self._rows.shape
        if series > held:
            more = np.full((max(series, 2 * held) - held, cells), self._start, self._rows.dtype)
            self._rows = np.concatenate((self._rows, more))
        return self._rows.reshape(-1)

    def rows(self, series: range) -> NDArray[Any]:
        """Return the cells of some series, a row each."""
        self.room(series.stop)
        return self._rows[series.start : series.stop]


def _keys(lines: Added, cells: int) -> NDArray[np.intp]:
    return lines.series * cells + lines.cells


class Counts:
    """Lines; of absent_over_time too."""

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self._lines = Grid(cells, 0, np.int64)

    def add(self, lines: Added, series: int) -> None:
        """See `Tally.add`."""
        room = self._lines.room(series)
        keys = _keys(lines, self._cells)
        if series * self._cells <= 4 * len(keys):
            room[: series * self._cells] += np.bincount(keys, minlength=series * self._cells)
        else:
            np.add.at(room, keys, 1)

    def over(self, windows: Windows, series: range) -> Found:
        """See `Tally.over`."""
        counts = windows.sums(self._lines.rows(series))
        return counts.astype(np.float64), counts > 0


class Bytes:
    """Lines and their bytes."""

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self._lines = Counts(cells)
        self._bytes = Grid(cells, 0, np.int64)

    def add(self, lines: Added, series: int) -> None:
        """See `Tally.add`."""
        assert lines.values is not None
        self._lines.add(lines, series)
        np.add.at(self._bytes.room(series), _keys(lines, self._cells), lines.values.astype(np.int64))

    def over(self, windows: Windows, series: range) -> Found:
        """See `Tally.over`."""
        _, present = self._lines.over(windows, series)
        return windows.sums(self._bytes.rows(series)).astype(np.float64), present


class Sums:
    """Samples and their sum, or their mean."""

    def __init__(self, cells: int, *, mean: bool) -> None:
        self._cells = cells
        self._mean = mean
        self._lines = Counts(cells)
        self._sums = Grid(cells, 0.0)

    def add(self, lines: Added, series: int) -> None:
        """See `Tally.add`."""
        assert lines.values is not None
        self._lines.add(lines, series)
        np.add.at(self._sums.room(series), _keys(lines, self._cells), lines.values)

    def over(self, windows: Windows, series: range) -> Found:
        """See `Tally.over`."""
        counts, present = self._lines.over(windows, series)
        with np.errstate(all="ignore"):
            [sums] = windows.folded((self._sums.rows(series),), added, (0.0,))
            return (sums / np.maximum(counts, 1) if self._mean else sums), present


class Extremes:
    """The smallest or the largest sample."""

    def __init__(self, cells: int, *, largest: bool) -> None:
        self._cells = cells
        self._lines = Counts(cells)
        self._found = Grid(cells, np.nan)
        self._join: Join = greatest if largest else least
        self._take: Any = np.fmax if largest else np.fmin

    def add(self, lines: Added, series: int) -> None:
        """See `Tally.add`."""
        assert lines.values is not None
        self._lines.add(lines, series)
        self._take.at(self._found.room(series), _keys(lines, self._cells), lines.values)

    def over(self, windows: Windows, series: range) -> Found:
        """See `Tally.over`."""
        _, present = self._lines.over(windows, series)
        [found] = windows.folded((self._found.rows(series),), self._join, (np.nan,))
        return found, present


class Moments:
    """Standard deviations and variances, of the population."""

    def __init__(self, cells: int, *, root: bool) -> None:
        self._cells = cells
        self._root = root
        self._parts = tuple(Grid(cells, 0.0) for _ in range(3))

    def add(self, lines: Added, series: int) -> None:
        """See `Tally.add`."""
        assert lines.values is not None
        used, places = np.unique(_keys(lines, self._cells), return_inverse=True)
        rooms = [part.room(series) for part in self._parts]
        with np.errstate(all="ignore"):
            counts = np.bincount(places).astype(np.float64)
            means = np.bincount(places, lines.values) / counts
            squares = np.bincount(places, (lines.values - means[places]) ** 2)
            joined = moments(tuple(room[used] for room in rooms), (counts, means, squares))
        for room, value in zip(rooms, joined, strict=True):
            room[used] = value

    def over(self, windows: Windows, series: range) -> Found:
        """See `Tally.over`."""
        with np.errstate(all="ignore"):
            counts, _, squares = windows.folded(
                tuple(part.rows(series) for part in self._parts), moments, (0.0, 0.0, 0.0)
            )
            variances = squares / np.maximum(counts, 1)
            return (np.sqrt(variances) if self._root else variances), counts > 0


class Ends:
    """The first or the last sample."""

    def __init__(self, cells: int, *, last: bool) -> None:
        self._cells = cells
        self._last = last
        self._there = Grid(cells, 0, np.bool_)
        self._times = Grid(cells, 0, np.uint64)
        self._offsets = Grid(cells, 0, np.int64)
        self._values = Grid(cells, 0.0)

    def add(self, lines: Added, series: int) -> None:
        """See `Tally.add`."""
        assert lines.values is not None
        keys = _keys(lines, self._cells)
        order = np.lexsort((lines.offsets, lines.times, keys))
        if not self._last:
            order = order[::-1]
        ordered = keys[order]
        chosen = order[np.append(ordered[1:] != ordered[:-1], True)]  # the last of each run of one key
        there, times, offsets, values = (
            grid.room(series) for grid in (self._there, self._times, self._offsets, self._values)
        )
        keys = keys[chosen]
        held, more = (times[keys], offsets[keys]), (lines.times[chosen], lines.offsets[chosen])
        earlier, later = (held, more) if self._last else (more, held)
        better = (later[0] > earlier[0]) | ((later[0] == earlier[0]) & (later[1] > earlier[1])) | ~there[keys]
        keys, chosen = keys[better], chosen[better]
        there[keys] = True
        times[keys], offsets[keys], values[keys] = lines.times[chosen], lines.offsets[chosen], lines.values[chosen]

    def over(self, windows: Windows, series: range) -> Found:
        """See `Tally.over`. Of the cells of a window, the last, or first, that has a sample."""
        there, values = self._there.rows(series), self._values.rows(series)
        places = np.arange(self._cells)
        if self._last:
            nearest = np.maximum.accumulate(np.where(there, places, -1), axis=1)[:, windows.ends]
            present = nearest > windows.begins
        else:
            ahead = np.where(there, places, self._cells)[:, ::-1]
            nearest = np.minimum.accumulate(ahead, axis=1)[:, ::-1][:, np.minimum(windows.begins + 1, self._cells - 1)]
            present = (nearest <= windows.ends) & (windows.begins < windows.ends)
        return np.take_along_axis(values, np.where(present, nearest, 0), axis=1), present


class Samples:
    """All samples, in the end by series, time and offset."""

    def __init__(self) -> None:
        self._kept: list[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        self._count = 0
        self._ordered: tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float64]] | None = None

    def add(self, lines: Added, series: int) -> None:
        """See `Tally.add`. Raises QueryLimit over SAMPLES_MAX."""
        self._count += len(lines.series)
        if self._count > SAMPLES_MAX:
            raise QueryLimit(
                f"the query needs more than {SAMPLES_MAX} samples at once; take a shorter time range, select fewer "
                "lines, or use an aggregation that does not need them all"
            )
        assert lines.values is not None
        self._kept.append((lines.series.astype(np.int32), lines.times.view(np.int64), lines.offsets, lines.values))

    def stretches(
        self, windows: Windows, series: range
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
        """Return the times and values of some series, and where the samples of each window begin and end in them."""
        if self._ordered is None:
            self._kept.append((np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)))
            codes, times, offsets, values = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
            self._kept.clear()
            order = np.lexsort((offsets, times, codes))
            self._ordered = codes[order], times[order], values[order]
        codes, times, values = self._ordered
        bounds = np.searchsorted(codes, np.arange(series.start, series.stop + 1))
        times, values = times[bounds[0] : bounds[-1]], values[bounds[0] : bounds[-1]]
        shape = (len(series), len(windows.ends_ns))
        begins, ends = np.zeros(shape, np.intp), np.zeros(shape, np.intp)
        for row, (low, high) in enumerate(pairwise((bounds - bounds[0]).tolist())):
            begins[row] = low + np.searchsorted(times[low:high], windows.begins_ns, "right")
            ends[row] = low + np.searchsorted(times[low:high], windows.ends_ns, "right")
        return times, values, begins, np.maximum(ends, begins)


class Quantiles(Samples):
    """quantile_over_time."""

    def __init__(self, q: float) -> None:
        super().__init__()
        self._q = q

    def over(self, windows: Windows, series: range) -> Found:
        """See `Tally.over`."""
        _, values, begins, ends = self.stretches(windows, series)
        found = quantiles(self._q, values, begins.reshape(-1), ends.reshape(-1))
        return found.reshape(begins.shape), ends > begins


class Counters(Samples):
    """rate_counter: the increase per second of a counter that may start anew, extrapolated to the window's ends.

    As Prometheus' `rate`: to the ends where samples come close to them, half an average interval beyond otherwise, and
    never below zero.
    """

    def over(self, windows: Windows, series: range) -> Found:
        """See `Tally.over`."""
        times, values, begins, ends = self.stretches(windows, series)
        counts = ends - begins
        several = counts > 1
        found = np.zeros(counts.shape)
        first, last, count = begins[several], ends[several] - 1, counts[several]
        drops = np.zeros(len(values))
        drops[1:] = np.where(values[1:] < values[:-1], values[:-1], 0.0)
        with np.errstate(all="ignore"):
            [resets] = folded((drops,), first + 1, count - 1, added, (0.0,))
            increase = values[last] - values[first] + resets
            step = np.broadcast_to(windows.ends_ns, counts.shape)[several]
            seconds = windows.range_ns / 1e9
            to_start, to_end = seconds - (step - times[first]) / 1e9, (step - times[last]) / 1e9
            sampled = (times[last] - times[first]) / 1e9
            average = sampled / (count - 1)
            to_start = np.where(to_start >= average * 1.1, average / 2, to_start)
            to_zero = np.where((increase > 0) & (values[first] >= 0), sampled * (values[first] / increase), to_start)
            to_start = np.where(to_zero < to_start, to_zero, to_start)
            to_end = np.where(to_end >= average * 1.1, average / 2, to_end)
            found[several] = increase * ((sampled + to_start + to_end) / sampled) / seconds
        return found, counts > 0


OVER_SAMPLES: Final[dict[str, Callable[[int], Tally]]] = {
    "sum_over_time": lambda cells: Sums(cells, mean=False),
    "rate": lambda cells: Sums(cells, mean=False),
    "avg_over_time": lambda cells: Sums(cells, mean=True),
    "min_over_time": lambda cells: Extremes(cells, largest=False),
    "max_over_time": lambda cells: Extremes(cells, largest=True),
    "stddev_over_time": lambda cells: Moments(cells, root=True),
    "stdvar_over_time": lambda cells: Moments(cells, root=False),
    "first_over_time": lambda cells: Ends(cells, last=False),
    "last_over_time": lambda cells: Ends(cells, last=True),
    "rate_counter": lambda cells: Counters(),
}
"""The tallies of samples for so many cells, by the aggregation's name."""


def tally(op: str, parameter: float | None, cells: int, *, unwraps: bool) -> Tally:
    """Return the tally of a range aggregation; of `rate` and `bytes_rate` what is to be divided by the seconds."""
    if op == "quantile_over_time":
        assert parameter is not None
        return Quantiles(parameter)
    if op in ("bytes_over_time", "bytes_rate"):
        return Bytes(cells)
    return OVER_SAMPLES[op](cells) if unwraps and op != "absent_over_time" else Counts(cells)
