r"""Spansets: what the stages of a pipeline make of whole traces, for all traces at once.

A spanset is a number, and each span has the number of the spanset that it is in, or -1: a span is in one at most. A
filter or an operation makes one spanset of each trace that has a match; `by()` splits spansets, `coalesce()` joins those
of a trace, a comparison of aggregates drops some. A spanset without spans is none.

| operation | what it leaves, of the spans on the right (with &, on both sides) |
| --- | --- |
| a && b | all of a and b, in traces that have both |
| a \|\| b | all of a and b |
| a >> b, a > b | descendants, children of an a |
| a << b, a < b | ancestors, parents of an a |
| a ~ b | siblings of an a |
| a !>> b … | every b of which a >> b is not true; an a need not be there |
| a &>> b … | every b of which a >> b is true, and every a of which b << a is |

Cost: numpy over all spans of the traces, and the compiled walk of `structure.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from collector.errors import InvalidQuery
from collector.query import match
from collector.query.traceql import values
from collector.query.traceql.arithmetic import combined
from collector.query.traceql.ast import (
    Aggregate,
    Coalesce,
    Filter,
    GroupBy,
    Literal,
    Pipeline,
    Scalar,
    ScalarFilter,
    ScalarOperation,
    Select,
    SpansetOperation,
    Stage,
    Type,
    result_type,
)
from collector.query.traceql.structure import Numbering
from collector.query.traceql.trees import Traces, related

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from collector.query.traceql.values import Column

_INVERSE = {">>": "<<", "<<": ">>", ">": "<", "<": ">", "~": "~"}


class Label(NamedTuple):
    """What `by()` or an aggregate has found: its name, its static type, and a value for each spanset."""

    name: str
    type: Type
    column: Column


@dataclass(slots=True)
class Sets:
    """Spansets: the number of each span's, -1 for none; how many there are; what is known of each."""

    number: NDArray[np.int64]
    count: int
    labels: list[Label] = field(default_factory=list)
    """What `by()` and aggregates have found."""

    @property
    def members(self) -> NDArray[np.intp]:
        """The rows of spans that are in one, ascending."""
        return np.flatnonzero(self.number >= 0)

    def kept(self, number: NDArray[np.int64]) -> Sets:
        """Return the spansets that have spans left when each span is in this one, numbered anew."""
        left = np.zeros(self.count, np.bool_)
        left[number[number >= 0]] = True
        fresh = np.append(np.cumsum(left) - 1, -1)
        rows = np.flatnonzero(left)
        labels = [one._replace(column=one.column.take(rows)) for one in self.labels]
        return Sets(fresh[number], len(rows), labels)


def check_stages(stages: Sequence[Stage]) -> None:
    """Raise InvalidQuery for a pipeline that is not evaluated, with what it is and where."""
    grouped = False
    for stage in stages:
        if isinstance(stage, GroupBy):
            grouped = True
        elif isinstance(stage, Coalesce):
            grouped = False
        elif isinstance(stage, SpansetOperation | Pipeline):
            if grouped:
                raise InvalidQuery("an operation on spansets behind by() is not supported; use coalesce()", stage.at)
            pending: list[object] = [stage]
            while pending:
                node = pending.pop()
                if isinstance(node, SpansetOperation):
                    pending += [node.left, node.right]
                elif isinstance(node, Pipeline):
                    check_stages(node.stages)


def evaluate(traces: Traces, stages: Sequence[Stage]) -> Sets:
    """Return the spansets that a pipeline leaves of whole traces."""
    return _pipeline(traces, stages, np.ones(traces.count, np.bool_))


def _pipeline(traces: Traces, stages: Sequence[Stage], inside: NDArray[np.bool_]) -> Sets:
    sets = _by_trace(traces, inside)
    for stage in stages:
        match stage:
            case Filter():
                sets = sets.kept(np.where(traces.mask(stage.expression), sets.number, -1))
            case SpansetOperation() | Pipeline():
                sets = _by_trace(traces, _spanset(traces, stage, sets.number >= 0))
            case ScalarFilter():
                sets = _compared(traces, sets, stage)
            case GroupBy():
                sets = _grouped(traces, sets, stage)
            case Coalesce():
                sets = _by_trace(traces, sets.number >= 0)
            case Select():
                pass  # says what to return of the spans
            case _:
                raise AssertionError(stage)
    return sets


def _by_trace(traces: Traces, mask: NDArray[np.bool_]) -> Sets:
    """Make one spanset of each trace's spans in the mask."""
    return Sets(np.empty(0, np.int64), len(traces.ids)).kept(np.where(mask, traces.trace, -1).astype(np.int64))


