"""How high and how long queries may be, in both languages that share the bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from collector.errors import InvalidQuery
from collector.query.height import HEIGHT_MAX, OPERATORS_MAX
from collector.query.promql.parser import parse as promql
from collector.query.traceql.parser import parse as traceql

SHAPES: list[tuple[Callable[[str], Any], str, str, str]] = [
    (traceql, "{ .a", " && .a", " }"),
    (traceql, "{ .a", " + 1", " = 2 }"),
    (traceql, "{}", " >> {}", ""),
    (promql, "x", " + x", ""),
    (promql, "x", " or x", ""),
    (promql, "1", " - 1", ""),
]


@pytest.mark.parametrize(("parse", "begin", "more", "end"), SHAPES)
def test_operators_in_a_row(parse: Callable[[str], Any], begin: str, more: str, end: str) -> None:
    tree = parse(begin + more * (HEIGHT_MAX - 10) + end)
    assert str(tree)
    assert hash(tree) == hash(parse(begin + more * (HEIGHT_MAX - 10) + end))
    for count in (HEIGHT_MAX + 1, OPERATORS_MAX + 1, 10_000):
        with pytest.raises(InvalidQuery, match="more than"):
            parse(begin + more * count + end)


@pytest.mark.parametrize("depth", [20, 60, 1000, 5000])
@pytest.mark.parametrize(
    ("parse", "begin", "end"),
    [
        (traceql, "{} | count() > ", "1"),
        (traceql, "{ 1 = ", "1 }"),
        (promql, "", "x"),
    ],
)
def test_signs_in_a_row(parse: Callable[[str], Any], begin: str, end: str, depth: int) -> None:
    text = begin + "-" * depth + end
    if depth > 64:
        with pytest.raises(InvalidQuery):
            parse(text)
    else:
        parse(text)


def test_powers_in_a_row() -> None:
    for parse, text in ((traceql, "{{ 1{} = 1 }}"), (promql, "1{}")):
        parse(text.format(" ^ 1" * 50))
        with pytest.raises(InvalidQuery):
            parse(text.format(" ^ 1" * 5000))


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (traceql, "{ .a = %s }"),
        (traceql, "{ duration > %ss }"),
        (traceql, "{ duration > 1.%sh }"),
        (promql, "%s"),
        (promql, "x[%ss]"),
        (promql, "x offset %sy"),
        (promql, "x @ %s"),
        (promql, "x[%s]"),
    ],
)
@pytest.mark.parametrize("digits", ["9" * 90, "9" * 400, "9" * 5000, "1e999", "0x" + "f" * 300])
def test_numbers_without_end(parse: Callable[[str], Any], text: str, digits: str) -> None:
    try:
        parse(text % digits)
    except InvalidQuery:
        pass
