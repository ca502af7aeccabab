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

from collector.exporters.postgres.schema import TABLES, lock_of
from collector.otlp.signals import SIGNALS, Signal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.exporters.postgres.connections import Connection, Connections

PAST_DAYS: Final = 1100
LOCK_S: Final = 5
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


class Partitions:
    """The partitions of one schema, by number of day since the epoch."""

    def __init__(self, schema: str, connections: Connections, ahead: int) -> None:
        self._schema = schema
        self._connections = connections
        self._ahead = ahead
        self._days: dict[Signal, frozenset[int]] = dict.fromkeys(SIGNALS, frozenset())

    def days(self, signal: Signal) -> frozenset[int]:
        """Return the days that have a partition, as far as is known."""
        return self._days[signal]

    async def refresh(self, connection: Connection, signal: Signal) -> frozenset[int]:
        """Read which days have one."""
        rows = await (
            await connection.execute(
                "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
                " JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace n ON n.oid = p.relnamespace"
                " WHERE n.nspname = %s AND p.relname = %s",
                (self._schema, TABLES[signal].records),
            )
        ).fetchall()
        found = set()
        for (name,) in rows:
            text = name.rpartition("_")[2]
            if len(text) == 8 and text.isdigit():
                found.add((datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date() - EPOCH).days)
        self._days[signal] = frozenset(found)
        return self._days[signal]

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
                        sql.SQL("DROP TABLE {schema}.{partition}").format(**self._names(table, day_of(day), "day"))
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
