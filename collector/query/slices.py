"""Which records a query looks at, and in what order.

A query gets a `View` on the event loop and reads it in a worker thread (engine.py). `slices` walks ring and log as one,
newest block first: blocks outside the time range are not opened, nor blocks of the log that the key indexes know to
be without the view's key or the query's texts, and what is left of a block is narrowed to live records, to the time
range and to the key. Small blocks of the log that follow each other are looked at as one (together.py). Behind the log
comes what a backend has, if one is read from (reach.py), in the same shape. A view of a rare key goes from posting to
posting, not from block to block.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from collector.otlp.asked import NOTHING, Asked
from collector.otlp.records import Ref
from collector.query.reach import ONLY_HELD, Reach
from collector.query.repeated import without_held
from collector.query.together import together
from collector.ring.search import Stretch
from collector.store import key_matches
from collector.wal.reading import at_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from collector.otlp.asked import Hints
    from collector.otlp.block import Block
    from collector.otlp.terms import Terms
    from collector.query.deadline import Deadline
    from collector.query.effort import Effort
    from collector.store import View

END_OF_TIME = 2**64 - 1
"""The last nanosecond that a record's time can name."""

Wanted = Callable[[int, int], bool]
"""Tells, when it is its turn, whether what lies between two times (the oldest and the newest, Unix ns) is of interest: a
query that has found enough wants nothing any more that is older than all that. What is of no interest is of none in any
part of it."""

SINGLE = 8
"""Blocks of the log, the first of a walk, that are looked at one by one: most questions end with them."""

BLOCKS_FEW = 8
"""Blocks of which each is asked whether it is of interest; of more, arrays are."""


class Slice(NamedTuple):
    """What a query looks at in one block: `rows` are ascending record numbers, never empty."""

    block: Block
    rows: NDArray[np.intp]


class Among(NamedTuple):
    """Records with one of some keys in a key column, as `Store.view` takes them."""

    column: str
    keys: Sequence[int | bytes]


def slices(
    view: View,
    start_ns: int = 0,
    end_ns: int = END_OF_TIME,
    deadline: Deadline | None = None,
    *,
    newest_first: bool = True,
    among: Among | None = None,
    wanted: Wanted | None = None,
    terms: Terms = (),
    hints: Hints = NOTHING,
) -> Iterator[Slice]:
    """Yield every part of ring, log and backend that can hold records with start_ns <= time <= end_ns.

    A caller that looks at records with certain keys only, and tells them apart itself, names them in `among`: blocks
    of the log without such records may then be missing. So may records that do not fulfil the `terms` or, in a backend,
    the `hints`. Blocks that `wanted` does not want are missing, too, and of the
    log whole segments, which are then not opened.
    """
    if view.index is not None:
        among = Among(view.index, (view.key,))
    ring = RingRange(view, start_ns, end_ns, deadline, wanted, newest_first)
    log = log_slices(view, start_ns, end_ns, deadline, among, wanted, terms, hints, newest_first=newest_first)
    if not newest_first:
        yield from log
    yield from ring.slices(terms)
    if newest_first:
        yield from log


