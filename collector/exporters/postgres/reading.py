"""Reading back: slices of time, newest or oldest first, each through a server-side cursor.

Days that have none of the services or names that are wanted are passed over: present.py. There is no sorted index on time,
which would cost each write a good deal more than BRIN does. So time is cut into slices, of which the server sorts one at a
time: slices.py. Records of a few traces are one slice, because their index finds all of them.

A slice is a transaction of its own: partitions can be dropped in between, and no long snapshot keeps rows alive. A record
is in one slice, so none comes twice; one that is written meanwhile comes or does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from collector.errors import Unwelcome
from collector.exporters.base import PIECE_RECORDS
from collector.exporters.containers import Container, Metric, assembled
from collector.exporters.postgres.filters import conditions
from collector.exporters.postgres.partitions import ns_of, partition_of, time_of
from collector.exporters.postgres.present import days_with
from collector.exporters.postgres.schema import TABLES
from collector.exporters.postgres.slices import CELL_PAGES, Step, cells, sampled, stretches
from collector.otlp.block import METRIC_TYPES
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from collector.exporters.base import Wanted
    from collector.exporters.postgres.connections import Connection, Connections
    from collector.exporters.postgres.slices import Stretch
    from collector.otlp.block import Block

PIECE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of records after which a block is full."""
FETCH_ROWS: Final = 64
FETCH_BYTES: Final = 1024 * 1024
"""What is asked of a cursor at first, and how much to come to by and by."""
CONTAINERS_MAX: Final = 20_000
"""Containers and metrics that one reader remembers."""


