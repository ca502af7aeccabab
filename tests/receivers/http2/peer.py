"""HTTP/2 by hand: frames as bytes, frames read back, connections fed in pieces of any size."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import hpack
from google.rpc import status_pb2

from collector.otlp.signals import TRACES, Signal
from collector.receivers.http2 import frames
from collector.receivers.http2.connection import Connection
from tests.receivers.doubles import FakeTransport, Receiving

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 1, 1, 4, 8, 0x20
PATH = f"/{TRACES.service}/Export"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame, written without the code under test."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def message(payload: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(payload).to_bytes(4, "big") + payload


def request_fields(signal: Signal = TRACES, **more: str) -> list[tuple[str, str]]:
    """Return the fields of an export; underscores in names become hyphens, one at the start a colon."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{signal.service}/Export",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    for name, value in more.items():
        key = ":" + name[1:] if name.startswith("_") else name.replace("_", "-")
        fields[key] = value
    return list(fields.items())


@dataclass
class Answered:
    """What came back on a stream."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def grpc_status(self) -> int:
        return int(dict(self.trailers or self.headers)["grpc-status"])

    @property
    def grpc_message(self) -> str:
        return unquote_to_bytes(dict(self.trailers or self.headers)["grpc-message"]).decode()

    @property
    def status(self) -> Any:
        text = dict(self.trailers or self.headers)["grpc-status-details-bin"]
        return status_pb2.Status.FromString(b64decode(text + "=" * (-len(text) % 4)))


class Peer:
    """A connection without a socket, and a client that may do anything."""

    def __init__(self, receiving: Receiving, *, greet: bool = True) -> None:
        self.receiving = receiving
        self.transport = FakeTransport()
        self.connection = Connection(receiving.grpc)
        self.connection.connection_made(self.transport)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.streams: dict[int, Answered] = {}
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.goaway: int | None = None
        self._read = 0
        self._unsent = b""
        if greet:
            self.send(frames.PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data: bytes, step: int = 1 << 30) -> None:
        """Let `data` arrive, at most `step` bytes at a time, as far as the connection reads."""
        self._unsent += data
        while self._unsent and not self.transport.paused and not self.transport.closed:
            buffer = self.connection.get_buffer(-1)
            size = min(step, len(buffer), len(self._unsent))
            assert size, "an empty buffer was offered"
            buffer[:size] = self._unsent[:size]
            del buffer
            self._unsent = self._unsent[size:]
            self.connection.buffer_updated(size)
        self.read()

    def read(self) -> None:
        """Read the frames that were written."""
        data = bytes(self.transport.written)
        while self._read < len(data):
            length = int.from_bytes(data[self._read : self._read + 3], "big")
            kind, flags = data[self._read + 3], data[self._read + 4]
            number = int.from_bytes(data[self._read + 5 : self._read + 9], "big")
            payload = data[self._read + 9 : self._read + 9 + length]
            assert len(payload) == length, "a frame is cut short"
            assert length <= 16384, "a frame is larger than was allowed"
            self._read += 9 + length
            self.frames.append((kind, flags, number, payload))
            self._take(kind, flags, number, payload)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")
            return
        if kind not in (HEADERS, DATA, RST_STREAM):
            return
        answered = self.streams.setdefault(number, Answered())
        assert answered.reset is None, "a frame behind RST_STREAM"
        if kind == RST_STREAM:
            answered.reset = int.from_bytes(payload, "big")
            return
        assert not answered.ended, "a frame behind END_STREAM"
        if kind == HEADERS:
            assert flags & END_HEADERS
            fields = [(str(name), str(value)) for name, value in self.decoder.decode(payload)]
            if answered.headers:
                answered.trailers = fields
            else:
                answered.headers = fields
        else:
            answered.data += payload
        answered.ended = bool(flags & END_STREAM)

    def headers(self, number: int, flags: int = END_HEADERS, fields: Any = None) -> bytes:
        """Return a HEADERS frame."""
        return frame(HEADERS, flags, number, self.encoder.encode(request_fields() if fields is None else fields))

    def export(self, number: int, payload: bytes, **more: str) -> bytes:
        """Return a whole export."""
        return self.headers(number, fields=request_fields(**more)) + frame(DATA, END_STREAM, number, message(payload))

    def turn(self) -> None:
        """Let the loop call what is due."""
        self.receiving.loop.run_until_complete(asyncio.sleep(0))
        self.read()

    def close(self) -> None:
        """The client's side is gone."""
        self.connection.connection_lost(None)
