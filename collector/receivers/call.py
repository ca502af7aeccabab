"""One gRPC call as a stream of HTTP/2 (gRPC over HTTP/2): a message in, a message and trailers out.

All methods here take one message. Its five bytes of prefix announce its size, which the call takes from the budget
before it holds any of it; a message is one bytes object, filled in place, and not copied again.

What the headers decide is in `call_route.py`. A call that cannot be served is answered at once, in its trailers, and what the client still sends of it is read
over. Errors carry a `google.rpc.Status` in `grpc-status-details-bin`; retryable ones also the bare RetryInfo in
`google.rpc.retryinfo-bin`, which is where the Python SDK looks. No defect reaches a client as UNKNOWN, which it
would not retry.

Who sends is asked when the headers are there (security/gate.py). While a password is being checked the connection is
not read, and what had come of the call is held.
"""

from __future__ import annotations

import math
from base64 import b64encode
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from collector.errors import Malformed, Overloaded, RingtailError, TooLarge, Unauthenticated
from collector.otlp.status import Answer, too_slow, trailing_metadata
from collector.receivers.admission import RETRY_AFTER_S
from collector.receivers.body import Body
from collector.receivers.encoding import GRPC_ENCODINGS, inflate
from collector.receivers.http2.frames import literal
from collector.receivers.http2.stream import Stream
from collector.receivers.http2.writer import Response
from collector.receivers.listener import BODY_RATE_MIN, BODY_RATE_PRESSED, PRESSED_PATIENCE_S
from collector.security.rights import WRITE

if TYPE_CHECKING:
    from collector.receivers.admission import Share
    from collector.receivers.call_route import CallRoute
    from collector.receivers.export import Destination, Outcome
    from collector.receivers.grpc import GrpcReceiver
    from collector.receivers.http2.connection import Connection
    from collector.receivers.http2.stream import Data
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
OK_BLOCK: Final = literal(b"grpc-status", b"0")
"""The trailers of a call that went well."""
EMPTY_RESPONSE: Final = Response(HEAD_BLOCK, bytes(PREFIX_BYTES), OK_BLOCK)
"""The answer to nearly every export."""

