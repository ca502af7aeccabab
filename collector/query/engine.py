"""The engine under the three query languages: which records a query looks at, in what order, and where it runs.

A query gets a `View` on the event loop and reads it in a worker thread. `slices` walks ring and log as one,
newest block first: blocks outside the time range are not opened, nor blocks of the log that the key indexes know to
be without the view's key or the query's texts, and what is left of a block is narrowed to live records, to the time range and to the key.
`newest` answers the question that most queries end with: the exact newest matches, in a repeatable order (time, then
offset). Blocks older than enough of them are not looked at, and segments not opened. A view of a rare key goes from
posting to posting, not from block to block.

A query runs under a `Deadline`, which it must ask at least once a block.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from collector.errors import Overloaded, QueryTimeout
from collector.otlp.records import Ref, gather, isolate
from collector.store import key_matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from collector.clock import Clock
    from collector.otlp.block import Block
    from collector.otlp.terms import Terms
    from collector.query.effort import Effort
    from collector.store import View

Result = TypeVar("Result")

END_OF_TIME = 2**64 - 1
"""The last nanosecond that a record's time can name."""

Wanted = Callable[[int, int], bool]
"""Tells, when it is its turn, whether what lies between two times (the oldest and the newest, Unix ns) is of interest: a
query that has found enough wants nothing any more that is older than all that. What is of no interest is of none in any
part of it."""

QUERIES_WAITING_MAX = 256
"""Queries running and waiting for a worker; one more is refused as Overloaded."""


FEW_ROWS = 32
"""Records of one block that are looked at together with those of others, where an index has named them."""
GATHERED_MAX = 512
"""Records that are looked at together, from this many on."""


WORK_S = 0.001
"""How long a query works, in seconds, before it looks whether requests are coming in."""
REST = 6.0
"""How many times as long it then rests."""
REST_MAX_S = 0.05
"""How long it rests at most, in seconds."""


class Deadline:
    """A query's time limit, and its switch to stop early.

    Of the threads of a process one at a time runs Python, so a query that computes without a pause takes every second turn
    from the event loop, however many cores there are: records were received at less than half the rate. Therefore it
    rests at its checks while requests are coming in.
    """

    def __init__(self, seconds: float, clock: Clock, received: Callable[[], int] | None = None) -> None:
        """`received` tells how many requests have come in so far, in any thread; None: the query never rests."""
        self.seconds = seconds
        self.clock = clock
        self._received = received
        self._requests = received() if received is not None else 0
        self._rested = clock.monotonic()
        self._end = self._rested + seconds
        self._cancelled = threading.Event()
        self.effort: Effort | None = None
        """Where what the query does is noted; None: nobody asks."""

    def cancel(self) -> None:
        """Let the next check fail: nobody waits for the answer any more."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise QueryTimeout when the time is over; rest if there is reason to."""
        now = self.clock.monotonic()
        if self._received is not None and now - self._rested >= WORK_S:
            requests = self._received()
            if requests != self._requests:
                self._cancelled.wait(min(REST_MAX_S, REST * (now - self._rested)))
                self._requests, now = self._received(), self.clock.monotonic()
            self._rested = now
        if self._cancelled.is_set() or now > self._end:
            raise QueryTimeout(f"the query took longer than {self.seconds:g} s (query.timeout)")


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
) -> Iterator[Slice]:
    """Yield every part of ring and log that can hold records with start_ns <= time <= end_ns.

    A caller that looks at records with certain keys only, and tells them apart itself, names them in `among`: blocks
    of the log without such records may then be missing. So may records that do not fulfil the `terms`. Blocks that `wanted` does not want are missing, too, and of the
    log whole segments, which are then not opened.
    """
    if view.index is not None:
        among = Among(view.index, (view.key,))
    if not newest_first:
        yield from log_slices(view, start_ns, end_ns, deadline, among, wanted, terms, newest_first=False)

    def open_to(oldest: int, newest: int) -> bool:
        return newest >= start_ns and oldest <= end_ns and (wanted is None or wanted(oldest, newest))

    effort = deadline.effort if deadline is not None else None
    if effort is not None:
        effort.within(start_ns, end_ns)
    for block, named in ring_parts(view, terms, open_to, newest_first=newest_first, effort=effort):
        if deadline is not None:
            deadline.check()
        if not open_to(block.min_time, block.max_time):
            if effort is not None:
                effort.left_out(block)
            continue
        rows = live_rows(view, block, start_ns, end_ns, in_ring=True, named=named)
        if effort is not None:
            effort.of_ring(block, rows.size)
        if rows.size:
            yield Slice(block, rows)
    if newest_first:
        yield from log_slices(view, start_ns, end_ns, deadline, among, wanted, terms, newest_first=True)


