"""Reading back: slices of time, newest or oldest first, each through a server-side cursor.

There is no sorted index on time, which would cost each write a good deal more than BRIN does. So time is cut into slices,
of which the server sorts one at a time: first at the edges of partitions, then, within a day, into pieces that begin with a
minute and grow while they hold little. Records of a few traces are one slice, because their index finds all of them.

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

from collector.exporters.base import PIECE_RECORDS
from collector.exporters.containers import Container, Metric, assembled
from collector.exporters.postgres.filters import conditions
from collector.exporters.postgres.partitions import DAY_NS, time_of
from collector.exporters.postgres.schema import TABLES
from collector.otlp.block import METRIC_TYPES
from collector.otlp.scan import scan
from collector.otlp.signals import METRICS

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from collector.exporters.base import Source, Wanted
    from collector.exporters.postgres.connections import Connection, Connections
    from collector.otlp.block import Block

MINUTE_NS: Final = 60 * 10**9
GROWTH: Final = 4
MANY: Final = 50_000
"""Records of a slice after which the next one is shorter."""
PIECE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of records after which a block is full."""
FETCH_ROWS: Final = 64
FETCH_BYTES: Final = 1024 * 1024
"""What is asked of a cursor at first, and how much to come to by and by."""
CONTAINERS_MAX: Final = 20_000
"""Containers and metrics that one reader remembers."""
SHORT_NS: Final = 1000
"""No slice is shorter: what the server compares."""


def spans_of_time(days: frozenset[int], start_ns: int, end_ns: int) -> list[tuple[int, int, bool]]:
    """Return [start, end] in order of time, each with whether it is a day that has a partition."""
    found = []
    at = start_ns
    for day in sorted(days):
        first, last = day * DAY_NS, (day + 1) * DAY_NS - 1
        if last < at:
            continue
        if first > end_ns:
            break
        if first > at:
            found.append((at, first - 1, False))
        found.append((max(at, first), min(last, end_ns), True))
        at = last + 1
    if at <= end_ns:
        found.append((at, end_ns, False))
    return found


class Slices:
    """The slices of what is wanted; `seen` says how many records the last one had."""

    def __init__(self, wanted: Wanted, days: frozenset[int]) -> None:
        self._newest_first = wanted.newest_first
        whole = [(wanted.start_ns, wanted.end_ns, False)]
        self._left = whole if wanted.trace_ids and wanted.signal is not METRICS else spans_of_time(days, *whole[0][:2])
        if not wanted.newest_first:
            self._left.reverse()
        self._width = MINUTE_NS

    def next(self) -> tuple[int, int] | None:
        """Return the next slice, [start, end]; None at the end."""
        if not self._left:
            return None
        start, end, is_day = self._left.pop()
        if not is_day or end - start < self._width:
            return start, end
        # Edges lie between microseconds, so that slices do not overlap where only those are compared.
        if self._newest_first:
            cut = max(start, (end - self._width) // SHORT_NS * SHORT_NS)
            if cut > start:
                self._left.append((start, cut - 1, True))
            return cut, end
        cut = (start + self._width) // SHORT_NS * SHORT_NS
        if cut <= end:
            self._left.append((cut, end, True))
        return start, min(end, cut - 1)

    def seen(self, records: int) -> None:
        """Make the next ones longer or shorter."""
        if records < PIECE_RECORDS:
            self._width = min(self._width * GROWTH, DAY_NS)
        elif records > MANY:
            self._width = max(self._width // GROWTH, SHORT_NS)


@dataclass(slots=True)
class Reader:
    """Reads what is wanted once."""

    connections: Connections
    schema: str
    wanted: Wanted
    sources: dict[Source, int]
    days: frozenset[int]
    threads: Executor
    _around: dict[Any, tuple[bytes, bytes]] = field(default_factory=dict)
    _metrics: dict[Any, Metric] = field(default_factory=dict)

    async def blocks(self) -> AsyncIterator[Block]:
        """See `Backend.read`."""
        slices = Slices(self.wanted, self.days)
        while (found := slices.next()) is not None:
            count = 0
            async with aclosing(self._slice(*found)) as pieces:
                async for block in pieces:
                    count += block.count
                    yield block
            slices.seen(count)

    async def _slice(self, start_ns: int, end_ns: int) -> Any:
        query, values = self._query(start_ns, end_ns)
        async with self.connections.reading() as connection:
            rows: list[Any] = []
            size = 0
            async with connection.cursor("ringtail", binary=True) as cursor:
                await cursor.execute(query, values)
                fetch = FETCH_ROWS
                while got := await cursor.fetchmany(min(fetch, PIECE_RECORDS - len(rows))):
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
        found = conditions(self.schema, wanted, self.sources)
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
