"""Builders of realistic export requests, for tests, benchmarks and `ringtail send`.

A request is what an SDK's batch processor sends: one resource, two instrumentation scopes, `count` records.
Spans come in traces of eight (a server span, its children, a client span to a database, sometimes an error
with an event), at about 400 B each; log records are of about 250 B and belong to such traces; metric points
are of all five kinds. The same arguments always make the same bytes, so a test can ask for what it sent.

The messages are built by the protobuf library, some 10 µs a record: a load driver builds its payloads first
and sends them afterwards.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

TIME_NS: Final = 1_790_000_000_000_000_000
"""The time of a request when none is given: 2026-09-21 13:33:20 UTC, in Unix ns."""
TRACE_SPANS: Final = 8
"""Spans of one trace."""
WINDOW_NS: Final = 1_000_000_000
"""The records of a request begin within this time before `time_ns`."""

_ROUTES = (
    "/api/cart",
    "/api/cart/{item}",
    "/api/orders",
    "/api/orders/{id}/status",
    "/api/products/{id}",
    "/health",
)
_QUERIES = (
    "SELECT id, name, price FROM products WHERE id = $1",
    "INSERT INTO orders (customer, total) VALUES ($1, $2)",
    "UPDATE carts SET quantity = $1 WHERE id = $2",
)
_LINES = (
    "order accepted, total 129.90 EUR, 3 items, customer notified by e-mail",
    "cart restored from session after 45 minutes, prices checked again",
    "payment provider answered slowly, retrying within the same request",
    "stock of product 4711 below the reorder level, purchase proposed",
)
_SEVERITIES = ((9, "INFO"), (9, "INFO"), (9, "INFO"), (5, "DEBUG"), (13, "WARN"), (17, "ERROR"))
_METHODS = ("GET", "POST", "PUT")
_CODES = (200, 200, 200, 201, 404, 500)
_BOUNDS = (5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 1000.0)


def traces(count: int, *, seed: int = 0, service: str = "checkout", time_ns: int = TIME_NS) -> bytes:
    """Return an ExportTraceServiceRequest with `count` spans."""
    chance = Random(f"traces {seed}")
    request = ExportTraceServiceRequest()
    envelope = request.resource_spans.add(resource=_resource(service, chance))
    servers = envelope.scope_spans.add()
    servers.scope.name, servers.scope.version = "opentelemetry.instrumentation.fastapi", "0.57b0"
    clients = envelope.scope_spans.add()
    clients.scope.name, clients.scope.version = "opentelemetry.instrumentation.psycopg", "0.57b0"
    trace_id, parent = b"", b""
    for i, start in enumerate(_times(count, time_ns)):
        if i % TRACE_SPANS == 0:
            trace_id, parent = chance.randbytes(16), b""
        is_client = i % TRACE_SPANS > 4
        span = (clients if is_client else servers).spans.add(
            trace_id=trace_id,
            span_id=chance.randbytes(8),
            parent_span_id=parent,
            start_time_unix_nano=start,
            end_time_unix_nano=start + chance.randint(50_000, 400_000_000),
            flags=0x101,
        )
        parent = parent or span.span_id
        (_client_span if is_client else _server_span)(span, chance)
    return request.SerializeToString()


def logs(count: int, *, seed: int = 0, service: str = "checkout", time_ns: int = TIME_NS) -> bytes:
    """Return an ExportLogsServiceRequest with `count` log records."""
    chance = Random(f"logs {seed}")
    request = ExportLogsServiceRequest()
    envelope = request.resource_logs.add(resource=_resource(service, chance))
    scopes = [envelope.scope_logs.add(), envelope.scope_logs.add()]
    scopes[0].scope.name, scopes[1].scope.name = "shop.orders", "shop.payment"
    trace_id = b""
    for i, time in enumerate(_times(count, time_ns)):
        if i % TRACE_SPANS == 0:
            trace_id = chance.randbytes(16)
        number, text = chance.choice(_SEVERITIES)
        record = scopes[i % 2].log_records.add(
            time_unix_nano=time,
            observed_time_unix_nano=time + 1_000,
            severity_number=number,
            severity_text=text,
            trace_id=trace_id,
            span_id=chance.randbytes(8),
            flags=1,
            attributes=_attributes(
                {
                    "code.function.name": "shop.orders.service.place",
                    "code.line.number": chance.randint(10, 400),
                    "thread.name": f"worker-{chance.randint(0, 7)}",
                }
            ),
        )
        record.body.string_value = chance.choice(_LINES)
    return request.SerializeToString()


def metrics(count: int, *, seed: int = 0, service: str = "checkout", time_ns: int = TIME_NS) -> bytes:
    """Return an ExportMetricsServiceRequest with `count` points, of the five kinds in turn.

    Every point of one kind has its own attributes, so a request has `count` series; the next request with the
    same seed and a later time has the same series again.
    """
    chance = Random(f"metrics {seed}")
    request = ExportMetricsServiceRequest()
    envelope = request.resource_metrics.add(resource=_resource(service, chance))
    scope = envelope.scope_metrics.add()
    scope.scope.name, scope.scope.version = "opentelemetry.instrumentation.system_metrics", "0.57b0"
    gauge, total, histogram, exponential, summary = kinds = _five_kinds()
    start = time_ns - 60 * WINDOW_NS
    for i in range(count):
        labels = _attributes(
            {
                "http.request.method": _METHODS[i // 5 % 3],
                "http.route": _ROUTES[i // 5 % len(_ROUTES)],
                "instance": f"shop-{i // 5}",
            }
        )
        common: dict[str, Any] = {
            "attributes": labels,
            "start_time_unix_nano": start,
            "time_unix_nano": time_ns,
        }
        if i % 5 == 0:
            gauge.gauge.data_points.add(as_double=chance.uniform(0, 100), **common)
        elif i % 5 == 1:
            total.sum.data_points.add(as_int=chance.randint(0, 10**6), **common)
        elif i % 5 == 2:
            counts = [chance.randint(0, 50) for _ in range(len(_BOUNDS) + 1)]
            histogram.histogram.data_points.add(
                count=sum(counts),
                sum=42.5,
                bucket_counts=counts,
                explicit_bounds=_BOUNDS,
                min=1,
                max=900,
                **common,
            )
        elif i % 5 == 3:
            counts = [chance.randint(0, 20) for _ in range(12)]
            point = exponential.exponential_histogram.data_points.add(
                count=sum(counts) + 2, sum=77.25, scale=3, zero_count=2, **common
            )
            point.positive.offset = -4
            point.positive.bucket_counts.extend(counts)
        else:
            quantiles = summary.summary.data_points.add(count=100, sum=512.0, **common)
            for quantile in (0.5, 0.9, 0.99):
                quantiles.quantile_values.add(quantile=quantile, value=quantile * 10)
    scope.metrics.extend(kinds[: max(0, min(count, 5))])
    return request.SerializeToString()


BUILDERS: Final[dict[Signal, Callable[..., bytes]]] = {TRACES: traces, LOGS: logs, METRICS: metrics}
"""The builder of each signal; all take the same arguments."""


def to_json(signal: Signal, payload: bytes) -> bytes:
    """Return a protobuf request as OTLP/JSON: lowerCamelCase keys, hexadecimal ids, enums as numbers."""
    request = signal.request_type.FromString(payload)
    tree = json_format.MessageToDict(request, use_integers_for_enums=True)
    _hexadecimal(tree)
    return msgspec.json.encode(tree)


def _hexadecimal(tree: Any) -> None:
    """Rewrite, in place, the ids that proto3's own JSON mapping has made base64."""
    if isinstance(tree, list):
        for item in tree:
            _hexadecimal(item)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("traceId", "spanId", "parentSpanId"):
                tree[key] = base64.b64decode(value).hex()
            else:
                _hexadecimal(value)


