"""Quantiles and fractions of classic histograms: series that differ in `le`, by linear interpolation within buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.query.promql.vectors import Vector, in_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.query.promql.translate import Labels

    Function = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]], NDArray[np.float64]]
    # Of the bounds of some buckets, of their counts by bucket and step, rising, and of the steps.


def histogram_quantile(q: NDArray[np.float64], vector: Vector, check: Callable[[], None]) -> Vector:
    """Return the q-quantile of each histogram, as Prometheus does. `check` is called between pieces of work."""
    return _of_each(vector, lambda bounds, counts, steps: _quantile(q[steps], bounds, counts), check)


def histogram_fraction(
    lower: NDArray[np.float64], upper: NDArray[np.float64], vector: Vector, check: Callable[[], None]
) -> Vector:
    """Return which share of each histogram's observations lies between two values."""

    def fraction(
        bounds: NDArray[np.float64], counts: NDArray[np.float64], steps: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        low, high = lower[steps], upper[steps]
        share = (_below(high, bounds, counts) - _below(low, bounds, counts)) / counts[-1]
        unknown = np.isnan(low) | np.isnan(high) | ~(counts[-1] > 0)
        return np.where(unknown, np.nan, np.where(low >= high, 0.0, share))

    return _of_each(vector, fraction, check)


def _of_each(vector: Vector, function: Function, check: Callable[[], None]) -> Vector:
    """Apply a function to each histogram, at all steps together that have the same buckets. Without +Inf it is NaN."""
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
    values = np.full((len(groups), steps), np.nan)
    present = np.zeros((len(groups), steps), np.bool_)
    for number, buckets in enumerate(groups.values()):
        buckets.sort()
        bounds, rows = np.array([bound for bound, _ in buckets]), np.array([row for _, row in buckets])
        for piece in in_pieces(len(rows), steps):
            check()
            there = vector.present[rows, piece]
            present[number, piece] = there.any(axis=0)
            patterns, which = np.unique(there, axis=1, return_inverse=True)
            for code, pattern in enumerate(patterns.T):
                if pattern.any() and np.isinf(bounds[pattern][-1]):
                    at = np.flatnonzero(which.ravel() == code) + piece.start
                    with np.errstate(all="ignore"):
                        counts = np.maximum.accumulate(vector.values[np.ix_(rows[pattern], at)], axis=0)
                        values[number, at] = function(bounds[pattern], counts, at)
    return Vector(list(groups), values, present).compact()


def _quantile(q: NDArray[np.float64], bounds: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    last = len(bounds) - 1
    total = counts[-1]
    if not last:
        return np.full(len(q), np.nan)
    rank = q * total
    at = np.sum(counts[:-1] < rank, axis=0)
    upper, count = bounds[at], np.take_along_axis(counts, at[np.newaxis], axis=0)[0]
    lower = np.where(at == 0, 0.0, bounds[np.maximum(at - 1, 0)])
    below = np.where(at == 0, 0.0, np.take_along_axis(counts, np.maximum(at - 1, 0)[np.newaxis], axis=0)[0])
    inside = count - below
    found = np.where(inside == 0, lower, lower + (upper - lower) * (rank - below) / inside)
    return np.select(
        [np.isnan(q), q < 0, q > 1, (total == 0) | np.isnan(total), at == last, (at == 0) & (bounds[0] <= 0)],
        [np.nan, -np.inf, np.inf, np.nan, bounds[last - 1], bounds[0]],
        found,
    )


def _below(
    values: NDArray[np.float64], bounds: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how many observations lie below values, about; of those in the last bucket nobody knows where."""
    at = np.minimum(np.searchsorted(bounds, values, "left"), len(bounds) - 1)
    before = np.maximum(at - 1, 0)
    low = np.where(at == 0, min(0.0, float(bounds[0])), bounds[before])
    below = np.where(at == 0, 0.0, np.take_along_axis(counts, before[np.newaxis], axis=0)[0])
    upper, count = bounds[at], np.take_along_axis(counts, at[np.newaxis], axis=0)[0]
    inside = below + (count - below) * (values - low) / (upper - low)
    return np.select([values == np.inf, (values <= low) | np.isinf(upper)], [counts[-1], below], inside)
