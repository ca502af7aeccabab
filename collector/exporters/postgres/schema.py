"""The tables, and how they came to be: migrations with versions, under a lock.

    sources          instance, tenant and signal of what wrote, and `taken`: the offsets that are there (int8multirange)
    spans            one row a span:        typed columns, attributes as jsonb, and the span's own OTLP bytes
    log_records      one row a log record
    data_points      one row a data point
    *_containers     resource and scope of records, once a day: readable columns, and their own OTLP bytes
    metrics_of_points  the metric of data points, once a day
    span_names       names of spans, once a day: present.py
    traces, logs, metrics   views of records with their resources and scopes, for people

All but `sources` have a partition for each UTC day of the records' time, and one (`…_rest`) for days that have none:
partitions.py. A record refers to its container by day and hash, so that dropping a day drops everything of it.

`time` has microseconds, as PostgreSQL's timestamps have, and `nanos` the rest, 0 to 999.

Migrations run in order, each once, in one transaction with its number, under an advisory lock of the schema's: of several
instances that start at once one does it and the others wait. A schema of a later version is left alone.

Identifiers are put into statements by psycopg.sql, which quotes them; values are parameters. Nothing of a record is ever
part of a statement.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from psycopg import sql

from collector.errors import Unwelcome
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

if TYPE_CHECKING:
    from collector.exporters.postgres.connections import Connection

BODY_CHARACTERS_INDEXED: Final = 100_000
"""Of a log body; a tsvector has at most a mebibyte."""


INDEXED_CHARACTERS: Final = 200
"""Of services and metrics' names; a key of an index has some 2,700 bytes at most."""


class Tables(NamedTuple):
    """The tables of one signal that are partitioned by day."""

    records: str
    containers: str
    metrics: str | None = None
    names: str | None = None

    @property
    def all(self) -> tuple[str, ...]:
        """All of them, records first."""
        return tuple(one for one in self if one is not None)


TABLES: Final[dict[Signal, Tables]] = {
    TRACES: Tables("spans", "span_containers", names="span_names"),
    LOGS: Tables("log_records", "log_containers"),
    METRICS: Tables("data_points", "point_containers", "metrics_of_points"),
}

_RECORD: Final = """
    time timestamptz NOT NULL,
    nanos smallint NOT NULL,
    source integer NOT NULL,
    log_offset bigint NOT NULL,
    container bytea NOT NULL,
    service text NOT NULL,
    irregular boolean NOT NULL,
    attributes jsonb NOT NULL,
    flags bigint NOT NULL,
    record bytea NOT NULL,"""
