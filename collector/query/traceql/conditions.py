"""The spans that fulfil a condition: ring and log gone through newest block first, with what is remembered as a shortcut.

The newest blocks are evaluated as they are, for most searches end there. When more of the ring is wanted, remembered
columns (`remembered.py`) say at once which of its spans are left to look at, or are the answer. In the log, key indexes say
which frames can have the texts that a condition asks for (`keywords.py`).
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

import numpy as np

from collector.otlp.asked import NOTHING
from collector.query.deadline import Deadline
from collector.query.slices import END_OF_TIME, Among, Slice, live_rows, log_slices, ring_blocks
from collector.query.traceql.evaluate import Evaluation
from collector.query.traceql.hints import hints_of
from collector.query.traceql.keywords import terms
from collector.query.traceql.names import Names
from collector.query.traceql.remembered import START, Places, Remembered, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.slices import Wanted
    from collector.query.traceql.ast import Expression
    from collector.query.traceql.remembered import Verdict
    from collector.store import View

_MIN_TIME, _MAX_TIME = attrgetter("min_time"), attrgetter("max_time")
PROBED: Final = 8
"""Blocks of the ring that are evaluated before remembered columns are asked, and that must be left for it."""


def remembered_of(view: View) -> Remembered | None:
    """Return the remembered columns of a view's store."""
    return view.memo.kept("traceql", Remembered) if view.memo is not None else None


def remembered_names(deadline: Deadline, view: View) -> dict[str, set[bytes]] | None:
    """Return the names of the attributes that the ring's live records have, by scope; None when they are not known."""
    return view.memo.kept("traceql names", Names).live(deadline, view) if view.memo is not None else None


def fulfilling(
    deadline: Deadline,
    view: View,
    condition: Expression | None,
    start_ns: int,
    end_ns: int,
    wanted: Wanted = lambda min_ns, max_ns: True,
) -> Iterator[Slice]:
    """Yield the rows of each block that started in [start_ns, end_ns] and fulfil a condition on single spans.

    A view that is narrowed by a key is narrowed by one that the condition demands. Blocks whose time range is not
    `wanted` when their turn comes are passed over, and of the log whole segments.
    """
    yield from in_ring(deadline, view, condition, start_ns, end_ns, wanted)
    yield from in_log(deadline, view, condition, start_ns, end_ns, wanted)


def in_ring(
    deadline: Deadline,
    view: View,
    condition: Expression | None,
    start_ns: int,
    end_ns: int,
    wanted: Wanted = lambda min_ns, max_ns: True,
) -> Iterator[Slice]:
    """Yield what the ring has of `fulfilling`."""
    effort = deadline.effort
    held = blocks = list(ring_blocks(view, newest_first=True, effort=effort))
    if start_ns > 0 or end_ns < END_OF_TIME:
        blocks = [one for one in held if one.max_time >= start_ns and one.min_time <= end_ns]
    if effort is not None:
        effort.within(start_ns, end_ns)
        effort.now.ring.by_time += len(held) - len(blocks)
    remembered = remembered_of(view) if condition is not None else None
    evaluated = passed_over = 0
    for at, block in enumerate(blocks):
        if not wanted(block.min_time, block.max_time):
            passed_over += 1
            none = passed_over == 1 and not wanted(*_reach(view, blocks, at))
            if effort is not None:
                for one in blocks[at:] if none else (block,):
                    effort.left_out(one)
            if none:
                break
            continue
        deadline.check()
        if remembered is not None and condition is not None and evaluated >= PROBED <= len(blocks) - at:
            found = verdict(deadline, view, remembered, condition)
            if found is not None:
                if effort is not None:
                    effort.remembered(str(condition), found.mask, len(blocks) - at, exact=found.exact)
                for piece in _shortened(deadline, view, found, condition, blocks[at:], start_ns, end_ns):
                    if wanted(piece.block.min_time, piece.block.max_time):
                        deadline.check()
                        yield from _evaluated(deadline, piece, None if found.exact else condition)
                break
            remembered = None
        evaluated += 1
        piece = Slice(block, live_rows(view, block, start_ns, end_ns, in_ring=True))
        if effort is not None:
            effort.of_ring(block, piece.rows.size)
        yield from _evaluated(deadline, piece, condition)


def _reach(view: View, blocks: list[Block], at: int) -> tuple[int, int]:
    """Return from when to when the blocks from a place on are, newest first."""
    if len(blocks) == len(view.ring.blocks):
        _, oldest, newest = view.ring.reaches()
        return int(oldest[: len(blocks) - at].min()), int(newest[: len(blocks) - at].max())
    return min(map(_MIN_TIME, blocks[at:])), max(map(_MAX_TIME, blocks[at:]))


