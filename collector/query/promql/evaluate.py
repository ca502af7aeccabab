"""Evaluation of PromQL, for all steps at once.

A query is evaluated at `steps`, times in ms. A scalar is an array with a value for each step; an instant vector is a
`Vector`: labels, and two matrices of one row a series and one column a step, values and whether there is one. Every
operation works on whole matrices with numpy; only range functions go series by series.

Semantics are Prometheus 3's: an instant selector takes the newest sample in (t - 5m, t], a range selector those in
(t - range, t]; a stale marker ends a series; rates extrapolate to the range's ends as Prometheus does. A subquery is
evaluated at multiples of its step, for all steps of the query together. Native histograms are classic ones here
(translate.py): functions that only have a meaning for native ones are refused by name and position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from collector.errors import InvalidQuery, QueryLimit
from collector.query.promql import aggregation, dates, histograms, matching, ranges, relabel, vectors
from collector.query.promql.ast import (
    Aggregation,
    Binary,
    Call,
    Expression,
    MatrixSelector,
    Negation,
    Number,
    Shift,
    String,
    Subquery,
    Type,
    VectorSelector,
)
from collector.query.promql.series import Series, Source, is_stale, select
from collector.query.promql.vectors import Vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.store import View

LOOKBACK_MS = 300_000
"""How old the newest sample of an instant selector may be."""
SUBQUERY_STEPS_MAX = 100_000
"""Steps at which the expression of a subquery is evaluated."""
SUBQUERY_STEP_MS = 60_000
"""The step of a subquery that names none: Prometheus' default interval of evaluation."""
_NATIVE = ("histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev")


@dataclass(slots=True)
class Result:
    """What a query gives: a Vector, one value a step, or a text."""

    steps: NDArray[np.int64]
    value: Vector | NDArray[np.float64] | str


def evaluate(
    deadline: Deadline,
    view: View,
    expression: Expression,
    steps: NDArray[np.int64],
    more: Sequence[Source] = (),
) -> Result:
    """Evaluate an expression that is not a range vector at the steps (ms, ascending), over the view and more sources."""
    return Result(steps, _Evaluation(deadline, view, steps, more).value(expression))


def range_vector(
    deadline: Deadline, view: View, expression: MatrixSelector | Subquery, time_ms: int, more: Sequence[Source] = ()
) -> list[tuple[Series, NDArray[np.bool_]]]:
    """Return the samples of a range vector at one time, each series with its samples that are no stale markers."""
    evaluation = _Evaluation(deadline, view, np.array([time_ms], np.int64), more)
    series, ends = evaluation.range_samples(expression)
    found = []
    for one in series:
        inside = (one.times > ends[0] - expression.range_ms) & (one.times <= ends[0]) & ~is_stale(one.values)
        if inside.any():
            found.append((one, inside))
    return found


