"""Search: the newest traces of which a query leaves spans, exactly and repeatably.

A trace's place is given by its newest span in the answer, by (start time, offset). A trace is evaluated whole, and the
time range chooses at the end: spans of the answer that started in it count. Two passes:

1. `find`: go through ring and log, newest block first, and keep the best `limit` traces. A block whose newest span is
   older than the worst of them cannot bring a new one, and is not evaluated. A query over single spans (`Plan.flat`)
   gets by with that. Any other takes the traces that have a span of its seed, a batch at a time, and evaluates them
   whole. When the first batch has not brought enough, and something that is required is rare in the log, the traces that
   have it are evaluated instead (`candidates.py`); else traces without what is required are sorted out beforehand.
2. `describe`: collect all spans of the traces found, evaluate the query on them, and put together what Tempo's API
   returns of each: root, duration, services, and the newest spans of the answer with the fields that the query mentions.

In the ring all spans of a trace are looked at; in the log those that started within `TRACE_SPREAD_NS` of the span by which
it was found.

`Search.below` and `Search.end_offset` page: traces before a place, as things stood at an offset.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import QueryLimit
from collector.otlp.records import isolate, service_name
from collector.query.deadline import Deadline
from collector.query.effort import as_part
from collector.query.groups import alike
from collector.query.places import place_of
from collector.query.slices import END_OF_TIME
from collector.query.traceql import spansets
from collector.query.traceql.ast import KINDS, STATUSES, Attribute, Expression, Intrinsic, Query, Type, duration_text
from collector.query.traceql.candidates import (
    TRACE_SPREAD_NS,
    Candidate,
    Patience,
    fresh,
    having,
    rare_side,
    sifted,
)
from collector.query.traceql.conditions import fulfilling, in_log, in_ring
from collector.query.traceql.plan import Plan, plan
from collector.query.traceql.structure import Numbering
from collector.query.traceql.trees import Traces, assemble
from collector.query.traceql.values import Single

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.otlp.records import Ref
    from collector.query.traceql.spansets import Label, Sets
    from collector.store import View

BATCH_FIRST: Final = 64
"""Traces that are evaluated whole at first; then four times as many each time."""
BATCH_MAX: Final = 16_384
SPANSETS_MAX: Final = 100
"""Spansets of one trace in an answer, those with the newest spans."""

_WORDS: dict[Type, dict[Any, str]] = {
    Type.STATUS: {number: name for name, number in STATUSES.items()},
    Type.KIND: {number: name for name, number in KINDS.items()},
}

Value = Single | list[Single | None]
"""What is returned of a field: a value or an array; None in an array is what cannot be shown."""
Place = tuple[int, int]
"""Start time and offset of a span: what answers are ordered by."""


@dataclass(frozen=True, slots=True)
class Found:
    """A trace in a search's result: its id, and its newest matching span's start and offset."""

    trace_id: bytes
    time: int
    offset: int


@dataclass(slots=True)
class Span:
    """What a search returns of a span; `attributes` are the fields that the query mentions."""

    span_id: bytes
    name: str
    time: int
    duration: int
    offset: int
    attributes: list[tuple[str, Value]]
    ref: Ref | None = None
    """The span itself, where it is of a backend: no offset leads to it."""


@dataclass(slots=True)
class SpanSet:
    """A spanset of one trace: how many spans it has, the newest of them, and what `by()` and aggregates found."""

    matched: int
    spans: list[Span]
    attributes: list[tuple[str, Value]] = field(default_factory=list)


@dataclass(slots=True)
class Summary:
    """What a search returns of a trace. Times in Unix ns, durations in ns."""

    trace_id: bytes
    root_name: str = ""
    root_service: str = ""
    start: int = END_OF_TIME
    end: int = 0
    spansets: list[SpanSet] = field(default_factory=list)
    """Those with the newest spans first."""
    services: dict[str, list[int]] = field(default_factory=dict)
    """Service name -> [spans, spans in error]."""
    looked_at: int = 0
    """Spans held of the trace."""
    missing: int = 0
    """Spans that name a parent which is not held."""
    has_root: bool = False

    @property
    def matched(self) -> int:
        """Spans in the answer."""
        return sum(one.matched for one in self.spansets)

    @property
    def spans(self) -> list[Span]:
        """The returned spans of all spansets, newest first."""
        found = [span for one in self.spansets for span in one.spans]
        return sorted(found, key=lambda span: (span.time, span.offset), reverse=True)


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for: spans that started in [start_ns, end_ns]; `limit` traces, `spans` of each spanset."""

    query: Query | Expression | None
    """A query, or the expression of one filter."""
    limit: int
    spans: int
    start_ns: int = 0
    end_ns: int = END_OF_TIME
    min_duration_ns: int = 0
    max_duration_ns: int = END_OF_TIME
    below: Place | None = None
    """Only traces behind this place in the order of answers."""
    planned: Plan = field(init=False)
    """How the query's spansets are found. Making a search raises InvalidQuery for what is not evaluated."""

    def __post_init__(self) -> None:
        """Plan the query."""
        object.__setattr__(self, "planned", plan(self.query))

    @property
    def is_bounded(self) -> bool:
        """Whether traces of some durations only are wanted."""
        return self.min_duration_ns > 0 or self.max_duration_ns < END_OF_TIME