def in_log(
    deadline: Deadline,
    view: View,
    condition: Expression | None,
    start_ns: int,
    end_ns: int,
    wanted: Wanted | None = None,
) -> Iterator[Slice]:
    """Yield what the log has of `fulfilling`: of its frames only those are read that can have the condition's texts."""
    among = Among(view.index, (view.key,)) if view.index is not None else None
    asked = terms(condition)
    hints = hints_of(condition) if view.behind is not None else NOTHING
    for piece in log_slices(view, start_ns, end_ns, deadline, among, wanted, asked, hints, newest_first=True):
        yield from _evaluated(deadline, piece, condition)


def is_everything(view: View, condition: Expression | None, start_ns: int, end_ns: int) -> bool:
    """Tell whether every live record of the ring is wanted, whatever it has."""
    return condition is None and all(one.min_time >= start_ns and one.max_time <= end_ns for one in view.ring.blocks)


def positions(
    deadline: Deadline, view: View, condition: Expression | None, start_ns: int, end_ns: int
) -> Places | None:
    """Return which live records of the ring fulfil a condition, counted from its first; None when it is not known at once.

    `rest` gives what else there is.
    """
    remembered = remembered_of(view)
    if remembered is None or len(view.ring.blocks) <= PROBED:
        return None
    if is_everything(view, condition, start_ns, end_ns):
        return range(view.ring.next_offset - view.ring.first_offset)
    starts = remembered.known(deadline, view, START)
    if starts is None:
        return None
    mask = (starts.codes >= np.uint64(start_ns)) & (starts.codes <= np.uint64(end_ns))
    if condition is not None:
        found = verdict(deadline, view, remembered, condition)
        if found is None or not found.exact:
            return None
        if deadline.effort is not None:
            deadline.effort.remembered(str(condition), found.mask, 0, exact=True)
        mask &= found.mask
    return np.flatnonzero(mask)


def rest(deadline: Deadline, view: View, condition: Expression | None, start_ns: int, end_ns: int) -> Iterator[Slice]:
    """Yield what fulfils a condition and is not among the live records of the ring."""
    first = view.ring.first_offset
    for block in view.ring.blocks:
        if block.base_offset >= first:
            break
        rows = live_rows(view, block, start_ns, end_ns, in_ring=True)
        yield from _evaluated(deadline, Slice(block, rows[rows < first - block.base_offset]), condition)
    yield from in_log(deadline, view, condition, start_ns, end_ns)


def _evaluated(deadline: Deadline, piece: Slice, condition: Expression | None) -> Iterator[Slice]:
    if piece.rows.size:
        began = deadline.effort.clock.monotonic() if deadline.effort is not None else 0.0
        rows = Evaluation(piece).matching(condition)
        if deadline.effort is not None and condition is not None:
            deadline.effort.stage(str(condition), len(piece.rows), len(rows), began)
        if rows.size:
            yield Slice(piece.block, rows)


def _shortened(
    deadline: Deadline,
    view: View,
    found: Verdict,
    condition: Expression,
    blocks: list[Block],
    start_ns: int,
    end_ns: int,
) -> Iterator[Slice]:
    """Yield what a verdict leaves of blocks of the ring, the newest first."""
    first = view.ring.first_offset
    offsets = np.flatnonzero(found.mask[: max(0, blocks[0].end_offset - first)]) + first
    bases = np.array([block.base_offset for block in blocks], np.int64)
    begins, ends = np.searchsorted(offsets, bases), np.searchsorted(offsets, [one.end_offset for one in blocks])
    some = begins < ends
    some |= (bases < first) & (view.first_offset < first)
    for at in np.flatnonzero(some).tolist():
        block, begin, end = blocks[at], begins[at], ends[at]
        parts: list[NDArray[np.intp]] = []
        evicted = min(first, block.end_offset)
        if max(view.first_offset, block.base_offset) < evicted:  # in the block's buffers still, and in the log
            rows = live_rows(view, block, start_ns, end_ns, in_ring=True)
            before = Slice(block, rows[rows < evicted - block.base_offset])
            parts += [one.rows for one in _evaluated(deadline, before, condition)]
        if begin < end:
            parts.append((offsets[begin:end] - block.base_offset).astype(np.intp))
        if not parts:
            continue
        rows = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if block.min_time < start_ns or block.max_time > end_ns:
            times = block.column("time")[rows]
            rows = rows[(times >= start_ns) & (times <= end_ns)]
        if rows.size:
            yield Slice(block, rows)
