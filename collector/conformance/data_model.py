"""Section 6 of the list: the rules in the comments of the .proto files, and what must come back as it was sent."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collector.conformance.check import Failed, Level, Section, require
from collector.conformance.payloads import field, fresh_name
from collector.conformance.transport import UNKNOWN_FIELD, all_accepted
from collector.otlp.signals import LOGS, METRICS, TRACES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.conformance.target import Outcome, Target

SECTION = Section("Data model")
MUST, SHOULD, MAY = Level.MUST, Level.SHOULD, Level.MAY
NO_RECORDED_VALUE = 1
RESERVED_FLAGS = 0xFFFFFC00
"""Bits 10 to 31, which readers must not assume to be zero."""


def one_rejected(outcomes: Mapping[str, Outcome]) -> str:
    """Return what was seen when each request lost exactly its one bad record, and fail otherwise."""
    for name, one in outcomes.items():
        require(one.accepted and one.rejected == 1, f"{name}: {one.words}")
    return f"{', '.join(outcomes)}: rejected"


def _beside_a_good_span(target: Target, cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Outcome]:
    return {name: target.export(TRACES, target.payloads.spans({}, bad)) for name, bad in cases.items()}


@SECTION.check(
    "43a",
    SHOULD,
    "rejects spans whose trace_id is not 16 bytes, or all zero",
    sent="a valid span beside one whose trace_id is absent, short, long or all zero",
    expected="success, rejected_spans 1",
    needs=(),
)
def _trace_ids(target: Target) -> str:
    cases = {"absent": b"", "short": b"\1" * 15, "long": b"\1" * 17, "all zero": bytes(16)}
    return one_rejected(_beside_a_good_span(target, {name: {"trace_id": raw} for name, raw in cases.items()}))


@SECTION.check(
    "43b",
    SHOULD,
    "rejects spans whose span_id is not 8 bytes, or all zero",
    sent="a valid span beside one whose span_id is absent, short, long or all zero",
    expected="success, rejected_spans 1",
    needs=(),
)
def _span_ids(target: Target) -> str:
    cases = {"absent": b"", "short": b"\1" * 7, "long": b"\1" * 16, "all zero": bytes(8)}
    return one_rejected(_beside_a_good_span(target, {name: {"span_id": raw} for name, raw in cases.items()}))


@SECTION.check(
    "43c",
    SHOULD,
    "keeps log records whose ids are absent or invalid",
    sent="log records without ids, with short ones, and with zero ones",
    expected="success, nothing rejected",
    needs=(),
)
def _log_ids(target: Target) -> str:
    odd: tuple[dict[str, Any], ...] = (
        {"trace_id": b"\1\2"},
        {"trace_id": bytes(16), "span_id": bytes(8)},
        {"span_id": b"\1"},
        {},
    )
    return all_accepted({"log records": target.export(LOGS, target.payloads.logs(*odd))})


@SECTION.check(
    "44a",
    SHOULD,
    "takes a record in which an attribute stands twice",
    sent="a span with two attributes of one key",
    expected="success",
    needs=(),
)
def _duplicate_keys(target: Target) -> str:
    pairs = [{"key": "twice", "value": {"string_value": text}} for text in ("one", "two")]
    return all_accepted({"span": target.export(TRACES, target.payloads.spans({"attributes": pairs}))})


def _every_value() -> list[dict[str, Any]]:
    values: dict[str, dict[str, Any]] = {
        "empty": {},
        "bytes": {"bytes_value": b"\0\xff"},
        "empty array": {"array_value": {}},
        "mixed array": {"array_value": {"values": [{"int_value": 1}, {"string_value": "two"}, {}]}},
        "nested array": {"array_value": {"values": [{"array_value": {"values": [{"bool_value": True}]}}]}},
        "map": {"kvlist_value": {"values": [{"key": "k", "value": {"array_value": {"values": [{}]}}}]}},
        "nan": {"double_value": float("nan")},
        "least": {"int_value": -(2**63)},
    }
    return [{"key": name, "value": value} for name, value in values.items()]


@SECTION.check(
    "45a",
    SHOULD,
    "takes attribute values of every kind, everywhere",
    sent="empty, bytes, array and map values on resource, scope, span, event, link, log record, its body and data point",
    expected="success, nothing rejected",
    needs=(),
)
def _values(target: Target) -> str:
    pairs = _every_value()
    link = {"trace_id": secrets.token_bytes(16), "span_id": secrets.token_bytes(8), "attributes": pairs}
    spans = target.payloads.spans({"attributes": pairs, "events": [{"attributes": pairs}], "links": [link]})
    spans.resource_spans[0].resource.attributes.extend(spans.resource_spans[0].scope_spans[0].spans[0].attributes)
    scope = spans.resource_spans[0].scope_spans[0]
    scope.scope.attributes.extend(scope.spans[0].attributes)
    body = {"kvlist_value": {"values": pairs}}
    return all_accepted(
        {
            "spans": target.export(TRACES, spans),
            "log records": target.export(LOGS, target.payloads.logs({"attributes": pairs, "body": body})),
            "data points": target.export(METRICS, target.payloads.gauge({"attributes": pairs})),
        }
    )


@SECTION.check(
    "46a",
    MUST,
    "does not fail on string_value_strindex and key_strindex outside of profiles",
    sent="a span with both in an attribute",
    expected="success, nothing rejected",
    needs=(),
)
def _strindex(target: Target) -> str:
    message = target.payloads.spans({})
    message.resource_spans[0].scope_spans[0].spans[0].attributes.add(key_strindex=3).value.string_value_strindex = 4
    outcome = target.export(TRACES, message)
    all_accepted({"span": outcome})
    return outcome.words


def _points(target: Target, cases: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, Outcome]:
    """Export each case's point beside a valid one of its kind."""
    outcomes = {}
    for name, (kind, bad) in cases.items():
        good: dict[str, Any] = {"time_unix_nano": target.payloads.now()}
        if kind in ("gauge", "sum"):
            good["as_int"] = 1
        outcomes[name] = target.export(METRICS, target.payloads.points(kind, good, {**good, **bad}))
    return outcomes