@dataclass(slots=True)
class Effort:
    """What a search has looked at, and how far it came."""

    spans: int = 0
    """Spans that fulfilled the condition on single spans."""
    traces: int = 0
    """Traces that were evaluated whole."""
    more: bool = False
    """There may be further traces behind the last one."""


@as_part("spans")
def find(deadline: Deadline, view: View, everything: View, search: Search) -> tuple[list[Found], Effort]:
    """Return the newest `limit` traces of the answer, newest first, and what was looked at.

    `view` may be narrowed to the plan's key; `everything` must not be. Raises QueryTimeout, QueryLimit.
    """
    planned = search.planned
    best = _Best(search.limit, search.below)
    effort = Effort()
    if planned.flat and not search.is_bounded:
        _find_spans(deadline, view, planned.seed, search, best, effort)
    else:
        _find_traces(deadline, view, everything, planned, search, best, effort)
    found = best.ranked()
    effort.more = best.left_out
    return found, effort


class _Best:
    """The best so many traces, each at its newest place."""

    def __init__(self, limit: int, below: Place | None) -> None:
        self._limit = limit
        self._below = below
        self._places: dict[bytes, Place] = {}
        self.worst: Place | None = None
        """The place of the last trace, once there are as many as wanted."""
        self.left_out = False

    def __len__(self) -> int:
        return len(self._places)

    def may_bring(self, min_ns: int, max_ns: int) -> bool:
        """Tell whether a span that started in a time range can take a place among the best."""
        may = self.worst is None or max_ns >= self.worst[0]
        self.left_out |= not may
        return may

    def add(self, trace: bytes, place: Place) -> None:
        """Take a trace, or a newer place of one."""
        if self._below is not None and place >= self._below:
            return
        if place > self._places.get(trace, (-1, 0)):
            self._places[trace] = place
            if len(self._places) > 2 * self._limit or (self.worst is None and len(self._places) >= self._limit):
                self._cut()

    def _cut(self) -> list[tuple[bytes, Place]]:
        ranked = sorted(self._places.items(), key=lambda item: item[1], reverse=True)
        self.left_out |= len(ranked) > self._limit
        ranked = ranked[: self._limit]
        self._places = dict(ranked)
        if len(ranked) == self._limit:
            self.worst = ranked[-1][1]
        return ranked

    def ranked(self) -> list[Found]:
        return [Found(trace, *place) for trace, place in self._cut()]


# --- over single spans ------------------------------------------------------------------------------------------


def _find_spans(
    deadline: Deadline, view: View, seed: Expression | None, search: Search, best: _Best, effort: Effort
) -> None:
    """Find the traces that have a span which fulfils a condition, at the newest such span."""
    returned = _returned(deadline, view, seed, search)
    for piece in fulfilling(deadline, view, seed, search.start_ns, search.end_ns, best.may_bring):
        effort.spans += len(piece.rows)
        for trace, place in _newest_of_each(*piece):
            if trace not in returned:
                best.add(trace, place)


