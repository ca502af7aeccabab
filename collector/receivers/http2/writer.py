"""Responses as frames (RFC 9113, 6.9 and 8.1): flow control, which the client's windows are, and what waits for them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from collector.receivers.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_DEFAULT,
    HEADERS,
    WINDOW_DEFAULT,
    WINDOW_MAX,
    Code,
    ConnectionBroken,
    frame,
    whole_response,
)
from collector.receivers.http2.reader import FrameReader

if TYPE_CHECKING:
    from collector.receivers.http2.stream import Stream


class Response:
    """A whole response, made once: a header block, a little data, and the header block that ends it."""

    __slots__ = ("body", "frames", "head", "trailers")

    def __init__(self, head: bytes, body: bytes, trailers: bytes) -> None:
        self.head = head
        self.body = body
        self.trailers = trailers
        self.frames = whole_response(head, body, trailers)
        """Its frames, apart where the number of a stream belongs."""


class FrameWriter(FrameReader):
    """A connection's streams, and their responses. Where bytes go is for who inherits to define."""

    __slots__ = ("_send_window", "frame_bytes_out", "stream_window_out", "streams")

    def __init__(self) -> None:
        super().__init__()
        self.streams: dict[int, Stream] = {}
        """Streams that are not closed."""
        self._send_window = WINDOW_DEFAULT
        self.stream_window_out = WINDOW_DEFAULT
        """The send window of a new stream."""
        self.frame_bytes_out = FRAME_BYTES_DEFAULT
        """The largest frame that the client takes."""

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is at its end."""
        raise NotImplementedError

    def finish(self, stream: Stream) -> None:
        """A response was sent whole."""
        raise NotImplementedError

    def starve(self, stream: Stream) -> None:
        """A response begins to wait for a window."""
        raise NotImplementedError

    def widen(self, increment: int) -> None:
        """The client has opened the connection's window."""
        if not increment:
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        self._send_window += increment
        if self._send_window > WINDOW_MAX:
            raise ConnectionBroken(Code.FLOW_CONTROL_ERROR, "the connection's window is too large")
        for stream in tuple(self.streams.values()):
            if stream.out:
                self.flush(stream)

    def move_windows(self, size: int) -> None:
        """Change the initial window of streams, and with it that of all open ones (6.9.2)."""
        moved = size - self.stream_window_out
        self.stream_window_out = size
        for stream in list(self.streams.values()):
            stream.send_window += moved
            if stream.send_window > WINDOW_MAX:
                raise ConnectionBroken(Code.FLOW_CONTROL_ERROR, "a stream's window is too large")
            if stream.out:
                self.flush(stream)

    def answer(self, stream: Stream, response: Response) -> None:
        """Send a response that was made once for all streams."""
        size = len(response.body)
        if size <= self._send_window and size <= stream.send_window:
            self._send_window -= size
            self.write(stream.id.to_bytes(4, "big").join(response.frames))
            self.finish(stream)
        else:
            self.begin(stream, response.head)
            self.send(stream, response.body, response.trailers)

    def begin(self, stream: Stream, head: bytes) -> None:
        """Begin a response with a header block; `send` follows."""
        self.write(frame(HEADERS, END_HEADERS, stream.id, head))

    def send(self, stream: Stream, data: bytes, trailers: bytes | None = None) -> None:
        """Send data as the client's windows allow, and behind it, if given, the block that ends the response."""
        stream.out += data
        stream.trailers = trailers
        self.flush(stream)

    def refuse(self, stream: Stream, block: bytes) -> None:
        """Answer with a header block alone."""
        self.write(frame(HEADERS, END_HEADERS | END_STREAM, stream.id, block))
        self.finish(stream)

    def flush(self, stream: Stream) -> None:
        """Send of a response what the client's windows allow."""
        while stream.out:
            count = min(len(stream.out), self._send_window, stream.send_window, self.frame_bytes_out)
            if count <= 0:
                if stream.waits_since == math.inf:
                    self.starve(stream)
                return
            stream.waits_since = math.inf
            self.write(frame(DATA, 0, stream.id, stream.out[:count]))
            stream.out = stream.out[count:]
            self._send_window -= count
            stream.send_window -= count
        if stream.trailers is not None:
            self.refuse(stream, stream.trailers)
        else:
            stream.drained()
