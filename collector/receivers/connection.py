"""One OTLP/HTTP connection: asyncio's buffered protocol around `head.py`, `chunked.py` and `encoding.py`.

A connection is in one of these states:

    HEAD     expecting a request, or reading its head            bytes come through the listener's scratch buffer
    BODY     reading a body of known length                      bytes go straight into the body's own buffer
    CHUNKS   reading a chunked body                              scratch
    WORK     a request is with the store, or its password is     what comes is kept, and reading pauses
             being checked
    DISCARD  the request is answered, its body is still coming   scratch, thrown away
    LINGER   the last answer is written                          scratch, thrown away until the client has closed

* Only what arrives together with a head is copied; the rest of a body is read into its own bytes (`body.py`), which
  go down to the store as they are.
* One request of a connection is at work at a time, so pipelined requests are answered in order, and what waits
  is at most one scratch buffer.
* Who sends is asked as soon as the head is there (security/gate.py): strangers' bodies are neither admitted nor read.
* A request may be refused by its head. Its body is then discarded, if it is small, and the connection goes on;
  or the connection ends, but not before the client has had time to read why: closing a socket with unread bytes
  would reset it.
* A request takes its announced size from the budget before its body is read, and gives back all of it when it is
  answered, or when the client has vanished before the store had it.

Cost: 28 µs of CPU for a request of 200 KB, the kernel's part included; no task, and at most two callbacks.
"""

from __future__ import annotations

import asyncio
import functools
import math
from typing import TYPE_CHECKING, Final, cast

from collector.errors import Overloaded, RingtailError, TooLarge, Unavailable
from collector.otlp.json.overlooked import overlooked
from collector.otlp.json.request import to_protobuf
from collector.otlp.status import Answer, too_slow
from collector.otlp.validate import Accepted
from collector.receivers.admission import RETRY_AFTER_S
from collector.receivers.body import Body
from collector.receivers.chunked import ChunkDecoder
from collector.receivers.encoding import inflate
from collector.receivers.head import Head
from collector.receivers.listener import BODY_RATE_MIN, BODY_RATE_PRESSED, PRESSED_PATIENCE_S
from collector.receivers.response import (
    CLOSE,
    CONTINUE,
    JSON,
    PROTOBUF,
    TEXT,
    error_body,
    error_headers,
    preflight_head,
    response_head,
)
from collector.receivers.route import ENDLESS, Route
from collector.security.rights import WRITE
from collector.security.tls import peer_names

if TYPE_CHECKING:
    from collector.receivers.export import Destination, Outcome
    from collector.receivers.http import HttpReceiver
    from collector.security.gate import Checking

BODY_STEP_BYTES: Final = 256 * 1024
"""The first buffer of a body is no larger; a usual request fits."""
LIMIT_KEY: Final = "receivers.otlp.protocols.http.max_request_body_size"
DISCARD_BYTES_MAX: Final = 1024 * 1024
"""A refused request's body up to this size is read and thrown away; beyond, the connection ends."""
LINGER_S: Final = 2.0
"""How long a client may take to read the last answer before the connection is torn down."""
HEADS_A_TURN: Final = 8
"""Requests that a connection may have answered, without the store, before others come to their turn."""

HEAD, BODY, CHUNKS, WORK, DISCARD, LINGER = range(6)
"""What a connection is doing; see the module."""

_NEVER = math.inf


