"""The daemon: the only place that builds the parts, starts them in order, and stops them in reverse.

Start: lock the data directory, open the logs (which repairs torn tails), answer queries from them, refill the rings in
a thread, then receive. Nothing is received before everything acknowledged can be read, and nothing compacted before
that. Stop, on SIGTERM or Ctrl-C: refuse new requests as unavailable, answer those in flight, sync and close the logs. A
second signal exits at once; what was acknowledged is on the disk all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import random
import resource
import signal
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop
from prometheus_client import CollectorRegistry

from collector import __version__, telemetry
from collector.api.access import AccessControl
from collector.api.admin import statistics
from collector.api.app import create_app
from collector.api.grpc import QueryListener, Served
from collector.api.limit import ResponseLimit
from collector.api.loki_push import PushDoor
from collector.api.server import ApiServer
from collector.api.tenants import TenantApps
from collector.clock import SystemClock
from collector.errors import InvalidConfig, RingtailError
from collector.exporters.exports import Exports
from collector.exporters.reaching import keyed, reading
from collector.exposure import Opening, known_credentials, openings
from collector.heap import HeapKeeper
from collector.memory import MemoryGuard, available_bytes, limit_bytes
from collector.notify import READY, STOPPING, notify
from collector.otlp.signals import LOGS, SIGNALS, Signal
from collector.preflight import examine
from collector.quantities import split_address
from collector.query.deleting import Deleting
from collector.query.engine import Engine
from collector.query.reach import Way
from collector.query.spanmetrics.demand import SpanMetrics
from collector.query.tails import Tails
from collector.receivers.admission import Admission
from collector.receivers.cors import Cors
from collector.receivers.export import Destination, Receiver, ReceiverMetrics
from collector.receivers.grpc import GrpcReceiver
from collector.receivers.http import HttpReceiver
from collector.receivers.http2.keepalive import Keepalive
from collector.reload import is_live, merged, ring_sizes
from collector.ring.ring import Ring, bytes_min
from collector.security.gate import Authenticator, Gate
from collector.security.gate import read as read_credentials
from collector.security.hosts import HostGuard
from collector.security.tls import ServerTls, TlsMetrics
from collector.security.watched import Interval
from collector.settings import differences
from collector.store import Store
from collector.tenant import Tenant
from collector.tenants import DIRECTORY as TENANTS_DIRECTORY
from collector.tenants import Tenants, stored_names
from collector.wal.cache import BlockCache
from collector.wal.compactor import Compactor
from collector.wal.files import OperatingSystemFiles
from collector.wal.lock import DirectoryLock
from collector.wal.metrics import LogMetrics
from collector.wal.pruning import KEY_INDEX_BYTES
from collector.wal.recovery import require_known_formats
from collector.wal.reserve import Reserve
from collector.wal.restored import require_restored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp

    from collector.config import Config
    from collector.config import Keepalive as GrpcKeepalive
    from collector.preflight import Findings

GC_THRESHOLDS = (50_000, 20, 50)
"""When Python looks for reference cycles, which receiving makes none of: a tenth of gRPC's cost at its defaults."""

MEMORY_CHECK_S = 0.5
"""How often the process looks at the memory that it holds."""

DRAIN_S = 7.5
"""Seconds that requests in flight may take to end when the daemon stops; with what follows, ten in all."""

CLOSE_S = 1.0
"""Seconds that connections without a request in flight may take after that, as with half a header sent."""

FIRST_BYTES_TIMEOUT_S = 10.0
"""How long a new gRPC connection may take to begin, and a header block to be whole."""

GRPC_IDLE_TIMEOUT_S = 60.0
"""How long a gRPC message may bring next to nothing, and answers may be left unread."""

