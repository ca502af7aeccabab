"""Texts of others on a terminal: what it would obey (escape sequences, line breaks, reversed writing) is escaped."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from datetime import UTC, datetime
from typing import Final

WIDTH_MIN, WIDTH_MAX = 60, 200
"""Columns of a picture."""
_WIDTH_OF_NO_TERMINAL: Final = 120


def width() -> int:
    """Return the columns that a picture may have: the terminal's, but not too few nor too many."""
    return min(WIDTH_MAX, max(WIDTH_MIN, shutil.get_terminal_size((_WIDTH_OF_NO_TERMINAL, 24)).columns))


def can_show(signs: str) -> bool:
    """Tell whether the output's encoding has all of some signs."""
    try:
        signs.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def escaped(text: str) -> str:
    r"""Return a text on one line that a terminal shows as it is; what it would not becomes `\x1b`, `\u202e`."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()


def escaped_json(text: str) -> str:
    """Return JSON of one line with the same value, in which everything that is not shown is escaped."""
    return text if text.isprintable() else "".join(map(_escaped_json, text))


def _escaped_json(char: str) -> str:
    if char.isprintable():
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def fitted(text: str, width: int) -> str:
    """Return an escaped text cut, or filled up, to a number of columns."""
    cells = [_cells(char) for char in text]
    if sum(cells) > width:
        kept = used = 0
        while used + cells[kept] < width:
            used += cells[kept]
            kept += 1
        text, cells = text[:kept] + "…", [*cells[:kept], 1]
    return text + " " * (width - sum(cells))


def columns(text: str) -> int:
    """Return how many columns a terminal gives an escaped text."""
    return sum(map(_cells, text))


def _cells(char: str) -> int:
    """Return how many columns a terminal gives a character."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def duration(nanoseconds: int) -> str:
    """Write a duration to three digits or so: `12.3 ms`."""
    size = float(nanoseconds)
    for unit, step in (("ns", 1000), ("µs", 1000), ("ms", 1000), ("s", 60)):
        if size < step:
            return (
                f"{size:.0f} {unit}"
                if unit == "ns" or size >= 99.95
                else f"{size:.{1 if size >= 9.995 else 2}f} {unit}"
            )
        size /= step
    return f"{size:.0f} min" if size < 600 else f"{size / 60:.0f} h"


def moment(nanoseconds: int) -> str:
    """Write a time in Unix ns as UTC, to the millisecond."""
    millis = nanoseconds // 1_000_000
    return f"{datetime.fromtimestamp(millis // 1000, UTC):%Y-%m-%d %H:%M:%S}.{millis % 1000:03d}"
