"""LogQL by brute force: every record decoded, every window counted, one step at a time."""

from __future__ import annotations

import re
from typing import NamedTuple

from collector.otlp.records import record
from collector.query.logql import ast
from collector.query.logql.labels import Records, value_text
from collector.query.slices import slices
from collector.store import View


class Entry(NamedTuple):
    """One decoded record."""

    time: int
    offset: int
    line: str
    stream: dict[str, str]
    metadata: dict[str, str]
    parsed: dict[str, str]


def entries(view: View) -> list[Entry]:
    """Decode everything in a view."""
    records = Records()
    found = []
    for block, rows in slices(view):
        for row in rows.tolist():
            message = record(block, row)
            stream = records.container(block, int(block.column("group")[row])).stream
            metadata = records.metadata(block, row, message)
            found.append(
                Entry(
                    message.time_unix_nano or message.observed_time_unix_nano,
                    block.base_offset + row,
                    value_text(message.body),
                    dict(stream),
                    metadata,
                    {},
                )
            )
    return found


def _matches(matcher: ast.Matcher, text: str) -> bool:
    equal = re.fullmatch(matcher.value, text) is not None if "~" in matcher.op else matcher.value == text
    return equal != matcher.op.startswith("!")


def _meets(condition: ast.LabelFilter, labels: dict[str, str]) -> bool:
    if isinstance(condition, ast.And):
        return all(_meets(term, labels) for term in condition.terms)
    if isinstance(condition, ast.Or):
        return any(_meets(term, labels) for term in condition.terms)
    assert isinstance(condition, ast.Matcher)
    return _matches(condition, labels.get(condition.label, ""))


def _named(choices: tuple[str | ast.Matcher, ...], name: str, text: str) -> bool:
    return any(
        choice == name if isinstance(choice, str) else choice.label == name and _matches(choice, text)
        for choice in choices
    )


def run(query: ast.LogQuery, found: list[Entry]) -> list[Entry]:
    """Return what a log query leaves of entries, with its labels, in their order."""
    left = []
    for entry in found:
        if not all(_matches(matcher, entry.stream.get(matcher.label, "")) for matcher in query.selector.matchers):
            continue
        for stage in query.stages:
            if isinstance(stage, ast.LineFilter):
                has = any(
                    re.search(each.value, entry.line, re.DOTALL) is not None
                    if "~" in stage.op
                    else each.value in entry.line
                    for each in stage.operands
                )
                if has == stage.op.startswith("!"):
                    break
            elif isinstance(stage, ast.LabelStage):
                if not _meets(stage.condition, entry.stream | entry.metadata):
                    break
            else:
                assert isinstance(stage, ast.Drop | ast.Keep)
                keep, labels = isinstance(stage, ast.Keep), stage.labels
                stream, metadata = (
                    {name: text for name, text in each.items() if _named(labels, name, text) == keep}
                    for each in (entry.stream, entry.metadata)
                )
                entry = entry._replace(stream=stream, metadata=metadata)
        else:
            left.append(entry)
    return left
