"""PostgreSQL, for tests/benchmarks/backends.py.

The floor is psycopg with the bytes that the backend has sent by COPY, sent again: one transaction a batch, and neither
containers nor offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from psycopg import sql

from collector.clock import SystemClock
from collector.exporters.base import Backend, Batch
from collector.exporters.postgres.connections import Connections
from collector.exporters.postgres.copying import COLUMNS, days_in, prepare
from collector.exporters.postgres.kind import KIND
from collector.exporters.postgres.partitions import DAY_NS, Partitions
from collector.exporters.postgres.schema import TABLES, migrate
from collector.exporters.postgres.settings import PostgresSettings
from collector.exporters.settings import ClientTls
from collector.otlp.signals import Signal
from collector.security.secret import Secret
from tests.benchmarks.subject import Missing, Replay, Subject
from tests.exporters.postgres_server import Server, installed

Copies = tuple[Signal, list[bytes]]
"""What COPY was sent."""


class Postgres(Subject):
    """A server of its own with Debian's settings, but for memory and a log that need not be recycled while we measure."""

    name = "postgres"
    driver = f"psycopg {psycopg.__version__}, COPY of the same bytes"

    def __init__(self, directory: Path, threads: ThreadPoolExecutor) -> None:
        super().__init__(directory, threads)
        self._server: Server | None = None
        self._days: dict[Signal, set[int]] = {}

    async def start(self) -> None:
        if not installed():
            raise Missing("PostgreSQL is not installed")
        self._server = Server(shared_buffers="512MB", max_wal_size="4GB")

    def _settings(self) -> PostgresSettings:
        """Of a schema that is not there; the last one goes."""
        assert self._server is not None
        with self._server.connect(autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS measured CASCADE")
            connection.execute("CHECKPOINT")
        return PostgresSettings(
            endpoint=f"127.0.0.1:{self._server.port}",
            database=self._server.database,
            username=self._server.user,
            password=Secret(self._server.password),
            schema="measured",
            tls=ClientTls(insecure=True),
        )

    async def _place(self) -> PostgresSettings:
        """Return the settings of an empty schema, with partitions for what was recorded, as they are there in time."""
        settings = self._settings()
        clock = SystemClock()
        connections = Connections(settings, clock, self._threads)
        partitions = Partitions(settings.schema, connections, settings.partitions_ahead)
        async with connections.writing() as connection:
            await migrate(connection, settings.schema)
        for signal, days in self._days.items():
            await partitions.provide(signal, days, clock.now_ns() // DAY_NS)
        connections.close()
        return settings

    async def fresh(self) -> Backend:
        backend = self.made(KIND, await self._place())
        await backend.start()
        return backend

    async def recorded(self, batches: Sequence[Batch]) -> Copies:
        signal = batches[0].signal
        self._days = {signal: {day for batch in batches for day in days_in(batch.blocks)}}
        return signal, [prepare(signal, batch.blocks, 1).copy for batch in batches]

    async def floor(self, recorded: Copies) -> Replay:
        signal, copies = recorded
        settings = await self._place()
        assert self._server is not None
        own = await psycopg.AsyncConnection.connect(**self._server.parameters())
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            sql.Identifier(settings.schema, TABLES[signal].records),
            sql.SQL(", ").join(sql.Identifier(name) for name in COLUMNS[signal]),
        )

        async def replay() -> None:
            for one in copies:
                async with own.cursor() as cursor, cursor.copy(statement) as copy:
                    await copy.write(one)
                await own.commit()
            await own.close()

        return replay

    def engine_cpu_s(self) -> float:
        return self._server.cpu_s() if self._server is not None else 0.0

    async def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
