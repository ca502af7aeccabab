"""What the exporter's columns keep of a record: written down once more, with the protobuf library."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Hashable, Iterable
from typing import Any

from collector.otlp.signals import LOGS, TRACES, Signal
from collector.testing.corpus import Whole


def text(value: Any) -> str:
    """An attribute as text: a string as it is, bytes in base64, the rest as JSON."""
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    if kind == "string_value":
        return str(value.string_value)
    if kind == "double_value":
        number = value.double_value
        return repr(number).removesuffix(".0") if math.isfinite(number) else str(plain(value))
    found = plain(value)
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "bytes_value":
        return base64.b64encode(found).decode()
    if kind == "double_value" and not math.isfinite(found):
        return "NaN" if math.isnan(found) else "Infinity" if found > 0 else "-Infinity"
    if kind == "array_value":
        return [plain(one) for one in found.values]
    if kind == "kvlist_value":
        return {one.key: plain(one.value) for one in found.values}
    return found


def pairs(attributes: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((one.key, text(one.value)) for one in attributes)


def kept(signal: Signal, whole: Whole) -> Hashable:
    """All that the columns have of a record."""
    scope, record = whole.scope, whole.record
    around: tuple[Hashable, ...] = (pairs(whole.resource.attributes), scope.name, scope.version)
    if signal is TRACES:
        return (*around, *_span(record))
    around = (*around, whole.resource_schema, whole.scope_schema, pairs(scope.attributes))
    if signal is LOGS:
        return (*around, whole.time_ns, *_log(record))
    return (*around, *_point(whole, record))


def _span(record: Any) -> tuple[Hashable, ...]:
    return (
        record.trace_id,
        record.span_id,
        record.parent_span_id,
        record.trace_state,
        record.name,
        record.kind,
        record.start_time_unix_nano,
        record.end_time_unix_nano,
        record.status.code,
        record.status.message,
        pairs(record.attributes),
        tuple((one.time_unix_nano, one.name, pairs(one.attributes)) for one in record.events),
        tuple((one.trace_id, one.span_id, one.trace_state, pairs(one.attributes)) for one in record.links),
    )


def _log(record: Any) -> tuple[Hashable, ...]:
    return (
        record.trace_id,
        record.span_id,
        record.flags & 0xFF,
        record.severity_number,
        record.severity_text,
        text(record.body),
        pairs(record.attributes),
        record.event_name,
    )


def _point(whole: Whole, record: Any) -> tuple[Hashable, ...]:
    metric = whole.metric
    assert metric is not None
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    common = (
        kind,
        metric.name,
        metric.description,
        metric.unit,
        whole.scope.dropped_attributes_count,
        getattr(data, "aggregation_temporality", 0),
        getattr(data, "is_monotonic", False),
        pairs(record.attributes),
        record.start_time_unix_nano,
        record.time_unix_nano,
        record.flags,
        tuple(_exemplar(one) for one in getattr(record, "exemplars", ())),
    )
    if kind in ("gauge", "sum"):
        value = record.WhichOneof("value")
        return (*common, float(getattr(record, value)) if value else None)
    counted = (*common, record.count, record.sum)
    if kind == "summary":
        return (*counted, tuple((one.quantile, one.value) for one in record.quantile_values))
    counted = (*counted, record.min, record.max)
    if kind == "histogram":
        return (*counted, tuple(record.bucket_counts), tuple(record.explicit_bounds))
    signs = (record.positive, record.negative)
    buckets = tuple((one.offset, tuple(one.bucket_counts)) for one in signs)
    return (*counted, record.scale, record.zero_count, *buckets)


def _exemplar(one: Any) -> tuple[Hashable, ...]:
    value = float(getattr(one, one.WhichOneof("value")))
    return (one.time_unix_nano, value, one.span_id, one.trace_id, pairs(one.filtered_attributes))
