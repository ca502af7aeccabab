"""HTTP/2 frames as bytes (RFC 9113, 4 and 6): their types, flags and codes, and the ones that a server sends."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client's connection begins with."""
FRAME_HEAD_BYTES: Final = 9
WINDOW_MAX: Final = 2**31 - 1
WINDOW_DEFAULT: Final = 65535
FRAME_BYTES_DEFAULT: Final = 16384
FRAME_BYTES_MAX: Final = 2**24 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
"""Frame types."""

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
"""Settings."""

HEAD: Final = struct.Struct(">HBBBI")
"""A frame's head: the length's upper 16 and lower 8 bits, type, flags, stream."""
WORD: Final = struct.Struct(">I")
SETTING: Final = struct.Struct(">HI")


class Code(IntEnum):
    """Error codes (RFC 9113, 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class ConnectionBroken(Exception):
    """What the client sent breaks the whole connection: it ends with GOAWAY and this code."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamBroken(Exception):
    """What the client sent breaks one stream: it ends with RST_STREAM and this code."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    length = len(payload)
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def settings(pairs: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(key, value) for key, value in pairs.items()))


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, WORD.pack(increment))


def rst_stream(stream: int, code: Code) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, WORD.pack(code))


def goaway(last_stream: int, code: Code, message: str = "") -> bytes:
    """Return a GOAWAY frame; the message is for people."""
    return frame(GOAWAY, 0, 0, WORD.pack(last_stream) + WORD.pack(code) + message.encode())


def whole_response(head: bytes, body: bytes, trailers: bytes) -> tuple[bytes, ...]:
    """Return the frames of a response with these header blocks, apart where the number of its stream is left out: its
    four bytes join them. `body` has at most `FRAME_BYTES_DEFAULT` bytes."""
    frames = (
        frame(HEADERS, END_HEADERS, 0, head)
        + frame(DATA, 0, 0, body)
        + frame(HEADERS, END_HEADERS | END_STREAM, 0, trailers)
    )
    numbers = (5, FRAME_HEAD_BYTES + len(head) + 5, 2 * FRAME_HEAD_BYTES + len(head) + len(body) + 5)
    begins = (0, *(at + 4 for at in numbers))
    return tuple(frames[begin:end] for begin, end in zip(begins, (*numbers, len(frames)), strict=True))


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header field for a header block: a literal that is not indexed, by name (RFC 7541, 6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    """Return an HPACK string without Huffman coding (RFC 7541, 5.2)."""
    length = len(text)
    if length < 127:
        return bytes([length]) + text
    length -= 127
    head = bytearray([127])
    while length > 127:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + text


def block_part(flags: int, number: int, payload: bytes) -> bytes:
    """Return what a HEADERS frame has of a header block, without padding and priority (6.2)."""
    begin, end = 0, len(payload)
    if flags & PADDED:
        require(end > 0 and payload[0] < end, "more padding than frame")
        begin, end = 1, end - payload[0]
    if flags & HAS_PRIORITY:
        require_size(end - begin >= 5, "HEADERS")
        if WORD.unpack_from(payload, begin)[0] & WINDOW_MAX == number:
            raise ConnectionBroken(Code.PROTOCOL_ERROR, "a stream depends on itself")
        begin += 5
    return payload[begin:end]


def check_dependency(number: int, payload: bytes) -> None:
    """Raise StreamBroken for a PRIORITY frame by which a stream depends on itself."""
    if WORD.unpack_from(payload)[0] & WINDOW_MAX == number:
        raise StreamBroken(Code.PROTOCOL_ERROR)


def require(holds: bool, message: str) -> None:
    """Break the connection unless something holds."""
    if not holds:
        raise ConnectionBroken(Code.PROTOCOL_ERROR, message)


def require_size(holds: bool, what: str) -> None:
    """Break the connection unless a frame has the right size."""
    if not holds:
        raise ConnectionBroken(Code.FRAME_SIZE_ERROR, f"{what} of a wrong size")
