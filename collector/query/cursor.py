"""What the parsers of TraceQL and PromQL have in common: a place among tokens, and strings as Go writes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from collector.errors import InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

NESTING_MAX: Final = 64
"""Parentheses, braces, calls and unary operators within each other."""

_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class Token(Protocol):
    """What a token tells of itself; the last one's kind is `end`."""

    @property
    def kind(self) -> str:
        """`op` and `word` are known by their texts."""
        ...

    @property
    def text(self) -> str:
        """What stands in the query."""
        ...

    @property
    def at(self) -> int:
        """Where it begins: the 0-based character."""
        ...


T = TypeVar("T", bound=Token)


class Cursor(Generic[T]):
    """A place among tokens, from which a parser takes one after the other."""

    prefix = ""
    """What messages begin with."""

    def __init__(self, tokens: Sequence[T]) -> None:
        """Begin at the first token."""
        self._tokens = tokens
        self._next = 0
        self._depth = 0
        self._operators = 0

    @property
    def _token(self) -> T:
        return self._tokens[self._next]

    def _take(self) -> T:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _is(self, text: str) -> bool:
        """Tell whether an operator or a keyword comes next."""
        return self._token.kind in ("op", "word") and self._token.text == text

    def _accept(self, text: str) -> bool:
        if self._is(text):
            self._next += 1
            return True
        return False

    def _expect(self, text: str) -> T:
        if not self._is(text):
            raise self._unexpected(f"expected {text!r}")
        return self._take()

    def _unexpected(self, wanted: str) -> InvalidQuery:
        token = self._token
        found = "the query ends here" if token.kind == "end" else f"found {token.text!r}"
        return InvalidQuery(f"{self.prefix}{wanted}, but {found}", token.at)

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > NESTING_MAX:
            raise InvalidQuery(f"{self.prefix}nested more than {NESTING_MAX} deep", self._token.at)


def quoted(query: str, at: int) -> tuple[str, int]:
    """Read the string that begins at a place, in quotes with escapes or in backquotes; return what follows it, too."""
    mark, begin = query[at], at
    at += 1
    pieces: list[str] = []
    while at < len(query):
        char = query[at]
        if char == mark:
            return "".join(pieces), at + 1
        if char == "\n" and mark != "`":
            break
        if char == "\\" and mark != "`":
            text, at = _escape(query, at)
            pieces.append(text)
            continue
        pieces.append(char)
        at += 1
    raise InvalidQuery("a string is not closed", begin)


def _escape(query: str, at: int) -> tuple[str, int]:
    escape = query[at + 1 : at + 2]
    if escape and escape in _ESCAPED:
        return _ESCAPED[escape], at + 2
    length = {"x": 2, "u": 4, "U": 8}.get(escape, 0)
    digits = query[at + 2 : at + 2 + length]
    if not length or len(digits) < length or not re.fullmatch(r"[0-9A-Fa-f]+", digits):
        raise InvalidQuery("unknown escape in a string", at)
    code = int(digits, 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise InvalidQuery("an escape names no character", at)
    return chr(code), at + 2 + length
