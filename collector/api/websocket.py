"""A connection that has become a WebSocket: uvicorn's, over the package websockets, with limits on what its client keeps waiting.

The head that opens it has come through `connection.py`, with the limits there. From then on pings are sent every `PING_S`, and
who does not answer one is cut, also while nothing is told; what the client says has `MESSAGE_BYTES_MAX` bytes at most and
is not read. `sweep`, once a second, cuts who does not take what was written: uvicorn would wait for it without an end.
Nothing is compressed: a compressor for each client costs more memory than what one is told at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGISendEvent

MESSAGE_BYTES_MAX: Final = 4096
"""Bytes of a message from a client: it has nothing to say."""
PING_S: Final = 15.0
"""How often a ping is sent: proxies cut connections that are silent."""
PONG_S: Final = 60.0
"""How long its answer may take: it waits behind what the client has yet to read."""
OPENING_S: Final = 10.0
"""How long it may take to open."""
UNREAD_S: Final = 60.0
"""How long a client may take nothing of what was written."""


class WebSocketConnection(WebSocketsSansIOProtocol):
    """One connection. Owned by the event loop's thread."""

    _opened_at = 0.0
    _unread = 0
    _unread_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over."""
        super().connection_made(transport)
        self._opened_at = self._unread_since = self.loop.time()

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the application says. A refusal is an answer, too, which uvicorn logs as none."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True

    def sweep(self, now: float) -> None:
        """Cut what has passed its time, by the loop's time."""
        unread = self.transport.get_write_buffer_size()
        if not unread or unread < self._unread:
            self._unread_since = now
        self._unread = unread
        if now >= self._unread_since + UNREAD_S or (not self.handshake_complete and now >= self._opened_at + OPENING_S):
            self.transport.abort()
