"""Parameters of Jaeger's APIs: durations as Go writes them, times, ids, tags, and the two spellings of v3's names."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from collector.errors import InvalidQuery
from collector.query.slices import END_OF_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.datastructures import QueryParams

LIMIT_DEFAULT, LIMIT_MAX = 100, 1500
"""Traces in a search's answer; Jaeger's own user interface asks for at most so many."""
TAGS_MAX = 64
"""Tags in a search."""
_DIGITS_MAX = 18

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_FRACTION = re.compile(r"\.(\d+)")


def given(parameters: QueryParams, name: str) -> str:
    """Return a parameter of v3, by its proto name (`query.service_name`) or its JSON name (`query.serviceName`)."""
    camel = re.sub(r"_([a-z])", lambda found: found[1].upper(), name)
    return parameters.get(name, "") or parameters.get(camel, "")


def whole(text: str, name: str, default: int, low: int = 0, high: int = 10**_DIGITS_MAX - 1) -> int:
    """Return a whole number from low to high."""
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > _DIGITS_MAX or not low <= int(text) <= high:
        raise InvalidQuery(f"malformed parameter {name}: {text[:50]!r} is no whole number from {low} to {high}")
    return int(text)


def duration(text: str, name: str, default: int) -> int:
    """Return a duration in ns: `1.5s`, `100ms`, `1h30m`."""
    if not text:
        return default
    total, at = 0.0, 0
    for found in _DURATION.finditer(text):
        if found.start() != at:
            break
        total += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    if at != len(text) or len(text) > 50 or total >= END_OF_TIME:
        raise InvalidQuery(f"malformed parameter {name}: {text[:50]!r} is no duration such as 1.5s or 100ms")
    return round(total)


def instant(text: str, name: str) -> int:
    """Return a time of RFC 3339 in Unix ns, to the nanosecond."""
    fraction = _FRACTION.search(text)
    try:
        moment = datetime.fromisoformat(_FRACTION.sub("", text, count=1))
        if moment.tzinfo is None or "T" not in text.upper():
            raise ValueError(text)
        seconds = int(moment.timestamp())
    except (ValueError, OverflowError) as error:
        message = f"malformed parameter {name}: {text[:50]!r} is no time such as 2026-11-21T10:00:00Z"
        raise InvalidQuery(message) from error
    nanoseconds = int(fraction[1][:9].ljust(9, "0")) if fraction else 0
    return min(max(0, seconds * 10**9 + nanoseconds), END_OF_TIME)


def trace_id(text: str, name: str) -> bytes:
    """Return the 16 bytes of a trace id of up to 32 hex digits."""
    plain = text.replace("-", "")
    if not 0 < len(plain) <= 32 or re.fullmatch(r"[0-9a-fA-F]+", plain) is None:
        raise InvalidQuery(f"malformed parameter {name}: a trace id has up to 32 hex digits, unlike {text[:50]!r}")
    return bytes.fromhex(plain.zfill(32))


def tags(maps: Iterable[str], pairs: Iterable[str] = (), name: str = "tags") -> tuple[tuple[str, str], ...]:
    """Return tags out of JSON objects of texts, and of pairs `key:value`."""
    found: list[tuple[str, str]] = []
    for text in maps:
        try:
            made = msgspec.json.decode(text, type=dict[str, str | int | float | bool]) if text else {}
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise InvalidQuery(f"malformed parameter {name}: an object of texts is wanted: {error}") from error
        found += [(key, _text(value)) for key, value in made.items()]
    for text in pairs:
        key, colon, value = text.partition(":")
        if not colon:
            raise InvalidQuery(f"malformed parameter 'tag', expecting key:value, received: {text[:50]}")
        found.append((key, value))
    if len(found) > TAGS_MAX:
        raise InvalidQuery(f"malformed parameter {name}: more than {TAGS_MAX} tags")
    return tuple(found)


def _text(value: str | float | bool) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
