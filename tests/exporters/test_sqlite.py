"""The backend `sqlite`: the contract, and what is SQLite's own."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.errors import Retryable, RingtailError, Unwelcome
from collector.exporters.base import PIECE_RECORDS, Batch, Context, Equal, Held, Source, Wanted
from collector.exporters.settings import DAY_S, ExporterSettings
from collector.exporters.sqlite import schema, write
from collector.exporters.sqlite.backend import SqliteBackend
from collector.exporters.sqlite.connection import open_reader, open_writer
from collector.exporters.sqlite.kind import KIND
from collector.exporters.sqlite.read import Read, plan_of
from collector.exporters.sqlite.settings import SqliteSettings
from collector.exporters.sqlite.write import Writer
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.testing.corpus import HOSTILE, SECOND_NS, TIME_NS, Whole, corpus, trace_id, wholes
from collector.testing.exporters import INSTANCE, BackendContract, batch_of
from tests.otlp.messages import requests


class TestSqlite(BackendContract):
    kind = KIND

    @pytest.fixture
    def settings(self, tmp_path: Path) -> ExporterSettings:
        return SqliteSettings(path=str(tmp_path / "tested.sqlite"))


# --- what is SQLite's own ---------------------------------------------------------------------------------------

GOLDEN = Path(__file__).parent / "golden" / "sqlite_schema.sql"


def backend_of(settings: SqliteSettings, threads: ThreadPoolExecutor) -> SqliteBackend:
    context = Context("sqlite", SystemClock(), structlog.get_logger(), CollectorRegistry(), threads, None)
    backend = KIND.make(settings, context)
    assert isinstance(backend, SqliteBackend)
    return backend


@pytest.fixture
def settings(tmp_path: Path) -> SqliteSettings:
    return SqliteSettings(path=str(tmp_path / "own.sqlite"), busy_timeout=0.05)


@pytest.fixture
async def backend(settings: SqliteSettings) -> AsyncIterator[SqliteBackend]:
    with ThreadPoolExecutor(1) as threads:
        made = backend_of(settings, threads)
        await made.start()
        yield made
        await made.stop()


def opened(settings: SqliteSettings) -> sqlite3.Connection:
    return sqlite3.connect(settings.path, isolation_level=None)


async def everything(backend: SqliteBackend, wanted: Wanted) -> list[Whole]:
    return [one async for block in backend.read(wanted) for one in wholes(wanted.signal, bytes(block.payload))]


def schema_of(connection: sqlite3.Connection) -> str:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    texts = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")
    return "".join([f"-- version {version}\n", *(f"{sql};\n" for (sql,) in texts if "otlp_log_text_" not in sql)])


def golden(found: str) -> str:
    if os.environ.get("RINGTAIL_GOLDEN"):
        GOLDEN.write_text(found)
    return GOLDEN.read_text()


def damage(path: Path) -> None:
    """Overwrite all but the first pages."""
    whole = bytearray(path.read_bytes())
    whole[2 * 4096 :] = b"\xa5" * (len(whole) - 2 * 4096)
    path.write_bytes(whole)


def scribble(path: Path) -> None:
    """Write what is no database."""
    path.write_bytes(b"no database, though as long as one " * 999)


def move(path: str) -> None:
    """Move a database away, with what lies beside it."""
    for suffix in ("", "-wal", "-shm"):
        if Path(path + suffix).exists():
            Path(path + suffix).rename(f"{path}.old{suffix}")


def examples() -> list[str]:
    """The statements of docs/sqlite.md."""
    page = (Path(__file__).parents[2] / "docs" / "sqlite.md").read_text()
    return [one.strip() for block in re.findall(r"```sql\n(.*?)```", page, re.DOTALL) for one in block.split(";\n")]


async def test_the_schema_is_as_it_was(backend: SqliteBackend, settings: SqliteSettings) -> None:
    """A change of the schema is a new version with a migration; RINGTAIL_GOLDEN=1 writes this one."""
    with closing(opened(settings)) as connection:
        found = schema_of(connection)
        assert connection.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    assert found == golden(found)


async def test_pragmas_are_set(tmp_path: Path) -> None:
    """For who writes, and for who reads."""
    made = SqliteSettings(
        path=str(tmp_path / "a b?c#%.sqlite"),
        journal_mode="truncate",
        synchronous="extra",
        cache_size=8 * 1024 * 1024,
        mmap_size=1 << 20,
    )
    with closing(open_writer(made)) as writer:
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
        assert writer.execute("PRAGMA synchronous").fetchone() == (3,)
        assert writer.execute("PRAGMA cache_size").fetchone() == (-8192,)
        writer.execute("CREATE TABLE one (id)")
        with closing(open_reader(made)) as reader:
            assert reader.execute("PRAGMA cache_size").fetchone() == (-1024,)
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                reader.execute("INSERT INTO one VALUES (1)")
    assert "a b?c#%.sqlite" in os.listdir(tmp_path)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
@hypothesis.settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_anything_comes_back(signal: Signal, tmp_path: Path, data: st.DataObject) -> None:
    """Any request that the scanner accepts, byte for byte: unknown fields, odd times and ids too."""
    try:
        block = scan(signal, data.draw(requests(signal)).SerializeToString(), 0)
    except RingtailError:
        return
    if not block.count:
        return
    made = SqliteSettings(path=":memory:")
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.bring_up(connection, made.path)
        assert Writer(connection).write(Batch(Source(INSTANCE, "", signal), (block,), 0, block.count)) == block.count
        for newest_first in (True, False):
            found = Read(connection, Wanted(signal, newest_first=newest_first)).next_block()
            assert found is not None
            assert sorted(one.key() for one in wholes(signal, bytes(found.payload))) == sorted(
                one.key() for one in wholes(signal, bytes(block.payload))
            )
        for (attributes,) in connection.execute(f"SELECT attributes FROM {TABLES[signal]}"):
            json.loads(attributes)


TABLES = {TRACES: "otlp_spans", LOGS: "otlp_logs", METRICS: "otlp_points"}


async def test_times_beyond_2262_are_in_order(backend: SqliteBackend) -> None:
    """SQLite's integers have a sign; ours do not."""
    times = [0, 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]
    request = TRACES.request_type()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number, time in enumerate(times):
        spans.add(
            start_time_unix_nano=time, end_time_unix_nano=time, span_id=bytes([number + 1] * 8), trace_id=b"t" * 16
        )
    await backend.export(batch_of(TRACES, [request.SerializeToString()]))
    for start in times:
        for end in times:
            owed = sorted(time for time in times if start <= time <= end)
            wanted = Wanted(TRACES, start_ns=start, end_ns=end)
            assert sorted(one.time_ns for one in await everything(backend, wanted)) == owed
            assert await backend.count(TRACES, "", start, end) == sum(start <= time < end for time in times)
    assert await backend.delete(Wanted(TRACES, trace_ids=(b"t" * 16,), start_ns=2**63 + 1, end_ns=2**64 - 2)) == 2


