"""Functions over range vectors, for one series and all steps at once.

A `Window` knows, for each step, which samples lie in (step - range, step]. Each function returns a value for each step
and whether there is one. `rate` and `increase` follow Prometheus' extrapolation: to the ends of the range when samples
come close to them, half an average interval beyond otherwise, and never below zero for counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Found = tuple[NDArray[np.float64], NDArray[np.bool_]]


SAMPLES_AT_ONCE: Final = 1 << 20
"""Samples that are looked at between two looks at the clock: windows overlap, so there are many more than the series has."""
STEP_SAMPLES: Final = 64
"""Samples that cost as much as coming to a window does."""


class Window:
    """One series' samples, and the steps' windows in it. Times and range in ms."""

    __slots__ = ("begin", "check", "end", "range_ms", "steps", "times", "values")

    def __init__(
        self,
        times: NDArray[np.int64],
        values: NDArray[np.float64],
        steps: NDArray[np.int64],
        range_ms: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`check` is called between pieces of work, and may raise."""
        self.check = check
        self.times = times
        self.values = values
        self.steps = steps
        self.range_ms = range_ms
        self.begin = np.searchsorted(times, steps - range_ms, "right")
        self.end = np.searchsorted(times, steps, "right")

    @property
    def count(self) -> NDArray[np.int64]:
        """The number of samples in each window."""
        return np.asarray(self.end - self.begin, np.int64)

    def pieces(self, least: int) -> Iterator[NDArray[np.intp]]:
        """Yield the steps with so many samples at least, in pieces of about `SAMPLES_AT_ONCE` samples together."""
        steps = np.flatnonzero(self.count >= least)
        turns = np.cumsum(self.count[steps] + STEP_SAMPLES) // SAMPLES_AT_ONCE
        for piece in np.split(steps, np.flatnonzero(np.diff(turns)) + 1):
            self.check()
            if len(piece):
                yield piece


def _extrapolated(window: Window, *, counter: bool, per_second: bool) -> Found:
    times, values, steps = window.times, window.values, window.steps
    count = window.count
    present = count >= 2
    result = np.zeros(len(steps))
    if not present.any():
        return result, present
    first, last = window.begin[present], window.end[present] - 1
    change = values[last] - values[first]
    if counter:
        drops = np.where(values[1:] < values[:-1], values[:-1], 0.0)
        added = np.concatenate(([0.0], np.cumsum(drops)))
        change = change + added[last] - added[first]
    with np.errstate(all="ignore"):
        sampled = (times[last] - times[first]) / 1000
        to_start = (times[first] - (steps[present] - window.range_ms)) / 1000
        to_end = (steps[present] - times[last]) / 1000
        average = sampled / (count[present] - 1)
        to_start = np.where(to_start >= average * 1.1, average / 2, to_start)
        if counter:
            to_zero = sampled * (values[first] / change)
            below = (change > 0) & (values[first] >= 0) & (to_zero < to_start)
            to_start = np.where(below, to_zero, to_start)
        to_end = np.where(to_end >= average * 1.1, average / 2, to_end)
        change = change * (sampled + to_start + to_end) / sampled
    result[present] = change / (window.range_ms / 1000) if per_second else change
    return result, present


def rate(window: Window) -> Found:
    """Per-second increase of a counter."""
    return _extrapolated(window, counter=True, per_second=True)


def increase(window: Window) -> Found:
    """Increase of a counter."""
    return _extrapolated(window, counter=True, per_second=False)


def delta(window: Window) -> Found:
    """Difference of a gauge."""
    return _extrapolated(window, counter=False, per_second=False)


def _instant(window: Window, *, counter: bool) -> Found:
    present = window.count >= 2
    result = np.zeros(len(window.steps))
    last = window.end[present] - 1
    change = window.values[last] - window.values[last - 1]
    if counter:
        change = np.where(change < 0, window.values[last], change)
        change = change / ((window.times[last] - window.times[last - 1]) / 1000)
    result[present] = change
    return result, present


def irate(window: Window) -> Found:
    """Per-second increase between the last two samples."""
    return _instant(window, counter=True)


def idelta(window: Window) -> Found:
    """Difference of the last two samples."""
    return _instant(window, counter=False)


def _each(window: Window, function: Callable[[NDArray[np.float64]], float]) -> Found:
    result = np.zeros(len(window.steps))
    begins, ends = window.begin.tolist(), window.end.tolist()
    for piece in window.pieces(1):
        for step in piece.tolist():
            result[step] = function(window.values[begins[step] : ends[step]])
    return result, window.count >= 1


def _reducer(function: Callable[[NDArray[np.float64]], float]) -> Callable[[Window], Found]:
    return lambda window: _each(window, function)


def _folded(window: Window, fold: Any) -> Found:
    """Fold each window's values by a ufunc."""
    result = np.zeros(len(window.steps))
    closed = np.append(window.values, 0.0)  # so that a window may end with the last sample
    for piece in window.pieces(1):
        bounds = np.stack((window.begin[piece], window.end[piece]), axis=1).ravel()
        with np.errstate(all="ignore"):
            result[piece] = fold.reduceat(closed, bounds)[::2]
    return result, window.count >= 1


def _sum(window: Window) -> Found:
    return _folded(window, np.add)


def _mean(window: Window) -> Found:
    total, present = _sum(window)
    return total / np.maximum(window.count, 1), present


def _at(place: int) -> Callable[[Window], Found]:
    """Return the first sample of each window (0), or the last one (-1)."""

    def sample(window: Window) -> Found:
        present = window.count >= 1
        result = np.zeros(len(window.steps))
        result[present] = window.values[window.begin[present] if place == 0 else window.end[present] - 1]
        return result, present

    return sample


