# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A request's body while it arrives: one bytes object that is filled in place, compiled.

The socket is read straight into it (a `Body` is a writable buffer of the room that is left), or pieces are written
to it; `take` gives the bytes object away, without a copy, as what everything below works on. Nothing is zeroed
first, and nothing is copied but what a buffer that was too small held.

Memory follows the bytes that came, not those that were announced: the first buffer has at most `step` bytes, and
then it doubles.
"""

import cython
from cython.cimports.cpython.buffer import PyBuffer_FillInfo
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import uint8_t
from cython.cimports.libc.string import memcpy


@cython.cclass
class Body:
    """The bytes of a body of `length` bytes, of which `filled` have come."""

    length = cython.declare(cython.Py_ssize_t, visibility="readonly")
    filled = cython.declare(cython.Py_ssize_t, visibility="readonly")
    _room: cython.Py_ssize_t
    _exports: cython.int
    _bytes: bytes

    def __init__(self, length: cython.Py_ssize_t, step: cython.Py_ssize_t) -> None:
        """Expect `length` bytes, at least 0; the first buffer is of at most `step`, at least 1."""
        if length < 0 or step < 1:
            raise ValueError("a body has at least 0 bytes, and a first buffer of at least 1")
        self.length = length
        self.filled = 0
        self._exports = 0
        self._room = min(length, step)
        self._bytes = PyBytes_FromStringAndSize(cython.NULL, self._room)

    @property
    def complete(self) -> bool:
        """Whether all has come."""
        return self.filled == self.length

    @cython.cfunc
    @cython.exceptval(-1)
    def _grow(self, needed: cython.Py_ssize_t) -> cython.int:
        if self._exports or self._bytes is None:
            raise BufferError("the body is being read into, or was taken")
        room: cython.Py_ssize_t = min(self.length, max(2 * self._room, needed))
        larger: bytes = PyBytes_FromStringAndSize(cython.NULL, room)
        memcpy(PyBytes_AS_STRING(larger), PyBytes_AS_STRING(self._bytes), self.filled)
        self._bytes = larger
        self._room = room
        return 0

    def write(self, data: cython.const[uint8_t][::1]) -> None:
        """Append bytes; ValueError when there are more than were expected."""
        count: cython.Py_ssize_t = data.shape[0]
        if count > self.length - self.filled or self._bytes is None:
            raise ValueError("more bytes than the body has")
        if self.filled + count > self._room:
            self._grow(self.filled + count)
        if count:
            memcpy(PyBytes_AS_STRING(self._bytes) + self.filled, cython.address(data[0]), count)
            self.filled += count

    def advance(self, count: cython.Py_ssize_t) -> None:
        """Tell that `count` bytes were written through the buffer."""
        if not 0 <= count <= self._room - self.filled:
            raise ValueError("more bytes than the buffer had room for")
        self.filled += count

    def take(self) -> bytes:
        """Give the bytes away; once, and when all have come."""
        if self.filled != self.length or self._bytes is None:
            raise ValueError("the body is not complete, or was taken")
        taken: bytes = self._bytes
        self._bytes = None
        return taken

    def __getbuffer__(self, buffer: cython.pointer(Py_buffer), flags: cython.int):  # noqa: F821 - Cython's
        if self._bytes is None:
            raise BufferError("the body was taken")
        if self.filled == self._room:
            self._grow(self.filled + 1)
        PyBuffer_FillInfo(
            buffer, self, PyBytes_AS_STRING(self._bytes) + self.filled, self._room - self.filled, 0, flags
        )
        self._exports += 1

    def __releasebuffer__(self, buffer: cython.pointer(Py_buffer)):  # noqa: F821 - Cython's
        self._exports -= 1
