"""OTLP over HTTP/1.1: our own protocol on asyncio's buffered protocol, behind httptools' header parser.

The head of a request, up to its empty line, goes through the parser (llhttp), which refuses what could be
understood in two ways: two lengths, a length and chunks, folded or bare-LF lines. A body with a length is then
read straight into one buffer, which goes down to the store as it is; only what arrived together with the head
is copied. Chunked bodies go through the parser.

One request at a time is at work on a connection: what a client pipelines behind it waits, and reading pauses.
Every wait has a limit: for a head, for a body to make progress, for the next request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import httptools
from google.protobuf.json_format import MessageToJson

from collector.errors import Malformed, RingtailError, TooLarge, Unavailable, Unsupported
from collector.otlp import json
from collector.otlp.status import Answer, answer, status_of
from collector.receivers.encoding import inflate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collector.clock import Clock
    from collector.otlp.validate import Accepted
    from collector.receivers.admission import Admission
    from collector.receivers.export import Receiver

HEAD_BYTES_MAX = 64 * 1024
"""Bytes of request line and headers."""
READ_BYTES = 256 * 1024
"""What is read at once while a head is expected; one buffer serves all connections of the loop."""
BODY_STEP_BYTES = 1024 * 1024
"""A body's buffer grows by at most so much beyond what has arrived: an announced size costs nothing."""
CONNECTIONS_MAX = 4096
"""Open connections; one more is answered with 503 and closed."""

PROTOBUF, JSON = "application/x-protobuf", "application/json"

