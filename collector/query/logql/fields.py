"""Fields: what lines hold beside their streams' labels, found by looking at some of them.

A field is a label of the structured metadata, one that the query itself has parsed, or what `json` or else `logfmt` would parse.
Each has a type, that of its newest value, which says by what a filter can compare it; how many values it has; and the
parser that it takes. What is counted are the values on the lines that were looked at, exactly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from collector.query.logql.parsers import Json, Logfmt, label_form
from collector.query.logql.quantity import Unreadable, read_duration_ns, read_number, read_size
from collector.query.logql.row import ERRORS, SUFFIX, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from collector.query.logql.logs import Line

PATHS_DEPTH_MAX: Final = 32
"""How deep in a JSON object the path of a field is looked for."""

_INT: Final = re.compile(r"[+-]?[0-9]{1,18}")
_BOOLEAN: Final = frozenset(("t", "T", "true", "TRUE", "True", "f", "F", "false", "FALSE", "False"))


@dataclass(slots=True)
class Field:
    """One field, on the lines that were looked at."""

    name: str
    type: str = "string"
    """`int`, `float`, `boolean`, `duration`, `bytes` or `string`."""
    values: set[str] = field(default_factory=set)
    parsers: list[str] = field(default_factory=list)
    """What finds it in a line; nothing for structured metadata."""
    path: list[str] = field(default_factory=list)
    """Where it is in a JSON object, if it is there."""


def type_of(value: str) -> str:
    """Return the type that a value has, the first that it can be read as."""
    if _INT.fullmatch(value):
        return "int"
    if _reads(read_number, value):
        return "float"
    if value in _BOOLEAN:
        return "boolean"
    if _reads(read_duration_ns, value):
        return "duration"
    return "bytes" if _reads(read_size, value) else "string"


def _reads(read: Callable[[str], object], value: str) -> bool:
    try:
        read(value)
    except Unreadable:
        return False
    return True


def fields(lines: Iterable[Line], limit: int) -> list[Field]:
    """Return the fields of lines, newest first, in the order in which they were found: `limit` at most."""
    found: dict[str, Field] = {}
    for line in lines:
        for name, value in line.metadata.items():
            _note(found, limit, name, value, "", ())
        for name, value, parser, path in parsed(line):
            _note(found, limit, name, value, parser, path)
    return list(found.values())


def _note(found: dict[str, Field], limit: int, name: str, value: str, parser: str, path: Iterable[str]) -> None:
    one = found.get(name)
    if one is None:
        if len(found) >= limit:
            return
        one = found[name] = Field(name, type_of(value), path=list(path))
    one.values.add(value)
    if parser and parser not in one.parsers:
        one.parsers.append(parser)


def values(lines: Iterable[Line], name: str, limit: int) -> list[str]:
    """Return the values of a field, `limit` at most, in the order in which they were found."""
    found: dict[str, None] = {}
    for line in lines:
        if name in line.metadata:
            found[line.metadata[name]] = None
        found |= {value: None for label, value, _, _ in parsed(line) if label == name}
        if len(found) >= limit:
            break
    return list(found)[:limit]


def parsed(line: Line) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yield (name, value, parser, path) of what the query has parsed out of a line, and what json or logfmt would."""
    own = {name: value for name, value in line.parsed.items() if name not in ERRORS}
    raw = line.text.encode()
    parser = "json"
    row = _row(line, raw)
    Json().parse(raw, row)
    paths: dict[str, tuple[str, ...]] = {}
    if row.error:
        parser = "logfmt"
        row = _row(line, raw)
        Logfmt(strict=False, keep_empty=False).parse(raw, row)
        if row.error:
            row = _row(line, raw)
    else:
        paths = dict(_paths(raw))
    more = {name: value for name, value in row.parsed.items() if name not in ERRORS}
    by = parser if more else ""
    for name, value in (own | more).items():
        yield name, value, by, paths.get(name.removesuffix(SUFFIX), ())


def _row(line: Line, raw: bytes) -> Row:
    stream = {name: value for name, value in line.stream.items() if name not in line.parsed}
    return Row(line.time, raw, stream, dict(stream), {})


def _paths(raw: bytes) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the label of each scalar in a JSON object, with where it is."""
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return
    pending: list[tuple[tuple[str, ...], Any]] = [((), document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            if len(path) < PATHS_DEPTH_MAX:
                pending += [((*path, key), inner) for key, inner in value.items()]
        elif path and not isinstance(value, list):
            yield label_form("_".join(path)), path
