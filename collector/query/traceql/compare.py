"""compare(): how the spans of a selection differ from the others, attribute by attribute.

Every attribute of spans and resources, and a few intrinsics, is counted by value in two groups: `selection`, the spans
that fulfil the filter (and started between start and end, if those are given), and `baseline`, the rest. Series:

* `{__meta_type="selection" or "baseline", attribute=value}`: spans with that value, for the `top` commonest of each.
* `{__meta_type="selection_total" or "baseline_total", attribute=nil}`: spans with any value.
* `{__meta_error="__too_many_values__", attribute=nil}`: there were more values than `top`, or than could be counted.
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
DISTINCT_MAX: Final = 10_000
"""Values of one attribute that are counted; of those that come later only the total is."""
CELLS_MAX: Final = 200_000
"""Counts of one attribute: values times groups times steps."""

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
        self._counts: dict[Expression, _Counts] = {}

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
        there = np.flatnonzero(column.is_single())
        if there.size:
            column = column.take(there)
            codes, firsts = values.codes(column)
            counts = self._counts.setdefault(field, _Counts(self._steps.count, self._top))
            counts.add(codes, [column.value(at) for at in firsts.tolist()], selected[there], step[there])

    def series(self) -> list[Series]:
        """Return all series."""
        found = []
        for field, counts in self._counts.items():
            name, named = str(field), _NAMED.get(str(field), {})
            for group, meta in enumerate(_GROUPS):
                if not counts.total[group].any():
                    continue
                for value, row in counts.top(group):
                    found.append(Series((("__meta_type", meta), (name, named.get(value, value))), row))
                found.append(Series((("__meta_type", f"{meta}_total"), (name, None)), counts.total[group]))
            if counts.too_many:
                error = np.zeros(self._steps.count)
                found.append(Series((("__meta_error", "__too_many_values__"), (name, None)), error))
        return found


class _Counts:
    """How often one attribute had which value, in both groups and each step."""

    def __init__(self, width: int, top: int) -> None:
        self._width = width
        self._top = top
        self._most = max(top, min(DISTINCT_MAX, CELLS_MAX // (2 * width)))
        self._numbers: dict[tuple[type, Label], int] = {}
        self._values: list[Label] = []
        self._cells = np.zeros((16, 2, width))
        self._left_out = False
        self.total = np.zeros((2, width))

    def add(
        self, codes: NDArray[np.intp], named: list[Label], selected: NDArray[np.int64], step: NDArray[np.int64]
    ) -> None:
        """Count spans: the value of each is `named[code]`."""
        self.total += np.bincount(selected * self._width + step, minlength=2 * self._width).reshape(2, -1)
        number = np.array([self._number(value) for value in named], np.int64)[codes]
        kept = number >= 0
        if not kept.all():
            self._left_out = True
            number, selected, step = number[kept], selected[kept], step[kept]
        if len(self._values) > len(self._cells):
            more = np.zeros((2 * len(self._values) - len(self._cells), 2, self._width))
            self._cells = np.concatenate((self._cells, more))
        np.add.at(self._cells.reshape(-1), (number * 2 + selected) * self._width + step, 1.0)

    def _number(self, value: Label) -> int:
        """Return a value's number, -1 when there is no room for another."""
        key = (type(value), value)
        number = self._numbers.get(key, -1)
        if number < 0 and len(self._values) < self._most:
            number = self._numbers[key] = len(self._values)
            self._values.append(value)
        return number

    @property
    def too_many(self) -> bool:
        """Whether a group had more values than are returned."""
        seen = self._cells[: len(self._values)].any(axis=2).sum(axis=0)
        return self._left_out or bool((seen > self._top).any())

    def top(self, group: int) -> list[tuple[Label, NDArray[np.float64]]]:
        """Return the commonest values of a group with their counts."""
        sums = self._cells[: len(self._values), group].sum(axis=1)
        order = sorted(np.flatnonzero(sums).tolist(), key=lambda at: (-sums[at], str(self._values[at])))
        return [(self._values[at], self._cells[at, group]) for at in order[: self._top]]
