"""Uvicorn inside the daemon's loop: a listener for the query API that starts and stops like the receivers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from collector.api.connection import CONNECTIONS_MAX, IDLE_S, ApiConnection
from collector.api.websocket import MESSAGE_BYTES_MAX, PING_S, PONG_S, WebSocketConnection
from collector.errors import Unavailable
from collector.receivers.address import cannot_listen, family_of
from collector.security.tls import HANDSHAKE_TIMEOUT_S, SHUTDOWN_TIMEOUT_S, ServerTls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

PURPOSE = "queries"
STOP_S = 2
"""Seconds that running queries may take to end when the daemon stops."""


TICK_S = 1.0
"""How often deadlines are looked at, and the header Date is made anew. Uvicorn's own loop looks ten times a second whether
it is to end, which was half of what an idle daemon cost."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, tls: ServerTls | None) -> None:
        super().__init__(config)
        self.ending = asyncio.Event()
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on sockets that are bound; uvicorn's own knows no handshake timeout."""
        await self.lifespan.startup()
        secure: dict[str, Any] = {}
        if self._tls is not None:
            secure = {
                "ssl": self._tls,
                "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S,
                "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT_S,
            }
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(self._connect, sock=one, backlog=self.config.backlog, **secure)
            for one in sockets or ()
        ]
        self.started = True

    def _connect(self) -> asyncio.Protocol:
        return ApiConnection(self.config, self.server_state, self.lifespan.state)

    async def main_loop(self) -> None:
        """Serve until `ending` is set."""
        while not self.ending.is_set():
            await self.on_tick(0)
            self.sweep(asyncio.get_running_loop().time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ending.wait(), TICK_S)

    def sweep(self, now: float) -> None:
        """Give up what clients keep waiting, by the loop's time."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, ApiConnection | WebSocketConnection):
                connection.sweep(now)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the daemon."""
        yield


class ApiServer:
    """The query API's listener."""

    def __init__(self, app: ASGIApp, tls: ServerTls | None = None) -> None:
        """Serve an application, by TLS if `tls` is given."""
        self._app = app
        self._tls = tls
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port; raise Unavailable when the address cannot be bound."""
        listener = socket.socket(family_of(host), socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(1024)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise cannot_listen(host, port, PURPOSE, error) from error
        config = uvicorn.Config(
            self._app,
            loop="none",
            http="httptools",
            ws=WebSocketConnection,
            ws_max_size=MESSAGE_BYTES_MAX,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PONG_S,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=[("X-Content-Type-Options", "nosniff")],
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=int(IDLE_S),
            timeout_graceful_shutdown=STOP_S,
        )
        self._server = _Server(config, self._tls)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise Unavailable("the query API ended while it started")
            await asyncio.sleep(0.001)
        return int(listener.getsockname()[1])

    def sweep(self, now: float) -> None:
        """Give up what clients keep waiting, by the loop's time; done once a second anyway."""
        if self._server is not None:
            self._server.sweep(now)

    async def stop(self) -> None:
        """Accept nothing more, let running requests end, and close."""
        if self._server is not None and self._serving is not None:
            self._server.ending.set()
            await self._serving
