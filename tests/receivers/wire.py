"""HTTP/1.1 by hand: requests as bytes, responses read back, connections fed in pieces of any size."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.rpc import status_pb2

from collector.receivers.connection import Connection
from tests.receivers.doubles import FakeTransport, Receiving

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


def post(body: bytes, path: str = "/v1/traces", media_type: str = PROTOBUF, **headers: str) -> bytes:
    """Return a POST with a Content-Length; underscores in header names become hyphens."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {media_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, step: int = 1000, path: str = "/v1/traces", media_type: str = PROTOBUF) -> bytes:
    """Return a POST whose body comes in chunks."""
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [body[i : i + step] for i in range(0, len(body), step)]
    return head.encode() + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


@dataclass
class Response:
    """One response, read back."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def status(self) -> Any:
        """The body as google.rpc.Status, by its own media type."""
        if self.headers["content-type"] == JSON:
            return json_format.Parse(self.body, status_pb2.Status())
        assert self.headers["content-type"] == PROTOBUF
        return status_pb2.Status.FromString(self.body)


def read(data: bytes) -> list[Response]:
    """Read all responses that were written; nothing may be left over."""
    responses = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        protocol, code, _ = lines[0].split(" ", 2)
        assert protocol == "HTTP/1.1"
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        assert len(data) >= length, "a response is cut short"
        if code != "100":
            assert "date" in headers
        responses.append(Response(int(code), headers, data[:length]))
        data = data[length:]
    return responses


class Client:
    """A connection without a socket."""

    def __init__(self, receiving: Receiving) -> None:
        self.receiving = receiving
        self.transport = FakeTransport()
        self.connection = Connection(receiving.http)
        self.connection.connection_made(self.transport)
        self._unsent = b""

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

    @property
    def unsent(self) -> int:
        """Bytes that the connection has not read yet."""
        return len(self._unsent)

    def turn(self) -> None:
        """Let the event loop run what is due, and what was held back arrive."""
        self.receiving.loop.run_until_complete(asyncio.sleep(0))
        self.send(b"")

    def close(self) -> None:
        """Let the client be gone."""
        self.connection.connection_lost(None)

    @property
    def responses(self) -> list[Response]:
        """Everything answered so far."""
        return read(bytes(self.transport.written))
