"""LogQL's tokens: from text to a list of `Token`, with every literal read.

A token is what the grammar cannot take apart: an identifier (keywords are identifiers; the parser knows where a
word is one), a string, a number, a duration, a size in bytes, a parser flag, a symbol. White space and
`#` comments separate tokens and are not among them. Numbers with a unit are told apart here, because `5m`, `5MB`
and `5` are three kinds of value to a label filter.

Strings are Go's: `"…"` with Go's escapes, on one line, or `…` in backquotes, raw. A string must be valid UTF-8
after its escapes are read (`\\xff` alone is not), because labels and lines are.
"""

from __future__ import annotations

import re
from decimal import Decimal
from enum import Enum
from typing import NamedTuple

from collector.errors import InvalidQuery

QUERY_LENGTH_MAX = 131_072
"""Characters of a query; Loki's own limit."""

DURATION_MAX_NS = 2**63 - 1
"""The longest duration, in nanoseconds: 292 years."""

SIZE_MAX = 2**63 - 1
"""The largest size, in bytes."""

_SECOND = 1_000_000_000
DURATION_UNITS: dict[str, int] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # micro sign
    "μs": 1_000,  # noqa: RUF001: Greek mu, which Go reads too
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
    "d": 86_400 * _SECOND,
    "w": 7 * 86_400 * _SECOND,
    "y": 365 * 86_400 * _SECOND,
}
"""Nanoseconds of each unit of a duration."""

BYTE_UNITS: dict[str, int] = {
    "B": 1,
    "kB": 1000,
    "KiB": 1 << 10,
    "MB": 1000**2,
    "MiB": 1 << 20,
    "GB": 1000**3,
    "GiB": 1 << 30,
    "TB": 1000**4,
    "TiB": 1 << 40,
    "PB": 1000**5,
    "PiB": 1 << 50,
}
"""Bytes of each unit of a size. Read in any case, as Loki does."""

_BYTE_UNITS = {unit.lower(): size for unit, size in BYTE_UNITS.items()}

_DURATION_PART = r"[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|μs|ms|s|m|h|d|w|y)"  # noqa: RUF001
_TOKEN = re.compile(
    rf"""
      (?P<space>[ \t\r\n]+|\#[^\n]*)
    | (?P<identifier>[A-Za-z_:][A-Za-z0-9_:]*)
    | (?P<duration>(?:{_DURATION_PART})+)(?![A-Za-z0-9_.])
    | (?P<bytes>[0-9]+(?:\.[0-9]*)?(?i:[kmgtp]i?b|b))(?![A-Za-z0-9_.])
    | (?P<number>0[xX][0-9A-Fa-f]{{1,16}}|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.])
    | (?P<flag>--(?:strict|keep-empty))(?![A-Za-z0-9_-])
    | (?P<string>"(?:[^"\\\n]|\\[^\n])*"|`[^`]*`)
    | (?P<symbol>\|[=~>]|![=~>]|=[=~]|[<>]=|[-+*/%^=<>(){{}}\[\],|])
    """,
    re.VERBOSE,
)
_DURATION = re.compile(rf"(?:{_DURATION_PART})+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)([a-zµμ]+)")  # noqa: RUF001
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3})|(.?))")
_SIMPLE = {
    "a": b"\a", "b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v", "\\": b"\\", '"': b'"',
}  # fmt: skip


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
    """One token. `value` is a literal's: str of strings, float of numbers, int ns of durations, int of sizes."""

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


def duration_ns(text: str) -> int:
    """Return the nanoseconds of a duration such as `1h30m` or `1.5s`; ValueError when it is none."""
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a duration such as 30s, 5m or 1h30m")
    return sum(int(Decimal(number) * DURATION_UNITS[unit]) for number, unit in _PART.findall(text))


def _string(raw: str, text: str, at: int) -> str:
    if raw[0] == "`":
        return raw[1:-1].replace("\r", "")  # as Go reads raw strings
    content = raw[1:-1]
    if "\\" not in content:
        return content
    pieces: list[bytes] = []
    end = 0
    for match in _ESCAPE.finditer(content):
        pieces.append(content[end : match.start()].encode())
        pieces.append(_escape(match, text, at + 1 + match.start()))
        end = match.end()
    pieces.append(content[end:].encode())
    try:
        return b"".join(pieces).decode()
    except UnicodeDecodeError:
        raise query_error(text, at, "a string whose escapes do not make valid UTF-8") from None


def _escape(match: re.Match[str], text: str, at: int) -> bytes:
    simple, byte, short, long, octal, _ = match.groups()
    if simple is not None:
        return _SIMPLE[simple]
    if byte is not None:
        return bytes((int(byte, 16),))
    if octal is not None and int(octal, 8) < 256:
        return bytes((int(octal, 8),))
    if short is not None or long is not None:
        code = int(short or long, 16)
        if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            return chr(code).encode()
    raise query_error(text, at, f"an escape that is none of Go's: {match.group()}")
