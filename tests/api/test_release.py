"""Answers hold blocks no longer than they take: what a ring has evicted is free once the last query is answered.

The garbage collector is off in these tests, so a cycle that holds a block fails them too.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from collector.api.app import create_app
from collector.clock import SystemClock
from collector.heap import anonymous_bytes, give_back
from collector.otlp.block import Block
from collector.otlp.signals import SIGNALS
from collector.query.deadline import Deadline
from collector.query.engine import Engine
from collector.query.slices import slices
from collector.ring.ring import Ring
from collector.store import Store, View
from collector.testing.otlp import BUILDERS, TIME_NS
from collector.wal.commit import Committer
from collector.wal.files import OperatingSystemFiles
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from tests.api.asgi import call

CAPACITY = 250
QUERIES = 1000
TURN = 10
"""Queries between two requests of each signal."""
END = TIME_NS // 10**9 + 1
SPAN = {"start": END - 600, "end": END}


class Fixed(SystemClock):
    """Now is the end of what was sent."""

    def now_ns(self) -> int:
        return END * 10**9


def blocks_alive() -> list[Block]:
    """Every block in this process."""
    return [one for one in gc.get_objects() if type(one) is Block]


class Served:
    """Three small stores and the API over them, as the daemon builds it."""

    def __init__(self, directory: Path | None) -> None:
        loop = asyncio.get_running_loop()
        self.engine = Engine(2, 60.0, Fixed())
        self.stores: dict[str, Store] = {}
        self.closing: list[Any] = []
        for signal in SIGNALS:
            log = None
            if directory is not None:
                log = Log.open(
                    str(directory),
                    signal,
                    files=OperatingSystemFiles(),
                    clock=SystemClock(),
                    metrics=LogMetrics(CollectorRegistry()),
                    logger=structlog.get_logger(),
                )
            store = self.stores[signal.name] = Store(signal, Ring(signal, CAPACITY, 1 << 25), log, loop)
            if log is not None:
                committer = Committer(log, "never", 1.0, store.committed)
                store.attach(committer)
                self.closing += [committer, log]
        self.app = create_app(self.stores, self.engine, CollectorRegistry(), list, dict, dict, structlog.get_logger())
        self.sent = 0
        self.others = blocks_alive()  # of tests before this one; held, so that none of their ids comes again

    async def send(self) -> None:
        """Append a request of each signal: sometimes one record, sometimes many."""
        self.sent += 1
        count = (1, 1, 1, 100, 300)[self.sent % 5]
        for signal in SIGNALS:
            seed, time = self.sent % 20, TIME_NS - self.sent % 100 * 10**9
            await self.stores[signal.name].append(BUILDERS[signal](count, seed=seed, time_ns=time))

    async def fill(self) -> None:
        """Let every ring turn over once at least."""
        evicted = [store.ring.evicted for store in self.stores.values()]
        while any(
            store.ring.evicted < before + CAPACITY for store, before in zip(self.stores.values(), evicted, strict=True)
        ):
            await self.send()

    async def ask(self, path: str, query: Any = (), status: int = 200) -> bytes:
        answer = await call(self.app, path, query)
        assert answer.status == status, answer.text
        return answer.body

    def newest_trace(self) -> tuple[str, Any]:
        trace = self.stores["traces"].ring.snapshot().blocks[-1].column("trace_id")[0].tobytes()
        return f"/api/traces/{trace.hex()}", ()

    async def close(self) -> None:
        for store in self.stores.values():
            await store.drain()
        self.engine.close()
        for part in self.closing:
            part.close()

    def stray_blocks(self) -> list[Block]:
        """The blocks of this test that no ring holds."""
        held = {id(block) for store in self.stores.values() for block in store.ring.snapshot().blocks}
        held |= set(map(id, self.others))
        return [block for block in blocks_alive() if id(block) not in held]


LARGE: list[tuple[str, Any]] = [
    ("/api/search", {"q": "{}", "limit": 300, "spss": 100, **SPAN}),
    ("/loki/api/v1/query_range", {"query": '{service_name=~".+"}', "limit": 2000, **SPAN}),
    ("/api/v1/query_range", {"query": '{__name__=~".+"}', "step": 60, **SPAN}),
    ("/api/search", {"q": '{ resource.service.name = "checkout" && duration > 1ms }', "limit": 300, **SPAN}),
    ("/loki/api/v1/query_range", {"query": 'sum by (detected_level) (rate({service_name=~".+"}[1m]))', **SPAN}),
    ("/metrics/received", ()),
    ("/api/v2/search/tag/name/values", ()),
    ("/loki/api/v1/series", {"match[]": "{}", **SPAN}),
    ("/api/v1/series", {"match[]": '{__name__=~".+"}'}),
]


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served(None)
    await made.fill()
    yield made
    await made.close()


async def test_memory_returns_after_a_thousand_large_queries(served: Served) -> None:
    async def run(count: int) -> int:
        answered = 0
        for number in range(0, count, TURN):
            queries = [served.newest_trace(), *(LARGE[(number + i) % len(LARGE)] for i in range(TURN - 1))]
            answers = await asyncio.gather(*(served.ask(*query) for query in queries), served.send())
            answered += sum(len(answer) for answer in answers if answer is not None)
        return answered

    await run(10 * TURN)  # what is made at the first query
    give_back()
    before = anonymous_bytes()
    answered = await run(QUERIES)
    await served.fill()
    assert served.stray_blocks() == []
    give_back()
    assert answered > 40 * 1024 * 1024
    assert anonymous_bytes() - before < 16 * 1024 * 1024


async def test_memory_returns_when_the_log_is_read(tmp_path: Path) -> None:
    served = Served(tmp_path)
    await served.fill()
    await served.fill()
    for path, query in LARGE:
        await served.ask(path, query)
    await served.fill()
    assert served.stray_blocks() == []
    await served.close()


async def test_memory_returns_when_queries_fail(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.query.promql.series.SAMPLES_MAX", 100)
    monkeypatch.setattr("collector.query.logql.logs.ANSWER_BYTES_MAX", 1000)
    failing = [
        ("/api/v1/query_range", {"query": '{__name__=~".+"}', "step": 60, **SPAN}, 422),
        ("/loki/api/v1/query_range", {"query": '{service_name=~".+"}', "limit": 2000, **SPAN}, 400),
        ("/api/v1/query_range", {"query": "up[5m:1m]", "step": 60, **SPAN}, 400),
    ]
    for path, query, status in failing * 3:
        await served.ask(path, query, status)
    served.engine.timeout_s = 0.0
    for path, query in LARGE[:3] * 2:
        assert (await call(served.app, path, query)).status in (503, 504)
    await served.fill()
    assert served.stray_blocks() == []


async def test_a_running_query_holds_what_it_reads_and_no_longer(served: Served) -> None:
    store = served.stores["traces"]
    reading, go_on = threading.Event(), threading.Event()

    def slow(deadline: Deadline, view: View) -> int:
        reading.set()
        go_on.wait(30)
        return sum(len(rows) for _, rows in slices(view, deadline=deadline))

    async def query() -> int:
        with store.view() as view:
            return await served.engine.run(slow, view)

    count = len(store.ring)
    task = asyncio.create_task(query())
    await asyncio.to_thread(reading.wait, 30)
    await served.fill()
    assert sum(block.count for block in served.stray_blocks()) >= count
    go_on.set()
    assert await task == count
    del task
    assert served.stray_blocks() == []


async def test_a_query_that_nobody_waits_for_lets_go(served: Served) -> None:
    store = served.stores["logs"]
    reading, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(deadline: Deadline, view: View) -> None:
        try:
            for _ in slices(view, deadline=deadline):
                reading.set()
                go_on.wait(30)
        finally:
            ended.set()

    async def query() -> None:
        with store.view() as view:
            await served.engine.run(slow, view)

    task = asyncio.create_task(query())
    await asyncio.to_thread(reading.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    go_on.set()
    await asyncio.to_thread(ended.wait, 30)
    served.engine.close()  # the worker has left the query's frames
    await served.fill()
    assert served.stray_blocks() == []


async def test_a_released_view_is_not_read(served: Served) -> None:
    store = served.stores["traces"]
    view = store.view("service", b"checkout")
    piece = next(slices(view))
    with view:
        assert view.next_offset == store.ring.next_offset
    view.release()
    for read in (
        lambda: view.ring,
        lambda: view.candidates,
        lambda: view.first_offset,
        lambda: view.ring_offset,
        lambda: view.next_offset,
        lambda: next(slices(view)),
    ):
        with pytest.raises(AssertionError, match="after its release"):
            read()
    assert piece.block.count  # what was taken out before is the taker's
