"""Search: the newest traces that have a span which a filter matches, exactly and repeatably.

A trace's place is given by its newest matching span, by (start time, offset). Two passes:

1. `find`: go through ring and log, newest block first, and keep the best `limit` traces. A block whose newest
   span is older than the worst of them cannot bring a new one, and is not evaluated.
2. `describe`: collect all spans of the traces found, evaluate the filter on them, and put together what Tempo's
   API returns of each: root, duration, services, and the newest matching spans with the fields that the query
   mentions. In the ring all spans are looked at; in the log those that started within `TRACE_SPREAD_NS` of a
   trace's newest match.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from collector.otlp.records import service_name
from collector.query import match
from collector.query.engine import END_OF_TIME, Among, Deadline, Slice, slices
from collector.query.traceql.ast import KINDS, STATUSES, Attribute, Expression, Intrinsic
from collector.query.traceql.evaluate import TRACE_INTRINSICS, Evaluation, TraceFacts, fields_of, uses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.store import View

TRACE_SPREAD_NS = 3600 * 10**9
"""How far from its newest match a trace's spans are looked for in the log: an hour to both sides."""

SPANS_PER_TRACE_MAX = 100_000
"""Spans of one trace that a search looks at; more are counted as not looked at."""


_NAMED: dict[str, dict[Any, str]] = {
    "span:status": {number: name for name, number in STATUSES.items()},
    "span:kind": {number: name for name, number in KINDS.items()},
}


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
    attributes: list[tuple[str, str | int | float | bool]]


@dataclass(slots=True)
class Summary:
    """What a search returns of a trace. Times in Unix ns, durations in ns."""

    trace_id: bytes
    root_name: str = ""
    root_service: str = ""
    start: int = END_OF_TIME
    end: int = 0
    matched: int = 0
    spans: list[Span] = field(default_factory=list)
    services: dict[str, list[int]] = field(default_factory=dict)
    """Service name -> [spans, spans in error]."""
    looked_at: int = 0


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for: spans that started in [start_ns, end_ns] and match; `limit` traces, `spans` of each."""

    expression: Expression | None
    limit: int
    spans: int
    start_ns: int = 0
    end_ns: int = END_OF_TIME
    min_duration_ns: int = 0
    max_duration_ns: int = END_OF_TIME


def find(deadline: Deadline, view: View, everything: View, search: Search) -> tuple[list[Found], TraceFacts | None]:
    """Return the newest `limit` traces with a matching span, newest first, and what was learned about traces.

    `view` may be narrowed to a key that the expression demands; `everything` must not be.
    """
    bounded = search.min_duration_ns > 0 or search.max_duration_ns < END_OF_TIME
    facts = None
    if bounded or uses(search.expression, TRACE_INTRINSICS):
        facts = _trace_facts(deadline, everything)
    best: dict[bytes, tuple[int, int]] = {}
    worst: tuple[int, int] | None = None
    for piece in slices(view, search.start_ns, search.end_ns, deadline):
        if worst is not None and piece.block.max_time < worst[0]:
            continue
        rows = Evaluation(piece, facts).matching(search.expression)
        if not rows.size:
            continue
        _take(best, piece.block, rows, search, facts if bounded else None)
        if len(best) > 2 * search.limit or (worst is None and len(best) >= search.limit):
            ranked = sorted(best.items(), key=lambda item: item[1], reverse=True)[: search.limit]
            best = dict(ranked)
            worst = ranked[-1][1]
    ranked = sorted(best.items(), key=lambda item: item[1], reverse=True)[: search.limit]
    return [Found(trace, time, offset) for trace, (time, offset) in ranked], facts


def _take(
    best: dict[bytes, tuple[int, int]], block: Block, rows: NDArray[np.intp], search: Search, facts: TraceFacts | None
) -> None:
    """Note the newest match of each trace in one block."""
    times = block.column("time")[rows]
    order = np.lexsort((rows, times))[::-1]
    raw = np.ascontiguousarray(block.column("trace_id")[rows[order]]).view("V16").reshape(-1)
    _, firsts = np.unique(raw, return_index=True)
    for at in firsts.tolist():
        trace = raw[at].tobytes()
        if facts is not None:
            duration = facts.duration.get(trace, 0)
            if not search.min_duration_ns <= duration <= search.max_duration_ns:
                continue
        place = (int(times[order[at]]), block.base_offset + int(rows[order[at]]))
        if place > best.get(trace, (-1, -1)):
            best[trace] = place


def _trace_facts(deadline: Deadline, view: View) -> TraceFacts:
    """Learn every trace's duration and root."""
    facts = TraceFacts()
    bounds: dict[bytes, list[int]] = {}
    roots: dict[bytes, int] = {}
    for piece in slices(view, deadline=deadline):
        block, rows = piece
        raw = np.ascontiguousarray(block.column("trace_id")[rows]).tobytes()
        starts, ends = block.column("time")[rows].tolist(), block.column("end_time")[rows].tolist()
        parents = block.column("parent_span_id")[rows].tolist()
        for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
            trace = raw[at * 16 : at * 16 + 16]
            bound = bounds.setdefault(trace, [start, end])
            bound[0] = min(bound[0], start)
            bound[1] = max(bound[1], end)
            if not parents[at] and start < roots.get(trace, END_OF_TIME):
                roots[trace] = start
                row = int(rows[at])
                facts.root_name[trace] = _name(block, row)
                facts.root_service[trace] = service_name(block, int(block.column("group")[row]))
    facts.duration = {trace: max(0, end - start) for trace, (start, end) in bounds.items()}
    return facts


