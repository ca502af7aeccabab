"""What ClickHouse's answers mean, and where requests go: by a stub."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.errors import Permanent, Retryable, RingtailError, Unwelcome
from collector.exporters.base import Context, Wanted
from collector.exporters.clickhouse.backend import ClickHouse
from collector.exporters.clickhouse.client import Client, cause
from collector.exporters.clickhouse.columns import LAYOUTS
from collector.exporters.clickhouse.settings import ClickHouseSettings, problems
from collector.exporters.settings import ClientTls
from collector.otlp.signals import LOGS, TRACES
from collector.security.secret import Secret
from collector.testing.corpus import HOSTILE, corpus
from collector.testing.exporters import batch_of
from tests.exporters.clickhouse.server import serving
from tests.security.certificates import Authority
from tests.wal.logs import FakeClock

TOO_MANY_PARTS = "Code: 252. DB::Exception: Too many parts (3000). (TOO_MANY_PARTS) (version 26.9.2.1)"


@pytest.mark.parametrize(
    ("status", "code", "told", "kind"),
    [
        (500, "252", TOO_MANY_PARTS, Retryable),
        (500, None, TOO_MANY_PARTS, Retryable),
        (500, "241", "MEMORY_LIMIT_EXCEEDED", Retryable),
        (500, "242", "TABLE_IS_READ_ONLY", Retryable),
        (500, "999", "KEEPER_EXCEPTION", Retryable),
        (500, "159", "TIMEOUT_EXCEEDED", Retryable),
        (500, "202", "TOO_MANY_SIMULTANEOUS_QUERIES", Retryable),
        (500, "55555", "one that is new", Retryable),
        (500, "x", "no code", Retryable),
        (503, None, "a proxy", Retryable),
        (429, None, "a proxy", Retryable),
        (500, "164", "READONLY", Unwelcome),
        (404, "60", "UNKNOWN_TABLE", Unwelcome),
        (500, "16", "NO_SUCH_COLUMN_IN_TABLE", Unwelcome),
        (403, "516", "AUTHENTICATION_FAILED", Unwelcome),
        (500, "497", "ACCESS_DENIED", Unwelcome),
        (401, None, "a proxy", Unwelcome),
        (301, None, "elsewhere", Unwelcome),
        (400, "27", "CANNOT_PARSE_INPUT_ASSERTION_FAILED", Permanent),
        (500, "469", "VIOLATED_CONSTRAINT", Permanent),
        (413, None, "too large", Permanent),
        (500, "396", "TOO_MANY_ROWS_OR_BYTES", Permanent),
    ],
)
def test_causes(status: int, code: str | None, told: str, kind: type[RingtailError]) -> None:
    found = cause(status, code, told)
    assert type(found) is kind or (kind is Unwelcome and isinstance(found, Unwelcome))
    assert len(str(cause(status, code, "x" * 10_000))) < 400
    if isinstance(found, Permanent):
        assert found.too_large == (status == 413 or code == "396")


class Stub:
    """A server that knows tables of all columns, and answers inserts and reads as a test says."""

    def __init__(self) -> None:
        self.inserts: list[dict[str, str]] = []
        self.statements: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.failures: list[web.Response] = []
        self.missing: set[str] = set()
        self.read = b""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        statement = request.query.get("query") or body.decode()
        self.statements.append(statement)
        self.headers.append(dict(request.headers))
        if statement.startswith("SELECT version()"):
            return web.Response(text='["24.8.1.1"]\n')
        if "system.columns" in statement:
            asked = [value for name, value in request.query.items() if name.startswith("param_")]
            return web.Response(text="".join(self._columns(one) for one in asked[1:] if one not in self.missing))
        if statement.startswith("SELECT count()"):
            return web.Response(text="[5, 1000000000, 2000000000]\n")
        if statement.startswith("CREATE TABLE"):
            self.missing -= {one for one in self.missing if f"`{one}` (" in statement}
        if statement.startswith("INSERT") and self.failures:
            return self.failures.pop(0)
        if statement.startswith("INSERT"):
            self.inserts.append(dict(request.query))
        return web.Response(body=self.read if "ringtail_time" in statement else b"")

    def _columns(self, table: str) -> str:
        if "_trace_id_ts" in table:
            return f'["{table}","TraceId","String",""]\n'
        layout = next(
            one for layouts in LAYOUTS.values() for one in layouts if table.endswith(one.signal.name + one.suffix)
        )
        return "".join(f'["{table}","{one.name}","{one.type}",""]\n' for one in layout.columns)


@asynccontextmanager
async def started(stub: Stub, **keys: Any) -> AsyncIterator[ClickHouse]:
    async with serving(stub.answer) as url:
        with ThreadPoolExecutor(1) as threads:
            settings = ClickHouseSettings(**{"endpoint": (url,), **keys})
            context = Context(
                "clickhouse", SystemClock(), structlog.get_logger(), CollectorRegistry(), threads, directory=None
            )
            backend = ClickHouse(settings, context)
            await backend.start()
            try:
                yield backend
            finally:
                await backend.stop()


async def test_an_insert_says_which_batch_it_is() -> None:
    stub = Stub()
    async with started(stub, username="writer", password=Secret("s3cret")) as backend:
        batch = batch_of(TRACES, [corpus(TRACES, 3)], offset=7)
        await backend.export(batch)
    assert stub.inserts[0]["insert_deduplication_token"] == batch.key
    assert stub.inserts[0]["wait_for_async_insert"] == "1"
    assert {one["X-ClickHouse-User"] for one in stub.headers} == {"writer"}
    assert {one["X-ClickHouse-Key"] for one in stub.headers} == {"s3cret"}
    assert all("s3cret" not in one for one in stub.statements)


async def test_no_value_is_part_of_a_statement() -> None:
    """S10."""
    stub = Stub()
    async with started(stub) as backend:
        await backend.export(batch_of(LOGS, [corpus(LOGS, 30, texts=HOSTILE)]))
        texts = tuple((one.encode(),) for one in HOSTILE)
        async for _ in backend.read(Wanted(LOGS, services=HOSTILE, names=HOSTILE, texts=texts)):
            pass
    assert not [one for one in stub.statements for text in HOSTILE if text in one]


async def test_tables_are_looked_at_again_when_one_is_missing() -> None:
    stub = Stub()
    async with started(stub) as backend:
        batch = batch_of(TRACES, [corpus(TRACES, 3)])
        told = "Code: 60. DB::Exception: Table does not exist"
        stub.failures.append(web.Response(status=404, text=told, headers={"X-ClickHouse-Exception-Code": "60"}))
        with pytest.raises(Unwelcome, match="does not exist"):
            await backend.export(batch)
        assert not [one for one in stub.statements if one.startswith("CREATE")]
        stub.missing.add("otel_traces")
        await backend.export(batch)
        assert not stub.missing
        assert not [one for one in stub.statements if one.startswith("CREATE TABLE") and "otel_logs" in one]
    assert len(stub.inserts) == 1


@pytest.mark.parametrize(
    "broken",
    [
        b"Code: 241. DB::Exception: Memory limit exceeded",
        (1).to_bytes(8, "little") + b"\0" + b"\xff\xff\xff\xff\x0f",
        (1).to_bytes(8, "little") + b"\0" + b"\xff\xff\xff\xff\xff\xff",
        (1).to_bytes(8, "little") + b"\0\0",
    ],
)
async def test_an_answer_that_breaks_off_is_none(broken: bytes) -> None:
    stub = Stub()
    stub.read = broken
    async with started(stub) as backend:
        with pytest.raises(Retryable, match="broke off"):
            async for _ in backend.read(Wanted(TRACES)):
                pass


async def test_the_next_endpoint_is_asked() -> None:
    """And redirects are not followed."""
    stub = Stub()
    async with serving(stub.answer) as url:
        client = Client(ClickHouseSettings(endpoint=("http://127.0.0.1:1", url)), SystemClock())
        with pytest.raises(Retryable):
            await client.ask("SELECT 1", {}, {})
        await client.ask("SELECT 1", {}, {})
        await client.close()

    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": "http://169.254.169.254/"})

    async with serving(elsewhere) as url:
        client = Client(ClickHouseSettings(endpoint=(url,)), SystemClock())
        with pytest.raises(Unwelcome, match="301"):
            await client.ask("SELECT 1", {}, {})
        await client.close()


async def test_other_files_of_tls_are_used_after_a_while(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("client")
    shown: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        shown.append(request.transport.get_extra_info("ssl_object").getpeercert()["serialNumber"])
        return web.Response()

    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.path)
    made.load_cert_chain(*authority.issue("server"))
    made.verify_mode = ssl.CERT_REQUIRED
    clock = FakeClock()
    async with serving(answer, made) as url:
        tls = ClientTls(ca_file=str(authority.path), cert_file=str(certificate[0]), key_file=str(certificate[1]))
        client = Client(ClickHouseSettings(endpoint=(url,), tls=tls), clock)
        await client.ask("SELECT 1", {}, {})
        for old, new in zip(certificate, authority.issue("other"), strict=True):
            old.write_bytes(new.read_bytes())
        await client.ask("SELECT 1", {}, {})
        clock.pass_time(tls.reload_interval)
        await client.ask("SELECT 1", {}, {})
        await client.close()
    assert shown[0] == shown[1] != shown[2]


def test_names_are_identifiers() -> None:
    """S10, S14: what stands in statements, and where they go."""
    well = ClickHouseSettings(endpoint=("http://localhost:8123",))
    assert list(problems(well)) == []
    for key in ("database", "traces_table_name", "logs_table_name", "metrics_table_name", "cluster_name"):
        for name in ("a b", "a`; DROP TABLE x; --", "1a", "a.b", "ä", "x" * 200):
            assert [one for one, _ in problems(replace(well, **{key: name}))] == [key]
    for endpoint in ("ftp://host", "http://user:pass@host", "http://169.254.169.254", "host:8123", "http://host/?x=1"):
        assert [one for one, _ in problems(replace(well, endpoint=(endpoint,)))] == ["endpoint"]
    assert [one for one, _ in problems(replace(well, distributed=True))] == ["distributed"]
    assert [one for one, _ in problems(replace(well, username="a\r\nX: y"))] == ["username"]
