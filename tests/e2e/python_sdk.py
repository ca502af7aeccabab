"""The OpenTelemetry SDK for Python as an application uses it, and a description of what it sent.

It sends the same as `node/send.mjs`: the same names, attributes and values, so one table says what the query APIs
must answer for both.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcTraces
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpTraces
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    Gauge,
    Histogram,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
    Sum,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from tests.e2e.records import Plain

SCOPE = ("ringtail.e2e.python", "1.2.3", "https://example.com/schemas/1.0")
NEVER_MS = 3_600_000.0

ATTRIBUTES: dict[str, Any] = {
    "text": 'Grüße, 世界 "quoted" \\ back\nslash',
    "empty": "",
    "int": 42,
    "int.negative": -7,
    "int.large": 2**40 + 1,
    "int.safe": 2**53 - 1,
    "double": 2.5,
    "double.small": 1e-9,
    "bool.true": True,
    "bool.false": False,
    "array.text": ["a", "b", ""],
    "array.int": [1, 2, 3],
    "array.double": [0.5, 1.5],
    "array.bool": [True, False],
}


def exporters(protocol: str, grpc_address: str, http_address: str, gzip: bool) -> tuple[Any, Any, Any]:
    """Return the official exporters of traces, logs and metrics."""
    if protocol == "grpc":
        squeeze = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        options: dict[str, Any] = {"endpoint": grpc_address, "insecure": True, "compression": squeeze}
        return GrpcTraces(**options), GrpcLogs(**options), GrpcMetrics(**options)
    compression = Compression.Gzip if gzip else Compression.NoCompression
    base = f"http://{http_address}/v1"
    return (
        HttpTraces(endpoint=f"{base}/traces", compression=compression),
        HttpLogs(endpoint=f"{base}/logs", compression=compression),
        HttpMetrics(endpoint=f"{base}/metrics", compression=compression),
    )


class _Noting(MetricExporter):
    """An exporter, with a note of what the reader gave it."""

    def __init__(self, exporter: MetricExporter) -> None:
        super().__init__()
        self.exporter = exporter
        self.seen: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.seen.append(metrics_data)
        result = self.exporter.export(metrics_data, timeout_millis, **kwargs)
        assert result is MetricExportResult.SUCCESS
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self.exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.exporter.shutdown(timeout_millis, **kwargs)


def send(to: tuple[Any, Any, Any], service: str) -> Plain:
    """Send all three signals through these exporters; return what was sent, in the form of records.py."""
    resource = Resource(
        {
            "service.name": service,
            "service.namespace": "e2e",
            "service.instance.id": "python-1",
            "host.cpus": 2,
            "deployment.canary": True,
        }
    )
    spans, parent = _send_spans(to[0], resource)
    logs = _send_logs(to[1], resource, parent)
    metrics = _send_metrics(to[2], resource)
    return {
        "resource": _attributes(resource.attributes),
        "scope": dict(zip(("name", "version", "schemaUrl"), SCOPE, strict=True)),
        "spans": [_span(one) for one in spans],
        "logs": logs,
        "metrics": metrics,
    }


def _send_spans(exporter: Any, resource: Resource) -> tuple[Sequence[ReadableSpan], Context]:
    seen = InMemorySpanExporter()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    provider.add_span_processor(SimpleSpanProcessor(seen))
    tracer = provider.get_tracer(SCOPE[0], SCOPE[1], schema_url=SCOPE[2])

    root = tracer.start_span("GET /checkout/{id}", Context(), SpanKind.SERVER, ATTRIBUTES)
    root.set_attribute("int.max", 2**63 - 1)
    inside = trace.set_span_in_context(root, Context())
    root.add_event("cache.miss", {"key": "user:7", "attempts": 2, "ratio": 0.25, "tags": ["x", "y"]})
    root.add_event("without attributes")

    links = [Link(root.get_span_context(), {"messaging.batch": 3, "reason": "batch"})]
    linked = tracer.start_span("consume", Context(), SpanKind.CONSUMER, links=links)
    linked.set_status(Status(StatusCode.OK))
    linked.end()

    failing = tracer.start_span("SELECT orders", inside, SpanKind.CLIENT, {"db.system": "postgresql"})
    failing.record_exception(ConnectionResetError("connection reset by peer"))
    failing.set_status(Status(StatusCode.ERROR, "the database hung up"))
    failing.end()

    for i in range(5):
        kind = SpanKind.PRODUCER if i % 2 else SpanKind.INTERNAL
        tracer.start_span(f"step {i}", inside, kind, {"i": i}).end()
    root.end()
    assert provider.force_flush()
    finished = seen.get_finished_spans()
    provider.shutdown()
    return finished, inside


def _send_logs(exporter: Any, resource: Resource, parent: Context) -> list[Plain]:
    seen = InMemoryLogRecordExporter()
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    provider.add_log_record_processor(SimpleLogRecordProcessor(seen))
    logger = provider.get_logger(SCOPE[0], SCOPE[1], schema_url=SCOPE[2])
    for text in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"):
        logger.emit(
            context=parent,
            severity_number=SeverityNumber[text],
            severity_text=text,
            body=f"{text} of order 17",
            attributes={**ATTRIBUTES, "order.id": 17, "nested": {"depth": {"leaf": 1}}},
        )
    logger.emit(context=Context(), body={"message": "a body that is a map", "count": 2, "parts": [1, "two", 3.5]})
    logger.emit(
        context=Context(),
        body="an event, outside of any trace",
        event_name="order.placed",
        severity_number=SeverityNumber.INFO2,
    )
    assert provider.force_flush()
    finished = [_log(one.log_record) for one in seen.get_finished_logs()]
    provider.shutdown()
    return finished


def _send_metrics(exporter: Any, resource: Resource) -> list[Plain]:
    noting = _Noting(exporter)
    provider = MeterProvider(
        [PeriodicExportingMetricReader(noting, export_interval_millis=NEVER_MS)],
        resource,
        shutdown_on_exit=False,
        views=[View(instrument_name="rpc.size", aggregation=ExponentialBucketHistogramAggregation())],
    )
    meter = provider.get_meter(SCOPE[0], SCOPE[1], schema_url=SCOPE[2])
    requests = meter.create_counter("http.requests", description="Requests served.")
    requests.add(3, {"http.route": "/checkout", "http.status_code": 200})
    requests.add(1, {"http.route": "/checkout", "http.status_code": 500})
    requests.add(4, {"http.route": "/checkout", "http.status_code": 200})
    meter.create_counter("energy", "J", "Energy used.").add(0.5, {"zone": "a"})
    connections = meter.create_up_down_counter("connections.open", "{connection}")
    connections.add(5, {"pool": "main"})
    connections.add(-7, {"pool": "main"})
    meter.create_gauge("temperature", "Cel", "Of the room.").set(21.75, {"room": "kitchen", "heated": True})
    latency = meter.create_histogram("http.latency", "s", explicit_bucket_boundaries_advisory=[1.0, 10.0, 100.0])
    for value in (0.5, 5, 7, 50, 500):
        latency.record(value, {"http.route": "/checkout"})
    size = meter.create_histogram("rpc.size", "By")
    for value in (0, 1, 2, 4, 1000, 1e6):
        size.record(value, {"method": "Get"})

    def length(_: CallbackOptions) -> list[Observation]:
        return [Observation(12, {"queue": "q1"})]

    meter.create_observable_gauge("queue.length", [length])
    provider.shutdown()  # collects and exports, once
    (data,) = noting.seen
    return [_metric(metric) for one in data.resource_metrics for scope in one.scope_metrics for metric in scope.metrics]


# --- the description ------------------------------------------------------------------------------------------


def _any_value(value: Any) -> Plain:
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": [{"key": key, "value": _any_value(one)} for key, one in value.items()]}}
    return {"arrayValue": {"values": [_any_value(one) for one in value]}}


def _attributes(some: Mapping[str, Any] | None) -> Plain:
    return {key: _any_value(value) for key, value in (some or {}).items()}


def _span(one: ReadableSpan) -> Plain:
    assert one.context is not None
    return {
        "traceId": f"{one.context.trace_id:032x}",
        "spanId": f"{one.context.span_id:016x}",
        "parentSpanId": f"{one.parent.span_id:016x}" if one.parent is not None else "",
        "name": one.name,
        "kind": one.kind.value + 1,  # the API's enumeration has no UNSPECIFIED
        "startTimeUnixNano": str(one.start_time),
        "endTimeUnixNano": str(one.end_time),
        "attributes": _attributes(one.attributes),
        "events": [
            {"name": event.name, "timeUnixNano": str(event.timestamp), "attributes": _attributes(event.attributes)}
            for event in one.events
        ],
        "links": [
            {
                "traceId": f"{link.context.trace_id:032x}",
                "spanId": f"{link.context.span_id:016x}",
                "attributes": _attributes(link.attributes),
            }
            for link in one.links
        ],
        "status": {"code": one.status.status_code.value, "message": one.status.description or ""},
    }


def _log(one: Any) -> Plain:
    return {
        "timeUnixNano": str(one.timestamp or 0),
        "observedTimeUnixNano": str(one.observed_timestamp or 0),
        "severityNumber": one.severity_number.value if one.severity_number is not None else 0,
        "severityText": one.severity_text or "",
        "body": _any_value(one.body),
        "attributes": _attributes(one.attributes),
        "traceId": f"{one.trace_id:032x}" if one.trace_id else "",
        "spanId": f"{one.span_id:016x}" if one.span_id else "",
        "flags": int(one.trace_flags or 0),
        "eventName": one.event_name or "",
    }


_TYPES = {Gauge: "gauge", Sum: "sum", Histogram: "histogram", ExponentialHistogram: "exponentialHistogram"}


def _metric(one: Any) -> Plain:
    cumulative = AggregationTemporality.CUMULATIVE
    return {
        "name": one.name,
        "description": one.description or "",
        "unit": one.unit or "",
        "type": _TYPES[type(one.data)],
        "monotonic": getattr(one.data, "is_monotonic", False),
        "cumulative": getattr(one.data, "aggregation_temporality", cumulative) == cumulative,
        "points": [_point(point) for point in one.data.data_points],
    }


def _point(one: Any) -> Plain:
    plain: Plain = {
        "attributes": _attributes(one.attributes),
        "startTimeUnixNano": str(one.start_time_unix_nano or 0),
        "timeUnixNano": str(one.time_unix_nano),
    }
    if hasattr(one, "value"):
        return plain | ({"asInt": str(one.value)} if isinstance(one.value, int) else {"asDouble": one.value})
    plain |= {"count": str(one.count), "sum": one.sum, "min": one.min, "max": one.max}
    if hasattr(one, "explicit_bounds"):
        counts = [str(count) for count in one.bucket_counts]
        return plain | {"explicitBounds": list(one.explicit_bounds), "bucketCounts": counts}
    sides = {
        side: {
            "offset": getattr(one, side).offset,
            "bucketCounts": [str(count) for count in getattr(one, side).bucket_counts],
        }
        for side in ("positive", "negative")
    }
    return plain | sides | {"scale": one.scale, "zeroCount": str(one.zero_count)}
