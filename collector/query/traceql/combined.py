"""Arithmetic over series: two queries, or a query and a number, combined sample by sample, as Tempo 3.1 does.

Series of both sides that have the same labels belong together; one without labels belongs to each of the other side. A
series that has no counterpart is left out. The labels of both are the result's; the names of series without labels make a
name, `(rate / rate)`. What is divided by 0, or has no sample on one side, has none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.query.traceql.series import Series

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.query.traceql.series import Label, Labels

    Key = frozenset[tuple[str, type, Label]]
    Operand = list[Series] | float
    Samples = NDArray[np.float64] | np.float64

NAME = "__name__"
_ALL: Final[Key] = frozenset()


def combined(op: str, left: Operand, right: Operand) -> list[Series]:
    """Return what an operator makes of series and series, or of series and a number."""
    if not isinstance(right, list):
        assert isinstance(left, list)
        return [_with_number(one, lambda value: _samples(op, value, np.float64(right))) for one in left]
    if not isinstance(left, list):
        return [_with_number(one, lambda value: _samples(op, np.float64(left), value)) for one in right]
    lefts, rights = ({_key(one): one for one in side} for side in (left, right))
    found = []
    for key in lefts if _ALL in rights else rights:
        one, other = lefts.get(key, lefts.get(_ALL)), rights.get(key, rights.get(_ALL))
        if one is None or other is None:
            continue
        exemplars = [*(one.exemplars if key in lefts else ()), *(other.exemplars if key in rights else ())]
        labels = _labels(op, one.labels, other.labels)
        found.append(Series(labels, _samples(op, one.samples, other.samples), exemplars))
    return found


def _samples(op: str, left: Samples, right: Samples) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        match op:
            case "+":
                return np.asarray(left + right)
            case "-":
                return np.asarray(left - right)
            case "*":
                return np.asarray(left * right)
        return np.where(right == 0, np.nan, left / right)


def _with_number(series: Series, calculate: Callable[[Any], Any]) -> Series:
    exemplars = [replace(one, value=float(calculate(np.float64(one.value)))) for one in series.exemplars]
    return Series(series.labels, calculate(series.samples), exemplars)


def _key(series: Series) -> Key:
    return frozenset((name, type(value), value) for name, value in series.labels if name != NAME)


def _labels(op: str, left: Labels, right: Labels) -> Labels:
    """Return the labels of both, and a name if both have one."""
    names = [value for name, value in (*left, *right) if name == NAME]
    made = {name: value for name, value in (*right, *left) if name != NAME}
    ordered = [(name, made[name]) for name in dict.fromkeys(name for name, _ in (*left, *right) if name != NAME)]
    return ((NAME, f"({names[0]} {op} {names[1]})"), *ordered) if len(names) == 2 else tuple(ordered)
