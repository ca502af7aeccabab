"""`detected_level`: the level of a log record, found by Loki's rules (its discover_log_levels), where they first say one.

    its own detected_level      as an attribute, as senders of Loki's push API have it
    a stream label              of those in `LEVEL_LABELS`, the first in that order
    structured metadata         likewise; an attribute `level` before the record's own severity_text
    the severity number         by bands of four: 1 to 4 is trace
    the line                    a field of a level's name in JSON or logfmt, else the first word that names a level
                                (`query/levels.py`)

A text that names a level is that level, in one spelling; another text is taken as it is. What says nothing is `unknown`. The
line is read only where nothing else says anything: it costs 1 ns a byte, the rest next to nothing.

`detected_level` is the definition, for one record; `columns.py` has the same by columns; a test compares them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from collector.query.levels import LEVELS as LINE_LEVELS
from collector.query.levels import level_of

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVEL: Final = "detected_level"

LEVEL_LABELS: Final = (
    "level",
    "LEVEL",
    "Level",
    "severity",
    "SEVERITY",
    "Severity",
    "SeverityText",
    "lvl",
    "LVL",
    "Lvl",
    "severity_text",
    "Severity_Text",
    "SEVERITY_TEXT",
)
"""The labels that tell a level: Loki's list of log_level_fields, but for `log.level`, which is no label's name."""

SEVERITY_LEVELS: Final = ("unknown", "trace", "debug", "info", "warn", "error", "fatal")
"""The levels by band of severity numbers: 0, 1 to 4, 5 to 8, …, 21 to 24."""
_NAMES: Final = {
    "trace": "trace",
    "trc": "trace",
    "debug": "debug",
    "dbg": "debug",
    "info": "info",
    "inf": "info",
    "information": "info",
    "warn": "warn",
    "wrn": "warn",
    "warning": "warn",
    "error": "error",
    "err": "error",
    "critical": "critical",
    "fatal": "fatal",
}
SEVERITIES: Final = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21, "critical": 21}
"""The severity number of a level: the first of its band."""


def normalized(text: str) -> str:
    """Return the level that a text names, or the text."""
    return _NAMES.get(text.lower(), text)


def of_number(severity_number: int) -> str:
    """Return the level of a severity number; `unknown` for one out of range."""
    return SEVERITY_LEVELS[(severity_number + 3) // 4] if 0 < severity_number <= 24 else SEVERITY_LEVELS[0]


def of_line(line: bytes) -> str:
    """Return the level that a line tells."""
    return LINE_LEVELS[level_of(line)]


def told(labels: Mapping[str, str]) -> str:
    """Return the level that labels tell; nothing if none does."""
    for name in LEVEL_LABELS:
        text = labels.get(name)
        if text is not None:
            return normalized(text)
    return ""


def detected_level(of_stream: str, metadata: Mapping[str, str], severity_number: int, line: bytes) -> str:
    """Return the level of a record: of its stream's labels (what they have `told`), its structured metadata, severity number
    and line."""
    own = metadata.get(LEVEL)
    if own:
        return normalized(own)
    found = of_stream or told(metadata)
    if found:
        return found
    return of_number(severity_number) if severity_number else of_line(line)