def describe(
    deadline: Deadline, view: View, found: list[Found], search: Search, facts: TraceFacts | None
) -> list[Summary]:
    """Return what a search answers for the traces found, in their order. `view` is not narrowed."""
    summaries = {one.trace_id: Summary(one.trace_id) for one in found}
    if not found:
        return []
    wanted = np.array([np.void(one.trace_id) for one in found], "V16")
    times = [one.time for one in found]
    since, until = max(0, min(times) - TRACE_SPREAD_NS), max(times) + TRACE_SPREAD_NS
    fields = fields_of(search.expression)
    for piece in slices(view, since, until, deadline, among=Among("trace_id", list(summaries))):
        block = piece.block
        raw = np.ascontiguousarray(block.column("trace_id")[piece.rows]).view("V16").reshape(-1)
        rows = piece.rows[np.isin(raw, wanted)]
        if rows.size:
            _add(summaries, Slice(block, rows), search, facts, fields)
    for summary in summaries.values():
        summary.spans.sort(key=lambda span: (span.time, span.offset), reverse=True)
        del summary.spans[search.spans :]
    return list(summaries.values())


def _add(
    summaries: dict[bytes, Summary],
    piece: Slice,
    search: Search,
    facts: TraceFacts | None,
    fields: list[Attribute | Intrinsic],
) -> None:
    """Add the spans of one block to their traces' summaries."""
    block, rows = piece
    evaluation = Evaluation(piece, facts)
    matching = set(evaluation.matching(search.expression).tolist())
    times, ends = block.column("time"), block.column("end_time")
    parents, statuses, groups = block.column("parent_span_id"), block.column("status"), block.column("group")
    for place, row in enumerate(rows.tolist()):
        summary = summaries[block.column("trace_id")[row].tobytes()]
        summary.looked_at += 1
        if summary.looked_at > SPANS_PER_TRACE_MAX:
            continue
        start, end = int(times[row]), int(ends[row])
        service = service_name(block, int(groups[row]))
        if not parents[row] and (not summary.root_name or start < summary.start):
            summary.root_name, summary.root_service = _name(block, row), service
        summary.start, summary.end = min(summary.start, start), max(summary.end, end, start)
        counts = summary.services.setdefault(service, [0, 0])
        counts[0] += 1
        counts[1] += int(statuses[row]) == 2
        if row in matching and search.start_ns <= start <= search.end_ns:
            summary.matched += 1
            summary.spans.append(_span(evaluation, place, row, fields))
            if len(summary.spans) > 4 * search.spans + 64:
                summary.spans.sort(key=lambda span: (span.time, span.offset), reverse=True)
                del summary.spans[search.spans :]


def _span(evaluation: Evaluation, place: int, row: int, fields: list[Attribute | Intrinsic]) -> Span:
    block = evaluation.block
    start, end = int(block.column("time")[row]), int(block.column("end_time")[row])
    attributes = []
    for one in fields:
        if isinstance(one, Intrinsic) and one.name in ("span:name", "span:duration", "span:id", "trace:id"):
            continue  # they stand in the answer anyway
        value = _value(evaluation.operand(one), place)
        if isinstance(one, Intrinsic) and one.name in _NAMED:
            value = _NAMED[one.name].get(value, value)
        if value is not None:
            attributes.append((_label(one), value))
    raw = block.column("span_id")[row].tobytes()
    return Span(raw, _name(block, row), start, max(0, end - start), block.base_offset + row, attributes)


def _label(one: Attribute | Intrinsic) -> str:
    if isinstance(one, Intrinsic):
        return one.name.removeprefix("span:")
    return one.name


def _value(values: Any, row: int) -> str | int | float | bool | None:
    kind = int(values.type[row])
    if kind == match.STRING:
        start = int(values.start[row])
        return bytes(values.payload[start : start + int(values.length[row])]).decode("utf-8", "replace")
    if kind == match.BOOL:
        return bool(values.integer[row])
    if kind == match.INT:
        return int(values.integer[row])
    return float(values.double[row]) if kind == match.DOUBLE else None


def _name(block: Block, row: int) -> str:
    start = int(block.column("name_start")[row])
    return bytes(memoryview(block.payload)[start : start + int(block.column("name_length")[row])]).decode()