class RingRange:
    """What a query looks at in the ring: its part of a view."""

    def __init__(
        self,
        view: View,
        start_ns: int,
        end_ns: int,
        deadline: Deadline | None,
        wanted: Wanted | None,
        newest_first: bool,
    ) -> None:
        self._view = view
        self._start = start_ns
        self._end = end_ns
        self._deadline = deadline
        self._wanted = wanted
        self._newest_first = newest_first
        self._effort = deadline.effort if deadline is not None else None

    def open_to(self, oldest: int, newest: int) -> bool:
        """Tell whether what lies between two times is of interest now."""
        return newest >= self._start and oldest <= self._end and (self._wanted is None or self._wanted(oldest, newest))

    def slices(self, terms: Terms) -> Iterator[Slice]:
        """Yield every part that can hold records of the range which fulfil the terms."""
        for part in self.parts(terms, few=0):
            assert isinstance(part, Slice)
            yield part

    def parts(self, terms: Terms, few: int) -> Iterator[Slice | list[Ref]]:
        """Yield the same; records that an index has named, at most `few` in a block, in lists of about as many."""
        view, effort = self._view, self._effort
        if effort is not None:
            effort.within(self._start, self._end)
        stretches = view.stretches(terms, self._is_needed, newest_first=self._newest_first)
        if stretches is None:
            for block in self._blocks():
                yield from self._slice(block, None)
            return
        blocks = view.ring.blocks
        # What is evicted is in no index, and may still be in the oldest block, with which the log's part ends.
        evicted = Stretch(max(view.first_offset, blocks[0].base_offset) if blocks else 0, view.ring.first_offset, None)
        if blocks and self._is_needed(evicted.first, evicted.end):
            stretches = chain(stretches, (evicted,)) if self._newest_first else chain((evicted,), stretches)
        if effort is not None:
            stretches = effort.searched(blocks, stretches)
        bases = view.ring.reaches().bases
        refs: list[Ref] = []
        for first, end, offsets in stretches:
            if first >= end:
                continue
            if offsets is None:
                low, high = np.searchsorted(bases, (first, end - 1), "right").tolist()
                numbers = range(max(low - 1, 0), high)
                for number in reversed(numbers) if self._newest_first else numbers:
                    block = blocks[number]
                    begin, last = max(first - block.base_offset, 0), min(end, block.end_offset) - block.base_offset
                    yield from self._slice(block, np.arange(begin, last))
                continue
            found = np.searchsorted(bases, offsets, "right") - 1
            rows = (offsets - bases[found]).astype(np.intp)
            cuts = [0, *(np.flatnonzero(np.diff(found)) + 1).tolist(), len(rows)] if len(rows) else [0]
            numbers_of = found[cuts[:-1]].tolist()
            spans = list(zip(numbers_of, pairwise(cuts), strict=True))
            for number, (begin, last) in reversed(spans) if self._newest_first else spans:
                block = blocks[number]
                if last - begin > few or view.index is not None:
                    yield from self._slice(block, rows[begin:last])
                    continue
                refs += self._refs(block, rows[begin:last].tolist())
                if len(refs) >= few:
                    yield refs
                    refs = []
        if refs:
            yield refs

    def _is_needed(self, first: int, end: int) -> bool:
        """Tell whether records of these offsets are of interest."""
        if first >= end:
            return False
        bases, oldest, newest = self._view.ring.reaches()
        low, high = np.searchsorted(bases, (first, end - 1), "right").tolist()
        if not high:
            return False  # All of it was deleted.
        low = max(low - 1, 0)
        return self.open_to(int(oldest[low:high].min()), int(newest[low:high].max()))

    def _is_open(self, block: Block) -> bool:
        """Tell whether a block is of interest, now that it is its turn."""
        if self._deadline is not None:
            self._deadline.check()
        if self.open_to(block.min_time, block.max_time):
            return True
        if self._effort is not None:
            self._effort.left_out(block)
        return False

    def _slice(self, block: Block, named: NDArray[np.intp] | None) -> Iterator[Slice]:
        """Yield what is left of a block, if anything is."""
        if not self._is_open(block):
            return
        rows = live_rows(self._view, block, self._start, self._end, in_ring=True, named=named)
        if self._effort is not None:
            self._effort.of_ring(block, rows.size)
        if rows.size:
            yield Slice(block, rows)

    def _refs(self, block: Block, rows: list[int]) -> list[Ref]:
        """Return what is left of a few rows of a block."""
        if not self._is_open(block):
            return []
        time, base = block.records.number, block.base_offset
        refs = [Ref(time("time", row), base + row, block, row) for row in rows]
        if block.min_time < self._start or block.max_time > self._end:
            refs = [ref for ref in refs if self._start <= ref.time <= self._end]
        if self._effort is not None:
            self._effort.of_ring(block, len(refs))
        return refs

    def _blocks(self) -> Iterator[Block]:
        """Yield the blocks that are of interest, or may be.

        Of many blocks, those that are not are found at once: those of another time, and, when one is not wanted any more,
        whether all behind it are not either.
        """
        blocks = list(ring_blocks(self._view, newest_first=self._newest_first, effort=self._effort))
        if self._effort is not None or len(blocks) <= BLOCKS_FEW:
            yield from blocks
            return
        if len(blocks) == len(self._view.ring.blocks):
            _, oldest, newest = self._view.ring.reaches()
            oldest, newest = (oldest[::-1], newest[::-1]) if self._newest_first else (oldest, newest)
        else:
            oldest = np.fromiter((block.min_time for block in blocks), np.uint64, len(blocks))
            newest = np.fromiter((block.max_time for block in blocks), np.uint64, len(blocks))
        places = np.flatnonzero((newest >= self._start) & (oldest <= self._end))
        first = np.minimum.accumulate(oldest[places][::-1])[::-1]
        last = np.maximum.accumulate(newest[places][::-1])[::-1]
        for number, place in enumerate(places.tolist()):
            block = blocks[place]
            if not self.open_to(block.min_time, block.max_time) and not self.open_to(
                int(first[number]), int(last[number])
            ):
                return
            yield block


