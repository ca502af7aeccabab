"""One gRPC call as a stream of HTTP/2 (gRPC over HTTP/2): a message in, a message and trailers out.

All methods here take one message. Its five bytes of prefix announce its size, which the call takes from the budget
before it holds any of it; a message is one bytes object, filled in place, and not copied again.

A call that cannot be served is answered at once, in its trailers, and what the client still sends of it is read
over. Errors carry a `google.rpc.Status` in `grpc-status-details-bin`; retryable ones also the bare RetryInfo in
`google.rpc.retryinfo-bin`, which is where the Python SDK looks. No defect reaches a client as UNKNOWN, which it
would not retry.

Who sends is asked when the headers are there (security/gate.py). While a password is being checked the connection is
not read, and what had come of the call is held.
"""

from __future__ import annotations

import math
from base64 import b64encode
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from collector.errors import Malformed, Overloaded, RingtailError, TooLarge, Unauthenticated, Unsupported
from collector.otlp.status import Answer, answer, too_slow, trailing_metadata
from collector.receivers.admission import RETRY_AFTER_S
from collector.receivers.body import Body
from collector.receivers.encoding import GRPC_ENCODINGS, inflate
from collector.receivers.http2.frames import literal
from collector.receivers.http2.stream import Stream
from collector.receivers.listener import BODY_RATE_MIN, BODY_RATE_PRESSED, PRESSED_PATIENCE_S
from collector.security.rights import WRITE

if TYPE_CHECKING:
    from collector.receivers.admission import Share
    from collector.receivers.export import Destination, Receiver
    from collector.receivers.grpc import GrpcReceiver
    from collector.receivers.http2.connection import Connection
    from collector.receivers.http2.stream import Fields
    from collector.security.gate import Checking, Gate

PREFIX_BYTES: Final = 5
BODY_STEP_BYTES: Final = 256 * 1024
"""The first buffer of a message is no larger; a usual one fits."""
ENCODINGS_ACCEPTED: Final = ",".join(GRPC_ENCODINGS).encode()
LIMIT_KEY: Final = "receivers.otlp.protocols.grpc.max_recv_msg_size_mib"

HEAD_BLOCK: Final = (
    b"\x88" + literal(b"content-type", b"application/grpc") + literal(b"grpc-accept-encoding", ENCODINGS_ACCEPTED)
)
"""The header block that begins a response; 0x88 is `:status: 200`."""
EMPTY_MESSAGE: Final = bytes(PREFIX_BYTES)
OK_BLOCK: Final = literal(b"grpc-status", b"0")
"""The trailers of a call that went well."""

_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Method(Protocol):
    """What a path leads to."""

    receiver: Receiver | None
    """Whose metrics count what is refused."""
    right: int
    """What a client must have the right to, where that is asked; NOBODY if anybody may."""

    def serve(self, call: Call, message: bytes) -> None:
        """Answer a call with this message, now or later: `succeed` or `fail`. What it raises is an answer, too."""
        ...


