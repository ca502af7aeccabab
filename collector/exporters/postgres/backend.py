"""PostgreSQL as a backend.

A batch is one transaction: its rows by COPY, the containers that they refer to where those are missing, and its offsets
added to what of its source is `taken`. That is what makes it exactly once, without a key on each row:

    UPDATE sources SET taken = taken + RANGE WHERE id = SOURCE AND NOT taken && RANGE

changes no row if any of the offsets is there already; then all is rolled back, what is there is read, and the rest is
written. Several transactions of one source meet in that row only at their ends, and the second one looks again when the
first has committed. So batches may come in parallel, twice, with other bounds, out of order, or by replay; a commit whose
answer was lost is found when the batch comes again. `position` tells nothing: offsets may be missing before the last one.

Deleting and dropping leave `taken` as it is: what was removed does not come back with a repeated batch.

docs/postgres.md has the schema; schema.py, partitions.py, copying.py, filters.py and reading.py the parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from psycopg import sql
from psycopg.types.multirange import Multirange
from psycopg.types.range import Int8Range

from collector.errors import Permanent, Retryable, RingtailError, Unwelcome
from collector.exporters.base import NAMES_KNOWN_MAX, Backend, Health, Source
from collector.exporters.postgres.connections import Connections
from collector.exporters.postgres.copying import (
    COLUMNS,
    CONTAINER_COLUMNS,
    METRIC_COLUMNS,
    NAME_COLUMNS,
    days_in,
    prepare,
)
from collector.exporters.postgres.filters import deletion, of_tenant
from collector.exporters.postgres.partitions import DAY_NS, Partitions, time_of
from collector.exporters.postgres.present import Names
from collector.exporters.postgres.reading import Reader
from collector.exporters.postgres.schema import TABLES, migrate
from collector.otlp.cut import cut
from collector.otlp.signals import METRICS, SIGNALS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from collector.exporters.base import Batch, Context, Rejected, Wanted
    from collector.exporters.postgres.connections import Connection
    from collector.exporters.postgres.copying import Key, Prepared
    from collector.exporters.postgres.settings import PostgresSettings
    from collector.otlp.block import Block
    from collector.otlp.signals import Signal

UPKEEP_S: Final = 3600.0
"""How often partitions are made ahead and dropped."""
UPKEEP_AGAIN_S: Final = 60.0
"""The same after that has failed."""
SUMMARIZE_S: Final = 10.0
"""How often BRIN takes note of what was written."""
ATTEMPTS: Final = 3
"""How often a batch is cut anew, because others write the same offsets at the same time."""


class _Taken(Exception):
    """Some of the offsets are there already."""


class PostgresBackend(Backend):
    """See the module."""

    parallel: ClassVar[int] = 8

    def __init__(self, settings: PostgresSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._connections = Connections(settings, context.clock, context.threads)
        self._partitions = Partitions(settings.schema, self._connections, settings.partitions_ahead)
        self._schema = sql.Identifier(settings.schema)
        self._names = Names()
        self._version = 0
        self._sources: dict[Source, int] = {}
        self._records = 0
        self._repeated = 0
        self._problem = ""
        self._upkeep: asyncio.Task[None] | None = None

    # --- its life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring the schema up to date, and make the next days' partitions."""
        async with self._connections.writing() as connection:
            self._version = await migrate(connection, self._settings.schema)
            for signal in SIGNALS:
                await self._partitions.refresh(connection, signal)
        await self._make_ahead()
        if self._upkeep is None:
            self._upkeep = asyncio.create_task(self._keep_up(), name="upkeep of partitions")

    async def stop(self) -> None:
        """Let go of the connections."""
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
        self._connections.close()

    @property
    def _today(self) -> int:
        return self._context.clock.now_ns() // DAY_NS

    async def _make_ahead(self) -> None:
        today = self._today
        for name in self._settings.signals:
            signal = next(one for one in SIGNALS if one.name == name)
            await self._partitions.provide(signal, range(today, today + self._settings.partitions_ahead + 1), today)

    async def _keep_up(self) -> None:
        due = self._context.clock.monotonic()
        while True:
            if self._context.clock.monotonic() >= due:
                due += UPKEEP_S
                try:
                    await self._make_ahead()
                    if self._settings.retention:
                        before = self._context.clock.now_ns() - round(self._settings.retention * 1e9)
                        for signal in SIGNALS:
                            await self.retain(signal, max(0, before) // DAY_NS * DAY_NS)
                except RingtailError as error:
                    self._context.logger.warning("upkeep fails", reason=str(error))
                    due = self._context.clock.monotonic() + UPKEEP_AGAIN_S
            await self._partitions.summarize()
            await asyncio.sleep(SUMMARIZE_S)

    def health(self) -> Health:
        """Tell why the last statement failed, if it did."""
        return Health(not self._problem, self._problem)

    def stats(self) -> dict[str, Any]:
        """Return figures of connections, partitions and rows."""
        return {
            "server_version": self._connections.version,
            "schema_version": self._version,
            "connections": self._connections.opened,
            "idle_connections": self._connections.idle,
            "partitions": {signal.name: len(self._partitions.days(signal)) for signal in SIGNALS},
            "written_records": self._records,
            "repeated_records": self._repeated,
        }

    # --- writing ----------------------------------------------------------------------------------------------

    async def export(self, batch: Batch) -> Rejected | None:
        """Write a batch in one transaction; records that are there already are left out."""
        try:
            await self._export(batch)
        except (Retryable, Unwelcome) as error:
            self._problem = str(error)
            raise
        self._problem = ""
        return None

    async def _export(self, batch: Batch) -> None:
        if "\0" in batch.source.tenant:
            raise Permanent("a tenant with NUL in its name cannot be kept")
        blocks: Sequence[Block] = batch.blocks
        days = days_in(blocks)
        await self._partitions.provide(batch.signal, days, self._today)
        source = await self._source(batch.source)
        for _ in range(ATTEMPTS):
            prepared = await self._threaded(prepare, batch.signal, blocks, source)
            try:
                await self._write(batch.signal, source, prepared)
            except _Taken:
                blocks = await self._missing(source, blocks)
                if not blocks:
                    break
            else:
                self._records += prepared.records
                break
        else:
            raise Retryable("the same offsets are being written by somebody else")
        self._partitions.grew(batch.signal, days)
        if blocks is not batch.blocks:
            self._repeated += batch.records - sum(block.count for block in blocks)

    async def _write(self, signal: Signal, source: int, prepared: Prepared) -> None:
        tables = TABLES[signal]
        async with self._connections.writing() as connection:
            await self._add(connection, tables.containers, CONTAINER_COLUMNS, prepared.containers)
            if tables.metrics is not None:
                await self._add(connection, tables.metrics, METRIC_COLUMNS, prepared.metrics)
            added: set[Key] = set()
            if tables.names is not None:
                names = self._names.rows(prepared.names)
                added = await self._add(connection, tables.names, NAME_COLUMNS, names)
            statement = sql.SQL("COPY {}.{} ({}) FROM STDIN (FORMAT binary)").format(
                self._schema,
                sql.Identifier(tables.records),
                sql.SQL(", ").join(sql.Identifier(name) for name in COLUMNS[signal]),
            )
            async with connection.cursor() as cursor:
                async with cursor.copy(statement) as copy:
                    await copy.write(prepared.copy)
                taken = Multirange([Int8Range(first, end) for first, end in prepared.ranges])
                await cursor.execute(
                    sql.SQL(
                        "UPDATE {}.sources SET taken = taken + %s::int8multirange"
                        " WHERE id = %s AND NOT taken && %s::int8multirange"
                    ).format(self._schema),
                    (taken, source, taken),
                )
                if not cursor.rowcount:
                    raise _Taken
        self._names.added(added)

    async def _add(
        self, connection: Connection, table: str, columns: dict[str, str], rows: dict[Key, tuple[Any, ...]]
    ) -> set[Key]:
        """Add the rows that are not there, in order of their keys, so that nobody waits for each other in a circle; return
        the keys of those."""
        name = sql.Identifier(table)
        keys = sorted(rows)
        cursor = await connection.execute(
            sql.SQL(
                "SELECT day, id FROM {}.{} JOIN unnest(%s::date[], %s::bytea[]) AS wanted (day, id) USING (day, id)"
            ).format(self._schema, name),
            ([day for day, _ in keys], [one for _, one in keys]),
        )
        known = set(await cursor.fetchall())
        missing = [rows[key] for key in keys if key not in known]
        if missing:
            await connection.execute(
                sql.SQL("INSERT INTO {}.{} ({}) SELECT * FROM unnest({}) ON CONFLICT DO NOTHING").format(
                    self._schema,
                    name,
                    sql.SQL(", ").join(map(sql.Identifier, columns)),
                    sql.SQL(", ").join(sql.SQL(f"%s::{kind}[]") for kind in columns.values()),
                ),
                [list(values) for values in zip(*missing, strict=True)],
            )
        return rows.keys() - known

    async def _missing(self, source: int, blocks: Sequence[Block]) -> list[Block]:
        """Return what of these blocks is not there."""
        async with self._connections.writing() as connection:
            cursor = await connection.execute(
                sql.SQL("SELECT lower(one), upper(one) FROM {}.sources, unnest(taken) AS one WHERE id = %s").format(
                    self._schema
                ),
                (source,),
            )
            taken = sorted(await cursor.fetchall())
        found = []
        for block in blocks:
            at = block.base_offset
            for first, end in taken:
                if end > at and first < block.end_offset:
                    if first > at:
                        found.append(cut(block, at - block.base_offset, first - block.base_offset))
                    at = end
            if at < block.end_offset:
                found.append(cut(block, at - block.base_offset, block.count) if at > block.base_offset else block)
        return found

    async def _source(self, source: Source) -> int:
        """Return the number of a source."""
        if source not in self._sources:
            key = (source.instance, source.tenant, source.signal.name)
            async with self._connections.writing() as connection:
                await connection.execute(
                    sql.SQL(
                        "INSERT INTO {}.sources (instance, tenant, signal) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
                    ).format(self._schema),
                    key,
                )
                cursor = await connection.execute(
                    sql.SQL("SELECT id FROM {}.sources WHERE instance = %s AND tenant = %s AND signal = %s").format(
                        self._schema
                    ),
                    key,
                )
                row = await cursor.fetchone()
            assert row is not None
            self._sources[source] = row[0]
        return self._sources[source]

    async def _threaded(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._context.threads, function, *arguments)

    # --- reading ----------------------------------------------------------------------------------------------

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        """See `Backend.read`; reading.py says how."""
        if "\0" in wanted.tenant:
            return
        pages = None
        if not wanted.trace_ids or wanted.signal is METRICS:
            async with self._connections.reading() as connection:
                pages = await self._partitions.pages(connection, wanted.signal)
        reader = Reader(self._connections, self._settings.schema, wanted, pages, self._context.threads)
        async with aclosing(reader.blocks()) as blocks:  # type: ignore[type-var]
            async for block in blocks:
                yield block

    async def names(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> Collection[str] | None:
        """See `Backend.names`: those of whole days, which are a row each a day, and of all tenants."""
        table = TABLES[signal].metrics
        if table is None:
            return None
        async with self._connections.reading() as connection:
            cursor = await connection.execute(
                sql.SQL("SELECT DISTINCT name FROM {}.{} WHERE day >= %s AND day <= %s LIMIT %s").format(
                    self._schema, sql.Identifier(table)
                ),
                (time_of(start_ns).date(), time_of(end_ns).date(), NAMES_KNOWN_MAX + 1),
            )
            found = [name for (name,) in await cursor.fetchall()]
            return found if len(found) <= NAMES_KNOWN_MAX else None

    async def delete(self, wanted: Wanted) -> int:
        """See `Backend.delete`."""
        if wanted.signal is METRICS or "\0" in wanted.tenant:
            return 0
        return await self._narrowed(
            "DELETE FROM {}.{} WHERE trace_id = ANY(%s) AND ",
            [list(wanted.trace_ids)],
            wanted.signal,
            wanted.tenant,
            wanted.start_ns,
            wanted.end_ns,
            write=True,
        )

    async def delete_offsets(self, source: Source, ranges: Sequence[tuple[int, int]]) -> int:
        """See `Backend.delete_offsets`. filters.py says how they are found."""
        if "\0" in source.tenant or not ranges:
            return 0
        async with self._connections.writing() as connection:
            cursor = await connection.execute(*deletion(self._settings.schema, source, ranges))
            return int(cursor.rowcount)

    async def count(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        """See `Backend.count`."""
        if end_ns <= start_ns or "\0" in tenant:
            return 0
        return await self._narrowed("SELECT count(*) FROM {}.{} WHERE ", [], signal, tenant, start_ns, end_ns - 1)

    async def _narrowed(
        self,
        text: str,
        values: list[Any],
        signal: Signal,
        tenant: str,
        start_ns: int,
        end_ns: int,
        *,
        write: bool = False,
    ) -> int:
        """Run a statement on exactly the records of a tenant within a time; return its count."""
        whose = of_tenant(self._settings.schema, signal, tenant)
        async with self._connections.writing() if write else self._connections.reading() as connection:
            first, last = time_of(start_ns), time_of(end_ns)
            cursor = await connection.execute(
                sql.SQL(
                    text + "{} AND time >= %s AND time < %s"
                    " AND (time, nanos) >= (%s, %s::smallint) AND (time, nanos) <= (%s, %s::smallint)"
                ).format(self._schema, sql.Identifier(TABLES[signal].records), whose.where),
                [
                    *values,
                    *whose.values,
                    first,
                    last + timedelta(microseconds=1),
                    *(first, start_ns % 1000),
                    *(last, end_ns % 1000),
                ],
            )
            if write:
                return int(cursor.rowcount)
            row = await cursor.fetchone()
            return int(row[0]) if row is not None else 0

    async def retain(self, signal: Signal, before_ns: int) -> None:
        """See `Backend.retain`: whole days go, and single records of days without a partition."""
        dropped = await self._partitions.drop(signal, before_ns)
        if dropped:
            self._context.logger.info("partitions dropped", signal=signal.name, days=dropped)

    async def size(self) -> int:
        """See `Backend.size`: everything in the schema."""
        async with self._connections.reading() as connection:
            cursor = await connection.execute(
                "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'",
                (self._settings.schema,),
            )
            row = await cursor.fetchone()
            return int(row[0]) if row is not None else 0
