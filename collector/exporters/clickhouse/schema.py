"""The statements that make the tables, and what is there of tables that exist.

Names in statements come from the configuration, which allows letters, digits and underscores, and from columns.py; nothing
of a statement comes from data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from collector.errors import Unwelcome
from collector.exporters.clickhouse.columns import KEPT, LAYOUTS, OWN, SPANS, Column, Layout
from collector.otlp.signals import LOGS, TRACES, Signal

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from collector.exporters.clickhouse.settings import ClickHouseSettings

DEDUPLICATION_WINDOW: Final = 10_000
"""Inserts that a table without replicas remembers, to know one that is repeated."""
TEXT_INDEX_VERSION: Final = (26, 2)
"""Servers from that version on have text indexes."""
_LOOKUP: Final = "_trace_id_ts"


def base_name(settings: ClickHouseSettings, signal: Signal) -> str:
    """Return what the names of a signal's tables begin with."""
    if signal is TRACES:
        return settings.traces_table_name
    return settings.logs_table_name if signal is LOGS else settings.metrics_table_name


def quoted(settings: ClickHouseSettings, name: str) -> str:
    """Return a table's full name as it stands in statements."""
    return f"`{settings.database}`.`{name}`"


def local(settings: ClickHouseSettings, name: str) -> str:
    """Return the full name of the table that has the rows: another one where tables are distributed."""
    return quoted(settings, f"{name}_local" if settings.distributed else name)


def on_cluster(settings: ClickHouseSettings) -> str:
    """Return what statements that change tables have behind the name."""
    return f" ON CLUSTER `{settings.cluster_name}`" if settings.cluster_name else ""


def create_database(settings: ClickHouseSettings) -> str:
    """Return the statement that makes the database, if it is missing."""
    return f"CREATE DATABASE IF NOT EXISTS `{settings.database}`{on_cluster(settings)}"


def made(settings: ClickHouseSettings, layout: Layout) -> list[str]:
    """Return the names of all tables and views that `create_table` makes."""
    name = base_name(settings, layout.signal) + layout.suffix
    tables = [name, f"{name}{_LOOKUP}"] if layout is SPANS else [name]
    rows = [*tables, f"{name}{_LOOKUP}_mv"] if layout is SPANS else tables
    return [*tables, *(f"{one}_local" for one in rows)] if settings.distributed else rows


def missing(settings: ClickHouseSettings, layouts: Sequence[tuple[Layout, str]], there: Container[str]) -> list[Layout]:
    """Return the layouts of which not every table is there."""
    return [layout for layout, _ in layouts if not all(one in there for one in made(settings, layout))]


def create_table(settings: ClickHouseSettings, layout: Layout, version: tuple[int, ...]) -> Iterator[str]:
    """Yield the statements that make a table, and for spans the one of traces' times with its view."""
    name = base_name(settings, layout.signal) + layout.suffix
    where = on_cluster(settings)
    columns = (*layout.columns, *OWN, *(KEPT if settings.keep_records else ()))
    lines = [f"`{one.name}` {one.type} {one.codec}".rstrip() for one in columns]
    lines += _indexes(layout, version)
    key = f"PRIMARY KEY {layout.primary} " if layout.primary else ""
    yield (
        f"CREATE TABLE IF NOT EXISTS {local(settings, name)}{where} ({', '.join(lines)})"
        f" ENGINE = {settings.table_engine} PARTITION BY toDate({layout.time}) {key}ORDER BY {layout.order}"
        f"{_ttl(settings, layout.time)} SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1{_window(settings)}"
    )
    sharding = "cityHash64(TraceId)" if layout.traced else "cityHash64(ServiceName, MetricName)"
    yield from _distributed(settings, name, sharding)
    if layout is SPANS:
        yield from _create_lookup(settings, name)


def _create_lookup(settings: ClickHouseSettings, name: str) -> Iterator[str]:
    where = on_cluster(settings)
    engine = settings.table_engine.replace("MergeTree", "AggregatingMergeTree")
    lookup = local(settings, name + _LOOKUP)
    yield (
        f"CREATE TABLE IF NOT EXISTS {lookup}{where} ("
        "TraceId String CODEC(ZSTD(1)), "
        "Start SimpleAggregateFunction(min, DateTime) CODEC(ZSTD(1)), "
        "End SimpleAggregateFunction(max, DateTime) CODEC(ZSTD(1)))"
        f" ENGINE = {engine} PARTITION BY toStartOfWeek(Start) ORDER BY (TraceId){_ttl(settings, 'Start')}"
        " SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1"
    )
    yield (
        f"CREATE MATERIALIZED VIEW IF NOT EXISTS {local(settings, name + _LOOKUP + '_mv')}{where} TO {lookup} AS"
        " SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End"
        f" FROM {local(settings, name)} WHERE TraceId != '' GROUP BY TraceId"
    )
    yield from _distributed(settings, name + _LOOKUP, "cityHash64(TraceId)")