def _returned(deadline: Deadline, view: View, seed: Expression | None, search: Search) -> set[bytes]:
    """Return the traces whose newest match lies before the place that the answer begins behind."""
    found: set[bytes] = set()
    if search.below is None:
        return found
    for piece in fulfilling(deadline, view, seed, max(search.start_ns, search.below[0]), search.end_ns):
        for trace, place in _newest_of_each(*piece):
            if place >= search.below:
                found.add(trace)
    return found


def _newest_of_each(block: Block, rows: NDArray[np.intp]) -> Iterator[tuple[bytes, Place]]:
    """Yield the traces that rows of a block belong to, each with its newest place there."""
    if not rows.size:
        return
    times = block.column("time")[rows]
    order = np.lexsort((rows, times))[::-1]
    raw = np.ascontiguousarray(block.column("trace_id")[rows[order]]).view("V16").reshape(-1)
    _, firsts = np.unique(raw, return_index=True)
    for at in firsts.tolist():
        trace = raw[at].tobytes()
        yield trace, (int(times[order[at]]), _offset(trace, block.base_offset + int(rows[order[at]])))


def _offset(trace: bytes, offset: int) -> int:
    """Return what stands for the offset in a trace's place: the same in every query, also for spans of a backend."""
    return offset if offset >= 0 else place_of(trace)


# --- over whole traces ------------------------------------------------------------------------------------------


def _find_traces(
    deadline: Deadline, view: View, everything: View, planned: Plan, search: Search, best: _Best, effort: Effort
) -> None:
    """Find the traces of which a query over whole traces leaves spans."""
    start, end = search.start_ns, search.end_ns
    around = (max(0, start - TRACE_SPREAD_NS), min(END_OF_TIME, end + TRACE_SPREAD_NS))
    known = Numbering()
    whole = _Whole(deadline, everything, planned, search, best, effort)
    patience = Patience(best.may_bring, lambda: rare_side(everything, planned, *around))
    pieces = chain(
        in_ring(deadline, view, planned.seed, start, end, best.may_bring),
        in_log(deadline, view, planned.seed, start, end, patience.wanted),
    )
    for piece in pieces:
        effort.spans += len(piece.rows)
        whole.waiting += fresh(known, *piece)
        if whole.is_at_a_loss and patience.ends():
            break
        whole.judge(piece.block)
    if patience.side is None:
        whole.judge_all()
    else:
        whole = _Whole(deadline, everything, planned, search, best, effort)
        whole.sieve = []
        _find_by_rare_side(deadline, everything, patience.side, around, whole)


@as_part("traces that have what is rare")
def _find_by_rare_side(deadline: Deadline, everything: View, side: Expression, around: Place, whole: _Whole) -> None:
    """Take the traces that have what is required and rare."""
    best, known = whole.best, Numbering()

    def may_bring(min_ns: int, max_ns: int) -> bool:
        """Tell whether a trace with a span in a time range, any of its spans, can take a place among the best."""
        return best.may_bring(min_ns, min(END_OF_TIME, max_ns + TRACE_SPREAD_NS))

    for piece in fulfilling(deadline, everything, side, *around, may_bring):
        whole.effort.spans += len(piece.rows)
        whole.waiting += fresh(known, *piece)
        whole.judge(piece.block)
    whole.judge_all()


class _Whole:
    """Traces that come into question, evaluated whole: more at a time, the more there are."""

    def __init__(
        self, deadline: Deadline, everything: View, planned: Plan, search: Search, best: _Best, effort: Effort
    ) -> None:
        self._deadline = deadline
        self._view = everything
        self._planned = planned
        self._search = search
        self.best = best
        self.effort = effort
        self._batch = BATCH_FIRST
        self.waiting: list[Candidate] = []
        self.sieve: list[Numbering] | None = None
        """The traces that have what is required, of each requirement; None: not known yet."""

    @property
    def is_at_a_loss(self) -> bool:
        """Whether the first traces were not enough, and it takes a pass over all spans to tell the next ones apart."""
        return self.sieve is None and len(self.waiting) >= self._batch > BATCH_FIRST and bool(self._planned.required)

    def judge(self, block: Block) -> None:
        """Evaluate what is waiting if that is enough; what follows is no newer than this block."""
        while len(self.waiting) >= self._batch:
            if self.sieve is None and self._batch > BATCH_FIRST:
                start, end = self._search.start_ns, self._search.end_ns
                self.sieve = [having(self._deadline, self._view, one, start, end) for one in self._planned.required]
            self.waiting = sifted(self.waiting, self.sieve or [])
            if len(self.waiting) < self._batch:
                break
            self._judge(self._batch)
            self._batch = min(4 * self._batch, BATCH_MAX)
            if not self.best.may_bring(block.min_time, block.max_time):
                break

    def judge_all(self) -> None:
        """Evaluate what is left."""
        while self.waiting:
            self._judge(BATCH_MAX)

    def _judge(self, count: int) -> None:
        some = self.waiting[:count]
        del self.waiting[:count]
        _judge(self._deadline, self._view, self._planned, self._search, some, self.best, self.effort)


