"""Every stage, filter and template function of LogQL by example: the scripts under tests/scripts/logql."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from collector.query.logql import ast
from collector.query.logql.literals import quote
from collector.query.logql.parser import parse
from collector.query.logql.plan import prepare
from collector.query.logql.row import Row
from collector.query.logql.steps import compile_stages
from collector.query.logql.template import Template, TemplateError, TemplateFailure
from collector.query.logql.template_functions import functions
from tests.goldenscript import SCRIPTS, Command, check, script_id, scripts

NOW_NS = 1_700_000_000_123_456_789
"""2023-11-14T22:13:20.123456789Z: the time of every line, and what `now` says."""


def words(command: Command) -> str:
    """Return the one text that a command has, even if there is a `=` in it."""
    [text] = [*command.arguments, *(f"{key}={value}" for key, value in command.options.items())]
    return text


class Script:
    """A line with `service_name="shop"` in its stream and `level`, `trace_id` in its metadata, and what is done to it.

    line TEXT       take this line from now on
    label TEXT      take `name=text` for a label of the metadata from now on
    run STAGES      run stages: what is left of the line, and the labels that the stages have changed
    template TEXT   what a line_format makes
    refused STAGES  why the query is refused
    """

    def __init__(self) -> None:
        self._line = ""
        self._metadata = {"level": "info", "trace_id": "0af7"}

    def __call__(self, command: Command) -> str | Iterable[str] | None:
        return getattr(self, command.name)(words(command))

    def line(self, text: str) -> str:
        self._line = text
        return "ok"

    def label(self, text: str) -> str:
        name, _, value = text.partition("=")
        self._metadata[name] = value
        return "ok"

    def _row(self) -> Row:
        stream = {"service_name": "shop"}
        return Row(NOW_NS, self._line.encode(), stream, dict(stream), dict(self._metadata))

    def run(self, text: str) -> Iterable[str]:
        in_range = "unwrap" in text
        expression = parse(f"sum_over_time({{a=`b`}} {text} [1s])" if in_range else f"{{a=`b`}} {text}")
        query = expression.range.query if isinstance(expression, ast.RangeAggregation) else expression
        assert isinstance(query, ast.LogQuery)
        row = self._row()
        if not all(step.line(row) for step in compile_stages(query.stages, NOW_NS)):
            yield "gone"
            return
        if row.line != self._line.encode():
            yield f"line {quote(row.line.decode())}"
        before = self._row().labels()
        for name, value in sorted(row.labels().items()):
            if before.get(name) != value or name in row.parsed:
                yield f"{name}={quote(value)}"
        for name in sorted(before.keys() - row.labels().keys()):
            yield f"without {name}"
        if in_range:
            yield f"sample {row.sample:g}"
        if row.line == self._line.encode() and before == row.labels() and not row.parsed and not in_range:
            yield "as it was"

    def template(self, text: str) -> str:
        row = self._row()
        try:
            return quote(Template(text, "line", lambda: NOW_NS).render(row.labels(), row.line.decode(), row.time))
        except (TemplateError, TemplateFailure) as error:
            return f"{'refused' if isinstance(error, TemplateError) else 'fails'}: {error}"

    def refused(self, text: str) -> str:
        prepare(f"{{a=`b`}} {text}")
        return "it is not"


@pytest.mark.parametrize("path", scripts("logql"), ids=script_id)
def test_script(path: Path) -> None:
    check(path, Script())


def test_every_function_has_an_example_and_is_documented() -> None:
    example = (SCRIPTS / "logql" / "templates.txt").read_text()
    page = (SCRIPTS.parent.parent / "docs" / "query-languages.md").read_text()
    for name in functions(lambda: NOW_NS):
        assert re.search(rf"\b{name}\b", example), name
        assert f"`{name}`" in page, name
