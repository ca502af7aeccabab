"""What belongs to one trace in all three signals: its spans in short, its log records, exemplars that name it.

The trace's id is a key of the rings' postings and of the logs' key indexes, so both are found wherever they lie. Log
records come in pages, in the order of (time, offset); the trace is read after them, once, by columns, and of its spans only
those that a page's records name are decoded.

Metrics have no such index: points that may have an exemplar of the trace are looked for in the payloads of the ring,
from the trace's start to `LAG_NS` behind its end, by when an SDK has exported them. The log is not searched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from collector.otlp.records import group_bytes, id_words, record, service_name
from collector.query.completeness import Completeness, completeness_of
from collector.query.newest import newest
from collector.query.places import places
from collector.query.promql.exemplars import LAG_NS
from collector.query.slices import END_OF_TIME, slices
from collector.query.trace import slices_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.otlp.records import Ref
    from collector.query.deadline import Deadline
    from collector.query.slices import Slice
    from collector.store import View

PAGE_BYTES_MAX: Final = 4 << 20
"""Bytes of the log records of one page; the first is there whatever its size."""
EXEMPLARS_MAX: Final = 20

_ERROR: Final = 2
_EXEMPLAR_ID: Final = b"\x2a\x10"
"""The tag of an exemplar's trace id, field 5, and its length."""

Place = tuple[int, int]
"""A log record's time and offset."""


class Page(NamedTuple):
    """Log records in the order of (time, offset), and whether more follow."""

    refs: list[Ref]
    more: bool


@dataclass(slots=True)
class SpanInShort:
    """A span that log records name. Times in Unix ns."""

    span_id: bytes
    parent_span_id: bytes
    name: str
    service: str
    start: int
    end: int
    is_error: bool


@dataclass(slots=True)
class TraceInShort:
    """What is held of a trace. Times in Unix ns."""

    missing: Completeness
    spans: int = 0
    errors: int = 0
    start: int = END_OF_TIME
    end: int = 0
    root: SpanInShort | None = None
    """The span without a parent's id; of several the one that started first."""
    services: dict[str, list[int]] = field(default_factory=dict)
    """Service name -> [spans, spans in error]."""
    named: dict[bytes, SpanInShort] = field(default_factory=dict)
    """The spans asked for, by id; of several with one id the first."""


class Exemplar(NamedTuple):
    """An exemplar and the data point that it is of. The value is of the exemplar; time in Unix ns."""

    metric: str
    service: str
    point: Any
    exemplar: Any


def log_page(deadline: Deadline, view: View, limit: int, span_id: bytes | None, after: Place | None) -> Page:
    """Return the first `limit` log records behind a place, of the trace that the view is narrowed to; of one span if asked.

    A page ends early at PAGE_BYTES_MAX.
    """
    word = id_words(span_id)[0] if span_id is not None else None

    def select(piece: Slice) -> NDArray[np.intp]:
        block, rows = piece
        if word is not None:
            rows = rows[block.column("span_id")[rows] == word]
        if after is not None:
            times, offsets = block.column("time")[rows], places(block, rows)
            rows = rows[(times > after[0]) | ((times == after[0]) & (offsets > after[1]))]
        return rows

    refs = newest(view, limit + 1, select, after[0] if after else 0, END_OF_TIME, deadline, oldest=True)
    sizes = np.cumsum([int(ref.block.column("length")[ref.row]) for ref in refs])
    fitting = max(1, int(np.searchsorted(sizes, PAGE_BYTES_MAX, side="right")))
    count = min(limit, fitting)
    return Page(refs[:count], len(refs) > count)


def in_short(deadline: Deadline, view: View, wanted: Collection[bytes]) -> TraceInShort | None:
    """Return what is held of the trace that the view is narrowed to, with the `wanted` spans; None for no span at all."""
    words = np.array([id_words(one)[0] for one in wanted], np.uint64)
    ids: list[NDArray[np.uint64]] = []
    parents: list[NDArray[np.uint64]] = []
    found = TraceInShort(Completeness(np.empty(0, np.uint64), 0, 0))
    best: tuple[int, int] | None = None
    for block, rows in slices_of(deadline, view):
        starts, span_ids, named = (block.column(name)[rows] for name in ("time", "span_id", "parent_span_id"))
        ends = np.maximum(starts, block.column("end_time")[rows])
        found.spans += len(rows)
        found.start, found.end = min(found.start, int(starts.min())), max(found.end, int(ends.max()))
        ids.append(span_ids)
        parents.append(named)
        _count_services(found, block, rows)
        roots = np.flatnonzero(named == 0)
        if roots.size:
            at = int(roots[np.argmin(starts[roots])])
            place = int(starts[at]), block.base_offset + int(rows[at])
            if best is None or place < best:
                best, found.root = place, _span(block, int(rows[at]))
        for row in rows[np.isin(span_ids, words)].tolist():
            span = _span(block, row)
            found.named.setdefault(span.span_id, span)
    if not found.spans:
        return None
    found.missing = completeness_of(np.concatenate(ids), np.concatenate(parents), view.first_offset)
    return found


def _count_services(found: TraceInShort, block: Block, rows: NDArray[np.intp]) -> None:
    failed = block.column("status")[rows] == _ERROR
    found.errors += int(failed.sum())
    groups, places = np.unique(block.column("group")[rows], return_inverse=True)
    counts, errors = np.bincount(places), np.bincount(places, failed)
    for at, group in enumerate(groups.tolist()):
        service = found.services.setdefault(service_name(block, group), [0, 0])
        service[0] += int(counts[at])
        service[1] += int(errors[at])


def _span(block: Block, row: int) -> SpanInShort:
    message = record(block, row)
    start = message.start_time_unix_nano
    return SpanInShort(
        message.span_id,
        message.parent_span_id,
        message.name,
        service_name(block, int(block.column("group")[row])),
        start,
        max(start, message.end_time_unix_nano),
        message.status.code == _ERROR,
    )


def exemplars_of(deadline: Deadline, view: View, trace_id: bytes, start_ns: int, end_ns: int) -> list[Exemplar]:
    """Return exemplars that name a trace which ran from `start_ns` to `end_ns`, of points in the ring of metrics.

    The newest points come first, EXEMPLARS_MAX exemplars at most. `view` is of the ring only.
    """
    found: list[Exemplar] = []
    needle = _EXEMPLAR_ID + trace_id
    for block, rows in slices(view, start_ns, min(END_OF_TIME, end_ns + LAG_NS), deadline):
        at = block.payload.find(needle)
        if at < 0:
            continue
        starts = block.column("start")[rows].astype(np.int64)
        ends = starts + block.column("length")[rows]
        order = np.argsort(starts, kind="stable")
        while at >= 0:
            place = int(np.searchsorted(starts[order], at, side="right")) - 1
            following = at + len(needle)
            if place >= 0 and at < ends[order[place]]:
                row = int(rows[order[place]])
                following = int(ends[order[place]])
                found += _exemplars(block, row, trace_id)
                if len(found) >= EXEMPLARS_MAX:
                    return found[:EXEMPLARS_MAX]
            at = block.payload.find(needle, following)
    return found


def _exemplars(block: Block, row: int, trace_id: bytes) -> list[Exemplar]:
    point, group = record(block, row), int(block.column("group")[row])
    metric, service = group_bytes(block, group, "name").decode(), service_name(block, group)
    # A summary's points have none.
    return [
        Exemplar(metric, service, point, one) for one in getattr(point, "exemplars", ()) if one.trace_id == trace_id
    ]
