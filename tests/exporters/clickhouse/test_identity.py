"""Single records are deleted out of tables that the Collector made, which have no keys: those, all of them, and no other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import structlog
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.exporters.base import Batch, Context, Source, Wanted
from collector.exporters.clickhouse import identity
from collector.exporters.clickhouse.backend import ClickHouse
from collector.exporters.clickhouse.columns import LAYOUTS
from collector.exporters.clickhouse.schema import base_name
from collector.exporters.clickhouse.settings import ClickHouseSettings
from collector.exporters.reaching import reading
from collector.otlp.asked import Asked
from collector.otlp.block import Block
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, TRACES, Signal
from collector.testing.corpus import HOSTILE, corpus, wholes
from collector.testing.exporters import batch_of
from tests.daemon import Daemon
from tests.e2e.test_forward import until
from tests.exporters.clickhouse.kept import kept
from tests.exporters.clickhouse.server import Server, database, done, need_engine, serving
from tests.exporters.reaching import Named

T = 1_790_000_000_123_456_789
Change = Callable[[Any, Any, Any], None]


def made(name: str, signal: Signal, time: str = "DateTime64(9)", without: str = "") -> ClickHouseSettings:
    """Make a signal's table as another version of the Collector has it."""
    settings = ClickHouseSettings(database=name, signals=(signal.name,), create_schema=False)
    (layout,) = LAYOUTS[signal]
    columns = [
        f"`{one.name}` {time if one.name == 'Timestamp' else one.type}" for one in layout.columns if one.name != without
    ]
    done(f"CREATE DATABASE IF NOT EXISTS {name}")
    done(f"DROP TABLE IF EXISTS {name}.{base_name(settings, signal)}")
    done(
        f"CREATE TABLE {name}.{base_name(settings, signal)} ({', '.join(columns)}) ENGINE = MergeTree"
        " PARTITION BY toDate(Timestamp) ORDER BY (ServiceName, toDateTime(Timestamp))"
    )
    return settings


@asynccontextmanager
async def started(settings: ClickHouseSettings) -> AsyncIterator[tuple[ClickHouse, Server]]:
    server = Server()
    async with serving(server.answer) as url:
        with ThreadPoolExecutor(1) as threads:
            context = Context("c", SystemClock(), structlog.get_logger(), CollectorRegistry(), threads, None)
            backend = ClickHouse(
                ClickHouseSettings(
                    endpoint=(url,), database=settings.database, signals=settings.signals, create_schema=False
                ),
                context,
            )
            await backend.start()
            try:
                yield backend, server
            finally:
                await backend.stop()


@pytest.fixture(scope="module")
def name() -> str:
    need_engine()
    return database()


async def held(backend: ClickHouse, signal: Signal) -> Counter[Any]:
    return Counter(
        [
            kept(signal, one)
            async for block in backend.read(Wanted(signal))
            for one in wholes(signal, bytes(block.payload))
        ]
    )


def alike(signal: Signal, changes: list[Change]) -> bytes:
    """A record, twice, and for each change one that is another in nothing else."""
    request: Any = signal.request_type()
    for change in (None, None, *changes):
        traced = signal is TRACES
        outer = request.resource_spans.add() if traced else request.resource_logs.add()
        inner = outer.scope_spans.add() if traced else outer.scope_logs.add()
        outer.resource.attributes.add(key="service.name").value.string_value = "shop"
        inner.scope.name, inner.scope.version = "lib", "1"
        ids = {"trace_id": b"t" * 16, "span_id": b"s" * 8}
        if traced:
            record = inner.spans.add(name="a", kind=2, start_time_unix_nano=T, end_time_unix_nano=T + 5, **ids)
            record.status.code = 1
        else:
            record = inner.log_records.add(time_unix_nano=T, severity_number=9, severity_text="INFO", **ids)
            record.body.string_value = "a"
        record.attributes.add(key="ab").value.string_value = "c"
        if change is not None:
            change(outer.resource, inner.scope, record)
    return bytes(request.SerializeToString())


def other_pairs(resource: Any, scope: Any, record: Any) -> None:
    """The same letters, divided in another way."""
    record.attributes[0].key, record.attributes[0].value.string_value = "a", "bc"