class Connection(asyncio.BufferedProtocol):
    """One connection. Owned by the event loop's thread."""

    __slots__ = (
        "_blocked",
        "_body",
        "_body_begun",
        "_chunks",
        "_destination",
        "_ended",
        "_expects",
        "_head",
        "_keep_alive",
        "_listener",
        "_mark",
        "_now",
        "_overlooked",
        "_paused",
        "_peer",
        "_pending",
        "_route",
        "_share",
        "_taken",
        "_transport",
        "_turn",
        "_unread",
        "_yielding",
        "deadline",
        "state",
    )

    def __init__(self, listener: HttpReceiver) -> None:
        """Belong to a listener, which is asked for its limits, its scratch buffer and its ready-made answers."""
        self._listener = listener
        self._now = listener.clock.monotonic
        self._share = listener.admission.share()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._blocked = False  # the client does not read its answers
        self._turn = 0  # requests that were answered in this turn
        self._yielding = False  # it is the turn of others
        self._ended = False  # the client has said that it sends no more
        self._pending = b""  # what came behind the request at work
        self._head: Head | None = None
        self._route: Route | None = None  # of the request that is here
        self._overlooked = ""  # why there is nothing in it
        self._destination: Destination | None = None
        self._expects = False  # the client may wait for leave to send the body
        self._keep_alive = True
        self._taken = -1  # bytes of the budget; -1: the request has not been admitted
        self._unread = 0  # bytes still to be thrown away, in DISCARD
        self._body: Body | None = None
        self._chunks: ChunkDecoder | None = None
        self._mark = 0  # how much of a body had come when its deadline was last set
        self._body_begun = 0.0
        self._peer: frozenset[str] = frozenset()  # the names in the client's certificate
        self.deadline = _NEVER
        """When `expire` is due, on the monotonic clock."""
        self.state = HEAD

    # --- asyncio's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it when there are too many."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from asyncio's
        self._wait_for(self._listener.idle_timeout_s)
        if self._listener.tls is not None:
            self._peer = peer_names(transport)
        if self._listener.add(self):
            if self._listener.may_explain:
                self._refuse(Unavailable(self._listener.refusal, RETRY_AFTER_S))
            else:
                self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Give back what a request that will not come to its end has taken."""
        self._transport = None
        self.deadline = _NEVER
        if self.state != WORK:
            self._release()
        self._head = self._body = self._chunks = None
        self._pending = b""
        self._listener.remove(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go: into the body's own buffer, or the listener's scratch buffer."""
        return self._listener.scratch if self._body is None else memoryview(self._body)

    def buffer_updated(self, count: int) -> None:
        """Take `count` bytes that arrived."""
        body = self._body
        if body is None:
            scratch = self._listener.scratch
            if count < len(scratch) and not self._yielding:
                self._turn = 0  # nothing waits: the loop looks at others before this one's next bytes
            self._feed(scratch[:count].tobytes())
            return
        body.advance(count)
        if body.complete:
            self._body = None
            self._work(body.take())

    def eof_received(self) -> bool:
        """The client sends nothing more: finish what is at work or waits, and close."""
        self._ended = True
        return self.state == WORK or self._blocked or self._yielding

    def pause_writing(self) -> None:
        """The client does not read its answers: take no further requests from it."""
        self._blocked = True
        self._pause()
        self._wait_for(self._listener.idle_timeout_s)

    def resume_writing(self) -> None:
        """It reads again."""
        self._blocked = False
        self._wait_for(self._listener.idle_timeout_s)
        self._resume()

    # --- reading ------------------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        """Take bytes that came through the scratch buffer: the end of one request and the next, perhaps."""
        at, end = 0, len(data)
        while at < end and self._transport is not None:
            state = self.state
            if state == LINGER:
                return
            if state == WORK or self._blocked or self._yielding:
                self._pending += data[at:]
                self._pause()
                return
            try:
                if state == HEAD:
                    at = self._feed_head(data, at)
                elif state == CHUNKS:
                    at = self._feed_chunks(data, at)
                else:
                    at = self._discard(data, at)
            except RingtailError as error:
                # Where the next request begins is not known any more.
                self._refuse(error)
                return

    def _feed_head(self, data: bytes, at: int) -> int:
        route = None
        if self._head is None:
            self._turn += 1
            if self._turn >= HEADS_A_TURN:
                self._yield()
            route, at = self._listener.routes.find(data, at)
        if route is None:
            route, at = self._read_head(data, at)
            if route is None:
                return at
        self._route = route
        request = route.request
        self._keep_alive = request.keep_alive
        self._expects = request.expects_continue and at == len(data)
        if route.preflight is not None:
            return self._answer_preflight(route, at)
        if route.foreign is not None:
            self._refuse(route.foreign, route.unread)
            return at
        gate = self._listener.gate
        if gate is None:
            return self._go_on(route, data, at)
        try:
            checking = gate.admit(request.authorization, self._peer, WRITE, request.tenant)
        except RingtailError as error:
            self._refuse(error, route.unread)
            return at
        if checking is None:
            return self._go_on(route, data, at)
        self.state = WORK
        self.deadline = _NEVER
        checking.add_done_callback(functools.partial(self._checked, route))
        return at

    def _read_head(self, data: bytes, at: int) -> tuple[Route | None, int]:
        """Read a head that is not known by its bytes, or more of it; return its route when it is complete."""
        begin, head, routes = at, self._head, self._listener.routes
        is_new = head is None
        if head is None:
            head = self._head = Head()
            self._wait_for(self._listener.read_header_timeout_s)
        at = head.feed(data, at)
        if not head.complete:
            return None, at
        route = routes.decide(head.request())
        if is_new:
            routes.keep(data[begin:at], route)
        self._head = None
        return route, at

    def _checked(self, route: Route, checking: Checking) -> None:
        """A password has been checked: go on with its request, or refuse it."""
        gate = self._listener.gate
        if self._transport is None or gate is None:
            return
        self.state = HEAD
        data, self._pending = self._pending, b""
        at = 0
        try:
            gate.require(checking.result(), WRITE, route.request.tenant)
        except RingtailError as error:
            self._refuse(error, route.unread)
        else:
            at = self._go_on(route, data, at)
        self._pending = data[at:]
        self._resume()

    def _go_on(self, route: Route, data: bytes, at: int) -> int:
        """Go on behind the head of a request whose sender may send it."""
        receiver, unread = route.receiver, route.unread
        if route.fault is not None:
            self._refuse(route.fault, unread)
            return at
        if receiver is None:
            self._limit_discarding(unread)
            self._write(200, self._listener.greeting, TEXT)
            self._next(unread)
            return at
        length = route.request.length
        try:
            destination = self._destination = receiver.find(route.request.tenant)
            limit = self._listener.body_bytes_max
            if length > limit:
                raise TooLarge(f"the request announces {length} bytes; the limit is {limit} ({LIMIT_KEY})")
            self._share.admit(length, destination.share)
        except RingtailError as error:
            self._refuse(error, unread)
            return at
        self._taken = length
        if self._expects and self._transport is not None:
            self._transport.write(CONTINUE)
        if unread == ENDLESS:
            return self._begin_chunks(data, at)
        stop = at + length
        if stop > len(data):
            return self._begin_body(data, at, length)
        self._work(data[at:stop])
        return stop

    def _answer_preflight(self, route: Route, at: int) -> int:
        """Answer a browser that asks what it may send."""
        self._limit_discarding(route.unread)
        if self._transport is not None:
            headers = f"{route.preflight}{'' if self._keep_alive else CLOSE}"
            self._transport.write(preflight_head(self._listener.date, headers))
        self._next(route.unread)
        return at

    def _begin_body(self, data: bytes, at: int, length: int) -> int:
        came = len(data) - at
        body = self._body = Body(length, max(came, BODY_STEP_BYTES))
        body.write(memoryview(data)[at:])
        self._mark = came
        self.state = BODY
        self._expect_body()
        return len(data)

    def _begin_chunks(self, data: bytes, at: int) -> int:
        self._chunks = ChunkDecoder()
        self._mark = 0
        self.state = CHUNKS
        self._expect_body()
        return self._feed_chunks(data, at)

    def _feed_chunks(self, data: bytes, at: int) -> int:
        chunks = self._chunks
        assert chunks is not None
        body = chunks.body
        before = len(body)
        at = chunks.feed(data, at)
        limit = self._listener.body_bytes_max
        if len(body) > limit:
            raise TooLarge(f"the request is larger than {limit} bytes ({LIMIT_KEY})")
        self._grow(len(body) - before)
        if chunks.complete:
            self._chunks = None
            self._work(body)
        return at

    def _discard(self, data: bytes, at: int) -> int:
        stop = min(len(data), at + self._unread)
        self._unread -= stop - at
        if not self._unread:
            self._next(0)
        return stop

    # --- at work ------------------------------------------------------------------------------------------

    def _work(self, body: bytes | bytearray) -> None:
        """The body is there: bring it into protobuf's form and give it to the store."""
        self.state = WORK
        self.deadline = _NEVER
        route, destination = self._route, self._destination
        assert route is not None
        assert route.receiver is not None
        assert destination is not None
        try:
            if route.encoding:
                body = inflate(body, route.encoding, self._listener.body_bytes_max, LIMIT_KEY, self._grow)
            if route.is_json:
                text, body = body, to_protobuf(route.receiver.signal, body)
                self._overlooked = "" if body else overlooked(route.receiver.signal, text)
            destination.store.submit(body, self._stored)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self._refuse(error, 0)

    def _stored(self, outcome: Outcome) -> None:
        """The store has answered; answer the client, if it is still there."""
        route, transport, listener = self._route, self._transport, self._listener
        assert route is not None
        assert route.receiver is not None
        self._release()
        self._turn = 0
        if listener.stopping:
            self._keep_alive = False
        if isinstance(outcome, Exception):
            self._fail(route.receiver.refused(outcome), outcome)
        else:
            if route.is_json and self._overlooked:
                outcome, self._overlooked = Accepted(outcome.records, outcome.rejected, self._overlooked), ""
            response = route.receiver.stored(outcome, is_json=route.is_json)
            if response is None and transport is not None and self._keep_alive and not route.cors_headers:
                transport.write(listener.success_json if route.is_json else listener.success)
            else:
                self._write(200, response or (b"{}" if route.is_json else b""), JSON if route.is_json else PROTOBUF)
        if transport is not None:
            self._next(0)
            if self._pending or self._paused or self._ended:
                self._resume()

    # --- answering ----------------------------------------------------------------------------------------

    def _refuse(self, error: Exception, unread: int = ENDLESS) -> None:
        """Answer a request that the store has not taken, of whose body `unread` bytes are still to come."""
        self._release()
        self._head = self._body = self._chunks = None
        self._limit_discarding(unread)
        receiver = self._route.receiver if self._route is not None else None
        self._fail((receiver or self._listener).refused(error), error)
        self._next(unread)

    def _limit_discarding(self, unread: int) -> None:
        """End the connection with this request if its body is large, or may never come."""
        if self._expects or unread > DISCARD_BYTES_MAX or self._listener.stopping:
            self._keep_alive = False

    def _fail(self, found: Answer, error: BaseException) -> None:
        if found.outcome == "failed":
            self._listener.logger.error("request failed", transport="http", error=repr(error))
        self._listener.lose(found, self._transport, about_payload=self._route is not None)
        if found.retry_after_s is not None and self._listener.admission.draining:
            self._keep_alive = False
        is_json = self._route is None or self._route.is_json
        self._write(found.http, error_body(found, is_json=is_json), JSON if is_json else PROTOBUF, error_headers(found))

    def _write(self, code: int, body: bytes, media_type: str, headers: str = "") -> None:
        if self._transport is None:
            return
        route = self._route
        if route is not None:
            headers += route.cors_headers
        if not self._keep_alive:
            headers += CLOSE
        head = response_head(code, media_type, len(body), self._listener.date, headers)
        self._transport.write(head if route is not None and route.is_bodiless else head + body)

    def _next(self, unread: int) -> None:
        """Go on after an answer: to the rest of its request, to the next one, or to the connection's end."""
        self._route = None
        if self._keep_alive:
            self.state = DISCARD if unread else HEAD
            self._unread = unread
            self.deadline = self._now() + self._listener.idle_timeout_s
        else:
            self._linger()

    def _linger(self) -> None:
        """Send the end of the stream, and let the client read up to there before it finds the connection gone."""
        self.state = LINGER
        self._pending = b""
        transport = self._transport
        if transport is None:
            return
        if self._ended or self._listener.stopping:
            transport.close()
            return
        if transport.can_write_eof():
            transport.write_eof()  # TLS has no such thing: there, the answer's length and header tell its end
        self._wait_for(LINGER_S)

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _yield(self) -> None:
        """Let others come to their turn behind a request."""
        if self._listener.soon is not None:
            self._yielding = True
            self._pause()
            self._listener.soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = 0
        self._yielding = False
        self._resume()

    def _resume(self) -> None:
        """Take what has waited, and read on."""
        if self._pending and self.state != WORK and not self._blocked and not self._yielding:
            data, self._pending = self._pending, b""
            self._feed(data)
        if self._transport is None or self.state == WORK or self._blocked or self._yielding:
            return
        if self._ended:
            self._transport.close()
        elif self._paused:
            self._paused = False
            self._transport.resume_reading()

    # --- limits -------------------------------------------------------------------------------------------

    def _grow(self, size: int) -> None:
        assert self._destination is not None
        self._share.grow(size, self._destination.share)
        self._taken += size

    def _release(self) -> None:
        if self._taken >= 0:
            assert self._destination is not None
            self._share.release(self._taken, self._destination.share)
            self._taken = -1

    def _wait_for(self, seconds: float) -> None:
        # The store may take its time; that is not the client's fault.
        if self.state != WORK:
            self.deadline = self._now() + seconds

    def _expect_body(self) -> None:
        self._body_begun = now = self._now()
        self.deadline = now + self._listener.idle_timeout_s

    def _came(self) -> int:
        """How much of a body has come."""
        return len(self._chunks.body) if self._chunks is not None else self._body.filled if self._body else 0

    def hurry(self, now: float) -> None:
        """Requests are being refused: give up a body that holds its part of the budget without filling it."""
        seconds = now - self._body_begun
        if (
            self.state in (BODY, CHUNKS)
            and seconds >= PRESSED_PATIENCE_S
            and self._came() < seconds * BODY_RATE_PRESSED
        ):
            reason = f"less than {BODY_RATE_PRESSED} bytes a second of the body arrived, and others want its room"
            self._refuse(Overloaded(reason, RETRY_AFTER_S))

    def expire(self) -> None:
        """The deadline has passed: give up what the client has kept waiting."""
        transport = self._transport
        if transport is None:
            return
        if self._blocked or self.state in (LINGER, DISCARD):
            transport.abort()
        elif self.state == HEAD and (self._head is None or not self._head.begun):
            transport.close()
        elif self.state == HEAD:
            self._refuse(too_slow("the head of the request did not arrive in time"))
        else:
            came = self._came()
            seconds = self._listener.idle_timeout_s
            if came - self._mark >= BODY_RATE_MIN * seconds:
                self._mark = came
                self._wait_for(seconds)
            else:
                self._refuse(too_slow(f"less than {BODY_RATE_MIN} bytes a second of the body arrived"))

    def stop(self) -> None:
        """The listener stops: close if no request is here, else after its answer."""
        if self._transport is not None and (
            self.state == LINGER or (self.state == HEAD and self._head is None and not self._pending)
        ):
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is here."""
        if self._transport is not None:
            self._transport.abort()
