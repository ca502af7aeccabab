"""Traces as Jaeger's UI and its query API give them, `{"data": [{"spans": […], "processes": {…}}]}`, as OTLP.

Tags become attributes by their types; those that stand for a field of OTLP (`span.kind`, `error`, `otel.status_code`,
`otel.status_description`, `otel.scope.name`, `otel.scope.version`, `w3c.tracestate`) become that field. A log becomes an event,
named by its field `event`; a reference of the kind CHILD_OF within the trace the parent, all others links. Times are
microseconds. Spans of one process share a resource, with `service.name`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collector.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KINDS: Final = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
STATUS: Final = {"OK": 1, "ERROR": 2}
NS: Final = 1000


def traces_of(document: Any) -> list[Any]:
    """Return the traces of a document. Raises Malformed for one that is something else."""
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        raise Malformed('this is no Jaeger JSON: there is no "data" with traces')
    return data


def to_otlp(trace: Any) -> bytes:
    """Return one trace as an export request. Raises Malformed."""
    made = ExportTraceServiceRequest()
    try:
        processes = trace.get("processes") or {}
        scopes: dict[tuple[str, str, str], Any] = {}
        for one in trace["spans"]:
            process = one.get("process") or processes.get(one.get("processID")) or {}
            tags = {tag["key"]: tag for tag in one.get("tags") or ()}
            name, version = (_text(tags.pop(f"otel.scope.{part}", None)) for part in ("name", "version"))
            key = (str(one.get("processID") or process.get("serviceName")), name, version)
            scope = scopes.get(key)
            if scope is None:
                envelope = made.resource_spans.add()
                envelope.resource.attributes.extend(_resource(process))
                scope = scopes[key] = envelope.scope_spans.add()
                scope.scope.name, scope.scope.version = name, version
            _fill(scope.spans.add(), one, tags)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed(f"not a trace of Jaeger: {error!r}") from error
    return made.SerializeToString()


def _resource(process: dict[str, Any]) -> Iterator[KeyValue]:
    yield KeyValue(key="service.name", value=AnyValue(string_value=str(process.get("serviceName", ""))))
    yield from _attributes(process.get("tags") or ())


def _fill(span: Any, one: dict[str, Any], tags: dict[str, Any]) -> None:
    """Fill in a span; `tags` are those that the scope has left."""
    span.trace_id, span.span_id = _id(one["traceID"], 16), _id(one["spanID"], 8)
    span.name = one.get("operationName", "")
    span.flags = int(one.get("flags") or 0) & 0xFF
    span.start_time_unix_nano = int(one["startTime"]) * NS
    span.end_time_unix_nano = (int(one["startTime"]) + int(one.get("duration") or 0)) * NS
    span.kind = KINDS.get(_text(tags.pop("span.kind", None)), 0)
    span.trace_state = _text(tags.pop("w3c.tracestate", None))
    status = STATUS.get(_text(tags.pop("otel.status_code", None)), 0)
    error = tags.pop("error", None)
    if error is not None and str(error.get("value")).lower() == "true":
        status = STATUS["ERROR"]
    span.status.message = _text(tags.pop("otel.status_description", None))
    span.status.code = status
    span.attributes.extend(_attributes(tags.values()))
    for reference in one.get("references") or ():
        trace_id, span_id = _id(reference["traceID"], 16), _id(reference["spanID"], 8)
        if reference.get("refType") == "CHILD_OF" and trace_id == span.trace_id and not span.parent_span_id:
            span.parent_span_id = span_id
        else:
            span.links.add(trace_id=trace_id, span_id=span_id)
    if one.get("parentSpanID") and not span.parent_span_id:
        span.parent_span_id = _id(one["parentSpanID"], 8)
    for log in one.get("logs") or ():
        fields = {field["key"]: field for field in log.get("fields") or ()}
        event = span.events.add(time_unix_nano=int(log["timestamp"]) * NS, name=_text(fields.pop("event", None)))
        event.attributes.extend(_attributes(fields.values()))


def _text(tag: dict[str, Any] | None) -> str:
    return str(tag["value"]) if tag is not None else ""


def _id(text: str, size: int) -> bytes:
    """Return an id; Jaeger leaves out leading zeros."""
    made = bytes.fromhex(text.zfill(2 * size))
    if len(made) != size:
        raise ValueError(f"{text!r} is no id of {size} bytes")
    return made


def _attributes(tags: Iterable[dict[str, Any]]) -> Iterator[KeyValue]:
    for tag in tags:
        yield KeyValue(key=tag["key"], value=_value(tag.get("type", "string"), tag.get("value")))


def _value(kind: str, value: Any) -> AnyValue:
    if kind == "bool":
        return AnyValue(bool_value=value if isinstance(value, bool) else str(value).lower() == "true")
    if kind in ("int64", "long"):
        return AnyValue(int_value=int(value))
    if kind in ("float64", "double"):
        return AnyValue(double_value=float(value))
    if kind == "binary":
        try:
            return AnyValue(bytes_value=base64.b64decode(value, validate=True))
        except binascii.Error:
            return AnyValue(string_value=str(value))
    return AnyValue(string_value=str(value))
