"""Metric queries: numbers over time, out of lines.

A query is evaluated at all its steps at once. A value is a float, or a `Vector`: for each label set an array
with a number for every step, and which of them are there. An instant query has one step.

Range aggregations go over the lines once, in any order. The ends and beginnings of all windows cut time into
cells; every line falls into one cell, is added there, and a window is the difference of two running sums.
That is exact for windows (t - range, t], overlapping or with gaps, and costs memory for series times cells
and not for lines.

`sum by (…)` of such an aggregation is pushed into it: lines are then grouped by those labels only, as
columns, and no record is decoded. Without it, every distinct set of labels and structured metadata is a
series, as in Loki.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from collector.errors import QueryLimit
from collector.query.logql import ast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from collector.query.engine import Deadline
    from collector.query.logql.columns import Batch
    from collector.query.logql.plan import Plan
    from collector.query.logql.source import Source, Statistics
    from collector.store import View

SERIES_MAX = 500
"""Series of an answer: Loki's default of max_query_series."""

CELLS_MAX = 2_000_000
"""Cells, each of 8 bytes, that one range aggregation may hold: its series times the cells of time."""

TIME_MAX = 2**63 - 1
"""The last nanosecond that a window can hold: in the year 2262."""

LINES_BETWEEN_CHECKS = 1000
"""Records decoded between two looks at the deadline."""

Labels = tuple[tuple[str, str], ...]
"""A label set: pairs sorted by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The numbers of one label set."""

    values: NDArray[np.float64]
    """A number for every step; without meaning where there is none."""
    present: NDArray[np.bool_]
    """Whether there is a number."""


Vector = dict[Labels, Series]
Value = float | Vector


def evaluate(
    deadline: Deadline,
    views: Mapping[bytes | None, View],
    plan: Plan,
    steps: NDArray[np.int64],
    statistics: Statistics,
) -> Value:
    """Return a metric query's value at every step (Unix ns, ascending), without series that have no number.

    `views` has the view for each of `plan.services`. Raises QueryTimeout, and QueryLimit over SERIES_MAX or
    CELLS_MAX.
    """
    assert not isinstance(plan.expression, ast.LogQuery)
    value = _Evaluation(deadline, views, plan, steps, statistics).value(plan.expression)
    if isinstance(value, float):
        return value
    answer = {labels: series for labels, series in sorted(value.items()) if series.present.any()}
    if len(answer) > SERIES_MAX:
        raise _too_many_series()
    return answer


def _too_many_series() -> QueryLimit:
    return QueryLimit(
        f"maximum number of series ({SERIES_MAX}) reached for a single query; consider a more specific stream "
        "selector, a shorter time range, or aggregating with functions like sum by (…)"
    )


class _Evaluation:
    def __init__(
        self,
        deadline: Deadline,
        views: Mapping[bytes | None, View],
        plan: Plan,
        steps: NDArray[np.int64],
        statistics: Statistics,
    ) -> None:
        self._deadline = deadline
        self._views = views
        self._plan = plan
        self._steps = steps
        self._statistics = statistics

    def value(self, node: ast.Metric) -> Value:
        """Return a node's value. As deep as the parser allows."""
        match node:
            case ast.Number():
                return node.value
            case ast.Constant():
                count = len(self._steps)
                return {(): Series(np.full(count, node.value), np.ones(count, np.bool_))}
            case ast.RangeAggregation():
                return self._range(node, None, node is self._plan.expression)
            case ast.VectorAggregation():
                return self._aggregation(node)
            case ast.Binary():
                return binary(node, self.value(node.left), self.value(node.right))
        raise AssertionError(f"not prepared: {node}")

    def _aggregation(self, node: ast.VectorAggregation) -> Vector:
        grouping = node.grouping or ast.Grouping(without=False, labels=())
        if node.op == "sum" and isinstance(node.expression, ast.RangeAggregation):
            return self._range(node.expression, grouping, node is self._plan.expression)
        vector = self.value(node.expression)
        assert isinstance(vector, dict)
        return aggregate(node.op, grouping, vector)

    def _range(self, node: ast.RangeAggregation, grouping: ast.Grouping | None, is_answer: bool) -> Vector:
        """Return a range aggregation, summed by a grouping if there is one."""
        source = self._plan.sources[node.range.query]
        windows = Windows(self._steps, node.range.range_ns, node.range.offset_ns)
        of_bytes = node.op in ("bytes_over_time", "bytes_rate")
        totals = _Totals(windows.cells, of_bytes, SERIES_MAX if is_answer else CELLS_MAX)
        if windows.start_ns <= windows.end_ns:
            view = self._views[source.selection.service]
            names = _names(source, grouping)
            for batch in source.batches(view, windows.start_ns, windows.end_ns, self._deadline, self._statistics):
                if names is not None:
                    series = _by_columns(batch, names, totals)
                else:
                    series = self._by_records(batch, grouping, totals)
                places = windows.places(batch.block.column("time")[batch.rows])
                totals.add(series, places, batch.lines.sizes() if of_bytes else None)
        counts = windows.sums(totals.lines)
        values = (windows.sums(totals.bytes) if of_bytes else counts).astype(np.float64)
        if node.op in ("rate", "bytes_rate"):
            values /= node.range.range_ns / 1e9
        return {labels: Series(values[row], counts[row] > 0) for labels, row in totals.rows.items()}

    def _by_records(self, batch: Batch, grouping: ast.Grouping | None, totals: _Totals) -> NDArray[np.intp]:
        """Return the series of each row by all its labels, or all `without` some."""
        gone = set(grouping.labels) if grouping else set()
        series = np.empty(len(batch.rows), np.intp)
        for place in range(len(batch.rows)):
            if place % LINES_BETWEEN_CHECKS == 0:
                self._deadline.check()
            labels = batch.labels(place)
            series[place] = totals.row(tuple(sorted(pair for pair in labels.items() if pair[0] not in gone)))
        return series


