"""OTLP's three stable signals and everything that differs between them, as data.

A record is one span, one log record or one metric data point. Code that serves all signals takes a
`Signal` and branches on none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """One OTLP signal. Compared by identity: there are exactly three."""

    name: str
    """`traces`, `logs` or `metrics`: the word in paths, configuration and statistics."""
    code: int
    """The number that stands for the signal on disk (see docs/on-disk-format.md)."""
    records: str
    """The plural noun of its records in metric names: `spans`, `log_records`, `metric_points`."""
    noun: str
    """The same for people: `spans`, `log records`, `data points`."""
    request_type: Any
    """The protobuf class of the export request."""
    response_type: Any
    """The protobuf class of the export response."""
    service: str
    """The gRPC service's full name; its only method is `Export`."""
    http_path: str
    """The default OTLP/HTTP path."""
    rejected_field: str
    """The field of `partial_success` that counts rejected records."""
    indexes: tuple[str, ...]
    """The key columns that the ring keeps postings for, as named in `/api/stats`."""

    def __repr__(self) -> str:
        return f"<Signal {self.name}>"


TRACES = Signal(
    name="traces",
    code=1,
    records="spans",
    noun="spans",
    request_type=trace_service_pb2.ExportTraceServiceRequest,
    response_type=trace_service_pb2.ExportTraceServiceResponse,
    service="opentelemetry.proto.collector.trace.v1.TraceService",
    http_path="/v1/traces",
    rejected_field="rejected_spans",
    indexes=("trace_id", "service", "name"),
)
LOGS = Signal(
    name="logs",
    code=2,
    records="log_records",
    noun="log records",
    request_type=logs_service_pb2.ExportLogsServiceRequest,
    response_type=logs_service_pb2.ExportLogsServiceResponse,
    service="opentelemetry.proto.collector.logs.v1.LogsService",
    http_path="/v1/logs",
    rejected_field="rejected_log_records",
    indexes=("trace_id", "severity", "service"),
)
METRICS = Signal(
    name="metrics",
    code=3,
    records="metric_points",
    noun="data points",
    request_type=metrics_service_pb2.ExportMetricsServiceRequest,
    response_type=metrics_service_pb2.ExportMetricsServiceResponse,
    service="opentelemetry.proto.collector.metrics.v1.MetricsService",
    http_path="/v1/metrics",
    rejected_field="rejected_data_points",
    indexes=("name", "service", "type"),
)
SIGNALS: tuple[Signal, ...] = (TRACES, LOGS, METRICS)
"""Every signal, in the order in which they are listed everywhere."""

BY_NAME: dict[str, Signal] = {signal.name: signal for signal in SIGNALS}