def ring_blocks(view: View, *, newest_first: bool, effort: Effort | None = None) -> Iterator[Block]:
    """Yield the ring's blocks, without those that the postings know to have nothing, if the view's key is rare."""
    blocks, offsets = view.ring.blocks, view.candidates
    if effort is not None:
        effort.now.ring.blocks += len(blocks)
    if offsets is None or len(offsets) * 4 >= len(blocks):
        return reversed(blocks) if newest_first else iter(blocks)
    # What is evicted is in no postings, and may still be in the oldest block.
    numbers = {0} if blocks[0].base_offset < view.ring.first_offset else set()
    numbers.update(bisect_right(blocks, offset, key=_base_offset) - 1 for offset in offsets.tolist())
    if effort is not None:
        effort.now.ring.by_index += len(blocks) - len(numbers)
    return iter([blocks[number] for number in sorted(numbers, reverse=newest_first)])


def _base_offset(block: Block) -> int:
    return block.base_offset


def log_slices(
    view: View,
    start_ns: int,
    end_ns: int,
    deadline: Deadline | None,
    among: Among | None,
    wanted: Wanted | None = None,
    terms: Terms = (),
    hints: Hints = NOTHING,
    *,
    newest_first: bool,
) -> Iterator[Slice]:
    """Yield what the ring does not hold of a view: of the log, and behind it of a backend; see `slices`."""
    if not newest_first:
        yield from behind_slices(view, start_ns, end_ns, deadline, among, wanted, hints, newest_first=False)
    if view.log is not None:
        pieces = _of_log(view, start_ns, end_ns, deadline, among, wanted, terms, newest_first=newest_first)
        if among is None or among.column != "trace_id":  # Of those it is a few records that are wanted of a block.
            pieces = together(pieces, newest_first=newest_first, single=SINGLE, before=view.ring_offset)
        yield from pieces
    if newest_first:
        yield from behind_slices(view, start_ns, end_ns, deadline, among, wanted, hints, newest_first=True)
    if isinstance(view.behind, Reach):
        view.behind.compare(view)


def _of_log(
    view: View,
    start_ns: int,
    end_ns: int,
    deadline: Deadline | None,
    among: Among | None,
    wanted: Wanted | None,
    terms: Terms,
    *,
    newest_first: bool,
) -> Iterator[Slice]:
    assert view.log is not None
    end = view.ring.blocks[0].base_offset if view.ring.blocks else view.ring.next_offset
    if view.log.first_offset >= end:
        return
    index, keys = among or (None, ())
    counts = deadline.effort.now.log.read if deadline is not None and deadline.effort is not None else None
    blocks = view.log.blocks(
        0,
        end,
        start_ns,
        end_ns,
        newest_first=newest_first,
        index=index,
        any_of=keys,
        terms=terms,
        wanted=wanted,
        rest=deadline.check if deadline is not None else at_once,
        counts=counts,
    )
    for block in blocks:
        if deadline is not None:
            deadline.check()
        rows = _before(end, block, live_rows(view, block, start_ns, end_ns, in_ring=False))
        if deadline is not None and deadline.effort is not None:
            deadline.effort.of_log(block, rows.size)
        if rows.size:
            yield Slice(block, rows)


IDS_AT_ONCE = 1024
"""Trace ids that a backend is asked for at a time; of more, in several turns."""


