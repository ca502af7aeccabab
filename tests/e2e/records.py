"""OTLP records as plain values, to compare what was sent with what is answered.

The form is OTLP/JSON's with three changes that make comparing simple: attributes are a dict from key to AnyValue, ids
are hexadecimal, and fields that a record does not use are there with their default. `node/send.mjs` and
`python_sdk.py` describe what they sent in this form; here the same is made of protobuf messages.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

Plain = dict[str, Any]


def any_value(value: AnyValue) -> Plain:
    """Return an AnyValue as OTLP/JSON has it."""
    match value.WhichOneof("value"):
        case "string_value":
            return {"stringValue": value.string_value}
        case "bool_value":
            return {"boolValue": value.bool_value}
        case "int_value":
            return {"intValue": str(value.int_value)}
        case "double_value":
            return {"doubleValue": value.double_value}
        case "bytes_value":
            return {"bytesValue": base64.b64encode(value.bytes_value).decode()}
        case "array_value":
            return {"arrayValue": {"values": [any_value(one) for one in value.array_value.values]}}
        case "kvlist_value":
            pairs = [{"key": pair.key, "value": any_value(pair.value)} for pair in value.kvlist_value.values]
            return {"kvlistValue": {"values": pairs}}
        case _:
            return {}


def attributes(pairs: Iterable[KeyValue]) -> Plain:
    """Return attributes by key; AssertionError when a key stands twice."""
    listed = [(pair.key, any_value(pair.value)) for pair in pairs]
    found = dict(listed)
    assert len(found) == len(listed), listed
    return found


def span(one: Span) -> Plain:
    """Return a span."""
    return {
        "traceId": one.trace_id.hex(),
        "spanId": one.span_id.hex(),
        "parentSpanId": one.parent_span_id.hex(),
        "name": one.name,
        "kind": one.kind,
        "startTimeUnixNano": str(one.start_time_unix_nano),
        "endTimeUnixNano": str(one.end_time_unix_nano),
        "attributes": attributes(one.attributes),
        "events": [
            {
                "name": event.name,
                "timeUnixNano": str(event.time_unix_nano),
                "attributes": attributes(event.attributes),
            }
            for event in one.events
        ],
        "links": [
            {"traceId": link.trace_id.hex(), "spanId": link.span_id.hex(), "attributes": attributes(link.attributes)}
            for link in one.links
        ],
        "status": {"code": one.status.code, "message": one.status.message},
    }


def log(one: LogRecord) -> Plain:
    """Return a log record."""
    return {
        "timeUnixNano": str(one.time_unix_nano),
        "observedTimeUnixNano": str(one.observed_time_unix_nano),
        "severityNumber": one.severity_number,
        "severityText": one.severity_text,
        "body": any_value(one.body),
        "attributes": attributes(one.attributes),
        "traceId": one.trace_id.hex(),
        "spanId": one.span_id.hex(),
        "flags": one.flags,
        "eventName": one.event_name,
    }


_TYPES = {
    "gauge": "gauge",
    "sum": "sum",
    "histogram": "histogram",
    "exponential_histogram": "exponentialHistogram",
    "summary": "summary",
}


def metric(one: Metric) -> Plain:
    """Return a metric with its points."""
    kind = one.WhichOneof("data")
    assert kind is not None
    data = getattr(one, kind)
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    return {
        "name": one.name,
        "description": one.description,
        "unit": one.unit,
        "type": _TYPES[kind],
        "monotonic": getattr(data, "is_monotonic", False),
        "cumulative": getattr(data, "aggregation_temporality", cumulative) == cumulative,
        "points": [_point(point) for point in data.data_points],
    }


def _point(one: Any) -> Plain:
    plain: Plain = {
        "attributes": attributes(one.attributes),
        "startTimeUnixNano": str(one.start_time_unix_nano),
        "timeUnixNano": str(one.time_unix_nano),
    }
    fields = one.DESCRIPTOR.fields_by_name
    if "as_int" in fields:
        which = one.WhichOneof("value")
        return plain | ({"asInt": str(one.as_int)} if which == "as_int" else {"asDouble": one.as_double})
    plain["count"] = str(one.count)
    for name in ("sum", "min", "max"):
        if one.HasField(name):
            plain[name] = getattr(one, name)
    if "explicit_bounds" in fields:
        return plain | {
            "explicitBounds": list(one.explicit_bounds),
            "bucketCounts": [str(count) for count in one.bucket_counts],
        }
    sides = {
        side: {
            "offset": getattr(one, side).offset,
            "bucketCounts": [str(count) for count in getattr(one, side).bucket_counts],
        }
        for side in ("positive", "negative")
    }
    return plain | sides | {"scale": one.scale, "zeroCount": str(one.zero_count)}


def containers(data: TracesData | LogsData | MetricsData) -> Iterator[tuple[Plain, Plain, list[Plain]]]:
    """Yield (resource attributes, scope, records) of each ScopeSpans, ScopeLogs or ScopeMetrics."""
    names, make = {
        TracesData: (("resource_spans", "scope_spans", "spans"), span),
        LogsData: (("resource_logs", "scope_logs", "log_records"), log),
        MetricsData: (("resource_metrics", "scope_metrics", "metrics"), metric),
    }[type(data)]
    for outer in getattr(data, names[0]):
        for inner in getattr(outer, names[1]):
            scope = {"name": inner.scope.name, "version": inner.scope.version, "schemaUrl": inner.schema_url}
            yield attributes(outer.resource.attributes), scope, [make(one) for one in getattr(inner, names[2])]
