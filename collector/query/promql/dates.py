"""PromQL's functions of dates: parts of Unix seconds in UTC."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECONDS_MAX: Final = 2.0**43
"""Beyond, some 280,000 years from 1970, there are no dates: NaN."""


def _dates(values: NDArray[np.float64], unit: str) -> NDArray[np.datetime64]:
    known = np.where(_known(values), values, 0.0)
    return np.trunc(known).astype("datetime64[s]").astype(f"datetime64[{unit}]")


def _known(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.abs(values) < SECONDS_MAX)


def _of_day(divisor: int, size: int) -> Callable[[NDArray[np.float64]], NDArray[np.int64]]:
    return lambda values: np.trunc(np.where(_known(values), values, 0.0)).astype(np.int64) // divisor % size


def _since(values: NDArray[np.float64], unit: str, larger: str) -> NDArray[np.int64]:
    """Return how many units have passed since the larger one began."""
    dates = _dates(values, unit)
    return np.asarray((dates - dates.astype(f"datetime64[{larger}]")).astype(np.int64))


def _days_in_month(values: NDArray[np.float64]) -> NDArray[np.int64]:
    months = _dates(values, "M")
    return np.asarray(((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64))


_PARTS: Final[dict[str, Callable[[NDArray[np.float64]], NDArray[np.int64]]]] = {
    "minute": _of_day(60, 60),
    "hour": _of_day(3600, 24),
    "day_of_week": lambda values: (_dates(values, "D").astype(np.int64) + 4) % 7,  # 1970-01-01 was a Thursday
    "day_of_month": lambda values: _since(values, "D", "M") + 1,
    "day_of_year": lambda values: _since(values, "D", "Y") + 1,
    "days_in_month": _days_in_month,
    "month": lambda values: _since(values, "M", "Y") + 1,
    "year": lambda values: _dates(values, "Y").astype(np.int64) + 1970,
}

NAMES: Final = frozenset(_PARTS)


def part(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a part of each date, such as `day_of_week`, from 0 on Sunday."""
    return np.where(_known(values), _PARTS[name](values), np.nan)
