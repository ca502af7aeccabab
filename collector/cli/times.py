"""Times and durations of the command line: `now`, `now-15m`, `15m`.

Where the daemon reads every form of a time, only those that are told from now are read here (`from_now`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import click

from collector.clock import SystemClock

_AGO: Final = re.compile(r"now(?:-([0-9]{1,9})(s|m|h|d))?")
_UNIX: Final = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?")
_NANOSECONDS_MIN: Final = 10**11
"""Whole numbers from here on are ns, smaller ones seconds (up to the year 5138)."""
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def from_now(text: str) -> str:
    """Return what the query API reads: `now-15m` (s, m, h, d) as Unix ns, RFC 3339 and Unix time as they are."""
    ago = _ago_ns(text)
    return text if ago is None else str(ago)


def _ago_ns(text: str) -> int | None:
    """Return the Unix ns of a time that is told from now; None of any other."""
    ago = _AGO.fullmatch(text)
    if ago is None:
        return None
    return max(0, SystemClock().now_ns() - int(ago[1] or 0) * _SECONDS[ago[2] or "s"] * 10**9)


def milliseconds(text: str) -> int:
    """Read a time of any form that the query API reads, as Unix ms: for APIs that know fewer, and to reckon with.

    `now-15m`, RFC 3339 (of UTC without a zone), Unix seconds or ns. Raises BadParameter.
    """
    ago = _ago_ns(text)
    if ago is not None:
        return ago // 1_000_000
    number = _UNIX.fullmatch(text)
    if number is not None:
        whole = int(number[1])
        if number[2] is None and whole >= _NANOSECONDS_MIN:
            return whole // 1_000_000
        return whole * 1000 + int((number[2] or "")[:3].ljust(3, "0"))
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{text!r} is not a time like 2026-11-21T10:00:00Z, now-15m or Unix seconds"
        ) from error
    return max(0, (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000)


def seconds(text: str) -> float:
    """Read a duration like `15m`, in seconds. Raises BadParameter."""
    from collector.quantities import read_duration

    try:
        return read_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a duration like 15m") from error