def _names(source: Source, grouping: ast.Grouping | None) -> list[str] | None:
    """Return the only labels that can tell series apart, or None where any label can."""
    if grouping is not None and not grouping.without:
        return sorted(set(grouping.labels))
    kept = source.kept
    if kept is None:
        return None
    return sorted(kept.difference(grouping.labels) if grouping else kept)


def _by_columns(batch: Batch, names: list[str], totals: _Totals) -> NDArray[np.intp]:
    """Return the series of each row by the named labels."""
    codes = np.zeros(len(batch.rows), np.intp)
    first = np.zeros(1, np.intp)
    columns = [batch.column(name) for name in names]
    for column in columns:
        if len(column.values) > 1:  # some row has the label
            pairs = codes * len(column.values) + column.codes
            _, first, codes = np.unique(pairs, return_index=True, return_inverse=True)
    series = []
    for place in first.tolist():
        texts = [column.values[column.codes[place]] for column in columns]
        series.append(totals.row(tuple((name, text) for name, text in zip(names, texts, strict=True) if text)))
    return np.array(series, np.intp)[codes]


class Windows:
    """The windows (t - range, t] of a query's steps, and the cells that their bounds cut time into."""

    def __init__(self, steps: NDArray[np.int64], range_ns: int, offset_ns: int) -> None:
        """Take the steps (Unix ns), and a range and an offset in ns of any size."""
        ends = [min(max(step - offset_ns, -1), TIME_MAX) for step in steps.tolist()]
        begins = [min(max(step - offset_ns - range_ns, -1), TIME_MAX) for step in steps.tolist()]
        self._edges = np.unique(np.array(ends + begins, np.int64))
        self._ends = np.searchsorted(self._edges, ends)
        self._begins = np.searchsorted(self._edges, begins)
        self.cells = len(self._edges)
        """How many cells there are. Cell i is (edge i - 1, edge i]; the first is outside all windows."""
        self.start_ns = int(self._edges[0]) + 1
        self.end_ns = int(self._edges[-1])

    def places(self, times: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the cells of times within start_ns to end_ns."""
        return np.searchsorted(self._edges, times.astype(np.int64), "left")

    def sums(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sum over every window, of each row of cells."""
        running = np.cumsum(cells, axis=1)
        return running[:, self._ends] - running[:, self._begins]


class _Totals:
    """Lines (and bytes) of each series in each cell."""

    def __init__(self, cells: int, of_bytes: bool, series_max: int) -> None:
        self._series_max = series_max
        self.rows: dict[Labels, int] = {}
        self._cells = cells
        self._lines = np.zeros((1, cells), np.int64)
        self._bytes = np.zeros((1, cells if of_bytes else 0), np.int64)

    @property
    def lines(self) -> NDArray[np.int64]:
        """The number of lines, by series and cell."""
        return self._lines[: len(self.rows)]

    @property
    def bytes(self) -> NDArray[np.int64]:
        """Their bytes, likewise."""
        return self._bytes[: len(self.rows)]

    def row(self, labels: Labels) -> int:
        """Return the row of a series, a new one if need be. Raises QueryLimit over either limit."""
        row = self.rows.get(labels)
        if row is None:
            row = len(self.rows)
            if row == self._series_max:
                raise _too_many_series()
            if row == len(self._lines):
                self._grow()
            self.rows[labels] = row
        return row

    def _grow(self) -> None:
        count = min(2 * len(self._lines), CELLS_MAX // self._cells)
        if count <= len(self._lines):
            raise QueryLimit(
                f"the query needs more than {CELLS_MAX} cells (series times steps); "
                "group it by fewer labels, or take a longer step"
            )
        more = count - len(self._lines)
        self._lines = np.concatenate((self._lines, np.zeros((more, self._lines.shape[1]), np.int64)))
        self._bytes = np.concatenate((self._bytes, np.zeros((more, self._bytes.shape[1]), np.int64)))

    def add(self, series: NDArray[np.intp], places: NDArray[np.intp], sizes: NDArray[np.int64] | None) -> None:
        """Count lines of these series in these cells."""
        np.add.at(self._lines, (series, places), 1)
        if sizes is not None:
            np.add.at(self._bytes, (series, places), sizes)


def aggregate(op: str, grouping: ast.Grouping, vector: Vector) -> Vector:
    """Return sum, min, max, avg or count over the series of each group, step by step."""
    groups: dict[Labels, list[Series]] = {}
    named = frozenset(grouping.labels)
    for labels, series in sorted(vector.items()):
        key = tuple(pair for pair in labels if (pair[0] in named) != grouping.without)
        groups.setdefault(key, []).append(series)
    return {labels: _aggregated(op, members) for labels, members in groups.items()}


def _aggregated(op: str, members: list[Series]) -> Series:
    present = np.array([series.present for series in members])
    values = np.array([series.values for series in members])
    counts = present.sum(axis=0)
    if op == "count":
        result = counts.astype(np.float64)
    elif op in ("sum", "avg"):
        result = np.where(present, values, 0.0).sum(axis=0)
        if op == "avg":
            result /= np.maximum(counts, 1)
    else:  # a NaN only counts where there is nothing else
        extreme = np.fmin if op == "min" else np.fmax
        result = extreme.reduce(np.where(present, values, np.nan), axis=0)
    return Series(result, counts > 0)


def binary(node: ast.Binary, left: Value, right: Value) -> Value:
    """Return left op right. Series pair with series of the same labels; others are dropped, as in Loki.

    A comparison keeps the numbers of the left side (of the series, if the other side is a number) for which
    it holds; with `bool`, and between two numbers, it makes 1 or 0.
    """
    compares = node.op in ast.COMPARISONS
    operation = _COMPARISONS[node.op] if compares else _ARITHMETIC[node.op]
    if isinstance(left, float) and isinstance(right, float):
        with np.errstate(all="ignore"):
            return float(operation(np.float64(left), np.float64(right)))
    filters = compares and not node.returns_bool
    result: Vector = {}
    for labels in _pairs(left, right):
        ours, theirs = _side(left, labels), _side(right, labels)
        present = ours.present & theirs.present
        with np.errstate(all="ignore"):
            values = np.asarray(operation(ours.values, theirs.values), np.float64)
        if filters:
            present = present & (values != 0)
            values = theirs.values if isinstance(left, float) else ours.values
        result[labels] = Series(values, present)
    return result


def _pairs(left: Value, right: Value) -> Iterator[Labels]:
    if isinstance(left, float):
        assert isinstance(right, dict)
        return iter(right)
    return iter(left) if isinstance(right, float) else (labels for labels in left if labels in right)


def _side(value: Value, labels: Labels) -> Series:
    """Return one side's series; a number is the same at every step."""
    if isinstance(value, float):
        return Series(np.array([value]), np.array([True]))
    return value[labels]


def _divide(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(right == 0, np.nan, np.divide(left, right))  # as Loki: not infinity


def _modulo(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(right == 0, np.nan, np.fmod(left, right))


_ARITHMETIC: dict[str, Callable[..., NDArray[np.float64]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": _divide,
    "%": _modulo,
    "^": np.power,
}
_COMPARISONS: dict[str, Callable[..., NDArray[np.bool_]]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
}
