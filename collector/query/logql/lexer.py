"""LogQL's tokens: from text to a list of `Token`, with every literal read.

A token is what the grammar cannot take apart: an identifier (keywords are identifiers; the parser knows where
a word is one), a string, a number, a duration, a size in bytes, a parser flag, a symbol. White space and `#`
comments separate tokens and are not among them. Numbers with a unit are told apart here, because `5m`, `5MB`
and `5` are three kinds of value to a label filter.

Strings are Go's: `"…"` with Go's escapes, on one line, or raw in backquotes. A string must be valid UTF-8 after
its escapes are read (`\\xff` alone is not), because labels and lines are.
"""

from __future__ import annotations

import re
from decimal import Decimal
from enum import Enum
from typing import NamedTuple

from collector.errors import InvalidQuery

QUERY_LENGTH_MAX = 131_072
"""Characters of a query; Loki's own limit."""

_DECIMAL = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_TOKEN = re.compile(
    rf"""
      (?P<space>[ \t\r\n]+|\#[^\n]*)
    | (?P<identifier>[A-Za-z_:][A-Za-z0-9_:]*)
    | (?P<duration>(?:{_DURATION_PART})+)(?![A-Za-z0-9_.])
    | (?P<bytes>[0-9]+(?:\.[0-9]*)?(?i:[kmgtp]i?b|b))(?![A-Za-z0-9_.])
    | (?P<number>0[xX][0-9A-Fa-f]{{1,16}}|{_DECIMAL})(?![A-Za-z0-9_.])
    | (?P<flag>--(?:strict|keep-empty))(?![A-Za-z0-9_-])
    | (?P<string>"(?:[^"\\\n]|\\[^\n])*"|`[^`]*`)
    | (?P<symbol>\|[=~>]|![=~>]|=[=~]|[<>]=|[-+*/%^=<>(){{}}\[\],|])
    """,
    re.VERBOSE,
)
class Kind(Enum):
    """What a token is."""

    IDENTIFIER = "an identifier"
    STRING = "a string"
    NUMBER = "a number"
    DURATION = "a duration"
    BYTES = "a size in bytes"
    FLAG = "a flag"
    SYMBOL = "a symbol"
    END = "the end of the query"


class Token(NamedTuple):
    """One token. `value` is a literal's: text of strings, float of numbers, ns of durations, bytes of sizes."""

    kind: Kind
    text: str
    value: str | float | int
    position: int


_KINDS = {kind.name.lower(): kind for kind in Kind}


def query_error(text: str, position: int, message: str) -> InvalidQuery:
    """Return the error for a place in a query, with line and column from 1, worded as Loki words it."""
    before = text[:position]
    line = before.count("\n") + 1
    column = position - (before.rfind("\n") + 1) + 1
    return InvalidQuery(f"parse error at line {line}, col {column}: {message}", position)


def tokenize(text: str) -> list[Token]:
    """Split a query into tokens; the last one is END. Raises InvalidQuery with the place."""
    if len(text) > QUERY_LENGTH_MAX:
        raise InvalidQuery(f"the query has {len(text)} characters, at most {QUERY_LENGTH_MAX} are read")
    if not _is_utf8(text):
        raise InvalidQuery("the query is not valid UTF-8")
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise query_error(text, at, _unexpected(text, at))
        raw = match.group()
        if match.lastgroup != "space":
            tokens.append(Token(_KINDS[match.lastgroup], raw, _value(match.lastgroup, raw, text, at), at))
        at = match.end()
    tokens.append(Token(Kind.END, "", 0, len(text)))
    return tokens


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unexpected(text: str, at: int) -> str:
    if text[at] in '"`':
        return "a string is not closed"
    if text[at].isdigit() or text[at] == ".":
        return "a number that cannot be read"
    return f"unexpected character {text[at]!r}"


def _value(kind: str, raw: str, text: str, at: int) -> str | float | int:
    if kind == "string":
        return _string(raw, text, at)
    if kind == "number":
        number = float(int(raw, 16)) if raw[:2] in ("0x", "0X") else float(raw)
        if number == float("inf"):
            raise query_error(text, at, "a number that is too large")
        return number
    if kind == "duration":
        duration = duration_ns(raw)
        if duration > DURATION_MAX_NS:
            raise query_error(text, at, f"a duration longer than {DURATION_MAX_NS} ns")
        return duration
    if kind == "bytes":
        digits = raw.rstrip("bBiIkKmMgGtTpP")
        size = int(Decimal(digits) * _BYTE_UNITS[raw[len(digits) :].lower()])
        if size > SIZE_MAX:
            raise query_error(text, at, f"a size of more than {SIZE_MAX} bytes")
        return size
    return raw


