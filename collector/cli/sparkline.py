"""Series as lines of signs, each as high as its value on a scale that all share; and numbers in short. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

UNICODE: Final = "▁▂▃▄▅▆▇█"
ASCII: Final = ".:-=+*#@"
"""Signs from the lowest to the highest."""
_UNITS: Final = (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))


class Scale(NamedTuple):
    """What the lowest and the highest sign stand for."""

    low: float
    high: float


def scale(values: Iterable[float]) -> Scale:
    """Return the scale of all values that are finite; 0 to 0 when none is."""
    finite = [value for value in values if math.isfinite(value)]
    return Scale(min(finite), max(finite)) if finite else Scale(0.0, 0.0)


def cells(points: Iterable[tuple[int, float]], count: int, each: int) -> list[float]:
    """Return what `count` cells of `each` places show of points, which are (place, value): the highest value of a cell.

    NaN where there is none. Raises IndexError for a place in no cell.
    """
    found = [math.nan] * count
    for place, value in points:
        if place < 0:
            raise IndexError(place)
        before = found[place // each]
        if math.isnan(before) or value > before:
            found[place // each] = value
    return found


def sparkline(values: Sequence[float], within: Scale, signs: str) -> str:
    """Draw values; NaN is a gap, and what is beyond the scale is at its end. On a scale of one value all are in the middle."""
    return "".join(_sign(value, within, signs) for value in values)


def _sign(value: float, within: Scale, signs: str) -> str:
    if math.isnan(value):
        return " "
    if value > within.high:
        return signs[-1]
    if value < within.low:
        return signs[0]
    whole = within.high / 2 - within.low / 2  # halves, because the difference may be beyond a float
    if not whole:
        return signs[len(signs) // 2 - 1]
    share = (value / 2 - within.low / 2) / whole
    return signs[min(len(signs) - 1, int(share * len(signs)))]


def short(value: float) -> str:
    """Write a number to four digits: `1234`, `12.35k`, `0.01235`, `1.235e-07`, `+Inf`, `NaN`."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    rounded = float(f"{value:.4g}")  # what is shown decides the unit: 999,960 is 1M
    size = abs(rounded)
    if size < 1e4:
        return f"{rounded:.4g}"
    for unit, factor in _UNITS:
        if size < factor * 1e3:
            return f"{rounded / factor:.4g}{unit}"
    return f"{value:.4g}"
