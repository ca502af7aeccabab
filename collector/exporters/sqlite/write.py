"""Writing: a batch becomes rows, in one transaction with the position behind it. And deleting.

Owner: the writer's thread. Rows come out of blocks column by column (rows.py), a thousand at a time, and go to SQLite by
`executemany`; SQLite releases the GIL in each step. What records share is looked up in caches of ids, which are filled
only by what was committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from collector.errors import Permanent, Unwelcome
from collector.exporters import rows
from collector.exporters.containers import containers, description, resource, scope
from collector.exporters.larger import larger
from collector.exporters.sqlite.schema import NAMES_MAX, OFFSET_MASK, OTHERS, SOURCES_MAX, row_id, stored_time
from collector.otlp.records import service_name
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

if TYPE_CHECKING:
    from collector.exporters.base import Batch, Source, Wanted
    from collector.exporters.containers import Container
    from collector.otlp.block import Block

RUN_RECORDS: Final = 1024
"""Records that become rows at once: about a millisecond with the GIL held."""
CACHED_MAX: Final = 16_384
"""Ids of resources, scopes, metrics and services, and names, that are remembered, of each, between batches; beyond, all are
forgotten."""
CACHED_BYTES_MAX: Final = 16 * 1024 * 1024
"""The same for the bytes of containers, by which their ids are found."""
DELETED_AT_ONCE: Final = 2_000
"""Rows that one transaction deletes, so that batches come in between."""
DIGEST_BYTES: Final = 16

_NAMES: Final[dict[Signal, tuple[str, ...]]] = {
    TRACES: (
        *("trace_id", "span_id", "parent_span_id", "name", "kind", "start_time", "end_time", "status_code"),
        *("status_message", "trace_state", "flags", "attributes", "events", "links", "dropped_attributes_count"),
        *("dropped_events_count", "dropped_links_count", "record"),
    ),
    LOGS: (
        *("trace_id", "span_id", "time", "observed_time", "severity_number", "severity_text", "event_name", "body"),
        *("flags", "attributes", "dropped_attributes_count", "record"),
    ),
    METRICS: (
        *("time", "start_time", "value", "count", "sum", "min", "max", "distribution", "flags", "attributes"),
        *("exemplars", "record"),
    ),
}
"""Columns of rows.py in the order of the statements."""
_INSERT: Final[dict[Signal, str]] = {
    TRACES: """INSERT INTO otlp_spans (id, tenant_id, resource_id, service_id, scope_id,
        trace_id, span_id, parent_span_id, name, kind, time, end_time, status_code, status_message, trace_state, flags,
        attributes, events, links, dropped_attributes_count, dropped_events_count, dropped_links_count, record)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
    LOGS: """INSERT INTO otlp_logs (id, tenant_id, resource_id, service_id, scope_id,
        trace_id, span_id, time, observed_time, severity_number, severity_text, event_name, body,
        flags, attributes, dropped_attributes_count, record)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
    METRICS: """INSERT INTO otlp_points (id, tenant_id, resource_id, service_id, scope_id, metric_id,
        time, start_time, value, count, sum, min, max, distribution, flags, attributes, exemplars, record)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
}
_UNSIGNED: Final = ("start_time", "end_time", "time", "observed_time", "count")
"""Columns of 64 bits without a sign."""
_COLUMNS: Final[dict[Signal, Callable[[Block, int, int], dict[str, list[Any]]]]] = {
    TRACES: rows.spans,
    LOGS: rows.logs,
    METRICS: rows.points,
}
_TABLES: Final = {TRACES: "otlp_spans", LOGS: "otlp_logs", METRICS: "otlp_points"}
_EXISTING: Final = {
    signal: f"SELECT id FROM {table} WHERE id >= ? AND id < ?"  # noqa: S608 - a table of this module
    for signal, table in _TABLES.items()
}
_SOME: Final = {
    signal: f"SELECT id FROM {table} WHERE id >= ? AND id < ? LIMIT ?"  # noqa: S608 - the same
    for signal, table in _TABLES.items()
}
_INDEX_TEXT: Final = "INSERT INTO otlp_log_text (rowid, body) VALUES (?, ?)"
_FORGET_TEXT: Final = (
    "INSERT INTO otlp_log_text (otlp_log_text, rowid, body) SELECT 'delete', id, body FROM otlp_logs "
    "WHERE id = ? AND body IS NOT NULL"
)
_FORGET: Final = {
    signal: f"DELETE FROM {table} WHERE id = ?"  # noqa: S608 - a table of this module
    for signal, table in _TABLES.items()
}
_OF_TRACE: Final = {
    signal: f"SELECT id FROM {table} INDEXED BY {table}_trace "  # noqa: S608 - a table of this module
    "WHERE trace_id = ? AND time >= ? AND time <= ? AND tenant_id = ? LIMIT ?"
    for signal, table in _TABLES.items()
    if signal is not METRICS
}
_OLD: Final = {
    signal: f"SELECT id FROM {table} INDEXED BY {table}_time WHERE time < ? LIMIT ?"  # noqa: S608 - the same
    for signal, table in _TABLES.items()
}
_LISTED: Final = f"SELECT max(id), (SELECT id FROM otlp_span_names WHERE id = {OTHERS:d}) FROM otlp_span_names"  # noqa: S608 - a number
"""How many names are listed, and whether there are others."""
_SOURCE: Final = "SELECT id, position FROM otlp_sources WHERE instance = ? AND tenant_id = ? AND signal = ?"


