"""Evaluation of PromQL, for all steps at once.

A query is evaluated at `steps`, times in ms. A scalar is an array with a value for each step; an instant vector is a
`Vector`: labels, and two matrices of one row a series and one column a step, values and whether there is one. Every
operation works on whole matrices with numpy; only range functions go series by series.

Semantics are Prometheus 3's: an instant selector takes the newest sample in (t - 5m, t], a range selector those in
(t - range, t]; a stale marker ends a series; rates extrapolate to the range's ends as Prometheus does. What is parsed
but not evaluated is refused by name and position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from collector.errors import InvalidQuery, QueryLimit
from collector.query.promql import ranges, vectors
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
CELLS_MAX = 20_000_000
"""Series times steps in one intermediate result."""


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
    deadline: Deadline, view: View, expression: MatrixSelector, time_ms: int, more: Sequence[Source] = ()
) -> list[tuple[Series, NDArray[np.bool_]]]:
    """Return the samples of a range selector at one time, each series with its samples that are no stale markers."""
    evaluation = _Evaluation(deadline, view, np.array([time_ms], np.int64), more)
    series, ends = evaluation.samples(expression.selector, expression.range_ms)
    found = []
    for one in series:
        inside = (one.times > ends[0] - expression.range_ms) & (one.times <= ends[0]) & ~is_stale(one.values)
        if inside.any():
            found.append((one, inside))
    return found


class _Evaluation:
    def __init__(self, deadline: Deadline, view: View, steps: NDArray[np.int64], more: Sequence[Source]) -> None:
        self._deadline = deadline
        self._more = more
        self._view = view
        self._steps = steps

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
                    return Vector(vectors.without_name(operand.labels), -operand.values, operand.present)
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
                base = np.full_like(self._steps, self._steps[0])
            case "end":
                base = np.full_like(self._steps, self._steps[-1])
            case fixed:
                base = np.full_like(self._steps, int(fixed))
        return base - shift.offset_ms

    def samples(self, selector: VectorSelector, range_ms: int) -> tuple[list[Series], NDArray[np.int64]]:
        times = self._times(selector.shift)
        first, last = int(times.min()) - range_ms, int(times.max())
        series = select(self._deadline, self._view, selector.matchers, first, last, self._more)
        if len(series) * len(times) > CELLS_MAX:
            raise QueryLimit(f"{len(series)} series times {len(times)} steps are more than {CELLS_MAX}")
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

    def _over_range(self, node: Expression, function: Callable[..., Any], *arguments: Any) -> Vector:
        if not isinstance(node, MatrixSelector):
            raise InvalidQuery("subqueries are not supported yet", node.at)
        series, times = self.samples(node.selector, node.range_ms)
        values = np.zeros((len(series), len(times)))
        present = np.zeros((len(series), len(times)), np.bool_)
        for row, one in enumerate(series):
            kept = ~is_stale(one.values)
            window = ranges.Window(one.times[kept], one.values[kept], times, node.range_ms)
            values[row], present[row] = function(window, *arguments)
        return Vector([one.labels for one in series], values, present).compact()

    # --- operators ----------------------------------------------------------------------------------------

    def _binary(self, node: Binary) -> Vector | NDArray[np.float64]:
        left, right = self.value(node.left), self.value(node.right)
        assert not isinstance(left, str)
        assert not isinstance(right, str)
        if isinstance(left, Vector) and isinstance(right, Vector):
            if node.matching.group:
                raise InvalidQuery(f"group_{node.matching.group} is not supported yet", node.at)
            if node.op in ("and", "or", "unless"):
                return vectors.set_operation(node.op, left, right, node.matching)
            return vectors.one_to_one(node, left, right)
        if isinstance(left, Vector):
            assert isinstance(right, np.ndarray)
            return vectors.with_scalar(node, left, right, scalar_left=False)
        if isinstance(right, Vector):
            return vectors.with_scalar(node, right, left, scalar_left=True)
        return vectors.apply(node.op, left, right).astype(np.float64)

    def _aggregation(self, node: Aggregation) -> Vector:
        vector = self.vector(node.expression)
        if node.op in ("topk", "bottomk"):
            assert node.parameter is not None
            return vectors.top(vector, self.scalar(node.parameter), node)
        if node.op in ("count_values", "limitk", "limit_ratio"):
            raise InvalidQuery(f"the aggregation {node.op} is not supported yet", node.at)
        parameter = self.scalar(node.parameter) if node.parameter is not None else None
        return vectors.aggregate(vector, node, parameter)

    # --- functions ----------------------------------------------------------------------------------------

    def _call(self, node: Call) -> Vector | NDArray[np.float64]:
        name, arguments = node.function, node.arguments
        if name in ranges.FUNCTIONS:
            vector = self._over_range(arguments[0], ranges.FUNCTIONS[name])
            return vector if name == "last_over_time" else vector.renamed()
        if name == "quantile_over_time":
            return self._over_range(arguments[1], ranges.quantile_over_time, self.scalar(arguments[0])).renamed()
        if name in vectors.FUNCTIONS:
            vector = self.vector(arguments[0])
            with np.errstate(all="ignore"):
                changed = vectors.FUNCTIONS[name](vector.values, *(self.scalar(one) for one in arguments[1:]))
            return Vector(vector.labels, changed, vector.present).renamed()
        match name:
            case "time":
                return self._steps / 1000
            case "pi":
                return np.full(len(self._steps), np.pi)
            case "vector":
                values = self.scalar(arguments[0])[np.newaxis, :]
                return Vector([()], values, np.ones_like(values, np.bool_))
            case "scalar":
                return vectors.to_scalar(self.vector(arguments[0]))
            case "timestamp":
                return self._timestamps(arguments[0])
            case "absent":
                return self._absent(arguments[0])
            case "histogram_quantile":
                return vectors.histogram_quantile(self.scalar(arguments[0]), self.vector(arguments[1]))
            case "sort" | "sort_desc":
                return self.vector(arguments[0]).sorted_by_value(descending=name == "sort_desc")
        raise InvalidQuery(f"the function {name} is not supported yet", node.at)

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

    def _absent(self, node: Expression) -> Vector:
        vector = self.vector(node)
        labels = {}
        if isinstance(node, VectorSelector):
            equal = [one for one in node.matchers if one.op == "=" and one.name != "__name__"]
            labels = {
                one.name: one.value for one in equal if sum(one.name == other.name for other in node.matchers) == 1
            }
        missing = np.logical_not(vector.present.any(axis=0)).reshape(1, -1)
        return Vector([tuple(sorted(labels.items()))], np.ones((1, len(self._steps))), missing).compact()