def ring_parts(
    view: View,
    terms: Terms,
    open_to: Wanted,
    *,
    newest_first: bool,
    effort: Effort | None = None,
) -> Iterator[tuple[Block, NDArray[np.intp] | None]]:
    """Yield the ring's blocks, each with the rows that can fulfil the terms; None: any can.

    What is in a stretch of the ring is not found out when the query is not `open_to` the times in it.
    """
    blocks = view.ring.blocks

    def needed(first: int, end: int) -> bool:
        if first >= end:
            return False
        bases, oldest, newest = view.ring.reaches()
        low, high = np.searchsorted(bases, (first, end - 1), "right").tolist()
        if not high:
            return False  # All of it was deleted.
        low = max(low - 1, 0)
        return open_to(int(oldest[low:high].min()), int(newest[low:high].max()))

    stretches = view.stretches(terms, needed, newest_first=newest_first)
    if stretches is None:
        yield from ((block, None) for block in ring_blocks(view, newest_first=newest_first, effort=effort))
        return
    if effort is not None:
        stretches = effort.searched(blocks, stretches)
    bases = view.ring.reaches().bases
    for first, end, offsets in stretches:
        if first >= end:
            continue
        if offsets is None:
            low, high = np.searchsorted(bases, (first, end - 1), "right").tolist()
            numbers = range(max(low - 1, 0), high)
            for number in reversed(numbers) if newest_first else numbers:
                block = blocks[number]
                begin, last = max(first - block.base_offset, 0), min(end, block.end_offset) - block.base_offset
                yield block, np.arange(begin, last)
            continue
        found = np.searchsorted(bases, offsets, "right") - 1
        rows = (offsets - bases[found]).astype(np.intp)
        cuts = [0, *(np.flatnonzero(np.diff(found)) + 1).tolist(), len(rows)] if len(rows) else [0]
        parts = list(pairwise(cuts))
        for begin, last in reversed(parts) if newest_first else parts:
            yield blocks[found[begin]], rows[begin:last]


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
    *,
    newest_first: bool,
) -> Iterator[Slice]:
    """Yield what the log holds of a view and the ring does not; see `slices`."""
    if view.log is None:
        return
    end = view.ring.blocks[0].base_offset if view.ring.blocks else view.ring.next_offset
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


