"""How a query is run: over single spans, or over whole traces, and which traces can be left out beforehand.

A query of one filter that asks nothing of other spans, perhaps with `select()` behind it, is run span by span (`flat`).
Any other is run on whole traces, and then these conditions on single spans say which traces come into question:

* `seed`: every span of the answer fulfils it. A trace without such a span is not looked at.
* `required`: each must be fulfilled by some span of the trace.

Both are implied by the query, so the answer is the same without them. A query that wants whole traces only because of
what one span's filter asks of its trace (`trace:duration`, `parent.a`) has the rest of that filter as seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from collector.errors import InvalidQuery
from collector.query.traceql.asking import demanded_key, fields_of, needs_tree
from collector.query.traceql.ast import (
    Attribute,
    Binary,
    Expression,
    Filter,
    Intrinsic,
    Literal,
    Metrics,
    Pipeline,
    Query,
    Select,
    SpansetOperation,
    Stage,
    Type,
)
from collector.query.traceql.spansets import check_stages
from collector.query.traceql.stages import is_metrics, spanset_part

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Plan:
    """How the spansets of a query are found."""

    stages: tuple[Stage, ...]
    """All stages up to a metrics function."""
    flat: bool
    """The answer's spans are those that fulfil `seed`."""
    seed: Expression | None
    """What every span of the answer fulfils; None: any."""
    required: tuple[Expression, ...]
    """What some span of every trace in the answer fulfils, each of them."""
    fields: tuple[Attribute | Intrinsic, ...]
    """The fields that the query mentions or selects, to return with the spans."""

    @property
    def key(self) -> tuple[str, bytes] | None:
        """An index and a key without which no span is in the answer."""
        return demanded_key(self.seed)


def plan(query: Query | Expression | None) -> Plan:
    """Plan a query, or the expression of a single filter. Raises InvalidQuery for what is not evaluated."""
    stages: tuple[Stage, ...] = spanset_part(query) if isinstance(query, Query) else (Filter(query),)
    check_stages(stages)
    first = stages[0]
    rest = tuple(stage for stage in stages[1:] if not isinstance(stage, Select))
    is_plain = isinstance(first, Filter) and not rest and not needs_tree(first.expression)
    if isinstance(query, Query):
        is_plain = is_plain and not any(needs_tree(one) for one in _measured(query))
    seed = _seed(first)
    required = tuple(dict.fromkeys(one for one in _required(first) if one != seed))
    mentioned = [one for stage in stages for one in _fields(stage)]
    return Plan(stages, is_plain, seed, required, tuple(dict.fromkeys(mentioned)))


def _measured(query: Query) -> Iterator[Expression | None]:
    """Yield the expressions that metrics functions evaluate."""
    for stage in query.pipeline.stages:
        if isinstance(stage, Metrics):
            yield from stage.by
            for one in stage.arguments:
                yield one.expression if isinstance(one, Filter) else one


def spansets_only(query: Query) -> Query:
    """Return a query that yields spans; InvalidQuery for one that yields series."""
    if is_metrics(query):
        stage = query.pipeline.stages[len(spanset_part(query))]
        raise InvalidQuery("this is a metrics query: ask /api/metrics/query_range", stage.at)
    return query


def _alone(expression: Expression | None) -> Expression | None:
    """Return what a condition asks of the span alone; None for nothing."""
    if expression is None or not needs_tree(expression):
        return expression
    if isinstance(expression, Binary) and expression.op == "&&":
        left, right = _alone(expression.left), _alone(expression.right)
        return left if right is None else right if left is None else Binary("&&", left, right)
    return None


def _either(left: Expression | None, right: Expression | None) -> Expression | None:
    if left is None or right is None or left == right:
        return None if left is None or right is None else left
    return Binary("||", left, right)


def _seed(node: Stage) -> Expression | None:
    if isinstance(node, Filter):
        return _alone(node.expression)
    if isinstance(node, Pipeline):
        return _seed(node.stages[0])
    if isinstance(node, SpansetOperation):
        right = _seed(node.right)
        if node.op in ("&&", "||") or node.op.startswith("&"):
            return _either(_seed(node.left), right)
        return right
    return None


def _required(node: Stage) -> Iterator[Expression]:
    if isinstance(node, Filter):
        found = _alone(node.expression)
        if found is not None and found != Literal(Type.BOOL, value=True):
            yield found
    elif isinstance(node, Pipeline):
        yield from _required(node.stages[0])
    elif isinstance(node, SpansetOperation) and node.op != "||":
        if not node.op.startswith("!"):
            yield from _required(node.left)
        yield from _required(node.right)


def _fields(node: Stage) -> Iterator[Attribute | Intrinsic]:
    if isinstance(node, Filter):
        yield from fields_of(node.expression)
    elif isinstance(node, SpansetOperation):
        yield from _fields(node.left)
        yield from _fields(node.right)
    elif isinstance(node, Pipeline):
        for stage in node.stages:
            yield from _fields(stage)
    elif isinstance(node, Select):
        for expression in node.fields:
            yield from fields_of(expression)
