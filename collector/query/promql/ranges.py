"""Functions over range vectors, for one series and all steps at once.

A `Window` knows, for each step, which samples lie in (step - range, step]. Each function returns a value for each step
and whether there is one. `rate` and `increase` follow Prometheus' extrapolation: to the ends of the range when samples
come close to them, half an average interval beyond otherwise, and never below zero for counters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Found = tuple[NDArray[np.float64], NDArray[np.bool_]]


class Window:
    """One series' samples, and the steps' windows in it. Times and range in ms."""

    __slots__ = ("begin", "end", "range_ms", "steps", "times", "values")

    def __init__(
        self, times: NDArray[np.int64], values: NDArray[np.float64], steps: NDArray[np.int64], range_ms: int
    ) -> None:
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
    present = window.count >= 1
    result = np.zeros(len(window.steps))
    begins, ends = window.begin.tolist(), window.end.tolist()
    for step in np.flatnonzero(present).tolist():
        result[step] = function(window.values[begins[step] : ends[step]])
    return result, present


def _reducer(function: Callable[[NDArray[np.float64]], float]) -> Callable[[Window], Found]:
    return lambda window: _each(window, function)


def _least(values: NDArray[np.float64]) -> float:
    return float(np.nanmin(values)) if not np.isnan(values).all() else float("nan")


def _greatest(values: NDArray[np.float64]) -> float:
    return float(np.nanmax(values)) if not np.isnan(values).all() else float("nan")


def _changes(values: NDArray[np.float64]) -> float:
    both_nan = np.isnan(values[1:]) & np.isnan(values[:-1])
    return float(np.count_nonzero((values[1:] != values[:-1]) & ~both_nan))


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
    present = window.count >= 1
    result = np.zeros(len(window.steps))
    for step in np.flatnonzero(present).tolist():
        result[step] = quantile(window.values[window.begin[step] : window.end[step]], float(q[step]))
    return result, present


def _slope(window: Window, step: int, origin: int) -> tuple[float, float]:
    """Return the slope (per second) and the value at `origin` (ms) of the line through a window's samples."""
    begin, end = int(window.begin[step]), int(window.end[step])
    values = window.values[begin:end]
    if (values == values[0]).all():
        return (0.0, float(values[0])) if np.isfinite(values[0]) else (float("nan"), float("nan"))
    seconds = (window.times[begin:end] - origin) / 1000
    count = len(values)
    with np.errstate(all="ignore"):
        covariance = np.sum(seconds * values) - np.sum(seconds) * np.sum(values) / count
        variance = np.sum(seconds * seconds) - np.sum(seconds) ** 2 / count
        slope = covariance / variance
        return float(slope), float(np.sum(values) / count - slope * np.sum(seconds) / count)


def deriv(window: Window) -> Found:
    """Per-second slope of a gauge, by simple linear regression."""
    present = window.count >= 2
    result = np.zeros(len(window.steps))
    for step in np.flatnonzero(present).tolist():
        result[step] = _slope(window, step, int(window.times[window.begin[step]]))[0]
    return result, present


def predict_linear(window: Window, now: NDArray[np.int64], ahead: NDArray[np.float64]) -> Found:
    """What a gauge will be so many seconds after `now`, the steps of the query in ms."""
    present = window.count >= 2
    result = np.zeros(len(window.steps))
    for step in np.flatnonzero(present).tolist():
        slope, value = _slope(window, step, int(now[step]))
        result[step] = slope * ahead[step] + value
    return result, present


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
    "avg_over_time": _reducer(lambda values: float(np.mean(values))),
    "sum_over_time": _reducer(lambda values: float(np.sum(values))),
    "min_over_time": _reducer(_least),
    "max_over_time": _reducer(_greatest),
    "count_over_time": _reducer(lambda values: float(len(values))),
    "first_over_time": _reducer(lambda values: float(values[0])),
    "last_over_time": _reducer(lambda values: float(values[-1])),
    "present_over_time": _reducer(lambda values: 1.0),
    "stddev_over_time": _reducer(lambda values: float(np.std(values))),
    "stdvar_over_time": _reducer(lambda values: float(np.var(values))),
    "mad_over_time": _reducer(_deviation),
    "deriv": deriv,
    "changes": _reducer(_changes),
    "resets": _reducer(lambda values: float(np.count_nonzero(values[1:] < values[:-1]))),
}
"""Functions of one range vector, by name."""
