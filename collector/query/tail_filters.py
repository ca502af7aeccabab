"""What a live tail may ask, made into functions over a slice of a committed block.

Matching is that of queries: the same expressions over the same columns, for a block at once. What needs the whole trace
(its root, its duration, a parent) cannot be known when a span arrives, and is refused by name, like everything that is
more than one filter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from collector.errors import InvalidQuery
from collector.otlp.signals import BY_NAME, LOGS, TRACES, Signal
from collector.query.logql import ast as logql
from collector.query.logql.plan import prepare
from collector.query.logql.source import Statistics
from collector.query.slices import Slice
from collector.query.traceql.asking import TREE_INTRINSICS, asked_first, demanded_key, fields_of
from collector.query.traceql.ast import Attribute, Filter, SpansetOperation
from collector.query.traceql.evaluate import Evaluation
from collector.query.traceql.parser import parse
from collector.store import key_matches

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.logql.source import Source
    from collector.query.traceql.ast import Expression
    from collector.store import View

    Matcher = Callable[[Slice, View, Deadline], NDArray[np.intp]]
    Matching = tuple[Matcher, tuple[str, bytes] | None]
    """What finds matching rows, and the key in an index that all of them have, if there is one."""


OF_TRACES: Final = TREE_INTRINSICS
"""Intrinsics that only the whole trace can tell."""


def spans(query: str) -> Matching:
    """Return what finds the spans that a TraceQL query matches, and the key that all of them have, if there is one.

    Raises InvalidQuery for what is more than one spanset, and for what asks about more than the span.
    """
    expression = _one_filter(query).expression if query.strip() else None
    key = demanded_key(expression)
    return SpanFilter(expression, key), key


class SpanFilter:
    """What finds the spans that fulfil a condition."""

    def __init__(self, expression: Expression | None, key: tuple[str, bytes] | None) -> None:
        """Take a condition on single spans, and the key that all of them have, if there is one."""
        self._expression = expression
        self._key = key
        self.fields = asked_first(expression) if expression is not None and key is None else []
        """What it asks of every span."""

    def __call__(self, piece: Slice, view: View, deadline: Deadline) -> NDArray[np.intp]:
        """Return the rows that match."""
        return self.among(Evaluation(piece))

    def among(self, records: Evaluation) -> NDArray[np.intp]:
        """Return the rows that match, of records that others look at, too."""
        if self._key is not None:
            rows = records.rows[key_matches(records.block, *self._key)[records.rows]]
            if not rows.size:
                return rows
            records = Evaluation(Slice(records.block, rows))
        return records.matching(self._expression)


def _one_filter(query: str) -> Filter:
    """Return the filter that a query is; InvalidQuery names the first thing that is more, or needs more than the span."""
    stages = parse(query).pipeline.stages
    first = stages[0]
    if not isinstance(first, Filter) or len(stages) > 1:
        one = first if not isinstance(first, Filter) else stages[1]
        name = f"the operator {one.op}" if isinstance(one, SpansetOperation) else f"the stage {one}"[:100]
        raise InvalidQuery(f"only single spans can be asked about here, by one filter {{ … }}, and not {name}", one.at)
    for field in fields_of(first.expression):
        if field.parent if isinstance(field, Attribute) else field.name in OF_TRACES:
            name = str(field) if isinstance(field, Attribute) else field.name
            raise InvalidQuery(
                f"{name} is not known of a span by itself; only single spans can be asked about here", field.at
            )
    return first


def lines(query: str) -> Matching:
    """The same for log records and LogQL. Raises InvalidQuery for a query of metrics."""
    if not query.strip():
        return (lambda piece, view, deadline: piece.rows), None
    plan = prepare(query)
    if not isinstance(plan.expression, logql.LogQuery):
        raise InvalidQuery("only log lines can be asked about here; this is a query of metrics", 0)
    [source] = plan.sources.values()
    service = source.selection.service
    return _of_source(source), ("service", service) if service is not None else None


def _of_source(source: Source) -> Matcher:
    statistics = Statistics()
    return lambda piece, view, deadline: source.batch(piece, view, deadline, statistics).rows


LANGUAGES: Final[dict[Signal, Callable[[str], Matching]]] = {TRACES: spans, LOGS: lines}
"""What reads the query of a signal's tail."""


def signal_of(name: str) -> Signal:
    """Return the signal that is to be tailed; raise InvalidQuery for any other name."""
    signal = BY_NAME.get(name)
    if signal not in LANGUAGES:
        wanted = " or ".join(one.name for one in LANGUAGES)
        raise InvalidQuery(f"signal must be {wanted}, not {name[:50]!r}")
    return signal
