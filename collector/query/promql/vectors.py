"""Instant vectors over all steps, operators between them and scalars, and functions of their values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from collector.errors import QueryLimit
from collector.query.promql.translate import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.promql.ast import Binary

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
CELLS_MAX = 5_000_000
"""Series times steps in one intermediate result."""
CELLS_AT_ONCE = 1 << 20
"""Cells that are worked on between two looks at the clock."""


@dataclass(slots=True)
class Vector:
    """Series by rows, steps by columns; `present` tells where there is a value."""

    labels: list[Labels]
    values: NDArray[np.float64]
    present: NDArray[np.bool_]

    def compact(self) -> Vector:
        """Return the vector without series that have no value at any step."""
        rows = np.flatnonzero(self.present.any(axis=1))
        if len(rows) == len(self.labels):
            return self
        return Vector([self.labels[row] for row in rows.tolist()], self.values[rows], self.present[rows])

    def renamed(self) -> Vector:
        """Return the vector without metric names; series that become equal must not meet at a step."""
        return merged(without_name(self.labels), self.values, self.present)

    def sorted_by_value(self, *, descending: bool) -> Vector:
        """Return the series ordered by their values at the last step, NaN last."""
        last = self.values[:, -1]
        keys = np.where(np.isnan(last), np.inf, -last if descending else last)
        order = np.argsort(keys, kind="stable").tolist()
        return Vector([self.labels[row] for row in order], self.values[order], self.present[order])


def check_cells(series: int, steps: int) -> None:
    """Raise QueryLimit when an intermediate result would have more than `CELLS_MAX` cells."""
    if series * steps > CELLS_MAX:
        raise QueryLimit(f"{series} series times {steps} steps are more than {CELLS_MAX}")


def in_pieces(rows: int, steps: int) -> Iterator[slice]:
    """Yield all steps in pieces that have some `CELLS_AT_ONCE` cells in so many rows."""
    size = max(1, CELLS_AT_ONCE // max(1, rows))
    for begin in range(0, steps, size):
        yield slice(begin, min(begin + size, steps))


def without_name(labels: list[Labels]) -> list[Labels]:
    """Return the labels without the metric's name."""
    return [tuple(pair for pair in one if pair[0] != "__name__") for one in labels]


def merged(labels: list[Labels], values: NDArray[np.float64], present: NDArray[np.bool_]) -> Vector:
    """Return one series for each label set; QueryLimit when two have a value at the same step."""
    if len(set(labels)) == len(labels):
        return Vector(labels, values, present)
    rows: dict[Labels, int] = {}
    kept: list[int] = []
    values, present = values.copy(), present.copy()
    for row, one in enumerate(labels):
        if one not in rows:
            rows[one] = row
            kept.append(row)
            continue
        target = rows[one]
        if (present[target] & present[row]).any():
            raise QueryLimit("vector cannot contain metrics with the same labelset")
        values[target] = np.where(present[row], values[row], values[target])
        present[target] |= present[row]
    return Vector([labels[row] for row in kept], values[kept], present[kept])


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def apply(op: str, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[Any]:
    """Apply an operator element by element, with IEEE's infinities and NaNs."""
    with np.errstate(all="ignore"):
        return np.asarray(_OPERATIONS[op](left, right))


def with_scalar(node: Binary, vector: Vector, scalar: NDArray[np.float64], *, scalar_left: bool) -> Vector:
    """Apply an operator to a vector and a scalar; comparisons filter unless they return bool."""
    spread = np.broadcast_to(scalar, vector.values.shape)
    left, right = (spread, vector.values) if scalar_left else (vector.values, spread)
    result = apply(node.op, left, right)
    if node.op in COMPARISONS and not node.returns_bool:
        return Vector(vector.labels, vector.values, vector.present & result).compact()
    return Vector(vector.labels, result.astype(np.float64), vector.present).renamed()


def to_scalar(vector: Vector) -> NDArray[np.float64]:
    """Return the only value at each step, or NaN."""
    single = vector.present.sum(axis=0) == 1
    values = np.where(vector.present, vector.values, 0.0).sum(axis=0)
    return np.where(single, values, np.nan)


def _round(values: NDArray[np.float64], to: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
    inverse = 1.0 / np.asarray(to)
    return np.asarray(np.floor(values * inverse + 0.5) / inverse)


def clamped(vector: Vector, low: NDArray[np.float64], high: NDArray[np.float64]) -> Vector:
    """`clamp`: values within bounds; nothing where the bounds leave no room."""
    with np.errstate(all="ignore"):
        values = np.asarray(np.maximum(low, np.minimum(high, vector.values)))
    return Vector(vector.labels, values, vector.present & ~(high < low)).renamed().compact()


FUNCTIONS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "exp": np.exp,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "sgn": np.sign,
    "deg": np.degrees,
    "rad": np.radians,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "round": _round,
    "clamp_min": np.maximum,
    "clamp_max": np.minimum,
}
"""Functions of values alone, by name; further arguments are scalars."""
