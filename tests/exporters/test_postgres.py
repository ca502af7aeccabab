"""The PostgreSQL backend on a real server: the contract, what it stores, what it refuses, and what it survives."""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from psycopg import sql

from collector.clock import SystemClock
from collector.errors import InvalidConfig, Permanent, Retryable, Unwelcome
from collector.exporters.base import Batch, Context, Equal, Held, Source, Wanted
from collector.exporters.postgres import present, schema
from collector.exporters.postgres.backend import PostgresBackend
from collector.exporters.postgres.filters import STRETCHES_MAX, deletion, stretches_of
from collector.exporters.postgres.kind import KIND
from collector.exporters.postgres.reading import Reader
from collector.exporters.postgres.schema import MIGRATIONS, TABLES
from collector.exporters.postgres.settings import PostgresSettings
from collector.exporters.settings import ClientTls
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.security.secret import Secret
from collector.testing.corpus import HOSTILE, SECOND_NS, TIME_NS, corpus, wholes
from collector.testing.exporters import BackendContract, batch_of
from tests.exporters import reaching
from tests.exporters.postgres_server import Server
from tests.exporters.test_reaching import differing
from tests.security.certificates import Authority

DAY_NS = 86_400 * SECOND_NS

_schemas = (f"kept_{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Server]:
    """One for the module: each test has a schema of its own."""
    made = Server(authority.issue("db", alternative=("db.example", "127.0.0.1")), fsync="off", full_page_writes="off")
    yield made
    made.stop()


def settings_of(server: Server, **more: object) -> PostgresSettings:
    """Settings for an empty schema of a server."""
    return PostgresSettings(
        **{
            "endpoint": f"127.0.0.1:{server.port}",
            "database": server.database,
            "username": server.user,
            "password": Secret(server.password),
            "schema": next(_schemas),
            "tls": ClientTls(insecure=True),
            "max_open_conns": 4,
            "partitions_ahead": 0,
            **more,
        }  # type: ignore[arg-type]
    )


def emptied(server: Server, schema: str) -> PostgresSettings:
    """Settings for a schema that several tests use one after the other: to empty one costs less than to make one."""
    with server.connect(autocommit=True) as connection:
        if (connection.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone() or (None,))[0] is not None:
            tables = ("sources", *(one for tables in TABLES.values() for one in tables.all))
            delete = [sql.SQL("DELETE FROM {}").format(sql.Identifier(schema, table)) for table in tables]
            connection.execute(sql.SQL("; ").join(delete))
    return settings_of(server, schema=schema)


class TestContract(BackendContract):
    kind = KIND

    @pytest.fixture
    def settings(self, server: Server) -> PostgresSettings:
        return emptied(server, "contract")


class StoppedClock(SystemClock):
    """Says what it is told."""

    def __init__(self, now_ns: int) -> None:
        self.at = now_ns

    def now_ns(self) -> int:
        return self.at


def made(settings: PostgresSettings, threads: ThreadPoolExecutor, clock: Any = None) -> PostgresBackend:
    context = Context("postgres", clock or SystemClock(), structlog.get_logger(), CollectorRegistry(), threads, None)
    backend = KIND.make(settings, context)
    assert isinstance(backend, PostgresBackend)
    return backend


@asynccontextmanager
async def started(settings: PostgresSettings, clock: Any = None) -> AsyncIterator[PostgresBackend]:
    with ThreadPoolExecutor(2) as threads:
        backend = made(settings, threads, clock)
        try:
            await backend.start()
            yield backend
        finally:
            await backend.stop()


async def deliver(backend: PostgresBackend, batch: Batch) -> None:
    """Repeat a batch until it is taken."""
    while True:
        try:
            await backend.export(batch)
        except Retryable:
            await asyncio.sleep(0.05)
        else:
            return


async def found(backend: PostgresBackend, wanted: Wanted) -> Counter[bytes]:
    """What is read, whole."""
    return Counter(
        [one.key() async for block in backend.read(wanted) for one in wholes(wanted.signal, bytes(block.payload))]
    )


def sent(batch: Batch) -> Counter[bytes]:
    return Counter(one.key() for one in wholes(batch.signal, batch.payload))


def ask(server: Server, statement: str, *values: Any) -> Any:
    """One value of the database."""
    with server.connect(autocommit=True) as connection:
        row = connection.execute(statement, values).fetchone()  # type: ignore[call-overload]
        return row[0] if row is not None else None


CATALOG = """SELECT md5(string_agg(line, '|' ORDER BY line)) FROM (
    SELECT concat_ws(' ', n.nspname, c.relname, c.relkind, a.attname, a.atttypid) FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL SELECT rolname::text FROM pg_roles UNION ALL SELECT datname::text FROM pg_database) AS t (line)"""
"""A checksum of all that is declared."""


# --- S10: nothing of the data becomes SQL --------------------------------------------------------------------------


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
async def test_hostile_texts_change_neither_schema_nor_rows(server: Server, signal: Signal) -> None:
    """As keys, values, names, services, tenants and the schema's own name; written, and asked for."""
    schema = "\"; DROP SCHEMA public; --'{0}"
    texts = tuple(one[:100] for one in HOSTILE if "\0" not in one)
    async with started(settings_of(server, schema=f"{schema} {signal.name}")) as backend:
        first = batch_of(signal, [corpus(signal, 20, texts=HOSTILE)])
        await backend.export(first)
        before = ask(server, CATALOG)
        for tenant in texts:
            batch = replace(first, source=first.source._replace(tenant=tenant))
            await backend.export(batch)
            assert await found(backend, Wanted(signal, tenant=tenant)) == sent(batch)
        for text in HOSTILE:
            wanted = Wanted(
                signal,
                services=(text,),
                names=(text,),
                texts=((text.encode(),),),
                attributes=(Equal("either", text, (text,)), Equal("resource", text, (text,))),
                held=(Held(Source(text, "", signal), 0),),
            )
            await found(backend, wanted)
            assert await backend.count(signal, text, 0, 2**63) == (20 if text in texts else 0)
            await backend.delete(Wanted(signal, tenant=text, trace_ids=(text.encode()[:16],)))
        assert ask(server, CATALOG) == before
        assert await found(backend, Wanted(signal)) == sent(first)
        with pytest.raises(Permanent, match="NUL"):
            await backend.export(replace(first, source=first.source._replace(tenant="a\0b")))


# --- once -----------------------------------------------------------------------------------------------------------


@given(data=st.data())
@budget(max_examples=6)
def test_whatever_the_order_every_record_is_there_once(server: Server, data: st.DataObject) -> None:
    """Batches of any bounds, repeated and at the same time, by two backends: all of it, once, and filters give it back."""
    signal = data.draw(st.sampled_from(SIGNALS))
    seed = data.draw(st.integers(0, 1000))
    whole = batch_of(
        signal, [corpus(signal, 40, seed=seed, texts=HOSTILE), corpus(signal, 20, seed=seed + 1)], offset=7
    )
    edges = st.tuples(st.integers(7, 66), st.integers(1, 60))
    parts = [whole.part(first, first + length) for first, length in data.draw(st.lists(edges, max_size=8))]
    kept = [one for one in parts if one is not None]
    settings = emptied(server, "orders")

    async def story() -> None:
        async with started(settings) as one, started(settings) as other:
            await asyncio.gather(*(deliver(backend, part) for part in kept for backend in (one, other)))
            expected = Counter[bytes]()
            for offset in {offset for part in kept for block in part.blocks for offset in range(*_bounds(block))}:
                single = whole.part(offset, offset + 1)
                assert single is not None
                expected += sent(single)
            assert await found(one, Wanted(signal)) == expected
            await other.export(whole)
            assert await found(one, Wanted(signal, newest_first=False)) == sent(whole)
            assert await one.count(signal, "", 0, 2**63) == 60

    asyncio.run(story())


def _bounds(block: Any) -> tuple[int, int]:
    return block.base_offset, block.end_offset


async def test_attributes_that_jsonb_does_not_hold_are_found(server: Server) -> None:
    """A key that stands twice, and one with NUL."""
    request = LOGS.request_type()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=TIME_NS)
    for key, value in (("k", "first"), ("k", "last"), ("nul\0", "v\0")):
        record.attributes.add(key=key).value.string_value = value
    record.body.string_value = "x" * 2_000_000  # more than a tsvector holds
    async with started(settings_of(server)) as backend:
        batch = batch_of(LOGS, [request.SerializeToString()])
        await backend.export(batch)
        for key, value in (("k", "first"), ("k", "last"), ("nul\0", "v\0")):
            for where in ("record", "either"):
                wanted = Wanted(LOGS, attributes=(Equal(where, key, (value,)),))
                assert await found(backend, wanted) == sent(batch)


