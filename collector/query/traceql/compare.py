"""compare(): how the spans of a selection differ from the others, attribute by attribute.

Every attribute of spans and resources, and a few intrinsics, is counted by value in two groups: `selection`, the spans
that fulfil the filter (and started between start and end, if those are given), and `baseline`, the rest. Series:

* `{__meta_type="selection" or "baseline", attribute=value}`: spans with that value, for the `top` commonest of each.
* `{__meta_type="selection_total" or "baseline_total", attribute=nil}`: spans with any value.
* `{__meta_error="__too_many_values__", attribute=nil}`: there were more values than `top`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from collector.errors import QueryLimit
from collector.otlp.records import RESOURCE_ATTRIBUTES, SPAN_ATTRIBUTES
from collector.query import match
from collector.query.traceql import values
from collector.query.traceql.ast import KINDS, STATUSES, Attribute, Expression, Filter, Intrinsic, Literal, Metrics
from collector.query.traceql.series import Label, Series, Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.traceql.matches import Batch

TOP_USUAL: Final = 10
"""Values of each attribute when no number is given."""
ATTRIBUTES_MAX: Final = 1000
"""Attributes that are compared."""
VALUES_MAX: Final = 200_000
"""Distinct values of all attributes, in both groups."""

_GROUPS: Final = ("baseline", "selection")
_INTRINSICS: Final = ("span:name", "span:kind", "span:status", "span:statusMessage", "instrumentation:name")
_NAMED: dict[str, dict[Label, str]] = {
    "status": {number: name for name, number in STATUSES.items()},
    "kind": {number: name for name, number in KINDS.items()},
}


class Comparison:
    """`compare()` over batches of spans."""

    def __init__(self, function: Metrics, steps: Steps) -> None:
        chosen = function.arguments[0]
        assert isinstance(chosen, Filter)
        numbers = [one.value for one in function.arguments[1:] if isinstance(one, Literal)]
        whole = [number for number in numbers if isinstance(number, int)]
        self._condition = chosen.expression
        self._top = whole[0] if whole else TOP_USUAL
        self._between = (whole[1], whole[2]) if len(whole) == 3 else None
        self._steps = steps
        self._counts: dict[Expression, dict[tuple[int, type, Label], NDArray[np.float64]]] = {}
        self._values = 0

    def add(self, batch: Batch) -> None:
        """Count a batch of spans. Raises QueryLimit."""
        selected = batch.mask(self._condition)
        if self._between is not None:
            times = batch.times
            selected &= (times >= np.uint64(self._between[0])) & (times <= np.uint64(self._between[1]))
        step = self._steps.of(batch.times)
        for field in self._fields(batch):
            self._count(field, batch.column(field), selected.astype(np.int64), step)

    def _fields(self, batch: Batch) -> list[Attribute | Intrinsic]:
        """Return what a batch's spans can be compared by."""
        block = batch.evaluation.block
        groups = np.unique(block.column("group")[batch.evaluation.rows])
        resources = (block.group_column("resource_start")[groups], block.group_column("resource_length")[groups])
        found: list[Attribute | Intrinsic] = [Intrinsic(name) for name in _INTRINSICS]
        for scope, (starts, lengths), number in (
            ("resource", resources, RESOURCE_ATTRIBUTES),
            ("span", batch.extents(), SPAN_ATTRIBUTES),
        ):
            keys = sorted(match.keys(block.payload, starts, lengths, number))
            found += [Attribute(scope, key.decode("utf-8", "replace")) for key in keys]
        if len(self._counts.keys() | set(found)) > ATTRIBUTES_MAX:
            raise QueryLimit(f"compare() of more than {ATTRIBUTES_MAX} attributes: narrow the query")
        return found

    def _count(
        self, field: Expression, column: values.Column, selected: NDArray[np.int64], step: NDArray[np.int64]
    ) -> None:
        there = np.flatnonzero(np.isin(column.type, (match.STRING, match.BOOL, match.INT, match.DOUBLE)))
        if not there.size:
            return
        column, selected, step = column.take(there), selected[there], step[there]
        codes, firsts = values.codes(column)
        width = self._steps.count
        cells = np.bincount((codes * 2 + selected) * width + step, minlength=2 * len(firsts) * width)
        counted = self._counts.setdefault(field, {})
        named = _NAMED.get(str(field), {})
        for place, row in enumerate(cells.reshape(-1, width)):
            if not row.any():
                continue
            value = column.value(int(firsts[place // 2]))
            value = named.get(value, value)
            key = (place % 2, type(value), value)
            if key in counted:
                counted[key] += row
                continue
            self._values += 1
            if self._values * width > 16 * VALUES_MAX or self._values > VALUES_MAX:
                raise QueryLimit(f"compare() of more than {self._values - 1} values: narrow the query")
            counted[key] = row.astype(np.float64)

    def series(self) -> list[Series]:
        """Return all series."""
        found = []
        for field, counted in self._counts.items():
            name = str(field)
            for group, meta in enumerate(_GROUPS):
                mine = [(value, row) for (of, _, value), row in counted.items() if of == group]
                if not mine:
                    continue
                mine.sort(key=lambda one: (-one[1].sum(), str(one[0])))
                for value, row in mine[: self._top]:
                    found.append(Series((("__meta_type", meta), (name, value)), row))
                total = np.sum([row for _, row in mine], axis=0)
                found.append(Series((("__meta_type", f"{meta}_total"), (name, None)), total))
            most = max(sum(of == group for of, _, _ in counted) for group in range(2))
            if most > self._top:
                error = np.zeros(self._steps.count)
                found.append(Series((("__meta_error", "__too_many_values__"), (name, None)), error))
        return found
