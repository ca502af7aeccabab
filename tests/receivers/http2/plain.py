"""The frame reader in plain Python, as an oracle for the compiled one."""

from __future__ import annotations

from typing import Any

from collector.receivers.http2 import frames
from collector.receivers.http2.frames import Code, ConnectionBroken
from collector.receivers.http2.pace import TURN
from collector.receivers.http2.reader import CONTROL_BYTES_MAX, FRAME_BYTES


class PlainReader:
    """One frame after the other; what has come of one that is not whole is kept, all of it but for DATA."""

    def __init__(self) -> None:
        self.settled = self.yielding = self.advanced = False
        self.reading = True
        self.pending = b""
        self.block_stream = self.idle = self.turn = 0
        self.into: Any = None
        self._frame: tuple[int, int] | None = None
        self._rest = self._padding = 0

    def feed(self, data: memoryview) -> None:
        left = bytes(data)
        self.advanced = False
        while self.reading and not self.yielding:
            if self._rest and left:
                left = self._payload(left)
            elif self._rest:
                break
            elif (rest := self._next(left)) is not None:
                left = rest
            else:
                break
            self.advanced = True
            if self.turn + self.idle >= TURN:
                self.give_way()
        if left and self.reading:
            self.pending = left

    def _next(self, data: bytes) -> bytes | None:
        """Take a frame, or begin to; None when too little of it is there."""
        if len(data) < frames.FRAME_HEAD_BYTES:
            return None
        length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
        number = int.from_bytes(data[5:9], "big") % 2**31
        self._allow(kind, flags, number, length)
        payload = data[9:]
        if kind == frames.DATA:
            padded = bool(flags & frames.PADDED)
            if padded and length and not payload:
                return None
            padding = payload[0] if padded and length else 0
            if padded and padding >= length:
                raise ConnectionBroken(Code.PROTOCOL_ERROR, "more padding than frame")
            self._frame, self._padding, self._rest = (number, flags), padding, length - padding - padded
            self.into = self.begin_data(number, flags, length)
            if not self._rest:
                self._end()
            return payload[padded:]
        if kind > frames.CONTINUATION:
            self.idle += 1
            self._frame, self._rest, self.into = None, length, None
            return payload
        if len(payload) < length:
            return None
        self.take(kind, flags, number, payload[:length])
        return payload[length:]

    def _payload(self, data: bytes) -> bytes:
        piece = data[: self._rest]
        self._rest -= len(piece)
        if self.into is not None and piece:
            self.into.came += len(piece)
            self.into.received(piece)
        if not self._rest:
            self._end()
        return data[len(piece) :]

    def _end(self) -> None:
        self.into = None
        if self._padding:
            self._rest, self._padding = self._padding, 0
        elif self._frame is not None:
            self.end_data(*self._frame)

    def _allow(self, kind: int, flags: int, number: int, length: int) -> None:
        if length > FRAME_BYTES:
            raise ConnectionBroken(Code.FRAME_SIZE_ERROR, "too large")
        if frames.DATA < kind <= frames.CONTINUATION and length > CONTROL_BYTES_MAX:
            raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, "too large to keep")
        if self.block_stream and (kind, number) != (frames.CONTINUATION, self.block_stream):
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "interrupted")
        if not self.settled and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "no SETTINGS")

    def begin_data(self, number: int, flags: int, length: int) -> Any:
        raise NotImplementedError

    def end_data(self, number: int, flags: int) -> None:
        raise NotImplementedError

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        raise NotImplementedError

    def give_way(self) -> None:
        raise NotImplementedError
