"""One corpus, held twice: whole in memory, and with ring and log so small that most of it is in a backend only.

`QUESTIONS` are asked of both through the HTTP API; answers must be the same but for what tells where data lies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry

from collector.api.app import create_app
from collector.clock import Clock, SystemClock
from collector.exporters.base import Backend, Batch, Context, Source
from collector.exporters.kinds import Kind
from collector.exporters.reaching import reading
from collector.exporters.settings import ExporterSettings
from collector.otlp.remains import remains
from collector.otlp.scan import scan
from collector.otlp.signals import METRICS, SIGNALS, Signal
from collector.otlp.tombstones import Tombstones
from collector.query.engine import Engine
from collector.query.reach import Way
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.corpus import SECOND_NS, TIME_NS, corpus, trace_id
from collector.testing.files import MemoryFiles
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from tests.api.asgi import Answer, call
from tests.exporters.rig import AtOnceCommitter
from tests.wal.logs import RecordingLogger

INSTANCE: Final = "00112233445566778899aabbccddeeff"
COUNT: Final = 240
EACH: Final = 20
"""Records of one request."""
BEGIN: Final = TIME_NS // SECOND_NS
TEXTS: Final = ("plain", "GET /cart", "order failed", "läuft")


def requests(signal: Signal, without: frozenset[bytes] = frozenset()) -> list[bytes]:
    """The corpus in requests, in order of time, without some traces."""
    block = scan(signal, corpus(signal, COUNT, texts=TEXTS), 0)
    batch = Batch(Source(INSTANCE, "", signal), (block,), 0, COUNT)
    parts = (batch.part(first, first + EACH) for first in range(0, COUNT, EACH))
    found = [bytes(part.payload) for part in parts if part is not None]
    return found if not without or signal is METRICS else [_less(signal, one, without) for one in found]


def _less(signal: Signal, payload: bytes, without: frozenset[bytes]) -> bytes:
    block = scan(signal, payload, 0)
    gone = [row for row in range(block.count) if block.column("trace_id")[row].tobytes() in without]
    return b"".join(bytes(one.payload) for one in remains(block, Tombstones.of(np.array(gone, np.int64))))


class Named:
    """What `reading` asks of `Exports`."""

    def __init__(self, backend: Backend | None, instance: str = INSTANCE) -> None:
        self.found = backend
        self.instance = instance
        self.deleted: frozenset[bytes] = frozenset()
        self.known: frozenset[bytes] = frozenset()

    def backend(self, name: str) -> Backend | None:
        return self.found

    def deleted_records(self, name: str, tenant: str, signal: Signal) -> frozenset[bytes]:
        return self.known

    def deleted_traces(self, name: str, tenant: str, signal: Signal) -> frozenset[bytes]:
        return self.deleted

    def source(self, tenant: str, signal: Signal) -> Source:
        return Source(self.instance, tenant, signal)


class Held:
    """Three stores with the corpus, and the API over them."""

    def __init__(self, threads: int = 2) -> None:
        self.stores: dict[str, Store] = {}
        self.logger = RecordingLogger()
        self.ways: dict[str, Way] = {}
        self.engine = Engine(threads, 30.0, SystemClock())
        self.app: Any = None
        self.named: list[Named] = []

    def open(self) -> None:
        self.app = create_app(self.stores, self.engine, CollectorRegistry(), list, dict, dict, self.logger)

    async def ask(self, path: str, query: Any) -> Answer:
        return await call(self.app, path, query)


@asynccontextmanager
async def whole(without: frozenset[bytes] = frozenset()) -> AsyncIterator[Held]:
    """Everything in memory, but for some traces."""
    held = Held()
    loop = asyncio.get_running_loop()
    for signal in SIGNALS:
        store = held.stores[signal.name] = Store(signal, Ring(signal, 10_000, 1 << 24), None, loop)
        for one in requests(signal, without):
            await store.append(one)
    held.open()
    yield held
    held.engine.close()


@asynccontextmanager
async def made(kind: Kind, settings: ExporterSettings, directory: Path) -> AsyncIterator[Backend]:
    """A backend that has started."""
    with ThreadPoolExecutor(2) as threads:
        context = Context(
            "tested", SystemClock(), RecordingLogger(), CollectorRegistry(), threads, str(directory / "tested")
        )
        backend = kind.make(settings, context)
        assert isinstance(backend, Backend)
        try:
            await backend.start()
            yield backend
        finally:
            await backend.stop()


@asynccontextmanager
async def reduced(
    backend: Backend | None,
    *,
    logged: bool = True,
    threads: int = 2,
    clock: Clock | None = None,
    **options: Any,
) -> AsyncIterator[Held]:
    """Everything in the backend, the newer half in the logs, and a few records in the rings."""
    held = Held(threads)
    loop = asyncio.get_running_loop()
    for signal in SIGNALS:
        log = opened(signal, clock or SystemClock()) if logged else None
        store = held.stores[signal.name] = Store(signal, Ring(signal, 30, 1 << 22), log, loop)
        if log is not None:
            store.attach(AtOnceCommitter(log, store))
        for one in requests(signal):
            offset = store.ring.next_offset
            await store.append(one)
            if backend is not None:
                block = scan(signal, one, offset)
                await backend.export(Batch(Source(INSTANCE, "", signal), (block,), offset, block.end_offset))
        if log is not None:
            log.retain(log.byte_size // 2, None)
            log.enforce_retention()
            assert 0 < log.first_offset < store.ring.first_offset
        held.named.append(Named(backend))
        way = held.ways[signal.name] = Way(
            "tested",
            reading(held.named[-1], "tested", "", signal),
            loop,
            SystemClock(),
            held.logger,
            keyed=lambda: backend is None or backend.keyed,
            pending=partial(getattr, store.deletions, "pending"),
            **options,
        )
        store.behind = way.reach
    held.open()
    yield held
    held.engine.close()


def opened(signal: Signal, clock: Clock) -> Log:
    """A log of small segments on files in memory."""
    return Log.open(
        "/data",
        signal,
        files=MemoryFiles(),
        clock=clock,
        metrics=LogMetrics(CollectorRegistry()),
        logger=RecordingLogger(),
        segment_bytes=16_384,
    )


def _questions() -> Iterator[tuple[str, dict[str, Any]]]:
    ranges = ((BEGIN, BEGIN + COUNT), (BEGIN + 20, BEGIN + 90), (BEGIN + 100, BEGIN + 235))
    traceql = (
        "{}",
        '{ .color = "red" }',
        '{ span.color = "red" && resource.service.name = "cart" }',
        '{ name = "plain 1" } | select(span.number)',
        "{ resource.host.id = 3 && span.number > 1 }",
        "{ status = error } && { kind = server }",
        '{ span.color = "blue" } >> { }',
        "{} | count() > 2",
        "{ trace:duration > 1s }",
        '{ name =~ "GET.*" } | by(resource.service.name)',
    )
    for start, end in ranges:
        for query in traceql:
            yield "/api/search", {"q": query, "start": start, "end": end, "limit": 300, "spss": 10}
        yield "/api/search", {"q": "{}", "start": start, "end": end, "limit": 5}
        for query in ("{} | rate()", '{ .color = "red" } | count_over_time() by (resource.service.name)'):
            yield "/api/metrics/query_range", {"q": query, "start": start, "end": end, "step": "10s"}
        for path in ("/api/v2/search/tags", "/api/v2/search/tag/span.color/values", "/api/v2/search/tag/name/values"):
            yield path, {"start": start, "end": end}
        logql = (
            '{service_name=~".+"}',
            '{service_name="cart"}',
            '{service_name=~".+"} |= "accepted"',
            '{service_name=~".+"} |= "GET /cart accepted"',
            '{service_name=~".+"} |~ "order 1[0-9]+ of (läuft|plain)"',
            '{service_name=~".+"} |= "order failed" != "plain" | detected_level="info"',
            '{service_name=~".+"} | color="red" | line_format "{{.color}}"',
        )
        ns = {"start": start * SECOND_NS, "end": end * SECOND_NS}
        for query in logql:
            for direction in ("forward", "backward"):
                yield "/loki/api/v1/query_range", {"query": query, **ns, "limit": 7, "direction": direction}
            yield "/loki/api/v1/query_range", {"query": query, **ns, "limit": 5000}
        for query in (
            'sum by (service_name) (count_over_time({service_name=~".+"}[10s]))',
            'sum(rate({service_name=~".+"} |= "accepted" [20s]))',
            'sum by (color) (count_over_time({service_name=~".+"} | color!="" [30s]))',
        ):
            yield "/loki/api/v1/query_range", {"query": query, **ns, "step": "10"}
        yield "/loki/api/v1/query_range", {"query": '{service_name=~".+"}', **ns, "interval": "15s"}
        for path in ("labels", "label/service_name/values", "index/volume", "detected_fields", "patterns"):
            yield f"/loki/api/v1/{path}", {"query": '{service_name=~".+"}', **ns, "step": "10s"}
        for query in (
            '{__name__=~".+"}',
            "plain_gauge_0_bytes",
            "rate(plain_sum_1_bytes_total[30s])",
            'sum by (job) ({__name__=~"plain.*count"})',
            "order_failed_histogram_2_bytes_bucket",
            "target_info",
        ):
            yield "/api/v1/query_range", {"query": query, "start": start, "end": end, "step": 5}
        for query in ('{__name__=~".+"}', '{__name__=~".+_bucket", le="2.5"}', "order_failed_histogram_2_bytes_bucket"):
            yield "/api/v1/query_exemplars", {"query": query, "start": start, "end": end}
        for path in ("/api/v1/labels", "/api/v1/label/__name__/values"):
            yield path, {"start": start, "end": end}
        jaeger = {"start": start * 10**6, "end": end * 10**6, "limit": 300}
        yield "/jaeger/api/traces", {"service": "cart", **jaeger}
        yield "/jaeger/api/traces", {"service": "cart", "operation": "plain 1", **jaeger}
        yield "/jaeger/api/dependencies", {"endTs": end * 1000, "lookback": (end - start) * 1000}
    for number in (0, 3, 33, 34, 60, 79):
        yield f"/api/v2/traces/{trace_id(number).hex()}", {}
        yield f"/jaeger/api/traces/{trace_id(number).hex()}", {}
        yield "/api/related", {"trace_id": trace_id(number).hex()}
    yield "/jaeger/api/services", {}
    yield "/jaeger/api/operations", {"service": "cart"}
    yield f"/api/v2/traces/{trace_id(999).hex()}", {}


QUESTIONS: Final = tuple(_questions())

_WHERE: Final = frozenset(("metrics", "stats", "coverage", "offset", "nextCursor", "exemplars"))
"""Fields that tell where data lies, or what it took to find it; of spans as exemplars, some are taken as they come."""


def same(answer: Answer) -> Any:
    """An answer without what may differ."""
    assert answer.status in (200, 404), answer.text
    if answer.headers.get("content-type") != "application/json":
        return answer.status, answer.text
    return answer.status, _plain(answer.json)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items() if key not in _WHERE or "seriesLabels" in value}
    return [_plain(one) for one in value] if isinstance(value, list) else value
