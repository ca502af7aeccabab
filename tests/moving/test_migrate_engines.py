"""Migration between PostgreSQL and ClickHouse, the real engines: all of it arrives, once, whatever is killed; and what one of
them drops, changes or doubles in silence is found by its hour."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.errors import Unavailable
from collector.exporters.base import END_OF_TIME, Backend, Batch, Context, Rejected, Source, Wanted
from collector.exporters.clickhouse.kind import KIND as CLICKHOUSE
from collector.exporters.clickhouse.settings import ClickHouseSettings
from collector.exporters.kinds import Kind
from collector.exporters.postgres.kind import KIND as POSTGRES
from collector.exporters.postgres.settings import PostgresSettings
from collector.exporters.settings import ClientTls
from collector.moving.migrate import HOUR_NS, Hour, Migration, Position
from collector.otlp.block import Block
from collector.otlp.cut import cut
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.security.secret import Secret
from collector.testing import otlp
from collector.testing.corpus import HOSTILE, TIME_NS, corpus, wholes
from tests.exporters.clickhouse.server import Server as ClickHouseServer
from tests.exporters.clickhouse.server import database, emptied, need_engine, serving
from tests.exporters.postgres_server import Server
from tests.moving.killed import until_done

OF = Source("0" * 32, "", LOGS)
DAYS = (0, 40)
EACH = 30
WINDOW = {TRACES: 64, LOGS: 64, METRICS: 1000}
"""Data points lie in five tables of ClickHouse, and to count them takes five times as long."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def clickhouse() -> Iterator[str]:
    """The engine of this process, served in another thread: its URL."""
    need_engine()
    found: list[str] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with serving(ClickHouseServer().answer) as url:
            found.append(url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield found[0]
    loop.call_soon_threadsafe(over.set)
    thread.join(60)
    loop.close()


def in_postgres(server: Server, schema: str) -> PostgresSettings:
    return PostgresSettings(
        endpoint=f"127.0.0.1:{server.port}",
        database=server.database,
        username=server.user,
        password=Secret(server.password),
        schema=schema,
        tls=ClientTls(insecure=True),
        partitions_ahead=0,
    )


def in_clickhouse(url: str, name: str = "", **more: Any) -> ClickHouseSettings:
    return ClickHouseSettings(endpoint=(url,), database=name or database(), compress="none", **more)


@asynccontextmanager
async def started(*backends: tuple[Kind, Any]) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(2))
        made: list[Any] = []
        for kind, settings in backends:
            context = Context("x", SystemClock(), structlog.get_logger(), CollectorRegistry(), threads, None)
            made.append(kind.make(settings, context))
            stack.push_async_callback(made[-1].stop)
            await made[-1].start()
        yield made


def times(signal: Signal, first: int) -> bytes:
    """Records at the ends of time; data points have no time but their own."""
    request: Any = signal.request_type()
    for number, time_ns in enumerate((0, 1, 2**63 - 1, 2**63, END_OF_TIME - 1, END_OF_TIME)):
        name = f"time {first + number}"
        if signal is TRACES:
            spans = request.resource_spans.add().scope_spans.add().spans
            spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name=name, start_time_unix_nano=time_ns)
        elif signal is LOGS:
            logs = request.resource_logs.add().scope_logs.add().log_records
            logs.add(time_unix_nano=time_ns, observed_time_unix_nano=5).body.string_value = name
        else:
            points = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name).gauge.data_points
            points.add(time_unix_nano=time_ns, as_int=number)
    return bytes(request.SerializeToString())


async def fill(backend: Backend, signal: Signal) -> Counter[bytes]:
    """Records of all shapes, on some days and at the ends of time, and twice the same one."""
    payloads = [corpus(signal, EACH, seed=1, texts=HOSTILE), times(signal, 0)]
    payloads += [otlp.BUILDERS[signal](EACH, seed=day, time_ns=TIME_NS - day * 24 * HOUR_NS) for day in DAYS]
    payloads.append(payloads[-1])
    at = 0
    for payload in payloads:
        block = scan(signal, payload, at)
        await backend.export(Batch(OF._replace(signal=signal), (block,), at, block.end_offset))
        at = block.end_offset
    return Counter(one.key() for payload in payloads for one in wholes(signal, payload))


async def held(backend: Backend, signal: Signal) -> Counter[bytes]:
    return Counter(
        [one.key() async for block in backend.read(Wanted(signal)) for one in wholes(signal, bytes(block.payload))]
    )


def migration(source: Backend, target: Backend, signal: Signal) -> Migration:
    position = Position({}, "1" * 32, {})
    return Migration(source, target, position, SystemClock(), random.Random(1), window_records=WINDOW[signal])


async def different(one: Migration, signal: Signal) -> list[Hour]:
    return [hour async for hour in one.verify(signal, "") if not hour.equal]


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
async def test_there_and_back(postgres: Server, clickhouse: str, signal: Signal) -> None:
    first, last = (in_postgres(postgres, f"{place} {signal.name}") for place in ("first", "last"))
    async with started((POSTGRES, first), (CLICKHOUSE, in_clickhouse(clickhouse)), (POSTGRES, last)) as places:
        owed = await fill(places[0], signal)
        for source, target in itertools.pairwise(places):
            one = migration(source, target, signal)
            moved = await one.move(signal, "")
            assert (moved.offset, moved.rejected) == (owed.total(), 0)
            assert await different(one, signal) == []
        assert await held(places[2], signal) == owed


