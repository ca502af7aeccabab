"""The schema: what is where in the file, and how an older file becomes one of this version.

    otlp_spans, otlp_logs, otlp_points      one row a record
    otlp_resources, otlp_scopes, otlp_metrics, otlp_services, otlp_tenants    what records share, once
    otlp_span_names                         the names of all spans that there are or were, unless there are very many
    otlp_sources                            how far each log has been stored
    otlp_log_text                           full text of log bodies (FTS5), without a copy of them
    spans, logs, points, traces, services, metrics      views, for people

A row's `id` is its key and its place: source in the upper bits, offset in the lower `OFFSET_BITS`. So a record that comes
twice meets itself, without an index for that; rows of one source follow each other in the file; and which rows a reader
has at hand already is a range of ids, that every index can tell without a look at the row.

`record` is the record as it was received (protobuf), beside columns made of it: reading gives back every byte, unknown
fields, order and all, which columns could not. The same holds for `container` of resources and scopes.

Times are Unix ns. Those beyond 2**63 - 1, which SQLite's integers end at, are blobs of 8 bytes, big-endian: they compare with
each other as numbers do, and come after every integer, so that indexes keep them in order.

Versions are PRAGMA user_version; a file of an earlier one is brought up step by step, each in a transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from collector.errors import Retryable, Unwelcome

if TYPE_CHECKING:
    import sqlite3

APPLICATION_ID: Final = 0x52494E47
"""PRAGMA application_id: `RING`."""
OFFSET_BITS: Final = 45
OFFSET_MASK: Final = 2**OFFSET_BITS - 1
SOURCES_MAX: Final = 2 ** (63 - OFFSET_BITS) - 1
"""Logs that one file may hold: signals, times tenants, times instances."""

NAMES_MAX: Final = 100_000
"""Names of spans that are listed, at most."""
OTHERS: Final = 0
"""The id of the row which says that there are, or were, others than those that are listed."""

_VERSION_1: Final = (
    "CREATE TABLE otlp_tenants (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE otlp_services (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE otlp_sources (
    id INTEGER PRIMARY KEY,
    instance TEXT NOT NULL,
    tenant_id INTEGER NOT NULL,
    signal TEXT NOT NULL,
    position INTEGER NOT NULL,  -- the offset behind the last record
    UNIQUE (instance, tenant_id, signal)
)""",
    """CREATE TABLE otlp_resources (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    service_id INTEGER NOT NULL,
    attributes TEXT NOT NULL,  -- JSON
    schema_url TEXT NOT NULL,
    container BLOB NOT NULL
)""",
    """CREATE TABLE otlp_scopes (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    attributes TEXT NOT NULL,  -- JSON
    schema_url TEXT NOT NULL,
    container BLOB NOT NULL
)""",
    """CREATE TABLE otlp_metrics (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    unit TEXT NOT NULL,
    type TEXT NOT NULL,
    temporality INTEGER NOT NULL,  -- 0 none, 1 delta, 2 cumulative
    monotonic INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    own BLOB NOT NULL,
    data BLOB NOT NULL
)""",
    "CREATE INDEX otlp_metrics_name ON otlp_metrics (name)",
    """CREATE TABLE otlp_spans (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL,
    resource_id INTEGER NOT NULL,
    service_id INTEGER NOT NULL,
    scope_id INTEGER NOT NULL,
    trace_id BLOB,
    span_id BLOB,
    parent_span_id BLOB,
    name TEXT NOT NULL,
    kind INTEGER NOT NULL,
    time INTEGER NOT NULL,  -- of its start
    end_time INTEGER NOT NULL,
    status_code INTEGER NOT NULL,
    status_message TEXT NOT NULL,
    trace_state TEXT NOT NULL,
    flags INTEGER NOT NULL,
    attributes TEXT NOT NULL,  -- JSON
    events TEXT,  -- JSON
    links TEXT,  -- JSON
    dropped_attributes_count INTEGER NOT NULL,
    dropped_events_count INTEGER NOT NULL,
    dropped_links_count INTEGER NOT NULL,
    record BLOB NOT NULL
)""",
    "CREATE INDEX otlp_spans_time ON otlp_spans (time, tenant_id, name)",
    "CREATE INDEX otlp_spans_service ON otlp_spans (service_id, time, tenant_id, name)",
    "CREATE INDEX otlp_spans_trace ON otlp_spans (trace_id, time, tenant_id) WHERE trace_id IS NOT NULL",
    """CREATE TABLE otlp_logs (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL,
    resource_id INTEGER NOT NULL,
    service_id INTEGER NOT NULL,
    scope_id INTEGER NOT NULL,
    trace_id BLOB,
    span_id BLOB,
    time INTEGER NOT NULL,  -- that of its event, else when it was observed
    observed_time INTEGER NOT NULL,
    severity_number INTEGER NOT NULL,
    severity_text TEXT NOT NULL,
    event_name TEXT NOT NULL,
    body TEXT,  -- a string as it is, other values as JSON
    flags INTEGER NOT NULL,
    attributes TEXT NOT NULL,  -- JSON
    dropped_attributes_count INTEGER NOT NULL,
    record BLOB NOT NULL
)""",
    "CREATE INDEX otlp_logs_time ON otlp_logs (time, tenant_id, severity_number)",
    "CREATE INDEX otlp_logs_service ON otlp_logs (service_id, time, tenant_id, severity_number)",
    "CREATE INDEX otlp_logs_trace ON otlp_logs (trace_id, time, tenant_id) WHERE trace_id IS NOT NULL",
    "CREATE VIRTUAL TABLE otlp_log_text USING fts5 (body, content = 'otlp_logs', content_rowid = 'id', columnsize = 0)",
    """CREATE TABLE otlp_points (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL,
    resource_id INTEGER NOT NULL,
    service_id INTEGER NOT NULL,
    scope_id INTEGER NOT NULL,
    metric_id INTEGER NOT NULL,
    time INTEGER NOT NULL,
    start_time INTEGER NOT NULL,
    value NUMERIC,  -- of gauges and sums
    count INTEGER,  -- this and the next ones of histograms and summaries
    sum REAL,
    min REAL,
    max REAL,
    distribution TEXT,  -- JSON: buckets or quantiles
    flags INTEGER NOT NULL,
    attributes TEXT NOT NULL,  -- JSON
    exemplars TEXT,  -- JSON
    record BLOB NOT NULL
)""",
    "CREATE INDEX otlp_points_time ON otlp_points (time, tenant_id)",
    "CREATE INDEX otlp_points_metric ON otlp_points (metric_id, time, tenant_id)",
    """CREATE VIEW spans AS SELECT
    strftime('%Y-%m-%d %H:%M:%f', s.time / 1e9, 'unixepoch') AS start,
    services.name AS service,
    s.name AS name,
    CASE s.kind WHEN 1 THEN 'internal' WHEN 2 THEN 'server' WHEN 3 THEN 'client' WHEN 4 THEN 'producer'
        WHEN 5 THEN 'consumer' ELSE '' END AS kind,
    (s.end_time - s.time) / 1e6 AS duration_ms,
    CASE s.status_code WHEN 1 THEN 'ok' WHEN 2 THEN 'error' ELSE '' END AS status,
    s.status_message AS status_message,
    lower(hex(s.trace_id)) AS trace_id,
    lower(hex(s.span_id)) AS span_id,
    lower(hex(s.parent_span_id)) AS parent_span_id,
    s.attributes AS attributes,
    r.attributes AS resource,
    c.name AS scope,
    s.events AS events,
    s.links AS links,
    s.time AS time,
    s.end_time AS end_time,
    s.trace_id AS trace,
    t.name AS tenant,
    s.id AS id
FROM otlp_spans s
    JOIN otlp_services services ON services.id = s.service_id
    JOIN otlp_resources r ON r.id = s.resource_id
    JOIN otlp_scopes c ON c.id = s.scope_id
    JOIN otlp_tenants t ON t.id = s.tenant_id""",
    """CREATE VIEW logs AS SELECT
    strftime('%Y-%m-%d %H:%M:%f', l.time / 1e9, 'unixepoch') AS at,
    services.name AS service,
    CASE WHEN l.severity_text != '' THEN l.severity_text WHEN l.severity_number = 0 THEN ''
        ELSE substr('TRACEDEBUGINFO WARN ERRORFATAL', (l.severity_number - 1) / 4 * 5 + 1, 5) END AS severity,
    l.body AS body,
    l.event_name AS event,
    l.attributes AS attributes,
    r.attributes AS resource,
    c.name AS scope,
    lower(hex(l.trace_id)) AS trace_id,
    lower(hex(l.span_id)) AS span_id,
    l.severity_number AS severity_number,
    l.time AS time,
    l.observed_time AS observed_time,
    l.trace_id AS trace,
    t.name AS tenant,
    l.id AS id
FROM otlp_logs l
    JOIN otlp_services services ON services.id = l.service_id
    JOIN otlp_resources r ON r.id = l.resource_id
    JOIN otlp_scopes c ON c.id = l.scope_id
    JOIN otlp_tenants t ON t.id = l.tenant_id""",
    """CREATE VIEW points AS SELECT
    strftime('%Y-%m-%d %H:%M:%f', p.time / 1e9, 'unixepoch') AS at,
    services.name AS service,
    m.name AS metric,
    m.type AS type,
    m.unit AS unit,
    p.value AS value,
    p.count AS count,
    p.sum AS sum,
    p.min AS min,
    p.max AS max,
    p.distribution AS distribution,
    p.attributes AS attributes,
    r.attributes AS resource,
    c.name AS scope,
    p.exemplars AS exemplars,
    p.start_time AS start_time,
    p.time AS time,
    t.name AS tenant,
    p.id AS id
FROM otlp_points p
    JOIN otlp_metrics m ON m.id = p.metric_id
    JOIN otlp_services services ON services.id = p.service_id
    JOIN otlp_resources r ON r.id = p.resource_id
    JOIN otlp_scopes c ON c.id = p.scope_id
    JOIN otlp_tenants t ON t.id = p.tenant_id""",
    """CREATE VIEW traces AS SELECT
    lower(hex(trace_id)) AS trace_id,
    strftime('%Y-%m-%d %H:%M:%f', min(time) / 1e9, 'unixepoch') AS start,
    (max(end_time) - min(time)) / 1e6 AS duration_ms,
    count(*) AS spans,
    count(DISTINCT service_id) AS services,
    sum(status_code = 2) AS errors,
    max(CASE WHEN parent_span_id IS NULL THEN name END) AS root,
    min(time) AS time,
    trace_id AS trace
FROM otlp_spans WHERE trace_id IS NOT NULL GROUP BY trace_id""",
    "CREATE VIEW services AS SELECT name AS service FROM otlp_services WHERE name != ''",
    "CREATE VIEW metrics AS SELECT DISTINCT name, type, unit, description FROM otlp_metrics",
)

