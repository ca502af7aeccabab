"""Reaching back: the records that neither ring nor log holds any more, read from a backend as blocks, for the same engine.

The daemon gives each store a `Way` to the backend that is configured for reading; a view takes a `Reach` from it, and
`behind_slices` (slices.py) reads by that what lies behind ring and log. This room knows no backend: `Way` is given a function
that yields blocks for what is `Asked` (otlp/asked.py), which is told as much as is certain of what the query wants.

Which records are where: a store holds the records of its own instance from an offset on, and the function leaves exactly
those out, so no record comes twice; what a backend without offsets gives again is known by its content (repeated.py). It
is asked only when the time range begins before the oldest held record arrived, `SKEW_NS` added for clocks that are ahead:
what arrived earlier can be in the backend only. `shared` backends, which other instances write to as well, are asked about
every time. Traces that were deleted, and of which the backend has not been told yet, are left out here.

Offsets: records of a backend have none here. They get negative ones, ascending with their times, which name a record
within one pass only; where an order has to be the same in the next query, query/places.py has numbers for them.

A backend may be away, slow, or wrong. Waiting for it ends with `timeout_s` for each view; then, and when it fails, the
answer is made of what there is, and `missing` says so: every API tells it. After a failure it is left alone for `REST_S`.
Memory: one block that is read and one on its way, for each query. While a query waits, another one may run in its place
(`Deadline.idle`).

A read is one task on the event loop, which feeds a thread through a queue of one block; closing the iterator cancels it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import QueryTimeout, RingtailError
from collector.otlp.asked import Hints
from collector.otlp.block import Block
from collector.otlp.signals import METRICS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from numpy.typing import NDArray

    from collector.clock import Clock
    from collector.otlp.asked import Asked
    from collector.query.deadline import Deadline
    from collector.store import View
    from collector.wal.deletions import Pending
    from collector.wal.log import Log

SKEW_NS: Final = 600 * 10**9
"""How far a record's time may lie behind its arrival, because the sender's clock is ahead: ten minutes."""
END_OF_TIME: Final = 2**64 - 1
TIMEOUT_S: Final = 10.0
REST_S: Final = 5.0
"""How long a backend that has failed, or was too slow, is not asked again."""
SHARE: Final = 0.5
"""How much of the time that a query has left it may wait for a backend, so that it can answer with what there is."""
PATIENCE_S: Final = 0.02
"""How long a query waits for the next block before it lets another one run."""
LOOK_S: Final = 0.1
"""How often a query that waits looks whether anybody still wants its answer."""
OLDEST: Final = -(2**62)
"""The offset of the first record, where the oldest come first."""
ONLY_HELD: Final = Hints(since_ns=2**64)
"""For a query that wants nothing of a backend."""
NO_TRACES: Final = np.empty((0, 2), np.uint64)
MESSAGE_MAX: Final = 300
"""Characters of a reason."""


class Way:
    """How the queries of one store reach a backend. Made on the event loop; for any thread."""

    def __init__(
        self,
        name: str,
        read: Callable[[Asked, int], AsyncIterator[Block]],
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        logger: Any,
        *,
        timeout_s: float = TIMEOUT_S,
        rest_s: float = REST_S,
        shared: bool = False,
        keyed: Callable[[], bool] = lambda: True,
        pending: Callable[[], tuple[Pending, ...]] = tuple,
    ) -> None:
        """`read` yields blocks of what is asked, on the event loop, without this store's records from an offset on; it
        raises RingtailErrors. When it is not `keyed`, it gives those, too. `name` is the exporter's. `pending` tells
        which deletions backends do not know of yet."""
        self.name = name
        self.loop = loop
        self.clock = clock
        self.timeout_s = timeout_s
        self._rest_s = rest_s
        self.shared = shared
        self.keyed = keyed
        self._pending = pending
        self._deleted: tuple[tuple[Pending, ...], NDArray[np.uint64]] = ((), NO_TRACES)
        self.read = read
        self._logger = logger
        self._began_ns = clock.now_ns()
        self._rests_until = 0.0
        self._failing = ""
        self._arrival = (-1, 0)
        self.reads = 0
        """How often the backend was asked."""
        self.failures = 0
        """How often it has failed, or was too slow."""
        self.records = 0
        """How many records it gave."""

    def reach(self, view: View) -> Reach:
        """Return what lies behind a view; on the event loop."""
        return Reach(self, view.first_offset)

    def arrived(self, first_offset: int, view: View) -> int:
        """Return when the oldest record that a view can read arrived, Unix ns, or a later time. In a query's thread."""
        if view.log is None:
            return self._began_ns if first_offset == 0 else END_OF_TIME
        offset, arrival = self._arrival
        if offset != first_offset:
            arrival = _appended(view.log, first_offset)
            if arrival != END_OF_TIME:
                self._arrival = (first_offset, arrival)
        return arrival

    @property
    def deleted(self) -> NDArray[np.uint64]:
        """The ids of traces that were deleted, and that the backend still has: rows of two words."""
        pending = self._pending()
        if pending is not self._deleted[0]:
            ids = {one for deletion in pending if self.name in deletion.backends for one in deletion.trace_ids}
            words = np.frombuffer(bytes.fromhex("".join(sorted(ids))), np.uint64).reshape(-1, 2)
            self._deleted = (pending, words)
        return self._deleted[1]

    @property
    def resting(self) -> str:
        """Why it is not asked now; empty when it is."""
        return self._failing if self.clock.monotonic() < self._rests_until else ""

    def stats(self) -> dict[str, Any]:
        """Return figures for `/api/stats`."""
        return {"reads": self.reads, "records": self.records, "failures": self.failures, "failing": self._failing}

    def failed(self, reason: str) -> None:
        """Note that a read came to nothing, or only to a part of what was asked."""
        self.failures += 1
        self._rests_until = self.clock.monotonic() + self._rest_s
        if not self._failing:
            self._logger.warning("queries do not reach back", backend=self.name, reason=reason)
        self._failing = reason

    def worked(self) -> None:
        """Note that a read was answered."""
        if self._failing:
            self._logger.info("queries reach back again", backend=self.name)
            self._failing = ""


