"""PromQL's tokens. Durations and numbers are told apart by their unit; comments begin with `#`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from collector.errors import InvalidQuery
from collector.query.cursor import quoted

QUERY_CHARACTERS_MAX = 64 * 1024
"""Characters of a query."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
DURATION_MAX_MS = (2**63 - 1) // 1_000_000
"""The longest duration, in ms: 292 years, as in Prometheus."""
_DIGITS_MAX = 100
"""Characters of a number: more than any that can be meant."""
_DURATION = re.compile(r"(?:[0-9]+(?:ms|[smhdwy]))+(?![\w.])")
_DURATION_PART = re.compile(r"([0-9]+)(ms|[smhdwy])")
_NUMBER = re.compile(r"0[xX](?:_?[0-9a-fA-F])+|(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_OPERATORS = ("=~", "!~", "==", "!=", "<=", ">=", *"=<>+-*/%^(){}[],:@")


@dataclass(frozen=True, slots=True)
class Token:
    """One token: `kind` is op, string, number, duration, word or end."""

    kind: str
    text: str
    at: int
    value: str | float | int = 0


def tokenize(query: str) -> list[Token]:
    """Return the tokens of a query, an end token last; raise InvalidQuery where there is none."""
    if len(query) > QUERY_CHARACTERS_MAX:
        raise InvalidQuery(f"the query is longer than {QUERY_CHARACTERS_MAX} characters", 0)
    tokens = []
    at = 0
    while at < len(query):
        char = query[at]
        if char.isspace():
            at += 1
        elif char == "#":
            end = query.find("\n", at)
            at = end if end >= 0 else len(query)
        else:
            token, at = _next(query, at)
            tokens.append(token)
    tokens.append(Token("end", "", at))
    return tokens


def _next(query: str, at: int) -> tuple[Token, int]:
    char = query[at]
    if char in "\"'`":
        text, end = quoted(query, at)
        return Token("string", query[at:end], at, text), end
    if char.isdigit() or (char == "." and query[at + 1 : at + 2].isdigit()):
        return _number(query, at)
    if char == ":":  # `[5m:1m]` against `a:b`
        return Token("op", ":", at), at + 1
    word = _WORD.match(query, at)
    if word is not None:
        return Token("word", word.group(), at), word.end()
    for operator in _OPERATORS:
        if query.startswith(operator, at):
            return Token("op", operator, at), at + len(operator)
    raise InvalidQuery(f"unexpected character {char!r}", at)


def _number(query: str, at: int) -> tuple[Token, int]:
    duration = _DURATION.match(query, at)
    if duration is not None:
        parts = _DURATION_PART.findall(duration.group())
        if any(len(amount) > _DIGITS_MAX for amount, _ in parts):
            raise InvalidQuery("parse error: duration out of range", at)
        total = sum(int(amount) * _UNITS[unit] for amount, unit in parts)
        if total > DURATION_MAX_MS:
            raise InvalidQuery("parse error: duration out of range", at)
        return Token("duration", duration.group(), at, total), duration.end()
    number = _NUMBER.match(query, at)
    if number is None or query[number.end() : number.end() + 1].isalnum():
        raise InvalidQuery("not a number or a duration", at)
    text = number.group().replace("_", "")
    if len(text) > _DIGITS_MAX:
        raise InvalidQuery(f"parse error: a number of more than {_DIGITS_MAX} digits", at)
    value = float(int(text, 16)) if text[:2].lower() == "0x" else float(text)
    return Token("number", number.group(), at, value), number.end()
