"""The daemon: the only place that builds the parts, starts them in order, and stops them in reverse.

Start: lock the data directory, open the logs (which repairs torn tails), refill the rings, then listen. Nothing
listens before everything acknowledged can be read. Stop, on SIGTERM or Ctrl-C: refuse new requests as
unavailable, answer those in flight, sync and close the logs. A second signal exits at once; what was
acknowledged is on the disk all the same.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import uvloop
from prometheus_client import CollectorRegistry

from collector import __version__, telemetry
from collector.api.admin import statistics
from collector.api.app import create_app
from collector.api.server import ApiServer
from collector.clock import SystemClock
from collector.errors import InvalidConfig, RingtailError
from collector.heap import HeapKeeper
from collector.otlp.signals import SIGNALS, Signal
from collector.query.engine import Engine
from collector.receivers.admission import Admission
from collector.receivers.export import Receiver, ReceiverMetrics
from collector.receivers.grpc import GrpcReceiver
from collector.receivers.http import HttpReceiver
from collector.ring.ring import Ring
from collector.store import Commit, Store
from collector.wal.commit import Committer
from collector.wal.files import OperatingSystemFiles
from collector.wal.lock import DirectoryLock
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics

if TYPE_CHECKING:
    from collector.config import Config

GC_THRESHOLDS = (50_000, 20, 50)
"""When Python looks for reference cycles, which receiving makes none of: a tenth of gRPC's cost at its defaults."""

DRAIN_S = 7.5
"""Seconds that requests in flight may take to end when the daemon stops; with what follows, ten in all."""

CLOSE_S = 1.0
"""Seconds that connections without a request in flight may take after that, as with half a header sent."""

FIRST_BYTES_TIMEOUT_S = 20.0
"""How long a new gRPC connection may take to begin."""

GRPC_IDLE_TIMEOUT_S = 60.0
"""How long a gRPC message may bring next to nothing, and answers may be left unread."""

HEAP_S = 1.0
"""How often the heap is looked after."""

MIB = 1024 * 1024


def run(config: Config) -> int:
    """Run until a signal ends it, and return the exit code: 0 after an orderly stop, 1 if it could not start."""
    logger = telemetry.logger(config.telemetry.logs.level, config.telemetry.logs.format)
    daemon = Daemon(config, logger)
    try:
        return uvloop.run(daemon.run())
    except RingtailError as error:
        logger.error("cannot start", reason=str(error))
        return 1


