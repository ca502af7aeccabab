"""Numbers, durations and sizes in the texts of labels, read exactly as Loki reads them.

Loki hands label values to Go's strconv.ParseFloat and time.ParseDuration and to go-humanize's ParseBytes. What
these take, what they refuse and what they say then is part of LogQL, because the words become
`__error_details__`. A function here returns the value or raises `Unreadable` with those words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from collector.query.logql.literals import quote

if TYPE_CHECKING:
    from collections.abc import Callable

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:_[0-9]+)*\.?(?:[0-9]+(?:_[0-9]+)*)?|\.[0-9]+(?:_[0-9]+)*)(?:[eE][+-]?[0-9]+)?")
_HEXADECIMAL = re.compile(r"[+-]?0[xX](?:[0-9A-Fa-f_]+\.?[0-9A-Fa-f_]*|\.[0-9A-Fa-f_]+)[pP][+-]?[0-9]+")
_SPECIAL = re.compile(r"(?:[+-]?inf(?:inity)?|nan)", re.IGNORECASE)

_DURATION_PART = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]*)")
_SIMPLE_DURATION = re.compile(r"([0-9]{1,6})(?:\.([0-9]{1,9}))?(ns|us|µs|μs|ms|s|m|h)")  # what nearly all are
_DURATION_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_MAX = 2**63 - 1

_SIZE_DIGITS = re.compile(r"[\d.,]*")
_SIZE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtpe", 1):
    _SIZE_UNITS |= {_letter: 1000**_power, f"{_letter}b": 1000**_power}
    _SIZE_UNITS |= {f"{_letter}i": 1024**_power, f"{_letter}ib": 1024**_power}

QUANTITY_LENGTH_MAX = 200
"""Characters of a text that is looked at; a longer one is no number, duration or size."""


class Unreadable(Exception):
    """A text stands for no value; the message says why, in Loki's words. `value` is what Loki takes it for."""

    def __init__(self, message: str, value: float = 0.0) -> None:
        super().__init__(message)
        self.value = value


def read_number(text: str) -> float:
    """Return a number as Go's strconv.ParseFloat reads it."""
    if len(text) <= QUANTITY_LENGTH_MAX:
        if _DECIMAL.fullmatch(text):
            value = float(text)
            if value in (float("inf"), float("-inf")):
                raise Unreadable(f"strconv.ParseFloat: parsing {quote(text)}: value out of range", value)
            return value
        if _SPECIAL.fullmatch(text):
            return float(text)
        if _HEXADECIMAL.fullmatch(text):
            return float.fromhex(text.replace("_", ""))
    raise Unreadable(f"strconv.ParseFloat: parsing {quote(text[:QUANTITY_LENGTH_MAX])}: invalid syntax")


def read_duration_ns(text: str) -> int:
    """Return the nanoseconds of a duration such as `1h2m` or `-1.5s`, as Go's time.ParseDuration reads it."""
    simple = _SIMPLE_DURATION.fullmatch(text)
    if simple is not None:
        ones, decimals, of = simple.groups()
        return int(ones) * _DURATION_UNITS[of] + _part(decimals, _DURATION_UNITS[of])
    shown = quote(text[:QUANTITY_LENGTH_MAX])
    unsigned = text[1:] if text[:1] in ("-", "+") else text
    if unsigned == "0":
        return 0
    if not unsigned or len(text) > QUANTITY_LENGTH_MAX:
        raise Unreadable(f"time: invalid duration {shown}")
    total = at = 0
    while at < len(unsigned):
        part = _DURATION_PART.match(unsigned, at)
        assert part is not None  # it matches the empty text
        whole, _, fraction, unit = part.groups()
        if not whole and not fraction:
            raise Unreadable(f"time: invalid duration {shown}")
        if not unit:
            raise Unreadable(f"time: missing unit in duration {shown}")
        scale = _DURATION_UNITS.get(unit)
        if scale is None:
            raise Unreadable(f"time: unknown unit {quote(unit)} in duration {shown}")
        total += int(whole or 0) * scale + _part(fraction, scale)
        at = part.end()
    if total > _DURATION_MAX:
        raise Unreadable(f"time: invalid duration {shown}")
    return -total if text[0] == "-" else total


def _part(decimals: str | None, scale: int) -> int:
    """Return the nanoseconds of the digits behind a point."""
    return int(decimals) * scale // 10 ** len(decimals) if decimals else 0


def read_duration(text: str) -> float:
    """Return the seconds of a duration."""
    ns = read_duration_ns(text)
    seconds, rest = divmod(abs(ns), 10**9)
    value = seconds + rest / 1e9
    return -value if ns < 0 else value


def read_size(text: str) -> int:
    """Return the bytes of a size such as `1.5 MiB` or `20kb`, as go-humanize reads it."""
    if len(text) < 16 and text.isascii() and text.isdecimal():
        return int(text)
    match = _SIZE_DIGITS.match(text[: QUANTITY_LENGTH_MAX + 1])
    assert match is not None  # it matches the empty text
    value = read_number(match.group().replace(",", ""))
    unit = text[match.end() :].strip().lower()
    if len(text) > QUANTITY_LENGTH_MAX or unit not in _SIZE_UNITS:
        raise Unreadable(f"unhandled size name: {unit[:QUANTITY_LENGTH_MAX]}")
    value *= _SIZE_UNITS[unit]
    if value >= 2**64:
        raise Unreadable(f"too large: {text}")
    return int(value)


CONVERSIONS: dict[str, Callable[[str], float]] = {
    "": read_number,
    "bytes": read_size,
    "duration": read_duration,
    "duration_seconds": read_duration,
}
"""How `unwrap` makes a number of a label's text, by the conversion's name."""
