"""What listeners of both transports share: a socket, its connections, and the clock hand that goes round them.

A connection is asked for little: when its deadline is (`expire` is called after it), to `stop` when it has nothing
to do, and to `abort`. A listener costs nothing per idle connection but the connection object and its socket.

Connections take turns. One whose bytes hold many small requests serves a few of them, stops reading, and goes on `soon`,
behind what others have sent meanwhile: libuv would let it fill the buffer 32 times before it looks at another.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final, Protocol

from collector.otlp.status import answer
from collector.receivers.address import cannot_listen
from collector.security.tls import HANDSHAKE_TIMEOUT_S, SHUTDOWN_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.clock import Clock
    from collector.otlp.status import Answer
    from collector.receivers.admission import Admission
    from collector.security.gate import Gate
    from collector.security.tls import ServerTls

CONNECTIONS_MAX: Final = 4096
"""Open connections of one listener; one more is refused."""
BACKLOG: Final = 1024
"""Connections that the kernel holds before they are accepted."""
SWEEP_S: Final = 1.0
"""How often deadlines are looked at: they are met this much late at most."""
BODY_RATE_MIN: Final = 1024
"""Bytes a second that a request must bring, over each idle timeout, so as not to be given up."""
BODY_RATE_PRESSED: Final = 16 * 1024
"""The same while the budget is used up: what is announced and does not come keeps others out."""
PRESSED_PATIENCE_S: Final = 2.0
"""How long a body may take to begin then."""
TELLS_MAX: Final = 10
"""Lines a second about what clients do wrong: hostile ones must not fill the log."""
LOST_EVERY_S: Final = 60.0
"""How often a request that its client gives up is logged, of each outcome: a misconfigured client sends for days."""
LOST_REASON_MAX: Final = 200
"""Characters of its reason: it may repeat what the client has sent, as a path."""
_LOST: Final = frozenset({"malformed", "too_large", "unsupported", "unauthenticated", "forbidden"})
REFUSED_CONNECTIONS_MAX: Final = 256
"""Connections over the limit that are told so at any time; further ones are cut."""
GRACE_S: Final = 10.0
"""How long `stop` lets requests end."""


class Served(Protocol):
    """A connection, as its listener sees it."""

    deadline: float
    """When `expire` is due, on the monotonic clock."""

    def expire(self) -> None:
        """The deadline has passed: give up what the client has kept waiting."""
        ...

    def hurry(self, now: float) -> None:
        """Requests are being refused: give up what holds its part of the budget without filling it."""
        ...

    def stop(self) -> None:
        """The listener stops: close as soon as no request is here."""
        ...

    def abort(self) -> None:
        """Close at once, whatever is here."""
        ...


class Listener:
    """One listening socket and its connections. Owned by the event loop's thread."""

    def __init__(
        self,
        transport: str,
        protocol: str,
        admission: Admission,
        clock: Clock,
        logger: Any,
        *,
        scratch_bytes: int,
        connections_max: int,
        tls: ServerTls | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Not listening yet: see `start`. `transport` is the metrics' word, `protocol` people's.

        With `tls` nothing else is spoken, with `gate` clients are asked who they are.

        All connections read into one scratch buffer: bytes are taken out of it before the loop reads again.
        """
        self.transport = transport
        self.protocol = protocol
        self.admission = admission
        self.clock = clock
        self.logger = logger
        self.connections_max = connections_max
        self.tls = tls
        self.gate = gate
        self.scratch = memoryview(bytearray(scratch_bytes))
        self.stopping = False
        self._connections: set[Served] = set()
        self._refused: set[Served] = set()
        self._refusals_seen = 0
        self._told = 0
        self._lost: dict[str, tuple[float, int]] = {}  # by outcome: when one was logged, and how many came since
        self.soon: Callable[[Callable[[], None]], object] | None = None
        """Calls a function in the loop's next turn; None while it does not listen."""
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connect(self) -> asyncio.BaseProtocol:
        """Return the protocol of a new connection."""
        raise NotImplementedError

    def tick(self) -> None:
        """Do what is to be done once a second."""

    def refused(self, error: Exception) -> Answer:
        """Return how a request is answered that no receiver counts, as one for a path that leads nowhere."""
        return answer(error)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port; raise Unavailable, naming the address, when it cannot be bound."""
        loop = asyncio.get_running_loop()
        self.soon = loop.call_soon
        secure: dict[str, Any] = {}
        if self.tls is not None:
            secure = {
                "ssl": self.tls,
                "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S,
                "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT_S,
            }
        try:
            self._server = await loop.create_server(self.connect, host, port, backlog=BACKLOG, **secure)
        except OSError as error:
            raise cannot_listen(host, port, self.protocol, error) from error
        self._timer = loop.call_later(SWEEP_S, self._go_round)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Accept nothing more, close each connection when its requests are answered, and all after `grace_s` seconds.

        A request that has begun is still read, and answered (as unavailable when the admission drains).
        """
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.stop()
        try:
            await asyncio.wait_for(self._all_closed.wait(), grace_s)
        except TimeoutError:
            self.logger.warning("connections were cut", transport=self.transport, connections=len(self._connections))
            for connection in list(self._connections):
                connection.abort()
        if self._timer is not None:
            self._timer.cancel()

    def sweep(self) -> None:
        """Give up what has passed its deadline, and sooner what is slow while requests are being refused."""
        now = self.clock.monotonic()
        refusals, before = self.admission.refusals, self._refusals_seen
        self._refusals_seen = refusals
        if refusals != before:
            for connection in list(self._connections):
                connection.hurry(now)
        for connection in [one for one in self._connections if one.deadline <= now]:
            connection.expire()

    def tell(self, event: str, **fields: Any) -> None:
        """Log what a client does wrong, if there is not too much of it."""
        self._told += 1
        if self._told <= TELLS_MAX:
            self.logger.info(event, transport=self.transport, **fields)

    def lose(self, found: Answer, transport: asyncio.BaseTransport | None, *, about_payload: bool = True) -> None:
        """Log what a client is told that will not send this again: its data are lost, and many clients say nothing.

        The reason of a malformed payload is left out: it may repeat what stands there.
        """
        if found.outcome not in _LOST:
            return
        now = self.clock.monotonic()
        logged_at, since = self._lost.get(found.outcome, (-math.inf, 0))
        if now < logged_at + LOST_EVERY_S:
            self._lost[found.outcome] = (logged_at, since + 1)
            return
        self._lost[found.outcome] = (now, 0)
        peer = transport.get_extra_info("peername") if transport is not None else None
        reason = (
            "the client was told" if found.outcome == "malformed" and about_payload else found.message[:LOST_REASON_MAX]
        )
        self.logger.info(
            "request refused",
            transport=self.transport,
            outcome=found.outcome,
            reason=reason,
            client=f"{peer[0]}:{peer[1]}" if peer else "",
            more_before=since,
        )

    def add(self, connection: Served) -> bool:
        """Take a connection into account; tell whether it is one too many, which is refused."""
        self._connections.add(connection)
        self._all_closed.clear()
        if len(self._connections) - len(self._refused) <= self.connections_max:
            return False
        self._refused.add(connection)
        return True

    @property
    def may_explain(self) -> bool:
        """Whether a connection that is refused may stay long enough to be told why: not if there are many of them."""
        return len(self._refused) <= REFUSED_CONNECTIONS_MAX

    @property
    def refusal(self) -> str:
        """Why a connection is refused."""
        key = f"receivers.otlp.protocols.{self.transport}.max_connections"
        return f"there are {self.connections_max} connections, which is the limit ({key})"

    def remove(self, connection: Served) -> None:
        """Forget a connection, which is closed."""
        self._connections.discard(connection)
        self._refused.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def _go_round(self) -> None:
        self._told = 0
        self.tick()
        self.sweep()
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._go_round)
