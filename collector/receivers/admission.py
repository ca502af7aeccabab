"""Admission: the bytes of requests in flight, counted before anything is decoded, and the door that closes.

A request takes its announced size from the budget before its body is read, more as it turns out larger
(inflating included), and gives all of it back when it is answered, or when its client has vanished. What does
not fit is refused with a retryable cause. Numbers only: nothing here waits for room, because a client that waits
holds its bytes somewhere else.

Owner: the event loop's thread. Cost: two additions a request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from prometheus_client import Gauge

from collector.errors import Overloaded, Unavailable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

RETRY_AFTER_S: Final = 1.0
"""What a refused client is told to wait: long enough for many commits, well inside an exporter's ten seconds."""


class Admission:
    """The in-flight budget of all receivers, in bytes."""

    def __init__(self, bytes_max: int, registry: CollectorRegistry | None = None) -> None:
        """Take the budget; with a registry, expose what is in flight there."""
        self.bytes_max = bytes_max
        self.in_flight_bytes = 0
        self.in_flight_requests = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        if registry is not None:
            gauge = Gauge(
                "ringtail_receiver_in_flight_bytes",
                "Bytes of export requests that are being received or made durable.",
                registry=registry,
            )
            gauge.set_function(lambda: self.in_flight_bytes)

    @property
    def draining(self) -> bool:
        """Whether the door is closed."""
        return self._draining

    def admit(self, size: int) -> None:
        """Take `size` bytes for a new request; raise Unavailable when draining, Overloaded when they do not fit."""
        if self._draining:
            raise Unavailable("the daemon is shutting down", RETRY_AFTER_S)
        self._take(size, self.in_flight_requests)
        self.in_flight_requests += 1
        self._empty.clear()

    def grow(self, size: int) -> None:
        """Take `size` bytes more for a request that was admitted; raise Overloaded when they do not fit."""
        self._take(size, self.in_flight_requests - 1)

    def _take(self, size: int, others: int) -> None:
        # A request alone always fits: a budget below the size limit must not refuse it for ever.
        if others and self.in_flight_bytes + size > self.bytes_max:
            raise Overloaded(
                f"{self.in_flight_bytes} bytes of requests are in flight; {size} more would pass the limit of "
                f"{self.bytes_max} (receivers.otlp.max_in_flight_bytes)",
                RETRY_AFTER_S,
            )
        self.in_flight_bytes += size

    def release(self, size: int) -> None:
        """End a request, giving back all that it had taken."""
        self.in_flight_bytes -= size
        self.in_flight_requests -= 1
        assert self.in_flight_bytes >= 0 <= self.in_flight_requests, "a request was released twice"
        if not self.in_flight_requests:
            self._empty.set()

    async def drain(self) -> None:
        """Refuse new requests from now on, and wait until none is in flight."""
        self._draining = True
        await self._empty.wait()
