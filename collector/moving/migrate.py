"""All that one backend holds, exported to another, in windows of time, and verified hour by hour.

Where there are records is found by counting, in halves; hours that hold many are halved further, down to windows of at most
`WINDOW_RECORDS` (more only within one nanosecond). A window is read, its records put in an order that depends on nothing but
themselves, and exported under offsets of a source that is made up for the migration. So a window that is done again, after
a crash, hands over the same records under the same keys, and a backend that knows keys has none of them twice. The position
says which windows are done; bounds of windows depend on what the source holds, which should stay as it is meanwhile.

Verification reads both backends once more: by hour, the number of records and the sum of their hashes, each of the record with
its resource and scope, as protobuf writes them deterministically. What the target holds of other origin shows as a difference.

Memory: a window, decoded.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from collector.errors import Retryable, Unavailable
from collector.exporters.base import END_OF_TIME, Batch, Source, Wanted
from collector.exporters.retry import Backoff
from collector.exporters.settings import RetryOnFailure
from collector.otlp.cut import parts
from collector.otlp.records import Ref, regroup
from collector.otlp.scan import scan

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable

    from collector.clock import Clock
    from collector.exporters.base import Backend
    from collector.otlp.signals import Signal

HOUR_NS: Final = 3600 * 10**9
HOURS: Final = END_OF_TIME // HOUR_NS + 1
WINDOW_RECORDS: Final = 20_000
BATCH_RECORDS: Final = 4096
BATCH_BYTES: Final = 3 * 1024 * 1024
PATIENCE_S: Final = 300.0
HASH_BYTES: Final = 8
_RETRY: Final = RetryOnFailure(initial_interval=0.2, max_interval=10.0)


class Done(msgspec.Struct):
    """How far one signal of one tenant has come."""

    before_ns: int = 0
    """Windows that end up to here are done."""
    offset: int = 0
    """The next record's, in the made-up source."""
    rejected: int = 0
    """Records that the target has refused for good."""


class Position(msgspec.Struct):
    """How far a migration has come."""

    request: dict[str, Any]
    instance: str
    """The made-up source's."""
    done: dict[str, Done]
    """By `TENANT/SIGNAL`."""


class Window(NamedTuple):
    """A stretch of time, [start_ns, end_ns), and how many records it holds."""

    start_ns: int
    end_ns: int
    records: int


class Hour(NamedTuple):
    """What verification has found in an hour: counts, and sums of hashes, of source and target."""

    start_ns: int
    records: tuple[int, int]
    sums: tuple[int, int]

    @property
    def equal(self) -> bool:
        """Whether both hold the same records."""
        return self.records[0] == self.records[1] and self.sums[0] == self.sums[1]


