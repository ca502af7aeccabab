"""Functions that change labels, or order series by them: `label_replace`, `label_join`, `sort_by_label`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from collector.errors import InvalidQuery
from collector.query.promql.vectors import Vector, merged
from collector.query.regex import compile_regex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collector.query.promql.translate import Labels

LABEL_BYTES_MAX: Final = 64 * 1024
"""Bytes of a label that is made; what is longer is refused."""
_REFERENCE: Final = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})", re.ASCII)
_CHUNKS: Final = re.compile(r"[0-9]+|[^0-9]+")


def replaced(vector: Vector, target: str, template: str, source: str, pattern: str, at: int) -> Vector:
    """`label_replace`: where an expression matches all of a label's text, another label is made of the template.

    `$1` and `${name}` are groups of the expression, `$$` is a dollar; a group that is not there is empty. A label without
    text goes.
    """
    _check_name(target, "label_replace", at)
    expression = compile_regex(pattern, at, any_character=True, captures=True)
    made: dict[str, str | None] = {}

    def text_of(value: str) -> str | None:
        if value not in made:
            match = expression.fullmatch(value)
            made[value] = _expanded(template, match, at) if match is not None else None
        return made[value]

    labels = []
    for one in vector.labels:
        text = text_of(dict(one).get(source, ""))
        labels.append(one if text is None else _with(one, target, text))
    return merged(labels, vector.values, vector.present)


def joined(vector: Vector, target: str, separator: str, sources: Sequence[str], at: int) -> Vector:
    """`label_join`: the texts of labels with a separator between them, as another label."""
    _check_name(target, "label_join", at)
    labels = []
    for one in vector.labels:
        found = dict(one)
        labels.append(_with(one, target, _bounded(separator.join(found.get(name, "") for name in sources), at)))
    return merged(labels, vector.values, vector.present)


def ordered(vector: Vector, names: Sequence[str], *, descending: bool) -> Vector:
    """`sort_by_label`: series by the texts of some labels, numbers in them by their size; then by all labels."""

    def key(row: int) -> tuple[object, ...]:
        found = dict(vector.labels[row])
        return (*(_natural(found.get(name, "")) for name in names), vector.labels[row])

    rows = sorted(range(len(vector.labels)), key=key, reverse=descending)
    return Vector([vector.labels[row] for row in rows], vector.values[rows], vector.present[rows])


def _natural(text: str) -> list[tuple[bool, int, str]]:
    return [(False, int(one), one) if "0" <= one[0] <= "9" else (True, 0, one) for one in _CHUNKS.findall(text[:1000])]


def _with(labels: Labels, name: str, text: str) -> Labels:
    rest = [pair for pair in labels if pair[0] != name]
    return tuple(sorted([*rest, (name, text)])) if text else tuple(rest)


def _expanded(template: str, match: re.Match[str], at: int) -> str:
    groups = match.re.groupindex

    def text_of(reference: re.Match[str]) -> str:
        if reference[1]:
            return "$"
        name = reference[2] or reference[3]
        if name.isdecimal():
            return (match[int(name)] or "") if len(name) < 4 and int(name) <= match.re.groups else ""
        return (match[name] or "") if name in groups else ""

    return _bounded(_REFERENCE.sub(text_of, template), at)


def _bounded(text: str, at: int) -> str:
    if len(text.encode()) > LABEL_BYTES_MAX:
        raise InvalidQuery(f"a label would be longer than {LABEL_BYTES_MAX} bytes", at)
    return text


def _check_name(name: str, function: str, at: int) -> None:
    if not name:
        raise InvalidQuery(f"invalid destination label name in {function}(): {name!r}", at)