@SECTION.check(
    "47a",
    SHOULD,
    "rejects data points without a time",
    sent="for each kind of metric a valid data point beside one whose time_unix_nano is 0",
    expected="success, rejected_data_points 1",
    needs=(),
)
def _without_time(target: Target) -> str:
    kinds = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
    return one_rejected(_points(target, {kind: (kind, {"time_unix_nano": 0}) for kind in kinds}))


@SECTION.check(
    "47b",
    SHOULD,
    "rejects number data points without a value",
    sent="a gauge and a sum with a valid data point beside one without as_int and as_double",
    expected="success, rejected_data_points 1",
    needs=(),
)
def _without_value(target: Target) -> str:
    return one_rejected(_points(target, {kind: (kind, {"as_int": None}) for kind in ("gauge", "sum")}))


@SECTION.check(
    "47c",
    SHOULD,
    "rejects histograms whose buckets and bounds do not fit",
    sent="a valid data point beside one with as many counts as bounds, counts only, or bounds only",
    expected="success, rejected_data_points 1",
    needs=(),
)
def _bucket_shapes(target: Target) -> str:
    cases: dict[str, dict[str, Any]] = {
        "as many counts as bounds": {"bucket_counts": [1, 2], "explicit_bounds": [1.0, 2.0]},
        "two counts without bounds": {"bucket_counts": [1, 2]},
        "bounds without counts": {"explicit_bounds": [1.0]},
    }
    return one_rejected(_points(target, {name: ("histogram", bad) for name, bad in cases.items()}))


@SECTION.check(
    "47d",
    SHOULD,
    "rejects histograms whose bounds do not increase strictly",
    sent="a valid data point beside one with equal bounds, or falling ones",
    expected="success, rejected_data_points 1",
    needs=(),
)
def _bounds(target: Target) -> str:
    cases = {
        "equal": {"bucket_counts": [1, 2, 3], "explicit_bounds": [2.0, 2.0]},
        "falling": {"bucket_counts": [1, 2, 3], "explicit_bounds": [2.0, 1.0]},
    }
    return one_rejected(_points(target, {name: ("histogram", bad) for name, bad in cases.items()}))


@SECTION.check(
    "47e",
    SHOULD,
    "rejects data points with an exemplar without a value",
    sent="a valid data point beside one whose exemplar has a time only",
    expected="success, rejected_data_points 1",
    needs=(),
)
def _exemplars(target: Target) -> str:
    bad = {"exemplars": [{"time_unix_nano": target.payloads.now()}]}
    return one_rejected(_points(target, {kind: (kind, bad) for kind in ("sum", "histogram", "exponential_histogram")}))


@SECTION.check(
    "47f",
    SHOULD,
    "rejects data points whose aggregation temporality is not specified",
    sent="a sum, a histogram and an exponential histogram without a temporality, of one data point each",
    expected="rejected_data_points 1, or the request refused",
    needs=(),
)
def _temporality(target: Target) -> str:
    for kind in ("sum", "histogram", "exponential_histogram"):
        point: dict[str, Any] = {"time_unix_nano": target.payloads.now(), "as_int": 1 if kind == "sum" else None}
        outcome = target.export(METRICS, target.payloads.points(kind, point, temporality=0))
        require(outcome.rejected == 1 or outcome.malformed, f"{kind}: {outcome.words}")
    return outcome.words


