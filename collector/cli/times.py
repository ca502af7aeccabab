"""Times of the command line that are told from now: `now`, `now-15m`. Everything else is for the daemon to read."""

from __future__ import annotations

import re
from typing import Final

from collector.clock import SystemClock

_AGO: Final = re.compile(r"now(?:-([0-9]{1,9})(s|m|h|d))?")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def from_now(text: str) -> str:
    """Return what the query API reads: `now-15m` (s, m, h, d) as Unix ns, RFC 3339 and Unix time as they are."""
    ago = _AGO.fullmatch(text)
    if ago is None:
        return text
    return str(max(0, SystemClock().now_ns() - int(ago[1] or 0) * _SECONDS[ago[2] or "s"] * 10**9))