class Writer:
    """Writes through one connection. All methods raise sqlite3.Error; then nothing has changed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take a connection whose schema is of this version."""
        self.connection = connection
        self._resources: dict[bytes, int] = {}
        self._scopes: dict[bytes, int] = {}
        self._metrics: dict[bytes, int] = {}
        self._services: dict[str, int] = {}
        self._names: set[str] = set()
        """Of spans, that are in the list."""
        self._around: dict[Container, tuple[int, ...]] = {}
        self._around_bytes = 0

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            self._forget_ids()
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    # --- batches ----------------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> int:
        """Store a batch, and the position behind it; return how many of its records had not been stored before. Raises
        Permanent for offsets beyond what ids can hold."""
        if max(map(len, self._caches())) > CACHED_MAX or self._around_bytes > CACHED_BYTES_MAX:
            self._forget_ids()
        added = 0
        with self._transaction():
            tenant_id = self._id(
                "INSERT INTO otlp_tenants (name) VALUES (?)",
                "SELECT id FROM otlp_tenants WHERE name = ?",
                batch.source.tenant,
            )
            source_id, position = self._source(batch.source, tenant_id)
            for block in larger(batch.blocks, RUN_RECORDS):
                if block.end_offset > OFFSET_MASK:
                    raise Permanent(f"offset {block.end_offset} is beyond what the schema can hold, {OFFSET_MASK}")
                added += self._write_block(block, source_id, tenant_id, fresh=block.base_offset >= position)
            end = max(position, batch.blocks[-1].end_offset)
            self.connection.execute("UPDATE otlp_sources SET position = ? WHERE id = ?", (end, source_id))
        return added

    def _forget_ids(self) -> None:
        for cache in self._caches():
            cache.clear()
        self._around_bytes = 0

    def _caches(self) -> tuple[dict[Any, Any] | set[str], ...]:
        return (self._around, self._resources, self._scopes, self._metrics, self._services, self._names)

    def position(self, source: Source) -> int | None:
        """Return the position behind what was stored of a source; None when nothing was."""
        tenant = self.connection.execute("SELECT id FROM otlp_tenants WHERE name = ?", (source.tenant,)).fetchone()
        if tenant is None:
            return None
        found = self.connection.execute(_SOURCE, (source.instance, tenant[0], source.signal.name)).fetchone()
        return int(found[1]) if found is not None else None

    def _source(self, source: Source, tenant_id: int) -> tuple[int, int]:
        key = (source.instance, tenant_id, source.signal.name)
        found = self.connection.execute(_SOURCE, key).fetchone()
        if found is not None:
            return found[0], found[1]
        made = self.connection.execute(
            "INSERT INTO otlp_sources (instance, tenant_id, signal, position) VALUES (?, ?, ?, 0)", key
        ).lastrowid
        assert made is not None
        if made > SOURCES_MAX:
            raise Unwelcome(f"the file holds {SOURCES_MAX} sources (tenants, instances, signals), and no more")
        return made, 0

    def _write_block(self, block: Block, source_id: int, tenant_id: int, *, fresh: bool) -> int:
        shared = [self._shared(block, group, one) for group, one in enumerate(containers(block))]
        added = 0
        for first in range(0, block.count, RUN_RECORDS):
            end = min(block.count, first + RUN_RECORDS)
            at = row_id(source_id, block.base_offset + first)
            known = frozenset() if fresh else self._known(block.signal, at, at + end - first)
            added += end - first - len(known)
            self._write_run(block, first, end, at, tenant_id, shared, known)
        return added

    def _known(self, signal: Signal, first: int, end: int) -> frozenset[int]:
        return frozenset(one for (one,) in self.connection.execute(_EXISTING[signal], (first, end)))

    def _write_run(
        self,
        block: Block,
        first: int,
        end: int,
        at: int,
        tenant_id: int,
        shared: list[tuple[int, ...]],
        known: frozenset[int],
    ) -> None:
        """Store rows of a block, whose ids are those from `at` on, but for the known ones."""
        columns = _COLUMNS[block.signal](block, first, end)
        for name in _UNSIGNED:
            if name in columns:
                columns[name] = _fitting(columns[name])
        ids = range(at, at + end - first)
        around = zip(*(shared[group] for group in columns["group"]), strict=True)
        values = (columns[name] for name in _NAMES[block.signal])
        made: Iterable[tuple[Any, ...]] = zip(ids, repeat(tenant_id), *around, *values, strict=False)
        if known:
            made = (row for row in made if row[0] not in known)
        self.connection.executemany(_INSERT[block.signal], made)
        if block.signal is TRACES:
            self._list_names(columns["name"])
        if block.signal is LOGS:
            bodies = zip(ids, columns["body"], strict=True)
            texts = ((one, body) for one, body in bodies if body is not None and one not in known)
            self.connection.executemany(_INDEX_TEXT, texts)

    # --- what records share -----------------------------------------------------------------------------------

    def _shared(self, block: Block, group: int, one: Container) -> tuple[int, ...]:
        """Return the ids of a group's resource, service, scope and, with points, metric."""
        known = self._around.get(one)
        if known is None:
            known = self._around[one] = self._looked_up(block, group, one)
            metric = one.metric.own + one.metric.data if one.metric is not None else b""
            self._around_bytes += len(one.resource) + len(one.scope) + len(metric)
        return known

    def _looked_up(self, block: Block, group: int, one: Container) -> tuple[int, ...]:
        service_id = self._service(service_name(block, group))
        found = (self._resource(one.resource, service_id), service_id, self._scope(one.scope))
        if block.signal is METRICS:
            return (*found, self._metric(one))
        return found

    def _id(self, insert: str, select: str, *values: Any) -> int:
        """Return the id of the row with that first value, made now if it was not there."""
        found = self.connection.execute(select, values[:1]).fetchone()
        return int(found[0]) if found is not None else int(self.connection.execute(insert, values).lastrowid or 0)

    def _service(self, name: str) -> int:
        found = self._services.get(name)
        if found is None:
            found = self._services[name] = self._id(
                "INSERT INTO otlp_services (name) VALUES (?)", "SELECT id FROM otlp_services WHERE name = ?", name
            )
        return found

    def _list_names(self, names: list[str]) -> None:
        """Add names of spans to the list, or that there are others."""
        missing = set(names) - self._names
        if not missing:
            return
        last, *others = self.connection.execute(_LISTED).fetchone()
        if others != [None]:
            return
        if (last or 0) + len(missing) > NAMES_MAX:
            self.connection.execute("INSERT INTO otlp_span_names (id, name) VALUES (?, x'')", (OTHERS,))
            return
        # Ids go on without gaps, so that the last one tells how many there are.
        self.connection.executemany(
            "INSERT OR IGNORE INTO otlp_span_names (name) VALUES (?)", zip(missing, strict=True)
        )
        self._names |= missing

    def _resource(self, container: bytes, service_id: int) -> int:
        key = _digest(container)
        found = self._resources.get(key)
        if found is None:
            found = self._resources[key] = self._id(
                "INSERT INTO otlp_resources (digest, service_id, attributes, schema_url, container) VALUES (?, ?, ?, ?, ?)",
                "SELECT id FROM otlp_resources WHERE digest = ?",
                key,
                service_id,
                *resource(container),
                container,
            )
        return found

    def _scope(self, container: bytes) -> int:
        key = _digest(container)
        found = self._scopes.get(key)
        if found is None:
            found = self._scopes[key] = self._id(
                "INSERT INTO otlp_scopes (digest, name, version, attributes, schema_url, container) VALUES (?, ?, ?, ?, ?, ?)",
                "SELECT id FROM otlp_scopes WHERE digest = ?",
                key,
                *scope(container),
                container,
            )
        return found

    def _metric(self, one: Container) -> int:
        if one.metric is None:  # no record refers to this group
            return 0
        key = _digest(one.metric.key)
        found = self._metrics.get(key)
        if found is None:
            found = self._metrics[key] = self._id(
                "INSERT INTO otlp_metrics (digest, name, description, unit, type, temporality, monotonic, kind, own, data) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                "SELECT id FROM otlp_metrics WHERE digest = ?",
                key,
                *description(one.metric),
                one.metric.type,
                one.metric.own,
                one.metric.data,
            )
        return found

    # --- deleting ---------------------------------------------------------------------------------------------

    def delete(self, wanted: Wanted) -> int:
        """Delete rows of these traces, some at most; return how many. 0 is the end."""
        if wanted.signal not in _OF_TRACE:
            return 0
        with self._transaction():
            tenant = self.connection.execute("SELECT id FROM otlp_tenants WHERE name = ?", (wanted.tenant,)).fetchone()
            times = (stored_time(wanted.start_ns), stored_time(wanted.end_ns))
            found: list[tuple[int]] = []
            for trace_id in wanted.trace_ids if tenant is not None else ():
                room = DELETED_AT_ONCE - len(found)
                if room:
                    found += self.connection.execute(_OF_TRACE[wanted.signal], (trace_id, *times, tenant[0], room))
            found = list(set(found))
            self._forget(wanted.signal, found)
        return len(found)

    def delete_offsets(self, source: Source, ranges: Sequence[tuple[int, int]]) -> int:
        """Delete rows of a source at these offsets, some at most; return how many. 0 is the end."""
        with self._transaction():
            tenant = self.connection.execute("SELECT id FROM otlp_tenants WHERE name = ?", (source.tenant,)).fetchone()
            key = (source.instance, tenant[0] if tenant is not None else 0, source.signal.name)
            known = self.connection.execute(_SOURCE, key).fetchone()
            found: list[tuple[int]] = []
            for first, end in ranges if known is not None else ():
                room = DELETED_AT_ONCE - len(found)
                if room:
                    bounds = row_id(known[0], first), row_id(known[0], end - 1) + 1
                    found += self.connection.execute(_SOME[source.signal], (*bounds, room))
            self._forget(source.signal, found)
        return len(found)

    def retain(self, signal: Signal, before_ns: int) -> int:
        """Delete rows older than that, some at most; return how many. 0 is the end."""
        with self._transaction():
            found = self.connection.execute(_OLD[signal], (stored_time(before_ns), DELETED_AT_ONCE)).fetchall()
            self._forget(signal, found)
        return len(found)

    def _forget(self, signal: Signal, ids: list[tuple[int]]) -> None:
        if signal is LOGS:
            self.connection.executemany(_FORGET_TEXT, ids)
        self.connection.executemany(_FORGET[signal], ids)

    def shrink(self, pages: int) -> int:
        """Give so many free pages back to the file system, at most; return how many are left."""
        self.connection.execute(f"PRAGMA incremental_vacuum({pages:d})").fetchall()
        return int(self.connection.execute("PRAGMA freelist_count").fetchone()[0])


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


def _fitting(numbers: list[Any]) -> list[Any]:
    """Return numbers of 64 bits without a sign as they are stored."""
    if all(number is None or number < 2**63 for number in numbers):
        return numbers
    return [number if number is None else stored_time(number) for number in numbers]
