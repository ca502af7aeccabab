"""`/loki/api/v1/tail`: a live tail by WebSocket, as Grafana's live mode and `logcli --tail` ask for it.

`query/tail.py` has the meaning, as for `/api/tail`: by offset, without a silent gap, in bounded memory. Here it has Loki's
shape: lines as the pipeline leaves them, in frames of JSON texts, `FRAME_LINES` at most in each.

    {"streams": [{"stream": {…}, "values": [["<ns>", "line"], …]}, …], "dropped_entries": []}

It begins with lines since `start` (an hour ago), `limit` at most, and goes on with what arrives, `delay_for` seconds later.
Lines of a frame are in the order of their times. What a reader was too slow for, or what is not held any more, is told as one dropped entry
whose labels say why and how many records, and how many of them match.

A tail lasts until its client leaves, does not read (`STUCK_S`) or may not any more (`standing.py`), or the daemon stops. uvicorn sends pings and cuts who does not answer them (server.py); what clients send is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketState

from collector.api.access import AGAIN, PEER
from collector.api.loki_parameters import QUERY_SPAN, Parameters
from collector.api.loki_shapes import CATEGORIZE, is_categorized, streams
from collector.api.standing import CHECK_S, Standing
from collector.api.status import http_code
from collector.api.tail import ABORT
from collector.errors import Forbidden, InvalidQuery, Overloaded, RingtailError, Unauthenticated, Unavailable
from collector.query.logql import ast
from collector.query.logql.logs import lines_of
from collector.query.logql.plan import prepare
from collector.query.tail import CLOSED, FAILED, PAST_MAX, REVOKED, STOPPED, STUCK, Matches, Missed, Tail, Told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from collector.otlp.records import Ref
    from collector.otlp.signals import Signal
    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.query.logql.source import Source
    from collector.query.tail import Encode
    from collector.query.tails import Tails
    from collector.store import Store

PATH: Final = "/loki/api/v1/tail"
DELAY_MAX: Final = 5
"""The largest `delay_for`, in seconds: Loki's own limit."""
FRAME_LINES: Final = 100
STUCK_S: Final = 30.0
"""How long a frame may take to leave."""
GOING_AWAY, POLICY, FAULT = 1001, 1008, 1011
"""Codes that a connection is closed with (RFC 6455, 7.4.1)."""
REASON_BYTES_MAX: Final = 120
"""A close frame has 125 bytes at most, its code included."""
_DIGITS: Final = re.compile(r"[0-9]{1,3}")


class _Stuck(Exception):
    """The client has not read for too long."""


def routes(store: Store, engine: Engine, tails: Tails) -> list[BaseRoute]:
    """Return the routes over the store of log records."""

    async def tail(socket: WebSocket) -> None:
        try:
            made = _opened(socket, store, engine, tails)
        except RingtailError as error:
            await socket.send_denial_response(_refused(error))
            return
        await _Live(socket, made, engine).run()

    async def no_socket(request: Request) -> Response:
        return PlainTextResponse("live tails are WebSockets; for HTTP there is /api/tail\n", 400)

    return [WebSocketRoute(PATH, tail), Route(PATH, no_socket)]


def _opened(socket: WebSocket, store: Store, engine: Engine, tails: Tails) -> Tail:
    """Begin the tail that a client asks for; raises a RingtailError."""
    now_ns = engine.clock.now_ns()
    asked = Parameters(socket.query_params.multi_items(), now_ns)
    query = asked.text("query")
    start_ns = asked.time("start")
    delay = asked.text("delay_for") or "0"
    if not _DIGITS.fullmatch(delay) or int(delay) > DELAY_MAX:
        raise InvalidQuery(f"delay_for can't be greater than {DELAY_MAX}, and is a number of seconds")
    plan = prepare(query)
    if not isinstance(plan.expression, ast.LogQuery):
        raise InvalidQuery("a tail is of log lines; this is a query of metrics")
    [source] = plan.sources.values()
    encode = _encoder(source, categorized=is_categorized(socket))
    return tails.open(
        store,
        query,
        min(asked.limit(), PAST_MAX),
        None,
        encode,
        engine,
        since_ns=max(0, now_ns - QUERY_SPAN) if start_ns is None else start_ns,
        delay_s=float(delay),
    )