@SECTION.check(
    "48a",
    MUST,
    "takes data points that say NO_RECORDED_VALUE, and have no value",
    sent="a gauge, a sum and a histogram with that flag",
    expected="success, nothing rejected",
    needs=(),
)
def _no_recorded_value(target: Target) -> str:
    outcomes = {}
    for kind in ("gauge", "sum", "histogram"):
        point = {"time_unix_nano": target.payloads.now(), "flags": NO_RECORDED_VALUE}
        outcomes[kind] = target.export(METRICS, target.payloads.points(kind, point))
    return all_accepted(outcomes)


@SECTION.check(
    "48b",
    MUST,
    "takes flags whose bits 10 to 31 are set",
    sent="a span, a link, a log record and a data point with those bits",
    expected="success, nothing rejected",
    needs=(),
)
def _flags(target: Target) -> str:
    flags = RESERVED_FLAGS | 0x101
    link = {"trace_id": secrets.token_bytes(16), "span_id": secrets.token_bytes(8), "flags": flags}
    return all_accepted(
        {
            "span": target.export(TRACES, target.payloads.spans({"flags": flags, "links": [link]})),
            "log record": target.export(LOGS, target.payloads.logs({"flags": flags})),
            "data point": target.export(METRICS, target.payloads.gauge({"flags": RESERVED_FLAGS})),
        }
    )


@SECTION.check(
    "48c",
    MUST,
    "shows NO_RECORDED_VALUE as the end of a series",
    sent="a gauge of 7, a query, the same gauge with NO_RECORDED_VALUE, a query",
    expected="7, then nothing",
    needs=("query",),
)
def _stale(target: Target) -> str:
    name = fresh_name("conformance_stale")
    all_accepted({"7": target.export(METRICS, target.payloads.gauge({"as_int": 7}, name=name))})
    value = target.query.value_of(name)
    require(value == "7", f"the value is {value}")
    marker = {"time_unix_nano": target.payloads.now(), "flags": NO_RECORDED_VALUE}
    all_accepted({"marker": target.export(METRICS, target.payloads.points("gauge", marker, name=name))})
    after = target.query.value(name)
    require(after is None, f"behind the marker the value is {after}")
    return "7, then nothing"


def _full_span(target: Target) -> Any:
    """Return a request with one span that has everything that a span can have."""
    link = {
        "trace_id": secrets.token_bytes(16),
        "span_id": secrets.token_bytes(8),
        "trace_state": "link=1",
        "attributes": _every_value()[:2],
        "dropped_attributes_count": 4,
        "flags": 0x301,
    }
    now = target.payloads.now()
    event = {"time_unix_nano": now, "name": "e", "attributes": _every_value()[:3], "dropped_attributes_count": 5}
    message = target.payloads.spans(
        {
            "trace_state": "vendor=a,other=b",
            "parent_span_id": secrets.token_bytes(8),
            "flags": RESERVED_FLAGS | 0x101,
            "attributes": [pair for pair in _every_value() if pair["key"] != "nan"],
            "dropped_attributes_count": 1,
            "events": [event, {}],
            "dropped_events_count": 2,
            "links": [link],
            "dropped_links_count": 3,
            "status": {"code": 2, "message": "it failed"},
        },
        service=fresh_name("conformance-full"),
    )
    envelope = message.resource_spans[0]
    envelope.schema_url = "https://opentelemetry.io/schemas/1.36.0"
    envelope.resource.dropped_attributes_count = 6
    envelope.resource.entity_refs.add(
        schema_url="https://example.com/entity", type="service", id_keys=["service.name"], description_keys=["d"]
    )
    scope = envelope.scope_spans[0]
    scope.schema_url = "https://opentelemetry.io/schemas/1.35.0"
    scope.scope.version = "2.0"
    scope.scope.attributes.add(key="scope.attribute").value.int_value = 8
    scope.scope.dropped_attributes_count = 7
    return message


def _stored_envelope(target: Target, message: Any) -> Any:
    """Export a request with one span, and return the ResourceSpans that holds it when it is read back."""
    all_accepted({"span": target.export(TRACES, message)})
    found = target.query.trace_message(message.resource_spans[0].scope_spans[0].spans[0].trace_id)
    require(len(found.resource_spans) == 1, f"{len(found.resource_spans)} resources came back")
    return found.resource_spans[0]


@SECTION.check(
    "48d",
    MUST,
    "gives a span back with all that it had",
    sent="a span with trace state, flags, events, links, status and dropped counts, then a query for it",
    expected="the same span",
    needs=("query",),
)
def _span_comes_back(target: Target) -> str:
    message = _full_span(target)
    sent = message.resource_spans[0].scope_spans[0].spans[0]
    came = _stored_envelope(target, message).scope_spans[0].spans[0]
    lost = [one.name for one in sent.DESCRIPTOR.fields if getattr(sent, one.name) != getattr(came, one.name)]
    require(not lost, f"changed or lost: {', '.join(lost)}")
    return "all fields of the span"


