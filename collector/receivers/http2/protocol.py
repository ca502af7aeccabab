"""What the frames of a client mean to a server (RFC 9113): requests, their windows, and what breaks them.

`FrameReader` finds the frames, `FrameWriter` sends answers; here is what lies between, without a socket: streams open, take
data and end, windows are taken and given back, SETTINGS and PING are answered. What a client does wrong breaks its stream
(RST_STREAM, by `StreamBroken`) or its connection (GOAWAY, by `ConnectionBroken`, which connection.py sends).

Windows are generous, because memory is not theirs to bound: a stream takes its bytes from the admission's budget
before it holds them.

Left out: priorities (they are read over) and server push.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from collector.errors import Unavailable
from collector.receivers.http2.fields import HeaderBlock, check_trailers
from collector.receivers.http2.frames import (
    ACK,
    CONTINUATION,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_DEFAULT,
    FRAME_BYTES_MAX,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTING,
    SETTINGS,
    WINDOW_DEFAULT,
    WINDOW_MAX,
    WINDOW_UPDATE,
    Code,
    ConnectionBroken,
    StreamBroken,
    block_part,
    check_dependency,
    frame,
    goaway,
    require,
    require_size,
    rst_stream,
    settings,
    window_update,
)
from collector.receivers.http2.hpack import Decoder
from collector.receivers.http2.keepalive import Life
from collector.receivers.http2.pace import BLOCK_COST, DATA_BYTES_MIN, Pace
from collector.receivers.http2.reader import FRAME_BYTES
from collector.receivers.http2.writer import FrameWriter

if TYPE_CHECKING:
    from collector.receivers.http2.listener import Http2Listener
    from collector.receivers.http2.stream import Fields, Stream

STREAM_WINDOW: Final = 4 * 1024 * 1024
CONNECTION_WINDOW: Final = 64 * 1024 * 1024
"""What a client may send before it must hear that it was read."""
TABLE_BYTES: Final = 4096
"""HPACK's dynamic table."""
HEADER_LIST_BYTES: Final = 16 * 1024
"""A decoded header block."""
RESETS_KNOWN: Final = 1024
"""Streams that we have reset and whose late frames are read over."""