COMMON: dict[str, Change] = {
    "trace id": lambda _, __, record: setattr(record, "trace_id", b"u" * 16),
    "span id": lambda _, __, record: setattr(record, "span_id", b"u" * 8),
    "value": lambda _, __, record: setattr(record.attributes[0].value, "string_value", "d"),
    "pairs": other_pairs,
    "number": lambda _, __, record: record.attributes.add(key="n").value.SetInParent(),
    "resource": lambda resource, _, __: setattr(resource.attributes.add(key="r").value, "int_value", 1),
    "service": lambda resource, _, __: setattr(resource.attributes[0].value, "string_value", "sho"),
    "scope": lambda _, scope, __: setattr(scope, "name", "li"),
    "version": lambda _, scope, __: setattr(scope, "version", "b1"),
}
OWN: dict[Signal, dict[str, Change]] = {
    TRACES: {
        "time": lambda _, __, record: setattr(record, "start_time_unix_nano", T + 1),
        "end": lambda _, __, record: setattr(record, "end_time_unix_nano", T + 6),
        "name": lambda _, __, record: setattr(record, "name", "b"),
        "kind": lambda _, __, record: setattr(record, "kind", 3),
        "status": lambda _, __, record: setattr(record.status, "code", 2),
        "parent": lambda _, __, record: setattr(record, "parent_span_id", b"p" * 8),
    },
    LOGS: {
        "time": lambda _, __, record: setattr(record, "time_unix_nano", T + 1),
        "body": lambda _, __, record: setattr(record.body, "string_value", "A"),
        "severity": lambda _, __, record: setattr(record, "severity_number", 10),
        "level": lambda _, __, record: setattr(record, "severity_text", "info"),
    },
}


@pytest.mark.parametrize("signal", [TRACES, LOGS], ids=lambda one: one.name)
async def test_what_differs_in_anything_stays(name: str, signal: Signal) -> None:
    """And what was there twice is gone."""
    changes = COMMON | OWN[signal]
    async with started(made(name, signal)) as (backend, _):
        block = scan(signal, alike(signal, list(changes.values())), 0)
        await backend.export(batch_of(signal, [bytes(block.payload)]))
        before = await held(backend, signal)
        assert before.total() == len(before) + 1 == 2 + len(changes), "each change is one"
        known = backend.identities(block, np.arange(block.count))
        assert known is not None
        assert len(set(known)) == len(before)
        assert await backend.delete_identified(Source("0" * 32, "", signal), known[:1]) == 2
        assert await held(backend, signal) == +Counter({one: n for one, n in before.items() if n == 1})


@pytest.mark.parametrize("signal", [TRACES, LOGS], ids=lambda one: one.name)
async def test_any_record_is_known_again(name: str, signal: Signal) -> None:
    """Whatever it holds; and no value travels."""
    async with started(made(name, signal, "DateTime64(9, 'UTC')")) as (backend, server):
        payload = corpus(signal, 60, texts=HOSTILE)
        block = scan(signal, payload, 0)
        await backend.export(batch_of(signal, [payload]))
        whole = list(wholes(signal, payload))
        rows = np.array([*range(3, 9), 20, 22, *range(40, 60)])
        source = Source("0" * 32, "", signal)
        known = backend.identities(block, rows)
        assert known is not None
        server.statements.clear()
        assert await backend.delete_identified(source._replace(tenant="a"), known) == 0
        assert await backend.delete_identified(source, known) == len(rows)
        assert await backend.delete_identified(source, known) == 0
        assert not [one for one in server.statements for text in HOSTILE if text in one]
        left = Counter(kept(signal, one) for row, one in enumerate(whole) if row not in rows)
        assert await held(backend, signal) == left


@pytest.mark.parametrize("signal", [TRACES, LOGS], ids=lambda one: one.name)
async def test_what_is_read_back_is_known_as_well(name: str, signal: Signal) -> None:
    """So that queries leave it out until it is gone."""
    async with started(made(name, signal)) as (backend, _):
        payload = corpus(signal, 40, texts=HOSTILE)
        await backend.export(batch_of(signal, [payload]))
        block = scan(signal, payload, 0)
        known = list(all_of(backend, block))
        found = [one async for each in backend.read(Wanted(signal)) for one in all_of(backend, each)]
        assert Counter(found) == Counter(known)
        named = Named(backend)
        named.known = frozenset(known[5:9])
        read = reading(named, "tested", "", signal)  # type: ignore[arg-type]
        shown = [one async for each in read(Asked(), 0) for one in all_of(backend, each)]
        assert Counter(shown) == Counter(known[:5] + known[9:])


