"""Metrics queries: spans become series over time.

The range is cut into steps, at multiples of the step since 1970, and widened to whole steps; the sample at T is made of
the spans that started in (T - step, T]. An instant query has one sample, of the spans that started in [start, end].

| function | a sample | without spans |
| --- | --- | --- |
| rate, count_over_time | spans in the step, for rate divided by its seconds | 0 |
| min, max, avg, sum_over_time | of a number of each span that has one | no sample |
| quantile_over_time | exact, of all values in the step, interpolated linearly between ranks; series differ by `p` | no sample |
| histogram_over_time | spans with a value up to `__bucket`, a power of two, and above the one before | 0 |
| compare | `compare.py` | 0 |

Arithmetic over series is that of `combined.py`. Durations are measured in seconds. Series are told apart by the values of the `by` fields, 1 from "1" and from 1.0; a
span without a value is in the series `nil`. topk and bottomk choose at each sample, among equals in the order of labels.

First stage: `matches.matches` gives batches of spans; here each becomes (step, series, value) and is added up in arrays
of series by steps. Second stage: arrays of samples, NaN for none. Memory: 8 to 32 bytes for each series and step, and
16 for each value of a quantile; every bound has a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import InvalidQuery, QueryLimit
from collector.query.traceql import values
from collector.query.traceql.ast import (
    KINDS,
    STATUSES,
    Expression,
    Filter,
    Intrinsic,
    Literal,
    Metrics,
    Query,
    SeriesArithmetic,
    SeriesOperand,
    Type,
)
from collector.query.traceql.combined import combined
from collector.query.traceql.compare import compared
from collector.query.traceql.exemplars import Exemplars
from collector.query.traceql.matches import Batch, matches
from collector.query.traceql.plan import plan
from collector.query.traceql.series import Label, Labels, Series, Steps, second

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.traceql.combined import Operand
    from collector.store import View

SERIES_MAX: Final = 20_000
"""Series of one query, before topk and bottomk."""
SAMPLES_MAX: Final = 4_000_000
"""Series times steps of one query."""
VALUES_MAX: Final = 5_000_000
"""Values that the quantiles of one query are computed of."""

_NAMED: dict[str, dict[Label, str]] = {
    "span:status": {number: name for name, number in STATUSES.items()},
    "span:kind": {number: name for name, number in KINDS.items()},
}


class Keys:
    """Numbers series by their labels, in the order in which they come."""

    def __init__(self, steps: int) -> None:
        self._numbers: dict[tuple[tuple[type, Label], ...], int] = {}
        self.labels: list[tuple[Label, ...]] = []
        self._steps = steps

    def __len__(self) -> int:
        return len(self.labels)

    def number(self, key: tuple[Label, ...]) -> int:
        """Return a series' number. Raises QueryLimit when there are too many."""
        typed = tuple((type(one), one) for one in key)
        number = self._numbers.get(typed)
        if number is None:
            number = len(self.labels)
            if number >= SERIES_MAX or (number + 1) * self._steps > SAMPLES_MAX:
                raise QueryLimit(
                    f"more than {number} series of {self._steps} steps: narrow the query, or take a larger step"
                )
            self._numbers[typed] = number
            self.labels.append(key)
        return number

    def of(self, batch: Batch, by: Sequence[Expression], more: Sequence[values.Column] = ()) -> NDArray[np.int64]:
        """Return the number of each span's series: by the values of fields, and of further columns."""
        parts = [(*batch.codes(one), _NAMED.get(one.name if isinstance(one, Intrinsic) else "", {})) for one in by]
        for column in more:
            own, firsts = values.codes(column)
            parts.append((own, column.take(firsts), {}))
        # A span's key is `keys[places[numbers]]`: `places` is short, and only the next field makes it long.
        numbers: NDArray[Any] = np.zeros(len(batch), np.uint8)
        places: NDArray[np.intp] = np.zeros(1, np.intp)
        keys: list[tuple[Label, ...]] = [()]
        for own, dictionary, named in parts:
            count = len(dictionary.type)
            numbers = places[numbers] * count + own if len(keys) > 1 else own
            used, numbers, places = _compact(numbers, len(keys) * count)
            found = []
            for one in used.tolist():
                value = dictionary.value(one % count)
                found.append((*keys[one // count], named.get(value, value)))
            keys = found
        series: NDArray[np.int64] = np.array([self.number(key) for key in keys], np.int64)[places][numbers]
        return series


def _compact(numbers: NDArray[Any], bound: int) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[np.intp]]:
    """Return the distinct numbers, ascending, other numbers, and what place each of these stands for among the distinct.

    All numbers are below `bound`.
    """
    if bound > 4 * len(numbers) + 65_536:
        used, inverse = np.unique(numbers, return_inverse=True)
        return used.astype(np.intp), inverse.reshape(-1), np.arange(len(used))
    used = np.flatnonzero(np.bincount(numbers, minlength=bound))
    places = np.zeros(bound, np.intp)
    places[used] = np.arange(len(used))
    return used, numbers, places


class Grid:
    """Numbers in arrays of series by steps, which grow with the series."""

    def __init__(self, steps: int, start: float) -> None:
        self._start = start
        self._steps = steps
        self.cells = np.full((1, steps), start)

    def room(self, series: int) -> NDArray[np.float64]:
        """Return all cells, one after the other, of so many series."""
        if series > len(self.cells):
            more = np.full((max(series, 2 * len(self.cells)) - len(self.cells), self._steps), self._start)
            self.cells = np.concatenate((self.cells, more))
        return self.cells.reshape(-1)


class Aggregation:
    """One metrics function over batches of spans."""

    def __init__(self, function: Metrics, steps: Steps, exemplars: int) -> None:
        self.function = function
        self.steps = steps
        self.keys = Keys(steps.count)
        self.exemplars = Exemplars(exemplars, steps.count)
        measured = function.arguments[0] if function.arguments else None
        self._measured = None if isinstance(measured, Filter) else measured
        self._is_duration = self._measured is not None and self._measured.type is Type.DURATION
        self._count = Grid(steps.count, 0.0)
        start = {"min_over_time": np.inf, "max_over_time": -np.inf}.get(function.op, 0.0)
        self._value = Grid(steps.count, start)
        self._values: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        self._kept = 0

    def add(self, batch: Batch) -> None:
        """Add a batch of spans. Raises QueryLimit."""
        step = self.steps.of(batch.times)
        if self._measured is None:
            self._add_cells(batch, self.keys.of(batch, self.function.by), step, None)
            return
        column = batch.column(self._measured)
        there = np.flatnonzero(column.is_number())
        if not there.size:
            return
        if len(there) < len(batch):
            batch, step, column = batch.only(there), step[there], column.take(there)
        value = column.double / 1e9 if self._is_duration else column.double
        more = [_buckets(column.double, self._is_duration)] if self.function.op == "histogram_over_time" else []
        self._add_cells(batch, self.keys.of(batch, self.function.by, more), step, value)

    def _add_cells(
        self,
        batch: Batch,
        series: NDArray[np.int64],
        step: NDArray[np.int64],
        value: NDArray[np.float64] | None,
    ) -> None:
        op, cell = self.function.op, series * self.steps.count + step
        counts = self._count.room(len(self.keys))
        counts += np.bincount(cell, minlength=len(counts))
        if value is not None and op != "histogram_over_time":
            cells = self._value.room(len(self.keys))
            if op == "quantile_over_time":
                self._values.append((cell, value))
                self._kept += len(value)
                if self._kept > VALUES_MAX:
                    raise QueryLimit(f"quantiles of more than {VALUES_MAX} values: narrow the query or its range")
            elif op == "min_over_time":
                np.minimum.at(cells, cell, value)
            elif op == "max_over_time":
                np.maximum.at(cells, cell, value)
            else:
                cells += np.bincount(cell, value, len(cells))
        self.exemplars.add(batch, series, step, value)

    def series(self) -> list[Series]:
        """Return the first stage's series, in the order of their labels."""
        op, by = self.function.op, [str(one) for one in self.function.by]
        count = len(self.keys)
        counts = self._count.room(count).reshape(-1, self.steps.count)[:count]
        cells = self._value.room(count).reshape(-1, self.steps.count)[:count]
        if op == "quantile_over_time":
            found = self._quantiles(by, counts)
        else:
            if op == "histogram_over_time":
                by = [*by, "__bucket"]
            if op in ("rate", "count_over_time", "histogram_over_time"):
                cells = counts / (self.steps.step_ns / 1e9) if op == "rate" else counts
            else:
                with np.errstate(invalid="ignore", divide="ignore"):
                    cells = np.where(counts > 0, cells / counts if op == "avg_over_time" else cells, np.nan)
            found = [
                Series(self._labels(by, key), cells[at], self.exemplars.of(at))
                for at, key in enumerate(self.keys.labels)
            ]
        return sorted(
            found,
            key=lambda one: tuple(
                (name, str(type(value)), 0 if value is None else value) for name, value in one.labels
            ),
        )

    def _labels(self, by: list[str], key: tuple[Label, ...]) -> Labels:
        return tuple(zip(by, key, strict=True)) or (("__name__", self.function.op),)

    def _quantiles(self, by: list[str], counts: NDArray[np.float64]) -> list[Series]:
        wanted = [float(one.value or 0) for one in self.function.arguments[1:] if isinstance(one, Literal)]
        cell = np.concatenate([np.empty(0, np.int64), *(cells for cells, _ in self._values)])
        value = np.concatenate([np.empty(0), *(each for _, each in self._values)])
        value = value[np.lexsort((value, cell))]
        count = counts.reshape(-1).astype(np.int64)
        begin = np.cumsum(count) - count
        found: list[Series] = []
        for quantile in wanted:
            rank = quantile * np.maximum(count - 1, 0)
            low = np.floor(rank).astype(np.int64)
            high = np.minimum(low + 1, np.maximum(count - 1, 0))
            samples = np.full(len(count), np.nan)
            has = count > 0
            lower, upper = value[(begin + low)[has]], value[(begin + high)[has]]
            samples[has] = lower + (upper - lower) * (rank - low)[has]
            rows = samples.reshape(-1, self.steps.count)
            for at, key in enumerate(self.keys.labels):
                found.append(Series((*zip(by, key, strict=True), ("p", quantile)), rows[at]))
        series = len(self.keys)
        for at in range(series):
            alike = [found[number * series + at] for number in sorted(range(len(wanted)), key=lambda one: wanted[one])]
            for one in self.exemplars.of(at):
                above = (each for each in alike if each.samples[one.step] >= one.value)
                next(above, alike[-1]).exemplars.append(one)
        return found


def _buckets(value: NDArray[np.float64], is_duration: bool) -> values.Column:
    """Return the power of two that each value lies at or below; of durations, of ns, in seconds. 0 for 0 and less."""
    with np.errstate(divide="ignore", invalid="ignore"):
        bucket = np.where(value > 0, np.exp2(np.ceil(np.log2(value))), 0.0)
    return values.of_doubles(bucket / 1e9 if is_duration else bucket, np.ones(len(value), np.bool_))


def _measured(function: Metrics) -> list[Expression]:
    """Return the expression that a function measures, if it does."""
    return [one for one in function.arguments[:1] if not isinstance(one, Filter)]


def key_of(query: Query) -> tuple[str, bytes] | None:
    """Return an index and a key without which no span is in a query's series."""
    return None if isinstance(query.pipeline.stages[0], SeriesArithmetic) else plan(query).key


def run(deadline: Deadline, view: View, everything: View, query: Query, steps: Steps, exemplars: int) -> list[Series]:
    """Return the series of a metrics query over the steps' range, with at most so many exemplars in all.

    `view` may be narrowed to the query's key. Raises InvalidQuery, QueryLimit and QueryTimeout.
    """
    first = query.pipeline.stages[0]
    if isinstance(first, SeriesArithmetic):
        series, at = _combined(deadline, everything, first, query, steps, exemplars), 0
    else:
        planned = plan(query)
        at = len(planned.stages)
        if at == len(query.pipeline.stages):
            raise InvalidQuery("this query yields spans, not series: ask /api/search, or add | rate()")
        function = query.pipeline.stages[at]
        assert isinstance(function, Metrics)
        if function.op == "compare":
            series = compared(deadline, view, everything, planned, function, steps)
        else:
            aggregation = Aggregation(function, steps, _exemplars(query, exemplars))
            fields = [*function.by, *_measured(function)]
            for batch in matches(deadline, view, everything, planned, steps.first_ns, steps.last_ns, fields):
                deadline.check()
                aggregation.add(batch)
            series = aggregation.series()
    for stage in query.pipeline.stages[at + 1 :]:
        series = second(series, stage)
    return [one for one in series if not np.isnan(one.samples).all()]


def _combined(
    deadline: Deadline, everything: View, node: SeriesArithmetic, query: Query, steps: Steps, exemplars: int
) -> list[Series]:
    """Evaluate arithmetic over series, as part of a query."""

    def operand(one: SeriesOperand) -> Operand:
        if isinstance(one, Literal):
            assert isinstance(one.value, int | float)
            return float(one.value)
        if isinstance(one, SeriesArithmetic):
            return combined(one.op, operand(one.left), operand(one.right))
        return run(deadline, everything, everything, Query(one, query.hints), steps, exemplars)

    return combined(node.op, operand(node.left), operand(node.right))


def _exemplars(query: Query, wanted: int) -> int:
    """Return how many exemplars a query with its hints asks for."""
    hint = dict(query.hints).get("exemplars")
    if hint is None:
        return wanted
    if hint.value is False:
        return 0
    return min(wanted, int(hint.value)) if hint.type is Type.INT and isinstance(hint.value, int) else wanted
