"""`GET /api/tail`: a live tail as server-sent events (the HTML standard's text/event-stream). `query/tail.py` has the
meaning; this is the transport.

    event: start        where it begins: {"signal", "offset", "pastOffset"}
    (no event's name)   matches: OTLP/JSON, a TracesData or LogsData with resources and scopes
    event: missed       records passed over: {"reason", "firstOffset", "nextOffset", "records", "matches"}
    event: end          why the daemon ends it: {"error"}; clients come again, as `retry` says. It stops, reading failed, or
                        the client may not read any more (standing.py)

`id` is the offset of the last record that was looked at, also in the block without data that is sent when there is
nothing to tell: what a client that lost its connection sends as `Last-Event-ID` is where it goes on.

Bytes go to the connection in pieces, each when the one before has left (uvicorn waits for its transport), so a tail has
what it tells at one time and the transport's 64 KiB in memory. A piece that does not leave within `STUCK_S` ends the
connection, at once: a close that waited for the rest to be read would wait for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from collector.api.access import AGAIN, PEER
from collector.api.standing import CHECK_S, Standing
from collector.api.status import http_code
from collector.errors import Forbidden, InvalidQuery, Overloaded, RingtailError, Unauthenticated, Unavailable
from collector.otlp.json.write import to_json
from collector.otlp.records import Ref, regroup
from collector.query.offsets import END
from collector.query.tail import CLOSED, FAILED, PAST_MAX, REVOKED, STOPPED, STUCK, Matches, Missed, Tail, Told
from collector.query.tail_filters import signal_of
from collector.query.tails import Tails

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from collector.otlp.signals import Signal
    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.store import Store

ABORT: Final = "ringtail.abort"
"""Where a connection's state has what cuts it (server.py)."""
PAST_DEFAULT: Final = 20
HEARTBEAT_S: Final = 15.0
"""How often something is sent: proxies cut connections that are silent."""
STUCK_S: Final = 30.0
"""How long a piece may take to leave."""
PIECE_BYTES: Final = 16 * 1024
RETRY_MS: Final = 1000
"""What clients are told to wait before they come again."""
_OFFSET_DIGITS: Final = 19


def routes(stores: Mapping[str, Store], engine: Engine, tails: Tails) -> list[BaseRoute]:
    """Return the route over the stores of spans and log records."""

    async def tail(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        try:
            asked = request.query_params
            signal = signal_of(asked.get("signal", "") or "traces")
            query = asked.get("q", "") or asked.get("query", "")
            past = _number(asked.get("limit", ""), "limit", PAST_DEFAULT, PAST_MAX)
            resumed, begin = request.headers.get("last-event-id", ""), asked.get("offset", "")
            offset = _number(begin, "offset", 0, END) if begin else None
            if resumed:
                offset = _number(resumed, "Last-Event-ID", 0, END) + 1
            made = tails.open(stores[signal.name], query, past, offset, _encoded, engine)
        except RingtailError as error:
            return _refused(error)
        state = request.scope.get("state", {})
        standing = Standing(state.get(AGAIN), state.get(PEER, frozenset()), tails.clock)
        return EventStream(made, signal, standing)

    return [Route("/api/tail", tail)]


def _number(text: str, name: str, default: int, most: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > _OFFSET_DIGITS or int(text) > most:
        raise InvalidQuery(f"{name} must be a whole number up to {most}, not {text[:50]!r}")
    return int(text)


def _refused(error: RingtailError) -> Response:
    where = f" at column {error.position + 1}" if isinstance(error, InvalidQuery) and error.position else ""
    headers = {}
    if isinstance(error, Overloaded | Unavailable):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return PlainTextResponse(f"{error}{where}\n", http_code(error), headers)


def _encoded(signal: Signal, refs: Sequence[Ref], deadline: Deadline) -> bytes:
    return to_json(signal, regroup(refs))


def event(data: bytes, *, name: str = "", offset: int | None = None) -> bytes:
    """Write one event; `data` has no line breaks."""
    head = f"event: {name}\n" if name else ""
    if offset is not None:
        head += f"id: {offset}\n"
    return head.encode() + b"data: " + data + b"\n\n"


def _told(one: Told) -> bytes:
    if isinstance(one, Matches):
        return event(one.data, offset=one.offset)
    return event(msgspec.json.encode(_missed(one)), name="missed", offset=one.offset)


def _missed(one: Missed) -> dict[str, Any]:
    return {
        "reason": one.reason,
        "firstOffset": str(one.first_offset),
        "nextOffset": str(one.next_offset),
        "records": one.next_offset - one.first_offset,
        "matches": one.matches,
    }


class _Stuck(Exception):
    """The client has not read for too long."""


class EventStream(Response):
    """A tail on its way to one client. It lasts until the client leaves, stops reading, or the daemon stops."""

    def __init__(self, tail: Tail, signal: Signal, standing: Standing) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
        self._tail = tail
        self._signal = signal
        self._standing = standing
        self._why = STOPPED

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        telling = asyncio.ensure_future(self._tell(send))
        leaving = asyncio.ensure_future(_left(receive))
        why = CLOSED
        try:
            await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
                why = self._why
        except _Stuck:
            why = STUCK
            abort = scope.get("state", {}).get(ABORT)
            if abort is not None:
                abort()
                await leaving
        except OSError:
            pass  # the client has left
        except BaseException:
            why = FAILED
            raise
        finally:
            for task in (telling, leaving):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.gather(telling, leaving, return_exceptions=True)
            self._tail.close(why)

    async def _tell(self, send: Send) -> None:
        """Send events until the daemon stops, then why."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        tail = self._tail
        try:
            found, since = await tail.past()
            about = {"signal": self._signal.name, "offset": str(tail.first_offset), "pastOffset": str(since)}
            start = f"retry: {RETRY_MS}\n".encode() + event(msgspec.json.encode(about), name="start")
            await _send(send, start + b"".join(map(_told, found)))
            silent_s = 0.0
            while True:
                patience_s = min(HEARTBEAT_S, CHECK_S)
                found = await tail.next(patience_s)
                await self._standing.require()
                # Events of one look one by one: they may be large.
                for one in found:
                    await _send(send, _told(one))
                silent_s = 0.0 if found else silent_s + patience_s
                if silent_s >= HEARTBEAT_S:
                    silent_s = 0.0
                    await _send(send, f"id: {tail.position - 1}\n\n".encode() if tail.position else b":\n\n")
        except RingtailError as error:
            if isinstance(error, Unauthenticated | Forbidden):
                self._why = REVOKED
            await _send(send, event(msgspec.json.encode({"error": str(error)}), name="end"))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, data: bytes) -> None:
    """Send bytes, piece by piece; raise _Stuck when one does not leave in time."""
    for at in range(0, len(data), PIECE_BYTES):
        piece = {"type": "http.response.body", "body": data[at : at + PIECE_BYTES], "more_body": True}
        try:
            async with asyncio.timeout(STUCK_S):
                await send(piece)
        except TimeoutError:
            raise _Stuck from None


async def _left(receive: Receive) -> None:
    """Wait until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