_VERSION_2: Final = (
    "CREATE TABLE otlp_span_names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    f"INSERT INTO otlp_span_names (name) SELECT DISTINCT name FROM otlp_spans LIMIT {NAMES_MAX:d}",  # noqa: S608 - a number
    f"INSERT INTO otlp_span_names SELECT {OTHERS:d}, x'' WHERE (SELECT count(*) FROM otlp_span_names) >= {NAMES_MAX:d}",  # noqa: S608 - the same
)

MIGRATIONS: Final = (_VERSION_1, _VERSION_2)
"""The statements that lead from each version to the next; the first from an empty file."""
VERSION: Final = len(MIGRATIONS)


def bring_up(connection: sqlite3.Connection, path: str) -> int:
    """Make the tables of a new file, or bring an older one to this version; return the version that it had. Raises Unwelcome
    for a file of somebody else's, or of a newer version; Retryable; sqlite3.Error."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (tables or version or application):
        raise Unwelcome(f"{path} is a database of another program; name a file of its own (exporters.sqlite.path)")
    if version > VERSION:
        raise Unwelcome(f"{path} has schema version {version}, which is newer than this Ringtail's, {VERSION}")
    for number in range(version, VERSION):
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone() != (number,):
            raise Retryable(f"{path} is made, or brought up, by another process now")
        for statement in MIGRATIONS[number]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
        connection.execute(f"PRAGMA user_version = {number + 1:d}")
        connection.execute("COMMIT")
    return int(version)


def row_id(source_id: int, offset: int) -> int:
    """Return the id of a record's row. ValueError beyond what ids can hold."""
    if not (0 < source_id <= SOURCES_MAX and 0 <= offset <= OFFSET_MASK):
        raise ValueError(f"source {source_id}, offset {offset} have no id")
    return source_id << OFFSET_BITS | offset


def stored_time(time_ns: int) -> int | bytes:
    """Return a time of 64 bits as it is stored."""
    return time_ns if time_ns < 2**63 else time_ns.to_bytes(8, "big")
