"""Cross-origin requests: what a browser is told about who may send, and who may read the answers (the Fetch standard).

Origins are compared as browsers write them, in which `*` stands for any part. Credentials of browsers (cookies) are
never allowed: what authenticates here is a header that the page sets itself. With no origin allowed nothing of this
is served, and a preflight request is a method like any other that is not POST.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

ALWAYS_ALLOWED: Final = ("content-type", "content-encoding")
"""Headers that OTLP needs."""


class Cors:
    """Who may send from web pages."""

    def __init__(self, origins: Sequence[str], headers: Sequence[str], max_age_s: int) -> None:
        """Allow these origins and these headers (in lower case); `*` is any."""
        self._origins = [re.compile(".*".join(map(re.escape, one.lower().split("*")))) for one in origins]
        self._is_open = "*" in origins
        self._any_header = "*" in headers
        self._headers = ", ".join(dict.fromkeys((*ALWAYS_ALLOWED, *(one for one in headers if one != "*"))))
        self._max_age_s = max_age_s

    def __bool__(self) -> bool:
        """Tell whether any origin is allowed."""
        return bool(self._origins)

    def allows(self, origin: str) -> bool:
        """Tell whether pages of an origin may send."""
        return bool(origin) and any(one.fullmatch(origin.lower()) for one in self._origins)

    def headers(self, origin: str) -> str:
        """Return the header lines of an answer to a page of this origin; each ends in CR LF."""
        vary = "Vary: Origin\r\n" if not self._is_open else ""
        if not self.allows(origin):
            return vary
        return (
            f"Access-Control-Allow-Origin: {'*' if self._is_open else origin}\r\n"
            f"Access-Control-Expose-Headers: Retry-After\r\n{vary}"
        )

    def preflight(self, origin: str, asked: str) -> str:
        """Return the header lines of the answer to a preflight request, which asks for these headers."""
        lines = self.headers(origin)
        if not self.allows(origin):
            return lines
        allowed = asked if self._any_header and asked else self._headers
        return (
            f"{lines}Access-Control-Allow-Methods: POST\r\nAccess-Control-Allow-Headers: {allowed}\r\n"
            f"Access-Control-Max-Age: {self._max_age_s}\r\n"
        )
