"""Days: which partitions there are, making them before they are needed, and dropping them.

A day is a UTC day of records' times. Today's and the next few are made ahead; an older one when records of it come. Days
more than `PAST_DAYS` ago, and those further ahead than is made, have none: their records go to the partition for the rest,
so that a client with odd clocks makes no thousand tables. When a day's time comes, what the rest holds of it moves.

A partition is made as a table of its own and then attached, which locks out nobody who writes to other days. Dropping one
waits `LOCK_S` for its lock, and is tried again the next time.

The set of days is read at the start and whenever a day is missed in it. A partition that somebody else has dropped since
costs nothing but order: its records go to the rest.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from collector.errors import Retryable, Unwelcome
from collector.exporters.postgres.schema import TABLES, lock_of
from collector.otlp.signals import SIGNALS, Signal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.exporters.postgres.connections import Connection, Connections

PAST_DAYS: Final = 1100
LOCK_S: Final = 5
SUMMARIZE_LOCK_MS: Final = 100
"""Less than the second after which a waiting lock would end a vacuum."""
EPOCH: Final = date(1970, 1, 1)
DAY_NS: Final = 86_400 * 10**9
_MAKE: Final = (
    """CREATE TABLE {schema}.{partition} (LIKE {schema}.{table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS
    INCLUDING STORAGE INCLUDING COMPRESSION)""",
    """WITH moved AS (DELETE FROM {schema}.{rest} WHERE {column} >= {first} AND {column} < {end} RETURNING *)
    INSERT INTO {schema}.{partition} SELECT * FROM moved""",
    "ALTER TABLE {schema}.{table} ATTACH PARTITION {schema}.{partition} FOR VALUES FROM ({first}) TO ({end})",
)
NAME: Final = "{table}_{day:%Y%m%d}"


def day_of(number: int) -> date:
    """Return the day so many days after the epoch."""
    return EPOCH + timedelta(days=number)


def time_of(ns: int) -> datetime:
    """Return the microsecond that a time in nanoseconds lies in."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)


def ns_of(time: datetime) -> int:
    """Return a time of the server's in nanoseconds."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def partition_of(table: str, day: int | None) -> str:
    """Return the name of a table's partition for a day since the epoch; of the rest for none."""
    return f"{table}_rest" if day is None else NAME.format(table=table, day=day_of(day))


class Partitions:
    """The partitions of one schema, by number of day since the epoch."""

    def __init__(self, schema: str, connections: Connections, ahead: int) -> None:
        self._schema = schema
        self._connections = connections
        self._ahead = ahead
        self._days: dict[Signal, frozenset[int]] = dict.fromkeys(SIGNALS, frozenset())
        self._grown: set[str] = set()

    def days(self, signal: Signal) -> frozenset[int]:
        """Return the days that have a partition, as far as is known."""
        return self._days[signal]

    async def refresh(self, connection: Connection, signal: Signal) -> frozenset[int]:
        """Read which days have one."""
        self._days[signal] = frozenset(day for day in await self.pages(connection, signal) if day is not None)
        return self._days[signal]

    async def pages(self, connection: Connection, signal: Signal) -> dict[int | None, int]:
        """Return how many pages the table of records has for each day that has a partition, and for the rest (None)."""
        rows = await (
            await connection.execute(
                "SELECT c.relname, pg_relation_size(c.oid) / current_setting('block_size')::int"
                " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
                " JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace"
                " WHERE n.nspname = %s AND p.relname = %s",
                (self._schema, TABLES[signal].records),
            )
        ).fetchall()
        found: dict[int | None, int] = {}
        for name, pages in rows:
            text = name.rpartition("_")[2]
            if name == partition_of(TABLES[signal].records, None):
                found[None] = int(pages or 0)
            elif len(text) == 8 and text.isdigit():
                day = (datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date() - EPOCH).days
                found[day] = int(pages or 0)
        return found

    async def provide(self, signal: Signal, days: Iterable[int], today: int) -> None:
        """See to it that these days have partitions, as far as they are to have any."""
        missing = {
            day for day in days if day not in self._days[signal] and today - PAST_DAYS <= day <= today + self._ahead
        }
        if not missing:
            return
        async with self._connections.writing() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_of(self._schema, "partitions"),))
            await connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_S}s",))
            for day in sorted(missing - await self.refresh(connection, signal)):
                for table in TABLES[signal].all:
                    await self._make(
                        connection, table, day_of(day), "time" if table == TABLES[signal].records else "day"
                    )
        self._days[signal] |= missing

    async def _make(self, connection: Connection, table: str, day: date, column: str) -> None:
        names = self._names(table, day, column)
        for text in _MAKE:
            await connection.execute(sql.SQL(text).format(**names))

    def _names(self, table: str, day: date, column: str) -> dict[str, Any]:
        after = day + timedelta(days=1)
        zone = " 00:00:00+00" if column == "time" else ""
        return {
            "schema": sql.Identifier(self._schema),
            "table": sql.Identifier(table),
            "partition": sql.Identifier(NAME.format(table=table, day=day)),
            "rest": sql.Identifier(f"{table}_rest"),
            "column": sql.Identifier(column),
            "first": sql.Literal(f"{day.isoformat()}{zone}"),
            "end": sql.Literal(f"{after.isoformat()}{zone}"),
        }

    async def drop(self, signal: Signal, before_ns: int) -> int:
        """Drop the days that end at or before a time, and what the rest has from before; return how many days."""
        last = before_ns // DAY_NS
        async with self._connections.writing() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_of(self._schema, "partitions"),))
            await connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_S}s",))
            old = sorted(day for day in await self.refresh(connection, signal) if day < last)
            for day in old:
                for table in TABLES[signal].all:
                    await connection.execute(
                        sql.SQL("DROP TABLE IF EXISTS {schema}.{partition}").format(
                            **self._names(table, day_of(day), "day")
                        )
                    )
            edges: dict[str, Any] = {"time": time_of(before_ns), "day": day_of(last)}
            for table in TABLES[signal].all:
                column = "time" if table == TABLES[signal].records else "day"
                await connection.execute(
                    sql.SQL("DELETE FROM {schema}.{rest} WHERE {column} < %s").format(
                        **self._names(table, EPOCH, column)
                    ),
                    (edges[column],),
                )
        self._days[signal] -= frozenset(old)
        return len(old)

    def grew(self, signal: Signal, days: Iterable[int]) -> None:
        """Note where records were written."""
        known = self._days[signal]
        self._grown.update(partition_of(TABLES[signal].records, day if day in known else None) for day in days)

    async def summarize(self) -> None:
        """Have BRIN take note of what was written since the last time: until then every query looks at all of it. Vacuum does
        that, too, but only after a fifth of a table is new. Where it is at that, this does not wait for it."""
        while self._grown:
            table = self._grown.pop()
            try:
                async with self._connections.writing() as connection:
                    await connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{SUMMARIZE_LOCK_MS}ms",))
                    await connection.execute(
                        "SELECT brin_summarize_new_values(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
                        " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class own ON own.oid = i.indexrelid"
                        " JOIN pg_am ON pg_am.oid = own.relam"
                        " WHERE n.nspname = %s AND c.relname = %s AND pg_am.amname = 'brin'",
                        (self._schema, table),
                    )
            except (Retryable, Unwelcome):  # it is locked, or was dropped: vacuum will see to it, or the next batch
                return
