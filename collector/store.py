"""The store: one signal's ring and log, as receivers append to it and queries read it.

The way of one request: `submit` scans it into the block under construction. When no commit is under way, the
block is sealed as soon as it is worth a commit (`GATHER_BYTES`) or a turn of the event loop brings nothing more, and
handed to the log's committer thread; requests that arrive meanwhile make up the next block. So whatever arrives
during a commit becomes one payload, one frame, one write and one sync. When the commit is durable (as `wal.sync`
defines it), the ring admits the block and who waits is told: the ring holds only what the log has.

Everything here runs on the event loop's thread, except for the committer behind the seam and the reading of a
`View`, which is immutable and may happen in any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar, cast

import numpy as np

from collector.errors import Unavailable
from collector.otlp.scan import BlockBuilder
from collector.otlp.tombstones import NONE
from collector.otlp.validate import Accepted, accept, without
from collector.otlp.wire import hash_key
from collector.ring.per_trace import surplus
from collector.ring.postings import key_of_column
from collector.ring.ring import Ring, Snapshot
from collector.wal.deletions import Deletions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.otlp.signals import Signal
    from collector.otlp.terms import Piece, Sought, Terms
    from collector.otlp.tombstones import Tombstones
    from collector.ring.ring import Lookup
    from collector.ring.search import Needed, Search, Stretch
    from collector.wal.log import Log


GATHER_BYTES: Final = 64 * 1024
"""What is worth a commit, about 170 µs of CPU, at once. Less waits for what the event loop still has to read: clients
that wait for their answers come back together when they get them."""
GATHER_S: Final = 0.001
"""The longest such wait."""

MEMO_BYTES_MAX: Final = 48 * 1024 * 1024
"""What queries may remember of one store, at most."""
CANDIDATES_MAX: Final = 8192
"""Records that a view is narrowed to by the postings; of more, every block's key column is asked instead."""

Done = Callable[[Accepted | Exception], None]
"""Told once of a request what was accepted and is durable now, or why nothing is."""


@dataclass(slots=True, eq=False)
class Commit:
    """One block on its way into the log, and who waits for it. What the committer writes is one frame."""

    block: Block
    waiters: list[tuple[Done, Accepted]]

    @property
    def payloads(self) -> tuple[bytes | bytearray, ...]:
        """The frame's payload, in pieces."""
        return (self.block.payload,)

    @property
    def count(self) -> int:
        """The number of records."""
        return self.block.count

    @property
    def min_time(self) -> int:
        """The oldest record's time, Unix ns."""
        return self.block.min_time

    @property
    def max_time(self) -> int:
        """The newest record's time, Unix ns."""
        return self.block.max_time


class Committer(Protocol):
    """Where a commit becomes durable; `collector.wal.commit.Committer` is the one that does it on disk."""

    def submit(self, batch: Commit) -> None:
        """Take a commit; its outcome is reported in order through the callback given at construction."""
        ...


class Remembering(Protocol):
    """What a query language keeps of a store's ring from one query to the next."""

    @property
    def nbytes(self) -> int:
        """What it holds of memory, in bytes."""
        ...


class Behind(Protocol):
    """What lies behind one view: records that neither ring nor log holds; `collector.query.reach.Reach` reads them."""

    missing: list[str]
    """Why answers from the view may lack such records; empty when they do not."""


R = TypeVar("R", bound="Remembering")


class Memo:
    """What queries remember of one store, by a name of theirs. It may be forgotten at any time, and holds nothing that
    could not be read again. For any thread: each method is one operation on a dictionary.
    """

    __slots__ = ("_kept", "bytes_max")

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._kept: dict[str, Remembering] = {}
        self.bytes_max = MEMO_BYTES_MAX
        """What all of it may hold; who adds something keeps to it."""

    def kept(self, name: str, make: Callable[[Memo], R]) -> R:
        """Return what is kept under a name; what `make` returns if nothing is."""
        return cast("R", self._kept.setdefault(name, make(self)))

    @property
    def nbytes(self) -> int:
        """What it holds of memory, in bytes."""
        return sum(one.nbytes for one in tuple(self._kept.values()))

    def forget(self) -> None:
        """Let go of everything. A query that is using some of it keeps that to its end."""
        self._kept.clear()


OPENED: Final[ContextVar[list[View] | None]] = ContextVar("opened", default=None)
"""Where a request collects its views, so that its answer can say what they lack."""
OPENED_MAX: Final = 64
"""Views that are collected; who goes on opening more is no answer, but a stream."""


