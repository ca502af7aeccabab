"""The grammar: what is read, what is refused and where, and that a printed tree is read as the same tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import InvalidQuery
from collector.query.logql import ast
from collector.query.logql.lexer import QUERY_LENGTH_MAX
from collector.query.logql.parser import parse, parse_selector
from collector.query.logql.pipeline import DEPTH_MAX
from tests.query.logql.trees import QUERIES


@given(QUERIES)
def test_a_printed_tree_is_read_as_the_same_tree(tree: ast.Expression) -> None:
    assert parse(str(tree)) == tree


PIECES = st.sampled_from(
    [
        *(
            "{",
            "}",
            "(",
            ")",
            "[",
            "]",
            ",",
            "|",
            "|=",
            "!=",
            "=~",
            "!~",
            "|~",
            "|>",
            "=",
            "==",
            ">",
            "-",
            "^",
        ),
        *(
            "or",
            "and",
            "unless",
            "by",
            "on",
            "bool",
            "group_left",
            "offset",
            "ip",
            "a",
            "#",
            "\n",
            "--strict",
        ),
        *("sum", "rate", "vector", "count_over_time", "json", "drop", "unwrap"),
        *("5m", "1.5", "20KB", '"x"', "`y`", '{a="b"}', "[5m]"),
    ]
)


@given(st.lists(PIECES, max_size=12).map(" ".join) | st.text(max_size=20))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    try:
        tree = parse(text)
    except InvalidQuery as error:
        assert error.position is None or 0 <= error.position <= len(text)
    else:
        assert parse(str(tree)) == tree


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ('{a="b"}', '{a="b"}'),
        ('{ a = "b" , c!~`\\d+`, }', '{a="b", c!~"\\\\d+"}'),
        ('# a comment\n{a="b"} # and another\n |= "#x"', '{a="b"} |= "#x"'),
        ('{a="\\u00e9\\x41\\103\\t"}', '{a="éAC\\t"}'),
        ('{a="b"} |= "x" != "y" |~ "z"', '{a="b"} |= "x" != "y" |~ "z"'),
        ('{a="b"}|="x" or "y" or ip("10.0.0.0/8")', '{a="b"} |= "x" or "y" or ip("10.0.0.0/8")'),
        ('{a="b"} | c="d" or e="f" and g="h"', '{a="b"} | c="d" or e="f" and g="h"'),
        ('{a="b"} | c="d", e="f" g="h"', '{a="b"} | c="d" and e="f" and g="h"'),
        ('{a="b"} | (c="d" or e>=20ms) size == 20KB', '{a="b"} | (c="d" or e >= 20ms) and size == 20kB'),
        ('{a="b"} | x="1" != "y"', '{a="b"} | x="1" != "y"'),
        ('{a="b"} | json != "y"', '{a="b"} | json != "y"'),
        (
            '{a="b"} | json c, d="e.f[0]" | drop c, d=~"x"',
            '{a="b"} | json c="c", d="e.f[0]" | drop c, d=~"x"',
        ),
        ('{a="b"} | LOGFMT --keep-empty --strict c', '{a="b"} | logfmt --strict --keep-empty c="c"'),
        ('{a="b"} | label_format c=d,e="{{.f}}"', '{a="b"} | label_format c=d, e="{{.f}}"'),
        ('rate({a="b"}[1h30m] offset 5m)', 'rate({a="b"} [1h30m] offset 5m)'),
        ('rate(({a="b"})[90s])', 'rate({a="b"} [1m30s])'),
        ('rate({a="b"}[5m] |= "x" | json)', 'rate({a="b"} |= "x" | json [5m])'),
        ('sum(rate({a="b"}[1m])) BY (c, d)', 'sum by (c, d) (rate({a="b"} [1m]))'),
        ('sum without() (rate({a="b"}[1m]))', 'sum without () (rate({a="b"} [1m]))'),
        ('topk(3, rate({a="b"}[1m])) by (c)', 'topk by (c) (3, rate({a="b"} [1m]))'),
        (
            'quantile_over_time(.99, {a="b"} | unwrap duration(c) | __error__="" [1d]) by (d)',
            'quantile_over_time(0.99, {a="b"} | unwrap duration(c) | __error__="" [1d]) by (d)',
        ),
        ("1+2*3-4", "1 + 2 * 3 - 4"),
        ("(1+2)*3", "(1 + 2) * 3"),
        ("1-(2-3)", "1 - (2 - 3)"),
        ("2^3^4", "2 ^ 3 ^ 4"),
        ("(2^3)^-4", "(2 ^ 3) ^ -4"),
        ("0x1F + 1e3", "31 + 1000"),
        ("vector(1)+vector(1)", "vector(1) + vector(1)"),
        (
            'sum(rate({a="b"}[1m])) / on (c) group_left rate({a="b"}[1m])',
            'sum(rate({a="b"} [1m])) / on (c) group_left () rate({a="b"} [1m])',
        ),
        (
            'label_replace(rate({a="b"}[1m]), "foo", "$1", "service", "(.*):.*")',
            'label_replace(rate({a="b"} [1m]), "foo", "$1", "service", "(.*):.*")',
        ),
        ('rate({a="b"}[5m] offset 1m @ 5)', 'rate({a="b"} [5m] @ 5.000 offset 1m)'),
        ('rate({a="b"}[5m] @ end() | x="y")', 'rate({a="b"} | x="y" [5m] @ end())'),
    ],
)
def test_forms(text: str, printed: str) -> None:
    assert str(parse(text)) == printed


def test_operators_bind_as_documented() -> None:
    assert parse("1 + 2 / 3") == parse("1 + (2 / 3)")
    assert parse("2 * 3 % 2") == parse("(2 * 3) % 2")
    assert parse("2 ^ 3 ^ 2") == parse("2 ^ (3 ^ 2)")
    assert parse("-1 ^ 2") == ast.Binary("^", ast.Number(-1.0), ast.Number(2.0))
    assert parse('vector(1) or rate({a="b"}[1m]) and vector(2) > 3 + 4') == parse(
        'vector(1) or (rate({a="b"}[1m]) and (vector(2) > (3 + 4)))'
    )


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("", 0, "unexpected end of query"),
        ('{a="b"', 6, "expected ','"),
        ('{a="b"} x', 8, "expected end of query"),
        ("{a=b}", 3, "expected a string"),
        ("{a='b'}", 3, "unexpected character"),
        ('{a="b', 3, "a string is not closed"),
        (r'{a="\q"}', 3, "none of Go's"),
        (r'{a="\xff"}', 3, "valid UTF-8"),
        ('{a=~"("}', 4, "regular expression"),
        ('{a="b"} |~ "["', 11, "regular expression"),
        ("{}", 0, "empty-compatible"),
        ('{a=""}', 0, "empty-compatible"),
        ('{a!="b"}', 0, "empty-compatible"),
        ('{a=~".*", b!~".+"}', 0, "empty-compatible"),
        ('{a="b"} | nonsense', 18, "operator after the label 'nonsense'"),
        ('{a="b"} | json="x"', 14, "expected end of query"),
        ('{a="b"} | c == "x"', 15, "expected a string, a number"),
        ('{a="b"} | unwrap c', 10, "unwrap belongs into a range"),
        ('{a="b"} |~ ip("1.1.1.1")', 11, "ip() is for"),
        ('{a="b"} | label_format c=d, c=e', 10, "twice"),
        ('{a="b"} + 1', 8, "needs numbers"),
        ('{a="b"}[5m]', 7, "expected end of query"),
        ('count_over_time({a="b"})', 23, "needs a range"),
        ('rate({a="b"}[0s])', 13, "longer than 0"),
        ('rate({a="b"}[5])', 13, "expected a duration"),
        ('rate({a="b"} | unwrap c | json [5m])', 26, "only label filters"),
        ('sum_over_time({a="b"}[5m])', 0, "unwrap"),
        ('count_over_time({a="b"} | unwrap c [5m])', 0, "no unwrap"),
        ('rate({a="b"}[5m]) by (c)', 0, "takes no grouping"),
        ('sum({a="b"})', 4, "needs series"),
        ("sum(1)", 4, "not a number"),
        ('topk(rate({a="b"}[5m]))', 5, "expected a number"),
        ('topk(0, rate({a="b"}[5m]))', 0, "above 0"),
        ('sort by (c) (rate({a="b"}[5m]))', 0, "no grouping"),
        ("vector(1) + bool vector(1)", 10, "bool"),
        ("1 or vector(1)", 2, "on both sides"),
        ("vector(1) and on(a) group_left vector(1)", 10, "group_left"),
        ("nonsense(1)", 0, "no function 'nonsense'"),
        ("5q", 0, "a number that cannot be read"),
        ("1e999", 0, "too large"),
        ('rate({a="b"}[99999999y])', 13, "a duration of more"),
        ('rate({a="b"}[5m] @ 1e12)', 19, "too far away"),
        ('rate({a="b"}[5m] @ x)', 19, "expected a number"),
        ('rate({a="b"}[5m] @ 1 @ 2)', 21, "expected ')'"),
    ],
)  # fmt: skip
def test_refusals_say_where(text: str, position: int, words: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse(text)
    assert words in str(caught.value)
    assert caught.value.position == position


def test_a_message_counts_lines_and_columns_from_one() -> None:
    with pytest.raises(InvalidQuery, match="line 3, col 5: unexpected character"):
        parse('{a="b"}\n  |= "x"\n    ?')


def test_nesting_is_bounded() -> None:
    for open_, close in (("(", ")"), ("sum(", ")")):
        inside = "vector(1)"
        within = open_ * (DEPTH_MAX - 1) + inside + close * (DEPTH_MAX - 1)
        assert str(parse(within))
        with pytest.raises(InvalidQuery, match="nests deeper"):
            parse(open_ * DEPTH_MAX + inside + close * DEPTH_MAX)
    with pytest.raises(InvalidQuery, match="nests deeper"):
        parse("1" + "+1" * DEPTH_MAX)
    with pytest.raises(InvalidQuery, match="nests deeper"):
        parse("2" + "^2" * DEPTH_MAX)
    with pytest.raises(InvalidQuery, match="nests deeper"):
        parse('{a="b"} | ' + "(" * DEPTH_MAX + 'c="d"' + ")" * DEPTH_MAX)
    with pytest.raises(InvalidQuery, match="nests deeper"):
        parse("rate(" + "(" * DEPTH_MAX + '{a="b"}[5m]' + ")" * DEPTH_MAX + ")")
    aside = "1" + " + (1 + (2 * 3))" * (DEPTH_MAX - 3)
    assert parse(str(parse(aside))) == parse(aside)
    long = '{a="b"} | ' + " or ".join(['c="d"'] * 1000)
    assert str(parse(long)) == long


def test_length_is_bounded() -> None:
    with pytest.raises(InvalidQuery, match=str(QUERY_LENGTH_MAX)):
        parse('{a="' + "b" * QUERY_LENGTH_MAX + '"}')


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="UTF-8"):
        parse('{a="\ud800"}')


def test_a_selector_alone_may_select_everything() -> None:
    assert parse_selector("{}") == ast.Selector(())
    assert parse_selector('{a!="b"}') == ast.Selector((ast.Matcher("a", "!=", "b"),))
    with pytest.raises(InvalidQuery, match="expected end of query"):
        parse_selector('{a="b"} |= "x"')
