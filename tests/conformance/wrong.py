"""Servers that do something wrong on purpose: what the kit must catch.

`Spoiler` stands before a server that is right and changes its answers; `Fixed` gives one answer to everything;
`WrongGrpc` is a gRPC server whose only method does what a test says.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

Change = Callable[[bytes], bytes]


def unchanged(data: bytes) -> bytes:
    return data


class _Listening:
    """A socket whose connections are served in threads."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        self._serving: list[threading.Thread] = []

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.add(connection)
            thread = threading.Thread(target=self._guarded, args=(connection,))
            self._serving.append(thread)
            thread.start()

    def _guarded(self, connection: socket.socket) -> None:
        try:
            self.serve(connection)
        except OSError:
            pass
        finally:
            self._open.discard(connection)
            connection.close()

    def serve(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._serving:
            thread.join(10)


class Spoiler(_Listening):
    """A proxy that changes what is sent, or answered, piece by piece; what matters to a test comes in one piece."""

    def __init__(self, upstream: str, *, answers: Change = unchanged, requests: Change = unchanged) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._answers, self._requests = answers, requests
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        with socket.create_connection(self._upstream) as upstream:
            back = threading.Thread(target=self._pipe, args=(upstream, connection, self._answers))
            back.start()
            self._pipe(connection, upstream, self._requests)
            back.join(10)

    @staticmethod
    def _pipe(source: socket.socket, sink: socket.socket, change: Change) -> None:
        try:
            while piece := source.recv(1 << 20):
                sink.sendall(change(piece))
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Fixed(_Listening):
    """An HTTP server that answers the same to whatever comes, and nothing at all for an empty answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        data = b""
        while piece := connection.recv(1 << 20):
            data += piece
            while (end := _request_end(data)) >= 0:
                data = data[end:]
                if self._answer:
                    connection.sendall(self._answer)


def _request_end(data: bytes) -> int:
    """Where the first request of the data ends; -1 when it has not come whole."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return -1
    start = len(head) + 4
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        end = rest.find(b"0\r\n\r\n")
        return start + end + 5 if end >= 0 else -1
    length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    return start + length if len(rest) >= length else -1


class WrongGrpc(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A gRPC server whose methods all do the same: return a message, or end the call by the context."""

    def __init__(self, answer: Callable[[bytes, Any], bytes], **options: Any) -> None:
        self._answer = answer
        self._server = grpc.server(
            ThreadPoolExecutor(4),
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 1 << 20)],
        )
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()
