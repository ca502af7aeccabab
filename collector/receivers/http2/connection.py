"""One HTTP/2 connection of a server (RFC 9113): frames in, streams and flow control, frames out.

Bytes come through the listener's scratch buffer and are taken out of it at once (`reader.py`). Where what is left of
a frame is what is left of a message, the socket is read straight into the message.

What a client does wrong breaks its stream (RST_STREAM) or its connection (GOAWAY), as the RFC has it. What costs
more than it should has a limit: streams at a time, header blocks, streams that are opened and reset at once
(CVE-2023-44487), frames that bring no request forward (PING, SETTINGS, empty DATA and such), answers that are not read
(then nothing is read either) or for which the client opens no window, and time to send what was begun.

A connection that ends is told why, and then read over until the client has closed it: closing a socket with unread
bytes would reset it, and the reason might be lost.

Windows are generous, because memory is not theirs to bound: a stream takes its bytes from the admission's budget
before it holds them.

Left out: priorities (they are read over) and server push. Cost: about 6 µs a request beside its data.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

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
from collector.receivers.http2.hpack import CompressionError, Decoder
from collector.receivers.http2.keepalive import Life
from collector.receivers.http2.pace import BLOCK_COST, DATA_BYTES_MIN, Pace
from collector.receivers.http2.reader import FRAME_BYTES
from collector.receivers.http2.writer import FrameWriter
from collector.security.tls import peer_names

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
LINGER_S: Final = 2.0
"""How long a client may take to read why its connection ends."""

_NEVER = math.inf


class Connection(FrameWriter, asyncio.BufferedProtocol):
    """One connection. Owned by the event loop's thread."""

    __slots__ = ("_block", "_blocked", "_closing", "_decoder", "_direct", "_due",
                 "_fields", "_found", "_half_block", "_half_since", "_holds", "_last", "_life", "_lingering", "_listener",
                 "_pace", "_paused", "_pinged", "_receive_window", "_resets_known", "_seen", "_seen_before", "_surplus",
                 "_transport", "deadline", "peer", "share")  # fmt: skip

    def __init__(self, listener: Http2Listener) -> None:
        """Belong to a listener, which is asked for its limits, its scratch buffer and its streams."""
        super().__init__()
        self._listener = listener
        self.share = listener.admission.share()
        """What its streams hold of the budget."""
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder(TABLE_BYTES, HEADER_LIST_BYTES)
        self.deadline = _NEVER
        """When `expire` is due, on the monotonic clock."""
        self._surplus = False  # it is one too many
        self.peer: frozenset[str] = frozenset()  # the names in the client's certificate
        self._life = Life(listener.keepalive, listener.clock.monotonic(), listener.chance)
        self._due = _NEVER  # when anything but its life's length is due
        self._closing = False  # GOAWAY was sent
        self._pace = Pace(listener.clock)
        self._lingering = False  # nothing more is sent, and what comes is read over
        self._half_since = _NEVER  # when the frame or header block began that is not whole yet
        self._half_block = 0
        self._blocked = False  # the client does not read its answers
        self._paused = False
        self._holds = 0  # requests that wait for leave to be read on
        self._last = 0  # the newest stream of the client's
        self._fields: Fields | None = None  # of the newest request, and what was found for them
        self._found: tuple[int, Any] = (-1, None)
        self._direct: Stream | None = None  # whose body is being read into
        self._block: HeaderBlock | None = None  # the one that is under way, if it comes in several frames
        self._receive_window = WINDOW_DEFAULT
        self._resets_known: deque[int] = deque(maxlen=RESETS_KNOWN)
        self._seen = 0  # reads, for `expire` to see whether anything came
        self._seen_before = -1
        self._pinged = False

    # --- asyncio's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection; one too many is told so when it calls, or cut."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from asyncio's
        self._surplus = self._listener.add(self)
        if self._surplus and not self._listener.may_explain:
            self.abort()
            return
        self._wait_for(LINGER_S if self._surplus else self._listener.first_bytes_timeout_s)
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
        self._give_up_streams()
        self._listener.remove(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go: into the message under way, or the listener's scratch buffer."""
        stream = self._direct = self.direct() if self.into is not None else None
        body = stream.body if stream is not None else None
        return self._listener.scratch if body is None else memoryview(body)

    def buffer_updated(self, count: int) -> None:
        """Take `count` bytes that arrived."""
        if not self.reading:
            return
        self._seen += 1
        stream = self._direct
        if stream is not None:
            self.came_directly(stream, count)
            return
        scratch = self._listener.scratch
        if count < len(scratch):
            self.turn = 0  # the loop looks at others before this one's next bytes
        if self.pending:
            data, self.pending = self.pending + scratch[:count], b""
            self._guarded(memoryview(data))
        else:
            self._guarded(scratch[:count])

    def eof_received(self) -> bool:
        """The client sends nothing more. gRPC knows no half-closed connections: close."""
        return False

    def pause_writing(self) -> None:
        """The client does not read its answers: read nothing from it either."""
        self._blocked = True
        self._pause()
        self._wait_for(self._listener.idle_timeout_s)

    def resume_writing(self) -> None:
        """It reads again."""
        self._blocked = False
        self._read_on()
        self._wait_for(self._listener.idle_timeout_s)
        for stream in list(self.streams.values()):
            stream.drained()

    @property
    def blocked(self) -> bool:
        """Whether the client does not read its answers: who has more of them waits for `Stream.drained`."""
        return self._blocked

    def hold(self) -> None:
        """Read nothing from the client until as many `release` as `hold` have come."""
        self._holds += 1
        self._pause()

    def release(self) -> None:
        """See `hold`."""
        self._holds -= 1
        self._read_on()

    # --- frames in ----------------------------------------------------------------------------------------

    def _guarded(self, data: memoryview) -> None:
        """Read frames, and end the connection where they break it."""
        try:
            if self.prefaced:
                self.feed(data)
            elif not self.feed_preface(data):
                self.write(self._listener.greet(bytes(data)))
                self._close_soon()
            if self.idle:
                idle, self.idle = self.idle, 0
                self.turn += idle
                self._pace.idle_frames(idle)
        except ConnectionBroken as error:
            self._break(error.code, str(error))
        except CompressionError as error:
            self._break(Code.COMPRESSION_ERROR, str(error))
        if not self.pending and not self.block_stream:
            self._half_since = _NEVER
        elif (
            self._half_since == _NEVER
            or self.block_stream != self._half_block
            or (self.advanced and not self.block_stream)
        ):
            self._half_since = self._listener.clock.monotonic()
            self.watch(self._half_since + self._listener.first_bytes_timeout_s)
        self._half_block = self.block_stream

    def give_way(self) -> None:
        """Let others come to their turn, behind what was done."""
        soon = self._listener.soon
        if not self.yielding and soon is not None and self._transport is not None:
            self.yielding = True
            self._pause()
            soon(self._next_turn)

    def _next_turn(self) -> None:
        self.turn = 0
        self.yielding = False
        if self.pending and self.reading:
            data, self.pending = self.pending, b""
            self._guarded(memoryview(data))
        self._read_on()

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._paused and self._transport is not None and not (self._blocked or self._holds or self.yielding):
            self._paused = False
            self._transport.resume_reading()

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
            self._close_soon()
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
                self._wait_for(self._listener.keepalive.time_s)
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
            self._close_if_done()

    # --- frames out ---------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is at its end."""
        transport = self._transport
        if transport is not None and not self._lingering and not transport.is_closing():
            transport.write(data)

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
            self._close_if_done()

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

    # --- the connection's end -----------------------------------------------------------------------------

    def _give_up_streams(self) -> None:
        self.reading = False
        self.pending = b""
        streams, self.streams = list(self.streams.values()), {}
        for stream in streams:
            stream.gone()

    def _break(self, code: Code, message: str) -> None:
        """End the connection for what the client did wrong."""
        self._listener.tell("connection broken", code=code.name, reason=message)
        self.write(goaway(self._last, code, message))
        self._close_soon()

    def _close_soon(self) -> None:
        """Give up all streams and close, when the client has had time to read why."""
        self._give_up_streams()
        transport = self._transport
        if transport is None:
            return
        if transport.can_write_eof():
            self._lingering = True
            transport.write_eof()
        else:
            transport.close()
        self._wait_for(LINGER_S)

    def stop(self) -> None:
        """The listener stops: tell the client, and close when its requests are answered."""
        if self._lingering:
            self.abort()
        if self._transport is None or self._closing or self._lingering:
            return
        self._retire("the daemon is shutting down")
        for stream in list(self.streams.values()):
            stream.stop()
        self._close_if_done()

    def _retire(self, why: str) -> None:
        """Tell the client to open no further calls here."""
        self._closing = True
        self.write(goaway(self._last, Code.NO_ERROR, why))

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
            self.reading = False
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is here."""
        if self._transport is not None:
            self.reading = False
            self._transport.abort()

    # --- limits -------------------------------------------------------------------------------------------

    def _wait_for(self, seconds: float) -> None:
        self._set_due(self._listener.clock.monotonic() + seconds)

    def _set_due(self, due: float) -> None:
        self._due = due
        self.deadline = min(due, self._life.next_look)

    def watch(self, deadline: float) -> None:
        """Ask the streams whether they are too slow at `deadline`, if nothing is due before."""
        if deadline < self._due:
            self._set_due(deadline)

    def hurry(self, now: float) -> None:
        """Requests are being refused: give up those that hold their part of the budget without filling it."""
        for stream in list(self.streams.values()):
            stream.hurry(now)

    def _give_up(self, stream: Stream) -> None:
        """Forget an answer for which the client has opened no window."""
        self._tell_reset(stream.id, Code.CANCEL)
        self._forget(stream)
        stream.gone()
        self._close_if_done()

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
        if self._blocked or self._lingering or self._surplus or transport.is_closing() or not self.settled:
            self.abort()
            return
        patience = self._listener.first_bytes_timeout_s
        if now >= self._half_since + patience:
            self._break(Code.ENHANCE_YOUR_CALM, "a frame did not arrive in time")
            return
        came = self._seen != self._seen_before
        self._seen_before = self._seen
        due, rules = self._half_since + patience, self._listener.keepalive
        for stream in list(self.streams.values()):
            given_up = stream.waits_since + self._listener.idle_timeout_s
            if now >= given_up:
                self._give_up(stream)
            else:
                due = min(due, given_up, stream.too_slow(now))
        if due < _NEVER or came:
            self._pinged = False
            self._set_due(min(due, now + rules.time_s))
        elif self._pinged:
            self.abort()
        else:
            self._pinged = True
            self.write(frame(PING, 0, 0, bytes(8)))
            self._set_due(now + rules.timeout_s)