class View:
    """What one query sees of a signal: a moment of the ring, and the log behind it.

    It holds every block that the ring had, also those that the ring has evicted or merged since, so it is to be
    released as soon as the answer is made: `with store.view() as view`. Read it in any thread; it does not change.
    """

    __slots__ = (
        *("_candidates", "_hidden", "_lookup", "_ring", "_search"),
        *("behind", "deletions", "index", "key", "log", "memo", "signal"),
    )

    def __init__(
        self,
        signal: Signal,
        ring: Snapshot,
        log: Log | None,
        index: str | None,
        key: int | bytes,
        candidates: NDArray[np.int64] | None,
        lookup: Lookup | None = None,
        memo: Memo | None = None,
        search: Search | None = None,
        hidden: Tombstones = NONE,
        deletions: int = 0,
    ) -> None:
        self.deletions = deletions
        """How often something had been deleted by then: what was found out before may be of records that are gone."""
        self.memo = memo
        """What queries remember of the store; None: nothing is."""
        self.signal = signal
        self.log = log
        """None: the ring is all there is, or all that is wanted."""
        self.index = index
        """The index that the view is narrowed by, and the key; None: it is not."""
        self.key = key
        self._ring: Snapshot | None = ring
        self._candidates = candidates
        self._lookup = lookup
        self._search = search
        self._hidden = hidden
        self.behind: Behind | None = None
        """Where what ring and log no longer hold is read from; None: nowhere."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def cut(self, end_offset: int) -> None:
        """See nothing from this offset on, as before it was there."""
        ring = self.ring
        if end_offset >= ring.next_offset:
            return
        blocks = tuple(block for block in ring.blocks if block.base_offset < end_offset)
        self._ring = Snapshot(blocks, min(ring.first_offset, end_offset), end_offset)

    def release(self) -> None:
        """Let go of the ring's blocks. The view cannot be read any more; releasing it again changes nothing."""
        self._ring = self._candidates = self._lookup = self._search = None

    @property
    def ring(self) -> Snapshot:
        """The ring at that moment. AssertionError when the view was released."""
        assert self._ring is not None, "a view is read after its release"
        return self._ring

    @property
    def candidates(self) -> NDArray[np.int64] | None:
        """Offsets of the ring's live records with the key, ascending; None without an index."""
        assert self._ring is not None, "a view is read after its release"
        return self._candidates

    def ring_offsets(self, traces: Sequence[bytes]) -> tuple[NDArray[np.int64], int]:
        """Return offsets of the ring's records of these traces, ascending, and from which offset on these are all.

        A few may be of other traces. From any thread.
        """
        if self._lookup is None:
            return np.empty(0, np.int64), self.ring.next_offset
        keys = [key_of_column(memoryview(trace), 16, 0) for trace in traces]
        return self._lookup.find(keys, self.ring)

    def stretches(self, terms: Terms, needed: Needed, *, newest_first: bool) -> Iterator[Stretch] | None:
        """Return the ring's stretches, with the records in them that can fulfil the terms; see `Search`.

        None: no index knows. From any thread.
        """
        if self._search is None or not terms:
            return None
        found = self._search.stretches(terms, self.ring, needed, newest_first=newest_first)
        if found is None or not self._hidden:
            return found
        hidden = self._hidden
        return (one if one.offsets is None else one._replace(offsets=hidden.left_of(one.offsets)) for one in found)

    def word_counts(self, sought: Sought) -> list[tuple[Piece, int | None]]:
        """Return what the ring's keyword index knows of a text's words; see `Search.counts`. From any thread."""
        return self._search.counts(sought) if self._search is not None else []

    @property
    def first_offset(self) -> int:
        """The oldest offset that can be read, from ring or log."""
        if self.log is None:
            return self.ring.first_offset
        return min(self.log.first_offset, self.ring.first_offset)

    @property
    def ring_offset(self) -> int:
        """The oldest offset that the ring holds."""
        return self.ring.first_offset

    @property
    def next_offset(self) -> int:
        """The offset after the newest record's."""
        return self.ring.next_offset


