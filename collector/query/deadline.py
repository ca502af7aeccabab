"""A query's time limit, and its rests while requests come in."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING

from collector.errors import QueryTimeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from collector.clock import Clock
    from collector.query.effort import Effort

WORK_S = 0.001
"""How long a query works, in seconds, before it looks whether requests are coming in."""
REST = 10.0
"""How many times as long it then rests."""
REST_MAX_S = 0.05
"""How long it rests at most, in seconds."""


class Deadline:
    """A query's time limit, and its switch to stop early.

    Of the threads of a process one at a time runs Python, so a query that computes without a pause takes every second turn
    from the event loop, however many cores there are: records were received at less than half the rate. Therefore it
    rests at its checks while requests are coming in.
    """

    def __init__(
        self,
        seconds: float,
        clock: Clock,
        received: Callable[[], int] | None = None,
        idle: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`received` tells how many requests have come in so far, in any thread; None: the query never rests. `idle` is
        entered while the query waits."""
        self.seconds = seconds
        self.clock = clock
        self._received = received
        self._requests = received() if received is not None else 0
        self._rested = clock.monotonic()
        self._end = self._rested + seconds
        self._cancelled = threading.Event()
        self.effort: Effort | None = None
        """Where what the query does is noted; None: nobody asks."""
        self._idle = idle

    @property
    def left_s(self) -> float:
        """The time that is left, in seconds."""
        return max(0.0, self._end - self.clock.monotonic())

    def idle(self) -> AbstractContextManager[None]:
        """Return what lets another query run while this one waits for something outside."""
        return self._idle()

    def cancel(self) -> None:
        """Let the next check fail: nobody waits for the answer any more."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise QueryTimeout when the time is over; rest if there is reason to."""
        now = self.clock.monotonic()
        if self._received is not None and now - self._rested >= WORK_S:
            requests = self._received()
            if requests != self._requests:
                self._cancelled.wait(min(REST_MAX_S, REST * (now - self._rested)))
                self._requests, now = self._received(), self.clock.monotonic()
            self._rested = now
        if self._cancelled.is_set() or now > self._end:
            raise QueryTimeout(f"the query took longer than {self.seconds:g} s (query.timeout)")
