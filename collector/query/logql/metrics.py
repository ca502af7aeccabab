"""Metric queries: numbers over time, out of lines.

A query is evaluated at all its steps at once. A value is a float, or a `Vector` (`vectors.py`): for each label set an
array with a number for every step, and which of them are there. An instant query has one step.

Range aggregations go over the lines once, in any order, however many windows a line is in (`windows.py`, `tallies.py`).
The lines come as batches with labels as columns (`matches.py`), out of the ring by remembered labels if possible.

A series is told apart by the labels that the aggregation is grouped by, and `sum by (…)` around it is pushed into it
where that is the same, and `min` and `max` into their like: no record is decoded then. Without grouping, every distinct set of labels and structured metadata
is a series, as in Loki, but for the label that `unwrap` takes.

A line on which a stage failed (`__error__`) makes the query fail, as in Loki, unless the pipeline filters it out, drops
the label, or the query asks for it: `sum by (__error__) (…)` counts the parsers' errors. Where nobody asks for a label,
as in `sum(count_over_time({…} | json [1m]))`, nothing is parsed, and nothing fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from collector.errors import InvalidQuery, QueryLimit
from collector.query.logql import ast, vectors
from collector.query.logql.matches import batches
from collector.query.logql.series import NO_LABELS, SeriesOf
from collector.query.logql.tallies import Added, tally
from collector.query.logql.vectors import CELLS_MAX, Labels, Vector
from collector.query.logql.windows import TIME_MAX, Windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.logql.columns import Batch
    from collector.query.logql.plan import Plan
    from collector.query.logql.source import Statistics
    from collector.query.logql.tallies import Found, Tally
    from collector.store import View

__all__ = ("CELLS_MAX", "SERIES_MAX", "TIME_MAX", "Labels", "Series", "Value", "evaluate")

SERIES_MAX = 500
"""Series of an answer: Loki's default of max_query_series."""

CELLS_HELD_MAX: Final = 5 * CELLS_MAX
"""Numbers that all range aggregations of a query may come to, together."""

CELLS_AT_ONCE: Final = 262_144
"""Cells, or steps, whose windows are worked out at a time."""