# --- days -----------------------------------------------------------------------------------------------------------


async def test_days_are_made_ahead_moved_to_and_dropped(server: Server) -> None:
    """Records of a far day wait in the rest until it has a partition; retention drops whole days."""
    clock = StoppedClock(TIME_NS)
    settings = settings_of(server, partitions_ahead=2, signals=("logs",))
    days = [0, 1, 9, 3000]

    def of_day(day: int, offset: int) -> Batch:
        request = LOGS.request_type()
        record = request.resource_logs.add().scope_logs.add().log_records.add()
        record.time_unix_nano = TIME_NS + day * DAY_NS
        record.body.string_value = f"day {day}"
        return batch_of(LOGS, [request.SerializeToString()], offset=offset)

    batches = [of_day(day, number) for number, day in enumerate(days)]
    everything = sum((sent(one) for one in batches), Counter[bytes]())
    rest = f"SELECT count(*) FROM {settings.schema}.log_records_rest"
    async with started(settings, clock) as backend:
        assert backend.stats()["partitions"] == {"traces": 0, "logs": 3, "metrics": 0}
        for one in batches:
            await backend.export(one)
        assert ask(server, rest) == 2
        assert await found(backend, Wanted(LOGS)) == everything
        clock.at += 8 * DAY_NS
        more = of_day(9, 100)
        await backend.export(more)
        assert ask(server, rest) == 1
        everything += sent(more)
        for newest_first in (True, False):
            assert await found(backend, Wanted(LOGS, newest_first=newest_first)) == everything
        await backend.retain(LOGS, TIME_NS + 9 * DAY_NS)
        assert await backend.count(LOGS, "", 0, 2**63) == 3
        assert ask(server, f"SELECT count(*) FROM {settings.schema}.log_containers") == 2
        await backend.retain(LOGS, TIME_NS + 4000 * DAY_NS)
        assert await found(backend, Wanted(LOGS)) == Counter()