@as_part("whole traces")
def _judge(
    deadline: Deadline,
    view: View,
    planned: Plan,
    search: Search,
    candidates: list[Candidate],
    best: _Best,
    effort: Effort,
) -> None:
    """Evaluate traces whole, and take those of which spans are left: fewer at a time when they are too large together."""
    times = [time for _, time in candidates]
    since, until = max(0, min(times) - TRACE_SPREAD_NS), min(END_OF_TIME, max(times) + TRACE_SPREAD_NS)
    try:
        traces = assemble(deadline, view, [trace for trace, _ in candidates], since, until)
    except QueryLimit:
        if len(candidates) == 1:
            raise
        half = len(candidates) // 2
        _judge(deadline, view, planned, search, candidates[:half], best, effort)
        _judge(deadline, view, planned, search, candidates[half:], best, effort)
        return
    effort.traces += len(candidates)
    sets = answer(traces, planned, search)
    rows = sets.members
    rows = rows[np.lexsort((traces.offset[rows], traces.time[rows]))[::-1]]
    _, firsts = np.unique(traces.trace[rows], return_index=True)
    for row in rows[firsts].tolist():
        trace = traces.ids[traces.trace[row]]
        best.add(trace, (int(traces.time[row]), _offset(trace, int(traces.offset[row]))))


def answer(traces: Traces, planned: Plan, search: Search) -> Sets:
    """Return the spansets of whole traces, with the spans of them that a search asks for."""
    sets = spansets.evaluate(traces, planned.stages)
    wanted = (traces.time >= np.uint64(search.start_ns)) & (traces.time <= np.uint64(search.end_ns))
    if search.is_bounded:
        durations = traces.duration[traces.trace]
        wanted &= (durations >= min(search.min_duration_ns, 2**63 - 1)) & (
            durations <= min(search.max_duration_ns, 2**63 - 1)
        )
    return sets.kept(np.where(wanted, sets.number, -1))


# --- what is returned -------------------------------------------------------------------------------------------


@as_part("what is returned of traces")
def describe(deadline: Deadline, view: View, found: list[Found], search: Search) -> list[Summary]:
    """Return what a search answers for the traces found, in their order. `view` is not narrowed."""
    if not found:
        return []
    planned = search.planned
    times = [one.time for one in found]
    since, until = max(0, min(times) - TRACE_SPREAD_NS), min(END_OF_TIME, max(times) + TRACE_SPREAD_NS)
    try:
        traces = assemble(deadline, view, [one.trace_id for one in found], since, until)
    except QueryLimit:
        if len(found) == 1:
            raise
        half = len(found) // 2
        return describe(deadline, view, found[:half], search) + describe(deadline, view, found[half:], search)
    summaries = [Summary(one.trace_id) for one in found]
    _add_whole(summaries, traces)
    sets = answer(traces, planned, search)
    rows = sets.members
    rows = rows[np.lexsort((traces.offset[rows], traces.time[rows]))[::-1]]
    number = sets.number[rows]
    counts = np.bincount(number, minlength=sets.count)
    order = np.argsort(number, kind="stable")
    edges = np.cumsum(counts) - counts
    newest = np.unique(number, return_index=True)[1]
    returned: list[tuple[SpanSet, NDArray[np.intp]]] = []
    for one in np.argsort(newest, kind="stable").tolist():
        mine = rows[order[edges[one] : edges[one] + min(int(counts[one]), search.spans)]]
        summary = summaries[traces.trace[mine[0]]]
        if len(summary.spansets) < SPANSETS_MAX:
            shown = [(label.name, _shown(label, one)) for label in sets.labels]
            summary.spansets.append(SpanSet(int(counts[one]), [], shown))
            returned.append((summary.spansets[-1], mine))
    if returned:
        spans = iter(_spans(traces, np.concatenate([mine for _, mine in returned]), planned.fields))
        for spanset, mine in returned:
            spanset.spans += islice(spans, len(mine))
    return [summary for summary in summaries if summary.looked_at]


