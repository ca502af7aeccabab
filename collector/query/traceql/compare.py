"""compare(): how the spans of a selection differ from the others, attribute by attribute.

Every attribute of spans, their events and links, resources and scopes, a few intrinsics, and the name and service of the
trace's root are counted by value in two groups: `selection`, the spans that fulfil the filter (and started between start
and end, if those are given), and `baseline`, the rest. Series:

* `{__meta_type="selection" or "baseline", attribute=value}`: spans with that value, for the `top` commonest of each.
* `{__meta_type="selection_total" or "baseline_total", attribute=nil}`: spans with any value. A span with several, of its
  events or links, counts once for each, and once here.
* `{__meta_error="__too_many_values__", attribute=nil}`: there were more values than `top`, or than could be counted.

What is remembered of the ring (`remembered.py`) is counted as codes, a million spans of a field in a few ms. Fields that
are not, because of their many values or of arrays among them, and those of events and links are counted in a second walk,
block by block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import QueryLimit
from collector.query.traceql import values
from collector.query.traceql.ast import KINDS, STATUSES, Attribute, Expression, Filter, Intrinsic, Literal, Metrics
from collector.query.traceql.conditions import remembered_names
from collector.query.traceql.dictionary import counted
from collector.query.traceql.matches import RingBatch, known_fields, matches
from collector.query.traceql.names import EVENT_NAME, INTRINSIC, names_of
from collector.query.traceql.roots import Roots
from collector.query.traceql.series import Label, Series, Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

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
_PARTS: Final = ("event", "link")
_SCOPES: Final = ("resource", "instrumentation", "span", *_PARTS)
_EVENT_NAME: Final = Intrinsic(EVENT_NAME.decode())
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
    if EVENT_NAME in names.get(INTRINSIC, ()):
        found.append(_EVENT_NAME)
    for scope in _SCOPES:
        found += [Attribute(scope, key.decode("utf-8", "replace")) for key in sorted(names.get(scope, ()))]
    return found


def _is_several(field: Expression) -> bool:
    """Tell whether spans can have several values of a field."""
    return field == _EVENT_NAME or (isinstance(field, Attribute) and field.scope in _PARTS)


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
        cell = self._steps.of(batch.times).astype(np.int32)
        cell[selected] += self._steps.count
        for field in fields:
            if _is_several(field):
                self._of(field).add_several(batch.entries(field), cell)
            else:
                self._of(field).add(*batch.codes(field), cell)
        if with_roots:
            for root, codes, dictionary in self._roots.fields(batch):
                self._of(root).add(codes, dictionary, cell)

    def _of(self, field: Expression) -> _Counts:
        counts = self._counts.get(field)
        if counts is None:
            if len(self._counts) >= ATTRIBUTES_MAX:
                raise QueryLimit(f"compare() of more than {ATTRIBUTES_MAX} attributes: narrow the query")
            counts = self._counts[field] = _Counts(self._steps.count, self._top)
        return counts

    def series(self) -> list[Series]:
        """Return all series."""
        found = []
        for field, counts in self._counts.items():
            name, named = str(field), _NAMED.get(str(field), {})
            counts.end()
            totals = counts.totals
            for group, meta in enumerate(_GROUPS):
                if not totals[group].any():
                    continue
                for value, row in counts.top(group):
                    labels = (("__meta_type", meta), (name, named.get(value, value)))
                    found.append(Series(labels, row.astype(np.float64)))
                total = totals[group].astype(np.float64)
                found.append(Series((("__meta_type", f"{meta}_total"), (name, None)), total))
            if counts.too_many:
                error = np.zeros(self._steps.count)
                found.append(Series((("__meta_error", "__too_many_values__"), (name, None)), error))
        return found


class _Counts:
    """How often one attribute had which value, in both groups and each step.

    Spans are counted by the numbers that values have in the dictionary of their batch. As long as batches share one, as
    those of the ring do, no value is looked at; when another comes, values are told apart by what they are.
    """

    def __init__(self, width: int, top: int) -> None:
        self._top = top
        self._shape = (2, width)
        self._most = max(top, min(DISTINCT_MAX, CELLS_MAX // (2 * width)))
        self._dictionary: Column | None = None
        self._coded = np.zeros((0, 2 * width), np.int64)  # by the numbers in that
        self._numbers: dict[tuple[type, Label], int] = {}
        self._values: list[Label] = [None, None]
        self._cells = np.zeros((16, 2 * width), np.int64)  # by the numbers in those
        self._spans: NDArray[np.int64] | None = None  # with any of several values
        self._value: Callable[[int], Label] = self._values.__getitem__

    def add(self, codes: NDArray[Any], dictionary: Column, cell: NDArray[np.int32]) -> None:
        """Count spans: each has a value of the dictionary, and belongs to the cell `group * width + step`."""
        count = len(dictionary.type)
        if dictionary is not self._dictionary:
            self._settle()
            if count * self._cells.shape[1] > CELLS_MAX:
                used = np.flatnonzero(np.bincount(codes, minlength=count))
                numbers = np.zeros(count, np.int64)
                numbers[used] = self._numbered(dictionary, used)
                counted(numbers[codes], cell, self._cells)
                return
            self._dictionary = dictionary
            self._coded = np.zeros((count, self._cells.shape[1]), np.int64)
        counted(codes, cell, self._coded)

    def add_several(self, column: Column, cell: NDArray[np.int32]) -> None:
        """Count spans that can have several values: each entry of the column is one of its owner's."""
        assert column.owner is not None
        there = np.flatnonzero(column.is_single())
        owners = column.owner[there]
        column = column.take(there)
        codes, firsts = values.codes(column)
        pairs = np.unique(owners * max(1, len(firsts)) + codes, return_index=True)[1]
        self.add(codes[pairs], column.take(firsts), cell[owners[pairs]])
        if self._spans is None:
            self._spans = np.zeros(self._cells.shape[1], np.int64)
        self._spans += np.bincount(cell[np.unique(owners)], minlength=len(self._spans))

    def _settle(self) -> None:
        """Go over from the numbers of a dictionary to those of values."""
        if self._dictionary is not None:
            used = np.flatnonzero(self._coded.any(axis=1))
            numbers = self._numbered(self._dictionary, used)
            np.add.at(self._cells, numbers, self._coded[used])
            self._dictionary = None
            self._coded = self._coded[:0]

    def _numbered(self, dictionary: Column, places: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return the numbers of some values of a dictionary, for which there is room then."""
        single = dictionary.is_single()
        numbers = [self._number(dictionary.value(at)) if single[at] else _ABSENT for at in places.tolist()]
        if len(self._values) > len(self._cells):
            more = np.zeros((2 * len(self._values) - len(self._cells), self._cells.shape[1]), np.int64)
            self._cells = np.concatenate((self._cells, more))
        return np.array(numbers, np.int64)

    def _number(self, value: Label) -> int:
        key = (type(value), value)
        number = self._numbers.get(key, _OTHERS)
        if number == _OTHERS and len(self._numbers) < self._most:
            number = self._numbers[key] = len(self._values)
            self._values.append(value)
        return number

    def end(self) -> None:
        """Make of all that was added what the rest of the methods tell."""
        dictionary = self._dictionary
        if dictionary is None or len(self._values) > _OTHERS + 1:
            self._settle()
            return
        there = np.flatnonzero(dictionary.is_single())
        self._cells = np.concatenate((np.zeros((_OTHERS + 1, self._cells.shape[1]), np.int64), self._coded[there]))
        self._value = lambda number: dictionary.value(int(there[number - _OTHERS - 1]))

    @property
    def totals(self) -> NDArray[np.int64]:
        """Spans with any value, by group and step."""
        found: NDArray[np.int64] = self._cells[_OTHERS:].sum(axis=0) if self._spans is None else self._spans
        return found.reshape(self._shape)

    def _by_group(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self._cells.reshape(-1, *self._shape).sum(axis=2)
        return found

    @property
    def too_many(self) -> bool:
        """Whether a group had more values than are returned."""
        seen = self._by_group() > 0
        return bool(seen[_OTHERS].any() or (seen[_OTHERS + 1 :].sum(axis=0) > self._top).any())

    def top(self, group: int) -> list[tuple[Label, NDArray[np.int64]]]:
        """Return the commonest values of a group with their counts."""
        sums = self._by_group()[:, group]
        numbers = np.flatnonzero(sums[_OTHERS + 1 :]) + _OTHERS + 1
        if len(numbers) > self._top:
            least = np.partition(sums[numbers], -self._top)[-self._top]
            numbers = numbers[sums[numbers] >= least]
        found = [(self._value(number), number) for number in numbers.tolist()]
        found.sort(key=lambda one: (-sums[one[1]], str(one[0]), str(type(one[0]))))
        rows = self._cells.reshape(-1, *self._shape)
        return [(value, rows[number, group]) for value, number in found[: self._top]]
