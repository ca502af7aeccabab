"""`ringtail.v1.QueryService` over gRPC, on a listener of its own (`api.grpc`): proto/ringtail/v1/query.proto.

Served by our own HTTP/2, like OTLP (receivers/grpc.py). Answers are streams of OTLP messages of `PART_BYTES` at most,
unless one record is larger, and made one at a time (call.py). What a query means is in `query/`, as for the HTTP APIs.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from collector.api.call import QueryCall
from collector.api.messages import SERVICE, message, parsed
from collector.api.partial import lacking, not_found
from collector.api.standing import CHECK_S
from collector.api.tempo import LIMIT_DEFAULT, LIMIT_MAX, SPANS_DEFAULT, SPANS_MAX
from collector.errors import Forbidden, InvalidQuery, Malformed, NotFound, Unauthenticated
from collector.otlp.records import Ref, regroup, tagged
from collector.otlp.signals import LOGS, SIGNALS, TRACES, Signal
from collector.query.completeness import completeness
from collector.query.offsets import END, at_offsets, costs, from_offset
from collector.query.slices import END_OF_TIME
from collector.query.tail import CLOSED, PACE_S, PAST_MAX, REVOKED, STOPPED, STUCK, Matches, Missed, Told
from collector.query.tail_filters import signal_of
from collector.query.tails import Tails
from collector.query.trace import spans_of, within
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import spansets_only
from collector.query.traceql.search import Search, Summary, describe, find
from collector.receivers.grpc import GrpcReceiver
from collector.security.rights import READ

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from numpy.typing import NDArray

    from collector.clock import Clock
    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.receivers.admission import Admission
    from collector.receivers.call import Call
    from collector.receivers.export import Receiver
    from collector.security.gate import Gate
    from collector.security.tls import ServerTls
    from collector.store import Store, View

PART_BYTES: Final = 256 * 1024
"""Bytes of records in one message of an answer."""
TRACE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of a trace that is returned; more is left out, and counted."""
PART_TRACES: Final = 100
"""Traces of a search in one message."""
MESSAGE_BYTES_MAX: Final = 1024 * 1024
"""The largest request."""
CONNECTIONS_MAX: Final = 1024
STREAMS_MAX: Final = 100
FIRST_BYTES_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 30.0
"""How long an answer may wait for its client to take any of it."""
HEARTBEAT_S: Final = 15.0
"""How often a tail is told how far it is."""
_DATA_FIELDS: Final = {one: 2 + one.code for one in SIGNALS}
"""The field of a signal's data in a ReadLogResponse."""
_REASONS: Final = {"slow": 1, "removed": 2, "too large": 3}


class Served(NamedTuple):
    """What a tenant's queries are answered from."""

    stores: Mapping[str, Store]
    engine: Engine
    held: bool = True
    """Whether there is such a tenant: nothing is tailed of one that was never written to."""


class QueryMethod:
    """One method of the service."""

    receiver: Receiver | None = None
    right = READ

    def __init__(
        self,
        name: str,
        answer: Callable[[Any, Served, QueryCall], AsyncGenerator[bytes]],
        find: Callable[[str], Served],
    ) -> None:
        """Answer requests named `name`; `find` returns what a tenant's name stands for, or raises a cause."""
        self._name = name
        self._answer = answer
        self._find = find

    def serve(self, call: Call, message: bytes) -> None:
        """Begin to answer."""
        assert isinstance(call, QueryCall)
        request = parsed(f"{self._name}Request", message)
        endless = self._name == "Tail" or bool(getattr(request, "follow", False))
        call.answer_with(self._answer(request, self._find(call.tenant), call), endless=endless)


