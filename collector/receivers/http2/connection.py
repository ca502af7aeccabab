"""One HTTP/2 connection of a server: a socket with the protocol on it (protocol.py), its turns, its limits and its end.

Bytes come through the listener's scratch buffer and are taken out of it at once (`reader.py`). Where what is left of
a frame is what is left of a message, the socket is read straight into the message.

What costs more than it should has a limit: streams at a time, header blocks, streams that are opened and reset at once
(CVE-2023-44487), frames that bring no request forward (PING, SETTINGS, empty DATA and such), answers that are not read
(then nothing is read either) or for which the client opens no window, and time to send what was begun.

A connection that ends is told why, and then read over until the client has closed it: closing a socket with unread
bytes would reset it, and the reason might be lost.

Cost: about 6 µs a request beside its data.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, cast

from collector.errors import Unsupported
from collector.otlp.status import answer
from collector.receivers.head import TLS_HANDSHAKE
from collector.receivers.http2.frames import PING, PREFACE, Code, ConnectionBroken, frame, goaway
from collector.receivers.http2.hpack import CompressionError
from collector.receivers.http2.protocol import ServerProtocol
from collector.security.tls import peer_names

if TYPE_CHECKING:
    from collector.receivers.http2.listener import Http2Listener
    from collector.receivers.http2.stream import Stream

LINGER_S: Final = 2.0
"""How long a client may take to read why its connection ends."""

_NEVER = math.inf


class Connection(ServerProtocol, asyncio.BufferedProtocol):
    """One connection. Owned by the event loop's thread."""

    __slots__ = ("_blocked", "_direct", "_due", "_half_block", "_half_since", "_holds", "_lingering", "_paused", "_pinged",
                 "_seen", "_seen_before", "_transport", "deadline", "peer", "share")  # fmt: skip

    def __init__(self, listener: Http2Listener) -> None:
        """Belong to a listener, which is asked for its limits, its scratch buffer and its streams."""
        super().__init__(listener)
        self.share = listener.admission.share()
        """What its streams hold of the budget."""
        self._transport: asyncio.Transport | None = None
        self.deadline = _NEVER
        """When `expire` is due, on the monotonic clock."""
        self.peer: frozenset[str] = frozenset()  # the names in the client's certificate
        self._due = _NEVER  # when anything but its life's length is due
        self._lingering = False  # nothing more is sent, and what comes is read over
        self._half_since = _NEVER  # when the frame or header block began that is not whole yet
        self._half_block = 0
        self._blocked = False  # the client does not read its answers
        self._paused = False
        self._holds = 0  # requests that wait for leave to be read on
        self._direct: Stream | None = None  # whose body is being read into
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
        self.wait_for(LINGER_S if self._surplus else self._listener.first_bytes_timeout_s)
        self.peer = peer_names(transport)

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
        self.wait_for(self._listener.idle_timeout_s)

    def resume_writing(self) -> None:
        """It reads again."""
        self._blocked = False
        self._read_on()
        self.wait_for(self._listener.idle_timeout_s)
        for stream in list(self.streams.values()):
            stream.drained()

    @property
    def transport(self) -> asyncio.Transport | None:
        """What it writes to; None when it is closed."""
        return self._transport

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

    # --- turns --------------------------------------------------------------------------------------------

    def _guarded(self, data: memoryview) -> None:
        """Read frames, and end the connection where they break it."""
        try:
            if self.prefaced:
                self.feed(data)
            else:
                self._begin(data)
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

    def _begin(self, data: memoryview) -> None:
        """Take the first bytes. Nothing is sent before them, because a client that speaks HTTP/1 would not find its answer
        behind our settings; those of HTTP/2 wait for nothing before they send their preface."""
        if bytes(data[: len(PREFACE)]) == PREFACE:
            self.send_preface()
        if not self.feed_preface(data):
            greeting = self._listener.greet(bytes(data))
            if greeting:
                self._listener.lose(answer(Unsupported("HTTP/1 was spoken, to a port of gRPC")), self._transport)
            elif bytes(data[: len(TLS_HANDSHAKE)]) == TLS_HANDSHAKE:
                self._listener.lose(answer(Unsupported("TLS was spoken, to a port without it")), self._transport)
            self.write(greeting)
            self.close_soon()

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

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is at its end."""
        transport = self._transport
        if transport is not None and not self._lingering and not transport.is_closing():
            transport.write(data)

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
        self.close_soon()

    def close_soon(self) -> None:
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
        self.wait_for(LINGER_S)

    def stop(self) -> None:
        """The listener stops: tell the client, and close when its requests are answered."""
        if self._lingering or not self.prefaced:
            self.abort()
        if self._transport is None or self._closing or self._lingering:
            return
        self._retire("the daemon is shutting down")
        for stream in list(self.streams.values()):
            stream.stop()
        self.close_if_done()

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
        self.close_if_done()

    def close_if_done(self) -> None:
        """Close if the client was told to open no more streams, and has none."""
        if self._closing and not self.streams and self._transport is not None:
            self.reading = False
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is here."""
        if self._transport is not None:
            self.reading = False
            self._transport.abort()

    # --- limits -------------------------------------------------------------------------------------------

    def wait_for(self, seconds: float) -> None:
        """Expect something of the client within so many seconds."""
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
        self.close_if_done()

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
