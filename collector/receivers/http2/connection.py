"""One HTTP/2 connection of a server (RFC 9113): frames in, streams and flow control, frames out.

Bytes come through the listener's scratch buffer and are taken out of it at once (`reader.py`). Where what is left of
a frame is what is left of a message, the socket is read straight into the message.

What a client does wrong breaks its stream (RST_STREAM) or its connection (GOAWAY), as the RFC has it. What costs
more than it should has a limit: streams at a time, header blocks, streams that are opened and reset at once
(CVE-2023-44487), answers that are not read (then nothing is read either), and time to send what was begun.

Windows are generous, because memory is not theirs to bound: a stream takes its bytes from the admission's budget
before it holds them.

Left out: priorities (they are read over) and server push. Cost: about 6 µs a request beside its data.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from collector.receivers.http2.fields import HEADER_LIST_BYTES, TABLE_BYTES, Requests, check_trailers
from collector.receivers.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_DEFAULT,
    FRAME_BYTES_MAX,
    GOAWAY,
    HAS_PRIORITY,
    HEAD,
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
    WORD,
    Code,
    ConnectionBroken,
    StreamBroken,
    check_dependency,
    frame,
    goaway,
    require,
    require_size,
    rst_stream,
    settings,
    window_update,
)
from collector.receivers.http2.hpack import CompressionError, Decoder
from collector.receivers.http2.keepalive import Keepalive, Life
from collector.receivers.http2.reader import BLOCK_FRAMES_MAX, CONTROL_BYTES_MAX, FRAME_BYTES, FrameReader
from collector.receivers.listener import Listener
from collector.security.tls import peer_names

if TYPE_CHECKING:
    from random import Random

    from collector.receivers.http2.stream import Fields, Stream

STREAM_WINDOW: Final = 4 * 1024 * 1024
CONNECTION_WINDOW: Final = 64 * 1024 * 1024
"""What a client may send before it must hear that it was read."""
RESETS_MAX: Final = 500
"""Streams that the client has reset beyond those that were answered."""
RESETS_KNOWN: Final = 1024
"""Streams that we have reset and whose late frames are read over."""
LINGER_S: Final = 2.0
"""How long a client may take to read why its connection ends."""

_NEVER = math.inf


class Http2Listener(Listener):
    """A listener of HTTP/2 connections: what they ask of it."""

    first_bytes_timeout_s: float
    """How long a new connection may take for its preface."""
    idle_timeout_s: float
    """How long a request may rest half-way, a frame half-sent, and answers unread."""
    streams_max: int
    keepalive: Keepalive
    chance: Random
    """What ages differ by."""
    requests: Requests

    def open_stream(self, connection: Connection, number: int, send_window: int) -> Stream:
        """Return a new stream's state."""
        raise NotImplementedError

    def greet(self, data: bytes) -> bytes:
        """Return the answer to a client that speaks something else."""
        raise NotImplementedError