def _refused(error: RingtailError) -> Response:
    headers = {}
    if isinstance(error, Overloaded | Unavailable):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return PlainTextResponse(str(error), http_code(error), headers)


def _encoder(source: Source, *, categorized: bool) -> Encode:
    """Return what makes frames of records, one a line of bytes: JSON has no line breaks."""
    more = {"encodingFlags": [CATEGORIZE]} if categorized else {}

    def frames(signal: Signal, refs: Sequence[Ref], deadline: Deadline) -> bytes:
        lines = lines_of(source, sorted(map(_timed, refs), key=_order), deadline)
        return b"\n".join(
            msgspec.json.encode(
                {"streams": streams(lines[at : at + FRAME_LINES], categorized), "dropped_entries": []} | more
            )
            for at in range(0, len(lines), FRAME_LINES)
        )

    return frames


def _timed(ref: Ref) -> Ref:
    """Return a reference with its record's time, which it is ordered by."""
    return ref._replace(time=int(ref.block.column("time")[ref.row]))


def _order(ref: Ref) -> tuple[int, int]:
    return ref[:2]


class _Live:
    """A tail on its way to one client."""

    def __init__(self, socket: WebSocket, tail: Tail, engine: Engine) -> None:
        self._socket = socket
        self._tail = tail
        self._clock = engine.clock
        state = socket.scope.get("state", {})
        self._standing = Standing(state.get(AGAIN), state.get(PEER, frozenset()), engine.clock)

    async def run(self) -> None:
        """Serve it to its end."""
        telling = asyncio.ensure_future(self._tell())
        leaving = asyncio.ensure_future(self._left())
        why = CLOSED
        try:
            await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
        except _Stuck:
            why = STUCK
            self._abort()
        except (Unauthenticated, Forbidden) as error:
            why = REVOKED
            await self._close(POLICY, str(error))
        except Unavailable as error:
            why = STOPPED
            await self._close(GOING_AWAY, str(error))
        except RingtailError as error:
            why = FAILED
            await self._close(FAULT, str(error))
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

    async def _tell(self) -> None:
        await self._socket.accept()
        found, _ = await self._tail.past()
        while True:
            for one in found:
                await self._send(one)
            await self._standing.require()
            found = await self._tail.next(CHECK_S)

    async def _send(self, one: Told) -> None:
        for frame in one.data.split(b"\n") if isinstance(one, Matches) else (self._dropped(one),):
            try:
                async with asyncio.timeout(STUCK_S):
                    await self._socket.send_text(frame.decode())
            except TimeoutError:
                raise _Stuck from None

    def _dropped(self, one: Missed) -> bytes:
        labels = {
            "reason": one.reason,
            "first_offset": str(one.first_offset),
            "next_offset": str(one.next_offset),
            "records": str(one.next_offset - one.first_offset),
        }
        if one.matches is not None:
            labels["matches"] = str(one.matches)
        entry = {"timestamp": str(self._clock.now_ns()), "labels": labels}
        return msgspec.json.encode({"streams": [], "dropped_entries": [entry]})

    async def _left(self) -> None:
        """Wait until the client has left; what else it says is not read."""
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            pass

    async def _close(self, code: int, reason: str) -> None:
        """Say why, and close; a client that reads nothing is cut."""
        short = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
        try:
            async with asyncio.timeout(STUCK_S):
                if self._socket.application_state is not WebSocketState.DISCONNECTED:
                    await self._socket.close(code, short)
        except TimeoutError:
            self._abort()
        except (OSError, RuntimeError):
            pass  # the client has left meanwhile

    def _abort(self) -> None:
        abort = self._socket.scope.get("state", {}).get(ABORT)
        if abort is not None:
            abort()
