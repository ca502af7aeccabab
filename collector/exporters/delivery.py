"""A delivery: what takes one source's records to one exporter, in order, until each has been taken.

A delivery follows the log by offset. It makes a batch as soon as there are `min_size` records, or the first one has
waited for `flush_timeout`; reads it in a thread, from the ring where that holds it, else from the log; and hands it to
the exporter. While batches are under way, as many as `num_consumers`, it reads no further: so it holds that much of memory
and no more, and whoever is slow only falls behind. The log is the queue. Ingest does not wait for anything here.

    log      ......|=======================================|
                   position          taken                 end
                      |--- under way ---|--- lag ---------|

The cursor moves to the end of a batch when it and all before it were taken, or given up with a reason. It is written
after each batch, and synced `SYNC_S` later at the latest; what a crash takes back is handed over again. For an exporter
that is `steady`, the bounds of a batch are written and synced before it is handed over, so that it comes again as the
same batch.

Only what is on the disk is shipped: records that a power cut may take back would leave their offsets to others. Where
the log is not synced with each commit, a delivery waits `SETTLE_S` for that, and then syncs it itself.

What retention has removed from the log before it was sent is counted as lost, and logged. What a destination refuses, or
does not take now, is handover.py's matter.

Owner: the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from collector.errors import RingtailError, Unavailable
from collector.exporters.base import Batch
from collector.exporters.figures import Counts, Figures
from collector.exporters.handover import REST_S, Handover
from collector.exporters.marks import Marks
from collector.exporters.reading import UNLIMITED, Limits, gather
from collector.store import View
from collector.wal.cursor import BOUNDS_MAX, State
from collector.wal.lag import lag

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.exporters.base import Exporter, Source
    from collector.exporters.dead_letters import DeadLetters
    from collector.exporters.handover import Parts
    from collector.exporters.reading import Gathered
    from collector.exporters.settings import ExporterSettings
    from collector.otlp.block import Block
    from collector.store import Store
    from collector.wal.cursor import Cursor

SYNC_S: Final = 0.1
"""How long a cursor's step may wait for its sync."""
SETTLE_S: Final = 1.0
"""How long records may wait for the log to be synced, before a delivery does that."""


@dataclass(slots=True, eq=False)
class _Flight:
    """A batch under way."""

    first_offset: int
    end_offset: int
    nbytes: int
    task: asyncio.Task[None] | None = None

    @property
    def landed(self) -> bool:
        return self.task is None or self.task.done()


