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
from enum import IntEnum
from typing import TYPE_CHECKING, Final, cast

from collector.errors import Overloaded, RingtailError, TooLarge, Unavailable, Unsupported
from collector.otlp.json.request import to_protobuf
from collector.otlp.status import Answer, answer, too_slow, unknown_path, wrong_method
from collector.receivers.admission import RETRY_AFTER_S
from collector.receivers.body import Body
from collector.receivers.chunked import ChunkDecoder
from collector.receivers.encoding import check_encoding, inflate
from collector.receivers.head import Head, Request
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
from collector.security.rights import WRITE
from collector.security.tls import peer_names

if TYPE_CHECKING:
    from collector.receivers.export import Destination, Outcome, Receiver
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

_NEVER = math.inf
_UNKNOWN = 2**63
"""The length of a body that tells its end itself."""


class State(IntEnum):
    """What a connection is doing; see the module."""

    HEAD = 0
    BODY = 1
    CHUNKS = 2
    WORK = 3
    DISCARD = 4
    LINGER = 5


class Connection(asyncio.BufferedProtocol):
    """One connection. Owned by the event loop's thread."""

    __slots__ = (
        "_blocked",
        "_body",
        "_body_begun",
        "_chunks",
        "_cors_headers",
        "_destination",
        "_encoding",
        "_ended",
        "_expects",
        "_head",
        "_is_bodiless",
        "_is_json",
        "_keep_alive",
        "_length",
        "_listener",
        "_mark",
        "_paused",
        "_peer",
        "_pending",
        "_receiver",
        "_share",
        "_taken",
        "_transport",
        "_turn",
        "_yielding",
        "deadline",
        "state",
    )

    def __init__(self, listener: HttpReceiver) -> None:
        """Belong to a listener, which is asked for its limits, its scratch buffer and its ready-made answers."""
        self._listener = listener
        self._share = listener.admission.share()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._blocked = False  # the client does not read its answers
        self._turn = 0  # requests that were answered in this turn
        self._yielding = False  # it is the turn of others
        self._ended = False  # the client has said that it sends no more
        self._pending = b""  # what came behind the request at work
        self._head: Head | None = None
        self._body: Body | None = None
        self._chunks: ChunkDecoder | None = None
        self._mark = 0  # how much of a body had come when its deadline was last set
        self._body_begun = 0.0
        self._peer: frozenset[str] = frozenset()  # the names in the client's certificate
        self.deadline = _NEVER
        """When `expire` is due, on the monotonic clock."""
        self._reset()

    def _reset(self) -> None:
        """Expect a new request."""
        self.state = State.HEAD
        self._length = 0  # bytes still to be thrown away, in DISCARD
        self._receiver: Receiver | None = None
        self._destination: Destination | None = None
        self._is_json = True
        self._is_bodiless = False  # the answer has headers only
        self._encoding = ""
        self._cors_headers = ""
        self._expects = False  # the client may wait for leave to send the body
        self._keep_alive = True
        self._taken = -1  # bytes of the budget; -1: the request has not been admitted

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
        if self.state is not State.WORK:
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
            self._feed(bytes(scratch[:count]))
            return
        body.advance(count)
        if body.complete:
            self._body = None
            self._work(body.take())

    def eof_received(self) -> bool:
        """The client sends nothing more: finish what is at work or waits, and close."""
        self._ended = True
        return self.state is State.WORK or self._blocked or self._yielding

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
            if state is State.LINGER:
                return
            if state is State.WORK or self._blocked or self._yielding:
                self._pending += data[at:]
                self._pause()
                return
            try:
                if state is State.HEAD:
                    at = self._feed_head(data, at)
                elif state is State.CHUNKS:
                    at = self._feed_chunks(data, at)
                else:
                    at = self._discard(data, at)
            except RingtailError as error:
                # Where the next request begins is not known any more.
                self._refuse(error)
                return

    def _feed_head(self, data: bytes, at: int) -> int:
        head = self._head
        request = None
        begin = at
        if head is None:
            request, at = self._listener.heads.find(data, at)
        if head is None:
            self._count_turn()
        if request is None:
            if head is None:
                head = self._head = Head()
                self._wait_for(self._listener.read_header_timeout_s)
                at = head.feed(data, at)
                if head.complete:
                    request = head.request()
                    self._listener.heads.keep(data[begin:at], request)
            else:
                at = head.feed(data, at)
                if head.complete:
                    request = head.request()
            if request is None:
                return at
        self._head = None
        self._keep_alive = request.keep_alive
        self._expects = request.expects_continue and at == len(data)
        if self._listener.cors:
            if request.preflight is not None and request.path in self._listener.routes:
                return self._answer_preflight(request, at)
            self._cors_headers = self._listener.cors.headers(request.origin)
        try:
            checking = self._enter(request)
        except RingtailError as error:
            self._refuse(error, _UNKNOWN if request.chunked else request.length)
            return at
        if checking is None:
            return self._go_on(request, data, at)
        self.state = State.WORK
        self.deadline = _NEVER
        checking.add_done_callback(functools.partial(self._checked, request))
        return at

    def _enter(self, request: Request) -> Checking | None:
        """Find a request's receiver and form, and ask who sends it; raise when it must not go on.

        Returns what must be waited for before it may.
        """
        self._is_json = request.media_type != PROTOBUF
        self._encoding = request.encoding
        self._is_bodiless = request.method == b"HEAD"
        listener = self._listener
        self._receiver = listener.routes.get(request.path)
        if listener.hosts is not None:
            listener.hosts.require(request.host)
        if listener.gate is None:
            return None
        return listener.gate.admit(request.authorization, self._peer, WRITE, request.tenant)

    def _checked(self, request: Request, checking: Checking) -> None:
        """A password has been checked: go on with its request, or refuse it."""
        gate = self._listener.gate
        if self._transport is None or gate is None:
            return
        self.state = State.HEAD
        data, self._pending = self._pending, b""
        at = 0
        try:
            gate.require(checking.result(), WRITE, request.tenant)
        except RingtailError as error:
            self._refuse(error, _UNKNOWN if request.chunked else request.length)
        else:
            at = self._go_on(request, data, at)
        self._pending = data[at:]
        self._resume()

    def _go_on(self, request: Request, data: bytes, at: int) -> int:
        """Go on behind the head of a request whose sender may send it."""
        chunked, length = request.chunked, request.length
        try:
            receiver = self._choose(request)
            if receiver is not None:
                self._admit(length)
        except RingtailError as error:
            self._refuse(error, _UNKNOWN if chunked else length)
            return at
        if receiver is None:
            self._limit_discarding(_UNKNOWN if chunked else length)
            self._write(200, self._listener.greeting, TEXT)
            self._next(length)
            return at
        return self._begin_chunks(data, at) if chunked else self._begin_body(data, at, length)

    def _answer_preflight(self, request: Request, at: int) -> int:
        """Answer a browser that asks what it may send."""
        assert request.preflight is not None
        unread = _UNKNOWN if request.chunked else request.length
        self._limit_discarding(unread)
        headers = self._listener.cors.preflight(request.origin, request.preflight)
        if self._transport is not None:
            headers += "" if self._keep_alive else CLOSE
            self._transport.write(preflight_head(self._listener.date, headers))
        self._next(unread)
        return at

    def _choose(self, request: Request) -> Receiver | None:
        """Return the request's receiver, None for the greeting; raise what is wrong with its head."""
        media_type, method, path = request.media_type, request.method, request.path
        receiver = self._receiver
        if receiver is None:
            if path == b"/" and method in (b"GET", b"HEAD"):
                return None
            paths = b", ".join(self._listener.routes).decode()
            raise unknown_path(f"nothing is received at {path[:200].decode('latin-1')!r}; the paths are {paths}")
        if method != b"POST":
            raise wrong_method(f"{method.decode()} is not allowed here; POST an export request", "POST")
        if media_type not in (PROTOBUF, JSON):
            raise Unsupported(f"Content-Type {media_type[:100]!r} is not supported; use {PROTOBUF} or {JSON}")
        check_encoding(self._encoding, self._listener.compressions)
        self._destination = receiver.find(request.tenant)
        return receiver

    def _admit(self, length: int) -> None:
        limit = self._listener.body_bytes_max
        if length > limit:
            raise TooLarge(f"the request announces {length} bytes; the limit is {limit} ({LIMIT_KEY})")
        assert self._destination is not None
        self._share.admit(length, self._destination.share)
        self._taken = length
        if self._expects and self._transport is not None:
            self._transport.write(CONTINUE)

    def _begin_body(self, data: bytes, at: int, length: int) -> int:
        stop = min(len(data), at + length)
        came = stop - at
        if came == length:
            self._work(data[at:stop])
            return stop
        body = self._body = Body(length, max(came, BODY_STEP_BYTES))
        body.write(memoryview(data)[at:stop])
        self._mark = came
        self.state = State.BODY
        self._expect_body()
        return stop

    def _begin_chunks(self, data: bytes, at: int) -> int:
        self._chunks = ChunkDecoder()
        self._mark = 0
        self.state = State.CHUNKS
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
        stop = min(len(data), at + self._length)
        self._length -= stop - at
        if not self._length:
            self._reset()
            self._wait_for(self._listener.idle_timeout_s)
        return stop

    # --- at work ------------------------------------------------------------------------------------------

    def _work(self, body: bytes | bytearray) -> None:
        """The body is there: bring it into protobuf's form and give it to the store."""
        self.state = State.WORK
        self.deadline = _NEVER
        receiver, destination = self._receiver, self._destination
        assert receiver is not None
        assert destination is not None
        try:
            payload = inflate(body, self._encoding, self._listener.body_bytes_max, LIMIT_KEY, self._grow)
            if self._is_json:
                payload = to_protobuf(receiver.signal, payload)
            receiver.export(destination, payload, self._stored)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self._refuse(error, 0)

    def _stored(self, outcome: Outcome) -> None:
        """The store has answered; answer the client, if it is still there."""
        self._release()
        self._turn = 0
        if self._transport is None:
            return
        receiver = self._receiver
        assert receiver is not None
        if self._listener.stopping:
            self._keep_alive = False
        if isinstance(outcome, Exception):
            self._fail(answer(outcome), outcome)
        elif self._is_json:
            self._succeed(receiver.response_json(outcome))
        else:
            self._succeed(receiver.response(outcome))
        self._next(0)
        self._resume()

    # --- answering ----------------------------------------------------------------------------------------

    def _refuse(self, error: Exception, unread: int = _UNKNOWN) -> None:
        """Answer a request that the store has not taken, of whose body `unread` bytes are still to come."""
        self._release()
        self._head = self._body = self._chunks = None
        self._limit_discarding(unread)
        self._fail((self._receiver or self._listener).refused(error), error)
        self._next(unread)

    def _limit_discarding(self, unread: int) -> None:
        """End the connection with this request if its body is large, or may never come."""
        if self._expects or unread > DISCARD_BYTES_MAX or self._listener.stopping:
            self._keep_alive = False

    def _fail(self, found: Answer, error: BaseException) -> None:
        if found.outcome == "failed":
            self._listener.logger.error("request failed", transport="http", error=repr(error))
        if found.retry_after_s is not None and self._listener.admission.draining:
            self._keep_alive = False
        body = error_body(found, is_json=self._is_json)
        self._write(found.http, body, JSON if self._is_json else PROTOBUF, error_headers(found))

    def _succeed(self, response: bytes) -> None:
        if self._keep_alive and self._transport is not None and response in (b"", b"{}") and not self._cors_headers:
            self._transport.write(self._listener.success_json if self._is_json else self._listener.success)
        else:
            self._write(200, response, JSON if self._is_json else PROTOBUF)

    def _write(self, code: int, body: bytes, media_type: str, headers: str = "") -> None:
        if self._transport is None:
            return
        headers += self._cors_headers
        if not self._keep_alive:
            headers += CLOSE
        head = response_head(code, media_type, len(body), self._listener.date, headers)
        self._transport.write(head if self._is_bodiless else head + body)

    def _next(self, unread: int) -> None:
        """Go on after an answer: to the rest of its request, to the next one, or to the connection's end."""
        if not self._keep_alive:
            self._linger()
        elif unread:
            self.state = State.DISCARD
            self._length = unread
            self._wait_for(self._listener.idle_timeout_s)
        else:
            self._reset()
            self._wait_for(self._listener.idle_timeout_s)

    def _linger(self) -> None:
        """Send the end of the stream, and let the client read up to there before it finds the connection gone."""
        self.state = State.LINGER
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

    def _count_turn(self) -> None:
        """Count a request, and let others come to their turn behind it when there were many."""
        self._turn += 1
        if self._turn >= HEADS_A_TURN and self._listener.soon is not None:
            self._yielding = True
            self._pause()
            self._listener.soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = 0
        self._yielding = False
        self._resume()

    def _resume(self) -> None:
        """Take what has waited, and read on."""
        if self._pending and self.state is not State.WORK and not self._blocked and not self._yielding:
            data, self._pending = self._pending, b""
            self._feed(data)
        if self._transport is None or self.state is State.WORK or self._blocked or self._yielding:
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
        if self.state is not State.WORK:
            self.deadline = self._listener.clock.monotonic() + seconds

    def _expect_body(self) -> None:
        self._body_begun = now = self._listener.clock.monotonic()
        self.deadline = now + self._listener.idle_timeout_s

    def _came(self) -> int:
        """How much of a body has come."""
        return len(self._chunks.body) if self._chunks is not None else self._body.filled if self._body else 0

    def hurry(self, now: float) -> None:
        """Requests are being refused: give up a body that holds its part of the budget without filling it."""
        seconds = now - self._body_begun
        if (
            self.state in (State.BODY, State.CHUNKS)
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
        if self._blocked or self.state in (State.LINGER, State.DISCARD):
            transport.abort()
        elif self.state is State.HEAD and (self._head is None or not self._head.begun):
            transport.close()
        elif self.state is State.HEAD:
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
            self.state is State.LINGER or (self.state is State.HEAD and self._head is None and not self._pending)
        ):
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is here."""
        if self._transport is not None:
            self._transport.abort()
