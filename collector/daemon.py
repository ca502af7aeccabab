"""The daemon: the only place that builds the parts, starts them in order, and stops them in reverse.

Start: lock the data directory, open the logs (which repairs torn tails), answer queries from them, refill the rings in
a thread, then receive. Nothing is received before everything acknowledged can be read, and nothing compacted before
that. Stop, on SIGTERM or Ctrl-C: refuse new requests as unavailable, answer those in flight, sync and close the logs. A
second signal exits at once; what was acknowledged is on the disk all the same.

Built elsewhere, of what is built here: the data directory (directory.py), each tenant's stores (tenant.py), the doors
(listeners.py), and what answers queries behind them (serving.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import resource
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import uvloop
from prometheus_client import CollectorRegistry

from collector import __version__, telemetry
from collector.api.admin import statistics
from collector.clock import SystemClock
from collector.directory import DataDirectory
from collector.errors import InvalidConfig, RingtailError
from collector.exporters.exports import Exports
from collector.heap import HeapKeeper
from collector.listeners import Listeners
from collector.memory import MemoryGuard, available_bytes, limit_bytes
from collector.notify import READY, STOPPING, notify
from collector.otlp.signals import LOGS
from collector.preflight import examine
from collector.receivers.admission import Admission
from collector.receivers.export import Receiver, ReceiverMetrics
from collector.reload import is_live, merged, ring_sizes
from collector.security.watched import Interval
from collector.serving import Serving
from collector.settings import differences
from collector.tenant import Tenant
from collector.tenants import Tenants, place_of
from collector.wal.cache import BlockCache
from collector.wal.compactor import Compactor
from collector.wal.files import OperatingSystemFiles
from collector.wal.metrics import LogMetrics
from collector.wal.pruning import KEY_INDEX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.config import Config
    from collector.preflight import Findings

GC_THRESHOLDS = (50_000, 20, 50)
"""When Python looks for reference cycles, which receiving makes none of: a tenth of gRPC's cost at its defaults."""

MEMORY_CHECK_S = 0.5
"""How often the process looks at the memory that it holds."""

DRAIN_S = 7.5
"""Seconds that requests in flight may take to end when the daemon stops; with what follows, ten in all."""

CLOSE_S = 1.0
"""Seconds that connections without a request in flight may take after that, as with half a header sent."""

CREDENTIALS = "auth.credentials"
"""The key that a reload applies where clients are asked who they are already."""


def run(config: Config, load: Callable[[], Config], logger: Any, level: telemetry.Level) -> int:
    """Run until a signal ends it, and return the exit code: 0 after an orderly stop, 1 if it could not start.

    Raises InvalidConfig for what is wrong with the configuration, here and now. `load` reads it again, as it is then;
    `level` is the logger's, which that may change.
    """
    raise_descriptor_limit()
    found = findings(config)
    if found.mistakes:
        raise InvalidConfig(found.mistakes)
    for obstacle in found.obstacles:
        logger.error("cannot start", reason=obstacle)
    if found.obstacles:
        return 1
    daemon = Daemon(config, load, logger, level)
    try:
        return uvloop.run(daemon.run())
    except InvalidConfig:
        raise
    except RingtailError as error:
        logger.error("cannot start", reason=str(error))
        return 1


def findings(config: Config) -> Findings:
    """Return what a start on this configuration would fail on, here and now; see preflight.py.

    Asked here, because what this process holds counts: its modules are the daemon's.
    """
    return examine(config, SystemClock())