def newest(
    view: View,
    limit: int,
    select: Callable[[Slice], NDArray[np.intp]],
    start_ns: int = 0,
    end_ns: int = END_OF_TIME,
    deadline: Deadline | None = None,
    *,
    oldest: bool = False,
    terms: Terms = (),
) -> list[Ref]:
    """Return exactly the `limit` newest records that `select` finds, newest first (or oldest, oldest first).

    The order is (time, offset). Blocks that cannot hold a better record than those found are not selected from; nor
    records that do not fulfil the `terms`, see `slices`.
    """
    found: list[Ref] = []
    few: list[Ref] = []  # not looked at yet
    if limit <= 0:
        return found
    worst: tuple[int, int] | None = None  # of the best `limit` so far, once there are so many

    def wanted(min_time: int, max_time: int) -> bool:
        return worst is None or (min_time <= worst[0] if oldest else max_time >= worst[0])

    for piece in slices(view, start_ns, end_ns, deadline, newest_first=not oldest, wanted=wanted, terms=terms):
        block = piece.block
        if terms and len(piece.rows) <= FEW_ROWS and block.end_offset > view.ring_offset:
            few += _refs(block, piece.rows)
            if len(few) < min(max(limit, FEW_ROWS), GATHERED_MAX):
                continue
            refs, few = _selected(few, view, select), []
        else:
            refs = _best(block, select(piece), limit, oldest=oldest)
        if worst is not None:
            refs = [ref for ref in refs if (ref[:2] < worst if oldest else ref[:2] > worst)]
        if block.end_offset <= view.ring_offset and len(refs) * 4 < block.count:
            refs = [isolate(ref) for ref in refs]  # do not hold a block of the log for a few records of it
        found.extend(refs)
        if len(found) >= limit:
            found.sort(key=_order, reverse=not oldest)
            del found[limit:]
            worst = found[-1][:2]
    found.extend(_selected(few, view, select))
    found.sort(key=_order, reverse=not oldest)
    return found[:limit]


def _selected(refs: Sequence[Ref], view: View, select: Callable[[Slice], NDArray[np.intp]]) -> list[Ref]:
    """Return which of some records are selected: asked once for all of them, not for each block they come from."""
    if not refs:
        return []
    block, numbers = gather(refs, view.next_offset)
    rows = select(Slice(block, np.arange(block.count))).tolist()
    return [Ref(refs[numbers[row]].time, refs[numbers[row]].offset, block, row) for row in rows]


def _order(ref: Ref) -> tuple[int, int]:
    return ref[:2]


def _best(block: Block, rows: NDArray[np.intp], limit: int, *, oldest: bool) -> list[Ref]:
    """Return refs to the best `limit` rows of one block."""
    if rows.size > limit:
        order = np.lexsort((rows, block.column("time")[rows]))
        rows = rows[order[:limit] if oldest else order[-limit:]]
    return _refs(block, rows)


def _refs(block: Block, rows: NDArray[np.intp]) -> list[Ref]:
    times, base = block.column("time")[rows], block.base_offset
    return [Ref(time, base + row, block, row) for time, row in zip(times.tolist(), rows.tolist(), strict=True)]


class Engine:
    """The worker threads that queries run in, so that they hold up neither the event loop nor ingest."""

    def __init__(self, threads: int, timeout_s: float, clock: Clock, received: Callable[[], int] | None = None) -> None:
        """Run at most `threads` queries at once, each for at most `timeout_s` seconds, waiting included.

        They rest while the requests counted by `received` become more: see `Deadline`.
        """
        self.clock = clock
        self._received = received
        self.timeout_s = timeout_s
        self._threads = threads
        self._lanes: list[Engine] = []
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="query")
        self._pending = 0
        self._running = asyncio.Semaphore(threads)

    def lane(self) -> Engine:
        """Return an engine over the same threads of which one always stays for others, if there are two."""
        lane = copy(self)
        lane._pending = 0
        lane._running = asyncio.Semaphore(max(1, self._threads - 1))
        self._lanes.append(lane)
        return lane

    def limit(self, timeout_s: float) -> None:
        """Change how long a query may take that begins from now on."""
        for engine in (self, *self._lanes):
            engine.timeout_s = timeout_s

    async def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return `function(deadline, *args)`, run in a worker thread.

        Raises what the function raises, QueryTimeout when it takes too long, and Overloaded when too many
        queries wait already.
        """
        if self._pending >= QUERIES_WAITING_MAX:
            raise Overloaded(f"{self._pending} queries are running or waiting", 1.0)
        deadline = Deadline(self.timeout_s, self.clock, self._received)
        self._pending += 1
        try:
            async with self._running:
                return await asyncio.get_running_loop().run_in_executor(self._pool, function, deadline, *args)
        except asyncio.CancelledError:
            deadline.cancel()
            raise
        finally:
            self._pending -= 1

    def close(self) -> None:
        """Let running queries end and take no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)
