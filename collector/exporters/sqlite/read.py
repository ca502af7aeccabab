"""Reading: what is wanted as statements, and rows as blocks.

One index leads: of traces, else of metric names, else of services, else of time. Each value of the leading one is a
stream of rows in order of time; several streams are merged. Everything else is a condition on rows, which SQLite looks at
before Python sees any of it: names of spans and severities in the index itself, without the row. Texts and attributes are looked for as bytes of the record: protobuf holds strings as
they are, so a record without the bytes does not have the text, and others come along, which is allowed. Services, metrics and names
of spans that are nowhere are known as such from short lists, so that no index is read to its end for them.

A stream is read in pages, each its own statement that goes on behind the last row, in the order of the index, of the one
before: no statement stays open while who reads does something else, so the journal can be emptied, and memory is a page's,
`PAGE_BYTES` for all streams together, whatever the answer's size.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from collector.exporters.base import PIECE_RECORDS
from collector.exporters.containers import Container, Metric, assembled
from collector.exporters.sqlite.schema import OFFSET_MASK, OTHERS, row_id, stored_time
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

if TYPE_CHECKING:
    from collector.exporters.base import Equal, Wanted
    from collector.otlp.block import Block

STREAMS_MAX: Final = 16
"""Values of the leading index that get a stream each; more share one, and are sorted for each page."""
VALUES_MAX: Final = 10_000
"""Values of one stream, or of one condition; more are no condition."""
TEXTS_MAX: Final = 32
"""Texts that rows are searched for, and alternatives of each; further ones are left to who asks."""
PAGE_BYTES: Final = 8 * 1024 * 1024
"""Records that pages, or a block, hold, about."""
CONTAINERS_MAX: Final = 4_096
"""Containers that a read remembers; beyond, all are forgotten."""
_BEHIND: Final = b"\xff"
"""Comes after every number and every text, in SQLite's order."""

_TABLES: Final = {TRACES: "otlp_spans", LOGS: "otlp_logs", METRICS: "otlp_points"}
_COLUMNS: Final = {
    TRACES: "time, id, resource_id, scope_id, 0, record",
    LOGS: "time, id, resource_id, scope_id, 0, record",
    METRICS: "time, id, resource_id, scope_id, metric_id, record",
}
"""Of a page; behind them those that the index has in order."""
_RECORD: Final = 5
"""Where the record is."""
_KEPT: Final = {TRACES: "name", LOGS: "severity_number"}
"""What the indexes of time and of services have beside, by signal."""
Row = tuple[Any, ...]


@dataclass(slots=True)
class Plan:
    """How the rows of a signal are found: an index with its values, and conditions with theirs."""

    signal: Signal
    leading: str = "time"
    """What the index is of: `time`, or `trace`, `service`, `metric` and then time."""
    values: list[Any] = field(default_factory=list)
    """Of the index; none for `time`."""
    conditions: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)
    empty: bool = False
    """Nothing can fit."""

    def where(self, condition: str, *parameters: Any) -> None:
        """Add a condition."""
        self.conditions.append(condition)
        self.parameters += parameters

    @property
    def order(self) -> tuple[str, ...]:
        """The columns by which rows of a stream are in order."""
        if self.leading in ("time", "service") and self.signal in _KEPT:
            return ("time", "tenant_id", _KEPT[self.signal], "id")
        return ("time", "tenant_id", "id")

    def statement(self, streamed: int, *, newest_first: bool) -> str:
        """Return the statement of a page; its parameters are `streamed` values, `parameters`, both times, the edge (the
        columns of `order`) and the number of rows."""
        table = _TABLES[self.signal]
        leading = f"{self.leading}_id {_among(streamed)} AND " if self.leading != "time" else ""
        conditions = "".join(f"{one} AND " for one in self.conditions)
        edge, order = ("<", "DESC") if newest_first else (">", "ASC")
        columns = ", ".join(self.order)
        return (
            f"SELECT {_COLUMNS[self.signal]}, {columns} "  # noqa: S608 - constants
            f"FROM {table} INDEXED BY {table}_{self.leading} "
            f"WHERE {leading}{conditions}time >= ? AND time <= ? AND ({columns}) {edge} ({_marks(len(self.order))}) "
            f"ORDER BY {', '.join(f'{one} {order}' for one in self.order)} LIMIT ?"
        )