class Store:
    """Ring and log of one signal."""

    def __init__(self, signal: Signal, ring: Ring, log: Log | None, loop: asyncio.AbstractEventLoop) -> None:
        """Take an empty ring and an open log (None: the ring is all there is). Call `attach` before the first append."""
        self.signal = signal
        self.ring = ring
        self.log = log
        self._loop = loop
        self._builder = BlockBuilder(signal)
        self._waiters: list[tuple[Done, Accepted]] = []
        self._committer: Committer | None = None
        self._scheduled = False
        self._under_way: Commit | None = None
        self._closed = False
        self.memo = Memo()
        """What queries remember, for the next one."""
        self.spans_per_trace = 0
        """Spans of one trace that the ring takes; further ones are rejected. 0: any number. Of a store of traces only."""
        self.behind: Callable[[View], Behind] | None = None
        """Gives each view what lies behind it; None: nothing does."""
        self.deletions = log.deletions if log is not None else Deletions(None, None)
        """What was deleted; see `hide`."""
        self._hides = 0
        self._subscribers: tuple[Callable[[], None], ...] = ()
        self._observers: tuple[Callable[[Block], None], ...] = ()

    def observe(self, observer: Callable[[Block], None]) -> None:
        """Tell `observer` of every block on its way into the log, on the event loop, before it can be read.

        That is when its bytes were just scanned, and lie in the processor's caches: half the cost of looking at them when
        they are durable. A block that cannot be made durable was told as well; the log takes no other one then. The
        observer must be quick, and must not raise.
        """
        self._observers += (observer,)

    @property
    def under_way(self) -> Block | None:
        """The block that is being made durable, which observers have been told of, and the ring does not have yet."""
        return self._under_way.block if self._under_way is not None else None

    def attach(self, committer: Committer) -> None:
        """Set where commits become durable. The committer reports each one to `committed`, from any thread."""
        self._committer = committer

    def replay(self, stopping: Callable[[], bool]) -> Ring:
        """Return a ring with the newest records of the log, for `adopt`. In any thread, before appends.

        Memory is bounded by the ring's own limits. It ends early, with what there is, when `stopping` says so.
        """
        log, ring = self.log, self.ring
        if log is None:
            return ring
        begin = max(log.first_offset, log.next_offset - ring.capacity)
        size = 0
        for frame in log.frames(begin, log.next_offset, newest_first=True):
            size += len(frame.payload)
            if size > ring.max_bytes:
                break
            begin = frame.base_offset
            if stopping():
                return ring
        filled = Ring(self.signal, ring.capacity, ring.max_bytes, begin, keyword_index=ring.keyword_index)
        for block in log.blocks(begin, log.next_offset, cached=False, deleted=True):
            if block.base_offset != filled.next_offset:
                filled.restart(block.base_offset)
            filled.append(block)
            if stopping():
                break
        if filled.next_offset != log.next_offset:
            filled.restart(log.next_offset)
        return filled

    def adopt(self, ring: Ring) -> None:
        """Take a ring that `replay` has filled; until then every query reads the log."""
        ring.resize(self.ring.max_bytes)
        self.ring = ring
        self.hide()
        self._tell()

    def hide(self) -> None:
        """Show nobody what `deletions` has by now. As long as the ring holds some of it, nothing is remembered of the ring:
        what queries remember has a place for every offset."""
        self._hides += 1
        self.ring.hide(self.deletions.hidden)
        if self.ring.hidden:
            self.memo.forget()

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever records were added, until the function that is returned is called.

        That is on the event loop, when a `view` has them already, and before their senders hear of it. `wake` must be
        quick and not raise: it notes that there is something to read, by offset, at the subscriber's own pace.
        """
        self._subscribers += (wake,)

        def unsubscribe() -> None:
            self._subscribers = tuple(one for one in self._subscribers if one is not wake)

        return unsubscribe

    def _tell(self) -> None:
        for wake in self._subscribers:
            wake()

    def append(self, payload: bytes | bytearray) -> asyncio.Future[Accepted]:
        """Take an export request; the future tells what was accepted once that is durable. As `submit` else."""
        future: asyncio.Future[Accepted] = self._loop.create_future()

        def done(outcome: Accepted | Exception) -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.submit(payload, done)
        return future

    def submit(self, payload: bytes | bytearray, done: Done) -> None:
        """Take an export request; `done` is called with what was accepted once that is durable.

        The payload is kept and must not change. Raises Malformed at once when it is no request, and Unavailable when
        the log has failed or the store is closed; `done` gets Unavailable when this commit cannot be made durable. It
        may be called before this returns, must be quick, and must not raise.
        """
        if self._closed:
            raise Unavailable("the daemon is shutting down")
        if self.log is not None and self.log.failed is not None:
            raise Unavailable(f"the log of {self.signal.name} has failed: {self.log.failed}", 5.0)
        accepted = accept(self._builder, payload)
        if self.spans_per_trace and accepted.records:
            accepted = self._limited(accepted)
        if accepted.records == 0:
            done(accepted)
            return
        self._waiters.append((done, accepted))
        if not self._under_way and not self._scheduled:
            self._gather_from(self._builder.records)

    def _limited(self, accepted: Accepted) -> Accepted:
        """Take those spans back that are too many of their traces, of the request that was accepted just now."""
        over = surplus(self.ring, self._builder.added_column("trace_id"), self.spans_per_trace)
        if not over:
            return accepted
        self._builder.add(without(self.signal, self._builder.take_back(), over))
        reason = (
            f"{len(over)} spans rejected: their trace has {self.spans_per_trace} in memory "
            "(stores.traces.max_spans_per_trace)"
        )
        message = f"{accepted.message}; {reason}" if accepted.message else reason
        return Accepted(accepted.records - len(over), accepted.rejected + len(over), message)

    def _gather_from(self, records: int) -> None:
        """Commit in a while: when a turn of the loop brings no more than so many records."""
        self._scheduled = True
        self._loop.call_soon(self._gather, records, self._loop.time() + GATHER_S)

    def _gather(self, records: int, until: float) -> None:
        builder = self._builder
        if records < builder.records and builder.size < GATHER_BYTES and self._loop.time() < until:
            self._loop.call_soon(self._gather, builder.records, until)
        else:
            self._commit()

    def _commit(self) -> None:
        self._scheduled = False
        if not self._builder.records:
            return
        commit = Commit(self._builder.build(self.ring.next_offset), self._waiters)
        self._waiters = []
        self._under_way = commit
        if self._committer is not None:
            self._committer.submit(commit)
        for observer in self._observers:
            observer(commit.block)
        if self._committer is None:
            self._committed(commit, None)

    def committed(self, commit: Commit, outcome: int | BaseException) -> None:
        """Report a commit's outcome, from the committer's thread: its base offset, or why it failed."""
        error = outcome if isinstance(outcome, BaseException) else None
        if error is None and outcome != commit.block.base_offset:
            error = AssertionError(f"the log wrote offset {outcome}, not {commit.block.base_offset}")
        self._loop.call_soon_threadsafe(self._committed, commit, error)

    def _committed(self, commit: Commit, error: BaseException | None) -> None:
        self._under_way = None
        failure = None
        if error is None:
            self.ring.append(commit.block)
            self._tell()
        else:
            failure = Unavailable(f"{self.signal.name} could not be made durable: {error}", 2.0)
        # What came meanwhile is on its way before the answers are, unless it is little: the answers bring more.
        if self._builder.size >= GATHER_BYTES:
            self._commit()
        elif self._builder.records:
            self._gather_from(0)
        for done, accepted in commit.waiters:
            try:
                done(failure or accepted)
            except Exception as defect:  # noqa: BLE001 - one waiter's defect must not cost the others their answer
                self._loop.call_exception_handler({"message": "an answer was not delivered", "exception": defect})

    async def drain(self) -> None:
        """Refuse further appends, and wait until everything taken has been answered."""
        self._closed = True
        while self._under_way or self._builder.records:  # noqa: ASYNC110 - once in a life, at its end
            await asyncio.sleep(0.001)

    def view(
        self, index: str | None = None, key: int | bytes = 0, *, ring_only: bool = False, held_only: bool = False
    ) -> View:
        """Return what a query sees now; with an index, narrowed to records whose key column has this key.

        `key` is bytes for a string or an id (a service, a name, 16 bytes of trace id), a number for a
        severity or a type; `ring_only` leaves the log out, and `held_only` what lies behind ring and log. Call it on the
        event loop; read it anywhere, and release it.
        """
        ring, candidates, lookup = self.ring, None, None
        snapshot = ring.snapshot()  # first: it may evict
        if index is not None:
            number = ring.key(index, key)
            if ring.count(index, number) <= CANDIDATES_MAX:
                candidates = ring.find(index, number)[::-1]
        if "trace_id" in self.signal.indexes:
            lookup = ring.lookup("trace_id")
        log = None if ring_only else self.log
        memo = None if ring.hidden else self.memo
        view = View(
            self.signal,
            snapshot,
            log,
            index,
            key,
            candidates,
            lookup,
            memo,
            ring.search(),
            ring.hidden,
            self._hides,
        )
        if self.behind is not None and not ring_only and not held_only:
            view.behind = self.behind(view)
        opened = OPENED.get()
        if opened is not None and len(opened) < OPENED_MAX:
            opened.append(view)
        return view

    def stats(self) -> dict[str, Any]:
        """Return the signal's part of `/api/stats`."""
        stats = self.ring.stats()
        if self.log is None:
            stats["log"] = {"first_offset": 0, "next_offset": 0, "segments": 0, "bytes": 0}
        else:
            stats["log"] = {
                "first_offset": self.log.first_offset,
                "next_offset": self.log.next_offset,
                "segments": self.log.segment_count,
                "bytes": self.log.byte_size,
            }
        stats["deleted"] = self.deletions.stats()
        return stats


def key_matches(block: Block, index: str, key: int | bytes) -> NDArray[np.bool_]:
    """Tell for each record of a block whether its key column has the key: the same test as the postings'."""
    column = block.column(index)
    if index == "trace_id":
        high, low = np.frombuffer(key if isinstance(key, bytes) else bytes(16), "u8")
        both: NDArray[np.bool_] = np.logical_and(column[:, 0] == high, column[:, 1] == low)
        return both
    matching: NDArray[np.bool_] = np.equal(column, hash_key(key) if isinstance(key, bytes) else key)
    return matching
