"""The clock as a seam: the only module that reads time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the rest of the house may ask about time."""

    def now_ns(self) -> int:
        """Wall-clock nanoseconds since the Unix epoch; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards; for durations, timeouts and ages."""
        ...


class SystemClock:
    """The operating system's clock."""

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return time.time_ns()

    monotonic = staticmethod(time.monotonic)
    """See `Clock.monotonic`."""