_SUMMABLE: Final = frozenset(("count_over_time", "rate", "bytes_over_time", "bytes_rate", "sum_over_time"))
_EXTREMES: Final = {"min": "min_over_time", "max": "max_over_time"}
_PER_SECOND: Final = frozenset(("rate", "bytes_rate"))
_OF_BYTES: Final = frozenset(("bytes_over_time", "bytes_rate"))


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The numbers of one label set."""

    values: NDArray[np.float64]
    """A number for every step; without meaning where there is none."""
    present: NDArray[np.bool_]
    """Whether there is a number."""


Value = float | dict[Labels, Series]
"""What a metric query answers with."""


def evaluate(
    deadline: Deadline,
    views: Mapping[bytes | None, View],
    plan: Plan,
    steps: NDArray[np.int64],
    statistics: Statistics,
) -> Value:
    """Return a metric query's value at every step (Unix ns, ascending), without series that have no number.

    Series are in the order of their labels; at a single step a query with `sort` or `sort_desc` has them in its order.
    `views` has the view for each of `plan.services`. Raises QueryTimeout, QueryLimit over SERIES_MAX or CELLS_MAX, and
    InvalidQuery when a stage failed on a line, or series do not match one to one.
    """
    assert not isinstance(plan.expression, ast.LogQuery)
    value = _Evaluation(deadline, views, plan, steps, statistics).value(plan.expression)
    if not isinstance(value, Vector):
        return value
    vector = vectors.merged(value.compact())
    if len(vector.labels) > SERIES_MAX:
        raise _too_many_series()
    if len(set(vector.labels)) < len(vector.labels):
        raise InvalidQuery(
            "the answer has several series with the same labels; put an aggregation around label_replace"
        )
    rows = list(range(len(vector.labels)))
    if len(steps) > 1 or not _sorts(plan.expression):
        rows.sort(key=vector.labels.__getitem__)
    return {vector.labels[row]: Series(vector.values[row], vector.present[row]) for row in rows}


def _too_many_series() -> QueryLimit:
    return QueryLimit(
        f"maximum number of series ({SERIES_MAX}) reached for a single query; consider a more specific stream "
        "selector, a shorter time range, or aggregating with functions like sum by (…)"
    )


def _sorts(node: ast.Metric) -> bool:
    match node:
        case ast.VectorAggregation():
            return node.op in ("sort", "sort_desc") or _sorts(node.expression)
        case ast.Binary():
            return _sorts(node.left) or _sorts(node.right)
        case ast.LabelReplace():
            return _sorts(node.expression)
    return False


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
        self._held = 0

    def value(self, node: ast.Metric) -> float | Vector:
        """Return a node's value. As deep as the parser allows."""
        self._deadline.check()
        match node:
            case ast.Number():
                return node.value
            case ast.Constant():
                return vectors.constant(node.value, len(self._steps))
            case ast.RangeAggregation():
                return self._range(node, node.grouping)
            case ast.VectorAggregation():
                return self._aggregation(node)
            case ast.Binary():
                return vectors.binary(node, self.value(node.left), self.value(node.right))
            case ast.LabelReplace():
                return vectors.label_replace(node, self._vector(node.expression))

    def _vector(self, node: ast.Metric) -> Vector:
        value = self.value(node)
        assert isinstance(value, Vector), "the parser has seen to it"
        return value

    def _aggregation(self, node: ast.VectorAggregation) -> Vector:
        inner = node.expression
        if node.op == "sum" and isinstance(inner, ast.RangeAggregation) and inner.op in _SUMMABLE:
            return self._range(inner, node.grouping or NO_LABELS, is_answer=node is self._plan.expression)
        if isinstance(inner, ast.RangeAggregation) and inner.op == _EXTREMES.get(node.op) and inner.grouping is None:
            grouping = _without_unwrapped(node.grouping or NO_LABELS, inner.range.query)
            return self._range(inner, grouping, is_answer=node is self._plan.expression)
        return vectors.aggregate(node.op, node.parameter, node.grouping, self._vector(inner))

    def _range(self, node: ast.RangeAggregation, grouping: ast.Grouping | None, *, is_answer: bool = False) -> Vector:
        """Return a range aggregation, its series told apart by a grouping if there is one."""
        windows = Windows(self._ends(node.range), node.range.range_ns, node.range.offset_ns)
        absent = node.op == "absent_over_time"
        most, refusal = CELLS_MAX // max(windows.cells, len(self._steps)), _too_many_cells
        if most >= SERIES_MAX and (is_answer or node is self._plan.expression):
            most, refusal = SERIES_MAX, _too_many_series
        source = self._plan.sources[node.range.query]
        series = SeriesOf(self._deadline, source, NO_LABELS if absent else grouping, most, refusal)
        found = tally(node.op, node.parameter, windows.cells, unwraps=series.unwraps)
        of_bytes = node.op in _OF_BYTES
        for batch, cells in self._lines(windows, series, sizes=of_bytes):
            values = batch.lines.sizes().astype(np.float64) if of_bytes else batch.samples
            codes = series.of(batch)
            found.add(Added(codes, cells, batch.layer.times(), batch.offsets, values), len(series.labels))
        self._held += len(series.labels) * len(self._steps)
        if self._held > CELLS_HELD_MAX:
            raise QueryLimit(
                f"the query's range aggregations come to more than {CELLS_HELD_MAX} numbers (series times steps); "
                "group them by fewer labels, or take a longer step"
            )
        values, present = self._over(found, windows, len(series.labels))
        if absent:
            missing = np.logical_not(present.any(axis=0)).reshape(1, -1)
            return Vector([_absent_labels(node.range.query)], np.ones(missing.shape), missing).compact()
        if node.op in _PER_SECOND:
            values = values / (node.range.range_ns / 1e9)
        order = np.array(sorted(range(len(series.labels)), key=series.labels.__getitem__), np.intp)
        return Vector(series.labels, values, present).rows(order)

    def _over(self, found: Tally, windows: Windows, series: int) -> Found:
        """Return what a tally comes to, made of some series at a time."""
        count = max(1, CELLS_AT_ONCE // max(windows.cells, len(self._steps)))
        parts = []
        for first in range(0, series, count):
            self._deadline.check()
            parts.append(found.over(windows, range(first, min(series, first + count))))
        shape = (0, len(self._steps))
        values = np.concatenate([np.empty(shape), *(values for values, _ in parts)])
        return values, np.concatenate([np.empty(shape, np.bool_), *(present for _, present in parts)])

    def _ends(self, node: ast.LogRange) -> NDArray[np.int64]:
        """Return where each step's window ends before it is moved by an offset, Unix ns."""
        match node.fixed:
            case None:
                return self._steps
            case "start" | "end":
                return np.full_like(self._steps, self._steps[0 if node.fixed == "start" else -1])
        return np.full_like(self._steps, int(node.fixed) * 1_000_000)

    def _lines(self, windows: Windows, series: SeriesOf, *, sizes: bool) -> Iterator[tuple[Batch, NDArray[np.intp]]]:
        """Yield batches of lines in windows, with the cell of each line."""
        if windows.start_ns > windows.end_ns:
            return
        source = series.source
        for found in batches(
            self._deadline,
            self._views[source.selection.service],
            source,
            series.names,
            windows.start_ns,
            windows.end_ns,
            self._statistics,
            sizes=sizes,
        ):
            batch, cells = found, windows.places(found.layer.times())
            if windows.covered is not None:
                mask = windows.covered[cells]
                batch, cells = batch.narrowed(mask), cells[mask]
            if batch.rows.size:
                series.check(batch)
                yield batch, cells


def _too_many_cells() -> QueryLimit:
    return QueryLimit(
        f"the query needs more than {CELLS_MAX} cells (series times steps); "
        "group it by fewer labels, or take a longer step"
    )


def _without_unwrapped(grouping: ast.Grouping, query: ast.LogQuery) -> ast.Grouping:
    """Return the grouping of series that do not have the label that is unwrapped."""
    unwrapped = {stage.label for stage in query.stages if isinstance(stage, ast.Unwrap)}
    if grouping.without:
        return grouping
    return ast.Grouping(without=False, labels=tuple(name for name in grouping.labels if name not in unwrapped))


def _absent_labels(query: ast.LogQuery) -> Labels:
    """Return the labels of a series that is not there: what the selector says of them without doubt."""
    labels: dict[str, str] = {}
    doubtful: set[str] = set()
    for matcher in query.selector.matchers:
        if matcher.op == "=" and matcher.label not in labels:
            labels[matcher.label] = matcher.value
        else:
            doubtful.add(matcher.label)
    return tuple(sorted((name, text) for name, text in labels.items() if text and name not in doubtful))
