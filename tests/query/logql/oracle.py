"""LogQL by brute force: every record decoded, every window counted, one step at a time."""

from __future__ import annotations

import math
import operator
import re
from collections import defaultdict
from typing import Any, NamedTuple

from collector.otlp.records import record
from collector.query.engine import slices
from collector.query.logql import ast
from collector.query.logql.labels import Records, value_text
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


Labels = tuple[tuple[str, str], ...]
_OPERATORS: dict[str, Any] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else math.nan,
    "%": lambda a, b: math.fmod(a, b) if b else math.nan,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def at(node: ast.Metric, found: list[Entry], step: int) -> float | dict[Labels, float]:
    """Return a metric expression's value at one step."""
    if isinstance(node, ast.Number):
        return node.value
    if isinstance(node, ast.Constant):
        return {(): node.value}
    if isinstance(node, ast.RangeAggregation):
        end = step - node.range.offset_ns
        window = [entry for entry in found if end - node.range.range_ns < entry.time <= end]
        lines: dict[Labels, list[str]] = defaultdict(list)
        for entry in run(node.range.query, window):
            lines[tuple(sorted((entry.stream | entry.metadata).items()))].append(entry.line)
        seconds = node.range.range_ns / 1e9 if "rate" in node.op else 1
        return {
            labels: (sum(len(line.encode()) for line in each) if "bytes" in node.op else len(each)) / seconds
            for labels, each in lines.items()
        }
    if isinstance(node, ast.VectorAggregation):
        vector = at(node.expression, found, step)
        assert isinstance(vector, dict)
        groups: dict[Labels, list[float]] = defaultdict(list)
        grouping = node.grouping or ast.Grouping(False, ())
        for labels, value in sorted(vector.items()):
            key = tuple(pair for pair in labels if (pair[0] in grouping.labels) != grouping.without)
            groups[key].append(value)
        function: Any = {
            "sum": sum,
            "min": min,
            "max": max,
            "count": len,
            "avg": lambda each: sum(each) / len(each),
        }[node.op]
        return {labels: function(each) for labels, each in groups.items()}
    assert isinstance(node, ast.Binary)
    return _binary(node, at(node.left, found, step), at(node.right, found, step))


def _binary(node: ast.Binary, left: Any, right: Any) -> float | dict[Labels, float]:
    function = _OPERATORS[node.op]
    if isinstance(left, float) and isinstance(right, float):
        return float(function(left, right))
    result = {}
    for labels in left if isinstance(left, dict) else right:
        if isinstance(right, dict) and labels not in right:
            continue
        ours = left[labels] if isinstance(left, dict) else left
        theirs = right[labels] if isinstance(right, dict) else right
        value = function(ours, theirs)
        if node.op in ast.COMPARISONS and not node.returns_bool:
            if value:
                result[labels] = ours if isinstance(left, dict) else theirs
        else:
            result[labels] = float(value)
    return result
