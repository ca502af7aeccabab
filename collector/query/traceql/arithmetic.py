"""Arithmetic over columns, entry by entry, as Tempo's.

Integers stay integers of 64 bits: they wrap around, and division truncates towards zero. Anything with a float or a
duration is computed in floats. Where a side is no number, or a divisor is zero, there is no result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.query import match
from collector.query.traceql import values
from collector.query.traceql.ast import Type

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.query.traceql.values import Column


def _quotient(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide integers, towards zero; numpy's division goes down."""
    down = left // right
    return np.asarray(down + ((left % right != 0) & ((left < 0) != (right < 0))), np.int64)


_INTEGERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": _quotient,
    "%": np.fmod,
    "^": np.power,
}
_FLOATS: Final[dict[str, Callable[[Any, Any], Any]]] = {**_INTEGERS, "/": np.divide}


def combined(op: str, left: Column, right: Column, types: tuple[Type, Type]) -> Column:
    """Compute `left op right` for two columns of equal length; `types` are the operands' static types."""
    there = left.is_number() & right.is_number()
    if op in ("/", "%"):
        there &= right.double != 0
    whole = (left.type == match.INT) & (right.type == match.INT) & there
    if Type.DURATION in types:
        whole[:] = False
    elif op == "^":
        whole &= right.integer >= 0  # 2 ^ -1 is a half
    with np.errstate(all="ignore"):
        doubles = _FLOATS[op](left.double, right.double)
        integers = np.zeros(len(there), np.int64)
        integers[whole] = _INTEGERS[op](left.integer[whole], right.integer[whole])
    kinds = np.where(whole, match.INT, np.where(there, match.DOUBLE, match.ABSENT)).astype(np.uint8)
    doubles = np.where(whole, integers.astype(np.float64), np.where(there, doubles, 0.0))
    return values.of_doubles(doubles, there)._replace(type=kinds, integer=integers, owner=left.owner)