@SECTION.check(
    "48e",
    MUST,
    "gives resource and scope back with all that they had",
    sent="a span whose resource has entity references and whose scope has attributes, then a query for it",
    expected="the same resource and scope",
    needs=("query",),
)
def _scope_comes_back(target: Target) -> str:
    message = _full_span(target)
    sent, came = message.resource_spans[0], _stored_envelope(target, message)
    require(sent.resource == came.resource, f"the resource is {came.resource}")
    require(sent.scope_spans[0].scope == came.scope_spans[0].scope, f"the scope is {came.scope_spans[0].scope}")
    return "resource with entity_refs, scope with attributes"


@SECTION.check(
    "48f",
    SHOULD,
    "gives fields of later versions back",
    sent="a span with an unknown field, then a query for it",
    expected="the field's bytes in the answer",
    needs=("query",),
)
def _unknown_comes_back(target: Target) -> str:
    message = target.payloads.spans({})
    span = message.resource_spans[0].scope_spans[0].spans[0]
    mark = secrets.token_bytes(12)
    span.MergeFromString(field(UNKNOWN_FIELD, mark))
    all_accepted({"span": target.export(TRACES, message)})
    body = target.query.trace(span.trace_id)
    try:
        TracesData.FromString(body)
    except DecodeError as error:
        raise Failed(f"the query API answers no protobuf: {error}") from error
    require(mark in body, "the field is lost")
    return "the field is there"


@SECTION.check(
    "48g",
    MUST,
    "gives a log record back with its body, ids, severity and attributes",
    sent="a log record, then a query for it",
    expected="its line, and labels or metadata with the rest",
    needs=("query",),
)
def _log_comes_back(target: Target) -> str:
    service = fresh_name("conformance-log")
    trace_id, span_id = secrets.token_bytes(16), secrets.token_bytes(8)
    record = {
        "trace_id": trace_id,
        "span_id": span_id,
        "severity_number": 17,
        "severity_text": "ERROR",
        "body": {"string_value": f"a line of {service}"},
        "attributes": [{"key": "shelf", "value": {"string_value": "42a"}}],
    }
    all_accepted({"log record": target.export(LOGS, target.payloads.logs(record, service=service))})
    _, line, labels = target.query.log_line(service)
    require(line == f"a line of {service}", f"the line is {line!r}")
    held = set(labels.values())
    for wanted in (trace_id.hex(), span_id.hex(), "42a"):
        require(wanted in held, f"{wanted} is not among the labels: {labels}")
    return f"the line, and {len(labels)} labels"


@SECTION.check(
    "49a",
    MUST,
    "takes log records without a time, and without a severity",
    sent="a log record with an observed time only, one without any time, one without a severity",
    expected="success, nothing rejected",
    needs=(),
)
def _log_times(target: Target) -> str:
    odd = ({"time_unix_nano": 0}, {"time_unix_nano": 0, "observed_time_unix_nano": 0}, {"severity_number": 0})
    return all_accepted({"log records": target.export(LOGS, target.payloads.logs(*odd))})


@SECTION.check(
    "49b",
    SHOULD,
    "shows a log record without a time at its observed time",
    sent="a log record with an observed time only, then a query for it",
    expected="the observed time",
    needs=("query",),
)
def _observed_time(target: Target) -> str:
    service, observed = fresh_name("conformance-observed"), target.payloads.now()
    record = {"time_unix_nano": 0, "observed_time_unix_nano": observed}
    all_accepted({"log record": target.export(LOGS, target.payloads.logs(record, service=service))})
    time, _, _ = target.query.log_line(service)
    require(time == observed, f"it is shown {abs(time - observed) / 1e9:.3f} s from there")
    return "the observed time"


@SECTION.check(
    "50a",
    SHOULD,
    "takes spans that end before they start, as clocks that differ make them",
    sent="such a span",
    expected="success, nothing rejected",
    needs=(),
)
def _backwards(target: Target) -> str:
    now = target.payloads.now()
    message = target.payloads.spans({"start_time_unix_nano": now, "end_time_unix_nano": now - 1_000_000})
    outcome = target.export(TRACES, message)
    all_accepted({"span": outcome})
    return outcome.words


@SECTION.check(
    "51a",
    MUST,
    "keeps both schema URLs, the resource's and the scope's",
    sent="a span with both, then a query for it",
    expected="both",
    needs=("query",),
)
def _schema_urls(target: Target) -> str:
    message = _full_span(target)
    sent, came = message.resource_spans[0], _stored_envelope(target, message)
    require(came.schema_url == sent.schema_url, f"the resource's is {came.schema_url!r}")
    require(came.scope_spans[0].schema_url == sent.scope_spans[0].schema_url, "the scope's is lost")
    return "both"
