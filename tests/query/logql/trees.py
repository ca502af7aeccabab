"""Hypothesis strategies for LogQL syntax trees: anything that the parser can return, and little else."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from collector.query.logql import ast, parser

TEXTS = st.text(
    st.characters(codec="utf-8") | st.sampled_from(list('"\\`\n\t\r|={}()')),
    max_size=8,
)
EXPRESSIONS = st.sampled_from(["", "a+", ".*", "(?i)error|warn", r"\d{2,3}", "x{1}y", "é."])
LABELS = st.sampled_from(["a", "b_2", "_x", "sum", "by", "on", "rate", "offset", "service_name", "__error__", "n:s"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 1000).map(float)
DURATIONS = st.integers(1, 10**15) | st.sampled_from([5_000_000_000, 90 * 60 * 10**9, 86_400 * 10**9])
SIGNED_DURATIONS = DURATIONS | DURATIONS.map(lambda ns: -ns)
SIZES = st.integers(-(2**63) + 1, 2**63 - 1) | st.sampled_from([0, 1024, 20_000, 3 << 30])


def some(element: st.SearchStrategy, smallest: int = 0, largest: int = 3) -> st.SearchStrategy:
    """Return a strategy for short tuples."""
    return st.lists(element, min_size=smallest, max_size=largest).map(tuple)


MATCHERS = st.builds(ast.Matcher, LABELS, st.sampled_from(["=", "!="]), TEXTS) | st.builds(
    ast.Matcher, LABELS, st.sampled_from(["=~", "!~"]), EXPRESSIONS
)
SELECTORS = st.builds(
    lambda needed, others: ast.Selector((*others, needed)),
    st.builds(ast.Matcher, LABELS, st.just("="), TEXTS.filter(bool)),
    some(MATCHERS, 0, 2),
)
COMPARISONS = st.sampled_from(sorted(ast.COMPARISONS))
FILTERS = st.recursive(
    st.one_of(
        MATCHERS,
        st.builds(ast.NumberFilter, LABELS, COMPARISONS, NUMBERS),
        st.builds(ast.DurationFilter, LABELS, COMPARISONS, SIGNED_DURATIONS),
        st.builds(ast.SizeFilter, LABELS, COMPARISONS, SIZES),
        st.builds(ast.AddressFilter, LABELS, st.sampled_from(["=", "!="]), TEXTS),
    ),
    lambda inner: st.builds(ast.And, some(inner, 2)) | st.builds(ast.Or, some(inner, 2)),
    max_leaves=6,
)
OPERANDS = st.builds(ast.LineOperand, TEXTS, st.booleans())
EXTRACTIONS = some(st.builds(ast.Extraction, LABELS, TEXTS))
ASSIGNMENTS = st.builds(ast.LabelAssignment, LABELS, LABELS, st.just(False)) | st.builds(
    ast.LabelAssignment, LABELS, TEXTS, st.just(True)
)
LABEL_STAGES = st.builds(ast.LabelStage, FILTERS)
STAGES = st.one_of(
    st.builds(ast.LineFilter, st.sampled_from(["|=", "!="]), some(OPERANDS, 1)),
    st.builds(ast.LineFilter, st.sampled_from(["|>", "!>"]), some(st.builds(ast.LineOperand, TEXTS), 1)),
    st.builds(ast.LineFilter, st.sampled_from(["|~", "!~"]), some(st.builds(ast.LineOperand, EXPRESSIONS), 1)),
    LABEL_STAGES,
    st.builds(ast.Json, EXTRACTIONS),
    st.builds(ast.Logfmt, st.booleans(), st.booleans(), EXTRACTIONS),
    st.builds(ast.Pattern, TEXTS),
    st.builds(ast.Regexp, EXPRESSIONS),
    st.builds(ast.Unpack),
    st.builds(ast.LineFormat, TEXTS),
    st.lists(ASSIGNMENTS, min_size=1, max_size=3, unique_by=lambda each: each.label).map(
        lambda each: ast.LabelFormat(tuple(each))
    ),
    st.builds(ast.Decolorize),
    st.builds(ast.Drop, some(LABELS | MATCHERS, 1)),
    st.builds(ast.Keep, some(LABELS | MATCHERS, 1)),
)


def reachable(stages: tuple[ast.Stage, ...]) -> bool:
    """Tell whether a text can say this: `| drop a != "x"` drops by a matcher and is not two stages."""
    return not any(
        isinstance(before, ast.Drop | ast.Keep)
        and isinstance(before.labels[-1], str)
        and isinstance(after, ast.LineFilter)
        and after.op in ("!=", "!~")
        for before, after in itertools.pairwise(stages)
    )


LOG_QUERIES = st.builds(ast.LogQuery, SELECTORS, some(STAGES).filter(reachable))
UNWRAPS = st.builds(ast.Unwrap, LABELS, st.sampled_from(["", "bytes", "duration", "duration_seconds"]))
UNWRAPPED = st.builds(
    lambda query, unwrap, filters: ast.LogQuery(query.selector, (*query.stages, unwrap, *filters)),
    LOG_QUERIES,
    UNWRAPS,
    some(LABEL_STAGES, 0, 1),
)
GROUPINGS = st.builds(ast.Grouping, st.booleans(), some(LABELS))
_TAKE_LINES = sorted(parser.LINE_AGGREGATIONS | {"rate", "absent_over_time"})
_TAKE_SAMPLES = sorted(parser.SAMPLE_AGGREGATIONS | {"rate", "absent_over_time"})


def _range_aggregation(op: str, query: ast.LogQuery, span: int, offset: int, fixed, parameter: float, grouping):
    return ast.RangeAggregation(
        op,
        ast.LogRange(query, span, offset, fixed),
        parameter if op == "quantile_over_time" else None,
        None if op in parser.UNGROUPED_AGGREGATIONS else grouping,
    )


def _vector_aggregation(op: str, expression: ast.Metric, parameter: int, grouping):
    return ast.VectorAggregation(
        op,
        expression,
        float(parameter) if op in parser.SELECTING_AGGREGATIONS else None,
        None if op in ("sort", "sort_desc", "approx_topk") else grouping,
    )


OFFSETS = st.just(0) | SIGNED_DURATIONS
FIXED = st.none() | st.sampled_from(["start", "end"]) | st.integers(-(10**12), 10**13 // 2)
RANGE_AGGREGATIONS = st.builds(
    _range_aggregation,
    st.sampled_from(_TAKE_LINES), LOG_QUERIES, DURATIONS, OFFSETS, FIXED, NUMBERS, st.none() | GROUPINGS,
) | st.builds(
    _range_aggregation,
    st.sampled_from(_TAKE_SAMPLES), UNWRAPPED, DURATIONS, OFFSETS, FIXED, NUMBERS, st.none() | GROUPINGS,
)  # fmt: skip
SERIES = RANGE_AGGREGATIONS | st.builds(ast.Constant, NUMBERS)


@st.composite
def _binary(draw, operand: st.SearchStrategy) -> ast.Binary:
    left, right = draw(operand), draw(operand)
    op = draw(st.sampled_from(sorted(ast.PRECEDENCE)))
    if op in ast.SET_OPERATORS and (parser.is_scalar(left) or parser.is_scalar(right)):
        op = "-"
    matching = None
    if draw(st.booleans()):
        group = "" if op in ast.SET_OPERATORS else draw(st.sampled_from(["", "left", "right"]))
        on = draw(st.booleans())
        labels = draw(some(LABELS))
        include = tuple(label for label in draw(some(LABELS)) if not (on and label in labels)) if group else ()
        matching = ast.Matching(on, labels, group, include)
    return ast.Binary(op, left, right, op in ast.COMPARISONS and draw(st.booleans()), matching)


def _series_only(expression: ast.Metric) -> bool:
    return not parser.is_scalar(expression)


METRICS = st.recursive(
    SERIES | st.builds(ast.Number, NUMBERS),
    lambda inner: st.one_of(
        _binary(inner),
        st.builds(
            _vector_aggregation,
            st.sampled_from(sorted(parser.VECTOR_AGGREGATIONS)),
            inner.filter(_series_only),
            st.integers(1, 100),
            st.none() | GROUPINGS,
        ),
        st.builds(ast.LabelReplace, inner.filter(_series_only), LABELS, TEXTS, LABELS, EXPRESSIONS),
    ),
    max_leaves=5,
)
QUERIES = LOG_QUERIES | METRICS
"""Whole queries."""