def _times(count: int, time_ns: int) -> list[int]:
    """Return `count` ascending times of one window that ends at `time_ns`."""
    step = WINDOW_NS // max(count, 1)
    return [time_ns - (count - 1 - i) * step for i in range(count)]


def _attributes(values: dict[str, str | int]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(string_value=v) if isinstance(v, str) else AnyValue(int_value=v))
        for key, v in values.items()
    ]


def _resource(service: str, chance: Random) -> Resource:
    host = chance.randint(0, 9)
    return Resource(
        attributes=_attributes(
            {
                "service.name": service,
                "service.namespace": "shop",
                "service.version": "2.14.1",
                "service.instance.id": f"{service}-7d9f8b6c5-{host:05d}",
                "deployment.environment.name": "production",
                "host.name": f"node-{host}",
                "telemetry.sdk.name": "opentelemetry",
                "telemetry.sdk.language": "python",
                "telemetry.sdk.version": "1.45.2",
            }
        )
    )


def _server_span(span: Span, chance: Random) -> None:
    route, method, code = chance.choice(_ROUTES), chance.choice(_METHODS), chance.choice(_CODES)
    span.name = f"{method} {route}"
    span.kind = Span.SPAN_KIND_INTERNAL if span.parent_span_id else Span.SPAN_KIND_SERVER
    span.attributes.extend(
        _attributes(
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": code,
                "url.path": route.replace("{id}", str(chance.randint(1, 9999))).replace("{item}", "17"),
                "server.address": "shop.example.com",
                "server.port": 8080,
                "network.protocol.version": "1.1",
                "client.address": f"10.0.{chance.randint(0, 255)}.{chance.randint(1, 254)}",
                "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
            }
        )
    )
    if code >= 500:
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = "upstream did not answer"
        event = span.events.add(name="exception", time_unix_nano=span.end_time_unix_nano)
        event.attributes.extend(_attributes({"exception.type": "TimeoutError", "exception.message": "after 5 s"}))


def _client_span(span: Span, chance: Random) -> None:
    query = chance.choice(_QUERIES)
    operation = query.split(" ", 1)[0]
    span.name = f"{operation} shop"
    span.kind = Span.SPAN_KIND_CLIENT
    span.attributes.extend(
        _attributes(
            {
                "db.system.name": "postgresql",
                "db.namespace": "shop",
                "db.operation.name": operation,
                "db.query.text": query,
                "server.address": "db-1.shop.svc.cluster.local",
                "server.port": 5432,
                "db.response.returned_rows": chance.randint(0, 50),
                "thread.name": f"worker-{chance.randint(0, 7)}",
            }
        )
    )


def _five_kinds() -> list[Metric]:
    """Return a gauge, a sum, a histogram, an exponential histogram and a summary, without points."""
    gauge = Metric(name="system.memory.utilization", unit="1", description="Share of memory in use")
    total = Metric(name="http.server.active_requests.total", unit="{request}", description="Requests begun")
    total.sum.is_monotonic = True
    total.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    histogram = Metric(name="http.server.request.duration", unit="ms", description="Duration of requests")
    histogram.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    exponential = Metric(name="db.client.operation.duration", unit="ms", description="Duration of queries")
    exponential.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    summary = Metric(name="rpc.client.duration", unit="ms", description="Duration of calls")
    return [gauge, total, histogram, exponential, summary]