def _spanset(traces: Traces, node: Stage, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the spans that a filter, an operation or a pipeline in parentheses leaves of some."""
    if isinstance(node, Filter):
        return traces.mask(node.expression) & inside
    if isinstance(node, Pipeline):
        return _pipeline(traces, node.stages, inside).number >= 0
    assert isinstance(node, SpansetOperation)
    left, right = _spanset(traces, node.left, inside), _spanset(traces, node.right, inside)
    match node.op:
        case "||":
            return left | right
        case "&&":
            both = np.zeros((2, len(traces.ids)), np.bool_)
            both[0, traces.trace[left]] = True
            both[1, traces.trace[right]] = True
            return np.asarray((left | right) & np.logical_and(both[0], both[1])[traces.trace], np.bool_)
    base = node.op.lstrip("!&")
    found = related(base, traces, left, right)
    if node.op.startswith("!"):
        return right & ~found
    if node.op.startswith("&"):
        return found | related(_INVERSE[base], traces, right, left)
    return found


def _grouped(traces: Traces, sets: Sets, stage: GroupBy) -> Sets:
    """Split spansets by a value; spans without one are together."""
    rows = sets.members
    column = traces.gather(stage.expression, rows)
    codes, _ = values.codes(column)
    numbers = Numbering().add(sets.number[rows].astype(np.uint64), codes.astype(np.uint64))
    count = int(numbers.max(initial=-1)) + 1
    firsts = np.zeros(count, np.intp)
    firsts[numbers[::-1]] = np.arange(len(rows))[::-1]
    number = np.full(traces.count, -1, np.int64)
    number[rows] = numbers
    before = sets.number[rows[firsts]]
    labels = [one._replace(column=one.column.take(before)) for one in sets.labels]
    expression = stage.expression
    return Sets(number, count, [*labels, Label(f"by({expression})", expression.type, column.take(firsts))])


def _compared(traces: Traces, sets: Sets, stage: ScalarFilter) -> Sets:
    """Keep the spansets for which a comparison holds; without a number on both sides it does not."""
    labels: list[Label] = []
    left, _ = _scalar(traces, sets, stage.left, labels)
    right, _ = _scalar(traces, sets, stage.right, labels)
    holds = left.compared(stage.op, right)
    known = {one.name for one in sets.labels}
    sets = Sets(sets.number, sets.count, [*sets.labels, *(one for one in labels if one.name not in known)])
    return sets.kept(np.where(np.append(holds, False)[sets.number], sets.number, -1))


def _scalar(traces: Traces, sets: Sets, node: Scalar, labels: list[Label]) -> tuple[Column, Type]:
    """Return a number for each spanset, absent where there is none, and its type; note what aggregates have found."""
    if isinstance(node, Literal):
        if isinstance(node.value, float):
            return values.of_doubles(np.full(sets.count, node.value), np.ones(sets.count, np.bool_)), node.type
        return values.of_integers(np.full(sets.count, int(node.value or 0), np.int64)), node.type
    if isinstance(node, ScalarOperation):
        left, of_left = _scalar(traces, sets, node.left, labels)
        right, of_right = _scalar(traces, sets, node.right, labels)
        return combined(node.op, left, right, (of_left, of_right)), result_type(node.op, of_left, of_right)
    found = _aggregate(traces, sets, node)
    kind = Type.INT if node.expression is None else node.expression.type
    labels.append(Label(str(node), kind, found))
    return found, kind


def _aggregate(traces: Traces, sets: Sets, node: Aggregate) -> Column:
    """Aggregate the numbers of each spanset: exactly where all are integers, but for averages, and else in floats."""
    rows = sets.members
    number = sets.number[rows]
    if node.expression is None:
        return values.of_integers(np.bincount(number, minlength=sets.count).astype(np.int64))
    column = traces.gather(node.expression, rows)
    there = column.is_number()
    number, integer, double = number[there], column.integer[there], column.double[there]
    floats = column.type[there] == match.DOUBLE
    count = np.bincount(number, minlength=sets.count)
    if node.op == "avg":
        return values.of_doubles(np.bincount(number, double, sets.count) / np.maximum(count, 1), count > 0)
    whole = np.bincount(number[floats], minlength=sets.count) == 0
    exact = np.zeros(sets.count, np.int64)
    if node.op == "sum":
        np.add.at(exact, number, integer)
        inexact = np.bincount(number, double, sets.count)
    else:
        bounds = np.iinfo(np.int64)
        lowest = node.op == "min"
        exact[:] = bounds.max if lowest else bounds.min
        inexact = np.full(sets.count, np.inf if lowest else -np.inf)
        best = np.minimum if lowest else np.maximum
        best.at(exact, number, integer)
        best.at(inexact, number, double)
    kinds = np.where(count == 0, match.ABSENT, np.where(whole, match.INT, match.DOUBLE)).astype(np.uint8)
    doubles = np.where(whole, exact.astype(np.float64), inexact)
    return values.of_doubles(doubles, count > 0)._replace(type=kinds, integer=exact)