class Migration:
    """One migration. Both backends have been started."""

    def __init__(
        self,
        source: Backend,
        target: Backend,
        position: Position,
        clock: Clock,
        chance: random.Random,
        *,
        window_records: int = WINDOW_RECORDS,
        saved: Callable[[], None] = lambda: None,
        progress: Callable[[str, int, int], None] = lambda _, __, ___: None,
    ) -> None:
        """`saved` is called whenever the position has moved; `progress` is told the signal, how many are done, of how many."""
        self._source = source
        self._target = target
        self._position = position
        self._clock = clock
        self._chance = chance
        self._window_records = window_records
        self._saved = saved
        self._progress = progress

    async def move(self, signal: Signal, tenant: str) -> Done:
        """Export all of one signal of a tenant that is not done yet. Raises Permanent, Unwelcome, and Unavailable."""
        done = self._position.done.setdefault(f"{tenant}/{signal.name}", Done())
        origin = Source(self._position.instance, tenant, signal)
        reached = await self._patient(lambda: self._target.position(origin)) or 0
        whole = await self._count(self._source, signal, tenant, 0, END_OF_TIME)
        moved = done.offset
        async for window in self._windows(signal, tenant):
            if window.end_ns <= done.before_ns:
                continue
            refs = await self._read(self._source, signal, tenant, window)
            if refs:
                block = scan(signal, regroup(refs), done.offset)
                for part in parts(block, BATCH_RECORDS, BATCH_BYTES):
                    if part.end_offset > reached:
                        batch = Batch(origin, (part,), part.base_offset, part.end_offset)
                        rejected = await self._patient(lambda batch=batch: self._target.export(batch))  # type: ignore[misc]
                        done.rejected += rejected.records if rejected is not None else 0
                done.offset = block.end_offset
            done.before_ns = window.end_ns
            moved = done.offset
            self._saved()
            self._progress(signal.noun, moved, whole)
        return done

    async def verify(self, signal: Signal, tenant: str) -> AsyncIterator[Hour]:
        """Yield every hour in which either backend holds records. Raises Unwelcome, and Unavailable."""
        async for hour in self._hours(signal, tenant, (self._source, self._target)):
            records, sums = [], []
            for backend in (self._source, self._target):
                count = total = 0
                async for window in self._halves(backend, signal, tenant, hour):
                    for ref in await self._read(backend, signal, tenant, window):
                        count += 1
                        total += _hash(signal, ref)
                records.append(count)
                sums.append(total % 2 ** (8 * HASH_BYTES))
            yield Hour(hour.start_ns, (records[0], records[1]), (sums[0], sums[1]))

    async def _windows(self, signal: Signal, tenant: str) -> AsyncIterator[Window]:
        async for hour in self._hours(signal, tenant, (self._source,)):
            async for window in self._halves(self._source, signal, tenant, hour):
                yield window

    async def _hours(self, signal: Signal, tenant: str, backends: tuple[Backend, ...]) -> AsyncIterator[Window]:
        """Yield the hours in which any of these holds records, in order."""
        pending = [(0, HOURS)]
        while pending:
            first, end = pending.pop()
            bounds = first * HOUR_NS, min(end * HOUR_NS, END_OF_TIME)
            count = 0
            for backend in backends:
                count += await self._count(backend, signal, tenant, *bounds)
            if not count:
                continue
            if end - first == 1:
                yield Window(*bounds, count)
            else:
                middle = (first + end) // 2
                pending += [(middle, end), (first, middle)]

    async def _halves(self, backend: Backend, signal: Signal, tenant: str, hour: Window) -> AsyncIterator[Window]:
        """Divide an hour into windows that are small enough, in order."""
        pending = [(hour.start_ns, hour.end_ns)]
        while pending:
            start, end = pending.pop()
            count = await self._count(backend, signal, tenant, start, end)
            if not count:
                continue
            if count <= self._window_records or end - start == 1:
                yield Window(start, end, count)
            else:
                middle = (start + end) // 2
                pending += [(middle, end), (start, middle)]

    async def _count(self, backend: Backend, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        found: int = await self._patient(lambda: backend.count(signal, tenant, start_ns, end_ns))
        return found

    async def _read(self, backend: Backend, signal: Signal, tenant: str, window: Window) -> list[Ref]:
        """Return the records of a window in an order that depends on nothing but themselves."""

        async def once() -> list[Ref]:
            wanted = Wanted(signal, tenant, window.start_ns, window.end_ns - 1, newest_first=False)
            found = []
            async for block in backend.read(wanted):
                times = block.column("time").tolist()
                found += [
                    Ref(time, row, block, row)
                    for row, time in enumerate(times)
                    if window.start_ns <= time < window.end_ns
                ]
            return found

        refs = await self._patient(once)
        return sorted(refs, key=lambda ref: (ref.time, _canonical(signal, ref)))

    async def _patient(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call until it succeeds; raise Unavailable when that takes too long."""
        backoff = Backoff(_RETRY, self._chance)
        until = self._clock.monotonic() + PATIENCE_S
        while True:
            try:
                return await call()
            except Retryable as error:
                wait_s = backoff.wait_s(error.after_s)
                if self._clock.monotonic() + wait_s > until:
                    raise Unavailable(f"given up after {PATIENCE_S:.0f} s: {error}") from error
                await asyncio.sleep(wait_s)


def _canonical(signal: Signal, ref: Ref) -> bytes:
    """Return a record with its resource and scope, as bytes that do not depend on how they were written."""
    return bytes(signal.request_type.FromString(regroup([ref])).SerializeToString(deterministic=True))


def _hash(signal: Signal, ref: Ref) -> int:
    return int.from_bytes(hashlib.blake2b(_canonical(signal, ref), digest_size=HASH_BYTES).digest(), "little")
