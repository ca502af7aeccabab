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

if TYPE_CHECKING:
    from collector.receivers.http2.stream import Stream

FRAME_BYTES: Final = 1024 * 1024
"""The largest frame that a client may send: a usual request is one."""
CONTROL_BYTES_MAX: Final = 64 * 1024
"""The largest frame that is kept until it is whole, and the largest header block."""
DIRECT_BYTES_MIN: Final = 16 * 1024
"""From here on a system call of its own is cheaper than a copy."""


class FrameReader:
    """Takes a connection's bytes apart. What the frames mean is for who inherits to define."""

    __slots__ = ("_into", "_padding", "_rest", "advanced", "block_stream", "pending", "prefaced", "settled",
                 "yielding")  # fmt: skip

    def __init__(self) -> None:
        self.prefaced = False
        """Whether the connection's preface came."""
        self.settled = False
        """Whether the client's first SETTINGS came."""
        self.pending = b""
        """A part of a frame."""
        self.block_stream = 0
        """The stream whose header block is under way, or 0."""
        self.advanced = False
        """Whether the last bytes ended a frame, or part of one."""
        self.yielding = False
        """Whether it is the turn of others: what has come waits in `pending`."""
        self._rest = 0  # bytes of the current frame's payload that are still to come
        self._into: Stream | None = None  # where they go
        self._padding = 0  # bytes behind them that go nowhere

    def begin_data(self, number: int, flags: int, length: int) -> Stream | None:
        """A DATA frame begins; return the stream that wants it."""
        raise NotImplementedError

    def end_data(self) -> None:
        """That frame, or one that is read over, is at its end."""
        raise NotImplementedError

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take a whole frame of another type."""
        raise NotImplementedError

    def count_idle(self) -> None:
        """Count a frame that brings no request forward."""
        raise NotImplementedError

    def open(self) -> bool:
        """Tell whether frames are still wanted."""
        raise NotImplementedError

    def abandon(self, stream: Stream) -> None:
        """Read over what is still to come for a stream."""
        if self._into is stream:
            self._into = None

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

    def feed_preface(self, view: memoryview) -> bool:
        """Take a connection's first bytes; tell whether they are HTTP/2's."""
        came = bytes(view[: len(PREFACE)])
        if not PREFACE.startswith(came):
            return False
        if len(came) < len(PREFACE):
            self.pending = came
        else:
            self.prefaced = True
            self.feed(view, len(PREFACE))
        return True

    def feed(self, view: memoryview, at: int = 0) -> None:
        """Take frames from `view[at:]`; raises ConnectionBroken. What is no whole frame is left in `pending`."""
        begin, end = at, len(view)
        while self.open() and not self.yielding:
            rest = self._rest
            if rest:
                count = min(rest, end - at)
                if not count:
                    return
                self._rest = rest - count
                into = self._into
                if into is not None:
                    into.came += count
                    into.received(view[at : at + count])
                at += count
                if self._rest:
                    return
                self._end_payload()
                continue
            if end - at < FRAME_HEAD_BYTES:
                break
            high, low, kind, flags, number = HEAD.unpack_from(view, at)
            length = high << 8 | low
            number &= WINDOW_MAX
            self._allow(kind, flags, number, length)
            if kind == DATA:
                padded = flags & PADDED != 0
                if padded and length and end - at < FRAME_HEAD_BYTES + 1:
                    break
                at += FRAME_HEAD_BYTES
                self._begin_payload(number, flags, length, (view[at] if length else 0) if padded else -1)
                at += padded
                if not self._rest:
                    self._end_payload()
            elif kind > CONTINUATION:
                self.count_idle()
                at += FRAME_HEAD_BYTES
                self._rest, self._into = length, None
            else:
                stop = at + FRAME_HEAD_BYTES + length
                if stop > end:
                    break
                self.take(kind, flags, number, bytes(view[at + FRAME_HEAD_BYTES : stop]))
                at = stop
        self.advanced = at > begin
        if at < end and self.open():
            self.pending = bytes(view[at:])

    def _allow(self, kind: int, flags: int, number: int, length: int) -> None:
        if length > FRAME_BYTES:
            raise ConnectionBroken(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        if DATA < kind <= CONTINUATION and length > CONTROL_BYTES_MAX:
            raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, f"a frame of {length} bytes that is not data")
        if self.block_stream and (kind != CONTINUATION or number != self.block_stream):
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "a header block is interrupted")
        if not self.settled and (kind != SETTINGS or flags & ACK):
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "a connection begins with SETTINGS")

    def _begin_payload(self, number: int, flags: int, length: int, pad: int) -> None:
        """Begin a DATA frame (6.1) with a pad length, or -1."""
        if number == 0:
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "DATA on stream 0")
        if pad >= length:
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "more padding than frame")
        self._into = self.begin_data(number, flags, length)
        self._padding = max(pad, 0)
        self._rest = length if pad < 0 else length - 1 - pad

    def _end_payload(self) -> None:
        self._into = None
        if self._padding:
            self._rest, self._padding = self._padding, 0
        else:
            self.end_data()
