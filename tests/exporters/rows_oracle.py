"""What rows.py, jsonparts.py and jsontext.py promise, by the protobuf library and json."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from typing import Any

from collector.otlp.block import Block
from collector.otlp.records import record, record_bytes
from collector.otlp.signals import LOGS, METRICS, TRACES


class Pairs(list[tuple[str, Any]]):
    """An object's members in their order, with keys that may stand twice."""


def parsed(text: str | None) -> Any:
    """Read JSON, with objects as Pairs; floats keep the sign of zero, and stay apart from ints."""
    return None if text is None else marked(json.loads(text, object_pairs_hook=Pairs))


def marked(value: Any) -> Any:
    """Make 1, 1.0 and True different, and -0.0 and 0.0."""
    if isinstance(value, Pairs):
        return Pairs((key, marked(one)) for key, one in value)
    if isinstance(value, list):
        return [marked(one) for one in value]
    return (type(value).__name__, repr(value))


def number(value: float) -> Any:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def any_value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if kind == "array_value":
        return [any_value(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    if kind == "double_value":
        return number(value.double_value)
    return getattr(value, kind) if kind in ("string_value", "bool_value", "int_value") else None


def attributes(pairs: Iterable[Any]) -> Pairs:
    return Pairs((one.key, any_value(one.value)) for one in pairs)


def some(members: Iterable[tuple[str, Any, bool]]) -> Pairs:
    return Pairs((key, value) for key, value, there in members if there)


def event(one: Any) -> Pairs:
    return some(
        (
            ("time", one.time_unix_nano, True),
            ("name", one.name, True),
            ("attributes", attributes(one.attributes), True),
            ("dropped_attributes_count", one.dropped_attributes_count, one.dropped_attributes_count),
        )
    )


def link(one: Any) -> Pairs:
    return some(
        (
            ("trace_id", one.trace_id.hex(), True),
            ("span_id", one.span_id.hex(), True),
            ("trace_state", one.trace_state, one.trace_state),
            ("attributes", attributes(one.attributes), True),
            ("flags", one.flags, one.flags),
            ("dropped_attributes_count", one.dropped_attributes_count, one.dropped_attributes_count),
        )
    )


def exemplar(one: Any) -> Pairs:
    kind = one.WhichOneof("value")
    value = None if kind is None else one.as_int if kind == "as_int" else number(one.as_double)
    return some(
        (
            ("time", one.time_unix_nano, True),
            ("value", value, True),
            ("trace_id", one.trace_id.hex(), one.trace_id),
            ("span_id", one.span_id.hex(), one.span_id),
            ("attributes", attributes(one.filtered_attributes), True),
        )
    )


def distribution(one: Any) -> Pairs | None:
    name = type(one).__name__
    if name == "HistogramDataPoint":
        return Pairs([("bounds", [*map(number, one.explicit_bounds)]), ("counts", [*one.bucket_counts])])
    if name == "ExponentialHistogramDataPoint":
        both = {side: getattr(one, side) for side in ("positive", "negative")}
        sides = [
            (side, Pairs([("offset", half.offset), ("counts", [*half.bucket_counts])])) for side, half in both.items()
        ]
        head = [
            ("scale", one.scale),
            ("zero_count", one.zero_count),
            ("zero_threshold", number(one.zero_threshold)),
        ]
        return Pairs([*head, *sides])
    if name == "SummaryDataPoint":
        found = [
            Pairs([("quantile", number(each.quantile)), ("value", number(each.value))]) for each in one.quantile_values
        ]
        return Pairs([("quantiles", found)])
    return None


def known(one: bytes, width: int) -> bytes | None:
    """An id of the wrong length, or all zero, is none."""
    return one if len(one) == width and any(one) else None


def _listed(found: list[Pairs]) -> Any:
    return marked(found) if found else None


def _span(one: Any) -> dict[str, Any]:
    return {
        "trace_state": one.trace_state,
        "name": one.name,
        "start_time": one.start_time_unix_nano,
        "end_time": one.end_time_unix_nano,
        "status_message": one.status.message,
        "attributes": marked(attributes(one.attributes)),
        "events": _listed([event(each) for each in one.events]),
        "links": _listed([link(each) for each in one.links]),
        "flags": one.flags,
        "dropped_attributes_count": one.dropped_attributes_count,
        "dropped_events_count": one.dropped_events_count,
        "dropped_links_count": one.dropped_links_count,
        "trace_id": known(one.trace_id, 16),
        "span_id": known(one.span_id, 8),
        "parent_span_id": known(one.parent_span_id, 8),
    }


def _log(one: Any) -> dict[str, Any]:
    kind = one.body.WhichOneof("value")
    return {
        "time": one.time_unix_nano or one.observed_time_unix_nano,
        "observed_time": one.observed_time_unix_nano,
        "severity_text": one.severity_text,
        "event_name": one.event_name,
        "body": one.body.string_value
        if kind == "string_value"
        else None
        if kind is None
        else marked(any_value(one.body)),
        "attributes": marked(attributes(one.attributes)),
        "flags": one.flags,
        "dropped_attributes_count": one.dropped_attributes_count,
        "trace_id": known(one.trace_id, 16),
        "span_id": known(one.span_id, 8),
    }


def _point(one: Any) -> dict[str, Any]:
    is_number = type(one).__name__ == "NumberDataPoint"
    kind = one.WhichOneof("value") if is_number else None
    is_summary = type(one).__name__ == "SummaryDataPoint"

    def optional(name: str) -> Any:
        return marked(getattr(one, name)) if not is_number and not is_summary and one.HasField(name) else marked(None)

    return {
        "time": one.time_unix_nano,
        "start_time": one.start_time_unix_nano,
        "value": marked(getattr(one, kind) if kind else None),
        "count": None if is_number else one.count,
        "sum": marked(one.sum) if is_summary else optional("sum"),
        "min": optional("min"),
        "max": optional("max"),
        "distribution": marked(distribution(one)) if not is_number else None,
        "attributes": marked(attributes(one.attributes)),
        "exemplars": None if is_summary else _listed([exemplar(each) for each in one.exemplars]),
        "flags": one.flags,
    }


def expected(block: Block, row: int) -> dict[str, Any]:
    """Return what the columns of a row must hold."""
    made = {TRACES: _span, LOGS: _log, METRICS: _point}[block.signal](record(block, row))
    made["record"] = record_bytes(block, row)
    made["group"] = int(block.column("group")[row])
    return made


JSON = {"attributes", "events", "links", "distribution", "exemplars"}
MARKED = {"value", "sum", "min", "max"}


def comparable(
    block: Block, row: int, columns: dict[str, list[Any]], first: int, wanted: dict[str, Any]
) -> dict[str, Any]:
    """Return what the columns hold, as `expected` has it."""
    found: dict[str, Any] = {}
    for name in wanted:
        value = columns[name][row - first]
        if name in JSON or (name == "body" and isinstance(wanted[name], list | tuple)):
            value = parsed(value)
        elif name in MARKED:
            value = marked(value)
        found[name] = value
    return found
