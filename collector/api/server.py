"""Uvicorn inside the daemon's loop: a listener for the query API that starts and stops like the receivers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import uvicorn

from collector.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

CONNECTIONS_MAX = 1024
"""Connections and running requests of the query API; beyond this uvicorn answers 503."""
KEEP_ALIVE_S = 75
"""Seconds that an idle connection is kept."""
HEADER_BYTES_MAX = 64 * 1024
"""Bytes of request line and headers: a query of this size fits into a URL."""
STOP_S = 2
"""Seconds that running queries may take to end when the daemon stops."""


TICK_S = 1.0
"""How often the header Date is made anew. Uvicorn's own loop looks ten times a second whether it is to end, which was
half of what an idle daemon cost."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ending = asyncio.Event()

    async def main_loop(self) -> None:
        """Serve until `ending` is set."""
        while not self.ending.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ending.wait(), TICK_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the daemon."""
        yield


class ApiServer:
    """The query API's listener."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port; raise Unavailable when the address cannot be bound."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(1024)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error
        config = uvicorn.Config(
            self._app,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=[("X-Content-Type-Options", "nosniff")],
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
            h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise Unavailable("the query API ended while it started")
            await asyncio.sleep(0.001)
        return int(listener.getsockname()[1])

    async def stop(self) -> None:
        """Accept nothing more, let running requests end, and close."""
        if self._server is not None and self._serving is not None:
            self._server.ending.set()
            await self._serving