class _Evaluation:
    def __init__(
        self,
        deadline: Deadline,
        view: View,
        steps: NDArray[np.int64],
        more: Sequence[Source],
        ends: tuple[int, int] | None = None,
    ) -> None:
        """Evaluate at some steps; `ends` are the first and the last of the whole query, for `@ start()` and `@ end()`."""
        self._deadline = deadline
        self._more = more
        self._view = view
        self._steps = steps
        self._ends = ends or (int(steps[0]), int(steps[-1]))

    def value(self, node: Expression) -> Vector | NDArray[np.float64] | str:
        self._deadline.check()
        match node:
            case Number():
                return np.full(len(self._steps), node.value)
            case String():
                return node.value
            case VectorSelector():
                return self._instant(node)
            case Negation():
                operand = self.value(node.expression)
                if isinstance(operand, Vector):
                    return Vector(operand.labels, -operand.values, operand.present).renamed()
                assert not isinstance(operand, str)
                return -operand
            case Binary():
                return self._binary(node)
            case Aggregation():
                return self._aggregation(node)
            case Call():
                return self._call(node)
            case MatrixSelector() | Subquery():
                raise InvalidQuery("a range vector stands here, where an instant vector or a scalar is wanted", node.at)
        raise AssertionError(node)

    def vector(self, node: Expression) -> Vector:
        value = self.value(node)
        assert isinstance(value, Vector), "types were checked by the parser"
        return value

    def scalar(self, node: Expression) -> NDArray[np.float64]:
        value = self.value(node)
        assert isinstance(value, np.ndarray), "types were checked by the parser"
        return value

    # --- selectors ----------------------------------------------------------------------------------------

    def _times(self, shift: Shift) -> NDArray[np.int64]:
        """Return the times that a shifted selector looks at, one for each step."""
        match shift.at_time:
            case None:
                base = self._steps
            case "start":
                base = np.full_like(self._steps, self._ends[0])
            case "end":
                base = np.full_like(self._steps, self._ends[1])
            case fixed:
                base = np.full_like(self._steps, int(fixed))
        return base - shift.offset_ms

    def samples(self, selector: VectorSelector, range_ms: int) -> tuple[list[Series], NDArray[np.int64]]:
        times = self._times(selector.shift)
        first, last = int(times.min()) - range_ms, int(times.max())
        series = select(self._deadline, self._view, selector.matchers, first, last, self._more)
        vectors.check_cells(len(series), len(times))
        return series, times

    def _instant(self, node: VectorSelector) -> Vector:
        series, times = self.samples(node, LOOKBACK_MS)
        values = np.zeros((len(series), len(times)))
        present = np.zeros((len(series), len(times)), np.bool_)
        for row, one in enumerate(series):
            at = np.searchsorted(one.times, times, "right") - 1
            there = (at >= 0) & (one.times[at] > times - LOOKBACK_MS)
            values[row] = one.values[at]
            present[row] = there & ~is_stale(values[row])
        return Vector([one.labels for one in series], values, present).compact()

    def range_samples(self, node: Expression) -> tuple[list[Series], NDArray[np.int64]]:
        """Return the series of a range vector, and for each step the time at which its range ends, in ms."""
        if isinstance(node, MatrixSelector):
            return self.samples(node.selector, node.range_ms)
        assert isinstance(node, Subquery), "types were checked by the parser"
        times, step = self._times(node.shift), node.step_ms or SUBQUERY_STEP_MS
        first, last = int(times.min()) - node.range_ms, int(times.max())
        count = last // step - first // step
        if count > SUBQUERY_STEPS_MAX:
            raise QueryLimit(f"a subquery of {count} steps is longer than {SUBQUERY_STEPS_MAX}")
        if not count:
            return [], times
        steps = (first // step + 1 + np.arange(count, dtype=np.int64)) * step
        inner = _Evaluation(self._deadline, self._view, steps, self._more, self._ends).vector(node.expression)
        vectors.check_cells(len(inner.labels), len(times))
        rows = zip(inner.labels, inner.values, inner.present, strict=True)
        return [Series(labels, steps[there], values[there]) for labels, values, there in rows], times

    def _over_range(self, node: Expression, function: Callable[..., Any], *arguments: Any) -> Vector:
        assert isinstance(node, MatrixSelector | Subquery), "types were checked by the parser"
        series, times = self.range_samples(node)
        values = np.zeros((len(series), len(times)))
        present = np.zeros((len(series), len(times)), np.bool_)
        for row, one in enumerate(series):
            self._deadline.check()
            kept = ~is_stale(one.values)
            window = ranges.Window(one.times[kept], one.values[kept], times, node.range_ms, self._deadline.check)
            values[row], present[row] = function(window, *arguments)
        return Vector([one.labels for one in series], values, present).compact()

    # --- operators ----------------------------------------------------------------------------------------

    def _binary(self, node: Binary) -> Vector | NDArray[np.float64]:
        left, right = self.value(node.left), self.value(node.right)
        assert not isinstance(left, str)
        assert not isinstance(right, str)
        if isinstance(left, Vector) and isinstance(right, Vector):
            if node.op in ("and", "or", "unless"):
                return matching.set_operation(node.op, left, right, node.matching)
            return matching.matched(node, left, right, self._deadline.check)
        if isinstance(left, Vector):
            assert isinstance(right, np.ndarray)
            return vectors.with_scalar(node, left, right, scalar_left=False)
        if isinstance(right, Vector):
            return vectors.with_scalar(node, right, left, scalar_left=True)
        return vectors.apply(node.op, left, right).astype(np.float64)

    def _aggregation(self, node: Aggregation) -> Vector:
        vector = self.vector(node.expression)
        if node.parameter is None:
            return aggregation.aggregate(vector, node, None, self._deadline.check)
        if node.op == "count_values":
            return aggregation.count_values(vector, _text(node.parameter), node, self._deadline.check)
        parameter = self.scalar(node.parameter)
        match node.op:
            case "topk" | "bottomk":
                return aggregation.top(vector, parameter, node, self._deadline.check)
            case "limitk":
                return aggregation.first(vector, parameter, node)
            case "limit_ratio":
                return aggregation.share(vector, parameter, node)
        return aggregation.aggregate(vector, node, parameter, self._deadline.check)

    # --- functions ----------------------------------------------------------------------------------------

    def _call(self, node: Call) -> Vector | NDArray[np.float64]:
        name, arguments = node.function, node.arguments
        if any(one.type is Type.MATRIX for one in arguments):
            return self._call_over_range(node)
        if name in vectors.FUNCTIONS:
            vector = self.vector(arguments[0])
            with np.errstate(all="ignore"):
                changed = vectors.FUNCTIONS[name](vector.values, *(self.scalar(one) for one in arguments[1:]))
            return Vector(vector.labels, changed, vector.present).renamed()
        if name in dates.NAMES:
            vector = self.vector(arguments[0]) if arguments else self._spread(self._steps / 1000)
            return Vector(vector.labels, dates.part(name, vector.values), vector.present).renamed()
        match name:
            case "time":
                return self._steps / 1000
            case "pi":
                return np.full(len(self._steps), np.pi)
            case "vector":
                return self._spread(self.scalar(arguments[0]))
            case "scalar":
                return vectors.to_scalar(self.vector(arguments[0]))
            case "timestamp":
                return self._timestamps(arguments[0])
            case "absent":
                return _where_none(self.vector(arguments[0]), arguments[0])
            case "clamp":
                low, high = self.scalar(arguments[1]), self.scalar(arguments[2])
                return vectors.clamped(self.vector(arguments[0]), low, high)
            case "histogram_quantile":
                quantile, buckets = self.scalar(arguments[0]), self.vector(arguments[1])
                return histograms.histogram_quantile(quantile, buckets, self._deadline.check)
            case "histogram_fraction":
                lower, upper = self.scalar(arguments[0]), self.scalar(arguments[1])
                buckets = self.vector(arguments[2])
                return histograms.histogram_fraction(lower, upper, buckets, self._deadline.check)
            case "sort" | "sort_desc":
                return self.vector(arguments[0]).sorted_by_value(descending=name == "sort_desc")
        return self._call_with_labels(node)

    def _call_over_range(self, node: Call) -> Vector:
        name, arguments = node.function, node.arguments
        match name:
            case "last_over_time" | "first_over_time":
                return self._over_range(arguments[0], ranges.FUNCTIONS[name])
            case "quantile_over_time":
                return self._over_range(arguments[1], ranges.quantile_over_time, self.scalar(arguments[0])).renamed()
            case "predict_linear":
                ahead = self.scalar(arguments[1])
                return self._over_range(arguments[0], ranges.predict_linear, self._steps, ahead).renamed()
            case "double_exponential_smoothing" | "holt_winters":
                level, trend = self._factor(node, 1, "smoothing"), self._factor(node, 2, "trend")
                return self._over_range(arguments[0], ranges.smoothed, level, trend).renamed()
            case "absent_over_time":
                return _where_none(self._over_range(arguments[0], ranges.FUNCTIONS["present_over_time"]), arguments[0])
        return self._over_range(arguments[0], ranges.FUNCTIONS[name]).renamed()

    def _factor(self, node: Call, place: int, name: str) -> NDArray[np.float64]:
        """Return a factor of double_exponential_smoothing."""
        found = self.scalar(node.arguments[place])
        wrong = found[~((found > 0) & (found < 1))]
        if len(wrong):
            raise InvalidQuery(f"invalid {name} factor. Expected: 0 < factor < 1, got: {wrong[0]:f}", node.at)
        return found

    def _call_with_labels(self, node: Call) -> Vector:
        name, arguments = node.function, node.arguments
        if name in _NATIVE:
            raise InvalidQuery(
                f"the function {name} is of native histograms, which are classic ones here: see their series _count, _sum "
                "and _bucket",
                node.at,
            )
        vector, texts = self.vector(arguments[0]), [_text(one) for one in arguments[1:]]
        match name:
            case "label_replace":
                target, template, source, pattern = texts
                return relabel.replaced(vector, target, template, source, pattern, node.at)
            case "label_join":
                return relabel.joined(vector, texts[0], texts[1], texts[2:], node.at)
            case "sort_by_label" | "sort_by_label_desc":
                return relabel.ordered(vector, texts, descending=name.endswith("desc"))
        raise AssertionError(node)

    def _spread(self, values: NDArray[np.float64]) -> Vector:
        """Return a value for each step as a vector of one series without labels."""
        return Vector([()], values[np.newaxis, :], np.ones((1, len(values)), np.bool_))

    def _timestamps(self, node: Expression) -> Vector:
        if not isinstance(node, VectorSelector):
            vector = self.vector(node)
            now = np.broadcast_to(self._steps / 1000, vector.values.shape)
            return Vector(vector.labels, now, vector.present).renamed()
        series, times = self.samples(node, LOOKBACK_MS)
        values = np.zeros((len(series), len(times)))
        present = np.zeros((len(series), len(times)), np.bool_)
        for row, one in enumerate(series):
            at = np.searchsorted(one.times, times, "right") - 1
            present[row] = (at >= 0) & (one.times[at] > times - LOOKBACK_MS) & ~is_stale(one.values[at])
            values[row] = one.times[at] / 1000
        return Vector([one.labels for one in series], values, present).compact().renamed()


def _where_none(vector: Vector, node: Expression) -> Vector:
    """Return 1 where a vector has no series, with the labels that the node's selector gives for certain."""
    labels = {}
    selector = node.selector if isinstance(node, MatrixSelector) else node
    if isinstance(selector, VectorSelector):
        equal = [one for one in selector.matchers if one.op == "=" and one.name != "__name__"]
        labels = {
            one.name: one.value for one in equal if sum(one.name == other.name for other in selector.matchers) == 1
        }
    missing = np.logical_not(vector.present.any(axis=0)).reshape(1, -1)
    return Vector([tuple(sorted(labels.items()))], np.ones(missing.shape), missing).compact()


def _text(node: Expression) -> str:
    assert isinstance(node, String), "types were checked by the parser"
    return node.value
