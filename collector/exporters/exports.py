"""All exporters of a daemon: made of their settings, started in their own time, with a delivery for each of their signals
and each tenant.

Nothing here is waited for: an exporter whose destination is away starts when it is there, and its deliveries fall behind
until then, as they would later. A reload makes those exporters anew whose settings have changed; their cursors stay.

What is kept for them beside the logs is in places.py. What they keep themselves lies in the data directory, in
`exporters/NAME`, and stays as well when an exporter is removed from the configuration.

Without a log there is no cursor: exporters read the rings, and begin with what those hold. What a ring evicts before it
was delivered is lost, counted and logged; a stop delivers what it can within `FLUSH_S`.

Owner: the event loop's thread.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from collector.errors import InvalidConfig, RingtailError
from collector.exporters.base import Backend, Context, Source
from collector.exporters.delivery import Delivery
from collector.exporters.figures import READS, WRITE, Counts, ExporterMetrics, Reported
from collector.exporters.handover import BYTES_MIN, Parts
from collector.exporters.kinds import find, kind_of
from collector.exporters.measured import Measured
from collector.exporters.passing_on import PassingOn, Reached
from collector.exporters.places import Place, file_name
from collector.exporters.running import Running
from collector.otlp.signals import BY_NAME

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from prometheus_client import CollectorRegistry

    from collector.clock import Clock
    from collector.exporters.base import Exporter
    from collector.exporters.settings import ExporterSettings
    from collector.otlp.block import Block
    from collector.otlp.signals import Signal
    from collector.store import Store
    from collector.wal.cursor import Cursor
    from collector.wal.files import Files

THREADS: Final = 2
"""For reading batches, cursors and dead letters, and what exporters have to do."""
GRACE_S: Final = 1.0
"""How long batches that are under way may take at a stop."""
FLUSH_S: Final = 5.0
"""The same without a log, for everything that the rings hold."""
COPIES: Final = 3
"""A batch is counted so often: its blocks, its payload in one piece, and that compressed."""


class Exports:
    """See the module."""

    def __init__(
        self,
        *,
        files: Files,
        clock: Clock,
        chance: random.Random,
        logger: Any,
        registry: CollectorRegistry,
        tenants: bool,
        directory: str | None,
    ) -> None:
        """Nothing is exported yet; `tenants` tells whether they are kept apart, `directory` is the data directory, None
        without a log."""
        self._directory = directory
        self._files = files
        self._clock = clock
        self._chance = chance
        self._logger = logger
        self._registry = registry
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="export")
        self._running: dict[str, Running] = {}
        self._places: dict[str, Place] = {}
        self._counts: defaultdict[tuple[str, str, str], Counts] = defaultdict(Counts)
        self._metrics = ExporterMetrics(registry, self._reported, tenants=tenants)
        self._passing_on = PassingOn(self._reached, chance, logger, registry)
        self._changing = asyncio.Lock()
        self._bytes_max: int | None = None
        self._stopping = False
        self._pending: set[asyncio.Task[None]] = set()
        self._attached: set[str] = set()

    # --- what it tells ----------------------------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """What batches hold of memory, in bytes."""
        return sum(one.held_bytes for _, one in self._deliveries())

    def limit(self, bytes_max: int) -> None:
        """Set what all batches together may hold of memory."""
        self._bytes_max = bytes_max
        self._share_out()

    def stats(self, tenant: str) -> dict[str, Any]:
        """Return a tenant's part of `/api/stats`."""
        return {
            name: {
                "kind": kind_of(name),
                "failing": running.trouble,
                "signals": {
                    signal: delivery.stats() for (of, signal), delivery in running.deliveries.items() if of == tenant
                },
                "durations": self._metrics.durations(name),
                "bytes": self._metrics.size(name),
                "own": running.exporter.stats(),
            }
            for name, running in self._running.items()
        }

    def backend(self, name: str) -> Backend | None:
        """Return the backend of that name, to read from, with what it takes counted; None when there is none, or it has not
        started yet."""
        running = self._running.get(name)
        if running is None or not running.started.is_set() or not isinstance(running.exporter, Backend):
            return None
        return Measured(name, running.exporter, self._metrics, self._clock)

    def keeping(self, signal: str) -> dict[str, Callable[[Block, NDArray[np.intp]], list[bytes] | None]]:
        """Name the exporters that are backends and take a signal's records, who have to be told of deletions, each with its
        `identities`."""
        return {
            name: running.exporter.identities
            for name, running in self._running.items()
            if isinstance(running.exporter, Backend) and signal in running.settings.signals
        }

    def deleted_traces(self, name: str, tenant: str, signal: Signal) -> frozenset[bytes]:
        """Return the traces that an exporter still has to be told to delete."""
        place = self._places.get(tenant)
        pending = place.stores[signal.name].deletions.pending if place is not None else ()
        return frozenset(bytes.fromhex(each) for one in pending if name in one.backends for each in one.trace_ids)

    def deleted_records(self, name: str, tenant: str, signal: Signal) -> frozenset[bytes]:
        """Return the identities of single records that an exporter still has to be told to delete."""
        place = self._places.get(tenant)
        pending = place.stores[signal.name].deletions.pending if place is not None else ()
        return frozenset(bytes.fromhex(each) for one in pending for each in one.identities.get(name, ()))

    def pass_on(self, tenant: str) -> None:
        """Have backends told what was deleted of a tenant, unless that is under way."""
        if tenant in self._places and not self._stopping:
            self._passing_on.wake(tenant, self._places[tenant].stores)

    def _reached(self, name: str, tenant: str, signal: str) -> Reached | None:
        running = self._running.get(name)
        delivery = running.deliveries.get((tenant, signal)) if running is not None else None
        backend = self.backend(name)
        return Reached(backend, delivery.source, delivery.position) if backend is not None and delivery else None

    def source(self, tenant: str, signal: Signal) -> Source | None:
        """Return what a tenant's records of a signal are known by in destinations; None while that is not known."""
        place = self._places.get(tenant)
        return Source(place.instance, tenant, signal) if place is not None and place.instance else None

    def troubles(self) -> list[str]:
        """Tell which exporters do not do their work, in a line each, for `/readyz`, which anybody may ask: without reasons."""
        found = []
        for name, running in self._running.items():
            failing = [one for one in running.deliveries.values() if one.failing or running.trouble]
            if failing or running.trouble:
                behind = sum(one.figures().records for one in failing)
                found.append(f"exporter {name} fails, {behind} records wait; /api/stats says why")
        return found

    def _deliveries(self) -> Iterator[tuple[Running, Delivery]]:
        for running in self._running.values():
            for delivery in running.deliveries.values():
                yield running, delivery

    def _reported(self) -> list[Reported]:
        return [
            Reported(
                running.name,
                delivery.source.tenant,
                delivery.source.signal,
                delivery.counts,
                delivery.figures(),
                running.trouble or delivery.failing,
            )
            for running, delivery in self._deliveries()
        ]

    # --- changing ---------------------------------------------------------------------------------------------

    def make(self, settings: Mapping[str, ExporterSettings]) -> dict[str, Exporter]:
        """Make those exporters that are new or have other settings, for `apply`. Raises InvalidConfig."""
        made = {}
        for name, one in settings.items():
            if name not in self._running or self._running[name].settings != one:
                made[name] = self._make(name, one)
        return made

    def _make(self, name: str, settings: ExporterSettings) -> Exporter:
        kind = find(kind_of(name))
        if kind is None:
            raise InvalidConfig([f"exporters.{name}: there is no exporter {kind_of(name)}"])
        directory = self._directory
        return kind.make(
            settings,
            Context(
                name,
                self._clock,
                self._logger.bind(exporter=name),
                self._registry,
                self._threads,
                os.path.join(directory, "exporters", file_name(name)) if directory is not None else None,
            ),
        )

    def apply(self, settings: Mapping[str, ExporterSettings], made: Mapping[str, Exporter]) -> None:
        """Run these exporters and no others, of which `make` has made those that are not running yet."""
        self._later(self._apply(dict(settings), dict(made)))

    async def settled(self) -> None:
        """Wait until all that was asked for is under way: cursors are open, and figures are told."""
        await asyncio.gather(*self._pending)

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._pending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._pending.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None:
            self._logger.error("exporters not changed", reason=repr(defect))

    async def _apply(self, settings: dict[str, ExporterSettings], made: dict[str, Exporter]) -> None:
        async with self._changing:
            gone = [one for name, one in self._running.items() if name not in settings or name in made]
            for running in gone:
                del self._running[running.name]
            await asyncio.gather(*(running.end(GRACE_S, self._threads) for running in gone))
            if self._stopping:
                return
            for name, exporter in made.items():
                running = self._running[name] = Running(
                    name,
                    settings[name],
                    exporter,
                    chance=self._chance,
                    logger=self._logger,
                    metrics=self._metrics,
                )
                running.begin()
                for one in self._places.values():
                    await self._deliver(running, one)
            self._share_out()

    def attach(self, tenant: str, directory: str | None, stores: Mapping[str, Store]) -> None:
        """Export a tenant's records, too; once. Its logs are open and its rings filled; `directory` is where the logs lie,
        None without any."""
        if tenant not in self._attached:
            self._attached.add(tenant)
            self._later(self._attach(tenant, directory, stores))

    async def _attach(self, tenant: str, directory: str | None, stores: Mapping[str, Store]) -> None:
        async with self._changing:
            if self._stopping:
                return
            added = Place(tenant, directory, stores, self._files, self._logger)
            self._places[tenant] = added
            for running in self._running.values():
                await self._deliver(running, added)
            self._share_out()
        self.pass_on(tenant)

    def _share_out(self) -> None:
        deliveries = list(self._deliveries())
        if self._bytes_max is None or not deliveries:
            return
        for running, delivery in deliveries:
            queue = running.settings.sending_queue
            share = self._bytes_max // len(deliveries) // (COPIES * queue.num_consumers)
            delivery.bytes_max = max(BYTES_MIN, min(queue.batch.max_bytes, share))

    # --- one exporter -----------------------------------------------------------------------------------------

    async def _deliver(self, running: Running, of: Place) -> None:
        """Make an exporter's deliveries of a tenant; they begin when it has started."""
        cursors: dict[str, Cursor | None] = {}
        try:
            await self._threaded(of.identify)
            for name in running.settings.signals:
                cursors[name] = await self._threaded(of.cursor, running.name, running.settings, name)
        except RingtailError as error:
            self._logger.error("not exported", exporter=running.name, tenant=of.tenant, reason=str(error))
            running.obstacle = str(error)
            for cursor in cursors.values():
                if cursor is not None:
                    cursor.close()  # Nothing was written to it.
            return
        logger = self._logger.bind(exporter=running.name)
        if isinstance(running.exporter, Backend):
            self._passing_on.expose(running.name)
            for operation, name in product(READS, cursors):
                self._metrics.duration(running.name, operation, BY_NAME[name])
        for name, cursor in cursors.items():
            signal, store = BY_NAME[name], of.stores[name]
            bound = logger.bind(signal=name, **({"tenant": of.tenant} if of.tenant else {}))
            dead_letters = of.dead_letters(running.name, running.settings, name, self._clock)
            if dead_letters is not None:
                running.dead_letters.append(dead_letters)
            delivery = Delivery(
                Source(of.instance, of.tenant, signal),
                store,
                running.exporter,
                running.settings,
                cursor,
                dead_letters,
                self._counts[running.name, of.tenant, name],
                self._metrics.duration(running.name, WRITE, signal),
                Parts(self._clock, self._chance, self._threads, bound),
                store.ring.next_offset if running.settings.start_at == "end" else store.ring.first_offset,
            )
            running.deliver(of.tenant, name, delivery)

    async def _threaded(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def stop(self) -> None:
        """Stop everything. The stores take nothing any more, and their logs can still be read."""
        self._stopping = True
        await asyncio.gather(*self._pending, return_exceptions=True)
        await self._passing_on.stop()
        async with self._changing:
            running, self._running = list(self._running.values()), {}
            durable = all(one.directory is not None for one in self._places.values())
            await asyncio.gather(*(one.end(GRACE_S if durable else FLUSH_S, self._threads) for one in running))
        self._threads.shutdown(wait=True)
