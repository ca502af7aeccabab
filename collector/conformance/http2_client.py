"""HTTP/2 as far as it needs no header compression: a preface, and the frames that a server sends of itself.

It sees what gRPC libraries hide: the settings that are announced, and GOAWAY.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple, Self

from collector.conformance.check import NoAnswer

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, GOAWAY = 4, 7
MAX_CONCURRENT_STREAMS: Final = 3
_EMPTY_SETTINGS: Final = b"\0\0\0\4\0\0\0\0\0"
_HEAD: Final = struct.Struct(">HBBBI")


class Frame(NamedTuple):
    """A frame that came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Http2Connection:
    """A client's side of a connection on which nothing is asked."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        """Connect and send the preface."""
        try:
            self._socket = socket.create_connection((host, port), timeout_s)
            self._socket.sendall(PREFACE + _EMPTY_SETTINGS)
        except OSError as error:
            raise NoAnswer(f"no connection to {host}:{port}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def settings(self) -> dict[int, int]:
        """Return the settings that the server announces; NoAnswer when it does not speak HTTP/2."""
        frame = self.frame()
        if frame.kind != SETTINGS or len(frame.payload) % 6:
            raise NoAnswer("no HTTP/2: the first thing that came is no SETTINGS frame")
        return dict(struct.iter_unpack(">HI", frame.payload))

    def until(self, kind: int) -> Frame:
        """Read up to a frame of a type."""
        while (frame := self.frame()).kind != kind:
            pass
        return frame

    def frame(self) -> Frame:
        """Read one frame."""
        upper, lower, kind, flags, stream = _HEAD.unpack(self._exactly(9))
        return Frame(kind, flags, stream, self._exactly(min(upper << 8 | lower, 1 << 20)))

    def _exactly(self, length: int) -> bytes:
        came = b""
        try:
            while len(came) < length:
                piece = self._socket.recv(length - len(came))
                if not piece:
                    raise NoAnswer("the connection was closed")
                came += piece
        except OSError as error:
            raise NoAnswer(f"no frame came: {error}") from error
        return came