MIB = 1024 * 1024

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
    """One Ringtail: three stores, their receivers and the query API. Built and run on one event loop."""

    def __init__(self, config: Config, load: Callable[[], Config], logger: Any, level: telemetry.Level) -> None:
        self.config = config
        self.logger = logger
        self._load = load
        self._level = level
        self.clock = SystemClock()
        self.registry = CollectorRegistry()
        self.ports: dict[str, int] = {}
        self._files = OperatingSystemFiles()
        self._lock: DirectoryLock | None = None
        self._reserve: Reserve | None = None
        self._compactor: Compactor | None = None
        self._draining = False
        self._stop = asyncio.Event()
        self._admission = Admission(config.receivers.otlp.max_in_flight_bytes, self.registry)
        self._engine = Engine(
            config.query.threads, config.query.timeout, self.clock, lambda: self._admission.ended_requests
        )
        self._lanes: dict[str, Engine] = {}
        self._ways: dict[tuple[str, str], Way] = {}
        self._tails = Tails(config.query.max_tails, self.clock, self.registry, apart=config.tenants.enabled)
        self._pushes = PushDoor(self._admission)
        self._nothing: dict[str, Store] = {}
        self._queries: QueryListener | None = None
        self._grpc: GrpcReceiver | None = None
        self._http: HttpReceiver | None = None
        self._api: ApiServer | None = None
        self._heap = HeapKeeper(self._used_bytes)
        self._log_metrics = LogMetrics(self.registry)
        self._cache = BlockCache(self.registry)
        self._tenants = Tenants(
            config.tenants.max if config.tenants.enabled else 0, self._tenant, self._opened, self.clock, logger
        )
        self._apps: dict[str, ASGIApp] = {}
        self._watching: asyncio.TimerHandle | None = None
        self._response_limit = ResponseLimit(config.api.max_response_size)
        self._openings: dict[str, Opening] = {one.name: one for one in openings(config)}
        self._authenticator: Authenticator | None = None
        self._tls_metrics = TlsMetrics(self.registry)
        self._intervals: list[Interval] = []
        self._exports = Exports(
            files=self._files,
            clock=self.clock,
            chance=random.Random(),  # noqa: S311 - spreads retries
            logger=logger,
            registry=self.registry,
            tenants=config.tenants.enabled,
            directory=config.wal.directory if config.wal.enabled else None,
        )
        self._guard = MemoryGuard(
            limit_bytes(config.memory.limit, available_bytes()),
            lambda: self._tenants.rings,
            ring_sizes(config),
            self._admission,
            logger,
            self.registry,
            tails=self._tails,
            memos=lambda: self._tenants.memos,
            cache=self._cache,
            exports=self._exports,
        )

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
        # Whether clients are asked at all is settled at the start.
        asks = bool(config.auth.credentials) and bool(self.config.auth.credentials)
        credentials = known_credentials(config) if asks else []
        known = read_credentials(credentials)
        applied = [key for key in changed if is_live(key) or (key == CREDENTIALS and asks)]
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
        if self._http is not None and otlp.protocols.http is not None:
            self._http.body_bytes_max = otlp.protocols.http.max_request_body_size
            self._http.read_header_timeout_s = otlp.protocols.http.read_header_timeout
            self._http.idle_timeout_s = otlp.protocols.http.idle_timeout
        if self._grpc is not None and otlp.protocols.grpc is not None:
            self._grpc.message_bytes_max = otlp.protocols.grpc.max_recv_msg_size_mib * MIB
        self._response_limit.bytes_max = config.api.max_response_size
        self._engine.limit(config.query.timeout)
        self._level.set(config.telemetry.logs.level)
        self.config = merged(self.config, config)
        if asks and self._authenticator is not None:
            self._authenticator.adopt(credentials, known)
            self.config = replace(self.config, auth=replace(self.config.auth, credentials=config.auth.credentials))
        self.logger.info("configuration reloaded", applied=applied, restart=restart)
        return {"applied": applied, "restart": restart}

    async def start(self) -> None:
        """Open the stores and listen; raises a RingtailError that says what is in the way."""
        self._authenticator = Authenticator(known_credentials(self.config), self.logger, self.registry)
        self._intervals.append(Interval(self.config.auth.reload_interval, self._authenticator.reload))
        loop = asyncio.get_running_loop()
        telemetry.process_metrics(self.registry, self.clock)
        self.registry.register(telemetry.StoreCollector(self._statistics, tenants=self._tenants.apart))
        names = self._open_directory()
        self._make_room(names)
        await self._tenants.open(names)
        self._reach_back()
        self._guard.divide()
        if self._tenants.apart:
            self._nothing = {one.name: Store(one, Ring(one, 1, bytes_min(one, 1)), None, loop) for one in SIGNALS}
            self._apps[""] = self._app("", self._nothing, self._engine, None, self._span_metrics())
            app: ASGIApp = TenantApps(self._apps[""], self._app_of)
        else:
            only = self._tenants.by_name[""]
            app = self._app("", only.stores, self._engine, self._tails, only.spans)
        api = self.config.api
        guarded = AccessControl(app, self._gate("api"), self._hosts("api", api.allowed_hosts))
        self._api = ApiServer(guarded, self._tls("api", "http/1.1"))
        self._listening("api", await self._api.start(*split_address(api.endpoint)))
        if api.grpc is not None:
            self._queries = QueryListener(
                self._served,
                self._tails,
                self._admission,
                self.clock,
                self.logger,
                tls=self._tls("api/grpc", "h2", required=True),
                gate=self._gate("api/grpc"),
            )
            self._listening("api/grpc", await self._queries.start(*split_address(api.grpc.endpoint)))
        self._watch_memory()
        if self.config.metrics_generator.enabled:
            self._intervals.append(Interval(self.config.metrics_generator.collection_interval, self._end_interval))
        await self._tenants.refill(self._stop.is_set)
        if self._reserve is not None:
            self._reserve.hold()
        if not self._stop.is_set():
            exporters = self._exports.make(self.config.exporters)
            await self._receive()
            self._compact()
            self._attach()
            self._exports.apply(self.config.exporters, exporters)
            await self._exports.settled()

    async def _receive(self) -> None:
        """Open the door."""
        metrics = ReceiverMetrics(self.registry)
        protocols = self.config.receivers.otlp.protocols
        self._pushes.open(Receiver(LOGS, "http", self._finder(LOGS), metrics, "loki"))
        if protocols.grpc is not None:
            receivers = [Receiver(one, "grpc", self._finder(one), metrics) for one in SIGNALS]
            self._grpc = GrpcReceiver(
                receivers,
                self._admission,
                self.clock,
                self.logger,
                message_bytes_max=protocols.grpc.max_recv_msg_size_mib * MIB,
                first_bytes_timeout_s=FIRST_BYTES_TIMEOUT_S,
                idle_timeout_s=GRPC_IDLE_TIMEOUT_S,
                connections_max=protocols.grpc.max_connections,
                streams_max=protocols.grpc.max_concurrent_streams,
                keepalive=_keepalive(protocols.grpc.keepalive),
                tls=self._tls("otlp/grpc", "h2", required=True),
                gate=self._gate("otlp/grpc"),
            )
        if protocols.http is not None:
            cors = protocols.http.cors
            self._http = HttpReceiver(
                [Receiver(one, "http", self._finder(one), metrics) for one in SIGNALS],
                self._admission,
                self.clock,
                self.logger,
                body_bytes_max=protocols.http.max_request_body_size,
                read_header_timeout_s=protocols.http.read_header_timeout,
                idle_timeout_s=protocols.http.idle_timeout,
                connections_max=protocols.http.max_connections,
                paths={one.name: getattr(protocols.http, f"{one.name}_url_path") for one in SIGNALS},
                compressions=protocols.http.compression_algorithms,
                cors=Cors(cors.allowed_origins, cors.allowed_headers, cors.max_age),
                tls=self._tls("otlp/http", "http/1.1"),
                gate=self._gate("otlp/http"),
                hosts=self._hosts("otlp/http", protocols.http.allowed_hosts),
            )
        if self._grpc is not None and protocols.grpc is not None:
            endpoint = protocols.grpc.endpoint
            self._listening("otlp/grpc", await self._grpc.start(*split_address(endpoint)))
        if self._http is not None and protocols.http is not None:
            endpoint = protocols.http.endpoint
            self._listening("otlp/http", await self._http.start(*split_address(endpoint)))

    def _tls(self, name: str, protocol: str, *, required: bool = False) -> ServerTls | None:
        """Return a listener's TLS, which follows its files."""
        opening = self._openings[name]
        if opening.files is None:
            return None
        made = ServerTls(
            name,
            opening.files,
            self.clock,
            self.logger,
            self._tls_metrics,
            protocol=protocol,
            protocol_required=required,
        )
        self._intervals.append(Interval(opening.tls.reload_interval, made.reload))
        return made

    def _gate(self, name: str) -> Gate | None:
        """Return what asks a listener's clients who they are."""
        opening = self._openings[name]
        if self._authenticator is None or not opening.asked:
            return None
        return self._authenticator.gate(name, opening.access.credentials)

    def _hosts(self, name: str, allowed: tuple[str, ...]) -> HostGuard:
        opening = self._openings[name]
        return HostGuard(allowed, f"{opening.key}.allowed_hosts", is_local=opening.is_local)

    def _compact(self) -> None:
        """Start compacting the logs."""
        if self.config.wal.enabled and self.config.wal.compaction.enabled:
            self._compactor = Compactor(lambda: self._tenants.logs, files=self._files, metrics=self._log_metrics)
            self._compactor.start()

    def _attach(self) -> None:
        """Let the records of all tenants that there are be exported."""
        for name, tenant in self._tenants.by_name.items():
            self._exports.attach(name, self._place(name) if self.config.wal.enabled else None, tenant.stores)

    def _reach_back(self) -> None:
        """Let the queries of all tenants read what their stores no longer hold from the backend that is configured."""
        query = self.config.query
        if query.backend is None:
            return
        for name, tenant in self._tenants.by_name.items():
            for one in SIGNALS:
                store = tenant.stores[one.name]
                if store.behind is not None:
                    continue
                way = self._ways[name, one.name] = Way(
                    query.backend,
                    reading(self._exports, query.backend, name, one),
                    asyncio.get_running_loop(),
                    self.clock,
                    self.logger.bind(signal=one.name, **({"tenant": name} if name else {})),
                    timeout_s=query.backend_timeout,
                    shared=query.backend_shared,
                    keyed=partial(keyed, self._exports, query.backend),
                    pending=partial(getattr, store.deletions, "pending"),
                )
                store.behind = way.reach

    def _exported(self, tenant: str) -> dict[str, Any]:
        """Return the part of `/api/stats` about a tenant's exporters, and about the queries that read from one."""
        found = self._exports.stats(tenant)
        read = {signal: way.stats() for (name, signal), way in self._ways.items() if name == tenant}
        if read and self.config.query.backend in found:
            found[self.config.query.backend]["queries"] = read
        return found

    def _open_directory(self) -> list[str]:
        """Lock the data directory, and return the names of the tenants that have one in it."""
        directory = self.config.wal.directory
        if self.config.wal.enabled:
            self._lock = DirectoryLock(directory, self._files)
            self._lock.acquire()
            require_restored(directory)
        if not self._tenants.apart:
            return [""]
        if not self.config.wal.enabled:
            return []
        if any(os.path.exists(os.path.join(directory, one.name)) for one in SIGNALS):
            self.logger.warning("what was kept without tenants is not read", directory=directory)
        return stored_names(directory, self._files, self.config.tenants.max)

    def _make_room(self, names: list[str]) -> None:
        """Give up the reserve, unless there is anything that a newer version has written: then nothing is changed."""
        if self.config.wal.enabled:
            for name in names:
                require_known_formats(self._files, self._place(name))
            self._reserve = Reserve(self.config.wal.directory, self._files, self.logger)
            self._reserve.release()

    def _place(self, name: str) -> str:
        """Return where a tenant's logs lie."""
        directory = self.config.wal.directory
        return os.path.join(directory, TENANTS_DIRECTORY, name) if self._tenants.apart else directory

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
            spans=self._span_metrics(),
        )

    def _opened(self) -> None:
        """A tenant has come: everybody's share of the memory is smaller, and what is exported is more."""
        self._guard.share_out()
        self._reach_back()
        self._attach()

    def _finder(self, signal: Signal) -> Callable[[str], Destination]:
        """Return what finds the destination of a signal's requests by their tenant."""
        if not self._tenants.apart:
            only = self._tenants.by_name[""].destinations[signal.name]
            return lambda name: only
        return lambda name: self._tenants.written(name).destinations[signal.name]

    def _statistics(self) -> dict[str, dict[str, Any]]:
        return {name: statistics(tenant.stores, tenant.spans) for name, tenant in self._tenants.by_name.items()}

    def _span_metrics(self) -> SpanMetrics | None:
        """Return what makes metrics of a tenant's spans."""
        settings = self.config.metrics_generator
        return SpanMetrics(self.clock, settings.max_bytes) if settings.enabled else None

    def _end_interval(self) -> None:
        """Keep the values that span metrics have now."""
        for tenant in self._tenants.by_name.values():
            if tenant.spans is not None:
                tenant.spans.tick()

    def _app(
        self,
        name: str,
        stores: Mapping[str, Store],
        engine: Engine,
        tails: Tails | None,
        spans: SpanMetrics | None = None,
    ) -> ASGIApp:
        return create_app(
            stores,
            engine,
            self.registry,
            self.not_ready,
            self._guard.stats,
            self.reload,
            self.logger,
            lambda: {name: one.stats() for name, one in self._openings.items()},
            self._response_limit,
            tails,
            spans,
            self._pushes,
            lambda: self._exported(name),
            self._exports.troubles,
            Deleting(
                stores,
                engine,
                self.logger.bind(tenant=name) if name else self.logger,
                self._exports.keeping,
                lambda: self._exports.pass_on(name),
            ),
        )

    def _app_of(self, name: str) -> ASGIApp:
        """Return a tenant's query API; one without records for a tenant that was never written to."""
        tenant = self._tenants.find(name)
        if tenant is None:
            return self._apps[""]
        if name not in self._apps:
            self._apps[name] = self._app(name, tenant.stores, self._lane(name), self._tails, tenant.spans)
        return self._apps[name]

    def _lane(self, name: str) -> Engine:
        """Return what a tenant's queries run in."""
        if not self._tenants.apart:
            return self._engine
        if name not in self._lanes:
            self._lanes[name] = self._engine.lane()
        return self._lanes[name]

    def _served(self, name: str) -> Served:
        """Return what a tenant's queries over gRPC are answered from."""
        tenant = self._tenants.find(name)
        if tenant is None:
            return Served(self._nothing, self._engine, held=False)
        return Served(tenant.stores, self._lane(name))

    def _used_bytes(self) -> int:
        return sum(ring.total_bytes for ring in self._tenants.rings) + self._admission.in_flight_bytes

    def _watch_memory(self) -> None:
        self._guard.check()
        self._heap.look()
        self._watching = asyncio.get_running_loop().call_later(MEMORY_CHECK_S, self._watch_memory)

    def _listening(self, what: str, port: int) -> None:
        """Tell that a listener is open, and loudly what it lacks for the network that it is open to."""
        opening = self._openings[what]
        self.ports[what] = port
        address = f"{opening.host}:{port}"
        tls = "mutual" if opening.files and opening.files.client_ca_file else "on" if opening.files else "off"
        auth = "on" if opening.asked else "off"
        self.logger.info("listening", what=what, address=address, tls=tls, authentication=auth)
        for missing in opening.warnings():
            self.logger.warning("open to the network", what=what, address=address, missing=missing)

    def not_ready(self) -> list[str]:
        """Return why no traffic should come; empty when it may."""
        return (["the daemon is shutting down"] if self._draining else []) + self._tenants.not_ready()

    async def stop(self) -> None:
        """Stop in the reverse order of starting; safe after a start that failed half-way."""
        self._draining = True
        notify(STOPPING)
        if self._watching is not None:
            self._watching.cancel()
        for interval in self._intervals:
            interval.stop()
        try:
            await asyncio.wait_for(self._admission.drain(), DRAIN_S)
        except TimeoutError:
            self.logger.warning("requests in flight were given up", requests=self._admission.in_flight_requests)
        self._tails.stop()
        await asyncio.gather(
            *([self._queries.stop(CLOSE_S)] if self._queries is not None else []),
            *([self._http.stop(CLOSE_S)] if self._http is not None else []),
            *([self._grpc.stop(CLOSE_S)] if self._grpc is not None else []),
            *([self._api.stop()] if self._api is not None else []),
        )
        await self._tenants.drain()
        await self._exports.stop()
        self._engine.close()
        self._tails.close()
        self._pushes.close()
        if self._authenticator is not None:
            self._authenticator.close()
        if self._compactor is not None:
            self._compactor.close()
        self._tenants.close()
        if self._reserve is not None:
            self._reserve.hold()
        if self._lock is not None:
            self._lock.release()


def _keepalive(settings: GrpcKeepalive) -> Keepalive:
    server, policy = settings.server_parameters, settings.enforcement_policy
    return Keepalive(
        idle_s=server.max_connection_idle or math.inf,
        age_s=server.max_connection_age or math.inf,
        age_grace_s=server.max_connection_age_grace or math.inf,
        time_s=server.time,
        timeout_s=server.timeout,
        ping_interval_s=policy.min_time,
        idle_pings=policy.permit_without_stream,
    )