def raise_descriptor_limit() -> None:
    """Let the process open as many files as it may ask for: shells give 1,024, which is fewer than its connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # as where the system's own limit is below
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Daemon:
    """One Ringtail: the stores of its tenants, its listeners, and what answers. Built and run on one event loop."""

    def __init__(self, config: Config, load: Callable[[], Config], logger: Any, level: telemetry.Level) -> None:
        self.config = config
        self.logger = logger
        self._load = load
        self._level = level
        self.clock = SystemClock()
        self.registry = CollectorRegistry()
        self._files = OperatingSystemFiles()
        self._directory = DataDirectory(config.wal.directory, self._files, logger) if config.wal.enabled else None
        self._compactor: Compactor | None = None
        self._draining = False
        self._stop = asyncio.Event()
        self._admission = Admission(config.receivers.otlp.max_in_flight_bytes, self.registry)
        self._watching: asyncio.TimerHandle | None = None
        self._span_metrics: Interval | None = None
        self._log_metrics = LogMetrics(self.registry)
        self._cache = BlockCache(self.registry)
        self._tenants = Tenants(
            config.tenants.max if config.tenants.enabled else 0, self._tenant, self._opened, self.clock, logger
        )
        self._listeners = Listeners(config, self._admission, self.clock, logger, self.registry)
        self._exports = Exports(
            files=self._files,
            clock=self.clock,
            chance=random.Random(),  # noqa: S311 - spreads retries
            logger=logger,
            registry=self.registry,
            tenants=config.tenants.enabled,
            directory=config.wal.directory if config.wal.enabled else None,
        )
        self._serving = Serving(
            config,
            self._tenants,
            self._exports,
            self._admission,
            clock=self.clock,
            registry=self.registry,
            logger=logger,
            not_ready=self.not_ready,
            memory=self._memory,
            listeners=self._listeners.stats,
            reload=self.reload,
        )
        self._guard = MemoryGuard(
            limit_bytes(config.memory.limit, available_bytes()),
            lambda: self._tenants.rings,
            ring_sizes(config),
            self._admission,
            logger,
            self.registry,
            tails=self._serving.tails,
            memos=lambda: self._tenants.memos,
            cache=self._cache,
            exports=self._exports,
        )
        self._heap = HeapKeeper(self._used_bytes, querying=self._serving.is_querying)

    async def run(self) -> int:
        """Start, wait for a signal, stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        try:
            await self.start()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            self.logger.info("ready", version=__version__, pid=os.getpid())
            notify(READY)
            await self._stop.wait()
        finally:
            await self.stop()
        self.logger.info("stopped")
        return 0

    def _signalled(self, number: int) -> None:
        if self._stop.is_set():
            os._exit(128 + number)
        self.logger.info("stopping", signal=signal.Signals(number).name)
        self._stop.set()

    def _hung_up(self) -> None:
        try:
            self.reload()
        except InvalidConfig as error:
            self.logger.error("configuration not reloaded", problems=error.problems)

    def reload(self) -> dict[str, list[str]]:
        """Read the configuration again and apply what can change while the daemon runs.

        Returns the keys that have other values now (`applied`), and those that will after a restart (`restart`). Raises
        InvalidConfig for a configuration that has a mistake, or that memory has no room for; nothing has changed then.
        """
        config = self._load()
        changed = differences(self.config, config)
        identified = self._listeners.identified(config)
        applied = [key for key in changed if is_live(key) or (key == CREDENTIALS and identified is not None)]
        restart = [key for key in changed if key not in applied]
        otlp = config.receivers.otlp
        exporters = self._exports.make(config.exporters)
        self._guard.reconfigure(
            limit_bytes(config.memory.limit, available_bytes()), otlp.max_in_flight_bytes, ring_sizes(config)
        )
        self._exports.apply(config.exporters, exporters)
        retention = config.wal.retention
        for log in self._tenants.logs:
            log.retain(retention.max_bytes or None, retention.max_age or None)
        self._listeners.limit(otlp.protocols)
        self._serving.limit(config)
        self._level.set(config.telemetry.logs.level)
        self.config = merged(self.config, config)
        if identified is not None:
            self._listeners.adopt(*identified)
            self.config = replace(self.config, auth=replace(self.config.auth, credentials=config.auth.credentials))
        self.logger.info("configuration reloaded", applied=applied, restart=restart)
        return {"applied": applied, "restart": restart}

    async def start(self) -> None:
        """Open the stores and listen; raises a RingtailError that says what is in the way."""
        self._listeners.identify()
        telemetry.process_metrics(self.registry, self.clock)
        self.registry.register(telemetry.StoreCollector(self._statistics, tenants=self._tenants.apart))
        await self._tenants.open(self._open_directory())
        self._serving.reach_back()
        self._guard.divide()
        await self._listeners.answer(self.config.api, self._serving.app(), self._serving.served, self._serving.tails)
        self._watch_memory()
        generator = self.config.metrics_generator
        if generator.enabled:
            self._span_metrics = Interval(generator.collection_interval, self._end_interval)
        await self._tenants.refill(self._stop.is_set)
        if self._directory is not None:
            self._directory.hold_room()
        if not self._stop.is_set():
            exporters = self._exports.make(self.config.exporters)
            await self._receive()
            self._compact()
            self._attach()
            self._exports.apply(self.config.exporters, exporters)
            await self._exports.settled()

    def _open_directory(self) -> list[str]:
        """Return the names of the tenants that there are already."""
        apart = self._tenants.apart
        if self._directory is None:
            return [] if apart else [""]
        return self._directory.open(self.config.tenants.max if apart else 0)

    async def _receive(self) -> None:
        """Take records in."""
        metrics = ReceiverMetrics(self.registry)
        self._serving.pushes.open(Receiver(LOGS, "http", self._tenants.finder(LOGS), metrics, "loki"))
        await self._listeners.receive(self.config.receivers.otlp.protocols, self._tenants.finder, metrics)

    def _compact(self) -> None:
        """Start compacting the logs."""
        if self.config.wal.enabled and self.config.wal.compaction.enabled:
            self._compactor = Compactor(lambda: self._tenants.logs, files=self._files, metrics=self._log_metrics)
            self._compactor.start()

    def _attach(self) -> None:
        """Let the records of all tenants that there are be exported."""
        for name, tenant in self._tenants.by_name.items():
            self._exports.attach(name, self._place(name) if self.config.wal.enabled else None, tenant.stores)

    def _place(self, name: str) -> str:
        """Return where a tenant's logs lie."""
        return place_of(self.config.wal.directory, name)

    def _tenant(self, name: str) -> Tenant:
        return Tenant(
            self.config,
            self._place(name),
            files=self._files,
            clock=self.clock,
            metrics=self._log_metrics,
            logger=self.logger.bind(tenant=name) if name else self.logger,
            share=self._admission.share() if self._tenants.apart else None,
            key_index_bytes=KEY_INDEX_BYTES // (self.config.tenants.max if self._tenants.apart else 1),
            cache=self._cache,
        )

    def _opened(self) -> None:
        """A tenant has come: everybody's share of the memory is smaller, and what is exported is more."""
        self._guard.share_out()
        self._serving.reach_back()
        self._attach()

    def _statistics(self) -> dict[str, dict[str, Any]]:
        return {name: statistics(tenant.stores, tenant.spans) for name, tenant in self._tenants.by_name.items()}

    def _end_interval(self) -> None:
        """Keep the values that span metrics have now."""
        for tenant in self._tenants.by_name.values():
            if tenant.spans is not None:
                tenant.spans.tick()

    def _memory(self) -> dict[str, int]:
        return self._guard.stats()

    def _used_bytes(self) -> int:
        return sum(ring.total_bytes for ring in self._tenants.rings) + self._admission.in_flight_bytes

    def _watch_memory(self) -> None:
        self._guard.check()
        self._heap.look()
        self._watching = asyncio.get_running_loop().call_later(MEMORY_CHECK_S, self._watch_memory)

    def not_ready(self) -> list[str]:
        """Return why no traffic should come; empty when it may."""
        return (["the daemon is shutting down"] if self._draining else []) + self._tenants.not_ready()

    async def stop(self) -> None:
        """Stop in the reverse order of starting; safe after a start that failed half-way."""
        self._draining = True
        notify(STOPPING)
        if self._watching is not None:
            self._watching.cancel()
        if self._span_metrics is not None:
            self._span_metrics.stop()
        self._listeners.unwatch()
        try:
            await asyncio.wait_for(self._admission.drain(), DRAIN_S)
        except TimeoutError:
            self.logger.warning("requests in flight were given up", requests=self._admission.in_flight_requests)
        self._serving.stop()
        await self._listeners.stop(CLOSE_S)
        await self._tenants.drain()
        await self._exports.stop()
        self._serving.close()
        self._listeners.close()
        if self._compactor is not None:
            self._compactor.close()
        self._tenants.close()
        if self._directory is not None:
            self._directory.hold_room()
            self._directory.release()
