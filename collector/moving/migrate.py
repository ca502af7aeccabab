"""All that one backend holds, exported to another, in windows of time, and verified hour by hour.

Where there are records is found by counting: what holds many is halved, down to windows of at most `WINDOW_RECORDS` (more only
within one nanosecond). A window is read, its records put in an order that depends on nothing but
themselves, and exported under offsets of a source that is made up for the migration. So a window that is done again, after
a crash, hands over the same records under the same keys, and a backend that knows keys has none of them twice. The position
says which windows are done; bounds of windows depend on what the source holds, which should stay as it is meanwhile.

Verification reads both backends once more: by hour, the number of records and the sum of their hashes, each of the record with
its resource and scope, as protobuf writes them deterministically. What the target holds of other origin shows as a difference.
A backend that shows fewer records than it counts is an error, whichever it is: what cannot be seen cannot be compared.

Memory: a window, decoded.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
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
END: Final = END_OF_TIME + 1
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


@dataclass(slots=True)
class _Held:
    """What a backend holds in an hour."""

    start_ns: int
    records: int = 0
    total: int = 0
    """The sum of the records' hashes."""


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
        whole = await self._count(self._source, signal, tenant, 0, END)
        moved = done.offset
        async for window in self._windows(self._source, signal, tenant):
            if window.end_ns <= done.before_ns:
                continue
            # A source that holds less than before is divided in another way.
            left = window._replace(start_ns=max(window.start_ns, done.before_ns))
            refs = await self._read(self._source, signal, tenant, left)
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
        """Yield every hour in which either backend holds records, in order. Raises Unwelcome, and Unavailable."""
        sides = [self._held(backend, signal, tenant) for backend in (self._source, self._target)]
        heads = [await anext(side, None) for side in sides]
        while starts := [head.start_ns for head in heads if head is not None]:
            start = min(starts)
            now = [head if head is not None and head.start_ns == start else _Held(start) for head in heads]
            yield Hour(start, (now[0].records, now[1].records), (now[0].total, now[1].total))
            for at, side in enumerate(sides):
                if now[at] is heads[at]:
                    heads[at] = await anext(side, None)

    async def _held(self, backend: Backend, signal: Signal, tenant: str) -> AsyncIterator[_Held]:
        """Yield what a backend holds, hour by hour, in order."""
        hour = None
        async for window in self._windows(backend, signal, tenant):
            for ref in await self._read(backend, signal, tenant, window):
                start = ref.time // HOUR_NS * HOUR_NS
                if hour is None or start != hour.start_ns:
                    if hour is not None:
                        yield hour
                    hour = _Held(start)
                hour.records += 1
                hour.total = (hour.total + _hash(signal, ref)) % 2 ** (8 * HASH_BYTES)
        if hour is not None:
            yield hour

    async def _windows(self, backend: Backend, signal: Signal, tenant: str) -> AsyncIterator[Window]:
        """Yield windows that are small enough and hold all that there is, in order. Raises Unavailable for a backend that
        counts less in two halves than in the whole."""
        pending = [Window(0, END, await self._count(backend, signal, tenant, 0, END))]
        while pending:
            window = pending.pop()
            if window.records <= self._window_records or window.end_ns - window.start_ns == 1:
                if window.records:
                    yield window
                continue
            middle = (window.start_ns + window.end_ns) // 2
            halves = [
                Window(*bounds, await self._count(backend, signal, tenant, *bounds))
                for bounds in ((middle, window.end_ns), (window.start_ns, middle))
            ]
            await self._agree(backend, signal, tenant, window, sum(half.records for half in halves))
            pending += halves

    async def _agree(self, backend: Backend, signal: Signal, tenant: str, window: Window, found: int) -> None:
        """Raise Unavailable unless so many were found as are counted, or more have come."""
        if found < window.records:
            counted = await self._count(backend, signal, tenant, window.start_ns, window.end_ns)
            if found < counted:
                which = "source" if backend is self._source else "target"
                bounds = f"from {window.start_ns} to before {window.end_ns} ns"
                raise Unavailable(f"the {which} counts {counted} {signal.noun} {bounds}, and shows {found}")

    async def _count(self, backend: Backend, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        found: int = await self._patient(lambda: backend.count(signal, tenant, start_ns, end_ns))
        return found

    async def _read(self, backend: Backend, signal: Signal, tenant: str, window: Window) -> list[Ref]:
        """Return the records of a window in an order that depends on nothing but themselves. Raises Unavailable for a backend that
        does not show all that it counts."""

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
        await self._agree(backend, signal, tenant, window, len(refs))
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
