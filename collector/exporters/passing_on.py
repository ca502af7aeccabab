"""Telling backends what was deleted, until they have done it.

What is to be told waits in the deletions of each log (wal/deletions.py), over restarts, too. A backend is told when its
delivery has passed the end of what was meant: nothing of that is on its way then. Whole traces are deleted by their ids;
single records by their keys, if the backend keeps keys, and else by what it knows them by (`Backend.identities`). If it can do
neither, that is logged and counted, and what the backend has stays there. An exporter that is not configured any more is told should it come back.

Owner: the event loop's thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client import Counter

from collector.errors import RingtailError
from collector.exporters.base import Backend, Wanted
from collector.exporters.retry import Backoff
from collector.exporters.settings import RetryOnFailure

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from prometheus_client import CollectorRegistry

    from collector.exporters.base import Source
    from collector.store import Store
    from collector.wal.deletions import Pending

TRACES_AT_ONCE: Final = 100
RANGES_AT_ONCE: Final = 1000
IDENTITIES_AT_ONCE: Final = 500
TIMEOUT_S: Final = 60.0
"""How long a backend may take for one of these."""
_RETRY: Final = RetryOnFailure(initial_interval=0.1, max_interval=10.0)


class Reached(NamedTuple):
    """A backend that can be told."""

    backend: Backend
    source: Source
    position: int
    """Everything before it was delivered."""


class PassingOn:
    """Tells the backends of one daemon."""

    def __init__(
        self,
        find: Callable[[str, str, str], Reached | None],
        chance: random.Random,
        logger: Any,
        registry: CollectorRegistry,
    ) -> None:
        """`find` returns an exporter by its name, for a tenant and a signal; None while it cannot be told."""
        self._find = find
        self._chance = chance
        self._logger = logger
        self._tasks: dict[str, asyncio.Task[None]] = {}
        deleted = Counter(
            "ringtail_exporter_deleted_records",
            "Records that a backend has deleted because they were deleted here.",
            ("exporter",),
            registry=registry,
        )
        kept = Counter(
            "ringtail_exporter_deletions_refused",
            "Deletions of single records that a backend cannot do, because nothing that it keeps tells them apart.",
            ("exporter",),
            registry=registry,
        )
        self._deleted, self._kept = deleted, kept

    def expose(self, exporter: str) -> None:
        """Have a backend's figures in `/metrics` from the beginning, as zeros."""
        self._deleted.labels(exporter)
        self._kept.labels(exporter)

    def wake(self, tenant: str, stores: Mapping[str, Store]) -> None:
        """There may be something to tell, of a tenant."""
        running = self._tasks.get(tenant)
        if running is None or running.done():
            self._tasks[tenant] = asyncio.create_task(self._run(tenant, stores), name="deletions passed on")

    async def stop(self) -> None:
        """Tell no more; what was not told is told after the next start."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, tenant: str, stores: Mapping[str, Store]) -> None:
        backoff = Backoff(_RETRY, self._chance)
        while any(store.deletions.pending for store in stores.values()):
            moved = False
            for store in stores.values():
                for one in store.deletions.pending:
                    for name in one.backends:
                        moved = await self._told(tenant, store, one, name) or moved
            if moved:
                backoff.reset()
            else:
                await asyncio.sleep(backoff.wait_s(None))

    async def _told(self, tenant: str, store: Store, one: Pending, name: str) -> bool:
        """Tell one backend of one deletion, if that is possible now; True when it has done it."""
        reached = self._find(name, tenant, store.signal.name)
        if reached is None or reached.position < one.end_offset:
            return False
        try:
            await self._delete(reached, one, name)
            await asyncio.to_thread(store.deletions.passed_on, one.number, name)
        except (RingtailError, TimeoutError) as error:
            self._logger.warning("deletion not passed on", exporter=name, reason=str(error) or "no answer in time")
            return False
        except Exception as error:  # noqa: BLE001 - a defect of a backend must not keep the others from being told
            self._logger.error("deletion not passed on", exporter=name, reason=repr(error))
            return False
        return True

    async def _delete(self, reached: Reached, one: Pending, name: str) -> None:
        records = 0
        for at in range(0, len(one.trace_ids), TRACES_AT_ONCE):
            ids = tuple(bytes.fromhex(each) for each in one.trace_ids[at : at + TRACES_AT_ONCE])
            wanted = Wanted(reached.source.signal, reached.source.tenant, trace_ids=ids)
            async with asyncio.timeout(TIMEOUT_S):
                records += await reached.backend.delete(wanted)
        keyed = await self._by_offset(reached, one.ranges)
        known = await self._by_identity(reached, one.identities.get(name, []))
        if one.ranges and keyed is None and known is None:
            self._kept.labels(name).inc()
            self._logger.error(
                "deletion of single records is nothing that this backend can do",
                exporter=name,
                records=sum(end - first for first, end in one.ranges),
            )
        else:
            records += (keyed or 0) + (known or 0)
            self._deleted.labels(name).inc(records)
            self._logger.info("deletion passed on", exporter=name, records=records)

    async def _by_offset(self, reached: Reached, ranges: list[tuple[int, int]]) -> int | None:
        records = 0
        for at in range(0, len(ranges), RANGES_AT_ONCE):
            async with asyncio.timeout(TIMEOUT_S):
                found = await reached.backend.delete_offsets(reached.source, ranges[at : at + RANGES_AT_ONCE])
            if found is None:
                return None
            records += found
        return records

    async def _by_identity(self, reached: Reached, identities: list[str]) -> int | None:
        """Delete what is known by its identity; None when nothing is, or the backend cannot."""
        records: int | None = None
        ordered = sorted(identities)  # By time, should that be what they begin with.
        for at in range(0, len(ordered), IDENTITIES_AT_ONCE):
            some = [bytes.fromhex(each) for each in ordered[at : at + IDENTITIES_AT_ONCE]]
            async with asyncio.timeout(TIMEOUT_S):
                found = await reached.backend.delete_identified(reached.source, some)
            if found is None:
                return None
            records = (records or 0) + found
        return records
