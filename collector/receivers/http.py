"""OTLP over HTTP/1.1: the listener, its limits, and the clock hand that goes round its connections.

What one connection does is in `connection.py`. Here is what they share: the routes, the scratch buffer that heads
are read into (bytes are taken out of it before the loop reads again, so one serves all), the answer to nearly
every request, made once a second with the date in it, and the sweep that gives up clients who keep it waiting.

A listener costs nothing per idle connection but the connection object and its socket.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from collector.errors import Unavailable
from collector.receivers.address import reason
from collector.receivers.connection import Connection
from collector.receivers.response import JSON, PROTOBUF, response_head

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collector.clock import Clock
    from collector.receivers.admission import Admission
    from collector.receivers.export import Receiver

READ_BYTES: Final = 16 * 1024
"""What is read at once while a head is expected: a head, and as much of a body as is cheap to copy."""
CONNECTIONS_MAX: Final = 4096
"""Open connections; one more is answered with 503 and closed."""
BACKLOG: Final = 1024
"""Connections that the kernel holds before they are accepted."""
SWEEP_S: Final = 1.0
"""How often deadlines are looked at: they are met this much late at most."""
GRACE_S: Final = 10.0
"""How long `stop` lets requests end."""


class HttpReceiver:
    """The HTTP listener for all signals. Owned by the event loop's thread."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        admission: Admission,
        clock: Clock,
        logger: Any,
        *,
        body_bytes_max: int,
        read_header_timeout_s: float,
        idle_timeout_s: float,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """Take one receiver for each path; it listens after `start`.

        `body_bytes_max` holds before and after decompression. `read_header_timeout_s` is for a head from its first
        byte (or from the connection's start), `idle_timeout_s` for the wait between requests, and for a body to
        bring its due.
        """
        self.routes: Mapping[bytes, Receiver] = {one.signal.http_path.encode(): one for one in receivers}
        self.admission = admission
        self.clock = clock
        self.logger = logger
        self.body_bytes_max = body_bytes_max
        self.read_header_timeout_s = read_header_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.connections_max = connections_max
        self.scratch = memoryview(bytearray(READ_BYTES))
        self.stopping = False
        self.date = ""
        self.success = self.success_json = b""
        self._connections: set[Connection] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tell_time()

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port; raise Unavailable, naming the address, when it cannot be bound."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Connection(self), host, port, backlog=BACKLOG)
        except OSError as error:
            raise Unavailable(f"cannot listen on {host}:{port} for OTLP/HTTP: {reason(error)}") from error
        self._timer = loop.call_later(SWEEP_S, self._go_round)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Accept nothing more, close each connection when its request is answered, and all after `grace_s` seconds.

        A request that has begun is still read, and answered (with 503 when the admission drains).
        """
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.stop()
        try:
            await asyncio.wait_for(self._all_closed.wait(), grace_s)
        except TimeoutError:
            self.logger.warning("connections were cut", transport="http", connections=len(self._connections))
            for connection in list(self._connections):
                connection.abort()
        if self._timer is not None:
            self._timer.cancel()

    def sweep(self) -> None:
        """Give up the connections whose deadline has passed."""
        now = self.clock.monotonic()
        for connection in [one for one in self._connections if one.deadline <= now]:
            connection.expire()

    def add(self, connection: Connection) -> int:
        """Take a connection into account; return how many there are with it."""
        self._connections.add(connection)
        self._all_closed.clear()
        return len(self._connections)

    def remove(self, connection: Connection) -> None:
        """Forget a connection, which is closed."""
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def _go_round(self) -> None:
        self._tell_time()
        self.sweep()
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._go_round)

    def _tell_time(self) -> None:
        self.date = formatdate(self.clock.now_ns() // 1_000_000_000, usegmt=True)
        self.success = response_head(200, PROTOBUF, 0, self.date)
        self.success_json = response_head(200, JSON, 2, self.date) + b"{}"
