"""A Ringtail inside a test's process: real ports on loopback, rings only, in a thread with an event loop of its own.

It is made of the daemon's parts, with nothing on disk, no limits but fixed ones, and receivers that note violations
(strict.py). Starting takes some 30 ms and the imports before it; `clear` empties the rings and costs 0.1 ms, so that
one server does for all tests of a session.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import uvloop
from prometheus_client import CollectorRegistry

from collector.api.app import create_app
from collector.api.server import ApiServer
from collector.clock import SystemClock
from collector.errors import Unavailable
from collector.otlp.signals import SIGNALS, Signal
from collector.query.engine import Engine
from collector.receivers.admission import Admission
from collector.receivers.export import Destination, ReceiverMetrics
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.strict import Notes, StrictGrpcReceiver, StrictHttpReceiver, StrictReceiver, Violations

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

Result = TypeVar("Result")

HOST: Final = "127.0.0.1"
RECORDS_MAX: Final = 65_536
"""Records of each signal between two calls of `clear`; older ones are evicted."""
RING_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes of each ring."""
REQUEST_BYTES_MAX: Final = 64 * 1024 * 1024
IN_FLIGHT_BYTES_MAX: Final = 256 * 1024 * 1024
QUERY_THREADS: Final = 2
QUERY_TIMEOUT_S: Final = 30.0
CONNECTION_TIMEOUT_S: Final = 60.0
START_TIMEOUT_S: Final = 30.0
CLOSE_S: Final = 0.2
"""How long connections may take to close when the server stops."""

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
_INSECURE: Final = "OTEL_EXPORTER_OTLP_INSECURE"
_ENVIRONMENT: Final = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_BLRP_SCHEDULE_DELAY": "100",
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
}
"""Delays are in ms. Delta sums begin anew with each test, where cumulative ones would go on from the last."""


class Server:
    """One running server; `with Server() as server`, or `stop` it."""

    def __init__(self) -> None:
        """Start it. Raises Unavailable when it cannot listen on loopback."""
        self.clock = SystemClock()
        self.violations = Violations()
        self.http = self.grpc = self.api = ""
        """`host:port` of OTLP/HTTP, of OTLP/gRPC, and of the query API."""
        self._loop: asyncio.AbstractEventLoop
        self._ending: asyncio.Event
        self._stores: dict[str, Store] = {}
        self._admission = Admission(IN_FLIGHT_BYTES_MAX)
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="ringtail", daemon=True)
        self._thread.start()
        started.result(START_TIMEOUT_S)

    def _run(self, started: Future[None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(started))

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        clock = self.clock
        engine = Engine(QUERY_THREADS, QUERY_TIMEOUT_S, clock)
        registry = CollectorRegistry()
        notes: Any = Notes(self.violations)
        self._stores = {one.name: Store(one, self._ring(one, 0), None, self._loop) for one in SIGNALS}
        metrics = ReceiverMetrics(registry)

        def receivers(transport: str) -> list[StrictReceiver]:
            return [StrictReceiver(one, transport, self._finder(one), metrics, self.violations) for one in SIGNALS]

        http = StrictHttpReceiver(
            receivers("http"),
            self._admission,
            clock,
            notes,
            body_bytes_max=REQUEST_BYTES_MAX,
            read_header_timeout_s=CONNECTION_TIMEOUT_S,
            idle_timeout_s=CONNECTION_TIMEOUT_S,
        )
        grpc = StrictGrpcReceiver(
            receivers("grpc"),
            self._admission,
            clock,
            notes,
            message_bytes_max=REQUEST_BYTES_MAX,
            first_bytes_timeout_s=CONNECTION_TIMEOUT_S,
            idle_timeout_s=CONNECTION_TIMEOUT_S,
        )
        http.violations = grpc.violations = self.violations
        api = ApiServer(create_app(self._stores, engine, registry, list, dict, dict, notes))
        try:
            self.http = f"{HOST}:{await http.start(HOST, 0)}"
            self.grpc = f"{HOST}:{await grpc.start(HOST, 0)}"
            self.api = f"{HOST}:{await api.start(HOST, 0)}"
            started.set_result(None)
            await self._ending.wait()
        except Unavailable as error:
            started.set_exception(error)
        finally:
            # A client that keeps its connection open, as exporters do, is not worth a word.
            self.violations.take()
            await asyncio.gather(http.stop(CLOSE_S), grpc.stop(CLOSE_S), api.stop())
            engine.close()

    def _finder(self, signal: Signal) -> Callable[[str], Destination]:
        destination = Destination(self._stores[signal.name])
        return lambda tenant: destination

    @staticmethod
    def _ring(signal: Signal, offset: int) -> Ring:
        return Ring(signal, RECORDS_MAX, RING_BYTES_MAX, offset)

    def _call(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns in the server's thread."""
        done: Future[Result] = Future()

        def call() -> None:
            try:
                done.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
                done.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return done.result(START_TIMEOUT_S)

    @property
    def endpoint(self) -> str:
        """OTLP/HTTP's base URL."""
        return f"http://{self.http}"

    @property
    def grpc_endpoint(self) -> str:
        """OTLP/gRPC's URL."""
        return f"http://{self.grpc}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make an SDK of any language send here, by OTLP/HTTP and without long waits for a batch."""
        return {**_ENVIRONMENT, _ENDPOINT: self.endpoint, _PROTOCOL: "http/protobuf"}

    @property
    def grpc_environment(self) -> dict[str, str]:
        """The same by OTLP/gRPC."""
        return {**_ENVIRONMENT, _ENDPOINT: self.grpc_endpoint, _PROTOCOL: "grpc", _INSECURE: "true"}

    def clear(self) -> None:
        """Forget all records. What is being received meanwhile is there afterwards, or is not."""

        def clear() -> None:
            for store in self._stores.values():
                store.adopt(self._ring(store.signal, store.ring.next_offset))

        self._call(clear)

    def counts(self) -> dict[str, int]:
        """Return how many records of each signal there are."""
        return self._call(lambda: {name: len(store.ring) for name, store in self._stores.items()})

    def evicted(self) -> int:
        """Return how many records there was no room for since the last `clear`."""
        return self._call(lambda: sum(store.ring.evicted for store in self._stores.values()))

    def stop(self) -> None:
        """Stop it, and wait for its end; nothing to do if it has been stopped."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(START_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
