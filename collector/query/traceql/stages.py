"""What a pipeline may be made of: metrics functions and their arguments, the order of stages, hints.

The parser asks as the tree grows, so that each mistake has its column.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Final

from collector.errors import InvalidQuery
from collector.query.traceql.ast import (
    NUMERIC,
    Expression,
    Filter,
    Literal,
    Metrics,
    MetricsFilter,
    Pipeline,
    Query,
    SeriesArithmetic,
    SeriesOperand,
    SpansetOperation,
    Stage,
    Type,
)
from collector.query.traceql.lexer import INTEGER_MAX, TOO_LARGE

if TYPE_CHECKING:
    from collections.abc import Iterator

_OVER_TIME: Final = ("min_over_time", "max_over_time", "avg_over_time", "sum_over_time", "histogram_over_time")
FIRST_STAGE: Final = ("rate", "count_over_time", *_OVER_TIME, "quantile_over_time", "compare")
"""What makes series of spans."""
SECOND_STAGE: Final = ("topk", "bottomk")
"""What chooses among series."""
METRICS_FUNCTIONS: Final = FIRST_STAGE + SECOND_STAGE
SERIES_OPERATORS: Final = ("+", "-", "*", "/")
"""What combines series."""
QUANTILES_MAX: Final = 20
"""Quantiles of one query."""
TOP_MAX: Final = 10_000
"""The largest k of topk, bottomk and compare."""

_EXACT: Final = ("sample", "span_sample", "trace_sample", "most_recent", "spanonly_fetch")
HINTS: Final = (*_EXACT, "exemplars", "extrapolate")
"""Every hint. `exemplars` says how many; `extrapolate`, experimental in Tempo, is refused unless it is false; all others
allow Tempo to answer less exactly, or ask for what is always done here."""


def check_hint(name: str, value: Literal, at: int) -> None:
    """Raise InvalidQuery for a hint that does not exist, or whose value is of the wrong type."""
    if name not in HINTS:
        raise InvalidQuery(f"there is no hint {name!r}; there are {', '.join(HINTS)}", at)
    if name == "extrapolate" and value.value is True:
        raise InvalidQuery("the hint extrapolate, counting spans by their sampling probability, is not supported", at)
    wanted = {
        "most_recent": (Type.BOOL,),
        "spanonly_fetch": (Type.BOOL,),
        "extrapolate": (Type.BOOL,),
        "exemplars": (Type.BOOL, Type.INT),
        "sample": (Type.BOOL, Type.FLOAT, Type.INT),
    }.get(name, (Type.FLOAT, Type.INT, Type.BOOL))
    if value.type not in wanted:
        raise InvalidQuery(f"the hint {name} wants {' or '.join(one.value for one in wanted)}, not {value}", value.at)


def check_metrics(function: str, arguments: tuple[Expression | Filter, ...], at: int) -> None:
    """Raise InvalidQuery unless a metrics function takes these arguments."""
    if function == "compare":
        _check_compare(arguments, at)
        return
    for one in arguments:
        if isinstance(one, Filter):
            raise InvalidQuery(f"{function}() takes no filter", one.at)
    if function in ("rate", "count_over_time"):
        if arguments:
            raise InvalidQuery(f"{function}() takes nothing", at)
        return
    if function in SECOND_STAGE:
        if len(arguments) != 1 or not 1 <= _whole(arguments[0]) <= TOP_MAX:
            raise InvalidQuery(f"{function}() wants a number of series from 1 to {TOP_MAX}", at)
        return
    measured = arguments[0] if arguments else None
    if measured is None or isinstance(measured, Filter) or measured.type not in (*NUMERIC, Type.ATTRIBUTE):
        raise InvalidQuery(f"{function}() wants a number of each span, like duration", at)
    if function == "quantile_over_time":
        if not 2 <= len(arguments) <= 1 + QUANTILES_MAX:
            raise InvalidQuery(f"quantile_over_time() wants 1 to {QUANTILES_MAX} quantiles behind the field", at)
        for one in arguments[1:]:
            quantile = one.value if isinstance(one, Literal) and one.type in (Type.INT, Type.FLOAT) else None
            if not isinstance(quantile, int | float) or not 0 <= quantile <= 1:
                raise InvalidQuery("a quantile is a number from 0 to 1", one.at)
    elif len(arguments) > 1:
        raise InvalidQuery(f"{function}() takes one field", arguments[1].at)


def _check_compare(arguments: tuple[Expression | Filter, ...], at: int) -> None:
    if not arguments or not isinstance(arguments[0], Filter):
        raise InvalidQuery("compare() wants a filter first, like { status = error }", at)
    if len(arguments) not in (1, 2, 4):
        raise InvalidQuery("compare() wants a filter, top N, and start and end, both or neither", at)
    for one in arguments[1:]:
        if _whole(one) < 0:
            raise InvalidQuery("compare() wants whole numbers behind the filter", one.at)
    if len(arguments) > 1 and not 1 <= _whole(arguments[1]) <= TOP_MAX:
        raise InvalidQuery(f"compare() returns the top 1 to {TOP_MAX} values", arguments[1].at)


def _whole(argument: Expression | Filter) -> int:
    """Return a whole number's value, or -1 for anything else."""
    if isinstance(argument, Literal) and argument.type is Type.INT and isinstance(argument.value, int):
        return argument.value
    return -1


