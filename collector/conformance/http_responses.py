"""Section 4 of the list: responses of OTLP/HTTP to what is taken, whole or in part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.conformance.check import Level, Section, require
from collector.conformance.grpc_calls import counted, partial_points, partial_spans
from collector.conformance.http_client import JSON, PROTOBUF, shown
from collector.conformance.target import json_object, partial_of, partial_of_json
from collector.otlp.signals import METRICS, SIGNALS, TRACES

if TYPE_CHECKING:
    from collector.conformance.target import Target

SECTION = Section("HTTP responses")
MUST, SHOULD = Level.MUST, Level.SHOULD


@SECTION.check(
    "25a",
    MUST,
    "answers success with 200 and the signal's response in protobuf",
    sent="a record of each signal in protobuf",
    expected="200, Content-Type: application/x-protobuf, a response that parses",
    needs=("http",),
)
def _success(target: Target) -> str:
    for one in SIGNALS:
        answer = target.http.post(one.http_path, target.payloads.body(one))
        require((answer.code, answer.media_type) == (200, PROTOBUF), f"{one.name}: {answer.words()}")
        partial_of(one, answer.body)
    return "200, application/x-protobuf"


@SECTION.check(
    "25b",
    MUST,
    "answers success with 200 and the signal's response in JSON",
    sent="a record of each signal in JSON",
    expected="200, Content-Type: application/json, an object",
    needs=("http",),
)
def _success_json(target: Target) -> str:
    for one in SIGNALS:
        answer = target.http.post(one.http_path, target.payloads.json(one), JSON)
        require((answer.code, answer.media_type) == (200, JSON), f"{one.name}: {answer.words()}")
        json_object(answer.body)
    return "200, application/json"


@SECTION.check(
    "25c",
    MUST,
    "answers partial success with 200",
    sent="seven spans, four of them with invalid ids",
    expected="200, and partial_success",
    needs=("http",),
)
def _partial_code(target: Target) -> str:
    wanted, message = partial_spans(target)
    outcome = target.export(TRACES, message)
    counted(outcome, wanted)
    return outcome.words


@SECTION.check(
    "26a",
    MUST,
    "leaves partial_success unset on success",
    sent="three records of each signal in protobuf, and one in JSON",
    expected="200, partial_success unset",
    needs=("http",),
)
def _unset(target: Target) -> str:
    for one in SIGNALS:
        outcome = target.export(one, target.payloads.message(one, 3))
        require(outcome.accepted and outcome.partial is None, f"{one.name}: {outcome.words}")
        answer = target.http.post(one.http_path, target.payloads.json(one), JSON)
        require(answer.code == 200, f"{one.name} as JSON: {answer.words()}")
        partial = partial_of_json(one, answer.body)
        require(partial is None, f"{one.name} as JSON: partialSuccess is set: {shown(answer.body)}")
    return "unset for all signals"


@SECTION.check(
    "26b",
    MUST,
    "counts rejected records exactly",
    sent="seven spans, four with invalid ids; five data points, two without a time",
    expected="rejected_spans 4, rejected_data_points 2",
    needs=("http",),
)
def _counts(target: Target) -> str:
    seen = []
    for signal, (wanted, message) in ((TRACES, partial_spans(target)), (METRICS, partial_points(target))):
        outcome = target.export(signal, message)
        seen.append(f"{signal.name}: {counted(outcome, wanted).rejected}")
    return ", ".join(seen)


@SECTION.check(
    "26c",
    MUST,
    "counts rejected records exactly in JSON",
    sent="a span without ids, in JSON",
    expected="200, partialSuccess with rejectedSpans 1",
    needs=("http",),
)
def _counts_json(target: Target) -> str:
    outcome = target.export_json(TRACES, target.payloads.json(TRACES, traceId="", spanId=""))
    counted(outcome, 1)
    return outcome.words


@SECTION.check(
    "26d",
    SHOULD,
    "says in a message why records were rejected",
    sent="seven spans, four of them with invalid ids",
    expected="error_message in partial_success",
    needs=("http",),
)
def _rejection_message(target: Target) -> str:
    wanted, message = partial_spans(target)
    outcome = target.export(TRACES, message)
    partial = counted(outcome, wanted)
    require(partial.message, "error_message is empty")
    return repr(partial.message)
