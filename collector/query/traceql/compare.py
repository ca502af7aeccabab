"""compare(): how the spans of a selection differ from the others, attribute by attribute.

Every attribute of spans, resources and scopes, a few intrinsics, and the name and service of the trace's root are counted
by value in two groups: `selection`, the spans that fulfil the filter (and started between start and end, if those are
given), and `baseline`, the rest. Series:

* `{__meta_type="selection" or "baseline", attribute=value}`: spans with that value, for the `top` commonest of each.
* `{__meta_type="selection_total" or "baseline_total", attribute=nil}`: spans with any value.
* `{__meta_error="__too_many_values__", attribute=nil}`: there were more values than `top`, or than could be counted.

What is remembered of the ring (`remembered.py`) is counted as codes, a million spans of a field in some 10 ms. Fields that
are not, because of their many values or of arrays among them, are counted in a second walk, block by block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import QueryLimit
from collector.query.traceql.ast import KINDS, STATUSES, Attribute, Expression, Filter, Intrinsic, Literal, Metrics
from collector.query.traceql.conditions import remembered_names
from collector.query.traceql.matches import RingBatch, known_fields, matches
from collector.query.traceql.names import names_of
from collector.query.traceql.roots import Roots
from collector.query.traceql.series import Label, Series, Steps

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.traceql.matches import Batch
    from collector.query.traceql.plan import Plan
    from collector.query.traceql.values import Column
    from collector.store import View

TOP_USUAL: Final = 10
"""Values of each attribute when no number is given."""
ATTRIBUTES_MAX: Final = 1000
"""Attributes that are compared."""
DISTINCT_MAX: Final = 10_000
"""Values of one attribute that are counted; of those that come later only the total is."""
CELLS_MAX: Final = 200_000
"""Counts of one attribute: values times groups times steps."""

_GROUPS: Final = ("baseline", "selection")
_INTRINSICS: Final = tuple(
    Intrinsic(name)
    for name in (
        *("span:name", "span:kind", "span:status", "span:statusMessage"),
        *("instrumentation:name", "instrumentation:version"),
    )
)
_SCOPES: Final = ("resource", "instrumentation", "span")
_NAMED: dict[str, dict[Label, str]] = {
    "status": {number: name for name, number in STATUSES.items()},
    "kind": {number: name for name, number in KINDS.items()},
}
_ABSENT, _OTHERS = 0, 1
"""Numbers of values: of none, and of those that there is no room for."""


def compared(
    deadline: Deadline, view: View, everything: View, planned: Plan, function: Metrics, steps: Steps
) -> list[Series]:
    """Return the series of `compare()` over the steps' range. Raises QueryLimit and QueryTimeout."""
    start, end = steps.first_ns, steps.last_ns
    comparison = Comparison(function, steps, Roots(deadline, everything, start, end))
    names = remembered_names(deadline, view) if planned.flat else None
    fields = _fields(names) if names is not None else []
    known = known_fields(deadline, view, fields)
    apart = frozenset(fields) - known.keys()
    conditions = [comparison.condition] if comparison.condition is not None else []
    for batch in matches(deadline, view, everything, planned, start, end, list(known) if known else None, conditions):
        deadline.check()
        if isinstance(batch, RingBatch):
            comparison.add(batch, known)
        else:
            block, rows = batch.evaluation.block, batch.evaluation.rows
            comparison.add(batch, [one for one in _fields(names_of(block, rows)) if one not in apart])
    for batch in matches(deadline, view, everything, planned, start, end) if apart else ():
        deadline.check()
        comparison.add(batch, apart, with_roots=False)
    return comparison.series()


def _fields(names: Mapping[str, Collection[bytes]]) -> list[Attribute | Intrinsic]:
    """Return what spans with attributes of these names, by scope, can be compared by."""
    found: list[Attribute | Intrinsic] = list(_INTRINSICS)
    for scope in _SCOPES:
        found += [Attribute(scope, key.decode("utf-8", "replace")) for key in sorted(names.get(scope, ()))]
    return found


