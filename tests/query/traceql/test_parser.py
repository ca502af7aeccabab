"""TraceQL's grammar: what prints parses to the same tree, and mistakes are found where they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import InvalidQuery
from collector.query.cursor import NESTING_MAX
from collector.query.traceql import ast
from collector.query.traceql.ast import Attribute, Binary, Filter, Intrinsic, Literal, Type, Unary
from collector.query.traceql.parser import parse

_literals = st.one_of(
    st.text(max_size=6).map(lambda text: Literal(Type.STRING, text)),
    st.integers(0, 2**62).map(lambda number: Literal(Type.INT, number)),
    st.floats(0, 1e15, allow_nan=False).map(lambda number: Literal(Type.FLOAT, number)),
    st.integers(0, 10**15).map(lambda number: Literal(Type.DURATION, number)),
    st.booleans().map(lambda truth: Literal(Type.BOOL, truth)),
)
_attributes = st.builds(
    Attribute,
    st.sampled_from(["", "span", "resource", "event", "link", "instrumentation"]),
    st.one_of(st.sampled_from(["a", "http.status-code", "a/b"]), st.text(min_size=1, max_size=5)),
)
_conditions = st.recursive(
    st.builds(
        lambda op, attribute, literal: Binary(op, attribute, literal),
        st.sampled_from(["=", "!="]),
        _attributes,
        _literals,
    )
    | st.builds(
        lambda op, n: Binary(op, Intrinsic("span:duration"), Literal(Type.DURATION, n)),
        st.sampled_from(["<", ">="]),
        st.integers(0, 10**12),
    )
    | st.builds(lambda attribute: Binary("=~", attribute, Literal(Type.STRING, "a.*b")), _attributes),
    lambda inner: (
        st.builds(lambda op, a, b: Binary(op, a, b), st.sampled_from(["&&", "||"]), inner, inner)
        | st.builds(lambda a: Unary("!", a), inner)
    ),
    max_leaves=6,
)


@given(condition=_conditions)
def test_printing_and_parsing_agree(condition: ast.Expression) -> None:
    tree = parse(f"{{ {condition} }}")
    assert tree.pipeline.stages == (Filter(condition),)
    assert parse(str(tree)) == tree


@pytest.mark.parametrize(
    "query",
    [
        "{}",
        "{ .a = 1 && .b = 2 || .c = 3 }",
        "{ .a = 1 || .b = 2 && .c = 3 || (.d && .e) }",
        "{ .a = 1 || (.b = 2 && .c = -3ms) && !(.d || !.e) && !.f = -(.g + 1) }",
        "{ .a } || { .b } && ({ .c } || { .d })",
        "{ .a } >> { .b } && { .c } || { .d }",
        "{ .a } !>> { .b }",
        "{ .a } &~ { .b }",
        "({ .a } | count() > 2) && { .b }",
        "{ } | avg(duration) > 1s | by(resource.service.name) | coalesce() | select(.a, name)",
        "{ } | count() + 2 * max(.x) >= 5",
        "{ } | rate() by (span.a, name)",
        "{ } | quantile_over_time(duration, 0.9, .99) with (sample=true, exemplars=5)",
        "{ } | compare({ status = error }, 10) > 3",
        '{ parent.span.a != nil && event:name = "x" }',
        "{ -.a + 3 > 2 ^ 3 ^ .b }",
    ],
)
def test_the_whole_language_is_parsed(query: str) -> None:
    tree = parse(query)
    assert parse(str(tree)) == tree


@pytest.mark.parametrize(
    ("query", "column", "message"),
    [
        ("", 1, "expected a spanset"),
        ("{ name = 5 }", 8, "string and int cannot be compared"),
        ("{ .a = }", 8, "expected a value"),
        ("{ .a = 1", 9, "expected '}'"),
        ("{ foo = 1 }", 3, "unknown name 'foo'; an attribute is written .foo"),
        ('{ name =~ "(" }', 11, "is invalid"),
        ("{ status > error }", 10, "> wants numbers or texts"),
        ("{ 5 }", 3, "a filter must be true or false"),
        ('{ "a" && true }', 7, "joins conditions"),
        ("{ .a = 9223372036854775808 }", 8, "larger than 64 bits"),
        ("{ .a - 9223372036854775808 = 1 }", 8, "larger than 64 bits"),
        ("{ .a = 1ss }", 8, "not a number or a duration"),
        ('{ .a = "x }', 8, "a string is not closed"),
        ("{ } | nonsense()", 7, "expected a stage"),
        ("{ span:foo = 1 }", 3, "span:foo is no intrinsic"),
        ('{ } | count() > "1"', 17, "aggregates are numbers; string is none"),
        ("{ } | count() > true", 17, "aggregates are numbers; bool is none"),
        ("{ } | avg(duration) > ok", 23, "aggregates are numbers; status is none"),
        ("{ } | max(.a) = nil", 17, "aggregates are numbers; nil is none"),
        ("{ } | count(.a) > 1", 7, "count() takes nothing"),
    ],
)
def test_mistakes_are_found_where_they_are(query: str, column: int, message: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse(query)
    assert message in str(caught.value)
    assert caught.value.position == column - 1


@pytest.mark.parametrize("text", ["(" * 10_000, "{" + "!" * 10_000, "{ .a = " + "-" * 10_000, "{ } | " * 2])
def test_nesting_is_bounded(text: str) -> None:
    with pytest.raises(InvalidQuery):
        parse(text)
    deep = "(" * (NESTING_MAX - 2) + "{ }" + ")" * (NESTING_MAX - 2)
    assert parse(deep)


@given(st.text(alphabet='{}()|&.=<>!~"ab 15ms,', max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        tree = parse(text)
    except InvalidQuery as error:
        assert error.position is None or 0 <= error.position <= len(text)
    else:
        assert parse(str(tree)) == tree


def test_the_least_integer_has_digits_and_is_its_own_opposite() -> None:
    for text in ("-9223372036854775808", "minInt", "-minInt", "- -9223372036854775808"):
        assert parse(f"{{ .a = {text} }}") == parse("{ .a = minInt }")
    assert parse("{ } | count() > -9223372036854775808") == parse("{ } | count() > minInt")


@pytest.mark.parametrize(
    ("query", "meaning"),
    [
        ("{ .a || .b && .c }", "{ (.a || .b) && .c }"),
        ("{ .a && .b || .c && .d }", "{ ((.a && .b) || .c) && .d }"),
        ("{ .a || .b = 1 + 2 * 3 && .c }", "{ (.a || (.b = (1 + (2 * 3)))) && .c }"),
        ("{ .a } || { .b } && { .c }", "({ .a } || { .b }) && { .c }"),
        ("{ .a } || { .b } >> { .c } && { .d }", "({ .a } || ({ .b } >> { .c })) && { .d }"),
        ("{ .a } && { .b } || { .c } && { .d }", "(({ .a } && { .b }) || { .c }) && { .d }"),
        ("{ .a = 2 ^ 3 ^ 2 }", "{ .a = (2 ^ (3 ^ 2)) }"),
    ],
)
def test_and_and_or_bind_alike_from_the_left(query: str, meaning: str) -> None:
    assert parse(query) == parse(meaning)
