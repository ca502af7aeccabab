"""Quantiles and fractions of classic histograms: series that differ in `le`, by linear interpolation within buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.query.promql.vectors import Vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.query.promql.translate import Labels

    Buckets = list[tuple[float, float]]


def histogram_quantile(q: NDArray[np.float64], vector: Vector) -> Vector:
    """Return the q-quantile of each histogram, as Prometheus does."""
    return _of_each(vector, lambda step, buckets: _quantile(float(q[step]), buckets))


def histogram_fraction(lower: NDArray[np.float64], upper: NDArray[np.float64], vector: Vector) -> Vector:
    """Return which share of each histogram's observations lies between two values."""
    return _of_each(vector, lambda step, buckets: _fraction(float(lower[step]), float(upper[step]), buckets))


def _of_each(vector: Vector, function: Callable[[int, Buckets], float]) -> Vector:
    groups: dict[Labels, list[tuple[float, int]]] = {}
    for row, labels in enumerate(vector.labels):
        text = dict(labels).get("le", "")
        try:
            bound = float(text)
        except ValueError:
            continue
        key = tuple(pair for pair in labels if pair[0] not in ("__name__", "le"))
        groups.setdefault(key, []).append((bound, row))
    steps = vector.values.shape[1]
    values = np.zeros((len(groups), steps))
    present = np.zeros((len(groups), steps), np.bool_)
    for number, buckets in enumerate(groups.values()):
        buckets.sort()
        for step in range(steps):
            inside = [(bound, float(vector.values[row, step])) for bound, row in buckets if vector.present[row, step]]
            present[number, step] = bool(inside)
            if inside:
                values[number, step] = function(step, inside)
    return Vector(list(groups), values, present).compact()


def _fraction(lower: float, upper: float, buckets: Buckets) -> float:
    if np.isnan(lower) or np.isnan(upper) or not np.isinf(buckets[-1][0]):
        return float("nan")
    counts: NDArray[np.float64] = np.maximum.accumulate([count for _, count in buckets])
    if not counts[-1] > 0:
        return float("nan")
    if lower >= upper:
        return 0.0
    return (_below(upper, buckets, counts) - _below(lower, buckets, counts)) / float(counts[-1])


def _below(value: float, buckets: Buckets, counts: NDArray[np.float64]) -> float:
    """Return how many observations lie below a value, about; of the last bucket nobody knows where."""
    bounds = [bound for bound, _ in buckets]
    at = int(np.searchsorted(bounds, value, "left"))
    if np.isinf(value) and value > 0:
        return float(counts[-1])
    least = min(0.0, bounds[0])
    low, below = (bounds[at - 1], float(counts[at - 1])) if at else (least, 0.0)
    if value <= low:
        return below
    if np.isinf(bounds[at]):
        return below
    return below + (float(counts[at]) - below) * (value - low) / (bounds[at] - low)


def _quantile(q: float, buckets: Buckets) -> float:
    if np.isnan(q) or len(buckets) < 2 or not np.isinf(buckets[-1][0]):
        return float("nan")
    if q < 0 or q > 1:
        return float("-inf") if q < 0 else float("inf")
    counts = np.maximum.accumulate([count for _, count in buckets])
    if counts[-1] == 0 or np.isnan(counts[-1]):
        return float("nan")
    rank = q * counts[-1]
    at = int(np.searchsorted(counts[:-1], rank, "left"))
    if at == len(buckets) - 1:
        return buckets[-2][0]
    if at == 0 and buckets[0][0] <= 0:
        return buckets[0][0]
    lower = 0.0 if at == 0 else buckets[at - 1][0]
    below = 0.0 if at == 0 else float(counts[at - 1])
    inside = float(counts[at]) - below
    if inside == 0:
        return lower
    return lower + (buckets[at][0] - lower) * float(rank - below) / inside
