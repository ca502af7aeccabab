"""The kind `postgres`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from collector.errors import InvalidConfig
from collector.exporters.kinds import Kind
from collector.exporters.postgres.settings import PostgresSettings, postgres_obstacles, postgres_problems

if TYPE_CHECKING:
    from collector.exporters.base import Backend, Context


def _make(settings: PostgresSettings, context: Context) -> Backend:
    if find_spec("psycopg") is None:
        raise InvalidConfig(
            [f"exporters.{context.name}: psycopg is missing: pip install 'ringtail-collector[postgres]'"]
        )
    from collector.exporters.postgres.backend import PostgresBackend

    return PostgresBackend(settings, context)


KIND: Final = Kind(
    "A PostgreSQL database, from version 14 on.",
    PostgresSettings,
    _make,
    postgres_problems,
    postgres_obstacles,
    reads=True,
)
