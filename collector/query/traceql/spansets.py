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

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from collector.errors import InvalidQuery
from collector.query.traceql import values
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
)
from collector.query.traceql.structure import Numbering
from collector.query.traceql.trees import Traces, related

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from collector.query.traceql.values import Column

_INVERSE = {">>": "<<", "<<": ">>", ">": "<", "<": ">", "~": "~"}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
}


@dataclass(slots=True)
class Sets:
    """Spansets: the number of each span's, -1 for none; how many there are; what is known of each."""

    number: NDArray[np.int64]
    count: int
    labels: list[tuple[str, Column]] = field(default_factory=list)
    """What `by()` and aggregates have found, with an entry for each spanset."""

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
        labels = [(name, column.take(rows)) for name, column in self.labels]
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
    labels = [(name, known.take(before)) for name, known in sets.labels]
    return Sets(number, count, [*labels, (f"by({stage.expression})", column.take(firsts))])


def _compared(traces: Traces, sets: Sets, stage: ScalarFilter) -> Sets:
    """Keep the spansets for which a comparison holds; without a number on both sides it does not."""
    labels: list[tuple[str, Column]] = []
    left = _scalar(traces, sets, stage.left, labels)
    right = _scalar(traces, sets, stage.right, labels)
    with np.errstate(invalid="ignore"):
        holds = np.asarray(_COMPARE[stage.op](left, right) & ~np.isnan(left) & ~np.isnan(right), np.bool_)
    known = {name for name, _ in sets.labels}
    sets = Sets(sets.number, sets.count, [*sets.labels, *(one for one in labels if one[0] not in known)])
    return sets.kept(np.where(np.append(holds, False)[sets.number], sets.number, -1))


def _scalar(traces: Traces, sets: Sets, node: Scalar, labels: list[tuple[str, Column]]) -> NDArray[np.float64]:
    """Return a number for each spanset, NaN where there is none; note what aggregates have found."""
    if isinstance(node, Literal):
        return np.full(sets.count, float(node.value or 0))
    if isinstance(node, ScalarOperation):
        left, right = _scalar(traces, sets, node.left, labels), _scalar(traces, sets, node.right, labels)
        with np.errstate(all="ignore"):
            return np.asarray(_ARITHMETIC[node.op](left, right), np.float64)
    found = _aggregate(traces, sets, node)
    whole = bool(np.isfinite(found).all() and (found == np.floor(found)).all())
    column = values.of_integers(found.astype(np.int64)) if whole else values.of_doubles(found, ~np.isnan(found))
    labels.append((str(node), column))
    return found


def _aggregate(traces: Traces, sets: Sets, node: Aggregate) -> NDArray[np.float64]:
    rows = sets.members
    number = sets.number[rows]
    if node.expression is None:
        return np.bincount(number, minlength=sets.count).astype(np.float64)
    column = traces.gather(node.expression, rows)
    there = column.is_number()
    number, value = number[there], column.double[there]
    count = np.bincount(number, minlength=sets.count)
    if node.op in ("min", "max"):
        worst = np.inf if node.op == "min" else -np.inf
        found = np.full(sets.count, worst)
        (np.minimum if node.op == "min" else np.maximum).at(found, number, value)
        return np.where(count > 0, found, np.nan)
    total = np.bincount(number, value, sets.count)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / np.maximum(count, 1) if node.op == "avg" else total, np.nan)
