"""Small blocks for tests of ring, store and engine: each record named by the few fields that the test needs."""

from __future__ import annotations

from collections.abc import Iterable

from collector.otlp.block import Block
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, TRACES


def span_payload(records: Iterable[tuple[int, str, str] | tuple[int, str, str, int]]) -> bytes:
    """Make a request of spans from (trace number, service, name, start time)."""
    request = TRACES.request_type()
    for number, (trace, service, name, *time) in enumerate(records):
        envelope = request.resource_spans.add()
        if service:
            envelope.resource.attributes.add(key="service.name").value.string_value = service
        envelope.scope_spans.add().spans.add(
            trace_id=trace.to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name=name,
            start_time_unix_nano=time[0] if time else 1,
        )
    return bytes(request.SerializeToString())


def spans(base_offset: int, records: Iterable[tuple[int, str, str] | tuple[int, str, str, int]]) -> Block:
    """Make a block of spans from (trace number, service, name, start time)."""
    return scan(TRACES, span_payload(records), base_offset)


def log_payload(records: Iterable[tuple[int, int, str]]) -> bytes:
    """Make a request of log records from (trace number, severity, service); trace number 0 is none."""
    request = LOGS.request_type()
    for trace, severity, service in records:
        envelope = request.resource_logs.add()
        if service:
            envelope.resource.attributes.add(key="service.name").value.string_value = service
        record = envelope.scope_logs.add().log_records.add(time_unix_nano=1, severity_number=severity)
        if trace:
            record.trace_id = trace.to_bytes(16, "big")
        record.body.string_value = f"record {trace}"
    return bytes(request.SerializeToString())


def logs(base_offset: int, records: Iterable[tuple[int, int, str]]) -> Block:
    """Make a block of log records from (trace number, severity, service)."""
    return scan(LOGS, log_payload(records), base_offset)


def point_payload(records: Iterable[tuple[str, str, str]]) -> bytes:
    """Make a request of data points from (metric name, service, data type)."""
    request = METRICS.request_type()
    for name, service, kind in records:
        envelope = request.resource_metrics.add()
        if service:
            envelope.resource.attributes.add(key="service.name").value.string_value = service
        data = getattr(envelope.scope_metrics.add().metrics.add(name=name), kind)
        if kind not in ("gauge", "summary"):
            data.aggregation_temporality = 2
        point = data.data_points.add(time_unix_nano=1)
        if kind in ("gauge", "sum"):
            point.as_int = 1
    return bytes(request.SerializeToString())


def points(base_offset: int, records: Iterable[tuple[str, str, str]]) -> Block:
    """Make a block of data points from (metric name, service, data type)."""
    return scan(METRICS, point_payload(records), base_offset)
