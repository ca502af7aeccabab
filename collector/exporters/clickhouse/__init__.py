"""ClickHouse as a backend, in the tables of the OpenTelemetry Collector's exporter."""
