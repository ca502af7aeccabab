"""The kind `sqlite`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from collector.exporters.kinds import Kind
from collector.exporters.sqlite.settings import SqliteSettings, obstacles, problems

if TYPE_CHECKING:
    from collector.exporters.base import Context, Exporter


def _make(settings: SqliteSettings, context: Context) -> Exporter:
    from collector.exporters.sqlite.backend import SqliteBackend

    return SqliteBackend(settings, context)


KIND: Final = Kind("To one SQLite file, and back.", SqliteSettings, _make, problems, obstacles, reads=True)
