"""Admission: the bytes of requests in flight, counted before anything is decoded, and the door that closes.

A request takes its announced size from the budget before its body is read, more as it turns out larger
(inflating included), and gives all of it back when it is answered, or when its client has vanished. What does
not fit is refused with a retryable cause. Numbers only: nothing here waits for room, because a client that waits
holds its bytes somewhere else.

It is fair among connections, and among tenants. Each has a share, and a share may grow to `FREE_TIMES` what it leaves
free of three quarters of the budget: dynamic thresholds, as switches divide their memory among ports (Choudhury and
Hahne, 1998). One connection gets half of an otherwise unused budget, and n that want all get 2 in 2n + 1 parts of the
three quarters each. No list of connections is kept for it.

The last quarter is out of these thresholds' reach: a thousand connections with large requests would leave
nothing of it. There a share may hold a sixteenth of what is free: the less that is, the smaller are the requests that
still get in, and the small ones of a usual client do when large ones do not.

Owner: the event loop's thread. Cost: a few additions a request.
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
FREE_TIMES: Final = 2
"""What one connection may hold, in times of what is left free then."""
RESERVED_PART: Final = 4
"""One part in so many of the budget is for small requests."""
SMALL_PART: Final = 16
"""Which are those that take at most one part in so many of what is left free."""


class Admission:
    """The in-flight budget of all receivers, in bytes."""

    def __init__(self, bytes_max: int, registry: CollectorRegistry | None = None) -> None:
        """Take the budget; with a registry, expose what is in flight there."""
        self.bytes_max = bytes_max
        self.in_flight_bytes = 0
        self.in_flight_requests = 0
        self.ended_requests = 0
        """Requests that were in flight and are not any more."""
        self.refusals = 0
        """Requests, or parts of them, that did not fit. While they grow, listeners are less patient with slow bodies."""
        self.draining = False
        """Whether the door is closed."""
        self.drained = asyncio.Event()
        """Whether the door is closed and nothing is in flight."""
        if registry is not None:
            gauge = Gauge(
                "ringtail_receiver_in_flight_bytes",
                "Bytes of export requests that are being received or made durable.",
                registry=registry,
            )
            gauge.set_function(lambda: self.in_flight_bytes)

    def share(self) -> Share:
        """Return the share of a new connection, or tenant."""
        return Share(self)

    async def drain(self) -> None:
        """Refuse new requests from now on, and wait until none is in flight."""
        self.draining = True
        if self.in_flight_requests:
            await self.drained.wait()


class Share:
    """What the requests of one connection, or of one tenant, hold of the budget. `held` is in bytes.

    A connection's share is asked, and told of the share of the request's tenant, if there is one: both must have room.
    """

    __slots__ = ("_admission", "held")

    def __init__(self, admission: Admission) -> None:
        """Hold nothing yet."""
        self._admission = admission
        self.held = 0

    def admit(self, size: int, tenant: Share | None = None) -> None:
        """Take `size` bytes for a new request; raise Unavailable when draining, Overloaded when they do not fit."""
        admission = self._admission
        if admission.draining:
            raise Unavailable("the daemon is shutting down", RETRY_AFTER_S)
        in_flight = admission.in_flight_bytes + size
        # Little is asked, as nearly always.
        if tenant is None and self.held + size <= (admission.bytes_max - in_flight) // SMALL_PART:
            self.held += size
            admission.in_flight_bytes = in_flight
        else:
            self._take(size, tenant, admission.in_flight_requests)
        admission.in_flight_requests += 1

    def grow(self, size: int, tenant: Share | None = None) -> None:
        """Take `size` bytes more for a request that was admitted; raise Overloaded when they do not fit."""
        self._take(size, tenant, self._admission.in_flight_requests - 1)

    def release(self, size: int, tenant: Share | None = None) -> None:
        """End a request, giving back all that it had taken."""
        admission = self._admission
        self.held -= size
        if tenant is not None:
            tenant.held -= size
        admission.in_flight_bytes -= size
        admission.in_flight_requests -= 1
        admission.ended_requests += 1
        assert self.held >= 0 <= admission.in_flight_bytes, "a request was released twice"
        if admission.draining and not admission.in_flight_requests:
            admission.drained.set()

    def _take(self, size: int, tenant: Share | None, others: int) -> None:
        """Take bytes while so many other requests are in flight."""
        admission = self._admission
        in_flight = admission.in_flight_bytes + size
        free = admission.bytes_max - in_flight
        held = self.held if tenant is None or tenant.held < self.held else tenant.held
        # A request alone always fits: a budget below the size limit must not refuse it for ever.
        if (
            held + size > free // SMALL_PART
            and others
            and held + size > FREE_TIMES * (free - admission.bytes_max // RESERVED_PART)
        ):
            admission.refusals += 1
            whose = f"{self.held} of them from this connection"
            if tenant is not None:
                whose += f" and {tenant.held} from this tenant"
            raise Overloaded(
                f"{admission.in_flight_bytes} bytes of requests are in flight, {whose}; {size} more would be too much "
                f"for the limit of {admission.bytes_max} (receivers.otlp.max_in_flight_bytes)",
                RETRY_AFTER_S,
            )
        self.held += size
        if tenant is not None:
            tenant.held += size
        admission.in_flight_bytes = in_flight