class QueryListener(GrpcReceiver):
    """The listener of the query service, with the standard health service beside it."""

    limit_key = "which is fixed for queries"

    def __init__(
        self,
        find: Callable[[str], Served],
        tails: Tails,
        admission: Admission,
        clock: Clock,
        logger: Any,
        *,
        tls: ServerTls | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Not listening yet: see `start`. Raises Unavailable when the package was not built whole."""
        super().__init__(
            [],
            admission,
            clock,
            logger,
            message_bytes_max=MESSAGE_BYTES_MAX,
            first_bytes_timeout_s=FIRST_BYTES_TIMEOUT_S,
            idle_timeout_s=IDLE_TIMEOUT_S,
            streams_max=STREAMS_MAX,
            connections_max=CONNECTIONS_MAX,
            tls=tls,
            gate=gate,
            services=[SERVICE],
        )
        message("Coverage")
        self.protocol = "the query API's gRPC"
        self._tails = tails
        answers = {
            "GetTrace": _get_trace,
            "Search": _search,
            "Tail": self._tail,
            "ReadLog": _read_log,
        }
        self.methods = {
            **self.methods,
            **{f"/{SERVICE}/{name}".encode(): QueryMethod(name, one, find) for name, one in answers.items()},
        }
        self.open_stream = partial(QueryCall, self)

    def greet(self, data: bytes) -> bytes:
        """Tell a client that speaks HTTP/1 where that is spoken."""
        return (
            super()
            .greet(data)
            .replace(
                b"Ringtail receives OTLP/gRPC here; OTLP/HTTP has its own port, usually 4318.",
                b"Ringtail answers queries by gRPC here; the query API over HTTP has its own port, usually 8888.",
            )
        )

    @property
    def refusal(self) -> str:
        """Why a connection is refused."""
        return f"there are {self.connections_max} connections for queries, which is the limit"

    async def _tail(self, request: Any, served: Served, call: QueryCall) -> AsyncGenerator[bytes]:
        signal = signal_of(_signal(request.signal).name)
        if not served.held:
            raise NotFound("this tenant has nothing yet")
        if request.past > PAST_MAX:
            raise InvalidQuery(f"past is at most {PAST_MAX}")
        offset = min(request.from_offset, END) if request.HasField("from_offset") else None
        # One that begins further back is told when it has come to where the log ends now.
        level = served.stores[signal.name].ring.next_offset if offset is not None else END
        tail = self._tails.open(
            served.stores[signal.name],
            request.query,
            request.past,
            offset,
            lambda _, refs, deadline: regroup(refs),
            served.engine,
        )
        standing, why, silent_s = call.standing, CLOSED, 0.0
        try:
            found, _ = await tail.past()
            yield message("TailResponse")(next_offset=tail.first_offset).SerializeToString()
            while True:
                for one in found:
                    yield _told(one, signal)
                patience_s = min(HEARTBEAT_S, CHECK_S)
                found = await tail.next(patience_s)
                await standing.require()
                silent_s = 0.0 if found else silent_s + patience_s
                if silent_s >= HEARTBEAT_S or (not found and tail.position >= level):
                    silent_s, level = 0.0, END
                    yield message("TailResponse")(next_offset=tail.position).SerializeToString()
        except (Unauthenticated, Forbidden):
            why = REVOKED
            raise
        finally:
            tail.close(STOPPED if self._tails.stopping else STUCK if call.is_stuck else why)


def _signal(code: int) -> Signal:
    for one in SIGNALS:
        if one.code == (code or TRACES.code):
            return one
    raise Malformed(f"there is no signal {code}")


def _told(one: Told, signal: Signal) -> bytes:
    """Return a TailResponse."""
    if isinstance(one, Matches):
        head: bytes = message("TailResponse")(next_offset=one.offset + 1).SerializeToString()
        return head + tagged(3 if signal is LOGS else 2, one.data)
    missed = _missed(one)
    return bytes(message("TailResponse")(next_offset=one.next_offset, missed=missed).SerializeToString())


def _missed(one: Missed) -> Any:
    made = message("Missed")(reason=_REASONS[one.reason], first_offset=one.first_offset, next_offset=one.next_offset)
    if one.matches is not None:
        made.matches = one.matches
    return made


_MISSING = 4
"""The field of Coverage that tells why records may be missing."""


def _coverage(view: View, *others: View) -> Any:
    made = message("Coverage")(
        first_offset=view.first_offset, ring_offset=view.ring_offset, next_offset=view.next_offset
    )
    for reason in lacking(view, *others):
        made.MergeFromString(tagged(_MISSING, reason.encode()))  # Also with descriptors that do not know the field yet.
    return made


# --- one trace --------------------------------------------------------------------------------------------


async def _get_trace(request: Any, served: Served, call: QueryCall) -> AsyncGenerator[bytes]:
    if len(request.trace_id) != 16:
        raise Malformed(f"a trace id has 16 bytes, not {len(request.trace_id)}")
    end = request.end_time_unix_nano or END_OF_TIME
    with served.stores["traces"].view("trace_id", request.trace_id) as view:
        made = await served.engine.run(_trace, view, request.start_time_unix_nano, end)
        coverage = _coverage(view)
    if not made.parts:
        text = f"trace {request.trace_id.hex()} not found"
        raise not_found(text, view)
    about = message("GetTraceResponse")(coverage=coverage, spans_left_out=made.left_out, missing=made.missing)
    head = about.SerializeToString()
    made.parts.reverse()
    while made.parts:
        yield head + tagged(1, made.parts.pop())


class _Trace(NamedTuple):
    """A trace on its way out."""

    parts: list[bytes]
    left_out: int
    missing: str


def _trace(deadline: Deadline, view: View, start_ns: int, end_ns: int) -> _Trace:
    """Return a trace's spans that overlap a range, in their order of arrival and in parts."""
    held = spans_of(deadline, view)
    missing = completeness(held.refs, view.first_offset, held.left_out)
    parts: list[bytes] = []
    part: list[Ref] = []
    size = total = 0
    left_out = held.left_out
    for ref in within(held.refs, start_ns, end_ns):
        cost = int(costs(ref.block, np.array([ref.row]))[0])
        if total + cost > TRACE_BYTES_MAX:
            left_out += 1
            continue
        if part and size + cost > PART_BYTES:
            parts.append(regroup(part))
            part, size = [], 0
        part.append(ref)
        size += cost
        total += cost
    return _Trace([*parts, regroup(part)] if part else parts, left_out, missing.message)


# --- search -----------------------------------------------------------------------------------------------


async def _search(request: Any, served: Served, call: QueryCall) -> AsyncGenerator[bytes]:
    search = Search(
        spansets_only(parse(request.query or "{}")),
        _bounded("limit", request.limit, LIMIT_DEFAULT, LIMIT_MAX),
        _bounded("spans_per_trace", request.spans_per_trace, SPANS_DEFAULT, SPANS_MAX),
        request.start_time_unix_nano,
        request.end_time_unix_nano or END_OF_TIME,
        below=(request.after.time_unix_nano, _signed(request.after.offset)) if request.HasField("after") else None,
    )
    store, engine = served.stores["traces"], served.engine
    with store.view() as everything, store.view(*(search.planned.key or ())) as view:
        if request.HasField("after"):
            everything.cut(request.after.next_offset)
            view.cut(request.after.next_offset)
        found, effort = await engine.run(find, view, everything, search)
        summaries = await engine.run(describe, everything, found, search)
        coverage = _coverage(everything, view)
    about = message("SearchResponse")(coverage=coverage)
    if effort.more and found:
        about.next.next_offset = coverage.next_offset
        about.next.time_unix_nano, about.next.offset = found[-1].time, found[-1].offset % 2**64
    head = about.SerializeToString()
    for at in range(0, max(1, len(summaries)), PART_TRACES):
        with store.view() as view:
            parts = await engine.run(_found, view, summaries[at : at + PART_TRACES])
        for part in parts:
            yield head + part


def _signed(offset: int) -> int:
    """Return the offset that a field of 64 bits stands for: of a span from a backend it is negative."""
    return offset - 2**64 if offset >= 2**63 else offset


def _bounded(name: str, value: int, default: int, most: int) -> int:
    if value > most:
        raise InvalidQuery(f"{name} is at most {most}, not {value}")
    return value or default


def _found(deadline: Deadline, view: View, summaries: list[Summary]) -> list[bytes]:
    """Return traces as fields of SearchResponses: one at least."""
    parts = [b""]
    for one in summaries:
        refs = [
            ref
            for span in one.spans
            for ref in ((span.ref,) if span.ref is not None else at_offsets(view, [span.offset], deadline))
        ]
        about = message("FoundTrace")(
            trace_id=one.trace_id,
            root_service_name=one.root_service,
            root_span_name=one.root_name,
            start_time_unix_nano=one.start if one.start != END_OF_TIME else 0,
            duration_nano=max(0, one.end - one.start),
            matched_spans=one.matched,
            spans_without_their_parent=one.missing,
            root_is_missing=not one.has_root,
        )
        made = tagged(1, about.SerializeToString() + tagged(7, regroup(refs)))
        if parts[-1] and len(parts[-1]) + len(made) > PART_BYTES:
            parts.append(made)
        else:
            parts[-1] += made
    return parts


# --- the log ----------------------------------------------------------------------------------------------


async def _read_log(request: Any, served: Served, call: QueryCall) -> AsyncGenerator[bytes]:
    store = served.stores[_signal(request.signal).name]
    position = min(request.from_offset, END)
    end = request.end_offset or (END if request.follow else store.ring.next_offset)
    news = asyncio.Event()
    unsubscribe = store.subscribe(news.set)
    standing = call.standing
    try:
        while position < end:
            await standing.require()
            news.clear()
            with store.view() as view:
                base, count, data = await served.engine.run(_read, view, position, end)
            if count:
                position = base + count
                head = message("ReadLogResponse")(base_offset=base, count=count).SerializeToString()
                yield head + tagged(_DATA_FIELDS[store.signal], data)
            elif request.follow:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_S):
                        await news.wait()
                await asyncio.sleep(PACE_S)
            else:
                return
    finally:
        unsubscribe()


