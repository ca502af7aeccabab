"""Section 1 of the list: what holds for both transports."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from collector.conformance.check import Level, NoAnswer, Section, require
from collector.conformance.http2_client import Http2Connection
from collector.conformance.http_client import JSON
from collector.conformance.payloads import field
from collector.conformance.target import grpc_outcome, http_outcome, method_of
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES

if TYPE_CHECKING:
    from collector.conformance.target import Outcome, Target

SECTION = Section("Transport")
MUST, SHOULD, MAY = Level.MUST, Level.SHOULD, Level.MAY
UNKNOWN_FIELD = 1999
"""A field number that no message of OTLP has."""


def all_accepted(outcomes: dict[str, Outcome]) -> str:
    """Return what was seen when every record of every request was accepted, and fail otherwise."""
    for name, one in outcomes.items():
        require(one.accepted and not one.rejected, f"{name}: {one.words}")
    return f"{', '.join(outcomes)}: accepted"


@SECTION.check(
    "1a",
    MUST,
    "accepts uncompressed requests over gRPC",
    sent="one record of each signal, uncompressed",
    expected="OK, nothing rejected",
    needs=("grpc",),
)
def _plain_grpc(target: Target) -> str:
    calls = {one: target.grpc.call(method_of(one), target.payloads.body(one)) for one in SIGNALS}
    return all_accepted({one.name: grpc_outcome(one, call) for one, call in calls.items()})


@SECTION.check(
    "1b",
    MUST,
    "accepts gzip requests over gRPC",
    sent="fifty records of each signal, with grpc-encoding: gzip",
    expected="OK, nothing rejected",
    needs=("grpc",),
)
def _gzip_grpc(target: Target) -> str:
    calls = {one: target.grpc.call(method_of(one), target.payloads.body(one, 50), gzip=True) for one in SIGNALS}
    return all_accepted({one.name: grpc_outcome(one, call) for one, call in calls.items()})


@SECTION.check(
    "1c",
    MUST,
    "accepts uncompressed requests over HTTP",
    sent="one record of each signal in protobuf, uncompressed",
    expected="200, nothing rejected",
    needs=("http",),
)
def _plain_http(target: Target) -> str:
    answers = {one: target.http.post(one.http_path, target.payloads.body(one)) for one in SIGNALS}
    return all_accepted({one.name: http_outcome(one, answer) for one, answer in answers.items()})


@SECTION.check(
    "1d",
    MUST,
    "accepts gzip requests over HTTP",
    sent="fifty records of each signal in protobuf, with Content-Encoding: gzip",
    expected="200, nothing rejected",
    needs=("http",),
)
def _gzip_http(target: Target) -> str:
    made = {one: gzip.compress(target.payloads.body(one, 50)) for one in SIGNALS}
    answers = {one: target.http.post(one.http_path, body, Content_Encoding="gzip") for one, body in made.items()}
    return all_accepted({one.name: http_outcome(one, answer) for one, answer in answers.items()})


def _with_unknown_fields(target: Target) -> bytes:
    """Return a request with fields of a later version: in the request, in its envelope, and in a span."""
    message = target.payloads.spans({})
    span = message.resource_spans[0].scope_spans[0].spans[0]
    span.MergeFromString(field(UNKNOWN_FIELD, b"of a later version"))
    message.resource_spans[0].MergeFromString(field(UNKNOWN_FIELD, b"\xff\x00"))
    return bytes(message.SerializeToString()) + field(UNKNOWN_FIELD, b"and more")


@SECTION.check(
    "2a",
    MUST,
    "ignores unknown protobuf fields over gRPC",
    sent="a span with fields numbered 1999 in the request, its envelope and the span",
    expected="OK, nothing rejected",
    needs=("grpc",),
)
def _unknown_grpc(target: Target) -> str:
    outcome = grpc_outcome(TRACES, target.grpc.call(method_of(TRACES), _with_unknown_fields(target)))
    return all_accepted({"traces": outcome})


@SECTION.check(
    "2b",
    MUST,
    "ignores unknown protobuf fields over HTTP",
    sent="a span with fields numbered 1999 in the request, its envelope and the span",
    expected="200, nothing rejected",
    needs=("http",),
)
def _unknown_http(target: Target) -> str:
    return all_accepted({"traces": http_outcome(TRACES, target.http.post("/v1/traces", _with_unknown_fields(target)))})


@SECTION.check(
    "3a",
    SHOULD,
    "answers success to an empty request over gRPC",
    sent="an empty message to each Export",
    expected="OK, partial_success unset",
    needs=("grpc",),
)
def _empty_grpc(target: Target) -> str:
    outcomes = {one.name: grpc_outcome(one, target.grpc.call(method_of(one), b"")) for one in SIGNALS}
    return all_accepted(outcomes)


@SECTION.check(
    "3b",
    SHOULD,
    "answers success to an empty request over HTTP",
    sent="a body of zero bytes as protobuf, and {} as JSON, to each path",
    expected="200, partial_success unset",
    needs=("http",),
)
def _empty_http(target: Target) -> str:
    outcomes = {}
    for one in SIGNALS:
        outcomes[one.name] = http_outcome(one, target.http.post(one.http_path, b""))
        outcomes[f"{one.name} as JSON"] = target.export_json(one, b"{}")
    return all_accepted(outcomes)


@SECTION.check(
    "4a",
    MAY,
    "ignores empty envelopes",
    sent="a resource without scopes, and a scope without spans, beside a span",
    expected="success",
    needs=(),
)
def _empty_envelopes(target: Target) -> str:
    message = target.payloads.spans({})
    message.resource_spans.add().resource.attributes.add(key="only")
    message.resource_spans[0].scope_spans.add().scope.name = "without spans"
    return all_accepted({"traces": target.export(TRACES, message)})


@SECTION.check(
    "5a",
    MUST,
    "tolerates the same request twice, as after a retry",
    sent="one request of each signal two times",
    expected="success both times",
    needs=(),
)
def _duplicates(target: Target) -> str:
    outcomes = {}
    for one in SIGNALS:
        body = target.payloads.body(one, 3)
        outcomes[f"{one.name} once"] = target.export(one, body)
        outcomes[f"{one.name} again"] = target.export(one, body)
    return all_accepted(outcomes)


@SECTION.check(
    "5b",
    MUST,
    "still answers for what it was sent twice",
    sent="one span two times, then a query for its trace",
    expected="the trace, with that span",
    needs=("query",),
)
def _duplicates_stored(target: Target) -> str:
    message = target.payloads.spans({})
    for _ in range(2):
        all_accepted({"traces": target.export(TRACES, message)})
    found = target.query.trace_message(message.resource_spans[0].scope_spans[0].spans[0].trace_id)
    count = sum(len(scope.spans) for envelope in found.resource_spans for scope in envelope.scope_spans)
    require(count, "the trace has no span")
    return f"the trace, with {count} spans"


@SECTION.check(
    "6a",
    MAY,
    "serves gRPC and HTTP on one port",
    sent="the preface of HTTP/2 to the HTTP port, and a POST of HTTP/1.1 to the gRPC port",
    expected="that one of the ports speaks both",
    needs=("grpc", "http"),
)
def _one_port(target: Target) -> str:
    http, grpc = target.http, target.grpc
    if (http.host, http.port) == (grpc.host, grpc.port):
        return "both endpoints are one"
    try:
        with Http2Connection(http.host, http.port, target.timeout_s) as connection:
            connection.settings()
    except NoAnswer as error:
        raise NoAnswer(f"they have a port each; on the HTTP port, {error}") from error
    return "the HTTP port speaks HTTP/2, too"


@SECTION.check(
    "6b",
    SHOULD,
    "serves protobuf and JSON on one port, by Content-Type",
    sent="a record of each signal in protobuf and in JSON to the same path",
    expected="200, nothing rejected",
    needs=("http",),
)
def _both_encodings(target: Target) -> str:
    outcomes = {}
    for one in (TRACES, LOGS, METRICS):
        outcomes[one.name] = target.export(one, target.payloads.message(one))
        answer = target.http.post(one.http_path, target.payloads.json(one), JSON)
        outcomes[f"{one.name} as JSON"] = http_outcome(one, answer)
    return all_accepted(outcomes)