@dataclass(slots=True)
class Reader:
    """Reads what is wanted once."""

    connections: Connections
    schema: str
    wanted: Wanted
    pages: dict[int | None, int] | None
    """Of the tables of days, and of the rest (None). None where an index finds all that is wanted."""
    threads: Executor
    _around: dict[Any, tuple[bytes, bytes]] = field(default_factory=dict)
    _metrics: dict[Any, Metric] = field(default_factory=dict)

    async def blocks(self) -> AsyncIterator[Block]:
        """See `Backend.read`."""
        wanted = self.wanted
        if self.pages is None:
            async with aclosing(self._slice(wanted.start_ns, wanted.end_ns)) as pieces:
                async for block in pieces:
                    yield block
            return
        step = Step()
        days = [day for day in self.pages if day is not None]
        found = stretches(days, wanted.start_ns, wanted.end_ns, newest_first=wanted.newest_first)
        if wanted.services or (wanted.names and wanted.signal is not LOGS):
            known = [one.day for one in found if one.day is not None]
            async with self.connections.reading() as connection:
                present = await days_with(connection, self.schema, wanted, known)
            found = [one for one in found if one.day in present]
        for stretch in found:
            left = await self._cells(stretch, self.pages.get(stretch.day, 0))
            while left:
                taken, left = step.taken(left, newest_first=wanted.newest_first)
                count = 0
                async with aclosing(self._slice(taken[0], taken[-1] - 1)) as pieces:
                    async for block in pieces:
                        count += block.count
                        yield block
                step.seen(count)

    async def _cells(self, stretch: Stretch, pages: int) -> list[int]:
        """Return the edges of cells of a stretch, by the times of some of its table's rows; none of an empty one."""
        if pages <= CELL_PAGES:
            return cells(stretch, pages, []) if pages else []
        table = sql.Identifier(self.schema, partition_of(TABLES[self.wanted.signal].records, stretch.day))
        try:
            async with self.connections.reading() as connection:
                cursor = await connection.execute(
                    sql.SQL("SELECT time FROM {} WHERE ctid = ANY(%s::tid[])").format(table),
                    ([f"({page},1)" for page in sampled(pages)],),
                )
                return cells(stretch, pages, [ns_of(time) for (time,) in await cursor.fetchall()])
        except Unwelcome:  # dropped just now; if not, the slice meets the same error
            return cells(stretch, 0, [])

    async def _slice(self, start_ns: int, end_ns: int) -> Any:
        query, values = self._query(start_ns, end_ns)
        async with self.connections.reading() as connection:
            rows: list[Any] = []
            size = 0
            async with connection.cursor("ringtail", binary=True) as cursor:
                await cursor.execute(query, values)
                fetch = FETCH_ROWS
                more = True
                while more:
                    asked = min(fetch, PIECE_RECORDS - len(rows))
                    got = await cursor.fetchmany(asked)
                    more = len(got) == asked
                    if not got:
                        break
                    rows += got
                    got_bytes = sum(len(row[0]) for row in got)
                    size += got_bytes
                    fetch = max(1, min(PIECE_RECORDS, FETCH_BYTES * len(got) // max(1, got_bytes), 4 * fetch))
                    if len(rows) == PIECE_RECORDS or size >= PIECE_BYTES:
                        yield await self._block(connection, rows)
                        rows, size = [], 0
            if rows:
                yield await self._block(connection, rows)

    def _query(self, start_ns: int, end_ns: int) -> tuple[sql.Composed, list[Any]]:
        wanted = self.wanted
        found = conditions(self.schema, wanted)
        found.add("time >= %s AND time < %s", time_of(start_ns), time_of(end_ns) + timedelta(microseconds=1))
        way = sql.SQL("DESC" if wanted.newest_first else "ASC")
        columns = "record, (time AT TIME ZONE 'UTC')::date, container" + (
            ", metric" if wanted.signal is METRICS else ""
        )
        query = sql.SQL(
            "SELECT {columns} FROM {schema}.{records} WHERE {where} ORDER BY time {way}, nanos {way}"
        ).format(
            columns=sql.SQL(columns),
            schema=sql.Identifier(self.schema),
            records=sql.Identifier(TABLES[wanted.signal].records),
            where=found.where,
            way=way,
        )
        return query, found.values

    async def _block(self, connection: Connection, rows: list[Any]) -> Block:
        await self._look_up(connection, self._around, {(row[1], row[2]) for row in rows}, "containers")
        if self.wanted.signal is METRICS:
            await self._look_up(connection, self._metrics, {(row[1], row[3]) for row in rows}, "metrics")
        return await asyncio.get_running_loop().run_in_executor(self.threads, self._made, rows)

    async def _look_up(self, connection: Connection, known: dict[Any, Any], keys: set[Any], what: str) -> None:
        """Read the containers, or the metrics, that are not known yet."""
        missing = [key for key in keys if key not in known]
        if not missing:
            return
        if len(known) + len(missing) > CONTAINERS_MAX:
            known.clear()
            missing = list(keys)
        points = what == "metrics"
        query = sql.SQL(
            "SELECT day, id, {columns} FROM {schema}.{table} JOIN unnest(%s::date[], %s::bytea[]) AS wanted (day, id)"
            " USING (day, id)"
        ).format(
            columns=sql.SQL("own, data, type" if points else "resource, scope"),
            schema=sql.Identifier(self.schema),
            table=sql.Identifier(getattr(TABLES[self.wanted.signal], what)),
        )
        async with connection.cursor(binary=True) as cursor:
            await cursor.execute(query, ([day for day, _ in missing], [one for _, one in missing]))
            for day, one, *found in await cursor.fetchall():
                known[day, one] = (
                    Metric(found[0], found[1], METRIC_TYPES.index(found[2])) if points else (found[0], found[1])
                )

    def _made(self, rows: list[Any]) -> Block:
        """In a thread."""
        points = self.wanted.signal is METRICS
        whole = (
            (
                Container(*self._around[row[1], row[2]], self._metrics[row[1], row[3]] if points else None),
                row[0],
            )
            for row in rows
        )
        return scan(self.wanted.signal, assembled(self.wanted.signal, whole), 0)
