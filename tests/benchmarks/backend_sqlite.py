"""SQLite, for tests/benchmarks/backends.py.

The floor is Python's own sqlite3 with the statements and values that the writer has bound, run again without making them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from collector.exporters.base import Backend, Batch
from collector.exporters.sqlite import schema
from collector.exporters.sqlite.connection import open_writer
from collector.exporters.sqlite.kind import KIND
from collector.exporters.sqlite.settings import SqliteSettings
from collector.exporters.sqlite.write import Writer
from tests.benchmarks.subject import Replay, Subject

Calls = list[tuple[bool, str, Any]]


class Recorded:
    """A connection that remembers what it was asked."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.calls: Calls = []

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        self.calls.append((False, statement, parameters))
        return self._connection.execute(statement, parameters)

    def executemany(self, statement: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        found = list(rows)
        self.calls.append((True, statement, found))
        return self._connection.executemany(statement, found)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction


class Sqlite(Subject):
    """The default settings: a journal in WAL mode, synced with each batch."""

    name = "sqlite"
    driver = f"sqlite3.executemany, SQLite {sqlite3.sqlite_version}"

    def __init__(self, directory: Path, threads: ThreadPoolExecutor) -> None:
        super().__init__(directory, threads)
        self._numbers = count()
        self._connection: sqlite3.Connection | None = None

    def _settings(self) -> SqliteSettings:
        """Of a file that is not there yet; the last one goes."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for old in self.directory.glob("*.sqlite*"):
            old.unlink()
        return SqliteSettings(path=str(self.directory / f"{next(self._numbers)}.sqlite"))

    def _opened(self) -> sqlite3.Connection:
        settings = self._settings()
        connection = open_writer(settings)
        schema.bring_up(connection, settings.path)
        self._connection = connection
        return connection

    async def fresh(self) -> Backend:
        backend = self.made(KIND, self._settings())
        await backend.start()
        return backend

    async def stored(self, backend: Backend) -> int | None:
        """Without the journal."""
        await backend.stop()  # which moves it into the file
        return await backend.size()

    async def recorded(self, batches: Sequence[Batch]) -> Calls:
        connection = self._opened()
        recorded = Recorded(connection)
        writer = Writer(recorded)  # type: ignore[arg-type]
        for batch in batches:
            writer.write(batch)
        return recorded.calls

    async def floor(self, recorded: Calls) -> Replay:
        connection = self._opened()

        def insert() -> None:
            for many, statement, rows in recorded:
                (connection.executemany if many else connection.execute)(statement, rows)

        return lambda: asyncio.get_running_loop().run_in_executor(self._threads, insert)