def check_number(literal: Literal) -> Literal:
    """Raise InvalidQuery unless series can be combined with it."""
    if literal.type not in (Type.INT, Type.FLOAT):
        raise InvalidQuery(f"series are combined with series and numbers, not {literal.type.value}", literal.at)
    return literal


def joined(op: str, left: SeriesOperand, right: SeriesOperand, at: int) -> SeriesOperand:
    """Return a combination of series; of two numbers what they make, of integers an integer, cut towards 0."""
    if not isinstance(left, Literal) or not isinstance(right, Literal):
        return SeriesArithmetic(op, left, right, at)
    one, other = left.value, right.value
    assert isinstance(one, int | float)
    assert isinstance(other, int | float)
    whole = isinstance(one, int) and isinstance(other, int)
    if op == "/" and other == 0:
        raise InvalidQuery("a number is divided by 0", at)
    value = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[op](one, other)
    if whole and op == "/":
        quotient = abs(int(one)) // abs(int(other))
        value = quotient if (one < 0) == (other < 0) else -quotient
    if abs(value) > INTEGER_MAX if whole else not math.isfinite(value):
        raise InvalidQuery(TOO_LARGE if whole else "a number is too large", at)
    return Literal(Type.INT if whole else Type.FLOAT, value, at)


def check_order(pipeline: Pipeline, *, outermost: bool = True) -> None:
    """Raise InvalidQuery for a metrics function where only spansets may be, or a stage that wants what is not there."""
    series = False
    for stage in pipeline.stages:
        if isinstance(stage, Metrics):
            if not outermost:
                raise InvalidQuery(f"{stage.op}() inside of parentheses is not supported", stage.at)
            if series and stage.op not in SECOND_STAGE:
                raise InvalidQuery(f"{stage.op}() works on spans, and here are series already", stage.at)
            if not series and stage.op in SECOND_STAGE:
                raise InvalidQuery(f"{stage.op}() chooses among series: write it behind rate() or the like", stage.at)
            if stage.op in (*SECOND_STAGE, "compare") and stage.by:
                raise InvalidQuery(f"{stage.op}() takes no by ()", stage.at)
            series = True
        elif isinstance(stage, SeriesArithmetic):
            series = True
            for inner in _operands(stage):
                check_order(inner)
                compared = next((one for one in inner.stages if isinstance(one, Metrics) and one.op == "compare"), None)
                if compared is not None:
                    raise InvalidQuery("series of compare() cannot be combined", compared.at)
        elif isinstance(stage, MetricsFilter):
            continue
        elif series:
            raise InvalidQuery("a stage on spansets cannot stand behind a metrics function", stage.at)
        else:
            for inner in _inner(stage):
                check_order(inner, outermost=False)


def _inner(stage: object) -> list[Pipeline]:
    """Return the pipelines in parentheses right inside a stage."""
    found: list[Pipeline] = []
    pending = [stage]
    while pending:
        node = pending.pop()
        if isinstance(node, Pipeline):
            found.append(node)
        elif isinstance(node, SpansetOperation):
            pending += [node.left, node.right]
    return found


def _operands(node: SeriesOperand) -> Iterator[Pipeline]:
    """Yield the pipelines that are combined."""
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, Pipeline):
            yield one
        elif isinstance(one, SeriesArithmetic):
            pending += [one.right, one.left]


def is_metrics(query: Query) -> bool:
    """Tell whether a query yields series instead of spans."""
    return any(isinstance(stage, Metrics | SeriesArithmetic) for stage in query.pipeline.stages)


def spanset_part(query: Query) -> tuple[Stage, ...]:
    """Return the stages that yield spansets, without metrics functions and what follows them."""
    stages: list[Stage] = []
    for stage in query.pipeline.stages:
        if isinstance(stage, Metrics | MetricsFilter | SeriesArithmetic):
            break
        stages.append(stage)
    return tuple(stages)
