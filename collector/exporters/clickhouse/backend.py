"""ClickHouse as a backend: batches become large inserts in the tables of the OpenTelemetry Collector's exporter, and are
read back.

Exactly once: an insert has a token, the batch's key, by which the server knows one that is repeated; batches are repeated
with the same bounds (`steady`). Tables that are made here remember 10,000 inserts; what they remember without having it is
mended (doubts.py). A batch of data points is up to five
inserts, one a table, each with the token; what was there already is passed over.

The tables are looked at when the backend starts, and again when the server says that one of them is not what it was.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec
import numpy as np

from collector.errors import Retryable, RingtailError, Unwelcome
from collector.exporters.base import NAMES_KNOWN_MAX, PIECE_RECORDS, Backend, Health, Wanted
from collector.exporters.clickhouse import identity, native, schema
from collector.exporters.clickhouse.client import Client, SchemaUnwelcome
from collector.exporters.clickhouse.doubts import SLICE, Doubts, offsets_of
from collector.exporters.clickhouse.filters import (
    LAST_NS,
    LAST_S,
    Conditions,
    add_range,
    add_tenant,
    hexadecimal,
    nanoseconds,
    time_of,
)
from collector.exporters.clickhouse.reading import Pieces, Row, Rows, piece_is_full, statement
from collector.exporters.clickhouse.windows import Held, Windows
from collector.otlp.signals import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from collector.exporters.base import Batch, Context, Rejected, Source
    from collector.exporters.clickhouse.columns import Layout
    from collector.exporters.clickhouse.schema import Table
    from collector.exporters.clickhouse.settings import ClickHouseSettings
    from collector.otlp.block import Block
    from collector.otlp.signals import Signal

PARTITIONS_MAX: Final = 10_000
"""Partitions of a table that one call of `retain` drops."""
DAY_NS: Final = 86_400 * 10**9
SORT_BYTES: Final = 1024 * 1024 * 1024
"""Bytes of an answer that the server sorts in memory; beyond, on its disk."""
_PARTITION: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_READING: Final = {
    "output_format_json_quote_64bit_integers": "0",
    "output_format_json_quote_denormals": "1",
    "output_format_json_named_tuples_as_objects": "0",
    "max_bytes_before_external_sort": str(SORT_BYTES),
}


class ClickHouse(Backend):
    """See the module."""

    parallel: ClassVar[int] = 4
    steady: ClassVar[bool] = True

    def __init__(self, settings: ClickHouseSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._client = Client(settings, context.clock)
        self._tables: dict[Signal, tuple[Table, ...]] = {}
        self._doubts = Doubts(self.parallel)
        self._lock = asyncio.Lock()
        self._version = ""
        self._keyed = True
        self._alone: frozenset[str] = frozenset()
        self._bytes: Counter[str] = Counter()

    # --- tables -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make what is missing, and look at what is there. Raises Retryable or Unwelcome."""
        self._tables = {}
        await self._prepared()

    @property
    def keyed(self) -> bool:
        """See `Backend.keyed`: whether all tables have the columns for it."""
        return self._keyed

    async def _prepared(self) -> dict[Signal, tuple[Table, ...]]:
        async with self._lock:
            if not self._tables:
                self._tables = await self._prepare()
            return self._tables

    async def _prepare(self) -> dict[Signal, tuple[Table, ...]]:
        settings = self._settings
        (version,) = (await self._select("SELECT version()", {}))[0]
        self._version = str(version)
        numbers = tuple(int(one) for one in self._version.split(".")[:2] if one.isdecimal())
        layouts = list(schema.names(settings))
        rows = await self._columns(layouts)
        if settings.create_schema and (missing := schema.missing(settings, layouts, {str(row[0]) for row in rows})):
            await self._change(schema.create_database(settings))
            for layout in missing:
                for one in schema.create_table(settings, layout, numbers):
                    await self._change(one)
            rows = await self._columns(layouts)
        found: dict[Signal, tuple[Table, ...]] = {}
        for layout, name in layouts:
            table = schema.adapted(
                layout, name, [(column, of, default) for place, column, of, default in rows if place == name]
            )
            self._tell(table)
            found[layout.signal] = (*found.get(layout.signal, ()), table)
        self._keyed = all(table.keyed for tables in found.values() for table in tables)
        self._alone = await self._without_replicas([table for tables in found.values() for table in tables])
        return found

    async def _columns(self, layouts: Sequence[tuple[Layout, str]]) -> list[list[Any]]:
        """Return table, name, type and kind of default of all columns."""
        conditions = Conditions()
        tables = [one for layout, _ in layouts for one in schema.made(self._settings, layout)]
        return await self._select(
            "SELECT table, name, type, default_kind FROM system.columns"
            f" WHERE database = {conditions.value(self._settings.database)} AND {conditions.among('table', tables)}",
            conditions.parameters,
        )

    async def _without_replicas(self, tables: Sequence[Table]) -> frozenset[str]:
        """Return the names of those that can be mended: whose rows are seen at once, which a replica's are not."""
        conditions = Conditions()
        rows = {f"{one.name}_local" if self._settings.distributed else one.name: one for one in tables if one.keyed}
        if not rows:
            return frozenset()
        found = await self._select(
            f"SELECT name FROM system.tables WHERE database = {conditions.value(self._settings.database)}"
            f" AND {conditions.among('name', rows)} AND engine LIKE '%MergeTree'"
            " AND NOT match(engine, '^(Replicated|Shared)')",
            conditions.parameters,
        )
        return frozenset(rows[name].name for (name,) in found)

    def _tell(self, table: Table) -> None:
        missing = [one.name for one in table.layout.columns if one.name not in table.types]
        if missing:
            self._context.logger.warning("columns are missing, and left out", table=table.name, columns=missing)
        if not table.keyed:
            self._context.logger.warning(
                "a table does not say whose its rows are: tenants are refused, and what is read twice is not known",
                table=table.name,
            )

    async def _select(self, sql: str, parameters: Mapping[str, str]) -> list[list[Any]]:
        try:
            data = await self._client.ask(f"{sql} FORMAT JSONCompactEachRow", parameters, _READING)
            return [msgspec.json.decode(line) for line in data.splitlines() if line]
        except msgspec.DecodeError as error:
            raise Retryable("the answer is none of ClickHouse's") from error

    async def _change(self, sql: str, parameters: Mapping[str, str] | None = None) -> None:
        settings = {"distributed_ddl_output_mode": "throw"} if self._settings.cluster_name else {}
        await self._client.ask(sql, parameters or {}, settings)

    def _place(self, table: Table) -> str:
        return schema.quoted(self._settings, table.name)

    def _local(self, table: Table) -> str:
        return f"{schema.local(self._settings, table.name)}{schema.on_cluster(self._settings)}"

    # --- writing ----------------------------------------------------------------------------------------------

    async def export(self, batch: Batch) -> Rejected | None:
        """See `Exporter.export`."""
        larger = await self._threaded(native.joined, batch)
        doubtful = self._doubts.has(batch)
        try:
            for table in (await self._prepared()).get(batch.signal, ()):
                if batch.source.tenant and not table.keyed:
                    raise Unwelcome(f"the table {table.name} has no column for tenants")
                if await self._insert(larger, table, batch.key) and doubtful and table.name in self._alone:
                    await self._mend(larger, table)
        except BaseException as error:
            self._doubts.failed(batch)
            if isinstance(error, SchemaUnwelcome):
                self._tables = {}
            raise
        self._doubts.taken(batch)
        return None

    async def _insert(self, batch: Batch, table: Table, token: str) -> bool:
        """Insert what of a batch belongs into a table; False when nothing does."""
        compression = self._settings.compress
        body = await self._threaded(native.body, batch, table, compression)
        if not body:
            return False
        columns = ", ".join(f"`{one.name}`" for one in table.sent)
        await self._client.insert(
            f"INSERT INTO {self._place(table)} ({columns}) FORMAT Native",
            body,
            compression if compression != "none" else "",
            self._inserting(token),
        )
        self._bytes[table.name] += len(body)
        return True

    async def _mend(self, batch: Batch, table: Table) -> None:
        """Insert what is missing of a batch that a table says to have: see doubts.py."""
        owed = offsets_of(batch, table)
        missing: set[int] = set()
        for at in range(0, len(owed), SLICE):
            some = owed[at : at + SLICE]
            conditions = Conditions()
            add_tenant(conditions, table, batch.source.tenant)
            add_range(
                conditions,
                table,
                min(one.min_time for one in batch.blocks),
                max(one.max_time for one in batch.blocks),
            )
            conditions.parts += [
                f"RingtailInstance = {conditions.value(batch.source.instance)}",
                f"RingtailOffset >= {conditions.value(int(some[0]), 'UInt64')}",
                f"RingtailOffset <= {conditions.value(int(some[-1]), 'UInt64')}",
            ]
            if await self._counted(table, conditions) < len(some):
                there = await self._select(
                    f"SELECT RingtailOffset FROM {self._place(table)} WHERE {conditions.where}", conditions.parameters
                )
                missing |= set(some.tolist()).difference(one for (one,) in there)
        if missing and (found := batch.separated(missing)[0]) is not None:
            self._context.logger.warning(
                "the server knew an insert without having its rows", table=table.name, records=len(missing)
            )
            await self._insert(found, table, f"{batch.key}/{min(missing)}+{len(missing)}")

    def _inserting(self, token: str) -> dict[str, str]:
        """Return the settings of an insert: all of it or nothing, known again, and no limit that a batch cannot keep."""
        waiting = "1" if self._settings.async_insert else "0"
        found = {
            "insert_deduplicate": "1",
            "insert_deduplication_token": token,
            "deduplicate_blocks_in_dependent_materialized_views": "1",
            "max_partitions_per_insert_block": "0",
            "async_insert": waiting,
            "wait_for_async_insert": "1",
            "async_insert_deduplicate": waiting,
        }
        if self._settings.distributed:
            found["distributed_foreground_insert"] = "1"
        return found

    async def _threaded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._context.threads, function, *arguments)

    # --- reading ----------------------------------------------------------------------------------------------

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        """See `Backend.read`."""
        tables = (await self._prepared()).get(wanted.signal, ())
        pieces = Pieces(wanted.signal, tables)
        if wanted.trace_ids:  # there is an index, and what it finds is small
            async for rows in self._rows(tables, wanted, far=True):
                yield await self._piece(pieces, rows)
            return
        if (held := await self._held(tables)) is None:
            return
        windows = Windows(wanted, held)
        for start_ns, end_ns in windows:
            came = 0
            part = replace(wanted, start_ns=start_ns, end_ns=end_ns)
            async for rows in self._rows(tables, part, far=held.last_ns // 10**9 > LAST_S):
                came += len(rows)
                yield await self._piece(pieces, rows)
            windows.came(came)

    async def names(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> Collection[str] | None:
        """See `Backend.names`: the server looks at three columns of the points of that time, and at no other."""
        found: set[str] = set()
        for table in (await self._prepared()).get(signal, ()):
            name = table.layout.name
            if signal is not METRICS or name not in table.types:
                return None
            conditions = Conditions()
            if not add_tenant(conditions, table, tenant):
                continue
            add_range(conditions, table, start_ns, end_ns)
            rows = await self._select(
                f"SELECT DISTINCT `{name}` FROM {self._place(table)} WHERE {conditions.where} LIMIT {NAMES_KNOWN_MAX + 1}",
                conditions.parameters,
            )
            found.update(str(one) for (one,) in rows)
        return found if len(found) <= NAMES_KNOWN_MAX else None

    async def _held(self, tables: Sequence[Table]) -> Held | None:
        """Return what tables have, as their parts know it; None for nothing."""
        parts = []
        for table in tables:
            time = f"`{table.layout.time}`"
            ends = (nanoseconds(f"{end}({time})", table.types[table.layout.time]) for end in ("min", "max"))
            parts.append(f"SELECT count(), {', '.join(ends)} FROM {self._place(table)}")
        found = [Held(*row) for row in await self._select(" UNION ALL ".join(parts), {}) if row[0]]
        if not found:
            return None
        first, last = min(one.first_ns for one in found), max(one.last_ns for one in found)
        return Held(sum(one.rows for one in found), first, last)

    async def _rows(self, tables: Sequence[Table], wanted: Wanted, *, far: bool) -> AsyncIterator[list[Row]]:
        """Yield rows, as many as a block has."""
        asked = statement(tables, [self._place(one) for one in tables], wanted, far=far)
        if asked is None:
            return
        waiting: list[Row] = []
        nbytes = 0
        rows = Rows()
        async with self._client.opened(*asked, _READING) as answer:
            async for chunk in answer.iter_any():
                for row in await self._threaded(rows.add, chunk):
                    waiting.append(row)
                    nbytes += len(row.container) + len(row.record) + len(row.columns)
                    if piece_is_full(waiting, nbytes):
                        yield waiting
                        waiting, nbytes = [], 0
        rows.end()
        if waiting:
            yield waiting

    async def _piece(self, pieces: Pieces, rows: Sequence[Row]) -> Block:
        assert len(rows) <= PIECE_RECORDS
        try:
            made: Block = await self._threaded(pieces.block, rows)
        except RingtailError as error:
            raise Unwelcome(f"a row cannot be read: {error}") from error
        return made

    # --- forgetting -------------------------------------------------------------------------------------------

    async def delete(self, wanted: Wanted) -> int:
        """See `Backend.delete`."""
        deleted = 0
        for table in (await self._prepared()).get(wanted.signal, ()):
            conditions = Conditions()
            if not table.layout.traced or not wanted.trace_ids or not add_tenant(conditions, table, wanted.tenant):
                continue
            add_range(conditions, table, wanted.start_ns, wanted.end_ns)
            conditions.parts.append(conditions.among("TraceId", [hexadecimal(one) for one in wanted.trace_ids]))
            deleted += await self._deleted(table, conditions)
        return deleted

    async def delete_offsets(self, source: Source, ranges: Sequence[tuple[int, int]]) -> int | None:
        """See `Backend.delete_offsets`; None where a table has no columns for keys."""
        tables = (await self._prepared()).get(source.signal, ())
        if not all(table.keyed for table in tables):
            return None
        deleted = 0
        for table in tables:
            conditions = Conditions()
            add_tenant(conditions, table, source.tenant)
            conditions.parts.append(f"RingtailInstance = {conditions.value(source.instance)}")
            either = [f"RingtailOffset >= {first:d} AND RingtailOffset < {end:d}" for first, end in ranges]
            conditions.parts.append(f"({' OR '.join(either)})")
            deleted += await self._deleted(table, conditions)
        return deleted

    def identities(self, block: Block, rows: NDArray[np.intp]) -> list[bytes] | None:
        """See `Backend.identities`: where the tables have keys, or hold data points, none are wanted."""
        tables = self._tables.get(block.signal)
        if block.signal is METRICS or (tables is not None and all(one.keyed for one in tables)):
            return None
        return identity.identities(block, rows)

    async def delete_identified(self, source: Source, identities: Sequence[bytes]) -> int | None:
        """See `Backend.delete_identified`; None where a table lacks columns for it."""
        tables = (await self._prepared()).get(source.signal, ())
        if not all(identity.can(table) for table in tables):
            return None
        deleted = 0
        ordered = sorted(identities)
        for table in tables:
            for at in range(0, len(ordered), identity.AT_ONCE):
                conditions = identity.of_rows(table, source.tenant, ordered[at : at + identity.AT_ONCE])
                deleted += await self._deleted(table, conditions) if conditions is not None else 0
        return deleted

    async def _deleted(self, table: Table, conditions: Conditions) -> int:
        """Delete the rows of these conditions, and return how many there were."""
        count = await self._counted(table, conditions)
        if count:
            await self._change(f"DELETE FROM {self._local(table)} WHERE {conditions.where}", conditions.parameters)
        return count

    async def retain(self, signal: Signal, before_ns: int) -> None:
        """See `Backend.retain`: whole days."""
        for table in (await self._prepared()).get(signal, ()):
            conditions = Conditions()
            last = f"max({time_of(table)})"
            day_ns = (before_ns // DAY_NS - 1) * DAY_NS  # a day more: the server's days may begin at another hour
            found = await self._select(
                f"SELECT DISTINCT partition FROM (SELECT _partition_id AS partition FROM {self._place(table)}"
                f" GROUP BY partition HAVING {last} < {conditions.value(min(day_ns, 2**63 - 1), 'Int64')}"
                f" LIMIT {PARTITIONS_MAX})",
                conditions.parameters,
            )
            for (partition,) in found:
                if not isinstance(partition, str) or not _PARTITION.fullmatch(partition):
                    raise Retryable("a partition has an id that is none")
                await self._change(f"ALTER TABLE {self._local(table)} DROP PARTITION ID '{partition}'")

    async def count(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        """See `Backend.count`."""
        counted = 0
        for table in (await self._prepared()).get(signal, ()):
            conditions = Conditions()
            last = min(end_ns, LAST_NS)
            if last > start_ns and add_tenant(conditions, table, tenant):
                add_range(conditions, table, start_ns, last - 1)
                counted += await self._counted(table, conditions)
        if end_ns > LAST_NS:
            counted += await self._counted_behind(signal, tenant, max(start_ns, LAST_NS), end_ns)
        return counted

    async def _counted_behind(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        """Count records from the last time of a table on: their rows have that time, and only they know how much later they are."""
        found = 0
        async for block in self.read(Wanted(signal, tenant, LAST_NS, newest_first=False)):
            times = block.column("time")
            found += int(((times >= np.uint64(start_ns)) & (times <= np.uint64(end_ns - 1))).sum())
        return found

    async def size(self) -> int | None:
        """See `Backend.size`: of one replica of each shard."""
        cluster = self._settings.cluster_name
        tables = f"cluster('{cluster}', system, tables)" if cluster else "system.tables"
        conditions = Conditions()
        layouts = schema.names(self._settings)
        names = [one for layout, _ in layouts for one in schema.made(self._settings, layout)]
        found = await self._select(
            f"SELECT toUInt64(ifNull(sum(total_bytes), 0)) FROM {tables}"
            f" WHERE database = {conditions.value(self._settings.database)} AND {conditions.among('name', names)}",
            conditions.parameters,
        )
        return int(found[0][0])

    async def _counted(self, table: Table, conditions: Conditions) -> int:
        found = await self._select(
            f"SELECT count() FROM {self._place(table)} WHERE {conditions.where}", conditions.parameters
        )
        return int(found[0][0])

    # --- what it knows ----------------------------------------------------------------------------------------

    def health(self) -> Health:
        """See `Exporter.health`."""
        return Health(ok=True)

    def stats(self) -> dict[str, Any]:
        """Return the server's version, and per table what was inserted."""
        return {
            "version": self._version,
            "keyed": self.keyed,
            "tables": {name: {"body_bytes": self._bytes[name]} for name in self._bytes},
        }

    async def stop(self) -> None:
        """Close all connections."""
        await self._client.close()
