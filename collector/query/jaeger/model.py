"""Jaeger's data model, made of OpenTelemetry's: a trace as the JSON that Jaeger's UI and Grafana's plugin read.

The rules are those of OpenTelemetry's specification for Jaeger ("OpenTelemetry to Jaeger Transformation"), as Jaeger
itself applies them to what it receives by OTLP:

| OpenTelemetry | Jaeger |
| --- | --- |
| trace id | hex digits, without an upper half of zeros |
| resource | a process: `service.name` is its name, the rest its tags |
| parent span id | a CHILD_OF reference; links are FOLLOWS_FROM |
| times in ns | µs, rounded down |
| kind, status, scope, trace state | tags `span.kind`, `otel.status_code`, `error`, `otel.status_description`, `otel.scope.*`, `w3c.tracestate` |
| attribute | a tag of type string, bool, int64, float64 or binary; arrays and maps as a string of JSON |
| event | a log; its name is the field `event` |

Whole numbers that JavaScript cannot hold are written as text. A span whose parent is not held, though its id is known,
carries a warning, and so does its trace.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from collector.otlp import records
from collector.query.completeness import hex_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from collector.otlp.records import Ref
    from collector.query.completeness import Completeness
    from collector.query.deadline import Deadline

NO_SERVICE = "OTLPResourceNoServiceName"
"""Jaeger's name for a resource without `service.name`."""
KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
"""`span.kind` by OpenTelemetry's number; there is none for an unspecified kind."""
STATUSES = {1: "OK", 2: "ERROR"}
"""`otel.status_code` by OpenTelemetry's number; there is none for an unset status."""
SAFE_INTEGER = 2**53 - 1
"""The largest whole number that JavaScript holds."""

_CHECK_EVERY = 512
_VALUE_DEPTH_MAX = 32
"""Arrays and maps within each other that are written out; deeper ones are left out."""

Json = dict[str, Any]


def trace(deadline: Deadline, refs: Sequence[Ref], known: Completeness) -> Json:
    """Return one trace from its spans, at least one, in the order given."""
    absent = frozenset(known.parents.tolist())
    processes: dict[bytes, str] = {}
    shown: dict[str, Json] = {}
    groups: dict[tuple[int, int], tuple[str, list[Json]]] = {}
    spans = []
    for at, ref in enumerate(refs):
        if at % _CHECK_EVERY == 0:
            deadline.check()
        block, group = ref.block, int(ref.block.column("group")[ref.row])
        place = (id(block), group)
        if place not in groups:
            resource = records.group_bytes(block, group, "resource")
            key = processes.setdefault(resource, f"p{len(processes) + 1}")
            if key not in shown:
                shown[key] = _process(records.resource(block, group))
            groups[place] = (key, _scope_tags(records.scope(block, group)))
        process, scope_tags = groups[place]
        warnings = []
        parent = int(block.column("parent_span_id")[ref.row])
        if parent in absent:
            warnings.append(f"the parent span {hex_of(parent)} is not held: {known.cause}")
        spans.append(_span(records.record(block, ref.row), process, scope_tags, warnings))
    return {
        "traceID": spans[0]["traceID"],
        "spans": spans,
        "processes": shown,
        "warnings": [known.message] if known.missing else None,
    }


def trace_id_text(raw: bytes) -> str:
    """Write a trace id as Jaeger does: 16 hex digits when the upper half is zero, else 32."""
    return raw[8:].hex() if not any(raw[:8]) else raw.hex()


def _process(resource: Any) -> Json:
    name, rest = "", []
    for one in resource.attributes:
        if one.key == "service.name":
            name = text_of(one.value)
        else:
            rest.append(one)
    return {"serviceName": name or NO_SERVICE, "tags": _tags(rest)}


def _scope_tags(scope: Any) -> list[Json]:
    tags = []
    if scope.name:
        tags.append(_text_tag("otel.scope.name", scope.name))
    if scope.version:
        tags.append(_text_tag("otel.scope.version", scope.version))
    return tags + _tags(scope.attributes)


def _span(span: Any, process: str, scope_tags: list[Json], warnings: list[str]) -> Json:
    trace_id = trace_id_text(span.trace_id)
    references = []
    if span.parent_span_id:
        references.append({"refType": "CHILD_OF", "traceID": trace_id, "spanID": span.parent_span_id.hex()})
    for link in span.links:
        reference = {"refType": "FOLLOWS_FROM", "traceID": trace_id_text(link.trace_id), "spanID": link.span_id.hex()}
        references.append(reference)
    return {
        "traceID": trace_id,
        "spanID": span.span_id.hex(),
        "flags": span.flags & 0xFF or 1,
        "operationName": span.name,
        "references": references,
        "startTime": span.start_time_unix_nano // 1000,
        "duration": max(0, span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
        "tags": [*_tags(span.attributes), *_span_tags(span), *scope_tags],
        "logs": [_log(event) for event in span.events],
        "processID": process,
        "warnings": warnings or None,
    }


def _span_tags(span: Any) -> list[Json]:
    tags = []
    if span.kind in KINDS:
        tags.append(_text_tag("span.kind", KINDS[span.kind]))
    if span.status.code in STATUSES:
        tags.append(_text_tag("otel.status_code", STATUSES[span.status.code]))
    if span.status.code == 2:
        tags.append({"key": "error", "type": "bool", "value": True})
    if span.status.message:
        tags.append(_text_tag("otel.status_description", span.status.message))
    if span.trace_state:
        tags.append(_text_tag("w3c.tracestate", span.trace_state))
    return tags


def _log(event: Any) -> Json:
    fields = [_text_tag("event", event.name)] if event.name else []
    return {"timestamp": event.time_unix_nano // 1000, "fields": fields + _tags(event.attributes)}


def _text_tag(key: str, text: str) -> Json:
    return {"key": key, "type": "string", "value": text}


def _tags(attributes: Iterable[Any]) -> list[Json]:
    return [_tag(one.key, one.value) for one in attributes]


def _tag(key: str, value: Any) -> Json:
    which = value.WhichOneof("value")
    if which == "bool_value":
        return {"key": key, "type": "bool", "value": value.bool_value}
    if which == "int_value":
        number = value.int_value
        return {"key": key, "type": "int64", "value": number if abs(number) <= SAFE_INTEGER else str(number)}
    if which == "double_value":
        return {"key": key, "type": "float64", "value": value.double_value}
    if which == "bytes_value":
        return {"key": key, "type": "binary", "value": base64.b64encode(value.bytes_value).decode()}
    return _text_tag(key, text_of(value))


def text_of(value: Any) -> str:
    """Return an AnyValue as the text that a tag search compares with, and that a tag of type string shows."""
    which = value.WhichOneof("value")
    if which is None:
        return ""
    if which == "string_value":
        return str(value.string_value)
    if which == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return msgspec.json.encode(_plain(value, 0)).decode()


def _plain(value: Any, depth: int) -> Any:
    which = value.WhichOneof("value")
    if which is None or depth > _VALUE_DEPTH_MAX:
        return None
    if which == "array_value":
        return [_plain(one, depth + 1) for one in value.array_value.values]
    if which == "kvlist_value":
        return {one.key: _plain(one.value, depth + 1) for one in value.kvlist_value.values}
    if which == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return getattr(value, which)