class Connection(FrameReader, asyncio.BufferedProtocol):
    """One connection. Owned by the event loop's thread."""

    __slots__ = (
        "_block",
        "_block_ends_stream",
        "_block_parts",
        "_blocked",
        "_closing",
        "_data_ends_stream",
        "_data_stream",
        "_decoder",
        "_direct",
        "_due",
        "_frame_bytes_out",
        "_holds",
        "_last",
        "_life",
        "_listener",
        "_pinged",
        "_receive_window",
        "_resets",
        "_resets_known",
        "_seen",
        "_seen_before",
        "_send_window",
        "_stream_window_out",
        "_transport",
        "deadline",
        "peer",
        "share",
        "streams",
    )

    def __init__(self, listener: Http2Listener) -> None:
        """Belong to a listener, which is asked for its limits, its scratch buffer and its streams."""
        super().__init__()
        self._listener = listener
        self.share = listener.admission.share()
        """What its streams hold of the budget."""
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder(TABLE_BYTES, HEADER_LIST_BYTES)
        self.streams: dict[int, Stream] = {}
        """Streams that are not closed."""
        self.deadline = _NEVER
        """When `expire` is due, on the monotonic clock."""
        self.peer: frozenset[str] = frozenset()  # the names in the client's certificate
        self._life = Life(listener.keepalive, listener.clock.monotonic(), listener.chance)
        self._due = _NEVER  # when anything but its life's length is due
        self._closing = False  # GOAWAY was sent
        self._blocked = False  # the client does not read its answers
        self._holds = 0  # requests that wait for leave to be read on
        self._last = 0  # the newest stream of the client's
        self._direct: Stream | None = None  # whose body is being read into
        self._data_stream = 0
        self._data_ends_stream = False
        self._block = bytearray()  # of a header block, what came in frames before
        self._block_ends_stream = False
        self._block_parts = 0
        self._receive_window = WINDOW_DEFAULT
        self._send_window = WINDOW_DEFAULT
        self._stream_window_out = WINDOW_DEFAULT
        self._frame_bytes_out = FRAME_BYTES_DEFAULT
        self._resets = 0
        self._resets_known: deque[int] = deque(maxlen=RESETS_KNOWN)
        self._seen = 0  # reads, for `expire` to see whether anything came
        self._seen_before = -1
        self._pinged = False

    # --- asyncio's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or cut it when there are too many."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from asyncio's
        if self._listener.add(self) > self._listener.connections_max:
            self._transport.abort()
            return
        self._wait_for(self._listener.first_bytes_timeout_s)
        self.peer = peer_names(transport)
        ours = {
            MAX_CONCURRENT_STREAMS: self._listener.streams_max,
            INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            MAX_FRAME_SIZE: FRAME_BYTES,
            MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES,
        }
        self._transport.write(settings(ours) + window_update(0, CONNECTION_WINDOW - WINDOW_DEFAULT))
        self._receive_window = CONNECTION_WINDOW

    def connection_lost(self, error: Exception | None) -> None:
        """Give up the streams."""
        self._transport = None
        self.deadline = _NEVER
        streams, self.streams = list(self.streams.values()), {}
        self.pending = b""
        for stream in streams:
            stream.gone()
        self._listener.remove(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go: into the message under way, or the listener's scratch buffer."""
        stream = self._direct = self.direct()
        body = stream.body if stream is not None else None
        return self._listener.scratch if body is None else memoryview(body)

    def buffer_updated(self, count: int) -> None:
        """Take `count` bytes that arrived."""
        self._seen += 1
        stream = self._direct
        if stream is not None:
            self.came_directly(stream, count)
            return
        view = self._listener.scratch[:count]
        if self.pending:
            view = memoryview(self.pending + view)
            self.pending = b""
        self._guarded(view)

    def eof_received(self) -> bool:
        """The client sends nothing more. gRPC knows no half-closed connections: close."""
        return False

    def pause_writing(self) -> None:
        """The client does not read its answers: read nothing from it either."""
        self._read_no_more()
        self._blocked = True
        self._wait_for(self._listener.idle_timeout_s)

    def resume_writing(self) -> None:
        """It reads again."""
        self._blocked = False
        self._read_on()
        self._wait_for(self._listener.idle_timeout_s)

    def hold(self) -> None:
        """Read nothing from the client until as many `release` as `hold` have come."""
        self._read_no_more()
        self._holds += 1

    def release(self) -> None:
        """See `hold`."""
        self._holds -= 1
        self._read_on()

    def _read_no_more(self) -> None:
        if self._transport is not None and not self._blocked and not self._holds:
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._transport is not None and not self._blocked and not self._holds:
            self._transport.resume_reading()

    # --- frames in ----------------------------------------------------------------------------------------

    def _guarded(self, view: memoryview) -> None:
        """Read frames, and end the connection where they break it."""
        try:
            if self.prefaced:
                self.feed(view)
            elif not self.feed_preface(view):
                self._write(self._listener.greet(bytes(view)))
                self._close_soon()
        except ConnectionBroken as error:
            self._break(error.code, str(error))
        except CompressionError as error:
            self._break(Code.COMPRESSION_ERROR, str(error))
        if self.pending and not self.streams:
            self.watch(self._listener.clock.monotonic() + self._listener.idle_timeout_s)

    def open(self) -> bool:
        """Tell whether frames are still wanted."""
        return self._transport is not None and not self._transport.is_closing()

    def begin_data(self, number: int, flags: int, length: int) -> Stream | None:
        """Take a DATA frame's length from the windows; return its stream unless that is closed."""
        stream = self._existing(number, "DATA")
        self._receive_window -= length
        if self._receive_window < 0:
            raise ConnectionBroken(Code.FLOW_CONTROL_ERROR, "more data than the connection's window")
        self._data_stream = number
        self._data_ends_stream = flags & END_STREAM != 0
        if stream is None:
            return None
        stream.receive_window -= length
        if stream.remote_ended or stream.receive_window < 0:
            self._reset(stream, Code.STREAM_CLOSED if stream.remote_ended else Code.FLOW_CONTROL_ERROR)
            return None
        return stream

    def end_data(self) -> None:
        """Give the windows back, which nothing waits for, and end the request if the frame did."""
        stream = self.streams.get(self._data_stream)
        self._data_stream = 0
        if self._receive_window < CONNECTION_WINDOW // 2:
            self._write(window_update(0, CONNECTION_WINDOW - self._receive_window))
            self._receive_window = CONNECTION_WINDOW
        if stream is None:
            return
        if self._data_ends_stream:
            self._end_request(stream)
        elif stream.receive_window < STREAM_WINDOW // 2:
            self._write(window_update(stream.id, STREAM_WINDOW - stream.receive_window))
            stream.receive_window = STREAM_WINDOW

    def _end_request(self, stream: Stream) -> None:
        stream.remote_ended = True
        if stream.announced not in (-1, stream.came):
            self._reset(stream, Code.PROTOCOL_ERROR)
        else:
            stream.ended()

    def _existing(self, number: int, what: str) -> Stream | None:
        """Return a stream that a frame is for; None when it is closed."""
        stream = self.streams.get(number)
        if stream is None:
            if number > self._last or number % 2 == 0:
                raise ConnectionBroken(Code.PROTOCOL_ERROR, f"{what} on stream {number}, which is idle")
            if what == "DATA" and number not in self._resets_known:
                self._write(rst_stream(number, Code.STREAM_CLOSED))
                self._resets_known.append(number)
        return stream

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a whole frame that is not data."""
        try:
            if kind == HEADERS:
                self._take_headers(flags, number, payload)
            elif kind == CONTINUATION:
                if not self.block_stream:
                    raise ConnectionBroken(Code.PROTOCOL_ERROR, "CONTINUATION without a header block")
                self._take_block(flags, payload)
            elif kind == WINDOW_UPDATE:
                self._take_window_update(number, payload)
            elif kind == SETTINGS:
                self._take_settings(flags, number, payload)
            elif kind == PING:
                require(number == 0, "PING on a stream")
                require_size(len(payload) == 8, "PING")
                if not flags & ACK:
                    if self._life.ping(self._listener.clock.monotonic(), len(self.streams)):
                        raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, "too_many_pings")
                    self._write(frame(PING, ACK, 0, payload))
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
                    self._write(rst_stream(number, error.code))
                    self._resets_known.append(number)
                self._count_reset()

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        require(number % 2 == 1, f"HEADERS on stream {number}")
        begin, end = 0, len(payload)
        if flags & PADDED:
            require(end > 0 and payload[0] < end, "more padding than frame")
            begin, end = 1, end - payload[0]
        if flags & HAS_PRIORITY:
            require_size(end - begin >= 5, "HEADERS")
            if WORD.unpack_from(payload, begin)[0] & WINDOW_MAX == number:
                raise ConnectionBroken(Code.PROTOCOL_ERROR, "a stream depends on itself")
            begin += 5
        self.block_stream = number
        self._block_parts = 0
        self._block_ends_stream = flags & END_STREAM != 0
        self._take_block(flags, payload[begin:end])

    def _take_block(self, flags: int, part: bytes) -> None:
        if not flags & END_HEADERS:
            self._block += part
            self._block_allow(len(self._block))
            return
        if self._block:
            self._block_allow(len(self._block) + len(part))
            part = bytes(self._block) + part
            self._block = bytearray()
        number, self.block_stream = self.block_stream, 0
        fields = self._decoder.decode(part)
        stream = self.streams.get(number)
        if stream is not None:
            self._take_trailers(stream, fields)
        elif number > self._last:
            self._open(number, fields)
        elif number not in self._resets_known:
            raise ConnectionBroken(Code.STREAM_CLOSED, f"HEADERS on stream {number}, which is closed")

    def _block_allow(self, size: int) -> None:
        self._block_parts += 1
        if size > CONTROL_BYTES_MAX or self._block_parts > BLOCK_FRAMES_MAX:
            raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, "a header block is too large")

    def _take_trailers(self, stream: Stream, fields: Fields) -> None:
        if stream.remote_ended:
            raise StreamBroken(Code.STREAM_CLOSED)
        if not self._block_ends_stream:
            raise StreamBroken(Code.PROTOCOL_ERROR)
        check_trailers(fields)
        self._end_request(stream)

    def _open(self, number: int, fields: Fields) -> None:
        self._last = number
        if self._closing:
            # A client hears from GOAWAY that this stream was not served.
            self._resets_known.append(number)
            return
        if len(self.streams) >= self._listener.streams_max:
            raise StreamBroken(Code.REFUSED_STREAM)
        if self._decoder.overflowed:
            raise StreamBroken(Code.ENHANCE_YOUR_CALM)
        announced = self._listener.requests.check(fields)
        stream = self._listener.open_stream(self, number, self._stream_window_out)
        stream.receive_window = STREAM_WINDOW
        stream.announced = announced
        self.streams[number] = stream
        stream.opened(fields)
        if self._block_ends_stream and number in self.streams:
            self._end_request(stream)

    def _take_window_update(self, number: int, payload: bytes) -> None:
        require_size(len(payload) == 4, "WINDOW_UPDATE")
        increment = WORD.unpack(payload)[0] & WINDOW_MAX
        if number == 0:
            require(increment > 0, "WINDOW_UPDATE by 0")
            self._send_window += increment
            if self._send_window > WINDOW_MAX:
                raise ConnectionBroken(Code.FLOW_CONTROL_ERROR, "the connection's window is too large")
            for waiting in [one for one in self.streams.values() if one.out]:
                self._flush(waiting)
            return
        stream = self._existing(number, "WINDOW_UPDATE")
        if stream is None:
            return
        if increment == 0:
            raise StreamBroken(Code.PROTOCOL_ERROR)
        stream.send_window += increment
        if stream.send_window > WINDOW_MAX:
            raise StreamBroken(Code.FLOW_CONTROL_ERROR)
        if stream.out:
            self._flush(stream)

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
                self._move_windows(value)
            elif key == MAX_FRAME_SIZE:
                require(FRAME_BYTES_DEFAULT <= value <= FRAME_BYTES_MAX, "MAX_FRAME_SIZE is out of range")
                self._frame_bytes_out = value
            elif key == ENABLE_PUSH:
                require(value <= 1, "ENABLE_PUSH is neither 0 nor 1")
            # HEADER_TABLE_SIZE is for an encoder with a table; ours has none. Unknown ones are ignored.
        if not self.settled:
            self.settled = True
            self._wait_for(self._listener.keepalive.time_s)
        self._write(frame(SETTINGS, ACK, 0))

    def _move_windows(self, size: int) -> None:
        """Change the initial window of streams, and with it that of all open ones (6.9.2)."""
        moved = size - self._stream_window_out
        self._stream_window_out = size
        for stream in list(self.streams.values()):
            stream.send_window += moved
            if stream.send_window > WINDOW_MAX:
                raise ConnectionBroken(Code.FLOW_CONTROL_ERROR, "a stream's window is too large")
            if stream.out:
                self._flush(stream)

    def _take_reset(self, number: int, payload: bytes) -> None:
        require(number != 0, "RST_STREAM on stream 0")
        require_size(len(payload) == 4, "RST_STREAM")
        stream = self._existing(number, "RST_STREAM")
        if stream is not None:
            self._forget(stream)
            stream.gone()
            self._resets_known.append(number)
            self._count_reset()
            self._close_if_done()

    def _count_reset(self) -> None:
        self._resets += 1
        if self._resets > RESETS_MAX:
            raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, "too many streams are opened and reset")

    # --- frames out ---------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def answer(self, stream: Stream, head: bytes, body: bytes, trailers: bytes) -> None:
        """Send a whole response: a header block, data, and the header block that ends it."""
        size = len(body)
        if size <= self._send_window and size <= stream.send_window and size <= FRAME_BYTES_DEFAULT:
            number = stream.id
            self._send_window -= size
            self._write(
                HEAD.pack(0, len(head), HEADERS, END_HEADERS, number)
                + head
                + HEAD.pack(size >> 8, size & 0xFF, DATA, 0, number)
                + body
                + HEAD.pack(len(trailers) >> 8, len(trailers) & 0xFF, HEADERS, END_HEADERS | END_STREAM, number)
                + trailers
            )
            self._finish(stream)
        else:
            self.begin(stream, head)
            self.send(stream, body, trailers)

    def begin(self, stream: Stream, head: bytes) -> None:
        """Begin a response with a header block; `send` follows."""
        self._write(frame(HEADERS, END_HEADERS, stream.id, head))

    def send(self, stream: Stream, data: bytes, trailers: bytes | None = None) -> None:
        """Send data as the client's windows allow, and behind it, if given, the block that ends the response."""
        stream.out += data
        stream.trailers = trailers
        self._flush(stream)

    def refuse(self, stream: Stream, block: bytes) -> None:
        """Answer with a header block alone."""
        self._write(frame(HEADERS, END_HEADERS | END_STREAM, stream.id, block))
        self._finish(stream)

    def _flush(self, stream: Stream) -> None:
        while stream.out:
            count = min(len(stream.out), self._send_window, stream.send_window, self._frame_bytes_out)
            if count <= 0:
                stream.stuck_since = min(stream.stuck_since, self._listener.clock.monotonic())
                self.watch(stream.stuck_since + self._listener.idle_timeout_s)
                return
            stream.stuck_since = _NEVER
            self._write(frame(DATA, 0, stream.id, stream.out[:count]))
            stream.out = stream.out[count:]
            self._send_window -= count
            stream.send_window -= count
        if stream.trailers is not None:
            self.refuse(stream, stream.trailers)

    def _finish(self, stream: Stream) -> None:
        """A response was sent whole. What the client still sends of its request is not wanted (8.1)."""
        if not stream.remote_ended:
            self._write(rst_stream(stream.id, Code.NO_ERROR))
            self._resets_known.append(stream.id)
        if self._resets:
            self._resets -= 1
        self._life.answered()
        self._forget(stream)
        self._close_if_done()

    def _reset(self, stream: Stream, code: Code, *, counted: bool = True) -> None:
        """End a stream for what its client did wrong."""
        self._write(rst_stream(stream.id, code))
        self._resets_known.append(stream.id)
        self._forget(stream)
        stream.gone()
        if counted:
            self._count_reset()

    def _forget(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        self.abandon(stream)

    # --- the connection's end -----------------------------------------------------------------------------

    def _break(self, code: Code, message: str) -> None:
        """End the connection for what the client did wrong."""
        self._listener.logger.info("connection broken", transport="grpc", code=code.name, reason=message)
        self._write(goaway(self._last, code, message))
        self._close_soon()

    def _close_soon(self) -> None:
        """Give up all streams and close, when the client has had time to read why."""
        streams, self.streams = list(self.streams.values()), {}
        self.pending = b""
        for stream in streams:
            stream.gone()
        if self._transport is not None:
            self._transport.close()
            self._wait_for(LINGER_S)

    def stop(self) -> None:
        """The listener stops: tell the client, and close when its requests are answered."""
        if self._transport is None or self._closing:
            return
        self._retire("the daemon is shutting down")
        for stream in list(self.streams.values()):
            stream.stop()
        self._close_if_done()

    def _retire(self, why: str) -> None:
        """Tell the client to open no further calls here."""
        self._closing = True
        self._write(goaway(self._last, Code.NO_ERROR, why))

    def _look_at_life(self, now: float) -> bool:
        """Close what is idle or too old; tell whether the connection is at its end."""
        life = self._life
        if now >= life.grace_ends_at:
            self.abort()
            return True
        if now >= life.ends_at:
            life.grow_old(now)
            self._retire_once("max_age")
        elif now >= life.idle_at and life.was_idle(now, self._last, len(self.streams)):
            self._retire_once("max_idle")
        return self._closing and not self.streams

    def _retire_once(self, why: str) -> None:
        if not self._closing:
            self._retire(why)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._closing and not self.streams and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is here."""
        if self._transport is not None:
            self._transport.abort()

    # --- limits -------------------------------------------------------------------------------------------

    def _wait_for(self, seconds: float) -> None:
        self._set_due(self._listener.clock.monotonic() + seconds)

    def _set_due(self, due: float) -> None:
        self._due = due
        self.deadline = min(due, self._life.next_look)

    def watch(self, deadline: float) -> None:
        """Ask the streams whether they are too slow at `deadline`, if nothing is due before."""
        self._set_due(min(self._due, deadline))

    def expire(self) -> None:
        """The deadline has passed: give up what the client has kept waiting."""
        transport = self._transport
        if transport is None:
            return
        now = self._listener.clock.monotonic()
        if now >= self._life.next_look and self._look_at_life(now):
            return
        if now < self._due:
            self._set_due(self._due)
            return
        if self._blocked or transport.is_closing() or not self.settled:
            transport.abort()
            return
        came = self._seen != self._seen_before
        self._seen_before = self._seen
        if (self.pending or self.block_stream) and not came:
            self._break(Code.ENHANCE_YOUR_CALM, "a frame did not arrive in time")
            return
        due, rules, timeout_s = _NEVER, self._listener.keepalive, self._listener.idle_timeout_s
        for stream in list(self.streams.values()):
            if now >= stream.stuck_since + timeout_s:
                self._reset(stream, Code.CANCEL, counted=False)
            else:
                due = min(due, stream.stuck_since + timeout_s, stream.too_slow(now))
        if self.pending or self.block_stream:
            due = min(due, now + timeout_s)
        if due < _NEVER or came:
            self._pinged = False
            self._set_due(min(due, now + rules.time_s))
        elif self._pinged:
            transport.abort()
        else:
            self._pinged = True
            self._write(frame(PING, 0, 0, bytes(8)))
            self._set_due(now + rules.timeout_s)