def behind_slices(
    view: View,
    start_ns: int,
    end_ns: int,
    deadline: Deadline | None,
    among: Among | None,
    wanted: Wanted | None = None,
    hints: Hints = NOTHING,
    *,
    newest_first: bool,
) -> Iterator[Slice]:
    """Yield what a backend has and neither ring nor log holds; see `slices`.

    The order is that of times, but for records of more than `IDS_AT_ONCE` traces.
    """
    reach = view.behind
    start_ns = max(start_ns, hints.since_ns)
    if not isinstance(reach, Reach):
        return
    end_ns = min(end_ns, reach.latest(view))
    if start_ns > end_ns or (wanted is not None and not wanted(start_ns, end_ns)):
        return
    for asked in _asked(start_ns, end_ns, among, hints, newest_first=newest_first):
        for block in reach.blocks(asked, deadline):
            if deadline is not None:
                deadline.check()
            if wanted is not None and not wanted(block.min_time, block.max_time):
                if deadline is not None and deadline.effort is not None:
                    deadline.effort.of_backend(block, 0)
                rest = (start_ns, block.max_time) if newest_first else (block.min_time, end_ns)
                if not wanted(*rest):
                    break
                continue
            rows = np.arange(block.count)
            if view.index is not None:
                rows = np.flatnonzero(key_matches(block, view.index, view.key))
            if rows.size and (block.min_time < start_ns or block.max_time > end_ns):
                times = block.column("time")[rows]
                rows = rows[(times >= start_ns) & (times <= end_ns)]
            rows = reach.shown(block, rows)
            if rows.size and not reach.keyed:
                held = slices(view, block.min_time, block.max_time, deadline, among=among, hints=ONLY_HELD)
                rows = without_held(block, rows, held)
            if deadline is not None and deadline.effort is not None:
                deadline.effort.of_backend(block, rows.size)
            if rows.size:
                yield Slice(block, rows)


def _asked(start_ns: int, end_ns: int, among: Among | None, hints: Hints, *, newest_first: bool) -> Iterator[Asked]:
    """Yield what a backend is asked for, one after the other."""
    column, keys = among or ("", ())
    texts = tuple(key.decode(errors="replace") for key in keys if isinstance(key, bytes) and column != "trace_id")
    asked = Asked(
        start_ns,
        end_ns,
        newest_first,
        services=texts if column == "service" else hints.services,
        names=texts if column == "name" else hints.names,
        named=hints.named,
        severities=tuple(key for key in keys if isinstance(key, int)) if column == "severity" else (),
        texts=hints.texts,
        attributes=hints.attributes,
    )
    if column != "trace_id":
        yield asked
        return
    ids = tuple(key for key in keys if isinstance(key, bytes))
    for at in range(0, len(ids), IDS_AT_ONCE):
        yield replace(asked, trace_ids=ids[at : at + IDS_AT_ONCE])


def _before(end: int, block: Block, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Leave out what the ring holds too: compaction merges frames across the place where the ring begins."""
    return rows if block.end_offset <= end else rows[rows < end - block.base_offset]


def live_rows(
    view: View, block: Block, start_ns: int, end_ns: int, *, in_ring: bool, named: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """Return the rows of a block that are readable, have the view's key and lie in the time range.

    Only those are looked at that are `named`, which are readable.
    """
    if block.max_time < start_ns or block.min_time > end_ns:
        return np.empty(0, np.intp)
    first = max(0, view.first_offset - block.base_offset)
    if named is not None:
        rows = named if view.index is None else named[key_matches(block, view.index, view.key)[named]]
    elif view.index is None:
        rows = np.arange(first, block.count)
    elif in_ring and view.candidates is not None:
        begin, end = np.searchsorted(view.candidates, (block.base_offset, block.end_offset))
        rows = (view.candidates[begin:end] - block.base_offset).astype(np.intp)
        evicted = view.ring.first_offset - block.base_offset
        if evicted > first:  # not in the postings any more, but still in this block's buffers, and in the log
            matching = np.flatnonzero(key_matches(block, view.index, view.key))
            rows = np.concatenate((matching[(matching >= first) & (matching < evicted)], rows))
    elif block.may_have(view.index, view.key):
        rows = np.flatnonzero(key_matches(block, view.index, view.key))
        rows = rows[rows >= first]
    else:
        return np.empty(0, np.intp)
    if in_ring and block.end_offset > view.next_offset:
        rows = rows[rows < view.next_offset - block.base_offset]
    if rows.size and (block.min_time < start_ns or block.max_time > end_ns):
        times = block.column("time")[rows]
        rows = rows[(times >= start_ns) & (times <= end_ns)]
    return rows
