"""How a log record's severity is written and coloured."""

from __future__ import annotations

from typing import Final

import click

LEVELS: Final = ("-", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
"""Names of severities without a text of their own, four numbers each."""
_WIDTH: Final = 5
_NUMBERS: Final = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "critical": 21, "fatal": 21}
"""Loki's levels as severity numbers."""


def number_of(level: str) -> int:
    """Return the lowest severity number of one of Loki's levels; 0 for any other."""
    return _NUMBERS.get(level, 0)


def level_of(number: int, text: str) -> str:
    """Return what a severity is called: by its own text, else by its number."""
    return text or LEVELS[min(len(LEVELS) - 1, (max(0, number) + 3) // 4)]


def coloured(text: str, number: int) -> str:
    """Colour a text, escaped already, by a severity: errors red, fatal ones bold, warnings yellow; what is below INFO is grey."""
    if number >= 13:
        return click.style(text, fg="red" if number >= 17 else "yellow", bold=number >= 21 or None)
    return click.style(text, dim=True) if 0 < number < 9 else text


def level_column(level: str, number: int) -> str:
    """Return an escaped level as a column, coloured."""
    return coloured(level.ljust(_WIDTH), number)