_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


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

    __slots__ = ("_admitted_at", "_compressed", "_connection", "_gone", "_held", "_listener", "_mark", "_marked_at",
                 "_message", "_prefix", "_route", "_served", "_share", "_taken", "destination")  # fmt: skip

    def __init__(
        self,
        listener: GrpcReceiver,
        connection: Connection,
        number: int,
        send_window: int,
        receive_window: int,
        announced: int,
        route: CallRoute,
    ) -> None:
        Stream.__init__(self, number, send_window, receive_window, announced)
        self._listener = listener
        self._connection = connection
        self._route = route
        self.destination: Destination | None = None
        """Where its records go, if its method takes any."""
        self._share: Share | None = None  # the tenant's, of the budget
        self._prefix = b""  # what came of it, while it is not whole
        self._compressed = False
        self._message: bytes | None = None  # when it came in one piece; else it goes to `body`
        self._taken = -1  # bytes of the budget; -1: nothing was admitted
        self._admitted_at = math.inf
        self._served = False  # the message is with the method
        self._gone = False
        self._held: bytes | None = None  # what came while the client's password is being checked
        self._mark = 0  # bytes that had come when its slowness was last looked at
        self._marked_at = math.inf

    # --- the request comes --------------------------------------------------------------------------------

    def opened(self) -> None:
        """Go on by what the headers say, if their client may."""
        route, gate = self._route, self._listener.gate
        if route.refusal and route.fault is not None:
            found = (route.receiver or self._listener).refused(route.fault)
            self._listener.lose(found, self._connection.transport)
            self._connection.refuse(self, route.refusal)
        elif gate is None:
            self._enter()
        else:
            self._pass(gate)

    def _pass(self, gate: Gate) -> None:
        """Ask who sends this, and go on if they may."""
        route = self._route
        right = WRITE if route.method is None else route.method.right
        try:
            checking = gate.admit(route.authorization, self._connection.peer, right, route.tenant) if right else None
        except RingtailError as error:
            self.refuse(error)
            return
        if checking is None:
            self._enter()
            return

        def checked(done: Checking) -> None:
            self._connection.release()
            held, self._held = self._held or b"", None
            if self._gone:
                return
            try:
                gate.require(done.result(), right, route.tenant)
            except RingtailError as error:
                self.refuse(error)
                return
            self._enter()
            if held and not self._gone:
                self.received(held)
            if self.remote_ended and not self._gone:
                self.ended()

        self._held = b""
        self._connection.hold()
        checking.add_done_callback(checked)

    def _enter(self) -> None:
        """Expect the message of a client that may send it."""
        route = self._route
        try:
            if route.fault is not None:
                self.refuse(route.fault)
                return
            if route.receiver is not None:
                destination = self.destination = route.receiver.find(route.tenant)
                self._share = destination.share
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self.refuse(error)
            return
        self._marked_at = now = self._listener.clock.monotonic()
        self._connection.watch(now + self._listener.idle_timeout_s)

    def received(self, data: Data) -> None:
        """Take a piece of the message, or of its prefix."""
        if self._held is not None:
            self._held += data
            return
        body = self.body
        try:
            if body is None and self._message is None:
                if self._prefix:
                    data = self._prefix + data
                if len(data) < PREFIX_BYTES:
                    self._prefix = bytes(data)
                    return
                length = self._admit(data)
                data = data[PREFIX_BYTES:]
                if len(data) == length:
                    self._message = bytes(data)
                    return
                body = self.body = Body(length, BODY_STEP_BYTES)
            if body is None or len(data) > body.length - body.filled:
                raise Malformed("more than one message; this method takes one")
            body.write(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self.refuse(error)

    def _admit(self, data: Data) -> int:
        """Read the prefix, and take the message's length from the budget; return that."""
        self._prefix = b""
        flag = data[0]
        length = int.from_bytes(data[1:PREFIX_BYTES], "big")
        limit = self._listener.message_bytes_max
        if flag > 1:
            raise Malformed(f"a message begins with {flag}; 0 and 1 are known")
        if length > limit:
            raise TooLarge(f"the message has {length} bytes; the limit is {limit} ({self._listener.limit_key})")
        self._compressed = flag == 1
        if self._compressed and not self._route.encoding:
            raise Malformed("the message says that it is compressed, the call does not say how")
        self._connection.share.admit(length, self._share)
        self._taken = length
        self._admitted_at = self._listener.clock.monotonic()
        return length

    def ended(self) -> None:
        """The message is there: give it to the method."""
        if self._held is not None:
            return
        route, body, message = self._route, self.body, self._message
        assert route.method is not None
        try:
            if message is None:
                if body is None or not body.complete:
                    begun = self._prefix or body
                    raise Malformed("the call ends inside its message" if begun else "the call has no message")
                message = body.take()
            self.body = self._message = None
            if self._compressed:
                limit, key = self._listener.message_bytes_max, self._listener.limit_key
                message = bytes(inflate(message, route.encoding, limit, key, self._grow))
            self._served = True
            route.method.serve(self, message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self.refuse(error)

    def gone(self) -> None:
        """Nobody waits for the answer any more. What the store holds counts until it lets go."""
        self._gone = True
        self.body = self._message = None
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

    def stored(self, outcome: Outcome) -> None:
        """Answer with what became of the request in the store."""
        receiver = self._route.receiver
        assert receiver is not None
        if isinstance(outcome, Exception):
            self.fail(receiver.refused(outcome), outcome)
        else:
            self.succeed(receiver.stored(outcome))

    def succeed(self, response: bytes | None) -> None:
        """Answer with a message; None is an empty one."""
        self.release()
        if self._gone:
            return
        self._gone = True
        if response is None:
            self._connection.answer(self, EMPTY_RESPONSE)
        else:
            self._connection.begin(self, HEAD_BLOCK)
            self._connection.send(self, message(response), OK_BLOCK)

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
        self.fail((self._route.receiver or self._listener).refused(error), error)

    def fail(self, found: Answer, error: BaseException) -> None:
        """Answer with an error."""
        self.release()
        self.body = self._message = None
        if found.outcome == "failed":
            self._listener.logger.error("request failed", transport="grpc", error=repr(error))
        self._listener.lose(found, self._connection.transport)
        if not self._gone:
            self._gone = True
            block = HEAD_BLOCK + error_block(found)
            if isinstance(error, Unauthenticated):
                block += b"".join(literal(b"www-authenticate", one.encode()) for one in error.challenges)
            self._connection.refuse(self, block)

    def release(self) -> None:
        """Give the budget back."""
        if self._taken >= 0:
            self._connection.share.release(self._taken, self._share)
            self._taken = -1

    def _grow(self, size: int) -> None:
        self._connection.share.grow(size, self._share)
        self._taken += size

    def stop(self) -> None:
        """The listener stops."""
        self._listener.health.stop(self)
