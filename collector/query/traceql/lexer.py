"""TraceQL's tokens.

An attribute is one token, scope and all: its name goes on until white space or one of `(){}=~!<>&|^,` and quotes, so
that `.http-status/code` is one name and arithmetic wants spaces, as in Tempo. Parts of a name may be quoted:
`span."a b".c`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from collector.errors import InvalidQuery
from collector.query.cursor import quoted

QUERY_CHARACTERS_MAX = 64 * 1024
"""Characters of a query."""

SCOPES = ("span", "resource", "event", "link", "instrumentation")
_INTRINSIC_SCOPES = ("span", "trace", "event", "link", "instrumentation")

_OPERATORS = (
    *("!>>", "!<<", "&>>", "&<<"),
    *("!>", "!<", "!~", "&>", "&<", "&~", "&&", "||", ">=", "<=", "=~", "!=", ">>", "<<"),
    *("=", "<", ">", "~", "+", "-", "*", "/", "%", "^", "!", "{", "}", "(", ")", ",", "|"),
)
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
INTEGER_MAX = 2**63 - 1
TOO_LARGE = "an integer is larger than 64 bits"
_DIGITS_MAX = 100
"""Digits of a number: more than any that can be meant."""
_AMOUNT = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_DURATION = re.compile(rf"(?:{_AMOUNT}(?:ns|us|µs|μs|ms|s|m|h))+(?![\w.])")
_DURATION_PART = re.compile(rf"({_AMOUNT})(ns|us|µs|μs|ms|s|m|h)")
_NUMBER = re.compile(rf"{_AMOUNT}(?:[eE][+-]?[0-9]+)?(?!\w)")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME_PIECE = re.compile(r"[^\s(){}=~!<>&|^,\"`]+")


@dataclass(frozen=True, slots=True)
class Token:
    """One token: `kind` is op, string, int, float, duration, attribute, intrinsic, word or end."""

    kind: str
    text: str
    at: int
    value: str | int | float | tuple[str, str, bool] | None = None


def tokenize(query: str) -> list[Token]:
    """Return the tokens of a query, an end token last; raise InvalidQuery where there is none."""
    if len(query) > QUERY_CHARACTERS_MAX:
        raise InvalidQuery(f"the query is longer than {QUERY_CHARACTERS_MAX} characters", 0)
    tokens = []
    at = 0
    while True:
        while at < len(query) and query[at].isspace():
            at += 1
        if at == len(query):
            tokens.append(Token("end", "", at))
            return tokens
        token, at = _next(query, at)
        tokens.append(token)


def _next(query: str, at: int) -> tuple[Token, int]:
    char = query[at]
    if char in '"`':
        text, end = quoted(query, at)
        return Token("string", query[at:end], at, text), end
    if char.isdigit() or (char == "." and query[at + 1 : at + 2].isdigit()):
        return _number(query, at)
    if char == ".":
        name, end = _name(query, at + 1)
        return Token("attribute", query[at:end], at, ("", name, False)), end
    word = _WORD.match(query, at)
    if word is not None:
        return _word(query, at, word.group())
    for operator in _OPERATORS:
        if query.startswith(operator, at):
            return Token("op", operator, at), at + len(operator)
    raise InvalidQuery(f"unexpected character {char!r}", at)


def _word(query: str, at: int, word: str) -> tuple[Token, int]:
    end = at + len(word)
    follower = query[end : end + 1]
    if follower == ":" and word in _INTRINSIC_SCOPES:
        field = _WORD.match(query, end + 1)
        if field is None:
            raise InvalidQuery(f"an intrinsic is missing after {word}:", end + 1)
        return Token("intrinsic", f"{word}:{field.group()}", at), field.end()
    if follower == "." and word == "parent":
        for scope in ("span", "resource"):
            if query.startswith(f"{scope}.", end + 1):
                name, stop = _name(query, end + len(scope) + 2)
                return Token("attribute", query[at:stop], at, (scope, name, True)), stop
        name, stop = _name(query, end + 1)
        return Token("attribute", query[at:stop], at, ("", name, True)), stop
    if follower == "." and word in SCOPES:
        name, stop = _name(query, end + 1)
        return Token("attribute", query[at:stop], at, (word, name, False)), stop
    return Token("word", word, at), end


def _name(query: str, at: int) -> tuple[str, int]:
    """Read an attribute's name, parts of which may be quoted."""
    pieces: list[str] = []
    begin = at
    while at < len(query):
        if query[at] == '"':
            text, at = quoted(query, at)
            pieces.append(text)
            continue
        piece = _NAME_PIECE.match(query, at)
        if piece is None:
            break
        pieces.append(piece.group())
        at = piece.end()
    if not "".join(pieces):
        raise InvalidQuery("an attribute's name is missing", begin)
    return "".join(pieces), at


def _number(query: str, at: int) -> tuple[Token, int]:
    duration = _DURATION.match(query, at)
    if duration is not None:
        parts = _DURATION_PART.findall(duration.group())
        if any(len(amount) > _DIGITS_MAX for amount, _ in parts):
            raise InvalidQuery(f"a number has more than {_DIGITS_MAX} digits", at)
        nanoseconds = sum(
            int(amount) * _UNITS[unit] if amount.isdigit() else round(float(amount) * _UNITS[unit])
            for amount, unit in parts
        )
        if nanoseconds >= 2**63:
            raise InvalidQuery("a duration is longer than 292 years", at)
        return Token("duration", duration.group(), at, nanoseconds), duration.end()
    number = _NUMBER.match(query, at)
    if number is None:
        raise InvalidQuery("not a number or a duration", at)
    text = number.group()
    if len(text) > _DIGITS_MAX:
        raise InvalidQuery(f"a number has more than {_DIGITS_MAX} digits", at)
    if text.isdigit():
        if int(text) > INTEGER_MAX + 1:  # that one is minInt's, behind a minus
            raise InvalidQuery(TOO_LARGE, at)
        return Token("int", text, at, int(text)), number.end()
    return Token("float", text, at, float(text)), number.end()
