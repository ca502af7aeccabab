"""Frames out of the bytes of a connection (RFC 9113, 3.4 and 4).

The payload of a DATA frame goes to its stream as it comes. All other frames are kept until they are whole, which is
at most `CONTROL_BYTES_MAX`; those of unknown types are read over (5.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from collector.receivers.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    FRAME_HEAD_BYTES,
    HEAD,
    PADDED,
    PREFACE,
    SETTINGS,
    WINDOW_MAX,
    Code,
    ConnectionBroken,
)
from collector.receivers.http2.pace import TURN

if TYPE_CHECKING:
    from collector.receivers.http2.stream import Data, Stream

FRAME_BYTES: Final = 1024 * 1024
"""The largest frame that a client may send: a usual request is one."""
CONTROL_BYTES_MAX: Final = 64 * 1024
"""The largest frame that is kept until it is whole, and the largest header block."""
DIRECT_BYTES_MIN: Final = 16 * 1024
"""From here on a system call of its own is cheaper than a copy."""


class FrameReader:
    """Takes a connection's bytes apart. What the frames mean is for who inherits to define."""

    __slots__ = ("_frame", "_into", "_padding", "_rest", "advanced", "block_stream", "idle", "pending", "prefaced", "reading",
                 "settled", "turn", "yielding")  # fmt: skip

    def __init__(self) -> None:
        self.prefaced = False
        """Whether the connection's preface came."""
        self.settled = False
        """Whether the client's first SETTINGS came."""
        self.reading = True
        """Whether frames are still wanted."""
        self.pending = b""
        """A part of a frame."""
        self.block_stream = 0
        """The stream whose header block is under way, or 0."""
        self.advanced = False
        """Whether the last bytes ended a frame, or part of one."""
        self.turn = 0
        """What was done in this turn of the loop, beside `idle`; see `pace.TURN`."""
        self.idle = 0
        """Frames that bring no request forward, until somebody takes account of them."""
        self.yielding = False
        """Whether it is the turn of others: what has come waits in `pending`."""
        # Of a frame that goes to its stream, or nowhere, as it comes:
        self._rest = 0  # bytes of its payload that are still to come
        self._into: Stream | None = None  # where they go
        self._padding = 0  # bytes behind them that go nowhere
        self._frame: tuple[int, int] | None = None  # the stream and the flags of a DATA frame

    def begin_data(self, number: int, flags: int, length: int) -> Stream | None:
        """A DATA frame begins; return the stream that wants it."""
        raise NotImplementedError

    def end_data(self, number: int, flags: int) -> None:
        """That frame is at its end."""
        raise NotImplementedError

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a whole frame of another type."""
        raise NotImplementedError

    def give_way(self) -> None:
        """Let others come to their turn."""
        raise NotImplementedError

    def direct(self) -> Stream | None:
        """Return the stream into whose body the next bytes can be read: all that its frame still brings is body."""
        into = self._into
        if into is not None and self._rest >= DIRECT_BYTES_MIN and not self._padding:
            body = into.body
            if body is not None and body.length - body.filled == self._rest:
                return into
        return None

    def came_directly(self, stream: Stream, count: int) -> None:
        """Tell that `count` bytes were read into that stream's body."""
        body = stream.body
        assert body is not None
        body.advance(count)
        stream.came += count
        self._rest -= count
        if not self._rest:
            self._end_payload()

    def feed_preface(self, data: Data) -> bool:
        """Take a connection's first bytes; tell whether they are HTTP/2's."""
        came = bytes(data[: len(PREFACE)])
        if not PREFACE.startswith(came):
            return False
        if len(came) < len(PREFACE):
            self.pending = came
        else:
            self.prefaced = True
            self.feed(data, len(PREFACE))
        return True

    def feed(self, data: Data, at: int = 0) -> None:
        """Take frames from `data[at:]`; raises ConnectionBroken. What is no whole frame is left in `pending`."""
        begin, end = at, len(data)
        while self.reading and not self.yielding:
            if self._rest:
                at = self._go_on(data, at)
                if at == end:
                    return
                continue
            start = at + FRAME_HEAD_BYTES
            if start > end:
                break
            high, low, kind, flags, number = HEAD.unpack_from(data, at)
            length = high << 8 | low
            number &= WINDOW_MAX
            stop = start + length
            if length > CONTROL_BYTES_MAX or self.block_stream or not self.settled:
                self._allow(kind, flags, number, length)
            if kind == DATA:
                if stop <= end and not flags & PADDED:
                    stream = self.begin_data(number, flags, length)
                    if stream is not None and length:
                        stream.came += length
                        stream.received(data[start:stop])
                    self.end_data(number, flags)
                    at = stop
                elif flags & PADDED and length and start == end:
                    break
                else:
                    at = self._begin_payload(number, flags, length, data, start)
            elif kind > CONTINUATION:
                self.idle += 1
                at = start
                self._rest, self._into, self._frame = length, None, None
            elif stop > end:
                break
            else:
                payload = data[start:stop]
                self.take(kind, flags, number, payload if type(payload) is bytes else bytes(payload))
                at = stop
            if self.turn + self.idle >= TURN:
                self.give_way()
        self.advanced = at > begin
        if at < end and self.reading:
            self.pending = bytes(data[at:])

    def _allow(self, kind: int, flags: int, number: int, length: int) -> None:
        if length > FRAME_BYTES:
            raise ConnectionBroken(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        if DATA < kind <= CONTINUATION and length > CONTROL_BYTES_MAX:
            raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, f"a frame of {length} bytes that is not data")
        if self.block_stream and (kind != CONTINUATION or number != self.block_stream):
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "a header block is interrupted")
        if not self.settled and (kind != SETTINGS or flags & ACK):
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "a connection begins with SETTINGS")

    def _begin_payload(self, number: int, flags: int, length: int, data: Data, at: int) -> int:
        """Begin a DATA frame (6.1) that is not whole, or padded; return where its data begins."""
        pad = 0
        self._rest = length
        if flags & PADDED:
            pad = data[at] if length else 0
            if pad >= length:
                raise ConnectionBroken(Code.PROTOCOL_ERROR, "more padding than frame")
            self._rest -= 1 + pad
            at += 1
        self._padding = pad
        self._frame = (number, flags)
        self._into = self.begin_data(number, flags, length)
        if not self._rest:
            self._end_payload()
        return at

    def _go_on(self, data: Data, at: int) -> int:
        """Take more of a payload; return where it ends."""
        count = min(self._rest, len(data) - at)
        self._rest -= count
        into = self._into
        if into is not None and count:
            into.came += count
            into.received(data[at : at + count])
        if not self._rest:
            self._end_payload()
        return at + count

    def _end_payload(self) -> None:
        self._into = None
        if self._padding:
            self._rest, self._padding = self._padding, 0
        elif self._frame is not None:
            self.end_data(*self._frame)
            if self.turn >= TURN:
                self.give_way()