def _among(count: int) -> str:
    return "= ?" if count == 1 else f"IN ({_marks(count)})"


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def plan_of(connection: sqlite3.Connection, wanted: Wanted) -> Plan:
    """Return the plan for what is wanted. Raises sqlite3.Error."""
    plan = Plan(wanted.signal)
    tenant = connection.execute("SELECT id FROM otlp_tenants WHERE name = ?", (wanted.tenant,)).fetchone()
    if tenant is None:
        plan.empty = True
        return plan
    # The sign keeps SQLite from dropping the tenant, as a constant, out of the order, which then were not the index's.
    plan.where("+tenant_id = ?", tenant[0])
    for held in wanted.held:
        found = connection.execute(
            "SELECT s.id FROM otlp_sources s JOIN otlp_tenants t ON t.id = s.tenant_id "
            "WHERE s.instance = ? AND t.name = ? AND s.signal = ?",
            (held.source.instance, held.source.tenant, held.source.signal.name),
        ).fetchone()
        if found is not None and held.source.signal is wanted.signal and held.first_offset <= OFFSET_MASK:
            first = row_id(found[0], max(0, held.first_offset))
            plan.where("id NOT BETWEEN ? AND ?", first, row_id(found[0], OFFSET_MASK))
    _keys(connection, wanted, plan)
    _narrow(connection, wanted, plan)
    return plan


def _keys(connection: sqlite3.Connection, wanted: Wanted, plan: Plan) -> None:
    """Choose the index, and make conditions of the other keys."""
    choices: list[tuple[str, list[Any]]] = []
    if wanted.trace_ids and wanted.signal is not METRICS:
        choices.append(("trace", list(dict.fromkeys(wanted.trace_ids))))
    if wanted.names and wanted.signal is METRICS and len(wanted.names) <= VALUES_MAX:
        choices.append(("metric", _ids(connection, "SELECT id FROM otlp_metrics WHERE name ", wanted.names)))
    if wanted.services and len(wanted.services) <= VALUES_MAX:
        choices.append(("service", _ids(connection, "SELECT id FROM otlp_services WHERE name ", wanted.services)))
    for kind, values in choices:
        if not values:
            plan.empty = True
        elif plan.leading == "time" and _leads(wanted.signal, kind, values):
            plan.leading, plan.values = kind, values
        elif len(values) <= VALUES_MAX:
            plan.where(f"{kind}_id {_among(len(values))}", *values)


def _leads(signal: Signal, kind: str, values: list[Any]) -> bool:
    """Tell whether there is an index for that, and it is worth it: many services are most of a time range."""
    return kind == "trace" or (len(values) <= STREAMS_MAX and (kind == "metric" or signal is not METRICS))


def _ids(connection: sqlite3.Connection, select: str, names: tuple[str, ...]) -> list[Any]:
    distinct = list(dict.fromkeys(names))
    return [one for (one,) in connection.execute(select + _among(len(distinct)), distinct)]


