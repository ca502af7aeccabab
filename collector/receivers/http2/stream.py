"""A stream: one request and its response on an HTTP/2 connection, as the connection sees it.

The connection calls the hooks in this order: `opened`, any number of `received`, `ended`; at any time `gone`, after
which nothing follows. What an answer needs of HTTP/2 is behind `Connection.answer`, `begin`, `send` and `refuse`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collector.receivers.body import Body

Fields = list[tuple[bytes, bytes]]
"""A decoded header block: names in lower case, pseudo-headers first."""
Data = bytes | memoryview
"""What came from the client: bytes where it is little, a view of the buffer that was read into where it is much."""


class Stream:
    """The state of a stream that is not closed. Hooks are for who answers requests to define."""

    __slots__ = ("announced", "body", "came", "id", "out", "receive_window", "remote_ended", "send_window", "trailers",
                 "waits_since")  # fmt: skip

    def __init__(self, number: int, send_window: int, receive_window: int, announced: int) -> None:
        """Begin stream `number`; windows are in bytes, and so is what was announced, or -1."""
        self.id = number
        self.send_window = send_window
        self.receive_window = receive_window
        self.remote_ended = False
        """Whether the client has said that it sends no more."""
        self.announced = announced
        """The content-length, or -1."""
        self.came = 0
        """Bytes of data that came."""
        self.out = b""
        """Data that waits for the client's window."""
        self.waits_since = math.inf
        """Since when `out` waits, on the monotonic clock."""
        self.trailers: bytes | None = None
        """The header block that ends the response behind `out`; None while more may follow."""
        self.body: Body | None = None
        """What the connection may read into directly when all that a frame still brings belongs there."""

    def opened(self) -> None:
        """A request has begun."""
        raise NotImplementedError

    def received(self, data: Data) -> None:
        """Data came; a view is valid during the call only."""
        raise NotImplementedError

    def ended(self) -> None:
        """The request is at its end."""
        raise NotImplementedError

    def refuse(self, error: Exception) -> None:
        """Answer with an error, at once."""
        raise NotImplementedError

    def gone(self) -> None:
        """The stream is closed, by the client or with the connection, before it was answered."""
        raise NotImplementedError

    def drained(self) -> None:
        """All that was sent has left, for the client or the socket's buffer: more may follow."""

    def too_slow(self, now: float) -> float:
        """Give up a request that keeps the server waiting; return when to ask again, on the monotonic clock."""
        raise NotImplementedError

    def hurry(self, now: float) -> None:
        """Requests are being refused: give up one that holds its part of the budget without filling it."""
        raise NotImplementedError

    def stop(self) -> None:
        """The listener stops: end what would go on for ever."""