class Faulty:
    """A backend that takes every batch and says that all is well, or one that does not show all that it has."""

    def __init__(self, backend: Any, fault: str) -> None:
        self._backend = backend
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def export(self, batch: Batch) -> Rejected | None:
        (block,), fault = batch.blocks, self._fault
        self._fault = ""
        if fault == "drops":
            batch = replace(batch, blocks=(cut(block, 1, block.count),))
        elif fault == "changes":
            changed = bytes(block.payload).replace(b"checkout", b"chockout", 1)
            assert changed != bytes(block.payload)
            batch = replace(batch, blocks=(scan(LOGS, changed, block.base_offset),))
        elif fault == "doubles":
            await self._backend.export(replace(batch, source=OF, blocks=(cut(block, 0, 1),)))
        found: Rejected | None = await self._backend.export(batch)
        return found

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        async for block in self._backend.read(wanted):
            hides, self._fault = self._fault == "hides", ""
            yield cut(block, 1, block.count) if hides else block


FAULTS = {"drops": -1, "changes": 0, "doubles": 1}
"""How many records more there are, then."""
LAST_DAY_NS = TIME_NS - max(DAYS) * 24 * HOUR_NS


@pytest.mark.parametrize("target", ["postgres", "clickhouse"])
async def test_a_backend_that_lies_is_found(postgres: Server, clickhouse: str, target: str) -> None:
    """The canary."""
    columns = database()
    for fault, more in FAULTS.items():
        ends: list[tuple[Kind, Any]] = [
            (POSTGRES, in_postgres(postgres, f"lie {target}")),
            (CLICKHOUSE, in_clickhouse(clickhouse, emptied(columns))),
        ]
        with postgres.connect(autocommit=True) as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "lie {target}" CASCADE')
        async with started(*(ends if target == "clickhouse" else reversed(ends))) as (source, honest):
            for day in DAYS:
                block = scan(LOGS, otlp.logs(EACH, seed=day, time_ns=TIME_NS - day * 24 * HOUR_NS), day * EACH)
                await source.export(Batch(OF, (block,), block.base_offset, block.end_offset))
            one = migration(source, Faulty(honest, fault), LOGS)  # type: ignore[arg-type]
            await one.move(LOGS, "")
            (hour,) = await different(one, LOGS)
            assert hour.start_ns == LAST_DAY_NS // HOUR_NS * HOUR_NS
            assert hour.records == (EACH, EACH + more)
            with pytest.raises(Unavailable, match="the source counts"):
                await migration(Faulty(source, "hides"), honest, LOGS).move(LOGS, "")  # type: ignore[arg-type]


START_S = 0.2
"""How long a command that speaks to two servers takes until it moves something, about."""
PATCHES = {"collector.moving.migrate:WINDOW_RECORDS": 100, "collector.moving.migrate:BATCH_RECORDS": 16}


def test_kills_on_the_way_there_and_back(tmp_path: Path, postgres: Server, clickhouse: str) -> None:
    """The command is killed at any moment and begun again, until both hold the same."""
    columns = in_clickhouse(clickhouse)

    async def first() -> int:
        async with started((POSTGRES, in_postgres(postgres, "killed first"))) as (backend,):
            (count,) = {(await fill(backend, signal)).total() for signal in SIGNALS}
            return count

    async def owed() -> None:
        async with started(*((POSTGRES, in_postgres(postgres, f"killed {one}")) for one in ("first", "last"))) as ends:
            for signal in SIGNALS:
                assert await held(ends[0], signal) == await held(ends[1], signal)

    count = asyncio.run(first())
    address = f"postgres:127.0.0.1:{postgres.port}"
    settings = {
        "postgres": {"password": postgres.password, "tls.insecure": "true", "partitions_ahead": "0"},
        "clickhouse": {"database": columns.database, "compress": "none"},
    }
    for number, (source, target, schema) in enumerate(
        ((address, f"clickhouse:{clickhouse}", "first"), (f"clickhouse:{clickhouse}", address, "last"))
    ):
        arguments = ["migrate", "--from", source, "--to", target, "--state", str(tmp_path / schema)]
        for end, spec in (("from", source), ("to", target)):
            kind = spec.partition(":")[0]
            more = {"schema": f"killed {schema}"} if kind == "postgres" else {}
            for key, value in (settings[kind] | more).items():
                arguments += ["--set", f"exporters.{kind}/migrate-{end}.{key}={value}"]
        output = tmp_path / f"output {schema}"
        assert until_done(arguments, PATCHES, output, number, first_s=START_S) > 1
        same = dict(re.findall(r"(\w+): \d+ hours compared, (\d+) records: the same", output.read_text()))
        assert same == dict.fromkeys([one.name for one in SIGNALS], str(count)), output.read_text()
    asyncio.run(owed())
