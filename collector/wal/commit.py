"""The committer: one thread per log that does all its writing and waiting for the disk.

The store hands over batches and is called back when they may be acknowledged. Group commit: whatever was handed
over while the last sync ran is written together and synced once, so the busier the log, the cheaper a sync per
record. One writer per log needs no locks in the log, and a slow disk blocks this thread and no other.

Policies: `always` syncs before `done`. `interval` calls `done` after the write and syncs at most `interval_s`
seconds after it: a crash of the machine (not of the daemon) may cost what was acknowledged since. `never` leaves
that to the operating system; the log still syncs a segment when it seals it, and at the end.

Left out: a timer that waits for more batches to come. Waiting for the sync already gathers them, and an idle log
answers at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final, Generic, Literal, Protocol, TypeVar

from collector.errors import Overloaded, Unavailable
from collector.wal.log import Log

SyncPolicy = Literal["always", "interval", "never"]

QUEUE_BATCHES_MAX: Final = 1024
"""Batches waiting or being written. The store keeps one outstanding; beyond this, `submit` refuses."""
IDLE_S: Final = 10.0
"""How often an idle log looks for segments that have become too old."""


class Batch(Protocol):
    """What is committed as one frame. Must not change until it is done."""

    @property
    def payloads(self) -> Sequence[bytes | bytearray | memoryview]:
        """Serialized export requests; one after the other they are one request."""
        ...

    @property
    def count(self) -> int:
        """Records in the payloads, at least 1."""
        ...

    @property
    def min_time(self) -> int:
        """Smallest main time of the records, ns."""
        ...

    @property
    def max_time(self) -> int:
        """Largest main time of the records, ns."""
        ...


B = TypeVar("B", bound=Batch)


class Committer(Generic[B]):
    """Owns the writing side of `log` from construction to `close`."""

    def __init__(
        self, log: Log, sync: SyncPolicy, interval_s: float, done: Callable[[B, int | Exception], None]
    ) -> None:
        """Start the thread. `interval_s` matters to the policy `interval` only.

        `done(batch, result)` is called on the committer's thread, once per batch and in order, with the offset of
        the batch's first record, or with why it is not in the log: Unavailable, or what `Log.append` raises for
        a batch that makes no sense. It must be quick and must not raise.
        """
        self._log = log
        self._policy = sync
        self._interval_s = interval_s
        self._done = done
        self._queue: queue.SimpleQueue[B | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        # Policy `interval`: when what has been written must be synced, by the monotonic clock.
        self._due: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"wal {log.signal.name}", daemon=True)
        self._thread.start()

    def submit(self, batch: B) -> None:
        """Hand over one batch, from any thread. Raises Unavailable once closed, and Overloaded beyond
        `QUEUE_BATCHES_MAX`; then `done` is not called for it.
        """
        # The lock keeps a batch from slipping in behind the end mark, where nobody would look at it.
        with self._lock:
            if self._closed:
                raise Unavailable("the log is being closed")
            if self._queue.qsize() >= QUEUE_BATCHES_MAX:
                raise Overloaded(f"{QUEUE_BATCHES_MAX} batches wait for the log of {self._log.signal.name}")
            self._queue.put(batch)

    def close(self) -> None:
        """Write and sync all that was submitted, call `done` for it, and end the thread. The log stays open."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        self._retain()  # A start on a full disk is to make room by what it is told to forget.
        while not ended:
            group, ended = self._next_group()
            if group:
                self._commit(group)
            if ended or (self._due is not None and self._log.clock.monotonic() >= self._due):
                self._sync_late()
            self._retain()

    def _retain(self) -> None:
        try:
            self._log.enforce_retention()
        except Exception as error:  # noqa: BLE001 - a defect there costs space, and must not stop commits
            self._log.logger.error("retention failed", signal=self._log.signal.name, error=repr(error))

    def _next_group(self) -> tuple[list[B], bool]:
        """Wait for batches, at most until a sync is due: (what is there, whether the end mark was)."""
        group: list[B] = []
        wait = IDLE_S if self._due is None else max(0.0, self._due - self._log.clock.monotonic())
        try:
            batch = self._queue.get(timeout=wait)
            while batch is not None and len(group) < QUEUE_BATCHES_MAX:
                group.append(batch)
                batch = self._queue.get_nowait()
        except queue.Empty:
            return group, False
        return group, batch is None

    def _commit(self, group: list[B]) -> None:
        results: list[int | Exception] = []
        at_once = self._policy == "always" and len(group) == 1
        for batch in group:
            try:
                offset = self._log.append(batch.payloads, batch.count, batch.min_time, batch.max_time, sync=at_once)
            except Exception as error:  # noqa: BLE001 - one batch that makes no sense must not cost the others
                results.append(error)
            else:
                results.append(offset)
        if self._policy == "always":
            try:
                self._log.sync()
            except Exception as error:  # noqa: BLE001 - whatever it was, nothing of the group is acknowledged
                results = [result if isinstance(result, Exception) else error for result in results]
        elif self._policy == "interval" and self._due is None:
            self._due = self._log.clock.monotonic() + self._interval_s
        self._deliver(group, results)
        # An error knows this frame by its traceback: what is left in it here would live until Python looks for cycles,
        # and on a full disk that is every batch that comes.
        group.clear()
        results.clear()

    def _deliver(self, group: list[B], results: list[int | Exception]) -> None:
        for batch, result in zip(group, results, strict=True):
            try:
                self._done(batch, result)
            except Exception as error:  # noqa: BLE001 - a defect of the caller must not stop commits
                self._log.logger.error("commit not delivered", signal=self._log.signal.name, error=repr(error))

    def _sync_late(self) -> None:
        """Sync what has been acknowledged already. A failure shows in the log's `failed` and in every later batch."""
        self._due = None
        try:
            self._log.sync()
        except Unavailable:
            pass