async def test_several_may_start_at_once_and_a_newer_schema_is_left_alone(server: Server) -> None:
    settings = settings_of(server)
    async with started(settings) as one:
        assert one.stats()["schema_version"] == len(MIGRATIONS)
    again = settings_of(server)
    with ThreadPoolExecutor(2) as threads:
        backends = [made(again, threads) for _ in range(4)]
        await asyncio.gather(*(backend.start() for backend in backends))
        for backend in backends:
            await backend.stop()
    assert ask(server, f"SELECT count(*) FROM {again.schema}.schema_versions") == len(MIGRATIONS)
    ask(server, f"INSERT INTO {again.schema}.schema_versions (version) VALUES (99) RETURNING 1")
    with pytest.raises(Unwelcome, match="of version 99"):
        async with started(again):
            pass


async def test_an_older_schema_is_brought_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With records in it: they are found by their names, deleted, and dropped as those that come later."""
    batches = [batch_of(TRACES, [corpus(TRACES, 60, seed=seed)], offset=60 * seed) for seed in range(2)]
    settings = settings_of(server)
    with monkeypatch.context() as before:
        before.setattr(schema, "MIGRATIONS", MIGRATIONS[:1])
        before.setitem(TABLES, TRACES, TABLES[TRACES]._replace(names=None))
        async with started(settings) as backend:
            await backend.export(batches[0])
    async with started(settings) as backend:
        await backend.export(batches[1])
        everything = sum((sent(one) for one in batches), Counter[bytes]())
        assert await found(backend, Wanted(TRACES)) == everything
        named = await found(backend, Wanted(TRACES, names=("plain 1",)))
        assert named
        assert not named - everything
        assert await backend.delete_offsets(batches[0].source, [(50, 70)]) == 20
        await backend.retain(TRACES, TIME_NS + 4000 * DAY_NS)
        assert await found(backend, Wanted(TRACES)) == Counter()
        assert ask(server, f"SELECT count(*) FROM {settings.schema}.span_names") == 0


# --- what is not looked at ------------------------------------------------------------------------------------------


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is read of records: the beginnings of slices."""
    begun: list[int] = []
    read = Reader._slice

    def noted(self: Reader, start_ns: int, end_ns: int) -> Any:
        begun.append(start_ns)
        return read(self, start_ns, end_ns)

    monkeypatch.setattr(Reader, "_slice", noted)
    return begun


