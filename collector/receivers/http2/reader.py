# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Frames out of the bytes of a connection (RFC 9113, 3.4 and 4), compiled.

The payload of a DATA frame goes to its stream as it comes: as bytes where it is little, as a view of the buffer that
was read into where it is much. All other frames are kept until they are whole, which is at most `CONTROL_BYTES_MAX`;
those of unknown types are read over (5.5).

What frames mean is for who inherits to define, in `begin_data`, `end_data` and `take`; it raises what breaks the
connection, and says by `reading` and `yielding` that it wants no more, or not now.

Cost: the calls of these, and little beside.
"""

import cython
from cython.cimports.cpython.buffer import Py_buffer, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import uint8_t, uint32_t

from collector.receivers.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    FRAME_HEAD_BYTES,
    PADDED,
    PREFACE,
    SETTINGS,
    Code,
    ConnectionBroken,
)
from collector.receivers.http2.pace import TURN

FRAME_BYTES: int = 1024 * 1024
"""The largest frame that a client may send: a usual request is one."""
CONTROL_BYTES_MAX: int = 64 * 1024
"""The largest frame that is kept until it is whole, and the largest header block."""
DIRECT_BYTES_MIN: int = 16 * 1024
"""From here on a system call of its own is cheaper than a copy."""
LITTLE_BYTES: int = 4096
"""Up to here a copy is cheaper than a view."""

_ACK = cython.declare(cython.int, ACK)
_CONTINUATION = cython.declare(cython.int, CONTINUATION)
_DATA = cython.declare(cython.int, DATA)
_HEAD = cython.declare(cython.Py_ssize_t, FRAME_HEAD_BYTES)
_PADDED = cython.declare(cython.int, PADDED)
_SETTINGS = cython.declare(cython.int, SETTINGS)
_TURN = cython.declare(cython.Py_ssize_t, TURN)
_FRAME_MAX = cython.declare(cython.Py_ssize_t, FRAME_BYTES)
_CONTROL_MAX = cython.declare(cython.Py_ssize_t, CONTROL_BYTES_MAX)
_DIRECT_MIN = cython.declare(cython.Py_ssize_t, DIRECT_BYTES_MIN)
_LITTLE_MAX = cython.declare(cython.Py_ssize_t, LITTLE_BYTES)


@cython.cclass
class FrameReader:
    """Takes a connection's bytes apart.

    `prefaced`: the connection's preface came. `settled`: so did the client's first SETTINGS. `reading`: frames are still
    wanted. `yielding`: it is the turn of others, and what has come waits in `pending`, as does a part of a frame.
    `block_stream`: the stream whose header block is under way, or 0. `advanced`: the last bytes ended a frame, or part
    of one. `idle`: frames that brought no request forward, until somebody takes account of them. `turn`: what was done
    in this turn of the loop beside that; see `pace.TURN`. `into`: the stream that the rest of a frame goes to.
    """

    prefaced = cython.declare(cython.bint, visibility="public")
    settled = cython.declare(cython.bint, visibility="public")
    reading = cython.declare(cython.bint, visibility="public")
    yielding = cython.declare(cython.bint, visibility="public")
    pending = cython.declare(bytes, visibility="public")
    block_stream = cython.declare(uint32_t, visibility="public")
    advanced = cython.declare(cython.bint, visibility="public")
    idle = cython.declare(cython.Py_ssize_t, visibility="public")
    turn = cython.declare(cython.Py_ssize_t, visibility="public")
    into = cython.declare(object, visibility="public")
    # Of a frame that goes to its stream, or nowhere, as it comes: bytes of the payload that are still to come, bytes of
    # padding behind them, and of a DATA frame the stream's number, else 0, and the flags.
    _rest: cython.Py_ssize_t
    _padding: cython.Py_ssize_t
    _number: uint32_t
    _flags: cython.int

    def __init__(self) -> None:
        self.prefaced = self.settled = self.yielding = self.advanced = False
        self.reading = True
        self.pending = b""
        self.block_stream = self._number = 0
        self.idle = self.turn = 0
        self.into = None
        self._rest = self._padding = 0
        self._flags = 0

    def begin_data(self, number: int, flags: int, length: int) -> object:
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

    def direct(self) -> object:
        """Return the stream into whose body the next bytes can be read: all that its frame still brings is body."""
        if self.into is None or self._rest < _DIRECT_MIN or self._padding:
            return None
        body = self.into.body
        return self.into if body is not None and body.length - body.filled == self._rest else None

    def came_directly(self, stream: object, count: cython.Py_ssize_t) -> None:
        """Tell that `count` bytes were read into that stream's body."""
        stream.body.advance(count)
        stream.came += count
        self._rest -= count
        if not self._rest:
            self._end_payload()

    def feed_preface(self, data: object) -> bool:
        """Take a connection's first bytes; tell whether they are HTTP/2's."""
        came: bytes = bytes(data[: len(PREFACE)])
        if not PREFACE.startswith(came):
            return False
        if len(came) < len(PREFACE):
            self.pending = came
        else:
            self.prefaced = True
            self.feed(data, len(PREFACE))
        return True

    def feed(self, data: object, at: cython.Py_ssize_t = 0) -> None:
        """Take frames from `data[at:]`, a view; raises ConnectionBroken. What is no whole frame is left in `pending`."""
        buffer = cython.declare(Py_buffer)
        PyObject_GetBuffer(data, cython.address(buffer), PyBUF_SIMPLE)
        try:
            self._feed(data, cython.cast(cython.pointer(uint8_t), buffer.buf), at, buffer.len)
        finally:
            PyBuffer_Release(cython.address(buffer))

    @cython.cfunc
    @cython.exceptval(-1)
    def _feed(
        self, data: object, view: cython.pointer(uint8_t), at: cython.Py_ssize_t, end: cython.Py_ssize_t
    ) -> cython.int:
        begin: cython.Py_ssize_t = at
        start: cython.Py_ssize_t
        stop: cython.Py_ssize_t
        length: cython.Py_ssize_t
        kind: cython.int
        flags: cython.int
        number: uint32_t
        while self.reading and not self.yielding:
            if self._rest:
                at = self._go_on(data, view, at, end)
                if at == end:
                    return 0
                continue
            start = at + _HEAD
            if start > end:
                break
            length = view[at] << 16 | view[at + 1] << 8 | view[at + 2]
            kind = view[at + 3]
            flags = view[at + 4]
            number = cython.cast(uint32_t, view[at + 5] & 0x7F) << 24
            number |= view[at + 6] << 16 | view[at + 7] << 8 | view[at + 8]
            stop = start + length
            self._allow(kind, flags, number, length)
            if kind == _DATA:
                if stop <= end and not flags & _PADDED:
                    stream = self.begin_data(number, flags, length)
                    if stream is not None and length:
                        _give(stream, data, view, start, length)
                    self.end_data(number, flags)
                    at = stop
                elif flags & _PADDED and length and start == end:
                    break
                else:
                    at = self._begin_payload(number, flags, length, view, start)
            elif kind > _CONTINUATION:
                self.idle += 1
                at = start
                self._rest = length
                self._number = 0
                self.into = None
            elif stop > end:
                break
            else:
                self.take(kind, flags, number, _bytes(view, start, length))
                at = stop
            if self.turn + self.idle >= _TURN:
                self.give_way()
        self.advanced = at > begin
        if at < end and self.reading:
            self.pending = _bytes(view, at, end - at)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _allow(self, kind: cython.int, flags: cython.int, number: uint32_t, length: cython.Py_ssize_t) -> cython.int:
        if length > _FRAME_MAX:
            raise ConnectionBroken(Code.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
        if length > _CONTROL_MAX and kind != _DATA and kind <= _CONTINUATION:
            raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, f"a frame of {length} bytes that is not data")
        if self.block_stream and (kind != _CONTINUATION or number != self.block_stream):
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "a header block is interrupted")
        if not self.settled and (kind != _SETTINGS or flags & _ACK):
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "a connection begins with SETTINGS")
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _begin_payload(
        self,
        number: uint32_t,
        flags: cython.int,
        length: cython.Py_ssize_t,
        view: cython.pointer(uint8_t),
        at: cython.Py_ssize_t,
    ) -> cython.Py_ssize_t:
        """Begin a DATA frame (6.1) that is not whole, or padded; return where its data begins."""
        pad: cython.Py_ssize_t = 0
        self._rest = length
        if flags & _PADDED:
            if length:
                pad = view[at]
            if pad >= length:
                raise ConnectionBroken(Code.PROTOCOL_ERROR, "more padding than frame")
            self._rest -= 1 + pad
            at += 1
        self._padding = pad
        self._number = number
        self._flags = flags
        self.into = self.begin_data(number, flags, length)
        if not self._rest:
            self._end_payload()
        return at

    @cython.cfunc
    @cython.exceptval(-1)
    def _go_on(
        self, data: object, view: cython.pointer(uint8_t), at: cython.Py_ssize_t, end: cython.Py_ssize_t
    ) -> cython.Py_ssize_t:
        """Take more of a payload; return where it ends."""
        count: cython.Py_ssize_t = min(self._rest, end - at)
        self._rest -= count
        if self.into is not None and count:
            _give(self.into, data, view, at, count)
        if not self._rest:
            self._end_payload()
        return at + count

    @cython.cfunc
    @cython.exceptval(-1)
    def _end_payload(self) -> cython.int:
        self.into = None
        if self._padding:
            self._rest = self._padding
            self._padding = 0
        elif self._number:
            self.end_data(self._number, self._flags)
            if self.turn + self.idle >= _TURN:
                self.give_way()
        return 0


@cython.cfunc
def _bytes(view: cython.pointer(uint8_t), at: cython.Py_ssize_t, count: cython.Py_ssize_t) -> bytes:
    return PyBytes_FromStringAndSize(cython.cast(cython.p_char, view) + at, count)


@cython.cfunc
@cython.exceptval(-1)
def _give(
    stream: object, data: object, view: cython.pointer(uint8_t), at: cython.Py_ssize_t, count: cython.Py_ssize_t
) -> cython.int:
    """Give data to a stream."""
    stream.came += count
    stream.received(_bytes(view, at, count) if count <= _LITTLE_MAX else data[at : at + count])
    return 0
