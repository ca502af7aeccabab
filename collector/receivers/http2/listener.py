"""A listener of HTTP/2 connections: what they ask of it beyond what listeners of both transports have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collector.receivers.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from collector.receivers.http2.fields import Requests
    from collector.receivers.http2.keepalive import Keepalive
    from collector.receivers.http2.stream import Stream


class Http2Listener(Listener):
    """What it is told at its making, and what its streams are."""

    first_bytes_timeout_s: float
    """How long a new connection may take for its preface, and any frame but DATA, or header block, to be whole."""
    idle_timeout_s: float
    """How long a request may rest half-way, and answers unread."""
    streams_max: int
    keepalive: Keepalive
    chance: Random
    """What ages differ by."""
    requests: Requests[Any]
    open_stream: Callable[[Any, int, int, int, int, Any], Stream]
    """Returns a new stream's state: of a `Connection`, with a number, windows to send and to receive, the announced length,
    and what `requests` has decided."""

    def greet(self, data: bytes) -> bytes:
        """Return the answer to a client that speaks something else."""
        raise NotImplementedError