def _counted(window: Window, between: NDArray[np.bool_]) -> Found:
    """Count, of each window, the samples that differ from the one before in it as `between` tells of neighbours."""
    present = window.count >= 1
    until = np.concatenate(([0, 0], np.cumsum(between)))  # of the samples before a place, those that are counted
    result = np.zeros(len(window.steps))
    result[present] = until[window.end[present]] - until[window.begin[present] + 1]
    return result, present


def _changes(window: Window) -> Found:
    before, after = window.values[:-1], window.values[1:]
    return _counted(window, (after != before) & ~(np.isnan(after) & np.isnan(before)))


def _resets(window: Window) -> Found:
    return _counted(window, window.values[1:] < window.values[:-1])


def quantile(values: NDArray[np.float64], q: float) -> float:
    """Return the q-quantile by linear interpolation; beyond 0 and 1, minus and plus infinity."""
    if len(values) == 0 or np.isnan(q):
        return float("nan")
    if q < 0:
        return float("-inf")
    if q > 1:
        return float("inf")
    ordered = np.sort(values)
    ordered = np.concatenate((ordered[np.isnan(ordered)], ordered[~np.isnan(ordered)]))
    rank = q * (len(ordered) - 1)
    low = int(np.floor(rank))
    high = min(low + 1, len(ordered) - 1)
    weight = rank - low
    return float(ordered[low] * (1 - weight) + ordered[high] * weight)


def quantile_over_time(window: Window, q: NDArray[np.float64]) -> Found:
    """The q-quantile of each window, with a q for each step."""
    result = np.zeros(len(window.steps))
    for piece in window.pieces(1):
        for step in piece.tolist():
            result[step] = quantile(window.values[window.begin[step] : window.end[step]], float(q[step]))
    return result, window.count >= 1


def _slope(window: Window, step: int, origin: int) -> tuple[float, float]:
    """Return the slope (per second) and the value at `origin` (ms) of the line through a window's samples."""
    begin, end = int(window.begin[step]), int(window.end[step])
    values = window.values[begin:end]
    if (values == values[0]).all():
        return (0.0, float(values[0])) if np.isfinite(values[0]) else (float("nan"), float("nan"))
    seconds = (window.times[begin:end] - origin) / 1000
    with np.errstate(all="ignore"):
        middle, mean = np.mean(seconds), np.mean(values)
        aside = seconds - middle  # so that nothing is lost when the origin is far away
        slope = np.sum(aside * (values - mean)) / np.sum(aside * aside)
        return float(slope), float(mean - slope * middle)


def deriv(window: Window) -> Found:
    """Per-second slope of a gauge, by simple linear regression."""
    result = np.zeros(len(window.steps))
    for piece in window.pieces(2):
        for step in piece.tolist():
            result[step] = _slope(window, step, int(window.times[window.begin[step]]))[0]
    return result, window.count >= 2


def predict_linear(window: Window, now: NDArray[np.int64], ahead: NDArray[np.float64]) -> Found:
    """What a gauge will be so many seconds after `now`, the steps of the query in ms."""
    result = np.zeros(len(window.steps))
    for piece in window.pieces(2):
        for step in piece.tolist():
            slope, value = _slope(window, step, int(now[step]))
            result[step] = slope * ahead[step] + value
    return result, window.count >= 2


def smoothed(window: Window, level: NDArray[np.float64], trend: NDArray[np.float64]) -> Found:
    """`double_exponential_smoothing`: Holt's method over each window, all of them side by side.

    `level` and `trend` are the smoothing factors of each step, between 0 and 1.
    """
    present = window.count >= 2
    result = np.zeros(len(window.steps))
    steps = np.flatnonzero(present)
    if not len(steps):
        return result, present
    begin, count = window.begin[steps], window.count[steps]
    level, trend = level[steps], trend[steps]
    before = last = window.values[begin]
    slope = window.values[begin + 1] - last
    with np.errstate(all="ignore"):
        for number in range(1, int(count.max())):
            window.check()
            going = number < count
            value = window.values[np.where(going, begin + number, begin)]
            if number > 1:
                slope = np.where(going, trend * (last - before) + (1 - trend) * slope, slope)
            new = level * value + (1 - level) * (last + slope)
            before, last = np.where(going, last, before), np.where(going, new, last)
    result[steps] = last
    return result, present


def _deviation(values: NDArray[np.float64]) -> float:
    return quantile(np.abs(values - quantile(values, 0.5)), 0.5)


FUNCTIONS: dict[str, Callable[[Window], Found]] = {
    "rate": rate,
    "increase": increase,
    "delta": delta,
    "irate": irate,
    "idelta": idelta,
    "avg_over_time": _mean,
    "sum_over_time": _sum,
    "min_over_time": lambda window: _folded(window, np.fmin),
    "max_over_time": lambda window: _folded(window, np.fmax),
    "count_over_time": lambda window: (window.count.astype(np.float64), window.count >= 1),
    "first_over_time": _at(0),
    "last_over_time": _at(-1),
    "present_over_time": lambda window: (np.ones(len(window.steps)), window.count >= 1),
    "stddev_over_time": _reducer(lambda values: float(np.std(values))),
    "stdvar_over_time": _reducer(lambda values: float(np.var(values))),
    "mad_over_time": _reducer(_deviation),
    "deriv": deriv,
    "changes": _changes,
    "resets": _resets,
}
"""Functions of one range vector, by name."""
