"""LogQL's tokens: from text to a list of `Token`, with every literal read.

A token is what the grammar cannot take apart: an identifier (keywords are identifiers; the parser knows where
a word is one), a string, a number, a duration, a size in bytes, a parser flag, a symbol. White space and `#`
comments separate tokens and are not among them. Numbers with a unit are told apart here, because `5m`, `5MB`
and `5` are three kinds of value to a label filter.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from collector.errors import InvalidQuery
from collector.query.logql import literals

if TYPE_CHECKING:
    from collections.abc import Callable

QUERY_LENGTH_MAX = 131_072
"""Characters of a query; Loki's own limit."""

_TOKEN = re.compile(
    rf"""
      (?P<space>[ \t\r\n]+|\#[^\n]*)
    | (?P<identifier>[A-Za-z_:][A-Za-z0-9_:]*)
    | (?P<duration>{literals.DURATION_PATTERN})(?![A-Za-z0-9_.])
    | (?P<size>{literals.SIZE_PATTERN})(?![A-Za-z0-9_.])
    | (?P<number>{literals.NUMBER_PATTERN})(?![A-Za-z0-9_.])
    | (?P<flag>--(?:strict|keep-empty))(?![A-Za-z0-9_-])
    | (?P<string>{literals.STRING_PATTERN})
    | (?P<symbol>\|[=~>]|![=~>]|=[=~]|[<>]=|[-+*/%^=<>(){{}}\[\],|@])
    """,
    re.VERBOSE,
)


class Kind(Enum):
    """What a token is."""

    IDENTIFIER = "an identifier"
    STRING = "a string"
    NUMBER = "a number"
    DURATION = "a duration"
    SIZE = "a size in bytes"
    FLAG = "a flag"
    SYMBOL = "a symbol"
    END = "end of query"


class Token(NamedTuple):
    """One token."""

    kind: Kind
    text: str
    value: str | float | int
    """A string's text, a number, a duration's nanoseconds, a size's bytes; of other tokens, their text."""
    position: int
    """Where it begins: the 0-based character."""


_KINDS = {kind.name.lower(): kind for kind in Kind}
_READERS: dict[str, Callable[[str], str | float | int]] = {
    "string": literals.string,
    "number": literals.number,
    "duration": literals.duration_ns,
    "size": literals.size_bytes,
}


def place(text: str, position: int) -> str:
    """Return a position for people: line and column, both from 1."""
    before = text[:position]
    line = before.count("\n") + 1
    column = position - before.rfind("\n")
    return f"line {line}, col {column}"


def query_error(text: str, position: int, message: str) -> InvalidQuery:
    """Return the error for a place in a query that is no LogQL, worded as Loki words it."""
    return InvalidQuery(f"parse error at {place(text, position)}: {message}", position)


def tokenize(text: str) -> list[Token]:
    """Split a query into tokens; the last one is END. Raises InvalidQuery with the place."""
    if len(text) > QUERY_LENGTH_MAX:
        raise InvalidQuery(f"the query has {len(text)} characters, at most {QUERY_LENGTH_MAX} are read")
    _check_utf8(text)
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise query_error(text, at, _unexpected(text, at))
        kind, raw = match.lastgroup, match.group()
        if kind != "space":
            try:
                value = _READERS[kind](raw) if kind in _READERS else raw
            except ValueError as error:
                raise query_error(text, at, str(error)) from None
            tokens.append(Token(_KINDS[kind], raw, value, at))
        at = match.end()
    tokens.append(Token(Kind.END, "", "", len(text)))
    return tokens


def _check_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidQuery("the query is not valid UTF-8", error.start) from None


def _unexpected(text: str, at: int) -> str:
    if text[at] in '"`':
        return "a string is not closed"
    if text[at].isdigit() or text[at] == ".":
        return "a number that cannot be read"
    return f"unexpected character {text[at]!r}"