class ServerProtocol(FrameWriter):
    """The server's end of one connection. Where bytes go and when it ends is for who inherits to define."""

    __slots__ = ("_block", "_closing", "_decoder", "_fields", "_found", "_last", "_life", "_listener", "_pace",
                 "_receive_window", "_resets_known", "_surplus")  # fmt: skip

    def __init__(self, listener: Http2Listener) -> None:
        """Belong to a listener, which is asked for its limits and what its requests are for."""
        super().__init__()
        self._listener = listener
        self._decoder = Decoder(TABLE_BYTES, HEADER_LIST_BYTES)
        self._life = Life(listener.keepalive, listener.clock.monotonic(), listener.chance)
        self._pace = Pace(listener.clock)
        self._surplus = False  # it is one too many
        self._closing = False  # GOAWAY was sent
        self._last = 0  # the newest stream of the client's
        self._fields: Fields | None = None  # of the newest request, and what was found for them
        self._found: tuple[int, Any] = (-1, None)
        self._block: HeaderBlock | None = None  # the one that is under way, if it comes in several frames
        self._receive_window = WINDOW_DEFAULT
        self._resets_known: deque[int] = deque(maxlen=RESETS_KNOWN)

    # --- what is told and asked of the connection ---------------------------------------------------------

    def wait_for(self, seconds: float) -> None:
        """Expect something of the client within so many seconds."""
        raise NotImplementedError

    def watch(self, deadline: float) -> None:
        """Ask the streams whether they are too slow at `deadline`, if nothing is due before."""
        raise NotImplementedError

    def close_soon(self) -> None:
        """Give up all streams and close, when the client has had time to read why."""
        raise NotImplementedError

    def close_if_done(self) -> None:
        """Close if the client was told to open no more streams, and has none."""
        raise NotImplementedError

    def send_preface(self) -> None:
        """Tell the client what may come, and how much of it (3.4)."""
        ours = {
            MAX_CONCURRENT_STREAMS: self._listener.streams_max,
            INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            MAX_FRAME_SIZE: FRAME_BYTES,
            MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES,
        }
        self.write(settings(ours) + window_update(0, CONNECTION_WINDOW - WINDOW_DEFAULT))
        self._receive_window = CONNECTION_WINDOW

    # --- data ---------------------------------------------------------------------------------------------

    def begin_data(self, number: int, flags: int, length: int) -> Stream | None:
        """Take a DATA frame's length from the windows; return its stream unless that is closed."""
        stream = self.streams.get(number)
        if stream is None:
            self._missing(number, "DATA")
        if length < DATA_BYTES_MIN and not flags & END_STREAM:
            self.idle += 1
        self._receive_window -= length
        if self._receive_window < 0:
            raise ConnectionBroken(Code.FLOW_CONTROL_ERROR, "more data than the connection's window")
        if stream is None:
            return None
        stream.receive_window -= length
        if stream.remote_ended or stream.receive_window < 0:
            self._reset(stream, Code.STREAM_CLOSED if stream.remote_ended else Code.FLOW_CONTROL_ERROR)
            return None
        return stream

    def end_data(self, number: int, flags: int) -> None:
        """Give the windows back, which nothing waits for, and end the request if the frame did."""
        stream = self.streams.get(number)
        if self._receive_window < CONNECTION_WINDOW // 2:
            self.write(window_update(0, CONNECTION_WINDOW - self._receive_window))
            self._receive_window = CONNECTION_WINDOW
        if stream is None:
            return
        if flags & END_STREAM:
            self._end_request(stream)
        elif stream.receive_window < STREAM_WINDOW // 2:
            self.write(window_update(stream.id, STREAM_WINDOW - stream.receive_window))
            stream.receive_window = STREAM_WINDOW

    def _end_request(self, stream: Stream) -> None:
        stream.remote_ended = True
        self.turn += stream.came >> 12
        if stream.announced >= 0 and stream.announced != stream.came:
            self._reset(stream, Code.PROTOCOL_ERROR)
        else:
            stream.ended()

    def _missing(self, number: int, what: str) -> None:
        """A frame is for a stream that is not there: it may have been closed, but must have been opened."""
        if number > self._last or number % 2 == 0:
            raise ConnectionBroken(Code.PROTOCOL_ERROR, f"{what} on stream {number}, which is idle")
        if what == "DATA" and number not in self._resets_known:
            self._tell_reset(number, Code.STREAM_CLOSED)

    # --- all other frames ---------------------------------------------------------------------------------

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a whole frame that is not data."""
        try:
            if kind == HEADERS:
                self._take_headers(flags, number, payload)
                return
            self.idle += 1
            if kind == WINDOW_UPDATE:
                self._take_window_update(number, payload)
            elif kind == CONTINUATION:
                self._take_continuation(flags, payload)
            elif kind == SETTINGS:
                self._take_settings(flags, number, payload)
            elif kind == PING:
                require(number == 0, "PING on a stream")
                require_size(len(payload) == 8, "PING")
                if not flags & ACK:
                    if self._life.ping(self._listener.clock.monotonic(), len(self.streams)):
                        raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, "too_many_pings")
                    self.write(frame(PING, ACK, 0, payload))
            elif kind == RST_STREAM:
                self._take_reset(number, payload)
            elif kind == PRIORITY:
                require(number != 0, "PRIORITY on stream 0")
                if len(payload) != 5:
                    raise StreamBroken(Code.FRAME_SIZE_ERROR)
                check_dependency(number, payload)
            elif kind == GOAWAY:
                require(number == 0, "GOAWAY on a stream")
                require_size(len(payload) >= 8, "GOAWAY")
            elif kind == PUSH_PROMISE:
                raise ConnectionBroken(Code.PROTOCOL_ERROR, "PUSH_PROMISE from a client")
        except StreamBroken as error:
            stream = self.streams.get(number)
            if stream is not None:
                self._reset(stream, error.code)
            elif number > self._last:
                # A stream that was never opened cannot be reset.
                raise ConnectionBroken(error.code, f"a bad frame on stream {number}, which is idle") from error
            else:
                if number not in self._resets_known:
                    self._tell_reset(number, error.code)
                self._pace.reset()

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        if number % 2 == 0:
            raise ConnectionBroken(Code.PROTOCOL_ERROR, f"HEADERS on stream {number}")
        part = block_part(flags, number, payload) if flags & (PADDED | HAS_PRIORITY) else payload
        if flags & END_HEADERS:
            self._take_block(number, part, flags & END_STREAM != 0)
            return
        self.block_stream = number
        self._block = HeaderBlock(flags & END_STREAM != 0)
        self._block.add(part)

    def _take_continuation(self, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "CONTINUATION without a header block")
        block.add(payload)
        if flags & END_HEADERS:
            number, self.block_stream, self._block = self.block_stream, 0, None
            self._take_block(number, block.whole(), block.ends_stream)

    def _take_block(self, number: int, block: bytes, ends_stream: bool) -> None:
        """Take a whole header block: of a new request, or of one's trailers."""
        self.turn += BLOCK_COST + (len(block) >> 6)
        fields = self._decoder.decode(block)
        if number > self._last:
            self._open(number, fields, ends_stream)
            return
        stream = self.streams.get(number)
        if stream is not None:
            self._take_trailers(stream, fields, ends_stream)
        elif number not in self._resets_known:
            raise ConnectionBroken(Code.STREAM_CLOSED, f"HEADERS on stream {number}, which is closed")

    def _take_trailers(self, stream: Stream, fields: Fields, ends_stream: bool) -> None:
        if stream.remote_ended:
            raise StreamBroken(Code.STREAM_CLOSED)
        if not ends_stream:
            raise StreamBroken(Code.PROTOCOL_ERROR)
        check_trailers(fields)
        self._end_request(stream)

    def _open(self, number: int, fields: Fields, ends_stream: bool) -> None:
        self._last = number
        if self._closing:
            # A client hears from GOAWAY that this stream was not served.
            self._resets_known.append(number)
            return
        if len(self.streams) >= self._listener.streams_max:
            raise StreamBroken(Code.REFUSED_STREAM)
        if self._decoder.overflowed:
            raise StreamBroken(Code.ENHANCE_YOUR_CALM)
        if fields is not self._fields:
            self._found = self._listener.requests.find(fields)
            self._fields = fields
        announced, decision = self._found
        stream = self._listener.open_stream(self, number, self.stream_window_out, STREAM_WINDOW, announced, decision)
        self.streams[number] = stream
        if self._surplus:
            # Told by GOAWAY alone, clients of gRPC would connect again at once, and for ever.
            stream.refuse(Unavailable(self._listener.refusal))
            self.write(goaway(number, Code.NO_ERROR, self._listener.refusal))
            self.close_soon()
            return
        stream.opened()
        if ends_stream and number in self.streams:
            self._end_request(stream)

    def _take_window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionBroken(Code.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        increment = int.from_bytes(payload, "big") & WINDOW_MAX
        if number == 0:
            self.widen(increment)
            return
        stream = self.streams.get(number)
        if stream is None:
            self._missing(number, "WINDOW_UPDATE")
            return
        if increment == 0:
            raise StreamBroken(Code.PROTOCOL_ERROR)
        stream.send_window += increment
        if stream.send_window > WINDOW_MAX:
            raise StreamBroken(Code.FLOW_CONTROL_ERROR)
        if stream.out:
            self.flush(stream)

    def _take_settings(self, flags: int, number: int, payload: bytes) -> None:
        require(number == 0, "SETTINGS on a stream")
        if flags & ACK:
            require_size(not payload, "an acknowledgement of SETTINGS")
            return
        require_size(len(payload) % 6 == 0, "SETTINGS")
        for key, value in SETTING.iter_unpack(payload):
            if key == INITIAL_WINDOW_SIZE:
                if value > WINDOW_MAX:
                    raise ConnectionBroken(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is too large")
                self.move_windows(value)
            elif key == MAX_FRAME_SIZE:
                require(FRAME_BYTES_DEFAULT <= value <= FRAME_BYTES_MAX, "MAX_FRAME_SIZE is out of range")
                self.frame_bytes_out = value
            elif key == ENABLE_PUSH:
                require(value <= 1, "ENABLE_PUSH is neither 0 nor 1")
            # HEADER_TABLE_SIZE is for an encoder with a table; ours has none. Unknown ones are ignored.
        if not self.settled:
            self.settled = True
            if not self._surplus:
                self.wait_for(self._listener.keepalive.time_s)
        self.write(frame(SETTINGS, ACK, 0))

    def _take_reset(self, number: int, payload: bytes) -> None:
        require(number != 0, "RST_STREAM on stream 0")
        require_size(len(payload) == 4, "RST_STREAM")
        stream = self.streams.get(number)
        if stream is None:
            self._missing(number, "RST_STREAM")
        else:
            self._forget(stream)
            stream.gone()
            self._resets_known.append(number)
            self._pace.reset()
            self.close_if_done()

    # --- the end of a stream ------------------------------------------------------------------------------

    def starve(self, stream: Stream) -> None:
        """A response begins to wait for a window, which it may not for ever."""
        stream.waits_since = self._listener.clock.monotonic()
        self.watch(stream.waits_since + self._listener.idle_timeout_s)

    def finish(self, stream: Stream) -> None:
        """A response was sent whole. What the client still sends of its request is not wanted (8.1)."""
        if not stream.remote_ended:
            self._tell_reset(stream.id, Code.NO_ERROR)
        self._pace.answers += 1
        self._life.answered = True
        self._forget(stream)
        if self._closing:
            self.close_if_done()

    def _tell_reset(self, number: int, code: Code) -> None:
        """Tell that a stream is closed; what the client has sent for it meanwhile is read over."""
        self.write(rst_stream(number, code))
        self._resets_known.append(number)

    def _reset(self, stream: Stream, code: Code) -> None:
        """End a stream for what its client did wrong."""
        self._tell_reset(stream.id, code)
        self._forget(stream)
        stream.gone()
        self._pace.reset()

    def _forget(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        if self.into is stream:
            self.into = None  # what is still to come of its frame is read over
