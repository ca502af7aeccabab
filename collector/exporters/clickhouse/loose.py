"""Records out of the columns alone: what others have written, or tables that keep no records.

The columns have less than OTLP: every attribute and every body comes back as a text, and what has no column (dropped counts,
flags of spans, observed times, schema URLs and scope attributes of spans, integers of data points) is gone. docs/clickhouse.md
lists it.

The server writes a row as one JSON array, so that all tables answer in the same shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.exporters.clickhouse.filters import nanoseconds
from collector.exporters.containers import Container, Metric
from collector.otlp.block import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, SUM, SUMMARY
from collector.otlp.records import tagged
from collector.otlp.signals import LOGS, TRACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from collector.exporters.clickhouse.columns import Layout
    from collector.exporters.clickhouse.schema import Table

_KINDS: Final = {"Internal": 1, "Server": 2, "Client": 3, "Producer": 4, "Consumer": 5}
_STATUSES: Final = {"Ok": 1, "Error": 2}
_POINTS: Final = {
    GAUGE: ("gauge", metrics_pb2.NumberDataPoint),
    SUM: ("sum", metrics_pb2.NumberDataPoint),
    HISTOGRAM: ("histogram", metrics_pb2.HistogramDataPoint),
    EXPONENTIAL_HISTOGRAM: ("exponential_histogram", metrics_pb2.ExponentialHistogramDataPoint),
    SUMMARY: ("summary", metrics_pb2.SummaryDataPoint),
}

Row = dict[str, Any]


def expression(table: Table) -> str:
    """Return the row as a JSON array, for SELECT."""
    return f"toJSONString(tuple({', '.join(one for _, one in _expressions(table))}))"


def _expressions(table: Table) -> list[tuple[str, str]]:
    found = []
    for column in table.layout.columns:
        kind = table.types.get(column.name)
        if kind is None:
            continue
        name = f"`{column.name}`"
        if kind.startswith("Map("):
            found += [(f"{column.name} keys", f"mapKeys({name})"), (f"{column.name} values", f"mapValues({name})")]
        elif kind.startswith("Array(Map("):
            found += [
                (f"{column.name} keys", f"arrayMap(m -> mapKeys(m), {name})"),
                (f"{column.name} values", f"arrayMap(m -> mapValues(m), {name})"),
            ]
        elif kind.startswith("Array(DateTime"):
            found.append((column.name, f"arrayMap(t -> {nanoseconds('t', kind[6:])}, {name})"))
        elif kind.startswith("DateTime"):
            found.append((column.name, nanoseconds(name, kind)))
        else:
            found.append((column.name, name))
    return found


def reader(table: Table) -> Callable[[bytes], tuple[Container, bytes]]:
    """Return what makes a record, and what stands around it, of a row's JSON."""
    keys = [one for one, _ in _expressions(table)]
    decoder = msgspec.json.Decoder()
    layout = table.layout
    make = _span if layout.signal is TRACES else _log if layout.signal is LOGS else None

    def read(text: bytes) -> tuple[Container, bytes]:
        row: Row = dict(zip(keys, decoder.decode(text), strict=True))
        metric, record = _point(row, layout) if make is None else (None, make(row, layout))
        return _around(row, metric), record

    return read


def _around(row: Row, metric: Metric | None) -> Container:
    resource = Resource(
        attributes=_pairs(row.get("ResourceAttributes keys", ()), row.get("ResourceAttributes values", ()))
    )
    scope = InstrumentationScope(
        name=row.get("ScopeName", ""),
        version=row.get("ScopeVersion", ""),
        attributes=_pairs(row.get("ScopeAttributes keys", ()), row.get("ScopeAttributes values", ())),
        dropped_attributes_count=row.get("ScopeDroppedAttrCount", 0),
    )
    outer = tagged(1, resource.SerializeToString()) + _schema(row.get("ResourceSchemaUrl", ""))
    inner = tagged(1, scope.SerializeToString()) + _schema(row.get("ScopeSchemaUrl", ""))
    return Container(outer, inner, metric)


def _schema(url: str) -> bytes:
    return tagged(3, url.encode()) if url else b""


def _pairs(keys: Iterable[str], values: Iterable[str]) -> list[KeyValue]:
    found = []
    for key, value in zip(keys, values, strict=True):
        pair = KeyValue(key=key)
        pair.value.string_value = value
        found.append(pair)
    return found


def _id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _each(row: Row, prefix: str, *names: str) -> Iterable[tuple[Any, ...]]:
    """Yield the elements of a nested column; what a table lacks of it is None."""
    count = max((len(row[f"{prefix}.{one}"]) for one in names if f"{prefix}.{one}" in row), default=0)
    return zip(*(row.get(f"{prefix}.{one}") or [None] * count for one in names), strict=True)


