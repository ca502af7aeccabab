"""Opening the file, and what SQLite's errors mean for who hands over batches."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from collector.errors import Retryable, RingtailError, Unwelcome

if TYPE_CHECKING:
    from collector.exporters.sqlite.settings import SqliteSettings

READER_SHARE: Final = 8
"""A reader's cache is this part of `cache_size`."""
JOURNAL_BYTES_MAX: Final = 64 * 1024 * 1024
"""What the journal's file keeps when it was emptied."""

# Every statement is a constant of this package, or put together of such; what comes from records and queries is bound.
# Pragmas take no parameters: theirs are numbers and words of these tables.
_JOURNAL: Final = {mode: f"PRAGMA journal_mode = {mode}" for mode in ("wal", "delete", "truncate", "persist")}
_SYNCHRONOUS: Final = {level: f"PRAGMA synchronous = {level}" for level in ("off", "normal", "full", "extra")}


def open_writer(settings: SqliteSettings) -> sqlite3.Connection:
    """Open the file for writing, and make it when it is not there. Raises sqlite3.Error."""
    return _opened(settings, "rwc", settings.cache_size, writes=True)


def open_reader(settings: SqliteSettings) -> sqlite3.Connection:
    """Open the file for reading. Raises sqlite3.Error."""
    return _opened(settings, "ro", settings.cache_size // READER_SHARE, writes=False)


def _opened(settings: SqliteSettings, mode: str, cache_bytes: int, *, writes: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file://{quote(os.path.abspath(settings.path))}?mode={mode}",
        timeout=settings.busy_timeout,
        isolation_level=None,
        check_same_thread=False,  # one thread at a time, but not always the same
        uri=True,
    )
    try:
        connection.execute(f"PRAGMA cache_size = {-(cache_bytes // 1024):d}")
        connection.execute(f"PRAGMA mmap_size = {settings.mmap_size:d}")
        if writes:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table
            connection.execute(_JOURNAL[settings.journal_mode])
            connection.execute(_SYNCHRONOUS[settings.synchronous])
            connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES_MAX:d}")
        else:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def is_lasting(error: sqlite3.Error) -> bool:
    """Tell whether a connection that met this is worth nothing any more."""
    return _code(error) not in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
    )


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def cause(error: sqlite3.Error, settings: SqliteSettings) -> RingtailError:
    """Return what an error of SQLite's is for a delivery."""
    path, code = settings.path, _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Retryable(
            f"{path} is locked by another process for more than {settings.busy_timeout:g} s (busy_timeout)"
        )
    if code == sqlite3.SQLITE_FULL:
        return Retryable(f"{path} cannot grow: the disk is full, or a quota; nothing of the batch is stored")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Unwelcome(
            f"{path} is damaged, or no database ({error}): move it away, and a new one is made, or restore it; "
            "`sqlite3 FILE .recover` saves what can be saved"
        )
    if code == sqlite3.SQLITE_CANTOPEN:
        return Unwelcome(f"{path} cannot be opened or made: is its directory there, and may Ringtail write to it?")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return Unwelcome(f"{path} may not be written: {error}")
    if "fts5" in str(error):
        return Unwelcome(f"this SQLite, {sqlite3.sqlite_version}, was built without FTS5: {error}")
    return Retryable(f"{path}: {error} ({getattr(error, 'sqlite_errorname', 'SQLITE_ERROR')})")
