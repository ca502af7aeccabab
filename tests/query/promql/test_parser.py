"""PromQL's grammar: what prints parses to the same tree, and mistakes are named as Prometheus names them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import InvalidQuery
from collector.query.promql.ast import (
    Aggregation,
    Binary,
    Call,
    Expression,
    Matcher,
    MatrixSelector,
    Number,
    Shift,
    Type,
    VectorSelector,
)
from collector.query.promql.parser import parse

_text = st.text(max_size=5)
_matchers = st.lists(
    st.builds(Matcher, st.sampled_from(["job", "le", "a.b"]), st.sampled_from(["=", "!="]), _text), max_size=2
)
_shifts = st.builds(
    Shift, st.sampled_from([0, 60_000, -5_000, 90_061_001]), st.sampled_from([None, "start", "end", 1_000, -2_500])
)
_selectors = st.builds(
    lambda name, matchers, shift: VectorSelector((Matcher("__name__", "=", name), *matchers), shift),
    st.sampled_from(["up", "http_requests:rate5m", "a name"]),
    _matchers,
    _shifts,
)
_labels = st.lists(st.sampled_from(["job", "le", "a.b"]), max_size=2, unique=True).map(tuple)


def _grown(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return (
        st.builds(
            lambda op, a, b: Binary(op, a, b), st.sampled_from(["+", "-", "*", "/", "%", "^", "==", ">"]), inner, inner
        )
        | st.builds(lambda op, a, b: Binary(op, a, b), st.sampled_from(["and", "or", "unless"]), inner, inner)
        | st.builds(
            lambda op, a, by, w: Aggregation(op, a, None, by, w),
            st.sampled_from(["sum", "max"]),
            inner,
            _labels,
            st.booleans(),
        )
        | st.builds(lambda k, a: Aggregation("topk", a, Number(k)), st.integers(0, 9).map(float), inner)
        | st.builds(lambda a: Call("abs", (a,), Type.VECTOR), inner)
    )


_rates = st.builds(
    lambda selector, ms: Call("rate", (MatrixSelector(selector, ms),), Type.VECTOR), _selectors, st.integers(1, 10**9)
)
_expressions = st.recursive(_selectors | _rates, _grown, max_leaves=6)


@given(tree=_expressions)
def test_printing_and_parsing_agree(tree: Expression) -> None:
    assert parse(str(tree)) == tree


@pytest.mark.parametrize(
    ("query", "same"),
    [
        ("a OR b And c OFFSET 5m", "a or b and c offset 5m"),
        ("sum(a) BY (b) == BOOL 1", "sum by (b) (a) == bool 1"),
        ("a * ON (b) GROUP_LEFT (c) d", "a * on (b) group_left (c) d"),
        ("1 + 2 * 3 ^ 2 ^ 1", "(1 + (2 * (3 ^ (2 ^ 1))))"),
        ("-1 ^ 2", "-(1 ^ 2)"),
        ("a and b or c unless d", "((a and b) or (c unless d))"),
        ("a + b == bool c", "((a + b) == bool c)"),
        ("sum(a) by (x)", "sum by (x) (a)"),
        ("a offset 5m @ 10", "a @ 10 offset 5m"),
        ("a{b='c',}", 'a{b="c"}'),
        ("0x10 + 1e3 + .5 + Inf", "16 + 1000 + 0.5 + inf"),
        ("a # comment\n+ b", "a + b"),
        ('{"my.name", x="y"}', '{__name__="my.name", x="y"}'),
        ("a[1h30m:1m]", "(a)[90m:60s]"),
        ("a * on (x) group_left (y) b", "(a * on (x) group_left (y) b)"),
    ],
)
def test_the_same_tree(query: str, same: str) -> None:
    assert parse(query) == parse(same)


@pytest.mark.parametrize(
    ("query", "position", "message"),
    [
        ("sum(", 4, "unexpected end of input"),
        ("rate(a)", 5, "expected type range vector in call to function 'rate', got instant vector"),
        ("{}", 0, "vector selector must contain at least one non-empty matcher"),
        ('{a=~".*"}', 0, "vector selector must contain at least one non-empty matcher"),
        ("1 == 2", 2, "comparisons between scalars must use BOOL modifier"),
        ("1 and 2", 2, "set operator 'and' not allowed in binary scalar expression"),
        ('"a" + 1', 0, "binary expression must contain only scalar and instant vector types"),
        ("nothing(1)", 0, "unknown function with name 'nothing'"),
        ("a offset 5m offset 5m", 12, "may not be set multiple times"),
        ("sum(a, b)", 0, "wrong number of arguments"),
        ('a{b="c}', 4, "a string is not closed"),
        ('a{b=~"("}', 5, "is invalid"),
        ("a[5m] + 1", 0, "binary expression must contain only"),
        ("a[0s]", 1, "duration must be greater than 0"),
        ("a + 0x_", 4, "not a number or a duration"),
        ("5 5", 2, "expected the end of the query"),
        ("-a[5m]", 1, "unary expression only allowed on expressions of type scalar or instant vector"),
    ],
)
def test_mistakes_are_named(query: str, position: int, message: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse(query)
    assert message in str(caught.value)
    assert caught.value.position == position


@pytest.mark.parametrize("text", ["(" * 10_000, "-" * 10_000 + "1", "abs(" * 10_000, "a[" * 10_000])
def test_nesting_is_bounded(text: str) -> None:
    with pytest.raises(InvalidQuery):
        parse(text)


@given(st.text(alphabet='(){}[]=~!<>+-*/%^@:,"ab 15mse.', max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        tree = parse(text)
    except InvalidQuery as error:
        assert error.position is None or 0 <= error.position <= len(text)
    else:
        assert parse(str(tree)) == tree