_CONTAINERS: Final = """
CREATE TABLE {schema}.{containers} (
    day date NOT NULL,
    id bytea NOT NULL,
    service text NOT NULL,
    irregular boolean NOT NULL,
    resource_attributes jsonb NOT NULL,
    resource_schema_url text NOT NULL,
    scope_name text NOT NULL,
    scope_version text NOT NULL,
    scope_attributes jsonb NOT NULL,
    scope_schema_url text NOT NULL,
    resource bytea NOT NULL,
    scope bytea NOT NULL,
    PRIMARY KEY (day, id)
) PARTITION BY RANGE (day);
CREATE INDEX ON {schema}.{containers} USING gin (resource_attributes jsonb_path_ops);
"""
_INDEXES: Final = """
CREATE INDEX ON {schema}.{records} USING brin (time) WITH (pages_per_range = 32);
CREATE INDEX ON {schema}.{records} USING gin (attributes jsonb_path_ops);
CREATE INDEX ON {schema}.{records} (time) WHERE irregular;
"""
_SPANS: Final = (
    f"""
CREATE TABLE {{schema}}.{{records}} ({_RECORD}
    trace_id bytea,
    span_id bytea,
    parent_span_id bytea,
    trace_state text NOT NULL,
    name text NOT NULL,
    kind smallint NOT NULL,
    end_time timestamptz NOT NULL,
    duration_ns bigint NOT NULL,
    status_code smallint NOT NULL,
    status_message text NOT NULL,
    events jsonb,
    links jsonb,
    dropped_attributes_count bigint NOT NULL,
    dropped_events_count bigint NOT NULL,
    dropped_links_count bigint NOT NULL
) PARTITION BY RANGE (time);
CREATE INDEX ON {{schema}}.{{records}} (trace_id) WHERE trace_id IS NOT NULL;
"""
    + _INDEXES
    + _CONTAINERS
)
_LOGS: Final = (
    f"""
CREATE TABLE {{schema}}.{{records}} ({_RECORD}
    observed_time timestamptz NOT NULL,
    trace_id bytea,
    span_id bytea,
    severity_number smallint NOT NULL,
    severity_text text NOT NULL,
    event_name text NOT NULL,
    body text,
    dropped_attributes_count bigint NOT NULL
) PARTITION BY RANGE (time);
CREATE INDEX ON {{schema}}.{{records}} (trace_id) WHERE trace_id IS NOT NULL;
CREATE INDEX ON {{schema}}.{{records}} USING gin (to_tsvector('simple', left(body, {BODY_CHARACTERS_INDEXED})));
"""
    + _INDEXES
    + _CONTAINERS
)
_METRICS: Final = (
    f"""
CREATE TABLE {{schema}}.{{records}} ({_RECORD}
    metric bytea NOT NULL,
    name text NOT NULL,
    type smallint NOT NULL,
    start_time timestamptz NOT NULL,
    value double precision,
    int_value bigint,
    count double precision,
    sum double precision,
    min double precision,
    max double precision,
    distribution jsonb,
    exemplars jsonb
) PARTITION BY RANGE (time);
"""
    + _INDEXES
    + _CONTAINERS
    + """
CREATE TABLE {schema}.{metrics} (
    day date NOT NULL,
    id bytea NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    unit text NOT NULL,
    type text NOT NULL,
    temporality smallint NOT NULL,
    monotonic boolean NOT NULL,
    own bytea NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (day, id)
) PARTITION BY RANGE (day);
"""
)
_SOURCES: Final = """
CREATE TABLE {schema}.sources (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance text NOT NULL,
    tenant text NOT NULL,
    signal text NOT NULL,
    taken int8multirange NOT NULL DEFAULT '{{}}',
    UNIQUE (instance, tenant, signal)
);
"""
_REST: Final = "CREATE TABLE {schema}.{rest} PARTITION OF {schema}.{table} DEFAULT;"
_VIEW: Final = """
CREATE VIEW {schema}.{view} AS
SELECT s.tenant, r.*, c.scope_name, c.scope_version, c.resource_attributes, c.scope_attributes{more}
FROM {schema}.{records} r
JOIN {schema}.sources s ON s.id = r.source
JOIN {schema}.{containers} c ON c.day = (r.time AT TIME ZONE 'UTC')::date AND c.id = r.container{join};
"""
_POINTS_JOIN: Final = """
JOIN {schema}.{metrics} m ON m.day = (r.time AT TIME ZONE 'UTC')::date AND m.id = r.metric"""
_POINTS_MORE: Final = ", m.unit, m.type AS type_name, m.temporality, m.monotonic"


def _first(schema: str) -> list[sql.Composed]:
    """The tables as they were at first."""
    where = {"schema": sql.Identifier(schema)}
    statements = [sql.SQL(_SOURCES).format(**where)]
    for signal, text in ((TRACES, _SPANS), (LOGS, _LOGS), (METRICS, _METRICS)):
        tables = TABLES[signal]
        names = where | {
            "records": sql.Identifier(tables.records),
            "containers": sql.Identifier(tables.containers),
            "metrics": sql.Identifier(tables.metrics or ""),
        }
        statements.append(sql.SQL(text).format(**names))
        for table in filter(None, (tables.records, tables.containers, tables.metrics)):
            rest = sql.Identifier(f"{table}_rest")
            statements.append(sql.SQL(_REST).format(**where, rest=rest, table=sql.Identifier(table)))
        points = signal is METRICS
        join = sql.SQL(_POINTS_JOIN).format(**where, metrics=names["metrics"]) if points else sql.SQL("")
        statements.append(
            sql.SQL(_VIEW).format(
                **names, view=sql.Identifier(signal.name), join=join, more=sql.SQL(_POINTS_MORE if points else "")
            )
        )
    return statements