def a_day(signal: Signal, day: int, service: str, name: str) -> Batch:
    """One record."""
    request = signal.request_type()
    resource = request.resource_spans.add() if signal is TRACES else request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    time_ns = TIME_NS + day * DAY_NS
    if signal is TRACES:
        resource.scope_spans.add().spans.add(
            name=name, start_time_unix_nano=time_ns, trace_id=b"t" * 16, span_id=b"s" * 8
        )
    else:
        metric = resource.scope_metrics.add().metrics.add(name=name)
        metric.gauge.data_points.add(time_unix_nano=time_ns, as_int=1)
    return batch_of(signal, [request.SerializeToString()], offset=10_000 + day)


@pytest.mark.parametrize("signal", [TRACES, METRICS], ids=lambda one: one.name)
async def test_days_without_a_service_or_a_name_are_not_looked_at(
    server: Server, slices: list[int], signal: Signal
) -> None:
    """Nor is anything, if there is none; names may be longer than what an index takes."""
    long = random.Random(1).randbytes(5000).hex()
    days = [(0, "cart", "a"), (1, "cart", "b"), (2, "pay", long), (3000, "pay", "a"), (3001, "far\0", "d\0")]
    batches = [a_day(signal, *one) for one in days]
    clock = StoppedClock(TIME_NS)
    async with started(settings_of(server, partitions_ahead=2), clock) as backend:
        for one in batches:
            await backend.export(one)

        async def read(services: tuple[str, ...] = (), names: tuple[str, ...] = ()) -> tuple[set[int], int]:
            """Which of the batches are found, and how many slices were read for them."""
            slices.clear()
            seen = await found(backend, Wanted(signal, services=services, names=names))
            return {number for number, one in enumerate(batches) if sent(one) <= seen}, len(slices)

        assert await read(("nobody",)) == await read(names=("nowhere",)) == await read(("pay",), ("b",)) == (set(), 0)
        assert await read(("cart",)) == ({0, 1}, 2)
        assert await read(names=("b", "nowhere")) == await read(("cart",), ("b",)) == ({1}, 1)
        assert await read(names=(long,)) == ({2}, 1)
        assert await read(names=(long[:-1] + "!",)) == (set(), 0 if signal is TRACES else 1)
        assert (await read(("cart", "pay"), ("a",)))[0] == {0, 3}
        assert (await read(("far\0",), ("d\0",)))[0] == {4}
        assert len((await read())[0]) == 5


