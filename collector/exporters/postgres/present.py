"""Which services and names there are on which days, so that what is nowhere is not looked for.

No index of records knows a name: each write would pay for it, and a search for one reads all rows of its time. But what a
day's records share is written once a day, a few rows where there are millions of records: containers with their services,
metrics, and for spans their names (`span_names`). A day without what is wanted is passed over.

Spans may have a name each, though nobody should name them so. Of a day with more than `NAMES_MAX` in one batch, or written by
one backend, no further ones are added, but one row that stands for others (`OTHERS`): such a day is always looked at.

Deleting spans leaves their names until the day is dropped: a day may be looked at in vain, never left out.
"""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from collector.exporters.postgres.copying import Key, id_of, stored
from collector.exporters.postgres.partitions import day_of
from collector.exporters.postgres.schema import INDEXED_CHARACTERS, TABLES
from collector.otlp.signals import METRICS, TRACES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from collector.exporters.base import Wanted
    from collector.exporters.postgres.connections import Connection

NAMES_MAX: Final = 10_000
"""Names of spans of one day that one backend adds."""
OTHERS: Final = b""
"""The id of the row that stands for names that have none."""
DAYS_MAX: Final = 10_000
"""Days of which it is remembered how many names were added."""


class Names:
    """The names of spans that one backend has added, by day: how many, not which, as somebody may have dropped them since."""

    def __init__(self) -> None:
        self._added: Counter[date] = Counter()

    def rows(self, names: Mapping[date, Collection[str]]) -> dict[Key, tuple[Any, ...]]:
        """Return the rows for the names of a batch, by their keys."""
        found: dict[Key, tuple[Any, ...]] = {}
        for day, some in names.items():
            if self._added[day] + len(some) > NAMES_MAX:
                found[day, OTHERS] = (day, OTHERS, "")
                continue
            for text in map(stored, some):
                key = id_of(text.encode())
                found[day, key] = (day, key, text)
        return found

    def added(self, keys: Collection[Key]) -> None:
        """Note rows that were not there before."""
        if len(self._added) > DAYS_MAX:
            self._added.clear()
        self._added.update(day for day, _ in keys)


async def days_with(
    connection: Connection, schema: str, wanted: Wanted, days: Collection[int]
) -> frozenset[int | None]:
    """Return which of these days, since the epoch, may have records of the wanted services and names; None among them when
    the rest may."""
    tables = TABLES[wanted.signal]
    sought: list[tuple[str, str, list[Any]]] = []
    if wanted.services:
        sought.append((tables.containers, f"left(service, {INDEXED_CHARACTERS})", _beginnings(wanted.services)))
    if wanted.names and wanted.signal is METRICS and tables.metrics is not None:
        sought.append((tables.metrics, f"left(name, {INDEXED_CHARACTERS})", _beginnings(wanted.names)))
    if wanted.names and wanted.signal is TRACES and tables.names is not None:
        sought.append((tables.names, "id", [*(id_of(stored(one).encode()) for one in wanted.names), OTHERS]))
    # One row of each table is enough: LIMIT keeps the server from joining all that there are.
    among = sql.SQL("").join(
        sql.SQL(", LATERAL (SELECT FROM {} WHERE day = wanted.day AND {} = ANY(%s) LIMIT 1) AS {}").format(
            sql.Identifier(schema, table), sql.SQL(column), sql.Identifier(f"of_{number}")
        )
        for number, (table, column, _) in enumerate(sought)
    )
    of_rest = sql.SQL(" AND ").join(
        sql.SQL("EXISTS (SELECT FROM {} WHERE {} = ANY(%s))").format(
            sql.Identifier(schema, f"{table}_rest"), sql.SQL(column)
        )
        for table, column, _ in sought
    )
    values = [one for _, _, one in sought]
    cursor = await connection.execute(
        sql.SQL(
            "SELECT number FROM unnest(%s::int[], %s::date[]) AS wanted (number, day){} UNION ALL SELECT NULL WHERE {}"
        ).format(among, of_rest),
        [list(days), list(map(day_of, days)), *values, *values],
    )
    return frozenset(number for (number,) in await cursor.fetchall())


def _beginnings(texts: Collection[str]) -> list[str]:
    return [stored(one)[:INDEXED_CHARACTERS] for one in texts]