class Delivery:
    """See the module. `start` begins, `stop` ends; in between it looks after itself."""

    def __init__(
        self,
        source: Source,
        store: Store,
        exporter: Exporter,
        settings: ExporterSettings,
        cursor: Cursor | None,
        dead_letters: DeadLetters | None,
        counts: Counts,
        duration: Any,
        parts: Parts,
        position: int,
    ) -> None:
        """Deliver a store's records to an exporter, which has started when `start` is called. Without a log there are
        neither a cursor nor dead letters, and it begins at `position`. `duration` is a histogram of attempts."""
        self.source = source
        self.counts = counts
        self.bytes_max = settings.sending_queue.batch.max_bytes
        """Bytes of one batch, at most: the memory that there is may allow less than the settings."""
        self._handover = Handover(
            exporter, settings, dead_letters, counts, duration, parts, lambda: self.figures().records
        )
        self._store = store
        self._exporter = exporter
        self._settings = settings
        self._cursor = cursor
        self._parts = parts
        self._position = cursor.state.position if cursor is not None else position
        self._taken = self._position
        self._bounds = deque(cursor.state.bounds if cursor is not None else ())
        self._window: deque[_Flight] = deque()
        self._rest: Block | None = None
        self._changed = asyncio.Event()
        self._hungry = False  # for records: there is room for another batch
        self._stopping = False
        self._flush_at: float | None = None
        self._settled = 0
        self._sync_at: float | None = None
        self._marks = Marks()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    # --- what it tells ----------------------------------------------------------------------------------------

    @property
    def failing(self) -> str:
        """Why the destination took nothing at the last attempt; empty when it did."""
        return self._handover.failing

    @failing.setter
    def failing(self, reason: str) -> None:
        self._handover.failing = reason

    @property
    def position(self) -> int:
        """Everything before this offset was delivered, or given up with a reason."""
        return self._position

    @property
    def end(self) -> int:
        """The offset behind the newest record."""
        return self._store.ring.next_offset

    @property
    def held_bytes(self) -> int:
        """What batches hold of memory."""
        rest = self._rest.nbytes if self._rest is not None else 0
        return rest + sum(flight.nbytes for flight in self._window if not flight.landed)

    def figures(self) -> Figures:
        """Tell how far it is behind."""
        records = max(0, self.end - self._position)
        if not records:
            return Figures(self._position, 0, 0, 0.0)
        log = self._store.log
        size, since = lag(log.segments, self._position) if log is not None else (self._store.ring.total_bytes, 0)
        received = self._marks.received(self._position)
        if received is not None and (self._marks.covers(self._position) or not since):
            seconds = self._parts.clock.monotonic() - received
        else:
            seconds = (self._parts.clock.now_ns() - since) / 1e9 if since else 0.0
        return Figures(self._position, records, size, max(0.0, seconds))

    def stats(self) -> dict[str, Any]:
        """Return this delivery's part of `/api/stats`."""
        figures, counts = self.figures(), self.counts
        return {
            "position": figures.position,
            "lag_records": figures.records,
            "lag_bytes": figures.size,
            "lag_seconds": round(figures.seconds, 3),
            "in_flight_batches": sum(not flight.landed for flight in self._window),
            "in_flight_bytes": self.held_bytes,
            "sent_records": counts.sent,
            "sent_bytes": counts.sent_bytes,
            "refused_records": counts.refused,
            "dead_letter_records": counts.dead_letters,
            "lost_records": sum(counts.lost.values()),
            "failing": self.failing,
        }

    # --- its life ---------------------------------------------------------------------------------------------

    def start(self, position: int | None = None) -> None:
        """Begin; at `position`, if that is later than the cursor, because the destination has everything before."""
        if position is not None and position > self._position:
            self._position = self._taken = min(position, self.end)
        while self._bounds and self._bounds[0] <= self._position:
            self._bounds.popleft()
        self._marks.note(self.end, self._parts.clock.monotonic())
        self._unsubscribe = self._store.subscribe(self._wake)
        self._task = asyncio.create_task(self._run(), name=f"delivery of {self.source.signal.name}")

    async def stop(self, grace_s: float) -> None:
        """End: what is under way has so long to be taken; without a log, so has everything else. Then it is given up, and
        handed over again after the next start, if there is a log."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._stopping = True
        self._changed.set()
        if self._task is not None:
            _, pending = await asyncio.wait([self._task], timeout=grace_s)
            for task in (*pending, *(flight.task for flight in self._window if flight.task is not None)):
                task.cancel()
            await asyncio.gather(
                self._task,
                *(flight.task for flight in self._window if flight.task is not None),
                return_exceptions=True,
            )
        self._advance()
        if self._cursor is not None:
            try:
                await self._threaded(self._put_and_close, self._state())
            except Unavailable as error:
                self._parts.logger.warning("cursor not written", reason=str(error))

    def _put_and_close(self, state: State) -> None:
        assert self._cursor is not None
        try:
            self._cursor.put(state, sync=True)
        finally:
            self._cursor.close()

    def _wake(self) -> None:
        """There are new records."""
        end = self.end
        self._marks.note(end, self._parts.clock.monotonic())
        waiting = end - self._taken
        if self._hungry and (self._flush_at is None or waiting >= self._settings.sending_queue.batch.min_size):
            self._changed.set()

    async def _run(self) -> None:
        """Make batches, and see to it that they are delivered."""
        while True:
            try:
                if await self._turn():
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, the records wait, and are tried again
                self._parts.logger.warning("export rests", reason=_told(error))
                await self._parts.sleep(REST_S)

    async def _turn(self) -> bool:
        """Do what there is to do now, and wait for more; True at the end."""
        self._changed.clear()
        if self._advance():
            await self._note()
        flush = self._stopping and self._store.log is None
        if self._stopping and not (flush and self._taken < self.end) and not self._window:
            return True
        self._hungry = len(self._window) < self._consumers and (flush or not self._stopping)
        if self._hungry and self._is_due():
            await self._begin()
        else:
            await self._wait()
        return False

    @property
    def _consumers(self) -> int:
        return min(self._settings.sending_queue.num_consumers, max(1, self._exporter.parallel))

    def _is_due(self) -> bool:
        """Tell whether it is time for a batch."""
        waiting = self.end - self._taken
        if waiting <= 0:
            self._flush_at = None
            return False
        batch = self._settings.sending_queue.batch
        now = self._parts.clock.monotonic()
        if self._flush_at is None:
            self._flush_at = now + batch.flush_timeout
        return waiting >= batch.min_size or now >= self._flush_at or self._stopping or bool(self._bounds)

    async def _wait(self) -> None:
        """Wait until something has changed, or a time has come."""
        due = [one for one in (self._sync_at, self._flush_at if self._hungry else None) if one is not None]
        timeout = max(0.0, min(due) - self._parts.clock.monotonic()) if due else None
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            pass
        if self._sync_at is not None and self._parts.clock.monotonic() >= self._sync_at:
            await self._note(sync=True)

    # --- the cursor -------------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        """Move the position behind the batches that were delivered, in their order; True when it has moved."""
        before = self._position
        while self._window and self._window[0].landed:
            if (task := self._window[0].task) is not None and task.cancelled():
                break
            self._position = self._window.popleft().end_offset
        return self._position != before

    def _state(self) -> State:
        bounds = (*(flight.end_offset for flight in self._window), *self._bounds)
        return State(self._position, bounds[:BOUNDS_MAX])

    async def _note(self, *, sync: bool = False) -> None:
        """Write the cursor; sync it now, or when it is time to."""
        if self._cursor is None:
            return
        now = self._parts.clock.monotonic()
        sync = sync or (self._sync_at is not None and now >= self._sync_at)
        try:
            await self._threaded(self._put, self._state(), sync)
        except Unavailable as error:
            self.counts.cursor_failures += 1
            self._parts.logger.warning("cursor not written", reason=str(error))
        if sync:
            self._sync_at = None
        elif self._sync_at is None:
            self._sync_at = now + SYNC_S

    def _put(self, state: State, sync: bool) -> None:
        assert self._cursor is not None
        self._cursor.put(state, sync=sync)

    async def _threaded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._parts.threads, function, *arguments)

    # --- reading ----------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Read a batch, and hand it over."""
        end = await self._shippable()
        if end <= self._taken:
            return
        found = await self._threaded(self._gather, end)
        self._rest = found.rest
        for gap in found.gaps:
            lost = gap.end_offset - gap.first_offset
            self.counts.lost[gap.reason] += lost
            self._parts.logger.error(
                "records lost before they were exported",
                records=lost,
                reason=gap.reason,
                first_offset=gap.first_offset,
                end_offset=gap.end_offset,
            )
        while self._bounds and self._bounds[0] <= found.end_offset:
            self._bounds.popleft()
        flight = _Flight(self._taken, found.end_offset, sum(block.nbytes for block in found.blocks))
        self._taken = found.end_offset
        self._flush_at = None
        if flight.end_offset == flight.first_offset:
            return
        self._window.append(flight)
        if not found.blocks:
            self._changed.set()
            return
        batch = Batch(self.source, tuple(found.blocks), flight.first_offset, flight.end_offset)
        if self._exporter.steady and self._cursor is not None:
            await self._promise()
        flight.task = asyncio.create_task(self._hand_over(batch))
        flight.task.add_done_callback(lambda _: self._changed.set())

    async def _hand_over(self, batch: Batch) -> None:
        await self._handover.deliver(batch)

    async def _promise(self) -> None:
        """Have the bounds of what is under way on the disk, however long that takes."""
        while True:
            failures = self.counts.cursor_failures
            await self._note(sync=True)
            if failures == self.counts.cursor_failures:
                return
            await self._parts.sleep(REST_S)

    async def _shippable(self) -> int:
        """Return the offset behind what is on the disk, and waits to be sent."""
        log = self._store.log
        if log is None:
            return self.end
        end = max(log.synced_offset, self._settled)
        if end <= self._taken:
            await self._parts.sleep(SETTLE_S)
            if log.synced_offset <= self._taken:
                self._settled = await self._threaded(log.settled_offset)
            end = max(log.synced_offset, self._settled)
        return min(end, self.end)

    def _gather(self, end: int) -> Gathered:
        """In a thread."""
        store = self._store
        view = View(store.signal, store.ring.snapshot(), store.log, None, 0, None)
        batch = self._settings.sending_queue.batch
        limits = Limits(batch.max_size, min(batch.max_bytes, self.bytes_max, self._handover.too_large))
        if self._bounds:  # As it was before the crash.
            end, limits = min(end, self._bounds[0]), Limits(UNLIMITED, UNLIMITED)
        with view:
            return gather(view, self._taken, end, limits, self._rest, store.deletions.hidden)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, RingtailError) else repr(error)
