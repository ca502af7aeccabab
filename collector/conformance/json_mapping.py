"""Section 5 of the list: what a receiver takes as OTLP/JSON."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Any

from collector.conformance.check import Level, Section, Skipped, require
from collector.conformance.http_client import JSON, shown
from collector.conformance.payloads import SCOPE, encode
from collector.conformance.target import json_object
from collector.conformance.transport import all_accepted
from collector.otlp.signals import LOGS, METRICS, TRACES

if TYPE_CHECKING:
    from collector.conformance.target import Outcome, Target

SECTION = Section("JSON")
MUST, SHOULD, MAY = Level.MUST, Level.SHOULD, Level.MAY


@SECTION.check(
    "34a",
    MUST,
    "reads ids as hexadecimal, in either case of letters",
    sent="a span with traceId, spanId, parentSpanId and a link in lower and in upper case; a log record",
    expected="200, nothing rejected",
    needs=("http",),
)
def _hexadecimal(target: Target) -> str:
    outcomes: dict[str, Outcome] = {}
    for name, change in (("lower case", str.lower), ("upper case", str.upper)):
        trace_id, span_id = change(secrets.token_hex(16)), change(secrets.token_hex(8))
        link = {"traceId": trace_id, "spanId": span_id}
        fields: dict[str, Any] = {**link, "parentSpanId": span_id, "links": [link]}
        outcomes[f"span in {name}"] = target.export_json(TRACES, target.payloads.json(TRACES, **fields))
        outcomes[f"log record in {name}"] = target.export_json(LOGS, target.payloads.json(LOGS, **link))
    return all_accepted(outcomes)


@SECTION.check(
    "34b",
    MUST,
    "stores the id that the hexadecimal digits name",
    sent="a span in JSON with its traceId in upper case, then a query for the trace",
    expected="the trace, with that id",
    needs=("http", "query"),
)
def _same_id(target: Target) -> str:
    trace_id = secrets.token_bytes(16)
    body = target.payloads.json(TRACES, traceId=trace_id.hex().upper())
    all_accepted({"span": target.export_json(TRACES, body)})
    found = target.query.trace_message(trace_id)
    span = found.resource_spans[0].scope_spans[0].spans[0]
    require(span.trace_id == trace_id, f"the trace id is {span.trace_id.hex()}")
    return f"trace {trace_id.hex()}"


@SECTION.check(
    "34c",
    MUST,
    "takes no base64 for ids",
    sent="a span with traceId and spanId in base64",
    expected="400, or the span rejected",
    needs=("http",),
)
def _base64_ids(target: Target) -> str:
    ids = {
        "traceId": base64.b64encode(b"\xfb" * 16).decode(),
        "spanId": base64.b64encode(b"\xfb" * 8).decode(),
    }
    outcome = target.export_json(TRACES, target.payloads.json(TRACES, **ids))
    require(outcome.malformed or outcome.rejected, outcome.words)
    return outcome.words


def _with_bytes(target: Target, text: str) -> bytes:
    return target.payloads.json(TRACES, attributes=[{"key": "raw", "value": {"bytesValue": text}}])


@SECTION.check(
    "35a",
    MUST,
    "reads bytesValue as base64",
    sent="an attribute with bytesValue in padded standard base64",
    expected="200, nothing rejected",
    needs=("http",),
)
def _bytes(target: Target) -> str:
    text = base64.b64encode(b"\xfb\xff\xfe\x01").decode()
    return all_accepted({text: target.export_json(TRACES, _with_bytes(target, text))})


@SECTION.check(
    "35b",
    SHOULD,
    "reads base64 that is URL-safe or not padded",
    sent="an attribute with bytesValue in URL-safe base64, padded and not, and standard without padding",
    expected="200, nothing rejected",
    needs=("http",),
)
def _other_base64(target: Target) -> str:
    url_safe = base64.urlsafe_b64encode(b"\xfb\xff\xfe\x01").decode()
    texts = (url_safe, url_safe.rstrip("="), base64.b64encode(b"\xfb\xff\xfe\x01").decode().rstrip("="))
    return all_accepted({text: target.export_json(TRACES, _with_bytes(target, text)) for text in texts})


@SECTION.check(
    "36a",
    MUST,
    "reads enums as integers",
    sent="kind, status.code, severityNumber and aggregationTemporality as numbers",
    expected="200, nothing rejected",
    needs=("http",),
)
def _enums(target: Target) -> str:
    point = {"timeUnixNano": str(target.payloads.now()), "asInt": "3"}
    metric = {"name": "m", "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": [point]}}
    return all_accepted(
        {
            "span": target.export_json(TRACES, target.payloads.json(TRACES, kind=3, status={"code": 2})),
            "log record": target.export_json(LOGS, target.payloads.json(LOGS, severityNumber=17)),
            "sum": target.export_json(METRICS, target.payloads.json_metric(metric)),
        }
    )


@SECTION.check(
    "36b",
    SHOULD,
    "takes no names of enums",
    sent='"kind": "SPAN_KIND_CLIENT"',
    expected="400",
    needs=("http",),
)
def _enum_names(target: Target) -> str:
    outcome = target.export_json(TRACES, target.payloads.json(TRACES, kind="SPAN_KIND_CLIENT"))
    require(outcome.malformed, outcome.words)
    return outcome.words


@SECTION.check(
    "37a",
    MUST,
    "ignores unknown field names",
    sent="unknown names with values of every kind, nested, at every level",
    expected="200, nothing rejected",
    needs=("http",),
)
def _unknown(target: Target) -> str:
    later = {"a": [1, "two", None, {"b": [[]]}], "c": True, "": 1e300}
    body = json_object(target.payloads.json(TRACES, laterVersion=later, another=[later, later]))
    body["brandNew"] = later
    body["resourceSpans"][0]["scopeSpans"][0]["scope"]["later"] = None
    return all_accepted({"span": target.export_json(TRACES, encode(body))})


@SECTION.check(
    "38a",
    SHOULD,
    "takes snake_case names for unknown ones",
    sent='a valid span, and "resource_spans": "nonsense" and "start_time_unix_nano": {} beside the real fields',
    expected="200, nothing rejected",
    needs=("http",),
)
def _snake_case(target: Target) -> str:
    body = json_object(target.payloads.json(TRACES, start_time_unix_nano={}, trace_id=7))
    body["resource_spans"] = "nonsense"
    return all_accepted({"span": target.export_json(TRACES, encode(body))})


@SECTION.check(
    "39a",
    MUST,
    "reads 64-bit integers from strings and from numbers",
    sent="timeUnixNano, intValue, asInt, count and bucketCounts in both forms",
    expected="200, nothing rejected",
    needs=("http",),
)
def _integers(target: Target) -> str:
    outcomes = {}
    now = target.payloads.now()
    for name, write in (("strings", str), ("numbers", int)):
        times = {"startTimeUnixNano": write(now), "endTimeUnixNano": write(now)}
        pair = {"key": "i", "value": {"intValue": write(-(2**53))}}
        outcomes[f"span, {name}"] = target.export_json(TRACES, target.payloads.json(TRACES, **times, attributes=[pair]))
        point: dict[str, Any] = {"timeUnixNano": write(now), "count": write(3), "sum": 2.5}
        point |= {"bucketCounts": [write(1), write(2)], "explicitBounds": [1]}
        metric = {"name": "h", "histogram": {"aggregationTemporality": 1, "dataPoints": [point]}}
        outcomes[f"histogram, {name}"] = target.export_json(METRICS, target.payloads.json_metric(metric))
        gauge = target.payloads.json(METRICS, asInt=write(12), timeUnixNano=write(now))
        outcomes[f"gauge, {name}"] = target.export_json(METRICS, gauge)
    return all_accepted(outcomes)


@SECTION.check(
    "39b",
    SHOULD,
    "writes 64-bit integers as strings",
    sent="a span without ids, in JSON",
    expected='"rejectedSpans": "1"',
    needs=("http",),
)
def _written_integers(target: Target) -> str:
    answer = target.http.post("/v1/traces", target.payloads.json(TRACES, traceId="", spanId=""), JSON)
    partial = json_object(answer.body).get("partialSuccess") if answer.code == 200 else None
    if not isinstance(partial, dict) or "rejectedSpans" not in partial:
        raise Skipped(f"nothing was rejected: {answer.words()}")
    require(partial["rejectedSpans"] == "1", f"{shown(answer.body)}")
    return shown(answer.body)


@SECTION.check(
    "40a",
    MUST,
    'reads "NaN", "Infinity" and "-Infinity" as doubles',
    sent="asDouble and doubleValue with each, and with numbers in strings",
    expected="200, nothing rejected",
    needs=("http",),
)
def _doubles(target: Target) -> str:
    outcomes = {}
    for text in ("NaN", "Infinity", "-Infinity", "1.5e3", 0.25, 7):
        outcomes[f"asDouble {text}"] = target.export_json(METRICS, target.payloads.json(METRICS, asDouble=text))
        pair = {"key": "d", "value": {"doubleValue": text}}
        outcomes[f"doubleValue {text}"] = target.export_json(TRACES, target.payloads.json(TRACES, attributes=[pair]))
    all_accepted(outcomes)
    return f"{len(outcomes)} forms accepted"


@SECTION.check(
    "41a",
    MUST,
    "reads null as an absent field",
    sent="null for messages, arrays, strings, numbers and ids that are optional",
    expected="200, nothing rejected",
    needs=("http",),
)
def _null(target: Target) -> str:
    fields = dict.fromkeys(("parentSpanId", "attributes", "events", "links", "status", "traceState", "kind", "flags"))
    log = target.payloads.json(LOGS, traceId=None, body=None, severityText=None, attributes=None)
    return all_accepted(
        {
            "span": target.export_json(TRACES, target.payloads.json(TRACES, **fields)),
            "log record": target.export_json(LOGS, log),
            "request": target.export_json(TRACES, b'{"resourceSpans": null}'),
        }
    )


@SECTION.check(
    "41b",
    SHOULD,
    "takes an empty traceId for one of no bytes, which is invalid",
    sent='a span with "traceId": "" beside a valid one',
    expected="the one span rejected",
    needs=("http",),
)
def _empty_id(target: Target) -> str:
    body = json_object(target.payloads.json(TRACES))
    spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans.append({**spans[0], "traceId": ""})
    outcome = target.export_json(TRACES, encode(body))
    require(outcome.accepted and outcome.rejected == 1, outcome.words)
    return outcome.words


@SECTION.check(
    "42a",
    MUST,
    "takes requests of the shape that the specification's examples have",
    sent="a trace with events and links, five kinds of metrics, a log record, and an event, each with all it may hold",
    expected="200, nothing rejected",
    needs=("http",),
)
def _examples(target: Target) -> str:
    shapes = {"trace": _trace, "metrics": _metrics, "logs": _logs, "events": _events}
    outcomes = {}
    for name, make in shapes.items():
        signal = {"trace": TRACES, "metrics": METRICS}.get(name, LOGS)
        outcomes[name] = target.export_json(signal, encode(make(str(target.payloads.now()))))
    return all_accepted(outcomes)


_ATTRIBUTES = [
    {"key": "text", "value": {"stringValue": "some"}},
    {"key": "yes", "value": {"boolValue": True}},
    {"key": "int", "value": {"intValue": "10"}},
    {"key": "double", "value": {"doubleValue": 637.704}},
    {"key": "array", "value": {"arrayValue": {"values": [{"stringValue": "many"}, {"stringValue": "values"}]}}},
    {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}}},
]
_RESOURCE = {
    "attributes": [{"key": "service.name", "value": {"stringValue": "conformance"}}],
    "droppedAttributesCount": 1,
}
_SCOPE = {"name": SCOPE, "version": "1.0.0", "attributes": _ATTRIBUTES[:1], "droppedAttributesCount": 2}


def _trace(now: str) -> dict[str, Any]:
    ids = {"traceId": secrets.token_hex(16), "spanId": secrets.token_hex(8)}
    event = {"timeUnixNano": now, "name": "happened", "attributes": _ATTRIBUTES, "droppedAttributesCount": 3}
    link = {**ids, "traceState": "a=b", "attributes": _ATTRIBUTES[:2], "flags": 257}
    span = {
        **ids,
        "parentSpanId": secrets.token_hex(8),
        "traceState": "vendor=1",
        "flags": 257,
        "name": "I'm a server span",
        "kind": 2,
        "startTimeUnixNano": now,
        "endTimeUnixNano": now,
        "attributes": _ATTRIBUTES,
        "events": [event],
        "links": [link],
        "status": {"code": 2, "message": "failed"},
        "droppedEventsCount": 1,
    }
    scope = {"scope": _SCOPE, "spans": [span], "schemaUrl": "https://example.com/scope"}
    return {"resourceSpans": [{"resource": _RESOURCE, "scopeSpans": [scope], "schemaUrl": "https://example.com/r"}]}


def _metrics(now: str) -> dict[str, Any]:
    common = {"startTimeUnixNano": now, "timeUnixNano": now, "attributes": _ATTRIBUTES}
    exemplar = {"timeUnixNano": now, "asDouble": 0.5, "spanId": secrets.token_hex(8), "traceId": secrets.token_hex(16)}
    histogram = {**common, "count": "2", "sum": 2, "min": 0, "max": 2, "exemplars": [exemplar]}
    buckets = {"offset": 1, "bucketCounts": ["0", "2"]}
    exponential = {**common, "count": "3", "sum": 10, "scale": 0, "zeroCount": "1", "positive": buckets}
    metrics = [
        {"name": "a.gauge", "unit": "1", "gauge": {"dataPoints": [{**common, "asDouble": 10}]}},
        {
            "name": "a.sum",
            "unit": "1",
            "sum": {**_kind(2), "isMonotonic": True, "dataPoints": [{**common, "asInt": "5"}]},
        },
        {
            "name": "a.histogram",
            "histogram": {
                **_kind(1),
                "dataPoints": [{**histogram, "bucketCounts": ["1", "1"], "explicitBounds": [1]}],
            },
        },
        {"name": "an.exponential.histogram", "exponentialHistogram": {**_kind(1), "dataPoints": [exponential]}},
        {
            "name": "a.summary",
            "summary": {
                "dataPoints": [{**common, "count": "2", "sum": 3, "quantileValues": [{"quantile": 0.5, "value": 1}]}]
            },
        },
    ]
    scope = {"scope": _SCOPE, "metrics": metrics}
    return {"resourceMetrics": [{"resource": _RESOURCE, "scopeMetrics": [scope]}]}


def _kind(temporality: int) -> dict[str, Any]:
    return {"aggregationTemporality": temporality}


def _logs(now: str) -> dict[str, Any]:
    record = {
        "timeUnixNano": now,
        "observedTimeUnixNano": now,
        "severityNumber": 10,
        "severityText": "Information",
        "traceId": secrets.token_hex(16),
        "spanId": secrets.token_hex(8),
        "flags": 1,
        "body": {"stringValue": "Example log record"},
        "attributes": _ATTRIBUTES,
        "droppedAttributesCount": 1,
    }
    return {"resourceLogs": [{"resource": _RESOURCE, "scopeLogs": [{"scope": _SCOPE, "logRecords": [record]}]}]}


def _events(now: str) -> dict[str, Any]:
    body = {"kvlistValue": {"values": [{"key": "type", "value": {"stringValue": "web"}}]}}
    record = {"timeUnixNano": now, "eventName": "browser.page_view", "body": body, "attributes": _ATTRIBUTES[:1]}
    return {"resourceLogs": [{"resource": _RESOURCE, "scopeLogs": [{"scope": _SCOPE, "logRecords": [record]}]}]}