def _span(row: Row, _: Layout) -> bytes:
    span = Span(
        trace_id=_id(row.get("TraceId", "")),
        span_id=_id(row.get("SpanId", "")),
        parent_span_id=_id(row.get("ParentSpanId", "")),
        trace_state=row.get("TraceState", ""),
        name=row.get("SpanName", ""),
        kind=_KINDS.get(row.get("SpanKind", ""), 0),  # type: ignore[arg-type]
        start_time_unix_nano=max(0, row["Timestamp"]),
        end_time_unix_nano=max(0, row["Timestamp"]) + row.get("Duration", 0),
        attributes=_pairs(row.get("SpanAttributes keys", ()), row.get("SpanAttributes values", ())),
    )
    code, message = _STATUSES.get(row.get("StatusCode", ""), 0), row.get("StatusMessage", "")
    if code or message:
        span.status.code, span.status.message = code, message  # type: ignore[assignment]
    for time, name, keys, values in _each(row, "Events", "Timestamp", "Name", "Attributes keys", "Attributes values"):
        event = span.events.add(time_unix_nano=max(0, time or 0), name=name or "")
        event.attributes.extend(_pairs(keys or (), values or ()))
    links = _each(row, "Links", "TraceId", "SpanId", "TraceState", "Attributes keys", "Attributes values")
    for trace_id, span_id, state, keys, values in links:
        link = span.links.add(trace_id=_id(trace_id or ""), span_id=_id(span_id or ""), trace_state=state or "")
        link.attributes.extend(_pairs(keys or (), values or ()))
    return span.SerializeToString()


def _log(row: Row, _: Layout) -> bytes:
    record = LogRecord(
        time_unix_nano=max(0, row["Timestamp"]),
        severity_number=row.get("SeverityNumber", 0),
        severity_text=row.get("SeverityText", ""),
        trace_id=_id(row.get("TraceId", "")),
        span_id=_id(row.get("SpanId", "")),
        flags=row.get("TraceFlags", 0),
        event_name=row.get("EventName", ""),
        attributes=_pairs(row.get("LogAttributes keys", ()), row.get("LogAttributes values", ())),
    )
    if body := row.get("Body", ""):
        record.body.string_value = body
    return record.SerializeToString()


def _point(row: Row, layout: Layout) -> tuple[Metric, bytes]:
    kind = layout.kind
    name, of = _POINTS[kind]
    own = metrics_pb2.Metric(
        name=row.get("MetricName", ""), description=row.get("MetricDescription", ""), unit=row.get("MetricUnit", "")
    )
    data = type(getattr(own, name))()
    if kind in (SUM, HISTOGRAM, EXPONENTIAL_HISTOGRAM):
        data.aggregation_temporality = row.get("AggregationTemporality", 0)
    if kind == SUM:
        data.is_monotonic = bool(row.get("IsMonotonic", False))
    point: Any = of(
        time_unix_nano=max(0, row["TimeUnix"]),
        start_time_unix_nano=max(0, row.get("StartTimeUnix", 0)),
        flags=row.get("Flags", 0),
        attributes=_pairs(row.get("Attributes keys", ()), row.get("Attributes values", ())),
    )
    _fill(point, row, kind)
    if kind != SUMMARY:
        _add_exemplars(point, row)
    return Metric(own.SerializeToString(), data.SerializeToString(), kind), point.SerializeToString()


def _double(value: Any) -> float:
    """Read a number of JSON, where those that are none are texts."""
    return float(value) if value is not None else 0.0


def _fill(point: Any, row: Row, kind: int) -> None:
    if kind in (GAUGE, SUM):
        if not row.get("Flags", 0) & 1:
            point.as_double = _double(row.get("Value"))
        return
    point.count = row.get("Count", 0)
    point.sum = _double(row.get("Sum"))
    if kind == SUMMARY:
        for quantile, value in _each(row, "ValueAtQuantiles", "Quantile", "Value"):
            point.quantile_values.add(quantile=_double(quantile), value=_double(value))
        return
    low, high = _double(row.get("Min")), _double(row.get("Max"))
    if low or high:  # 0 stands for none, too
        point.min, point.max = low, high
    if kind == HISTOGRAM:
        point.bucket_counts.extend(row.get("BucketCounts", ()))
        point.explicit_bounds.extend(_double(one) for one in row.get("ExplicitBounds", ()))
        return
    point.scale, point.zero_count = row.get("Scale", 0), row.get("ZeroCount", 0)
    for sign, buckets in (("Positive", point.positive), ("Negative", point.negative)):
        buckets.offset = row.get(f"{sign}Offset", 0)
        buckets.bucket_counts.extend(row.get(f"{sign}BucketCounts", ()))


def _add_exemplars(point: Any, row: Row) -> None:
    names = ("TimeUnix", "Value", "SpanId", "TraceId", "FilteredAttributes keys", "FilteredAttributes values")
    for time, value, span_id, trace_id, keys, values in _each(row, "Exemplars", *names):
        exemplar = point.exemplars.add(
            time_unix_nano=max(0, time or 0),
            as_double=_double(value),
            span_id=_id(span_id or ""),
            trace_id=_id(trace_id or ""),
        )
        exemplar.filtered_attributes.extend(_pairs(keys or (), values or ()))
