"""Texts of others on a terminal: what it would obey (escape sequences, line breaks, reversed writing) is escaped."""

from __future__ import annotations


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