class Comparison:
    """Counts of both groups."""

    def __init__(self, function: Metrics, steps: Steps, roots: Roots) -> None:
        chosen = function.arguments[0]
        assert isinstance(chosen, Filter)
        numbers = [one.value for one in function.arguments[1:] if isinstance(one, Literal)]
        whole = [number for number in numbers if isinstance(number, int)]
        self.condition = chosen.expression
        """What the spans of the selection fulfil; None: all do."""
        self._top = whole[0] if whole else TOP_USUAL
        self._between = (whole[1], whole[2]) if len(whole) == 3 else None
        self._steps = steps
        self._roots = roots
        self._counts: dict[Expression, _Counts] = {}

    def add(self, batch: Batch, fields: Iterable[Expression], *, with_roots: bool = True) -> None:
        """Count a batch of spans by these fields. Raises QueryLimit."""
        selected = batch.mask(self.condition)
        if self._between is not None:
            times = batch.times
            selected = selected & (times >= np.uint64(self._between[0])) & (times <= np.uint64(self._between[1]))
        cell = self._steps.of(batch.times)
        cell[selected] += self._steps.count
        for field in fields:
            self._count(field, *batch.codes(field), cell)
        if with_roots:
            for root in self._roots.fields(batch):
                self._count(*root, cell)

    def _count(self, field: Expression, codes: NDArray[Any], dictionary: Column, cell: NDArray[np.int64]) -> None:
        counts = self._counts.get(field)
        if counts is None:
            if len(self._counts) >= ATTRIBUTES_MAX:
                raise QueryLimit(f"compare() of more than {ATTRIBUTES_MAX} attributes: narrow the query")
            counts = self._counts[field] = _Counts(self._steps.count, self._top)
        counts.add(codes, dictionary, cell)

    def series(self) -> list[Series]:
        """Return all series."""
        found = []
        for field, counts in self._counts.items():
            name, named = str(field), _NAMED.get(str(field), {})
            totals = counts.totals
            for group, meta in enumerate(_GROUPS):
                if not totals[group].any():
                    continue
                for value, row in counts.top(group):
                    found.append(Series((("__meta_type", meta), (name, named.get(value, value))), row))
                found.append(Series((("__meta_type", f"{meta}_total"), (name, None)), totals[group]))
            if counts.too_many:
                error = np.zeros(self._steps.count)
                found.append(Series((("__meta_error", "__too_many_values__"), (name, None)), error))
        return found


class _Counts:
    """How often one attribute had which value, in both groups and each step."""

    def __init__(self, width: int, top: int) -> None:
        self._top = top
        self._most = max(top, min(DISTINCT_MAX, CELLS_MAX // (2 * width)))
        self._numbers: dict[tuple[type, Label], int] = {}
        self._values: list[Label] = [None, None]
        self._cells = np.zeros((16, 2, width))

    def add(self, codes: NDArray[Any], dictionary: Column, cell: NDArray[np.int64]) -> None:
        """Count spans: each has a value of the dictionary, and belongs to the cell `group * width + step`."""
        used = np.flatnonzero(np.bincount(codes, minlength=len(dictionary.type)))
        single = dictionary.is_single()
        numbers = np.zeros(len(dictionary.type), np.int64)
        numbers[used] = [self._number(dictionary.value(at)) if single[at] else _ABSENT for at in used.tolist()]
        if len(self._values) > len(self._cells):
            more = np.zeros((2 * len(self._values) - len(self._cells), *self._cells.shape[1:]))
            self._cells = np.concatenate((self._cells, more))
        numbers *= self._cells[0].size
        flat = self._cells.reshape(-1)
        flat += np.bincount(numbers[codes] + cell, minlength=len(flat))

    def _number(self, value: Label) -> int:
        """Return a value's number."""
        key = (type(value), value)
        number = self._numbers.get(key, _OTHERS)
        if number == _OTHERS and len(self._numbers) < self._most:
            number = self._numbers[key] = len(self._values)
            self._values.append(value)
        return number

    @property
    def totals(self) -> NDArray[np.float64]:
        """Spans with any value, by group and step."""
        found: NDArray[np.float64] = self._cells[_OTHERS:].sum(axis=0)
        return found

    @property
    def too_many(self) -> bool:
        """Whether a group had more values than are returned."""
        seen = np.asarray(self._cells.any(axis=2), np.bool_)
        return bool(seen[_OTHERS].any() or (seen[_OTHERS + 1 :].sum(axis=0) > self._top).any())

    def top(self, group: int) -> list[tuple[Label, NDArray[np.float64]]]:
        """Return the commonest values of a group with their counts."""
        sums = self._cells[_OTHERS + 1 : len(self._values), group].sum(axis=1)
        values = self._values[_OTHERS + 1 :]
        order = sorted(
            np.flatnonzero(sums).tolist(), key=lambda at: (-sums[at], str(values[at]), str(type(values[at])))
        )
        return [(values[at], self._cells[at + _OTHERS + 1, group]) for at in order[: self._top]]
