"""The engine under the three query languages: which records a query looks at, in what order, and where it runs.

A query gets a `View` on the event loop and reads it in a worker thread. `slices` walks ring and log as one,
newest block first: blocks outside the time range are not opened, nor blocks of the log that the key indexes know to
be without the view's key or the query's texts, and what is left of a block is narrowed to live records, to the time range and to the key.
Behind the log comes what a backend has, if one is read from (reach.py), in the same shape.
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
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from collector.errors import Overloaded, QueryTimeout
from collector.otlp.asked import NOTHING, Asked
from collector.otlp.records import Ref, isolate
from collector.query.best import Best, best_of, refs_of, split_off
from collector.query.reach import ONLY_HELD, Reach
from collector.query.repeated import without_held
from collector.ring.search import Stretch
from collector.store import key_matches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from numpy.typing import NDArray

    from collector.clock import Clock
    from collector.otlp.asked import Hints
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
"""Records that are looked at one by one, where an index has named them and they are of many blocks, at once."""
BLOCKS_FEW = 8
"""Blocks of which each is asked whether it is of interest; of more, arrays are."""


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

    def __init__(
        self,
        seconds: float,
        clock: Clock,
        received: Callable[[], int] | None = None,
        idle: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`received` tells how many requests have come in so far, in any thread; None: the query never rests. `idle` is
        entered while the query waits."""
        self.seconds = seconds
        self.clock = clock
        self._received = received
        self._requests = received() if received is not None else 0
        self._rested = clock.monotonic()
        self._end = self._rested + seconds
        self._cancelled = threading.Event()
        self.effort: Effort | None = None
        """Where what the query does is noted; None: nobody asks."""
        self._idle = idle

    @property
    def left_s(self) -> float:
        """The time that is left, in seconds."""
        return max(0.0, self._end - self.clock.monotonic())

    def idle(self) -> AbstractContextManager[None]:
        """Return what lets another query run while this one waits for something outside."""
        return self._idle()

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
    ring = _Range(view, start_ns, end_ns, deadline, wanted, newest_first)
    log = log_slices(view, start_ns, end_ns, deadline, among, wanted, terms, hints, newest_first=newest_first)
    if not newest_first:
        yield from log
    yield from ring.slices(terms)
    if newest_first:
        yield from log


class _Range:
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
        yield from _of_log(view, start_ns, end_ns, deadline, among, wanted, terms, newest_first=newest_first)
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
    hints: Hints = NOTHING,
    among_few: Callable[[list[Ref]], list[Ref]] | None = None,
) -> list[Ref]:
    """Return exactly the `limit` newest records that `select` finds, newest first (or oldest, oldest first).

    The order is (time, offset). Blocks that cannot hold a better record than those found are not selected from; nor
    records that do not fulfil the `terms`, see `slices`. Where these leave a few records of many blocks, `among_few`
    selects among those, if it is given, at most FEW_ROWS at once; it agrees with `select`.
    """
    if limit <= 0:
        return []
    best = Best(limit, oldest=oldest)
    ring = _Range(view, start_ns, end_ns, deadline, best.wants, not oldest)
    among = Among(view.index, (view.key,)) if view.index is not None else None
    log = log_slices(view, start_ns, end_ns, deadline, among, best.wants, terms, hints, newest_first=not oldest)
    few = min(limit, FEW_ROWS) if terms and among_few is not None else 0
    parts: tuple[Iterator[Slice | list[Ref]], ...] = (ring.parts(terms, few), log)
    is_dense = True  # nearly all records that the terms leave are found
    for part in chain(*(reversed(parts) if oldest else parts)):
        if isinstance(part, list):
            assert among_few is not None
            best.add_of(part, among_few, few)
            continue
        block, rows = part
        in_ring = block.end_offset > view.ring_offset
        if few and is_dense and in_ring and limit <= few < len(rows):
            # The best of a block are most of what is wanted of it.
            rows, tried = split_off(block, rows, limit, oldest=oldest)
            assert among_few is not None
            is_dense = best.add_of(refs_of(block, tried), among_few, few) * 2 >= limit
            if not best.wants_one_of(block, rows):
                continue
        refs = best.better(best_of(block, select(Slice(block, rows)), limit, oldest=oldest))
        if not in_ring and len(refs) * 4 < block.count:
            refs = [isolate(ref) for ref in refs]  # do not hold a block of the log for a few records of it
        best.add(refs)
    return best.found()


IDLE_MAX = 16
"""Queries that wait for something outside, at once, and let others run meanwhile."""
IDLE_LOOK_S = 0.1
"""How often a query that waits for its turn looks whether the engine is being closed."""


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
        # Threads are made when there is work for them, so without waiting queries there are no more than `threads`.
        self._pool = ThreadPoolExecutor(threads + IDLE_MAX, thread_name_prefix="query")
        self._pending = 0
        self._running = asyncio.Semaphore(threads)
        self._all_running = self._running
        self._may_idle = threading.Semaphore(IDLE_MAX)
        self._closing = threading.Event()

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
        loop = asyncio.get_running_loop()
        deadline = Deadline(self.timeout_s, self.clock, self._received, partial(self._idle, loop))
        self._pending += 1
        try:
            async with self._turn():
                return await loop.run_in_executor(self._pool, function, deadline, *args)
        except asyncio.CancelledError:
            deadline.cancel()
            raise
        finally:
            self._pending -= 1

    def at_once(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return `function(deadline, *args)`, run here: for lookups in memory that take less than a worker thread to begin,
        some 0.1 ms."""
        return function(Deadline(self.timeout_s, self.clock), *args)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a turn among the queries of the lane, and among all."""
        async with self._running:
            if self._all_running is self._running:
                yield
                return
            async with self._all_running:
                yield

    @contextmanager
    def _idle(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """In a query's thread: let another query have its turn, and wait for one again at the end."""
        if not self._may_idle.acquire(blocking=False):
            yield
            return
        turns = [self._all_running] if self._all_running is self._running else [self._all_running, self._running]
        try:
            for one in turns:
                loop.call_soon_threadsafe(one.release)
            try:
                yield
            finally:
                again = asyncio.run_coroutine_threadsafe(_acquired(*reversed(turns)), loop)
                while not again.done() and not self._closing.is_set():  # The loop waits for threads then.
                    wait([again], timeout=IDLE_LOOK_S)
        finally:
            self._may_idle.release()

    def close(self) -> None:
        """Let running queries end and take no more."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


async def _acquired(*turns: asyncio.Semaphore) -> None:
    for one in turns:
        await one.acquire()