def _listed(connection: sqlite3.Connection, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those that spans can have: of a name that is nowhere, no index has to be read to the end."""
    distinct = tuple(dict.fromkeys(names))
    rows = connection.execute(
        f"SELECT name FROM otlp_span_names WHERE name {_among(len(distinct))} "  # noqa: S608 - constants
        f"UNION ALL SELECT NULL FROM otlp_span_names WHERE id = {OTHERS:d}",
        distinct,
    )
    found = tuple(name for (name,) in rows)
    return distinct if None in found else found


def _narrow(connection: sqlite3.Connection, wanted: Wanted, plan: Plan) -> None:
    """Make conditions of everything that no index knows."""
    if wanted.names and wanted.signal is TRACES and len(wanted.names) <= VALUES_MAX:
        names = _listed(connection, wanted.names)
        plan.empty = plan.empty or not names
        plan.where(f"+name {_among(len(names))}", *names)
    if wanted.severities and wanted.signal is LOGS and len(wanted.severities) <= VALUES_MAX:
        plan.where(f"+severity_number {_among(len(wanted.severities))}", *wanted.severities)
    if wanted.signal is LOGS:
        for texts in wanted.texts[:TEXTS_MAX]:
            if texts and len(texts) <= TEXTS_MAX:
                plan.where(f"({' OR '.join(['instr(record, ?)'] * len(texts))})", *texts)
    for one in wanted.attributes[:TEXTS_MAX]:
        _attribute(one, plan)


def _attribute(one: Equal, plan: Plan) -> None:
    """Look for an attribute's key, and its value where that is a string, in the bytes of records, or of their resources."""
    texts = [value.encode() for value in one.values if isinstance(value, str)]
    valued = 0 < len(texts) == len(one.values) <= TEXTS_MAX
    parameters = [one.key.encode(), *(texts if valued else ())]
    here, around = (
        f"instr({column}, ?)" + (f" AND ({' OR '.join([f'instr({column}, ?)'] * len(texts))})" if valued else "")
        for column in ("record", "container")
    )
    in_resource = f"resource_id IN (SELECT id FROM otlp_resources WHERE {around})"  # noqa: S608 - constants
    if one.where == "resource":
        plan.where(in_resource, *parameters)
    elif one.where == "record":
        plan.where(f"({here})", *parameters)
    else:
        plan.where(f"(({here}) OR {in_resource})", *parameters, *parameters)


class Read:
    """One answer, block by block: an iterator, for one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, wanted: Wanted) -> None:
        """Read what is wanted through a connection of its own. Raises sqlite3.Error, as do all steps."""
        self._connection = connection
        self._wanted = wanted
        self._resources: dict[int, bytes] = {}
        self._scopes: dict[int, bytes] = {}
        self._metrics: dict[int, Metric] = {}
        self._rows = self._merged(plan_of(connection, wanted))

    def next_block(self) -> Block | None:
        """Return the next block; None at the end."""
        found: list[tuple[Container, bytes]] = []
        size = 0
        for row in self._rows:
            found.append((self._container(row), row[_RECORD]))
            size += len(row[_RECORD])
            if len(found) == PIECE_RECORDS or size >= PAGE_BYTES:
                break
        return scan(self._wanted.signal, assembled(self._wanted.signal, found), 0) if found else None

    def _merged(self, plan: Plan) -> Iterator[Row]:
        if plan.empty:
            return iter(())
        if plan.leading == "time":
            return self._stream(plan, [], 1)
        each = 1 if len(plan.values) <= STREAMS_MAX else min(VALUES_MAX, len(plan.values))
        shares = [plan.values[at : at + each] for at in range(0, len(plan.values), each)]
        streams = [self._stream(plan, share, len(shares)) for share in shares]
        if len(streams) == 1:
            return streams[0]
        return heapq.merge(*streams, key=_order, reverse=self._wanted.newest_first)

    def _stream(self, plan: Plan, values: list[Any], streams: int) -> Iterator[Row]:
        newest_first = self._wanted.newest_first
        statement = plan.statement(len(values), newest_first=newest_first)
        times = stored_time(self._wanted.start_ns), stored_time(self._wanted.end_ns)
        first: tuple[Any, ...] = (times[1], _BEHIND) if newest_first else (times[0], -1)
        edge = (*first, *[first[1]] * (len(plan.order) - 2))
        room = max(1, PIECE_RECORDS // streams)
        while True:
            page: list[Row] = []
            size = 0
            cursor = self._connection.execute(statement, (*values, *plan.parameters, *times, *edge, room))
            for row in cursor:
                page.append(row)
                size += len(row[_RECORD])
                if size * streams >= PAGE_BYTES:
                    break
            ended = len(page) < room and size * streams < PAGE_BYTES
            cursor.close()
            yield from page
            if ended:
                return
            edge = page[-1][_RECORD + 1 :]

    def _container(self, row: Row) -> Container:
        if len(self._resources) + len(self._scopes) + len(self._metrics) > CONTAINERS_MAX:
            self._resources, self._scopes, self._metrics = {}, {}, {}
        if (outer := self._resources.get(row[2])) is None:
            (outer,) = self._connection.execute(
                "SELECT container FROM otlp_resources WHERE id = ?", row[2:3]
            ).fetchone()
            self._resources[row[2]] = outer
        if (inner := self._scopes.get(row[3])) is None:
            (inner,) = self._connection.execute("SELECT container FROM otlp_scopes WHERE id = ?", row[3:4]).fetchone()
            self._scopes[row[3]] = inner
        if self._wanted.signal is not METRICS:
            return Container(outer, inner, None)
        if (metric := self._metrics.get(row[4])) is None:
            found = self._connection.execute(
                "SELECT own, data, kind FROM otlp_metrics WHERE id = ?", row[4:5]
            ).fetchone()
            metric = self._metrics[row[4]] = Metric(*found)
        return Container(outer, inner, metric)


def _order(row: Row) -> tuple[bool, Any]:
    """Order rows by time as SQLite does: blobs after integers."""
    return isinstance(row[0], bytes), row[0]


def count(connection: sqlite3.Connection, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
    """Count rows with start_ns <= time < end_ns. Raises sqlite3.Error."""
    if end_ns <= start_ns:
        return 0
    table = _TABLES[signal]
    parameters = (stored_time(start_ns), stored_time(end_ns - 1), tenant)
    found = connection.execute(
        f"SELECT count(*) FROM {table} INDEXED BY {table}_time WHERE time >= ? AND time <= ? "  # noqa: S608 - constants
        "AND tenant_id = (SELECT id FROM otlp_tenants WHERE name = ?)",
        parameters,
    ).fetchone()
    return int(found[0])