def _read(deadline: Deadline, view: View, first: int, end: int) -> tuple[int, int, bytes]:
    """Return records that follow each other, the first that can be read from `first` on: base offset, count, data."""
    base = at = first
    parts: list[bytes] = []
    room = PART_BYTES
    for block, rows in from_offset(view, first, end, deadline):
        begin = block.base_offset + int(rows[0])
        if not parts:
            base = at = begin
        elif begin != at:
            break
        count, data = _in_order(block, rows, room, at_least=0 if parts else 1)
        if count:
            parts.append(data)
            at += count
            room -= len(data)
        if count < len(rows) or room <= 0:
            break
    return base, at - base, b"".join(parts)


def _in_order(block: Block, rows: NDArray[np.intp], room: int, at_least: int) -> tuple[int, bytes]:
    """Return as many records of a block as there is room for, in their order, and how many that is."""
    if len(rows) == block.count and len(block.payload) <= room:
        return block.count, bytes(block.payload)
    count = max(at_least, int(np.searchsorted(np.cumsum(costs(block, rows)), room, side="right")))
    taken = rows[:count]
    # Records of equal resources would come together, and out of their order.
    runs = np.split(taken, np.flatnonzero(np.diff(block.column("group")[taken])) + 1)
    return count, b"".join(regroup([Ref(0, 0, block, row) for row in run.tolist()]) for run in runs)