async def test_days_with_very_many_names_are_looked_at(
    server: Server, slices: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all of these are kept."""
    monkeypatch.setattr(present, "NAMES_MAX", 4)
    settings = settings_of(server, partitions_ahead=2)
    names = [f"name {number}" for number in range(12)]
    async with started(settings, StoppedClock(TIME_NS)) as backend:
        for number, name in enumerate(names):
            await backend.export(replace_offset(a_day(TRACES, 0, "cart", name), number))
        await backend.export(a_day(TRACES, 1, "cart", "other"))
        for name in names:
            assert (await found(backend, Wanted(TRACES, names=(name,)))).total() == 1
        slices.clear()
        assert not await found(backend, Wanted(TRACES, names=("nowhere",)))
        assert len(slices) == 1, "the other day has few"
    assert ask(server, f"SELECT count(*) FROM {settings.schema}.span_names") == 4 + 1 + 1


def replace_offset(batch: Batch, offset: int) -> Batch:
    return batch_of(batch.signal, [batch.payload], offset=offset)


async def test_single_records_are_deleted_by_the_index(server: Server) -> None:
    """Also where several instances write side by side, which are at different offsets."""
    settings = settings_of(server, signals=("logs",))
    sources = [Source(f"{number:032x}", "", LOGS) for number in range(4)]
    async with started(settings) as backend:
        for turn in range(30):
            payload = corpus(LOGS, 100, seed=turn % 5)
            for number, source in enumerate(sources):
                batch = batch_of(LOGS, [payload], offset=number * 10**6 + 100 * turn)
                await backend.export(replace(batch, source=source))
        await backend._partitions.summarize()
        statement, values = deletion(settings.schema, sources[1], [(1_001_000, 1_001_010), (1_002_500, 1_002_503)])
        with server.connect() as connection:
            connection.execute("SET enable_seqscan = off")
            rows = connection.execute(sql.SQL("EXPLAIN (ANALYZE, COSTS OFF) {}").format(statement), values)
            lines = [str(line) for (line,) in rows]
            pages = ask(server, f"SELECT pg_relation_size('{settings.schema}.log_records_20260921') / 8192")
            read = sum(int(line.rpartition("=")[2]) for line in lines if "Heap Blocks" in line)
            assert 0 < read < pages / 3, (pages, lines)
            connection.rollback()
        assert await backend.delete_offsets(sources[1], [(1_001_000, 1_001_010), (1_002_500, 1_002_503)]) == 13
        assert await backend.delete_offsets(sources[1], []) == 0
        assert await backend.count(LOGS, "", 0, 2**63) == 30 * 400 - 13


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 20)), min_size=1, max_size=40))
def test_stretches_of_offsets_hold_all_ranges(sizes: list[tuple[int, int]]) -> None:
    """Few, apart, in order, and not longer than they must be."""
    ranges = [(first, first + length) for first, length in sizes]
    stretches = stretches_of(ranges)
    owed = {offset for first, end in ranges for offset in range(first, end)}
    assert owed <= {offset for first, end in stretches for offset in range(first, end)}
    assert len(stretches) <= STRETCHES_MAX
    assert all(end < first for (_, end), (first, _) in itertools.pairwise(stretches))
    assert {first for first, _ in stretches} | {end - 1 for _, end in stretches} <= owed


async def test_brin_takes_note_of_what_was_written_and_waits_for_nobody(server: Server) -> None:
    settings = settings_of(server, signals=("logs",))
    index = f"'{settings.schema}.log_records_20260921_time_log_offset_idx'"
    left = f"SELECT brin_summarize_new_values({index})"
    async with started(settings) as backend:
        for number in range(3):
            batch = batch_of(LOGS, [corpus(LOGS, 1000, seed=number)], offset=1000 * number)
            await backend.export(batch)
            with server.connect() as connection:
                connection.execute(f"LOCK {settings.schema}.log_records_20260921 IN SHARE UPDATE EXCLUSIVE MODE")
                await backend._partitions.summarize()
            await deliver(backend, batch)
            await backend._partitions.summarize()
            assert ask(server, left) == 0
        assert await backend.size() > 3 * batch.payload_bytes


async def test_answers_are_the_same_wherever_the_data_lies(server: Server, tmp_path: Path) -> None:
    """Every seventh question of tests/exporters/test_reaching.py; all of them were asked once."""
    async with reaching.made(KIND, settings_of(server), tmp_path) as backend, reaching.reduced(backend) as little:
        assert await differing(little, every=7) == []


async def test_connections_are_limited(server: Server) -> None:
    """However many ask at once."""
    whole = batch_of(TRACES, [corpus(TRACES, 40)])
    async with started(emptied(server, "contract")) as backend:

        async def work(number: int) -> None:
            part = whole.part(number, number + 1)
            assert part is not None
            await deliver(backend, part)
            assert sent(part) - await found(backend, Wanted(TRACES)) == Counter()

        await asyncio.gather(*(work(number) for number in range(40)))
        assert 2 <= backend.stats()["connections"] <= 4
        name = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ringtail'"
        assert ask(server, name) <= 4


# --- what fails -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"password": Secret("wrong, and secret")}, "password authentication failed"),
        ({"database": "nowhere"}, "does not exist"),
        ({"tls": ClientTls()}, "certificate"),
        ({"endpoint": "169.254.169.254:5432"}, "link-local"),
        ({"password": None, "password_file": "/nonexistent"}, "password_file"),
    ],
)
async def test_what_is_configured_wrong_is_unwelcome(server: Server, change: dict[str, Any], told: str) -> None:
    """And told without the secret."""
    with pytest.raises(Unwelcome, match=told) as caught:
        async with started(settings_of(server, **change)):
            pass
    assert "secret" not in str(caught.value)
    assert server.password not in str(caught.value)


async def test_tls_is_verified(server: Server, authority: Authority, tmp_path: Path) -> None:
    """Authority and name; and the password may come from a file."""
    password = tmp_path / "password"
    password.write_text(f"{server.password}\n")
    for name in (None, "db.example"):
        tls = ClientTls(ca_file=str(authority.path), server_name_override=name)
        async with started(settings_of(server, tls=tls, password=None, password_file=str(password))) as backend:
            await backend.export(batch_of(TRACES, [corpus(TRACES, 5)]))
            with server.connect() as connection:
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                    " WHERE ssl AND application_name = 'ringtail'"
                ).fetchone()
            assert row is not None
            assert row[0] == backend.stats()["connections"] > 0
    other = Authority(tmp_path, "another")
    for wrong in (ClientTls(ca_file=str(other.path)), replace(tls, server_name_override="elsewhere.example")):
        with pytest.raises(Unwelcome, match="certificate"):
            async with started(settings_of(server, tls=wrong)):
                pass


async def test_the_systems_authorities_are_those_of_python(
    server: Server, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of the OpenSSL that the driver's wheel brings, which has none."""
    paths = ssl.get_default_verify_paths()._replace(cafile=str(authority.path))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    async with started(settings_of(server, tls=ClientTls())) as backend:
        assert backend.health().ok


async def test_rights_that_are_missing_are_unwelcome(server: Server) -> None:
    with server.connect(autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    with pytest.raises(Unwelcome, match="42501: permission denied"):
        async with started(settings_of(server, username="guest", password=Secret("guest"))):
            pass


async def test_a_server_that_dies_and_comes_again_has_everything_once(server: Server) -> None:
    """Killed -9 while batches come, each of which is repeated until it is taken; and silent for a while. What the kernel has
    survives a kill; a server that syncs is killed in tests/crash."""
    chance = random.Random(7)
    async with started(emptied(server, "contract")) as backend:
        batches = [batch_of(TRACES, [corpus(TRACES, 100, seed=seed)], offset=100 * seed) for seed in range(8)]

        for first in range(0, 8, 4):
            under_way = [asyncio.create_task(deliver(backend, one)) for one in batches[first : first + 4]]
            await asyncio.sleep(chance.uniform(0, 0.1))
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(chance.uniform(0, 0.05))
            await asyncio.to_thread(server.start)
            await asyncio.gather(*under_way)
        assert await found(backend, Wanted(TRACES)) == sum((sent(one) for one in batches), Counter[bytes]())
        assert backend.health().ok
        late = batch_of(TRACES, [corpus(TRACES, 5, seed=99)], offset=5000)
        server.pause()
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await backend.export(late)
        finally:
            server.resume()
        await deliver(backend, late)
        assert await backend.count(TRACES, "", 0, 2**63) == 805


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it."""
    monkeypatch.setattr("collector.exporters.postgres.kind.find_spec", lambda _: None)
    with ThreadPoolExecutor(1) as threads, pytest.raises(InvalidConfig, match=r"ringtail-collector\[postgres\]"):
        made(PostgresSettings(endpoint="db"), threads)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"endpoint": ""}, "endpoint"),
        ({"endpoint": "http://db:5432"}, "endpoint"),
        ({"endpoint": "169.254.169.254:5432"}, "endpoint"),
        ({"endpoint": "postgresql://me:secret@db:5432"}, "endpoint"),
        ({"endpoint": "db:5432/other"}, "endpoint"),
        ({"schema": "pg_own"}, "schema"),
        ({"schema": "50%s"}, "schema"),
        ({"schema": "x" * 64}, "schema"),
        ({"username": ""}, "username"),
        ({"password": Secret("a"), "password_file": "b"}, "password_file"),
        ({"tls": ClientTls(cert_file="a")}, "tls.cert_file"),
    ],
)
def test_settings_that_do_not_fit_are_told(change: dict[str, Any], key: str) -> None:
    problems = list(KIND.problems(PostgresSettings(**{"endpoint": "db:5432", **change})))
    assert [one for one, _ in problems] == [key]
    assert "secret" not in str(problems)


@pytest.mark.parametrize("endpoint", ["db", "db:5433", "[::1]", "[::1]:5433", "postgresql://db", "/run/postgresql"])
def test_endpoints_have_many_forms(endpoint: str) -> None:
    assert list(KIND.problems(PostgresSettings(endpoint=endpoint))) == []
