"""A connection of the query API: uvicorn's, with limits on what its client makes the daemon wait for.

Uvicorn bounds how many connections there are, and how long one is kept between requests; a client that sends a head byte
by byte, or does not read its answer, holds its connection for ever, and a head may have any size. So:

    no request begins     within IDLE_S of connecting: cut
    a head                HEAD_S from its first byte: 408. HEADER_BYTES_MAX: 431
    a body                BODY_S from the end of the head: 408
    an answer             UNREAD_BYTES_MIN a second must leave, over each UNREAD_S: cut
    the last connection   one that is idle, or has no whole head yet, makes room for it

Deadlines are looked at by `sweep`, once a second, so that a request costs no timer. What is cut is aborted: a close that
waits for the client to read the rest would wait for ever.
"""

from __future__ import annotations

import asyncio
import math
from enum import Enum
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from collector.api.access import PEER
from collector.api.tail import ABORT
from collector.security.tls import peer_names

if TYPE_CHECKING:
    from collections.abc import Iterable

CONNECTIONS_MAX: Final = 1024
"""Connections and running requests; beyond, uvicorn answers 503."""
HEADER_BYTES_MAX: Final = 64 * 1024
"""Bytes of request line and headers: a query of this size fits into a URL."""
IDLE_S: Final = 75.0
"""How long a connection may be there without a request; uvicorn keeps it as long between two."""
HEAD_S: Final = 10.0
BODY_S: Final = 30.0
"""A form has a megabyte at most."""
UNREAD_S: Final = 60.0
UNREAD_BYTES_MIN: Final = 1024
LINGER_S: Final = 2.0
"""How long a client may take to read why it is refused."""

_REFUSALS: Final = {
    408: ("Request Timeout", "the request took too long to arrive\n"),
    431: ("Request Header Fields Too Large", f"request line and headers have more than {HEADER_BYTES_MAX} bytes\n"),
}


class Phase(Enum):
    """What a connection's client owes."""

    IDLE = "a request, some time"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    NOTHING = "nothing: it is answered"
    CLOSING = "to go"


class ApiConnection(HttpToolsProtocol):
    """One connection. Owned by the event loop's thread."""

    phase = Phase.IDLE
    deadline = math.inf
    """When the client must have sent what it owes, by the loop's time."""
    _fields_bytes = 0
    """Of the head that is being read: its target and whole fields,"""
    _head_bytes = 0
    """and what came of it, but for the first piece."""
    _unread = 0
    _unread_since = 0.0

    # --- what uvicorn and its parser call -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Take the connection; its requests know the names in the client's certificate, and what cuts it."""
        if len(self.connections) >= CONNECTIONS_MAX - 2:
            make_room(one for one in self.connections if isinstance(one, ApiConnection))
        super().connection_made(transport)
        self._owes(Phase.IDLE, IDLE_S)
        self.app_state = {**self.app_state, ABORT: transport.abort}
        peer = peer_names(transport)
        if peer:
            self.app_state[PEER] = peer

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the transport."""
        super().connection_lost(exc)
        self.app_state = {}

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self.phase is Phase.CLOSING:
            return
        if self.phase is Phase.IDLE:
            self._owes(Phase.HEAD, HEAD_S)
            self._fields_bytes = self._head_bytes = 0
        elif self.phase is Phase.HEAD:
            # The parser tells nothing of a field before its end. The piece that has the end may have a body, too.
            if self._head_bytes > HEADER_BYTES_MAX:
                self.refuse(431)
                return
            self._head_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins, perhaps right behind another."""
        super().on_message_begin()
        self._owes(Phase.HEAD, HEAD_S)
        self._fields_bytes = self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Part of the target."""
        super().on_url(url)
        self._fields_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field."""
        super().on_header(name, value)
        self._fields_bytes += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        """The head is whole; one that is too large is not served."""
        if self._fields_bytes > HEADER_BYTES_MAX:
            # The parser hands this on to uvicorn, which answers by `send_400_response`.
            raise ValueError("the head is too large")
        super().on_headers_complete()
        self._owes(Phase.BODY, BODY_S)

    def on_message_complete(self) -> None:
        """The request is whole."""
        super().on_message_complete()
        if self._is_answered:
            self._owes(Phase.IDLE, IDLE_S)
        else:
            self._owes(Phase.NOTHING, math.inf)

    def on_response_complete(self) -> None:
        """An answer is written, if not read."""
        super().on_response_complete()
        if self.phase is Phase.NOTHING and self._is_answered:
            self._owes(Phase.IDLE, IDLE_S)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, or too large a one."""
        if self._fields_bytes > HEADER_BYTES_MAX:
            self.refuse(431)
        else:
            super().send_400_response(msg)

    # --- limits -------------------------------------------------------------------------------------------

    def _owes(self, phase: Phase, seconds: float) -> None:
        if self.phase is not Phase.CLOSING:
            self.phase = phase
            self.deadline = self.loop.time() + seconds

    @property
    def _is_answered(self) -> bool:
        """Whether no request is here that is still being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def may_go(self) -> bool:
        """Whether nobody misses an answer when it is cut."""
        owes = self.phase is Phase.IDLE or self.phase is Phase.HEAD
        return owes and self._is_answered and not self.transport.is_closing() and not self._buffered

    @property
    def _buffered(self) -> int:
        return self.transport.get_write_buffer_size()

    def sweep(self, now: float) -> None:
        """Give up what has passed its deadline, by the loop's time."""
        unread = self._buffered if self._is_answered else 0
        is_late = now >= self.deadline
        if is_late and (self.phase is Phase.CLOSING or (self.phase is Phase.IDLE and not unread)):
            self.transport.abort()
        elif is_late and (self.phase is Phase.BODY or (self.phase is Phase.HEAD and self._is_answered)):
            self.refuse(408)
        elif not unread or not self._unread:
            self._unread, self._unread_since = unread, now
        elif now >= self._unread_since + UNREAD_S:
            if self._unread - unread < UNREAD_BYTES_MIN * (now - self._unread_since):
                self.transport.abort()
            self._unread, self._unread_since = unread, now

    def refuse(self, code: int) -> None:
        """Say why, if no answer has begun, and end the connection."""
        begun = self.phase is Phase.BODY and self.cycle is not None and self.cycle.response_started
        if not begun and not self.transport.is_closing():
            reason, text = _REFUSALS[code]
            self.transport.write(
                f"HTTP/1.1 {code} {reason}\r\ncontent-type: text/plain; charset=utf-8\r\n"
                f"content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}".encode()
            )
        if self.cycle is not None and not self._is_answered:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._owes(Phase.CLOSING, LINGER_S)
        if self.transport.can_write_eof():
            # What the client still sends is read and dropped: a closed socket would answer it by taking back the reason.
            self.transport.write_eof()
        else:
            self.transport.close()


def make_room(connections: Iterable[ApiConnection]) -> None:
    """Cut one connection that has no request, if there is one."""
    found = next((one for one in connections if one.may_go), None)
    if found is not None:
        found.transport.abort()