_REASONS = {
    100: "Continue",
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_ABOUT = b"Ringtail receives OTLP here: POST to /v1/traces, /v1/logs or /v1/metrics. Queries are on another port.\n"


class _Refused(RingtailError):
    """An answer that only HTTP knows: its code, and a header."""

    def __init__(self, code: int, message: str, header: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.header = header


class HttpProtocol(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, server: HttpReceiver) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._pending = bytearray()  # what came behind the request at work
        self._busy = False
        self._closing = False
        self._reset()
        self.deadline = server.clock.monotonic() + server.idle_timeout_s

    def _reset(self) -> None:
        """Expect a new request."""
        self._parser: Any = None
        self._body: bytearray | None = None
        self._length = 0  # of the body: announced, or so far when chunked
        self._filled = 0
        self._taken = 0  # bytes of the budget
        self._chunked = False
        self._receiver: Receiver | None = None
        self._type = ""
        self._json = False
        self._encoding = ""
        self._path = ""
        self._keep_alive = True
        self._expects = False
        self._complete = False
        self._announced: int | None = None

    # --- asyncio's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it when there are too many."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from asyncio's
        self._server.connections.add(self)
        if len(self._server.connections) > CONNECTIONS_MAX:
            self._fail(Unavailable(f"more than {CONNECTIONS_MAX} connections"))

    def connection_lost(self, error: Exception | None) -> None:
        """Give back what a request that will not come to its end has taken."""
        self._server.connections.discard(self)
        self._transport = None
        if not self._busy:
            self._release()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go: the body's own buffer, or the shared one."""
        if self._body is not None and not self._chunked and not self._busy:
            room = len(self._body) - self._filled
            if not room:
                self._body.extend(bytes(min(self._length - self._filled, BODY_STEP_BYTES)))
            return memoryview(self._body)[self._filled :]
        return self._server.buffer

    def buffer_updated(self, count: int) -> None:
        """Take `count` bytes that arrived."""
        if self._closing:
            return
        if self._body is not None and not self._chunked and not self._busy:
            self._filled += count
            self._touch(self._server.idle_timeout_s)
            if self._filled == self._length:
                self._finish()
            return
        self._feed(bytes(self._server.buffer[:count]))

    def eof_received(self) -> bool:
        """The client has said all it will: answer what is at work, then close."""
        self._keep_alive = False
        return self._busy

    # --- a request ----------------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        """Take bytes that are not the rest of a body with a length."""
        if self._busy:
            self._pending += data
            if self._transport is not None:
                self._transport.pause_reading()
            return
        try:
            if self._chunked:
                self._feed_chunks(data)
            else:
                self._feed_head(data)
        except RingtailError as error:
            self._fail(error)

    def _feed_head(self, data: bytes) -> None:
        if not self._head:
            data = data.lstrip(b"\r\n")
            if not data:
                return
            self.deadline = self._server.clock.monotonic() + self._server.read_header_timeout_s
        begin = max(0, len(self._head) - 3)
        self._head += data
        end = self._head.find(b"\r\n\r\n", begin)
        if end < 0 or end + 4 > HEAD_BYTES_MAX:
            if len(self._head) > HEAD_BYTES_MAX:
                raise _Refused(431, f"request line and headers are larger than {HEAD_BYTES_MAX} bytes")
            return
        head, rest = bytes(self._head[: end + 4]), bytes(self._head[end + 4 :])
        self._head.clear()
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade as error:
            raise _Refused(400, "protocol upgrades are not served here") from error
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, RingtailError):
                raise error.__context__ from None
            raise Malformed(f"not a valid HTTP request: {error}") from error
        self._begin(rest)

    def on_url(self, url: bytes) -> None:
        """Take the request's target (called by the parser)."""
        self._path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header (called by the parser)."""
        match name.lower():
            case b"content-length":
                self._announced = int(value)
            case b"content-type":
                self._type = value.decode("latin-1")
            case b"content-encoding":
                self._encoding = value.decode("latin-1").strip().lower()
            case b"transfer-encoding":
                self._chunked = True
            case b"expect":
                self._expects = True

    def on_message_complete(self) -> None:
        """Note the end of the request (called by the parser)."""
        self._complete = True

    def on_body(self, piece: bytes) -> None:
        """Take a piece of a chunked body (called by the parser)."""
        if self._body is None or self._length + len(piece) > self._server.body_bytes_max:
            self._length = self._server.body_bytes_max + 1
            return
        self._body += piece
        self._length += len(piece)

    def _begin(self, rest: bytes) -> None:
        """The head is complete: decide about the request, and go on with its body."""
        self._keep_alive = self._parser.should_keep_alive()
        self._choose()
        limit = self._server.body_bytes_max
        if self._announced is not None and self._announced > limit:
            raise TooLarge(
                f"the request announces {self._announced} bytes; the limit is {limit} "
                "(receivers.otlp.protocols.http.max_request_body_size)"
            )
        self._length = self._announced or 0
        self._server.admission.admit(self._length)
        self._taken = self._length + 1  # told apart from nothing taken; given back as `_taken - 1`
        if self._expects and self._transport is not None and not rest:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._chunked:
            self._body = bytearray()
            self._feed_chunks(rest)
            return
        own = rest[: self._length]
        self._body = bytearray(min(self._length, len(own) + BODY_STEP_BYTES))
        self._body[: len(own)] = own
        self._filled = len(own)
        self._pending += rest[self._length :]
        self._touch(self._server.idle_timeout_s)
        if self._filled == self._length:
            self._finish()

    def _choose(self) -> None:
        """Find the request's receiver and encoding; raise what is wrong with its head."""
        media_type = self._type.partition(";")[0].strip().lower()
        self._json = media_type == JSON
        path = self._path.partition("?")[0]
        method = self._parser.get_method()
        receiver = self._server.receivers.get(path)
        if receiver is None:
            if path == "/" and method == b"GET":
                raise _Refused(200, "")
            paths = ", ".join(self._server.receivers)
            raise _Refused(404, f"nothing is received at {path[:200]!r}; paths are {paths}")
        self._receiver = receiver
        if method != b"POST":
            raise _Refused(
                405, f"{method.decode('latin-1')} is not allowed; POST export requests here", "Allow: POST\r\n"
            )
        if media_type not in (PROTOBUF, JSON):
            raise Unsupported(f"Content-Type {self._type[:100]!r} is not supported; use {PROTOBUF} or {JSON}")

    def _feed_chunks(self, data: bytes) -> None:
        before = self._length
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise Malformed(f"not a valid chunked body: {error}") from error
        if self._length > self._server.body_bytes_max:
            raise TooLarge(
                f"the request is larger than {self._server.body_bytes_max} bytes "
                "(receivers.otlp.protocols.http.max_request_body_size)"
            )
        self._grow(self._length - before)
        self._touch(self._server.idle_timeout_s)
        if self._complete:
            self._chunked = False
            self._finish()

    def _grow(self, size: int) -> None:
        self._server.admission.grow(size)
        self._taken += size

    def _finish(self) -> None:
        """The body is there: decode it, and give it to the store."""
        self._busy = True
        self.deadline = float("inf")
        receiver = self._receiver
        assert receiver is not None
        assert self._body is not None
        try:
            payload = inflate(self._body, self._encoding, self._server.body_bytes_max, self._grow)
            if self._json:
                payload = json.to_protobuf(receiver.signal, payload)
            future = receiver.export(payload)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer that it may retry
            self._fail(error)
            return
        if future.done():
            self._stored(future)
        else:
            future.add_done_callback(self._stored)

    def _stored(self, future: asyncio.Future[Accepted]) -> None:
        """The request is durable, or failed: answer."""
        receiver = self._receiver
        assert receiver is not None
        if future.cancelled() or future.exception() is not None:
            self._fail(future.exception() or Unavailable("the request was cancelled"))
            return
        response = receiver.respond(future.result())
        if response is None:
            self._answer(200, b"{}" if self._json else b"")
        elif self._json:
            self._answer(200, MessageToJson(response, indent=None).encode())
        else:
            self._answer(200, response.SerializeToString())

    def _fail(self, error: BaseException) -> None:
        """Answer with an error. What is left of the request is not read, so the connection ends with it."""
        if not self._busy or self._filled < self._length:
            self._keep_alive = False
        self._busy = True
        if isinstance(error, _Refused):
            if error.code == 200:
                self._answer(200, _ABOUT, "text/plain; charset=utf-8")
                return
            found = Answer(3 if error.code != 404 else 12, error.code, str(error), None)
            header = error.header
        else:
            found = answer(error)
            header = ""
            if found.retry_after_s is not None:
                header = f"Retry-After: {max(1, round(found.retry_after_s))}\r\n"
            if found.message == "internal error":
                self._server.logger.error("request failed", path=self._path[:200], transport="http", error=repr(error))
        if self._receiver is not None:
            self._receiver.failed(found.http)
        status = status_of(found)
        body = MessageToJson(status, indent=None).encode() if self._json else status.SerializeToString()
        self._answer(found.http, body, header=header)

    def _answer(self, code: int, body: bytes, media_type: str = "", header: str = "") -> None:
        """Write the response, and go on with the next request or close."""
        self._release()
        transport = self._transport
        if transport is None:
            return
        keep_alive = self._keep_alive and not self._server.stopping
        if code == 200 and not body and keep_alive:
            transport.write(_EMPTY_SUCCESS)
        else:
            connection = "" if keep_alive else "Connection: close\r\n"
            head = (
                f"HTTP/1.1 {code} {_REASONS[code]}\r\n"
                f"Content-Type: {media_type or (JSON if self._json else PROTOBUF)}\r\n"
                f"Content-Length: {len(body)}\r\n{header}{connection}\r\n"
            )
            transport.write(head.encode("latin-1") + body)
        self._busy = False
        if not keep_alive:
            self._closing = True
            transport.close()
            return
        self._reset()
        self._touch(self._server.idle_timeout_s)
        if self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            asyncio.get_running_loop().call_soon(self._resume, data)

    def _resume(self, data: bytes) -> None:
        if self._transport is not None and not self._closing:
            self._transport.resume_reading()
            self._feed(data)

    def _release(self) -> None:
        if self._taken:
            self._server.admission.release(self._taken - 1)
            self._taken = 0

    def _touch(self, seconds: float) -> None:
        self.deadline = self._server.clock.monotonic() + seconds

    def expire(self) -> None:
        """The client has taken too long: say so if it was in the middle of a request, and close."""
        if self._head or self._body is not None:
            self._fail(_Refused(408, "the request did not arrive in time"))
        elif self._transport is not None:
            self._closing = True
            self._transport.close()

    def stop(self) -> None:
        """Close now if no request is at work, or else after its answer."""
        if not self._busy and self._transport is not None and self._body is None and not self._head:
            self._closing = True
            self._transport.close()


_EMPTY_SUCCESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


class HttpReceiver:
    """The HTTP listener for all signals."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        admission: Admission,
        clock: Clock,
        logger: Any,
        *,
        body_bytes_max: int,
        read_header_timeout_s: float,
        idle_timeout_s: float,
    ) -> None:
        self.receivers: Mapping[str, Receiver] = {receiver.signal.http_path: receiver for receiver in receivers}
        self.admission = admission
        self.clock = clock
        self.logger = logger
        self.body_bytes_max = body_bytes_max
        self.read_header_timeout_s = read_header_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.connections: set[HttpProtocol] = set()
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.stopping = False
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port; raise Unavailable when the address cannot be bound."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: HttpProtocol(self), host, port, backlog=1024)
        except OSError as error:
            raise Unavailable(f"cannot listen on {host}:{port} for OTLP/HTTP: {error.strerror or error}") from error
        self._sweep = loop.call_later(1.0, self._expire)
        return int(self._server.sockets[0].getsockname()[1])

    def _expire(self) -> None:
        now = self.clock.monotonic()
        for connection in [one for one in self.connections if one.deadline < now]:
            connection.expire()
        self._sweep = asyncio.get_running_loop().call_later(1.0, self._expire)

    async def stop(self) -> None:
        """Accept nothing more, and close each connection when its request is answered."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self.connections):
            connection.stop()