def _shown(label: Label, at: int) -> Value:
    """Return what a spanset's label says: a word for a status or a kind, a duration as `86ms`."""
    value = label.column.value(at)
    if value is None:
        return "nil"
    if label.type is Type.DURATION and isinstance(value, int | float) and np.isfinite(value):
        return duration_text(int(value))
    return _WORDS.get(label.type, {}).get(value, value)


def _add_whole(summaries: list[Summary], traces: Traces) -> None:
    """Fill in what is known of each trace whatever the query."""
    starts, ends = traces.bounds
    held = np.bincount(traces.trace, minlength=len(summaries)).tolist()
    missing = np.bincount(traces.trace[traces.is_orphan], minlength=len(summaries)).tolist()
    names = traces.scattered(Intrinsic("span:name"), traces.root_row)
    for at, summary in enumerate(summaries):
        summary.start, summary.end = int(starts[at]), int(ends[at])
        summary.looked_at, summary.missing = held[at], missing[at]
        summary.has_root = int(traces.root_row[at]) >= 0
        if summary.has_root:
            summary.root_name = str(names.value(at) or "")
    for piece in traces.pieces:
        block = piece.block
        kinds, firsts = alike(block, np.arange(block.groups.count), "service")
        named = [service_name(block, group) for group in firsts.tolist()]
        services = kinds[block.column("group")[piece.rows]]
        failed = block.column("status")[piece.rows] == STATUSES["error"]
        mine = traces.trace[piece.begin : piece.end]
        cells = Counter(zip(mine.tolist(), services.tolist(), failed.tolist(), strict=True))
        for (trace, service, error), count in cells.items():
            counts = summaries[trace].services.setdefault(named[service], [0, 0])
            counts[0] += count
            counts[1] += count if error else 0
        roots = traces.root_row[(traces.root_row >= piece.begin) & (traces.root_row < piece.end)]
        for row in roots.tolist():
            summaries[traces.trace[row]].root_service = named[services[row - piece.begin]]


def _spans(traces: Traces, rows: NDArray[np.intp], fields: tuple[Attribute | Intrinsic, ...]) -> list[Span]:
    """Decode spans, in the order of the rows, with the values of fields."""
    ascending = np.sort(rows)
    places = np.searchsorted(ascending, rows).tolist()
    starts, ends, offsets = traces.time[rows].tolist(), traces.end[rows].tolist(), traces.offset[rows].tolist()
    names = traces.gather(Intrinsic("span:name"), ascending)
    shown = [one for one in fields if not _stands_anyway(one)]
    columns = [(_label(one), _WORDS.get(one.type, {}), traces.gather(one, ascending)) for one in shown]
    ids = traces.span_id[rows].tobytes()
    spans = []
    for place, at in enumerate(places):
        attributes: list[tuple[str, Value]] = []
        for label, named, column in columns:
            elements = column.elements(at)
            value = column.value(at)
            if elements is not None:
                attributes.append((label, elements))
            elif value is not None:
                attributes.append((label, named.get(value, value)))
        start, name = starts[place], str(names.value(at) or "")
        span = Span(ids[8 * place : 8 * place + 8], name, start, ends[place] - start, offsets[place], attributes)
        if span.offset < 0:
            span.ref = isolate(traces.ref(int(rows[place])))
        spans.append(span)
    return spans


def _stands_anyway(one: Attribute | Intrinsic) -> bool:
    return isinstance(one, Intrinsic) and one.name in ("span:name", "span:duration", "span:id", "trace:id", "parent")


def _label(one: Attribute | Intrinsic) -> str:
    if isinstance(one, Intrinsic):
        return one.name.removeprefix("span:")
    return f"parent.{one.name}" if one.parent else one.name
