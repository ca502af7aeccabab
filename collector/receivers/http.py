"""OTLP over HTTP/1.1: the listener, and what its connections share.

What one connection does is in `connection.py`, what heads decide in `route.py`. Here are the limits, and the answer to
nearly every request, made once a second with the date in it.
"""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from collector.receivers.connection import Connection
from collector.receivers.encoding import COMPRESSIONS
from collector.receivers.listener import CONNECTIONS_MAX, Listener
from collector.receivers.response import JSON, PROTOBUF, greeting, response_head
from collector.receivers.route import Routes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collector.clock import Clock
    from collector.receivers.admission import Admission
    from collector.receivers.cors import Cors
    from collector.receivers.export import Receiver
    from collector.security.gate import Gate
    from collector.security.hosts import HostGuard
    from collector.security.tls import ServerTls

READ_BYTES: Final = 16 * 1024
"""What is read at once while a head is expected: a head, and as much of a body as is cheap to copy."""


class HttpReceiver(Listener):
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
        paths: Mapping[str, str] | None = None,
        compressions: Sequence[str] = COMPRESSIONS,
        cors: Cors | None = None,
        connections_max: int = CONNECTIONS_MAX,
        tls: ServerTls | None = None,
        gate: Gate | None = None,
        hosts: HostGuard | None = None,
    ) -> None:
        """Take one receiver for each path; it listens after `start`. `hosts` says which hosts a request may name.

        `body_bytes_max` holds before and after decompression. `read_header_timeout_s` is for a head from its first
        byte, `idle_timeout_s` for the wait for one, between requests too, and for a body to
        bring its due. `paths` are by a signal's name, where they are not the usual ones.
        """
        super().__init__(
            "http",
            "OTLP/HTTP",
            admission,
            clock,
            logger,
            scratch_bytes=READ_BYTES,
            connections_max=connections_max,
            tls=tls,
            gate=gate,
        )
        paths = paths or {}
        by_path = {paths.get(one.signal.name, one.signal.http_path): one for one in receivers}
        self.routes = Routes({path.encode(): one for path, one in by_path.items()}, compressions, cors, hosts)
        self.greeting = greeting(list(by_path))
        self.body_bytes_max = body_bytes_max
        self.read_header_timeout_s = read_header_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.date = ""
        self.success = self.success_json = b""
        self.tick()

    def connect(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self)

    def tick(self) -> None:
        """Make the answer of this second."""
        self.date = formatdate(self.clock.now_ns() // 1_000_000_000, usegmt=True)
        self.success = response_head(200, PROTOBUF, 0, self.date)
        self.success_json = response_head(200, JSON, 2, self.date) + b"{}"
