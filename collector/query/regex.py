"""Regular expressions of all three languages: RE2, so that matching takes time linear in the text, whatever a client
writes, with a bound on the memory of one expression."""

from __future__ import annotations

from typing import Any

import re2

from collector.errors import InvalidQuery

REGEX_BYTES_MAX = 2 << 20
"""Bytes that RE2 may use for one expression; a larger program is refused."""


def compile_regex(pattern: str, at: int | None = None, *, any_character: bool = False, captures: bool = False) -> Any:
    """Compile an expression; `.` matches a newline too with `any_character`. Groups are found with `captures` only.

    Raises InvalidQuery, at the position given, when it is not one.
    """
    options = re2.Options()
    options.log_errors = False
    options.never_capture = not captures
    options.max_mem = REGEX_BYTES_MAX
    options.dot_nl = any_character
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        if isinstance(reason, bytes):
            reason = reason.decode(errors="replace")
        raise InvalidQuery(f"the regular expression {pattern[:100]!r} is invalid: {reason}", at) from None
