"""Whether a series leaks: a line through its second half, with what can be said of its slope.

Samples that follow each other are alike, so they are put together into `PARTS` means first, and these are fitted: what
is left of their scatter says how far the slope may be off. A series leaks when its slope is above nothing for certain
(95 %), and what it adds over the stretch that was looked at is more than the series may change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PARTS = 12
"""Means that a line is put through; less when there are not two samples for each."""
PARTS_MIN = 4
"""With fewer nothing can be said."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A line through a series: units an hour, where 95 % of such lines lie, and what it adds over its stretch."""

    an_hour: float
    low: float
    high: float
    level: float
    """The mean of the series."""
    added: float
    """Units from the begin of the line to its end."""

    @property
    def share(self) -> float:
        """What the line adds, as a share of the level."""
        return self.added / self.level if self.level else 0.0

    def leaks(self, growth_max: float) -> bool:
        """Whether the series rises for certain, and by more than so many units over the stretch."""
        return self.low > 0 and self.added > growth_max


def second_half(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """Return the line through the second half of a series. ValueError when it is too short."""
    half = len(values) // 2
    return fit(seconds[half:], values[half:])


def fit(seconds: Sequence[float], values: Sequence[float]) -> Slope:
    """Return the line through a series. ValueError when it is too short."""
    parts = min(PARTS, len(values) // 2)
    if parts < PARTS_MIN:
        raise ValueError(f"{len(values)} samples are too few for a line; it takes {2 * PARTS_MIN}")
    hours = np.array([part.mean() for part in np.array_split(np.asarray(seconds, float) / 3600, parts)])
    means = np.array([part.mean() for part in np.array_split(np.asarray(values, float), parts)])
    from_middle = hours - hours.mean()
    spread = float((from_middle**2).sum())
    slope = float((from_middle * means).sum()) / spread
    rest = means - means.mean() - slope * from_middle
    error = math.sqrt(float((rest**2).sum()) / (parts - 2) / spread)
    off = student(parts - 2) * error
    stretch = (seconds[-1] - seconds[0]) / 3600
    return Slope(slope, slope - off, slope + off, float(means.mean()), slope * stretch)


def student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's distribution (Abramowitz and Stegun 26.7.5; to 1 % from 2 degrees on)."""
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(freedom) ** (power + 1) for power, term in enumerate(terms))
