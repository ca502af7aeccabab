"""The backend: one thread that writes, few that read, and the event loop that waits for neither.

Each read has a connection of its own, which looks at the file as it is at each page. SQLite's own locking lets one write at a
time, Ringtail or another process; in WAL mode nobody waits for who writes.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from collector.errors import RingtailError, Unwelcome
from collector.exporters.base import NAMES_KNOWN_MAX, Backend, Health
from collector.exporters.sqlite import schema
from collector.exporters.sqlite.connection import cause, is_lasting, open_reader, open_writer
from collector.exporters.sqlite.read import Read, count
from collector.exporters.sqlite.write import Writer
from collector.otlp.signals import METRICS, SIGNALS

if TYPE_CHECKING:
    from collector.exporters.base import Batch, Context, Rejected, Source, Wanted
    from collector.exporters.sqlite.settings import SqliteSettings
    from collector.otlp.block import Block
    from collector.otlp.signals import Signal

READERS: Final = 2
"""Reads that are served at a time."""
UPKEEP_S: Final = 60.0
"""How often retention is looked after."""
VACUUMED_AT_ONCE: Final = 2_000
"""Pages that one transaction gives back, so that batches come in between."""

T = TypeVar("T")


class SqliteBackend(Backend):
    """See the module."""

    def __init__(self, settings: SqliteSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._writing: ThreadPoolExecutor | None = None
        self._reading: ThreadPoolExecutor | None = None
        self._writer: Writer | None = None
        self._inode = (0, 0)
        self._trouble = ""
        self._figures: dict[str, int] = {}
        self._stored = self._repeated = 0
        self._upkeep: asyncio.Task[None] | None = None

    # --- its life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See base.py."""
        if self._writing is None:
            self._writing = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
            self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="sqlite-reader")
        await self._write(lambda _: None)
        if self._upkeep is None and self._settings.retention:
            self._upkeep = asyncio.create_task(self._keep_up(), name="upkeep of SQLite")

    async def _keep_up(self) -> None:
        """Forget what is older than `retention`, again and again."""
        while True:
            before_ns = self._context.clock.now_ns() - round(self._settings.retention * 1e9)
            try:
                for signal in SIGNALS:
                    await self.retain(signal, max(0, before_ns))
            except RingtailError as error:
                self._context.logger.warning("upkeep fails", reason=str(error))
            await asyncio.sleep(UPKEEP_S)

    async def stop(self) -> None:
        """See base.py."""
        upkeep, self._upkeep = self._upkeep, None
        if upkeep is not None:
            upkeep.cancel()
            await asyncio.gather(upkeep, return_exceptions=True)
        writing, reading = self._writing, self._reading
        self._writing = self._reading = None
        if writing is not None:
            await asyncio.get_running_loop().run_in_executor(writing, self._close)
            writing.shutdown(wait=False)
        if reading is not None:
            reading.shutdown(wait=False)

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.connection.close()

    def health(self) -> Health:
        """See base.py."""
        return Health(not self._trouble, self._trouble)

    def stats(self) -> dict[str, Any]:
        """See base.py."""
        return {
            "path": self._settings.path,
            "stored_records": self._stored,
            "repeated_records": self._repeated,
            **self._figures,
        }

    # --- writing ----------------------------------------------------------------------------------------------

    async def export(self, batch: Batch) -> Rejected | None:
        """See base.py."""
        added = await self._write(lambda writer: writer.write(batch))
        self._stored += added
        self._repeated += batch.records - added
        return None

    async def position(self, source: Source) -> int | None:
        """See base.py."""
        return await self._write(lambda writer: writer.position(source))

    async def delete(self, wanted: Wanted) -> int:
        """See base.py."""
        deleted = 0
        while some := await self._write(lambda writer: writer.delete(wanted)):
            deleted += some
        return deleted

    async def delete_offsets(self, source: Source, ranges: Sequence[tuple[int, int]]) -> int:
        """See base.py."""
        deleted = 0
        while some := await self._write(lambda writer: writer.delete_offsets(source, ranges)):
            deleted += some
        return deleted

    async def retain(self, signal: Signal, before_ns: int) -> None:
        """See base.py."""
        while await self._write(lambda writer: writer.retain(signal, before_ns)):
            pass
        left = -1
        while left and left != (left := await self._write(lambda writer: writer.shrink(VACUUMED_AT_ONCE))):
            pass

    async def size(self) -> int:
        """See base.py: the file and its journal."""
        await asyncio.get_running_loop().run_in_executor(self._context.threads, self._measure)
        return sum(self._figures.values())

    async def _write(self, work: Callable[[Writer], T]) -> T:
        """Do something in the writer's thread. Raises Retryable, Permanent or Unwelcome."""
        if self._writing is None:
            raise Unwelcome("the backend was stopped")
        return await asyncio.get_running_loop().run_in_executor(self._writing, self._work, work)

    def _work(self, work: Callable[[Writer], T]) -> T:
        """In the writer's thread."""
        try:
            done = work(self._opened())
        except sqlite3.Error as error:
            if is_lasting(error):
                self._abandon()
            found = cause(error, self._settings)
            self._trouble = str(found)
            raise found from error
        except RingtailError as error:
            self._trouble = str(error)
            raise
        self._trouble = ""
        self._measure()
        return done

    def _opened(self) -> Writer:
        """Return the writer; a new one when the file is another, because somebody has moved it away or restored it."""
        if self._writer is not None and self._inode != self._identity():
            self._context.logger.warning("database replaced", path=self._settings.path)
            self._abandon()
        if self._writer is None:
            connection = open_writer(self._settings)
            try:
                schema.bring_up(connection, self._settings.path)
            except BaseException:
                connection.close()
                raise
            self._writer = Writer(connection)
            self._inode = self._identity()
        return self._writer

    def _abandon(self) -> None:
        try:
            self._close()
        except sqlite3.Error as error:
            self._context.logger.warning("database not closed", reason=str(error))

    def _identity(self) -> tuple[int, int]:
        try:
            found = os.stat(self._settings.path)
        except OSError:
            return (0, 0)
        return (found.st_dev, found.st_ino)

    def _measure(self) -> None:
        figures = {}
        for name, suffix in (("file_bytes", ""), ("journal_bytes", "-wal")):
            try:
                figures[name] = os.stat(self._settings.path + suffix).st_size
            except OSError:
                figures[name] = 0
        self._figures = figures

    # --- reading ----------------------------------------------------------------------------------------------

    async def count(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        """See base.py."""
        session = _Session(self._settings)
        return await self._read(session, lambda: session.count(signal, tenant, start_ns, end_ns))

    async def names(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> Collection[str] | None:
        """See base.py: of all times."""
        if signal is not METRICS:
            return None
        session = _Session(self._settings)
        return await self._read(session, session.names)

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        """See base.py."""
        session = _Session(self._settings)
        try:
            while (block := await self._read(session, lambda: session.next_block(wanted))) is not None:
                yield block
        finally:
            session.interrupt()
            if self._reading is not None:
                self._reading.submit(session.close)
            else:
                session.close()

    async def _read(self, session: _Session, work: Callable[[], T]) -> T:
        """Do something in a reader's thread. Raises Retryable or Unwelcome."""
        if self._reading is None:
            raise Unwelcome("the backend was stopped")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, work)
        except sqlite3.Error as error:
            raise cause(error, self._settings) from error
        except asyncio.CancelledError:
            session.interrupt()
            raise


class _Session:
    """A connection of one who reads. Steps exclude each other; `interrupt` comes from anywhere."""

    def __init__(self, settings: SqliteSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._ended = False
        self._connection: sqlite3.Connection | None = None
        self._rows: Read | None = None

    def _opened(self) -> sqlite3.Connection:
        if self._ended:
            raise sqlite3.OperationalError("the read has ended")
        if self._connection is None:
            self._connection = open_reader(self._settings)
        return self._connection

    def next_block(self, wanted: Wanted) -> Block | None:
        with self._lock:
            if self._rows is None:
                self._rows = Read(self._opened(), wanted)
            return self._rows.next_block()

    def count(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        """See base.py."""
        with self._lock:
            try:
                return count(self._opened(), signal, tenant, start_ns, end_ns)
            finally:
                self._shut()

    def names(self) -> list[str] | None:
        """Return the names of all metrics, of any tenant; None for too many."""
        with self._lock:
            try:
                statement = "SELECT DISTINCT name FROM otlp_metrics LIMIT ?"
                found = [name for (name,) in self._opened().execute(statement, (NAMES_KNOWN_MAX + 1,))]
                return found if len(found) <= NAMES_KNOWN_MAX else None
            finally:
                self._shut()

    def interrupt(self) -> None:
        self._ended = True
        connection = self._connection
        if connection is not None:
            try:
                connection.interrupt()
            except sqlite3.ProgrammingError:  # closed meanwhile
                return

    def close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        connection, self._connection, self._rows = self._connection, None, None
        if connection is not None:
            connection.close()
