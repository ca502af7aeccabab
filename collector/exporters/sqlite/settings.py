"""The keys of the backend `sqlite`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from collector.declaration import setting
from collector.exporters.settings import DAY_S, MIB, ExporterSettings

JOURNAL_MODES: Final = ("wal", "delete", "truncate", "persist")
SYNCHRONOUS: Final = ("off", "normal", "full", "extra")


@dataclass(frozen=True, slots=True)
class SqliteSettings(ExporterSettings):
    """exporters.sqlite"""

    path: str = setting("ringtail.sqlite", "path", "The file. Its directory must be there.")
    journal_mode: Literal["wal", "delete", "truncate", "persist"] = setting(
        "wal", "choice", "PRAGMA journal_mode. Only wal lets others read while it is written.", choices=JOURNAL_MODES
    )
    synchronous: Literal["off", "normal", "full", "extra"] = setting(
        "full",
        "choice",
        "PRAGMA synchronous. Below full a power cut may take back batches that were taken, for good.",
        choices=SYNCHRONOUS,
    )
    cache_size: int = setting(
        32 * MIB,
        "size",
        "PRAGMA cache_size: pages that the writer keeps in memory, at most; each reader an eighth of it.",
        low=MIB,
        high=64 * 1024 * MIB,
    )
    mmap_size: int = setting(
        0,
        "size",
        "PRAGMA mmap_size: how much of the file is mapped rather than read. An error of the disk then ends the process.",
        low=0,
        high=2047 * MIB,
    )
    busy_timeout: float = setting(
        2.0, "duration", "PRAGMA busy_timeout: how long to wait for another process to let go.", low=0, high=3600
    )
    retention: float = setting(
        0.0,
        "duration",
        "Records whose time is longer ago are deleted, and the file shrinks; 0 keeps everything.",
        low=0,
        high=36_500 * DAY_S,
    )


def problems(settings: SqliteSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.problems`."""
    if not os.path.basename(settings.path):
        yield "path", f"{settings.path!r} names no file"
    if settings.busy_timeout >= settings.timeout:
        yield "busy_timeout", "is not below timeout, which would end the attempt first"


def obstacles(settings: SqliteSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.obstacles`."""
    directory = os.path.dirname(settings.path) or "."
    if not os.path.isdir(directory):
        yield "path", f"there is no directory {directory}"
    elif os.path.isdir(settings.path):
        yield "path", f"{settings.path} is a directory"