class Daemon:
    """One Ringtail: three stores, their receivers and the query API. Built and run on one event loop."""

    def __init__(self, config: Config, logger: Any) -> None:
        self.config = config
        self.logger = logger
        self.clock = SystemClock()
        self.registry = CollectorRegistry()
        self.stores: dict[str, Store] = {}
        self.ports: dict[str, int] = {}
        self._files = OperatingSystemFiles()
        self._lock: DirectoryLock | None = None
        self._committers: list[Committer[Commit]] = []
        self._draining = False
        self._stop = asyncio.Event()
        self._admission = Admission(config.receivers.otlp.max_in_flight_bytes, self.registry)
        self._engine = Engine(config.query.threads, config.query.timeout, self.clock)
        self._grpc: GrpcReceiver | None = None
        self._http: HttpReceiver | None = None
        self._api: ApiServer | None = None
        self._heap = HeapKeeper(self._used_bytes)
        self._heap_timer: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Start, wait for a signal, stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        try:
            await self.start()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            self.logger.info("ready", version=__version__, pid=os.getpid())
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

    async def start(self) -> None:
        """Open the stores and listen; raises a RingtailError that says what is in the way."""
        telemetry.process_metrics(self.registry, self.clock)
        self.registry.register(telemetry.StoreCollector(lambda: statistics(self.stores)))
        self._open_stores()
        metrics = ReceiverMetrics(self.registry)
        protocols = self.config.receivers.otlp.protocols
        if protocols.grpc is not None:
            receivers = [Receiver(one, "grpc", self.stores[one.name], metrics) for one in SIGNALS]
            self._grpc = GrpcReceiver(
                receivers,
                self._admission,
                self.clock,
                self.logger,
                message_bytes_max=protocols.grpc.max_recv_msg_size_mib * MIB,
                first_bytes_timeout_s=FIRST_BYTES_TIMEOUT_S,
                idle_timeout_s=GRPC_IDLE_TIMEOUT_S,
            )
        if protocols.http is not None:
            self._http = HttpReceiver(
                [Receiver(one, "http", self.stores[one.name], metrics) for one in SIGNALS],
                self._admission,
                self.clock,
                self.logger,
                body_bytes_max=protocols.http.max_request_body_size,
                read_header_timeout_s=protocols.http.read_header_timeout,
                idle_timeout_s=protocols.http.idle_timeout,
            )
        self._api = ApiServer(create_app(self.stores, self._engine, self.registry, self.not_ready, self.logger))
        await self._listen()
        self._look_after_heap()

    def _used_bytes(self) -> int:
        rings = sum(store.ring.total_bytes for store in self.stores.values())
        return rings + self._admission.in_flight_bytes

    def _look_after_heap(self) -> None:
        self._heap.look()
        self._heap_timer = asyncio.get_running_loop().call_later(HEAP_S, self._look_after_heap)

    def _open_stores(self) -> None:
        wal = self.config.wal
        if wal.enabled:
            self._lock = DirectoryLock(wal.directory, self._files)
            self._lock.acquire()
        log_metrics = LogMetrics(self.registry)
        for one in SIGNALS:
            log = self._open_log(one, log_metrics) if wal.enabled else None
            sizes = getattr(self.config.stores, one.name)
            try:
                ring = Ring(one, sizes.capacity, sizes.max_bytes, log.next_offset if log is not None else 0)
            except ValueError as error:
                raise InvalidConfig([f"stores.{one.name}.max_bytes: {error}"]) from error
            store = Store(one, ring, log, asyncio.get_running_loop())
            started = self.clock.monotonic()
            records = store.refill()
            if log is not None:
                took = round(self.clock.monotonic() - started, 3)
                self.logger.info("ring refilled", signal=one.name, records=records, seconds=took)
                committer: Committer[Commit] = Committer(log, wal.sync, wal.sync_interval, store.committed)
                self._committers.append(committer)
                store.attach(committer)
            self.stores[one.name] = store

    def _open_log(self, one: Signal, metrics: LogMetrics) -> Log:
        wal = self.config.wal
        return Log.open(
            wal.directory,
            one,
            files=self._files,
            clock=self.clock,
            metrics=metrics,
            logger=self.logger,
            segment_bytes=wal.segment_bytes,
            retention_bytes=wal.retention.max_bytes or None,
            retention_age_s=wal.retention.max_age or None,
            direct=wal.sync == "always",
        )

    async def _listen(self) -> None:
        protocols = self.config.receivers.otlp.protocols
        if self._grpc is not None and protocols.grpc is not None:
            self.ports["otlp/grpc"] = await self._grpc.start(*split_address(protocols.grpc.endpoint))
        if self._http is not None and protocols.http is not None:
            self.ports["otlp/http"] = await self._http.start(*split_address(protocols.http.endpoint))
        if self._api is not None:
            self.ports["api"] = await self._api.start(*split_address(self.config.api.endpoint))
        for what, endpoint in (
            ("otlp/grpc", protocols.grpc.endpoint if protocols.grpc else ""),
            ("otlp/http", protocols.http.endpoint if protocols.http else ""),
            ("api", self.config.api.endpoint),
        ):
            if what in self.ports:
                host = split_address(endpoint)[0]
                self.logger.info("listening", what=what, address=f"{host}:{self.ports[what]}")
                if host not in ("127.0.0.1", "::1", "localhost"):
                    self.logger.warning("open to the network, without authentication", what=what, address=host)

    def not_ready(self) -> list[str]:
        """Return why no traffic should come; empty when it may."""
        reasons = ["the daemon is shutting down"] if self._draining else []
        for name, store in self.stores.items():
            if store.log is not None and store.log.failed is not None:
                reasons.append(f"the log of {name} has failed: {store.log.failed}")
        return reasons

    async def stop(self) -> None:
        """Stop in the reverse order of starting; safe after a start that failed half-way."""
        self._draining = True
        if self._heap_timer is not None:
            self._heap_timer.cancel()
        try:
            await asyncio.wait_for(self._admission.drain(), DRAIN_S)
        except TimeoutError:
            self.logger.warning("requests in flight were given up", requests=self._admission.in_flight_requests)
        await asyncio.gather(
            *([self._http.stop(CLOSE_S)] if self._http is not None else []),
            *([self._grpc.stop(CLOSE_S)] if self._grpc is not None else []),
            *([self._api.stop()] if self._api is not None else []),
        )
        for store in self.stores.values():
            await store.drain()
        self._engine.close()
        for committer in self._committers:
            committer.close()
        for store in self.stores.values():
            if store.log is not None:
                try:
                    store.log.close()
                except RingtailError as error:
                    self.logger.error("log not closed", signal=store.signal.name, error=str(error))
        if self._lock is not None:
            self._lock.release()


def split_address(endpoint: str) -> tuple[str, int]:
    """Split `host:port`, `[::1]:port` or `:port` (all interfaces)."""
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port)
