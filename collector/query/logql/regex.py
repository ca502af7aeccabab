"""Regular expressions of LogQL: RE2, so that matching takes time linear in the text whatever a client writes.

Matchers and label filters match a whole value; `.` does not match a newline there. Line filters search, and
`.` matches every character, as Loki documents both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import re2

from collector.errors import InvalidQuery

if TYPE_CHECKING:
    from collections.abc import Callable

EXPRESSION_MEMORY_MAX = 2 << 20
"""Bytes that RE2 may use for one expression; a larger program is refused."""


def full_matcher(expression: str) -> Callable[[str], bool]:
    """Return a function that tells whether the expression matches a whole text. Raises InvalidQuery."""
    match = _compile(expression, any_character=False).fullmatch
    return lambda text: match(text) is not None


def searcher(expression: str) -> Callable[[bytes], bool]:
    """Return a function that tells whether the expression matches anywhere in a line. Raises InvalidQuery."""
    search = _compile(expression, any_character=True).search
    return lambda line: search(line) is not None


def literal(expression: str) -> str | None:
    """Return the text that the expression stands for when it has no operators, else None."""
    return expression if expression.isascii() and re2.escape(expression) == expression else None


def _compile(expression: str, *, any_character: bool) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = EXPRESSION_MEMORY_MAX
    options.dot_nl = any_character
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        if isinstance(reason, bytes):
            reason = reason.decode(errors="replace")
        raise InvalidQuery(f"the regular expression {expression[:100]!r} is invalid: {reason}") from None
