"""Servers that answer what they are told, and keep what they were sent."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import httptools
import structlog
import zstandard
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.exporters.base import Context
from collector.otlp.signals import BY_NAME, SIGNALS
from tests.exporters.rig import AtOnce

Answered = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""
OK: Answered = (200, {"Content-Type": "application/x-protobuf"}, b"")


def context(name: str = "otlp/tested") -> Context:
    """What an exporter is given."""
    return Context(name, SystemClock(), structlog.get_logger(), CollectorRegistry(), AtOnce(), None)


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> bytes:
        """The body, decompressed."""
        return _plain(self.body, self.headers.get("content-encoding", ""))


def _plain(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    assert encoding in ("", "identity"), encoding
    return body


class HttpStub:
    """An HTTP/1.1 server."""

    def __init__(
        self, answer: Callable[[Request], Answered | None] = lambda one: OK, tls: ssl.SSLContext | None = None
    ) -> None:
        """`answer` says what a request gets; None: nothing at all, the connection stays as it is."""
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                answer = self.answer(request)
                if answer is None:
                    continue
                status, headers, body = answer
                lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(body)}"]
                lines += [f"{name}: {value}" for name, value in headers.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class _Parsed:
    def __init__(self) -> None:
        self.path, self.headers, self.body, self.done = "", {}, bytearray(), False  # type: ignore[var-annotated]

    def on_url(self, url: bytes) -> None:
        self.path = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done = True


async def _read(reader: asyncio.StreamReader) -> Request | None:
    parsed = _Parsed()
    parser: Any = httptools.HttpRequestParser(parsed)
    while not parsed.done:
        data = await reader.read(1 << 16)
        if not data:
            return None
        parser.feed_data(data)
    return Request(parsed.path, parsed.headers, bytes(parsed.body))


@dataclass
class Refusal:
    """A gRPC status."""

    code: grpc.StatusCode
    message: str = "told to"
    retry_s: float | None = None

    @property
    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        if self.retry_s is None:
            return ()
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromNanoseconds(int(self.retry_s * 1e9))
        detail = AnyMessage()
        detail.Pack(info)
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=[detail])
        return (("grpc-status-details-bin", status.SerializeToString()),)


@dataclass
class GrpcStub:
    """A gRPC server."""

    answer: Callable[[str, bytes], bytes | Refusal] = lambda signal, payload: b""
    credentials: Any = None
    calls: list[tuple[str, bytes, dict[str, Any]]] = field(default_factory=list)
    """Signal, payload and metadata of each."""
    port: int = 0

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        for signal in SIGNALS:
            handler = grpc.unary_unary_rpc_method_handler(self._handler(signal.name))
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(signal.service, {"Export": handler}),)
            )
        address = f"127.0.0.1:{self.port}"
        if self.credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, self.credentials)
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop(None)

    def _handler(self, name: str) -> Any:
        async def export(payload: bytes, call: Any) -> bytes:
            self.calls.append((name, payload, dict(call.invocation_metadata())))
            answer = self.answer(name, payload)
            if isinstance(answer, bytes):
                return answer
            call.set_trailing_metadata(answer.trailers)
            await call.abort(answer.code, answer.message)
            raise AssertionError

        return export


def partial(signal: str, rejected: int, message: str) -> bytes:
    """A response of partial success."""
    kind = BY_NAME[signal]
    response: Any = kind.response_type()
    setattr(response.partial_success, kind.rejected_field, rejected)
    response.partial_success.error_message = message
    return bytes(response.SerializeToString())