_BY_OFFSET: Final = """
CREATE INDEX ON {schema}.{records} USING brin (time, log_offset int8_minmax_multi_ops (values_per_range = 16))
    WITH (pages_per_range = 32);
DROP INDEX {schema}.{by_time};
CREATE INDEX ON {schema}.{containers} (left(service, {characters}), day);
"""
_SPAN_NAMES: Final = """
CREATE TABLE {schema}.{names} (
    day date NOT NULL,
    id bytea NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (day, id)
) PARTITION BY RANGE (day);
CREATE TABLE {schema}.{rest} PARTITION OF {schema}.{names} DEFAULT;
INSERT INTO {schema}.{names} SELECT DISTINCT day, '\\x'::bytea, '' FROM {schema}.{containers};
"""
_METRIC_NAMES: Final = "CREATE INDEX ON {schema}.{metrics} (left(name, {characters}), day);"


def _second(schema: str) -> list[sql.Composed]:
    """Offsets in the index by time, in several intervals, as several sources write side by side; and which services and names
    a day has. Of days that were there before, all names are possible."""
    statements = []
    for tables in TABLES.values():
        names = {
            "schema": sql.Identifier(schema),
            "records": sql.Identifier(tables.records),
            "by_time": sql.Identifier(f"{tables.records}_time_idx"),
            "containers": sql.Identifier(tables.containers),
            "metrics": sql.Identifier(tables.metrics or ""),
            "names": sql.Identifier(tables.names or ""),
            "rest": sql.Identifier(f"{tables.names}_rest"),
            "characters": sql.Literal(INDEXED_CHARACTERS),
        }
        texts = [_BY_OFFSET, *([_METRIC_NAMES] if tables.metrics else []), *([_SPAN_NAMES] if tables.names else [])]
        statements += [sql.SQL(text).format(**names) for text in texts]
    return statements


MIGRATIONS: Final = (_first, _second)
"""What makes version n + 1 of version n."""


def lock_of(schema: str, what: str) -> int:
    """Return the advisory lock of a schema for one purpose."""
    digest = hashlib.sha256(f"ringtail {what} {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


async def migrate(connection: Connection, schema: str) -> int:
    """Bring the schema to the newest version, in the transaction that is open; return that.

    Raises Unwelcome for one of a later version, or one that somebody else uses.
    """
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_of(schema, "migrations"),))
    name = sql.Identifier(schema)
    found = await (
        await connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = %s", (schema,))
    ).fetchone()
    if found is None or not found[0]:
        await connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
    await connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {}.schema_versions"
            " (version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())"
        ).format(name)
    )
    row = await (
        await connection.execute(sql.SQL("SELECT coalesce(max(version), 0) FROM {}.schema_versions").format(name))
    ).fetchone()
    version = row[0] if row is not None else 0
    if version > len(MIGRATIONS):
        raise Unwelcome(f"schema {schema!r} is of version {version}; this Ringtail knows {len(MIGRATIONS)}")
    if version < len(MIGRATIONS):  # an index of what is there takes as long as it takes
        await connection.execute("SELECT set_config('statement_timeout', '0', true)")
    for number in range(version + 1, len(MIGRATIONS) + 1):
        for statement in MIGRATIONS[number - 1](schema):
            await connection.execute(statement)
        await connection.execute(
            sql.SQL("INSERT INTO {}.schema_versions (version) VALUES (%s)").format(name), (number,)
        )
    return len(MIGRATIONS)
