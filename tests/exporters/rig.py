"""A log and a delivery on files in memory, an exporter that does what it is told, and crashes.

Everything runs on the event loop's thread: what a delivery does in threads is done at once. Waits between attempts are
one turn of the loop.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.exporters.base import Batch, Exporter, Rejected, Source
from collector.exporters.dead_letters import DeadLetters, letters
from collector.exporters.delivery import Delivery
from collector.exporters.figures import Counts, Durations
from collector.exporters.handover import Parts
from collector.exporters.settings import BatchSettings, ExporterSettings, RetryOnFailure, SendingQueue
from collector.otlp.signals import TRACES
from collector.ring.ring import Ring
from collector.store import Commit, Store
from collector.testing.files import MemoryFiles
from collector.wal.cursor import Cursor
from collector.wal.files import Files
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from tests.wal.logs import RecordingLogger

SOURCE = Source("0" * 32, "", TRACES)
PATIENCE_S = 20.0


class AtOnce(Executor):
    """Does at once what it is given."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        made: Future[Any] = Future()
        try:
            made.set_result(fn(*args, **kwargs))
        except BaseException as error:
            made.set_exception(error)
        return made


class AtOnceCommitter:
    """Writes and syncs on the loop's thread."""

    def __init__(self, log: Log, store: Store, *, sync: bool = True) -> None:
        self._log, self._store, self._sync = log, store, sync

    def submit(self, batch: Commit) -> None:
        offset = self._log.append(batch.payloads, batch.count, batch.min_time, batch.max_time)
        if self._sync:
            self._log.sync()
        self._store.committed(batch, offset)


def request(first: int, count: int) -> bytes:
    """Spans whose ids are numbers, in two resources."""
    made = TRACES.request_type()
    for half in range(2):
        numbers = range(first + half * count // 2, first + (half + 1) * count // 2)
        if numbers:
            container = made.resource_spans.add()
            container.resource.attributes.add(key="half").value.int_value = half
            scope = container.scope_spans.add()
            for number in numbers:
                scope.spans.add(
                    trace_id=b"\1" * 16, span_id=(number + 1).to_bytes(8, "big"), name="x", start_time_unix_nano=10**18
                )
    return made.SerializeToString()


def numbers(batch: Batch) -> list[int]:
    """The numbers of a batch's spans, in order of offset."""
    return [
        int.from_bytes(span_id.tobytes(), "big") - 1 for block in batch.blocks for span_id in block.column("span_id")
    ]


def quick(**queue: Any) -> ExporterSettings:
    """Settings that wait for nothing."""
    consumers = queue.pop("num_consumers", 1)
    batch = replace(BatchSettings(), **{"flush_timeout": 0.0, **queue})
    return ExporterSettings(
        timeout=1.0,
        retry_on_failure=RetryOnFailure(initial_interval=0.001, max_interval=0.001),
        sending_queue=SendingQueue(num_consumers=consumers, batch=batch),
    )


class Told(Exporter):
    """Takes batches; before each, `behave` says what happens: None, a Rejected, or what is raised.

    `after` True raises it when the batch has been taken.
    """

    parallel: ClassVar[int] = 8

    def __init__(self, behave: Callable[[Batch], Any] = lambda batch: None) -> None:
        self.behave = behave
        self.taken: list[int] = []
        self.batches: list[tuple[str, list[int]]] = []
        """Every batch that was handed over: its key, and its numbers."""
        self.changed = asyncio.Event()

    async def export(self, batch: Batch) -> Rejected | None:
        found = numbers(batch)
        self.batches.append((batch.key, found))
        outcome = self.behave(batch)
        after = False
        if isinstance(outcome, tuple) and not isinstance(outcome, Rejected):
            outcome, after = outcome
        if asyncio.iscoroutine(outcome):
            outcome = await outcome
        if outcome is None or isinstance(outcome, Rejected) or after:
            self.taken += found
            self.changed.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @property
    def counted(self) -> Counter[int]:
        return Counter(self.taken)


@dataclass
class Rig:
    """One life of a daemon, as far as a delivery is concerned."""

    files: Files
    exporter: Exporter
    settings: ExporterSettings
    store: Store
    log: Log
    delivery: Delivery
    logger: RecordingLogger
    counts: Counts

    @classmethod
    def start(
        cls,
        files: Files,
        exporter: Exporter,
        settings: ExporterSettings | None = None,
        *,
        capacity: int = 50,
        segment_bytes: int = 4000,
        retention_bytes: int | None = None,
        sync: bool = True,
        clock: Any = None,
        position: int | None = None,
    ) -> Rig:
        settings = settings or quick()
        logger = RecordingLogger()
        clock = clock or SystemClock()
        log = Log.open(
            "/data",
            TRACES,
            files=files,
            clock=clock,
            metrics=LogMetrics(CollectorRegistry()),
            logger=logger,
            segment_bytes=segment_bytes,
            retention_bytes=retention_bytes,
        )
        ring = Ring(TRACES, capacity, 1 << 20, log.next_offset)
        store = Store(TRACES, ring, log, asyncio.get_running_loop())
        store.attach(AtOnceCommitter(log, store, sync=sync))
        store.adopt(store.replay(lambda: False))
        cursor = Cursor.open(
            "/data/cursors/told/traces.cursor", TRACES, start=0, oldest=log.first_offset, files=files, logger=logger
        )
        dead = DeadLetters(
            "/data/dead-letters/told", TRACES, 1 << 20, exporter="told", files=files, clock=clock, logger=logger
        )
        counts = Counts()
        delivery = Delivery(
            SOURCE,
            store,
            exporter,
            settings,
            cursor,
            dead,
            counts,
            Durations(),
            Parts(clock, random.Random(1), AtOnce(), logger, lambda _: asyncio.sleep(0)),
            0,
        )
        delivery.start(position)
        return cls(files, exporter, settings, store, log, delivery, logger, counts)

    async def append(self, first: int, count: int) -> None:
        """Append spans, and let what waits for them run."""
        await self.store.append(request(first, count))

    async def delivered(self) -> None:
        """Wait until nothing is left to deliver."""
        async with asyncio.timeout(PATIENCE_S):
            while self.delivery.position < self.delivery.end:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """Stop in order."""
        await self.delivery.stop(1.0)
        self.log.close()

    async def crash(self) -> None:
        """Stop at once: nothing more is written."""
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def dead(self) -> list[tuple[int, str]]:
        """The dead letters: how many records, and why."""
        found = letters("/data/dead-letters/told", TRACES, 1000, self.files)
        return [(one.records, one.note.reason if one.note is not None else "?") for one in found]


def dead_numbers(files: MemoryFiles) -> set[int]:
    """The numbers of the spans among the dead letters."""
    from collector.errors import NotFound, Unavailable
    from collector.wal.inspect import cat

    try:
        found = [one.payload for one in cat("/data/dead-letters/told", TRACES, 0, 10_000, files)]
    except (NotFound, Unavailable):
        return set()
    spans = (
        span
        for payload in found
        for container in TRACES.request_type.FromString(bytes(payload)).resource_spans
        for scope in container.scope_spans
        for span in scope.spans
    )
    return {int.from_bytes(span.span_id, "big") - 1 for span in spans}