def _appended(log: Log, offset: int) -> int:
    try:
        return log.read(offset).append_time
    except RingtailError:
        return END_OF_TIME  # There is none yet, or it was removed or damaged: the backend is asked.


class Reach:
    """What lies behind one view. For the thread of its query."""

    def __init__(self, way: Way, held_from: int) -> None:
        """The view holds the store's records from `held_from` on."""
        self._way = way
        self._held_from = held_from
        self._waited_s = 0.0
        self.missing: list[str] = []
        """Why answers from this view may lack records; empty when they do not."""

    @property
    def keyed(self) -> bool:
        """Whether what is held is left out; else who reads must know it again (repeated.py)."""
        return self._way.keyed()

    def shown(self, block: Block, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the rows that are of no trace that was deleted."""
        deleted = self._way.deleted
        if not len(deleted) or block.signal is METRICS:
            return rows
        words = block.column("trace_id")[rows]
        near = np.flatnonzero(np.isin(words[:, 1], deleted[:, 1]))
        gone = {one.tobytes() for one in deleted}
        return np.delete(rows, [at for at in near.tolist() if words[at].tobytes() in gone])

    def latest(self, view: View) -> int:
        """Return the latest time that a record may have which only the backend has, Unix ns."""
        if self._way.shared:
            return END_OF_TIME
        return min(END_OF_TIME, self._way.arrived(self._held_from, view) + SKEW_NS)

    def tell(self, reason: str) -> None:
        """Note why records may be missing, once."""
        if reason not in self.missing:
            self.missing.append(reason)

    def compare(self, view: View) -> None:
        """Note it when the log has removed what the backend was not asked for, since it is held."""
        if view.log is not None and view.log.first_offset > self._held_from:
            self.tell("records were removed from the log while it was read")

    def blocks(self, asked: Asked, deadline: Deadline | None) -> Iterator[Block]:
        """Yield blocks in the order asked for, with negative offsets. What goes wrong is told by `missing`.

        Raises QueryTimeout when the query's own time is over, or nobody waits for it.
        """
        way = self._way
        if reason := way.resting:
            self.tell(_partial(way.name, reason))
            return
        base = 0 if asked.newest_first else OLDEST
        way.reads += 1
        if deadline is not None and deadline.effort is not None:
            deadline.effort.now.backend.asked += 1
        feed = _Feed(way, asked, self._held_from)
        try:
            while True:
                block = self._next(feed, deadline)
                if block is None:
                    way.worked()
                    return
                way.records += block.count
                base -= block.count if asked.newest_first else 0
                yield Block(
                    block.signal, base, block.payload, block.records, block.groups, block.min_time, block.max_time
                )
                base += 0 if asked.newest_first else block.count
        except QueryTimeout:
            raise
        except RingtailError as error:
            self._give_up(str(error))
        except Exception as error:  # noqa: BLE001 - a defect of a backend is not the end of a query
            self._give_up(f"a defect: {error!r}")
        finally:
            feed.close()

    def _give_up(self, reason: str) -> None:
        self._way.failed(reason)
        self.tell(_partial(self._way.name, reason))

    def _next(self, feed: _Feed, deadline: Deadline | None) -> Block | None:
        """Wait for a block; None at the end."""
        clock = self._way.clock
        began = clock.monotonic()
        left = self._way.timeout_s - self._waited_s
        if deadline is not None:
            left = min(left, SHARE * deadline.left_s)
        try:
            try:
                return feed.get(PATIENCE_S)
            except Empty:
                pass
            with deadline.idle() if deadline is not None else contextlib.nullcontext():
                while True:
                    if deadline is not None:
                        deadline.check()
                    waited = clock.monotonic() - began
                    if waited >= left:
                        raise _TooSlow(f"no answer within {max(0.0, left):.3g} s (query.backend_timeout)")
                    try:
                        return feed.get(min(LOOK_S, max(0.001, left - waited)))
                    except Empty:
                        continue
        finally:
            waited = clock.monotonic() - began
            self._waited_s += waited
            if deadline is not None and deadline.effort is not None:
                deadline.effort.now.backend.seconds += waited


class _TooSlow(RingtailError):
    """A backend takes longer than a query may wait."""


class _Feed:
    """One read: a task on the event loop that puts blocks where a thread takes them."""

    def __init__(self, way: Way, asked: Asked, held_from: int) -> None:
        self._way = way
        self._asked = asked
        self._held_from = held_from
        self._blocks: SimpleQueue[Block | BaseException | None] = SimpleQueue()
        self._room = asyncio.Semaphore(1)
        self._task: asyncio.Task[None] | None = None
        self._closed = threading.Event()
        self._call(self._begin)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self._way.loop.call_soon_threadsafe(function)
        except RuntimeError as error:  # The loop is closed: the daemon ends.
            self._blocks.put(_TooSlow(str(error)))

    def get(self, timeout_s: float) -> Block | None:
        """Return the next block; None at the end. Raises Empty when there is none yet, and what the backend raises."""
        found = self._blocks.get(timeout=timeout_s)
        if isinstance(found, BaseException):
            raise found
        if found is not None:
            self._call(self._room.release)
        return found

    def close(self) -> None:
        """Let the task end, if it has not."""
        self._closed.set()
        self._call(self._end)

    def _begin(self) -> None:
        if not self._closed.is_set():
            self._task = self._way.loop.create_task(self._run())

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            blocks = self._way.read(self._asked, self._held_from)
            try:
                async for block in blocks:
                    await self._room.acquire()
                    self._blocks.put(block)
            finally:
                close = getattr(blocks, "aclose", None)
                if close is not None:
                    await close()
        except asyncio.CancelledError:
            self._blocks.put(_TooSlow("the read was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 - raised in the query's thread
            self._blocks.put(error)
        else:
            self._blocks.put(None)


def _partial(name: str, reason: str) -> str:
    return f"older records may be missing here: the backend {name} could not be read: {reason[:MESSAGE_MAX]}"