def message(payload: bytes) -> bytes:
    """Return a message with its prefix."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def error_block(found: Answer) -> bytes:
    """Return the trailers of a call that failed."""
    block = literal(b"grpc-status", str(found.grpc).encode())
    block += literal(b"grpc-message", quote(found.message, safe=_PRINTABLE).encode())
    for name, value in trailing_metadata(found):
        block += literal(name.encode(), b64encode(value).rstrip(b"="))
    return block


class Call(Stream):
    """A call, from its first header to its answer."""

    __slots__ = ("_admitted_at", "_compressed", "_connection", "_encoding", "_gone", "_held", "_listener", "_mark",
                 "_marked_at", "_method", "_prefix", "_served", "_taken", "_tenant",
                 "destination")  # fmt: skip

    def __init__(self, listener: GrpcReceiver, connection: Connection, number: int, send_window: int) -> None:
        super().__init__(number, send_window, 0)
        self._listener = listener
        self._connection = connection
        self._method: Method | None = None
        self.destination: Destination | None = None
        """Where its records go, if its method takes any."""
        self._encoding = ""
        self._compressed = False
        self._prefix = b""  # what came of it, while it is not whole
        self._tenant: Share | None = None  # the tenant's share of the budget
        self._taken = -1  # bytes of the budget; -1: nothing was admitted
        self._admitted_at = math.inf
        self._served = False  # the message is with the method
        self._gone = False
        self._held: bytes | None = None  # what came while the client's password is being checked
        self._mark = 0  # bytes that had come when its slowness was last looked at
        self._marked_at = math.inf

    # --- the request comes --------------------------------------------------------------------------------

    def opened(self, fields: Fields) -> None:
        """Find the method."""
        method = path = content_type = encoding = authorization = tenant = b""
        for name, value in fields:
            if name == b":path":
                path = value
            elif name == b":method":
                method = value
            elif name == b"content-type":
                content_type = value
            elif name == b"grpc-encoding":
                encoding = value
            elif name == b"authorization":
                authorization = value if not authorization else authorization + b", " + value
            elif name == b"x-scope-orgid":
                tenant = value
        if method != b"POST":
            self._connection.refuse(self, _http_block(405, literal(b"allow", b"POST")))
        elif content_type[:16] != b"application/grpc" or content_type[16:] not in (b"", b"+proto"):
            self._connection.refuse(self, _http_block(415, b""))
        else:
            self._method = self._listener.methods.get(path)
            gate = self._listener.gate
            if gate is None:
                self._enter(path, encoding, tenant)
            else:
                self._pass(gate, authorization, path, encoding, tenant)

    def _pass(self, gate: Gate, authorization: bytes, path: bytes, encoding: bytes, tenant: bytes) -> None:
        """Ask who sends this, and go on if they may."""
        right = WRITE if self._method is None else self._method.right
        named = tenant.decode("latin-1")
        try:
            checking = gate.admit(authorization, self._connection.peer, right, named) if right else None
        except RingtailError as error:
            self.refuse(error)
            return
        if checking is None:
            self._enter(path, encoding, tenant)
            return

        def checked(done: Checking) -> None:
            self._connection.release()
            held, self._held = self._held or b"", None
            if self._gone:
                return
            try:
                gate.require(done.result(), right, named)
            except RingtailError as error:
                self.refuse(error)
                return
            self._enter(path, encoding, tenant)
            if held and not self._gone:
                self.received(memoryview(held))
            if self.remote_ended and not self._gone:
                self.ended()

        self._held = b""
        self._connection.hold()
        checking.add_done_callback(checked)

    def _enter(self, path: bytes, encoding: bytes, tenant: bytes) -> None:
        """Expect the message of a client that may send it."""
        if self._method is None:
            self.refuse(Unsupported(f"there is no method {path[:200].decode('latin-1')!r} here"))
        elif encoding and encoding.decode("latin-1") not in GRPC_ENCODINGS:
            self.refuse(Unsupported(f"grpc-encoding {encoding[:100].decode('latin-1')!r} is not supported"))
        elif self._find(tenant):
            self._encoding = encoding.decode("latin-1")
            self._marked_at = self._listener.clock.monotonic()
            self._connection.watch(self._marked_at + self._listener.idle_timeout_s)

    def _find(self, tenant: bytes) -> bool:
        """Find where a tenant's records go, or refuse the call."""
        receiver = self._method.receiver if self._method is not None else None
        try:
            if receiver is not None:
                self.destination = receiver.find(tenant.decode("latin-1"))
                self._tenant = self.destination.share
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self.refuse(error)
            return False
        return True

    def received(self, data: memoryview) -> None:
        """Take a piece of the message, or of its prefix."""
        body = self.body
        if self._held is not None:
            self._held += data
            return
        try:
            if body is None:
                if self._prefix:
                    data = memoryview(self._prefix + data)
                if len(data) < PREFIX_BYTES:
                    self._prefix = bytes(data)
                    return
                body = self.body = self._begin_message(data)
                data = data[PREFIX_BYTES:]
            if len(data) > body.length - body.filled:
                raise Malformed("more than one message; this method takes one")
            body.write(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self.refuse(error)

    def _begin_message(self, data: memoryview) -> Body:
        self._prefix = b""
        flag = data[0]
        length = int.from_bytes(data[1:PREFIX_BYTES], "big")
        limit = self._listener.message_bytes_max
        if flag > 1:
            raise Malformed(f"a message begins with {flag}; 0 and 1 are known")
        if length > limit:
            raise TooLarge(f"the message has {length} bytes; the limit is {limit} ({self._listener.limit_key})")
        self._compressed = flag == 1
        if self._compressed and self._encoding in ("", "identity"):
            raise Malformed("the message says that it is compressed, the call does not say how")
        self._connection.share.admit(length, self._tenant)
        self._taken = length
        self._admitted_at = self._listener.clock.monotonic()
        return Body(length, BODY_STEP_BYTES)

    def ended(self) -> None:
        """The message is there: give it to the method."""
        body, method = self.body, self._method
        if self._held is not None:
            return
        assert method is not None
        try:
            if body is None or not body.complete:
                raise Malformed(
                    "the call ends inside its message" if self._prefix or body else "the call has no message"
                )
            payload = body.take()
            self.body = None
            if self._compressed:
                payload = bytes(
                    inflate(
                        payload, self._encoding, self._listener.message_bytes_max, self._listener.limit_key, self._grow
                    )
                )
            self._served = True
            method.serve(self, payload)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self.refuse(error)

    def gone(self) -> None:
        """Nobody waits for the answer any more. What the store holds counts until it lets go."""
        self._gone = True
        self.body = None
        self._listener.health.forget(self)
        if not self._served:
            self.release()

    def too_slow(self, now: float) -> float:
        """Give up a message of which less than `BODY_RATE_MIN` bytes a second came."""
        timeout = self._listener.idle_timeout_s
        if self.remote_ended:
            return math.inf
        if now < self._marked_at + timeout:
            return self._marked_at + timeout
        if self.came - self._mark < BODY_RATE_MIN * timeout:
            self.refuse(too_slow(f"less than {BODY_RATE_MIN} bytes a second of the message arrived"))
            return math.inf
        self._mark, self._marked_at = self.came, now
        return now + timeout

    def hurry(self, now: float) -> None:
        """Requests are being refused: give up a message that holds its part of the budget without filling it."""
        seconds = now - self._admitted_at
        if not self.remote_ended and seconds >= PRESSED_PATIENCE_S and self.came < seconds * BODY_RATE_PRESSED:
            reason = f"less than {BODY_RATE_PRESSED} bytes a second of the message arrived, and others want its room"
            self.refuse(Overloaded(reason, RETRY_AFTER_S))

    # --- the answer goes ----------------------------------------------------------------------------------

    def succeed(self, response: bytes) -> None:
        """Answer with a message."""
        self.release()
        if not self._gone:
            self._gone = True
            self._connection.answer(self, HEAD_BLOCK, message(response) if response else EMPTY_MESSAGE, OK_BLOCK)

    def begin(self, response: bytes) -> None:
        """Answer with a message of several; `go_on` and `fail` follow. The request's budget is given back."""
        self.release()
        if not self._gone:
            self._connection.begin(self, HEAD_BLOCK)
            self._connection.send(self, message(response))

    def end(self, response: bytes, found: Answer) -> None:
        """End an answer of several messages with a last one, and a status."""
        if not self._gone:
            self._gone = True
            self._connection.send(self, message(response), error_block(found))

    def refuse(self, error: Exception) -> None:
        """Answer a call that its method has not taken."""
        receiver = self._method.receiver if self._method is not None else None
        self.fail(answer(error) if receiver is None else receiver.refused(error), error)

    def fail(self, found: Answer, error: BaseException) -> None:
        """Answer with an error."""
        self.release()
        self.body = None
        if found.outcome == "failed":
            self._listener.logger.error("request failed", transport="grpc", error=repr(error))
        if not self._gone:
            self._gone = True
            block = HEAD_BLOCK + error_block(found)
            if isinstance(error, Unauthenticated):
                block += b"".join(literal(b"www-authenticate", one.encode()) for one in error.challenges)
            self._connection.refuse(self, block)

    def release(self) -> None:
        """Give the budget back."""
        if self._taken >= 0:
            self._connection.share.release(self._taken, self._tenant)
            self._taken = -1

    def _grow(self, size: int) -> None:
        self._connection.share.grow(size, self._tenant)
        self._taken += size

    def stop(self) -> None:
        """The listener stops."""
        self._listener.health.stop(self)


def _http_block(code: int, fields: bytes) -> bytes:
    """Return the header block of an answer to what is no gRPC: HTTP's status, by the name's index, 8."""
    return b"\x08\x03" + str(code).encode() + fields