@pytest.mark.parametrize("newest_first", [True, False])
async def test_equal_times_fill_many_pieces(backend: SqliteBackend, newest_first: bool) -> None:
    """Pages go on in the middle of records of one time, and streams of several services are one."""
    count = 2 * PIECE_RECORDS + 7
    request = LOGS.request_type()
    for service in ("a", "b", "c"):
        around = request.resource_logs.add()
        around.resource.attributes.add(key="service.name").value.string_value = service
        records = around.scope_logs.add().log_records
        for number in range(count):
            records.add(time_unix_nano=5 + number // PIECE_RECORDS, flags=number)
    await backend.export(batch_of(LOGS, [request.SerializeToString()]))
    found = await everything(backend, Wanted(LOGS, services=("a", "c", "nobody"), newest_first=newest_first))
    assert len(found) == 2 * count
    assert len({(one.service, one.record.flags) for one in found}) == 2 * count


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (Wanted(TRACES), "otlp_spans_time"),
        (Wanted(TRACES, trace_ids=(trace_id(3),), services=("cart",)), "otlp_spans_trace"),
        (Wanted(TRACES, services=("cart",), names=("plain 1",), newest_first=False), "otlp_spans_service"),
        (Wanted(LOGS, texts=((b"order",),), held=(Held(Source(INSTANCE, "", LOGS), 5),)), "otlp_logs_time"),
        (Wanted(LOGS, trace_ids=(trace_id(3),)), "otlp_logs_trace"),
        (
            Wanted(METRICS, names=("plain.gauge.0",), attributes=(Equal("either", "color", ("red",)),)),
            "otlp_points_metric",
        ),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
async def test_pages_are_read_in_the_order_of_an_index(
    backend: SqliteBackend, settings: SqliteSettings, wanted: Wanted, index: str
) -> None:
    """Nothing is sorted, and no table is walked: the cost is that of the rows looked at."""
    await backend.export(batch_of(wanted.signal, [corpus(wanted.signal, 100)]))
    with closing(opened(settings)) as connection:
        plan = plan_of(connection, wanted)
        assert not plan.empty
        statement = plan.statement(len(plan.values[:1]), newest_first=wanted.newest_first)  # that of each stream
        parameters = (*plan.values[:1], *plan.parameters, 0, 2**62, 2**62, *[0] * (len(plan.order) - 1), 10)
        steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert any(index in step and step.startswith("SEARCH") for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


def bytes_read() -> int:
    """What this process has read so far."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])  # type: ignore[index]


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(TRACES, names=("elsewhere",)),
        Wanted(TRACES, names=("elsewhere", "neither"), services=("cart",), newest_first=False),
        Wanted(LOGS, severities=(99,)),
    ],
    ids=lambda one: one.signal.name,
)
async def test_names_and_severities_are_looked_at_in_an_index(
    backend: SqliteBackend, settings: SqliteSettings, wanted: Wanted
) -> None:
    """Those that no record of the tenant has cost no look at a row."""
    await backend.export(batch_of(wanted.signal, [corpus(wanted.signal, 3000)]))
    await backend.export(batch_of(TRACES, [named("elsewhere")], tenant="other"))
    with closing(opened(settings)) as connection:
        before = bytes_read()
        assert Read(connection, wanted).next_block() is None
        read = bytes_read() - before
        before = bytes_read()
        connection.execute(f"SELECT sum(length(record)) FROM {TABLES[wanted.signal]} NOT INDEXED").fetchall()
        assert 0 < read < (bytes_read() - before) / 3


def named(*names: str) -> bytes:
    """A request of spans with these names."""
    request = TRACES.request_type()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number, name in enumerate(names):
        spans.add(name=name, trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=TIME_NS + number)
    return request.SerializeToString()


async def test_names_that_are_nowhere_are_not_looked_for(
    backend: SqliteBackend, settings: SqliteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless there are too many for the list: then it says so, and every name is looked for."""
    monkeypatch.setattr(write, "NAMES_MAX", 8)
    wanted = Wanted(TRACES, names=("nowhere", "neither"))

    async def hits(*names: str) -> int:
        return len(await everything(backend, Wanted(TRACES, names=names)))

    with closing(opened(settings)) as connection:
        assert plan_of(connection, Wanted(LOGS, services=("nobody",))).empty
        for number in range(3):  # the last ones are there already
            await backend.export(batch_of(TRACES, [named("a", f"b {number // 2}", "nul\0")], offset=10 * number))
        assert plan_of(connection, wanted).empty
        assert not plan_of(connection, replace(wanted, names=("nowhere", "a"))).empty
        assert (await hits("a", "nowhere"), await hits("nul\0"), await hits("nul")) == (3, 3, 0)
        await backend.export(batch_of(TRACES, [named(*(f"c {number}" for number in range(7)))], offset=100))
        assert not plan_of(connection, wanted).empty
        await backend.export(batch_of(TRACES, [named("late", "a")], offset=200))
        assert (await hits("late"), await hits("c 3"), await hits("a"), await hits("nowhere")) == (1, 1, 4, 0)
        (count,) = connection.execute("SELECT count(*) FROM otlp_span_names").fetchone()
        assert count <= 8 + 1


@pytest.mark.parametrize("names_max", [schema.NAMES_MAX, 2])
async def test_an_older_file_is_brought_up(
    settings: SqliteSettings, monkeypatch: pytest.MonkeyPatch, names_max: int
) -> None:
    """With what is in it."""
    batch = batch_of(TRACES, [named("a", "b", "a", "c")])
    fill = [one.replace(str(schema.NAMES_MAX), str(names_max)) for one in schema.MIGRATIONS[1]]
    with ThreadPoolExecutor(1) as threads:
        with monkeypatch.context() as before:
            before.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
            before.setattr(schema, "VERSION", 1)
            before.setattr(Writer, "_list_names", lambda *_: None)
            older = backend_of(settings, threads)
            await older.start()
            await older.export(batch)
            await older.stop()
        monkeypatch.setattr(schema, "MIGRATIONS", (schema.MIGRATIONS[0], fill))
        backend = backend_of(settings, threads)
        await backend.start()
        for name, owed in (("a", 2), ("b", 1), ("c", 1), ("nowhere", 0)):
            assert len(await everything(backend, Wanted(TRACES, names=(name,)))) == owed
        with closing(opened(settings)) as connection:
            assert plan_of(connection, Wanted(TRACES, names=("nowhere",))).empty == (names_max > 3)
        await backend.stop()


async def test_many_traces_are_found(backend: SqliteBackend) -> None:
    """More than get a stream each, and more than one statement takes."""
    payload = corpus(TRACES, 300)
    await backend.export(batch_of(TRACES, [payload]))
    for wanted in (40, 25_000):
        ids = tuple(trace_id(number) for number in range(wanted))
        owed = [one for one in wholes(TRACES, payload) if one.record.trace_id in ids]
        for newest_first in (True, False):
            found = await everything(backend, Wanted(TRACES, trace_ids=ids, newest_first=newest_first))
            assert Counter(one.key() for one in found) == Counter(one.key() for one in owed)


async def test_who_is_locked_out_comes_again(backend: SqliteBackend, settings: SqliteSettings) -> None:
    """Another process writes: Retryable, then it goes on. Reading goes on meanwhile."""
    batch = batch_of(TRACES, [corpus(TRACES, 20)])
    with closing(opened(settings)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Retryable, match=r"locked by another process for more than 0.05 s \(busy_timeout\)"):
            await backend.export(batch)
        assert not backend.health().ok
        assert await everything(backend, Wanted(TRACES)) == []
        other.execute("ROLLBACK")
    assert await backend.export(batch) is None
    assert backend.health().ok
    assert len(await everything(backend, Wanted(TRACES))) == 20


async def test_what_does_not_fit_is_stored_later(backend: SqliteBackend, settings: SqliteSettings) -> None:
    """A full disk, here by a limit of pages: all or nothing of a batch."""
    batch = batch_of(LOGS, [corpus(LOGS, 3000)])

    def limit(writer: Writer, pages: int) -> None:
        writer.connection.execute(f"PRAGMA max_page_count = {pages}")

    await backend._write(lambda writer: limit(writer, 120))
    with pytest.raises(Retryable, match="cannot grow: the disk is full"):
        await backend.export(batch)
    assert await everything(backend, Wanted(LOGS)) == []
    assert await backend.position(batch.source) is None
    await backend._write(lambda writer: limit(writer, 1_000_000))
    await backend.export(batch)
    assert len(await everything(backend, Wanted(LOGS))) == 3000


@pytest.mark.parametrize("garbage", [True, False])
async def test_a_damaged_file_is_unwelcome(settings: SqliteSettings, garbage: bool) -> None:
    """Until somebody moves it away; nothing needs a restart."""
    batch = batch_of(TRACES, [corpus(TRACES, 400)])
    with ThreadPoolExecutor(1) as threads:
        backend = backend_of(settings, threads)
        if garbage:
            scribble(Path(settings.path))
        else:
            await backend.start()
            await backend.export(batch)
            await backend.stop()
            damage(Path(settings.path))
        with pytest.raises(Unwelcome, match="is damaged, or no database"):
            await backend.start()
            await backend.export(batch_of(TRACES, [corpus(TRACES, 400, seed=1)], offset=400))
        assert "is damaged" in backend.health().reason
        move(settings.path)
        await backend.start()
        await backend.export(batch)
        assert len(await everything(backend, Wanted(TRACES))) == 400
        await backend.stop()


async def test_a_file_that_is_moved_away_is_made_anew(backend: SqliteBackend, settings: SqliteSettings) -> None:
    """While it is open: what was handed over later is in the new one, not in one that nobody can find."""
    await backend.export(batch_of(TRACES, [corpus(TRACES, 20)]))
    move(settings.path)
    await backend.export(batch_of(TRACES, [corpus(TRACES, 30)], offset=20))
    assert len(await everything(backend, Wanted(TRACES))) == 30


async def test_what_is_not_ours_is_left_alone(settings: SqliteSettings) -> None:
    """Somebody else's database, a newer version's, a directory that is not there."""
    with ThreadPoolExecutor(1) as threads:
        backend = backend_of(settings, threads)
        with closing(opened(settings)) as connection:
            connection.execute("CREATE TABLE recipes (name)")
        with pytest.raises(Unwelcome, match="of another program"):
            await backend.start()
        await backend.stop()
        with closing(opened(settings)) as connection:
            connection.execute("DROP TABLE recipes")
            connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            connection.execute("PRAGMA user_version = 99")
        with pytest.raises(Unwelcome, match="schema version 99, which is newer"):
            await backend.start()
        await backend.stop()
        nowhere = SqliteSettings(path=f"{settings.path}/nowhere/x.sqlite")
        assert list(KIND.obstacles(nowhere))
        with pytest.raises(Unwelcome, match="cannot be opened or made"):
            await backend_of(nowhere, threads).start()
    assert list(KIND.problems(SqliteSettings(path="x", busy_timeout=5, timeout=5)))


async def test_space_is_given_back(backend: SqliteBackend, settings: SqliteSettings) -> None:
    """By retention; deleted log records are gone from the full text, too."""
    await backend.export(batch_of(LOGS, [corpus(LOGS, 5000)]))
    with closing(opened(settings)) as connection:
        found = "SELECT count(*) FROM otlp_log_text WHERE otlp_log_text MATCH 'accepted'"
        (before,) = connection.execute("PRAGMA page_count").fetchone()
        assert connection.execute(found).fetchone() > (2000,)
        await backend.retain(LOGS, TIME_NS + 4000 * SECOND_NS)
        assert connection.execute(found).fetchone()[0] < 1000
        connection.execute("INSERT INTO otlp_log_text (otlp_log_text) VALUES ('integrity-check')")
        await backend.retain(LOGS, TIME_NS + 10_000 * SECOND_NS)
        connection.execute("INSERT INTO otlp_log_text (otlp_log_text) VALUES ('integrity-check')")
        assert connection.execute("PRAGMA page_count").fetchone()[0] < before / 4
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert backend.stats()["file_bytes"] > 0


async def test_what_is_older_than_retention_goes(backend: SqliteBackend, settings: SqliteSettings) -> None:
    """By itself, also what came before the setting."""
    for signal in SIGNALS:
        await backend.export(batch_of(signal, [corpus(signal, 50)]))
    with ThreadPoolExecutor(1) as threads:
        forgetful = backend_of(dataclasses.replace(settings, retention=7 * DAY_S, busy_timeout=2.0), threads)
        await forgetful.start()
        for _ in range(1000):
            left = [await forgetful.count(signal, "", 0, 2**63 - 1) for signal in SIGNALS]
            if not any(left):
                break
        assert not any(left)
        assert await forgetful.size() > 0
        await forgetful.stop()


async def test_texts_are_never_statements(backend: SqliteBackend, settings: SqliteSettings) -> None:
    """Row S10: hostile names, keys, values, services, tenants, written and asked for; the schema stays."""
    with closing(opened(settings)) as connection:
        before = schema_of(connection)
        for number, text in enumerate(HOSTILE):
            for signal in SIGNALS:
                payload = corpus(signal, 12, seed=number, texts=(text,))
                await backend.export(batch_of(signal, [payload], tenant=text))
                wanted = Wanted(
                    signal,
                    tenant=text,
                    services=(text, "cart"),
                    names=(text,),
                    texts=((text.encode(),),),
                    attributes=(Equal("either", text, (text,)),),
                )
                await everything(backend, wanted)
                await everything(backend, Wanted(signal, tenant=text, attributes=(Equal("resource", text, (text, 1)),)))
                assert len(await everything(backend, Wanted(signal, tenant=text))) == 12
                assert await backend.delete(Wanted(signal, tenant=text, trace_ids=(text.encode(),))) == 0
        assert schema_of(connection) == before
        for signal in SIGNALS:
            counted = connection.execute(f"SELECT count(*) FROM {TABLES[signal]}").fetchone()
            assert counted == (12 * len(HOSTILE),)
        assert connection.execute("SELECT count(*) FROM otlp_tenants").fetchone() == (len(HOSTILE),)


async def test_examples_of_the_documentation_run(backend: SqliteBackend, settings: SqliteSettings) -> None:
    """Every statement of docs/sqlite.md, on a file with something in it, finds something, but for what is of the last hour."""
    for signal in SIGNALS:
        await backend.export(batch_of(signal, [corpus(signal, 200)]))
    statements = examples()
    assert len(statements) > 8
    with closing(opened(settings)) as connection:
        for statement in filter(None, statements):
            assert connection.execute(statement).fetchall() or "'now'" in statement, statement
