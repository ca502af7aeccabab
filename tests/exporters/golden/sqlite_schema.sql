-- version 2
CREATE TABLE otlp_tenants (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE otlp_services (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE otlp_sources (
    id INTEGER PRIMARY KEY,
    instance TEXT NOT NULL,
    tenant_id INTEGER NOT NULL,
    signal TEXT NOT NULL,
    position INTEGER NOT NULL,  -- the offset behind the last record
    UNIQUE (instance, tenant_id, signal)
);
CREATE TABLE otlp_resources (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    service_id INTEGER NOT NULL,
    attributes TEXT NOT NULL,  -- JSON
    schema_url TEXT NOT NULL,
    container BLOB NOT NULL
);
CREATE TABLE otlp_scopes (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    attributes TEXT NOT NULL,  -- JSON
    schema_url TEXT NOT NULL,
    container BLOB NOT NULL
);
CREATE TABLE otlp_metrics (
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
);
CREATE INDEX otlp_metrics_name ON otlp_metrics (name);
CREATE TABLE otlp_spans (
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
);
CREATE INDEX otlp_spans_time ON otlp_spans (time, tenant_id, name);
CREATE INDEX otlp_spans_service ON otlp_spans (service_id, time, tenant_id, name);
CREATE INDEX otlp_spans_trace ON otlp_spans (trace_id, time, tenant_id) WHERE trace_id IS NOT NULL;
CREATE TABLE otlp_logs (
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
);
CREATE INDEX otlp_logs_time ON otlp_logs (time, tenant_id, severity_number);
CREATE INDEX otlp_logs_service ON otlp_logs (service_id, time, tenant_id, severity_number);
CREATE INDEX otlp_logs_trace ON otlp_logs (trace_id, time, tenant_id) WHERE trace_id IS NOT NULL;
CREATE VIRTUAL TABLE otlp_log_text USING fts5 (body, content = 'otlp_logs', content_rowid = 'id', columnsize = 0);
CREATE TABLE otlp_points (
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
);
CREATE INDEX otlp_points_time ON otlp_points (time, tenant_id);
CREATE INDEX otlp_points_metric ON otlp_points (metric_id, time, tenant_id);
CREATE VIEW spans AS SELECT
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
    JOIN otlp_tenants t ON t.id = s.tenant_id;
CREATE VIEW logs AS SELECT
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
    JOIN otlp_tenants t ON t.id = l.tenant_id;
CREATE VIEW points AS SELECT
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
    JOIN otlp_tenants t ON t.id = p.tenant_id;
CREATE VIEW traces AS SELECT
    lower(hex(trace_id)) AS trace_id,
    strftime('%Y-%m-%d %H:%M:%f', min(time) / 1e9, 'unixepoch') AS start,
    (max(end_time) - min(time)) / 1e6 AS duration_ms,
    count(*) AS spans,
    count(DISTINCT service_id) AS services,
    sum(status_code = 2) AS errors,
    max(CASE WHEN parent_span_id IS NULL THEN name END) AS root,
    min(time) AS time,
    trace_id AS trace
FROM otlp_spans WHERE trace_id IS NOT NULL GROUP BY trace_id;
CREATE VIEW services AS SELECT name AS service FROM otlp_services WHERE name != '';
CREATE VIEW metrics AS SELECT DISTINCT name, type, unit, description FROM otlp_metrics;
CREATE TABLE otlp_span_names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
