"""How the load driver speaks: OTLP/HTTP by a plain socket, OTLP/gRPC by grpcio with raw bytes.

A connection has one request under way at a time. What it sends is made ready once, so that a request costs the
driver little more than the system calls.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any, Protocol

import grpc

from collector.otlp.signals import Signal
from collector.testing.otlp import to_json

PATIENCE_S = 60.0
"""How long one answer may take; then the run has failed."""
_READ_BYTES = 65536


class Failed(Exception):
    """A request was not answered as a success."""


class Connection(Protocol):
    """One connection to a server, for one signal."""

    def export(self, request: Any) -> bytes:
        """Send what `prepare` made, and return the response message; raise Failed if there is none."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the server has closed it, as servers do with what was idle."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class HttpConnection:
    """HTTP/1.1 with keep-alive, nothing pipelined."""

    def __init__(self, address: str, signal: Signal) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @staticmethod
    def prepare(signal: Signal, payload: bytes) -> bytes:
        """Return the request as it goes over the wire."""
        head = (
            f"POST {signal.http_path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
            f"Content-Length: {len(payload)}\r\n\r\n"
        )
        return head.encode() + payload

    def export(self, request: bytes) -> bytes:
        """Send a request and wait for the whole answer."""
        try:
            self._socket.sendall(request)
            head, body = b"", b""
            while not head:
                body += self._receive()
                before, end, after = body.partition(b"\r\n\r\n")
                if end:
                    head, body = before, after
            length = _checked_length(head)
            while len(body) < length:
                body += self._receive()
        except OSError as error:
            raise Failed(f"the connection broke: {error}") from error
        return body

    def _receive(self) -> bytes:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise Failed("the server closed the connection")
        return data

    @property
    def ended(self) -> bool:
        """Whether the server has closed it: nothing else makes it readable between two requests."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _checked_length(head: bytes) -> int:
    """Return the Content-Length of a response of status 200."""
    status, *headers = head.split(b"\r\n")
    if status.split(b" ", 2)[1] != b"200":
        raise Failed(status.decode("latin-1"))
    for header in headers:
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise Failed("an answer without Content-Length")


class JsonConnection(HttpConnection):
    """HTTP/1.1 with the payload in JSON."""

    @staticmethod
    def prepare(signal: Signal, payload: bytes) -> bytes:
        """Return the request as it goes over the wire."""
        body = to_json(signal, payload)
        head = (
            f"POST {signal.http_path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def export(self, request: bytes) -> bytes:
        """Send a request and wait for the answer, which must say nothing; return it as protobuf has it."""
        body = super().export(request)
        if body != b"{}":
            raise Failed(body.decode(errors="replace"))
        return b""


class GrpcConnection:
    """One channel with a connection of its own."""

    def __init__(self, address: str, signal: Signal) -> None:
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._call: Callable[..., bytes] = self._channel.unary_unary(f"/{signal.service}/Export")

    @staticmethod
    def prepare(signal: Signal, payload: bytes) -> bytes:
        """Return the message as it is: grpcio frames it."""
        return payload

    def export(self, request: bytes) -> bytes:
        """Call Export and wait for its answer."""
        try:
            return self._call(request, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            raise Failed(f"{error.code().name}: {error.details()}") from error

    @property
    def ended(self) -> bool:
        """Never: a channel connects anew by itself."""
        return False

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


CONNECTIONS: dict[str, type[HttpConnection | GrpcConnection]] = {
    "grpc": GrpcConnection,
    "http": HttpConnection,
    "json": JsonConnection,
}
"""The connection of each transport."""