def all_of(backend: ClickHouse, block: Block) -> Iterator[bytes]:
    yield from backend.identities(block, np.arange(block.count)) or []


@pytest.mark.parametrize(("time", "without"), [("DateTime64(9)", "Body"), ("DateTime64(6)", ""), ("DateTime", "")])
async def test_where_it_cannot_tell_it_does_nothing(name: str, time: str, without: str) -> None:
    async with started(made(name, LOGS, time, without)) as (backend, _):
        block = scan(LOGS, corpus(LOGS, 3), 0)
        await backend.export(batch_of(LOGS, [bytes(block.payload)]))
        known = list(all_of(backend, block))
        assert await backend.delete_identified(Source("0" * 32, "", LOGS), known) is None
        assert await backend.count(LOGS, "", 0, 2**64) == 3


async def test_rows_with_keys_are_deleted_by_those(name: str) -> None:
    """Columns for keys that were added later divide the rows."""
    settings = made(name, LOGS)
    async with started(settings) as (backend, _):
        block = scan(LOGS, corpus(LOGS, 10), 0)
        await backend.export(Batch(Source("0" * 32, "", LOGS), (block,), 0, 10))
        known = list(all_of(backend, block))
    columns = ", ".join(
        f"ADD COLUMN {one}" for one in ("RingtailTenant String", "RingtailInstance String", "RingtailOffset UInt64")
    )
    done(f"ALTER TABLE {name}.{base_name(settings, LOGS)} {columns}")
    async with started(settings) as (backend, _):
        source = Source("1" * 32, "", LOGS)
        await backend.export(Batch(source, (block,), 0, 10))
        assert backend.identities(block, np.arange(10)) is None
        assert await backend.delete_offsets(source, [(0, 2)]) == 2
        assert await backend.delete_identified(source, known[:3]) == 3
        assert await backend.count(LOGS, "", 0, 2**64) == 15


def test_the_hash_of_runs_is_that_of_rows() -> None:
    block = scan(TRACES, corpus(TRACES, 50, texts=HOSTILE), 0)
    rows = np.array([0, 1, 2, 7, 9, 10, 49])
    assert identity.identities(block, rows) == [identity.identities(block, np.array([row]))[0] for row in rows]
    assert identity.identities(block, np.array([], np.intp)) == []


async def test_a_query_deletes_out_of_the_daemon_and_its_table(name: str, tmp_path: Path) -> None:
    settings = made(name, LOGS)
    async with serving(Server().answer) as url:
        keys = {"endpoint": url, "database": name, "create_schema": "false", "signals": "logs"}
        keys["sending_queue.batch.flush_timeout"] = "10ms"
        more = [f"exporters.clickhouse.{key}={value}" for key, value in keys.items()]
        told = "a table does not say whose its rows are: tenants are refused, and what is read twice is not known"

        def story() -> dict[str, Any]:
            with Daemon(tmp_path, *more, allow={told}) as daemon:
                assert daemon.export(LOGS.http_path, alike(LOGS, list((COMMON | OWN[LOGS]).values()))).code == 200
                asked = urlencode({"signal": "logs", "query": '{service_name="shop"} | ab="d"'})
                found = daemon.request(daemon.api, "POST", f"/api/delete?{asked}", None).json()
                until(lambda: not daemon.stats()["logs"]["deleted"]["pending"], "the backend was told")
                return dict(found)

        assert await asyncio.to_thread(story) == {
            "deleted": {"logs": 1},
            "backends": ["clickhouse"],
            "dry_run": False,
        }
    async with started(settings) as (backend, _):
        block = scan(LOGS, alike(LOGS, [one for key, one in (COMMON | OWN[LOGS]).items() if key != "value"]), 0)
        expected = Counter(kept(LOGS, one) for one in wholes(LOGS, bytes(block.payload)))
        assert await held(backend, LOGS) == expected
