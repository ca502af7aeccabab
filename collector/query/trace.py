"""Traces by their ids: all the spans that ring, log and backend have of one, or of several at once.

One trace comes from a view that is narrowed to its id. Of several, the ring gives each by its index, and the log is gone
through once for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from collector.otlp.records import Ref, isolate
from collector.query.completeness import completeness_of
from collector.query.reach import ONLY_HELD, Reach
from collector.query.slices import END_OF_TIME, Among, behind_slices, slices
from collector.ring.ring import Snapshot
from collector.store import View

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from collector.query.deadline import Deadline
    from collector.query.slices import Slice

SPANS_MAX = 1_000_000
"""Spans in one returned trace; more are left out, and the answer says so."""
SPREAD_NS = 3600 * 10**9
"""How far from a known span of theirs the spans of several traces are looked for in the log: an hour to both sides."""


@dataclass(slots=True)
class Held:
    """What is held of one trace: spans in their order of arrival, and how many more were left out."""

    refs: list[Ref] = field(default_factory=list)
    left_out: int = 0


def spans_of(deadline: Deadline, view: View, limit: int = SPANS_MAX) -> Held:
    """Return at most `limit` spans of the trace that the view is narrowed to."""
    held = Held()
    for piece in slices_of(deadline, view):
        _take(held, piece, limit - len(held.refs))
    held.refs.sort(key=_arrival)
    return held


def _arrival(ref: Ref) -> tuple[int, int]:
    """Order spans by their arrival; those of a backend come first, by their times."""
    return (-1, ref.time) if ref.offset < 0 else (ref.offset, 0)


def slices_of(deadline: Deadline, view: View) -> Iterator[Slice]:
    """Yield the spans of the trace that the view is narrowed to.

    A backend is asked unless it can have nothing more: the root is there, no parent is missing, and the trace began after
    all that only the backend can have.
    """
    earliest = END_OF_TIME
    ids, parents = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for piece in slices(view, deadline=deadline, hints=ONLY_HELD):
        if view.behind is not None:
            block, rows = piece
            earliest = min(earliest, int(block.column("time")[rows].min()))
            ids.append(block.column("span_id")[rows])
            parents.append(block.column("parent_span_id")[rows])
        yield piece
    if not isinstance(view.behind, Reach):
        return
    named = np.concatenate(parents)
    is_whole = len(named) > 0 and not named.all() and not completeness_of(np.concatenate(ids), named, 0).missing
    if not is_whole or earliest <= view.behind.latest(view):
        among = Among("trace_id", (view.key,))
        yield from behind_slices(view, 0, END_OF_TIME, deadline, among, newest_first=True)


def traces_of(
    deadline: Deadline, views: Sequence[View], everything: View, start_ns: int, end_ns: int, limit: int
) -> dict[bytes, Held]:
    """Return several traces by id: at most `limit` spans together, those of the log only if they began in the range.

    `views` are of the ring only, each narrowed to a trace id; `everything` is of ring and log.
    """
    found: dict[bytes, Held] = {}
    for view in views:
        assert isinstance(view.key, bytes), "a view of a trace"
        held = found[view.key] = Held()
        for piece in slices(view, deadline=deadline):
            limit -= _take(held, piece, limit)
    if everything.log is not None or everything.behind is not None:
        first = everything.ring_offset
        log = View(everything.signal, Snapshot((), first, first), everything.log, None, 0, None)
        among = Among("trace_id", list(found))
        wanted = np.sort(np.array([np.frombuffer(trace, "u8")[1] for trace in found], np.uint64))
        behind = behind_slices(everything, start_ns, end_ns, deadline, among, newest_first=True)
        for piece in chain(slices(log, start_ns, end_ns, deadline, among=among), behind):
            limit -= _take_several(found, wanted, piece, limit)
    for held in found.values():
        held.refs.sort(key=_arrival)
    return found


def _take(held: Held, piece: Slice, room: int) -> int:
    """Take a slice's rows; return how many."""
    block, rows = piece
    held.left_out += max(0, len(rows) - room)
    rows = rows[:room]
    times = block.column("time")[rows].tolist()
    held.refs += [
        Ref(time, block.base_offset + row, block, row) for time, row in zip(times, rows.tolist(), strict=True)
    ]
    return len(rows)


def _take_several(found: dict[bytes, Held], wanted: np.ndarray, piece: Slice, room: int) -> int:
    """Take the rows of wanted traces, whose lower halves are given in order; return how many."""
    block, rows = piece
    lower = block.column("trace_id")[rows, 1]
    at = np.searchsorted(wanted, lower)
    at[at == len(wanted)] = 0
    rows = rows[wanted[at] == lower]
    few = len(rows) * 4 < block.count  # do not hold a block of the log for a few records of it
    taken = 0
    for row in rows.tolist():
        held = found.get(block.column("trace_id")[row].tobytes())
        if held is None:
            continue
        if taken >= room:
            held.left_out += 1
            continue
        ref = Ref(int(block.column("time")[row]), block.base_offset + row, block, row)
        held.refs.append(isolate(ref) if few else ref)
        taken += 1
    return taken


def within(refs: list[Ref], start_ns: int, end_ns: int) -> list[Ref]:
    """Return the spans that overlap the range (Unix ns, inclusive)."""
    if start_ns == 0 and end_ns == END_OF_TIME:
        return refs
    ends = [int(ref.block.column("end_time")[ref.row]) for ref in refs]
    return [ref for ref, end in zip(refs, ends, strict=True) if ref.time <= end_ns and max(ref.time, end) >= start_ns]
