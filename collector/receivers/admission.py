"""Admission: the bytes of requests in flight, counted before anything is decoded.

A request takes its announced size from the budget before its body is read, more as it turns out larger (inflating
included), and gives all of it back when it is answered. What does not fit is refused with a retryable cause.
Owned by the event loop's thread.
"""

from __future__ import annotations

import asyncio

from collector.errors import Overloaded, Unavailable

RETRY_AFTER_S = 1.0
"""What a refused client is told to wait: long enough for a commit, well inside an exporter's ten seconds."""


class Admission:
    """The in-flight budget, in bytes, and the door that closes when the daemon stops."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.in_flight_bytes = 0
        self.in_flight_requests = 0
        self.refused = 0
        self._draining = False
        self._empty: asyncio.Event | None = None

    def admit(self, size: int) -> None:
        """Take `size` bytes for a new request; raise Unavailable when stopping, Overloaded when they do not fit."""
        if self._draining:
            raise Unavailable("the daemon is shutting down", RETRY_AFTER_S)
        self.grow(size)
        self.in_flight_requests += 1

    def grow(self, size: int) -> None:
        """Take `size` bytes more for a request that was admitted; raise Overloaded when they do not fit.

        One request alone always fits: a budget smaller than the size limit must not refuse it for ever.
        """
        if self.in_flight_bytes and self.in_flight_bytes + size > self.bytes_max:
            self.refused += 1
            raise Overloaded(
                f"{self.in_flight_bytes} bytes of requests are in flight; {size} more would pass the limit of "
                f"{self.bytes_max} (receivers.otlp.max_in_flight_bytes)",
                RETRY_AFTER_S,
            )
        self.in_flight_bytes += size

    def release(self, size: int) -> None:
        """Give back everything that an answered request had taken."""
        self.in_flight_bytes -= size
        self.in_flight_requests -= 1
        if self._empty is not None and not self.in_flight_requests:
            self._empty.set()

    async def drain(self) -> None:
        """Refuse new requests from now on, and wait until none is in flight."""
        self._draining = True
        self._empty = asyncio.Event()
        if self.in_flight_requests:
            await self._empty.wait()