def _distributed(settings: ClickHouseSettings, name: str, sharding: str) -> Iterator[str]:
    if settings.distributed:
        yield (
            f"CREATE TABLE IF NOT EXISTS {quoted(settings, name)}{on_cluster(settings)} AS {local(settings, name)}"
            f" ENGINE = Distributed(`{settings.cluster_name}`, `{settings.database}`, `{name}_local`, {sharding})"
        )


def _ttl(settings: ClickHouseSettings, column: str) -> str:
    return f" TTL toDateTime({column}) + toIntervalSecond({int(settings.ttl)})" if settings.ttl else ""


def _window(settings: ClickHouseSettings) -> str:
    if settings.table_engine != "MergeTree":
        return ""
    return f", non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}"


def _indexes(layout: Layout, version: tuple[int, ...]) -> Iterator[str]:
    text = version >= TEXT_INDEX_VERSION and layout.traced
    if layout.traced:
        yield f"INDEX idx_trace_id TraceId TYPE {_TEXT if text else 'bloom_filter(0.001) GRANULARITY 1'}"
    for column, short in layout.maps:
        name = f"idx_{short}_attr" if short else "idx_attr"
        if text:
            items = f"{column.removesuffix('s')}Items"
            yield (
                f"`{items}` Array(String) ALIAS"
                f" arrayMap(kv -> concat(kv.1, '=', kv.2), CAST({column}, 'Array(Tuple(String, String))'))"
            )
            yield f"INDEX {name}_key mapKeys({column}) TYPE {_TEXT}"
            yield f"INDEX {name}_items {items} TYPE {_TEXT}"
        else:
            yield f"INDEX {name}_key mapKeys({column}) TYPE bloom_filter(0.01) GRANULARITY 1"
            yield f"INDEX {name}_value mapValues({column}) TYPE bloom_filter(0.01) GRANULARITY 1"
    for one in layout.text_indexes if text else layout.indexes:
        yield f"INDEX {one}"


_TEXT: Final = "text(tokenizer = 'array')"


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is."""

    layout: Layout
    name: str
    types: dict[str, str]
    """The types of its columns."""
    sent: tuple[Column, ...]
    """The columns that are inserted."""

    @property
    def keyed(self) -> bool:
        """Whether it says whose each row is."""
        return all(one.name in self.types for one in OWN)

    @property
    def keeps(self) -> bool:
        """Whether it keeps records as they were sent."""
        return all(one.name in self.types for one in KEPT)


def adapted(layout: Layout, name: str, found: list[tuple[str, str, str]]) -> Table:
    """Return a table of which the server has said: name, type and kind of default of each column. Raises Unwelcome."""
    types = {column: of for column, of, _ in found}
    computed = {column for column, _, default in found if default in ("ALIAS", "MATERIALIZED")}
    if not types:
        raise Unwelcome(f"there is no table {name}")
    for one in layout.columns:
        of = types.get(one.name, one.type)
        if "Map(" in one.type and "Map(" not in of:
            raise Unwelcome(f"the column {one.name} of {name} is {of}: attributes are written as Map only")
    if layout.time not in types:
        raise Unwelcome(f"the table {name} has no column {layout.time}")
    if (OWN[0].name in types) != all(one.name in types for one in OWN):
        raise Unwelcome(f"the table {name} has some of the columns {', '.join(one.name for one in OWN)}, but not all")
    columns = (*layout.columns, *OWN, *KEPT)
    sent = tuple(one for one in columns if one.name in types and one.name not in computed)
    return Table(layout, name, types, sent)


def names(settings: ClickHouseSettings) -> Iterator[tuple[Layout, str]]:
    """Yield the tables of the signals that are exported."""
    for signal, layouts in LAYOUTS.items():
        if signal.name in settings.signals:
            for layout in layouts:
                yield layout, base_name(settings, signal) + layout.suffix
