r"""LogQL's literals: the values that texts stand for, and the texts that stand for values.

What is written here is read here as the same value. Durations are int nanoseconds, sizes int bytes. Strings
are Go's: `"…"` with Go's escapes, on one line, or raw in backquotes. A string must be valid UTF-8 after its
escapes are read (`\xff` alone is not), because labels and lines are.

The reading functions take a text that has the literal's form and raise ValueError, worded for the person who
wrote it, when it stands for no value.
"""

from __future__ import annotations

import re
from decimal import Decimal

DURATION_MAX_NS = 2**63 - 1
"""The longest duration, in nanoseconds: 292 years."""

SIZE_MAX = 2**63 - 1
"""The largest size, in bytes."""

_SECOND = 1_000_000_000
DURATION_UNITS: dict[str, int] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # micro sign
    "μs": 1_000,  # Greek mu, which Go reads too
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
    "d": 86_400 * _SECOND,
    "w": 7 * 86_400 * _SECOND,
    "y": 365 * 86_400 * _SECOND,
}
"""Nanoseconds of each unit of a duration."""

SIZE_UNITS: dict[str, int] = {
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

DURATION_PATTERN = r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|μs|ms|s|m|h|d|w|y))+"
SIZE_PATTERN = r"[0-9]+(?:\.[0-9]*)?(?i:[kmgtp]i?b|b)"
NUMBER_PATTERN = r"0[xX][0-9A-Fa-f]{1,16}|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
STRING_PATTERN = r'"(?:[^"\\\n]|\\[^\n])*"|`[^`]*`'

_DURATION = re.compile(DURATION_PATTERN)
_DURATION_PART = re.compile(r"([0-9.]+)([a-zµμ]+)")
_SIZES = {unit.lower(): size for unit, size in SIZE_UNITS.items()}
_ESCAPE = re.compile(r"""\\(?:([abfnrtv\\"])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3})|.)""")
_ESCAPED = dict(zip('abfnrtv\\"', (b"\a", b"\b", b"\f", b"\n", b"\r", b"\t", b"\v", b"\\", b'"'), strict=True))


def duration_ns(text: str) -> int:
    """Return the nanoseconds of a duration such as `1h30m` or `1.5s`, whatever the order of its units."""
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not a duration such as 30s, 5m or 1h30m")
    duration = sum(int(Decimal(count) * DURATION_UNITS[unit]) for count, unit in _DURATION_PART.findall(text))
    if duration > DURATION_MAX_NS:
        raise ValueError(f"a duration of more than {DURATION_MAX_NS} ns")
    return duration


def size_bytes(text: str) -> int:
    """Return the bytes of a size such as `20KB` or `1.5MiB`."""
    digits = text.rstrip("bBiIkKmMgGtTpP")
    size = int(Decimal(digits) * _SIZES[text[len(digits) :].lower()])
    if size > SIZE_MAX:
        raise ValueError(f"a size of more than {SIZE_MAX} bytes")
    return size


def number(text: str) -> float:
    """Return the number of a decimal or hexadecimal literal."""
    value = float(int(text, 16)) if text[:2] in ("0x", "0X") else float(text)
    if value == float("inf"):
        raise ValueError("a number that is too large")
    return value


def string(text: str) -> str:
    """Return what stands in a quoted string."""
    content = text[1:-1]
    if text[0] == "`":
        return content.replace("\r", "")  # as Go reads raw strings
    if "\\" not in content:
        return content
    pieces: list[bytes] = []
    end = 0
    for match in _ESCAPE.finditer(content):
        pieces.append(content[end : match.start()].encode())
        pieces.append(_unescaped(match))
        end = match.end()
    pieces.append(content[end:].encode())
    try:
        return b"".join(pieces).decode()
    except UnicodeDecodeError:
        raise ValueError("a string whose escapes do not make valid UTF-8") from None


def _unescaped(match: re.Match[str]) -> bytes:
    simple, byte, short, long, octal = match.groups()
    if simple is not None:
        return _ESCAPED[simple]
    if byte is not None:
        return bytes((int(byte, 16),))
    if octal is not None and int(octal, 8) < 256:
        return bytes((int(octal, 8),))
    if short is not None or long is not None:
        code = int(short or long, 16)
        if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            return chr(code).encode()
    raise ValueError(f"an escape that is none of Go's: {match.group()}")


def quote(text: str) -> str:
    """Return a string literal for a text."""
    out = ['"']
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char < " " or char == "\x7f":
            out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char, f"\\u{ord(char):04x}"))
        else:
            out.append(char)
    out.append('"')
    return "".join(out)


def duration_text(ns: int) -> str:
    """Return the duration literal of nanoseconds, such as `1h30m`; a negative one begins with `-`."""
    if ns == 0:
        return "0s"
    parts = ["-"] if ns < 0 else []
    rest = abs(ns)
    for unit in ("d", "h", "m", "s", "ms", "us", "ns"):
        count, rest = divmod(rest, DURATION_UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def size_text(size: int) -> str:
    """Return the size literal of bytes, in the largest unit that needs no fraction."""
    sign = "-" if size < 0 else ""
    unit = max(
        (unit for unit, each in SIZE_UNITS.items() if size and size % each == 0),
        key=SIZE_UNITS.__getitem__,
        default="B",
    )
    return f"{sign}{abs(size) // SIZE_UNITS[unit]}{unit}"


def number_text(value: float) -> str:
    """Return the number literal of a finite float."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
