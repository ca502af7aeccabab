"""What each tenant's queries are answered from: its stores, an engine, its API, and the backend behind its stores.

A daemon that keeps no tenants apart has one API. Otherwise each tenant has its own, made when it is first asked, and a
lane of the one engine, which leaves a thread to others; a name that was never written to reads as empty. Where
`query.backend` names an exporter, the queries of every store go on there for what ring and log no longer hold.

Owner: the event loop's thread.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from collector.api.app import create_app
from collector.api.grpc import Served
from collector.api.limit import ResponseLimit
from collector.api.loki_push import PushDoor
from collector.api.tenants import TenantApps
from collector.exporters.reaching import keyed, reading
from collector.otlp.signals import SIGNALS
from collector.query.deleting import Deleting
from collector.query.engine import Engine
from collector.query.reach import Way
from collector.query.tails import Tails
from collector.ring.ring import Ring, bytes_min
from collector.store import Store
from collector.tenant import span_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prometheus_client import CollectorRegistry
    from starlette.types import ASGIApp

    from collector.clock import Clock
    from collector.config import Config
    from collector.exporters.exports import Exports
    from collector.query.spanmetrics.demand import SpanMetrics
    from collector.receivers.admission import Admission
    from collector.tenants import Tenants


class Serving:
    """The answering side of one daemon."""

    def __init__(
        self,
        config: Config,
        tenants: Tenants,
        exports: Exports,
        admission: Admission,
        *,
        clock: Clock,
        registry: CollectorRegistry,
        logger: Any,
        not_ready: Callable[[], list[str]],
        memory: Callable[[], dict[str, int]],
        listeners: Callable[[], dict[str, Any]],
        reload: Callable[[], dict[str, list[str]]],
    ) -> None:
        """`not_ready`, `memory` and `listeners` give what operators are told of the daemon, and `reload` is what they may
        have it do (api/admin.py)."""
        self.tails = Tails(config.query.max_tails, clock, registry, apart=config.tenants.enabled)
        """All live tails."""
        self.pushes = PushDoor(admission)
        """Where the API takes Loki's pushes in, once it is opened."""
        self._config = config
        self._tenants = tenants
        self._exports = exports
        self._clock = clock
        self._registry = registry
        self._logger = logger
        self._not_ready = not_ready
        self._memory = memory
        self._listeners = listeners
        self._reload = reload
        self._response_limit = ResponseLimit(config.api.max_response_size)
        self._engine = Engine(config.query.threads, config.query.timeout, clock, lambda: admission.ended_requests)
        self._lanes: dict[str, Engine] = {}
        self._apps: dict[str, ASGIApp] = {}
        self._nothing: dict[str, Store] = {}
        self._ways: dict[tuple[str, str], Way] = {}

    def app(self) -> ASGIApp:
        """Return the query API over HTTP, of all tenants. They are open; call it once."""
        if not self._tenants.apart:
            only = self._tenants.by_name[""]
            return self._app("", only.stores, self._engine, self.tails, only.spans)
        loop = asyncio.get_running_loop()
        self._nothing = {one.name: Store(one, Ring(one, 1, bytes_min(one, 1)), None, loop) for one in SIGNALS}
        spans = span_metrics(self._config, self._clock)
        operators = self._apps[""] = self._app("", self._nothing, self._engine, None, spans)
        return TenantApps(operators, self._app_of)

    def served(self, name: str) -> Served:
        """Return what a tenant's queries over gRPC are answered from. Raises as `Tenants.find`."""
        tenant = self._tenants.find(name)
        if tenant is None:
            return Served(self._nothing, self._engine, held=False)
        return Served(tenant.stores, self._lane(name))

    def is_querying(self) -> bool:
        """Whether queries run or wait."""
        return self._engine.pending > 0

    def reach_back(self) -> None:
        """Let the queries of all tenants read what their stores no longer hold from the backend that is configured."""
        query = self._config.query
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
                    self._clock,
                    self._logger.bind(signal=one.name, **({"tenant": name} if name else {})),
                    timeout_s=query.backend_timeout,
                    shared=query.backend_shared,
                    keyed=partial(keyed, self._exports, query.backend),
                    pending=partial(getattr, store.deletions, "pending"),
                )
                store.behind = way.reach

    def limit(self, config: Config) -> None:
        """Change how large answers may be, and how long queries may take that begin from now on."""
        self._response_limit.bytes_max = config.api.max_response_size
        self._engine.limit(config.query.timeout)

    def stop(self) -> None:
        """End the live tails, which would go on for ever; queries that run are still answered."""
        self.tails.stop()

    def close(self) -> None:
        """End the threads; no request is under way."""
        self._engine.close()
        self.tails.close()
        self.pushes.close()

    def _app(
        self, name: str, stores: Mapping[str, Store], engine: Engine, tails: Tails | None, spans: SpanMetrics | None
    ) -> ASGIApp:
        return create_app(
            stores,
            engine,
            self._registry,
            self._not_ready,
            self._memory,
            self._reload,
            self._logger,
            self._listeners,
            self._response_limit,
            tails,
            spans,
            self.pushes,
            lambda: self._exported(name),
            self._exports.troubles,
            Deleting(
                stores,
                engine,
                self._logger.bind(tenant=name) if name else self._logger,
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
            self._apps[name] = self._app(name, tenant.stores, self._lane(name), self.tails, tenant.spans)
        return self._apps[name]

    def _lane(self, name: str) -> Engine:
        """Return what a tenant's queries run in."""
        if not self._tenants.apart:
            return self._engine
        if name not in self._lanes:
            self._lanes[name] = self._engine.lane()
        return self._lanes[name]

    def _exported(self, tenant: str) -> dict[str, Any]:
        """Return the part of `/api/stats` about a tenant's exporters, and about the queries that read from one."""
        found = self._exports.stats(tenant)
        read = {signal: way.stats() for (name, signal), way in self._ways.items() if name == tenant}
        if read and self._config.query.backend in found:
            found[self._config.query.backend]["queries"] = read
        return found
