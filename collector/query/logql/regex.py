"""How LogQL matches regular expressions (query/regex.py).

Matchers and label filters match a whole value; `.` does not match a newline there. Line filters search, and
`.` matches every character, as Loki documents both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import re2

from collector.query.regex import compile_regex

if TYPE_CHECKING:
    from collections.abc import Callable


def full_matcher(expression: str) -> Callable[[str], bool]:
    """Return a function that tells whether the expression matches a whole text. Raises InvalidQuery."""
    if expression == ".+":  # what Grafana asks for when it means everything
        return lambda text: text != "" and "\n" not in text
    match = compile_regex(expression).fullmatch
    return lambda text: match(text) is not None


def searcher(expression: str) -> Callable[[bytes], bool]:
    """Return a function that tells whether the expression matches anywhere in a line. Raises InvalidQuery."""
    search = compile_regex(expression, any_character=True).search
    return lambda line: search(line) is not None


def literal(expression: str) -> str | None:
    """Return the text that the expression stands for when it has no operators, else None."""
    return expression if expression.isascii() and re2.escape(expression) == expression else None
