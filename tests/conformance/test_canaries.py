"""Servers that break one rule are caught: each check named here passes against Ringtail and fails against them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from collector.clock import SystemClock
from collector.conformance import kit, readback
from collector.conformance.check import Check, Result, Verdict
from collector.conformance.target import KNOWN, Target
from collector.otlp.signals import TRACES
from tests.conformance.wrong import Change, Fixed, Spoiler, WrongGrpc, unchanged

PROTOBUF = b"application/x-protobuf"
CHECKS = {check.number: check for section in kit.SECTIONS for check in section.checks}


def checks(*numbers: str) -> list[Check]:
    return [CHECKS[number] for number in numbers]


def verdicts(target: Target, *numbers: str) -> dict[str, Verdict]:
    with target:
        return {one.check.number: one.verdict for one in kit.run(target, checks(*numbers))}


def replaced(old: bytes, new: bytes) -> Change:
    return lambda data: data.replace(old, new)


def without_header(name: bytes) -> Change:
    return lambda data: re.sub(rb"(?i)\r\n" + name + rb": [^\r]*", b"", data)


ANSWERS: list[tuple[str, Change]] = [
    ("19b", replaced(b"HTTP/1.1 200 OK", b"HTTP/1.1 202 Accepted")),
    ("21a", replaced(b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 200 OK")),
    ("22b", replaced(b"\r\nDate", b"\r\nContent-Encoding: br\r\nDate")),
    ("25a", replaced(PROTOBUF, b"application/json")),
    ("25a", replaced(b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No Content")),
    ("25a", without_header(b"Content-Type")),
    ("25b", replaced(b"Content-Length: 2\r\n", b"Content-Length: 0\r\n")),
    ("26a", lambda data: replaced(b"{}", b'{"partialSuccess":{}}')(replaced(b"gth: 2\r", b"gth: 21\r")(data))),
    ("26b", replaced(b"\x0a", b"\x0b")),
    ("26c", replaced(b'"1"', b'"2"')),
    ("27a", replaced(PROTOBUF, b"text/plain")),
    ("27b", replaced(b'"code":', b'"fault":')),
    ("27d", replaced(b"HTTP/1.1 404", b"HTTP/1.1 200")),
    ("27e", without_header(b"Content-Type")),
    ("27f", replaced(b"application/json", PROTOBUF)),
    ("28a", replaced(b"HTTP/1.1 400", b"HTTP/1.1 500")),
    ("28b", replaced(b"HTTP/1.1 400", b"HTTP/1.1 422")),
    ("28c", replaced(b"HTTP/1.1 400", b"HTTP/1.1 200")),
    ("28d", replaced(b"google.rpc.BadRequest", b"google.rpc.BadWeather")),
    ("29a", replaced(b"HTTP/1.1 400", b"HTTP/1.1 503")),
    ("32a", replaced(b"HTTP/1.1 404", b"HTTP/1.1 400")),
    ("32b", without_header(b"Allow")),
    ("32b", replaced(b"HTTP/1.1 405", b"HTTP/1.1 404")),
    ("32c", replaced(b"HTTP/1.1 415", b"HTTP/1.1 400")),
    ("32d", replaced(b"HTTP/1.1 415", b"HTTP/1.1 200")),
    ("33a", replaced(b"\r\nDate", b"\r\nConnection: close\r\nDate")),
    ("33b", replaced(b"HTTP/1.1 404", b"HTTP/1.1 200")),
    ("33d", replaced(b"HTTP/1.1 100 Continue", b"HTTP/1.1 417 Expectation Failed")),
    ("39b", replaced(b'"1"', b"1")),
    ("36b", replaced(b"HTTP/1.1 400", b"HTTP/1.1 200")),
]
"""Checks, and what is changed in the answers."""

REQUESTS: list[tuple[str, Change]] = [
    ("1d", without_header(b"Content-Encoding")),
    ("3b", replaced(b"{}", b"{[")),
    ("21b", replaced(b"; charset=utf-8", b"/odd")),
    ("34a", replaced(b'"traceId": "', b'"traceId": "zz')),
    ("35b", replaced(b'"bytesValue": "', b'"bytesValue": "!')),
    ("37a", replaced(b'"brandNew"', b'"resourceSpans"')),
    ("39a", replaced(b'"count": 3', b'"count": 3.5')),
    ("40a", replaced(b'"NaN"', b'"nan"')),
    ("41a", replaced(b'"status": null', b'"status": 0')),
    ("42a", replaced(b'"kind": 2', b'"kind": "two"')),
]
"""Checks, and what is changed in the requests, as a server does that reads them wrongly."""


@pytest.mark.parametrize(("number", "change"), ANSWERS, ids=[f"{number}-{i}" for i, (number, _) in enumerate(ANSWERS)])
def test_a_wrong_answer_is_caught(number: str, change: Change, ringtail: Target) -> None:
    assert ringtail.own is not None
    with Spoiler(ringtail.own.addresses["otlp/http"]) as honest:
        target = Target(clock=SystemClock(), http=honest.address, timeout_s=3.0)
        assert verdicts(target, number) == {number: Verdict.PASS}
    with Spoiler(ringtail.own.addresses["otlp/http"], answers=change) as wrong:
        target = Target(clock=SystemClock(), http=wrong.address, timeout_s=1.0)
        assert verdicts(target, number) == {number: Verdict.FAIL}


@pytest.mark.parametrize(("number", "change"), REQUESTS, ids=[number for number, _ in REQUESTS])
def test_a_wrong_reading_is_caught(number: str, change: Change, ringtail: Target) -> None:
    assert ringtail.own is not None
    with Spoiler(ringtail.own.addresses["otlp/http"], requests=change) as wrong:
        target = Target(clock=SystemClock(), http=wrong.address, timeout_s=1.0)
        assert verdicts(target, number) == {number: Verdict.FAIL}


ACCEPTED = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 500 Oh\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno"


def results_of(answer: bytes, limit_bytes: int = 1 << 16) -> dict[str, Result]:
    """Make all checks against a server with one answer."""
    with Fixed(answer) as wrong:
        target = Target(clock=SystemClock(), http=wrong.address, limit_bytes=limit_bytes, timeout_s=1.0)
        with target:
            every = [check for check in CHECKS.values() if check.number not in ("33a", "24d", "58a", "31a")]
            return {one.check.number: one for one in kit.run(target, every)}


def test_a_server_that_takes_everything_is_caught() -> None:
    results = results_of(ACCEPTED)
    failed = {number for number, one in results.items() if one.verdict is Verdict.FAIL}
    assert failed >= {"21a", "24a", "24b", "24c", "25b", "27a", "27b", "27c", "27d", "27e", "27f", "28a", "28b", "28c"}
    assert failed >= {"32a", "32b", "32c", "32d", "33b", "33d", "34c", "36b", "41b"}
    assert failed >= {"43a", "43b", "47a", "47b", "47c", "47d", "47e", "47f"}
    skipped = {number for number, one in results.items() if one.verdict is Verdict.SKIP}
    assert skipped >= {"25c", "26b"}, "nothing was rejected, so nothing was counted"
    assert results["1c"].verdict is Verdict.PASS


def test_a_server_that_refuses_everything_passes_nothing() -> None:
    results = results_of(REFUSED)
    passed = {number for number, one in results.items() if one.verdict is Verdict.PASS}
    assert passed == set()


def test_a_server_that_says_nothing_passes_nothing() -> None:
    with Fixed(b"") as wrong, Target(clock=SystemClock(), http=wrong.address, timeout_s=0.1) as target:
        for one in kit.run(target, checks("1c", "3b", "27d", "28a", "33b", "37a", "43a")):
            assert (one.verdict, one.seen) == (Verdict.FAIL, "no answer in time")


@pytest.mark.parametrize("answer", [b"220 smtp.example ESMTP\r\n\r\n", b"\xff\xff\r\n\r\n", b"HTTP/1.1 2OO OK\r\n\r\n"])
def test_a_server_that_speaks_something_else(answer: bytes) -> None:
    with Fixed(answer) as wrong, Target(clock=SystemClock(), http=wrong.address, timeout_s=1.0) as target:
        (result,) = kit.run(target, checks("1c"))
    assert result.verdict is Verdict.FAIL
    assert "no HTTP/1.1 answer" in result.seen


# --- gRPC -----------------------------------------------------------------------------------------------------


def empty_partial(payload: bytes, context: Any) -> bytes:
    return b"\x0a\x00"


def silent_partial(payload: bytes, context: Any) -> bytes:
    return bytes(TRACES.response_type(partial_success={"rejected_spans": 4}).SerializeToString())


def too_many(payload: bytes, context: Any) -> bytes:
    return bytes(TRACES.response_type(partial_success={"rejected_spans": 7, "error_message": "x"}).SerializeToString())


def chatty(payload: bytes, context: Any) -> bytes:
    message = "complaint " * 500_000
    return bytes(TRACES.response_type(partial_success={"error_message": message}).SerializeToString())


def ended(code: grpc.StatusCode) -> Callable[[bytes, Any], bytes]:
    def answer(payload: bytes, context: Any) -> bytes:
        context.abort(code, "no")
        raise AssertionError

    return answer


def accepted(payload: bytes, context: Any) -> bytes:
    return b""


def crashed(payload: bytes, context: Any) -> bytes:
    raise RuntimeError("an exception that escapes")


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [
        (empty_partial, ["12a", "14a"]),
        (silent_partial, ["12a", "13c"]),
        (too_many, ["13a"]),
        (chatty, ["11a"]),
        (accepted, ["10a", "10b", "10c", "16a", "17a"]),
        (crashed, ["1a", "3a", "8a", "10a", "16a"]),
        (ended(grpc.StatusCode.UNAVAILABLE), ["10a", "16a", "17a", "8b"]),
        (ended(grpc.StatusCode.OUT_OF_RANGE), ["10a", "10b", "10c", "17a"]),
        (ended(grpc.StatusCode.INVALID_ARGUMENT), ["1a", "1b", "2a", "3a", "9a", "10a", "16b"]),
    ],
    ids=lambda one: "" if isinstance(one, list) else getattr(one, "__name__", ""),
)
def test_a_wrong_grpc_server_is_caught(answer: Callable[[bytes, Any], bytes], numbers: list[str]) -> None:
    with WrongGrpc(answer) as wrong:
        target = Target(clock=SystemClock(), grpc=wrong.address, limit_bytes=1 << 16, timeout_s=5.0)
        assert verdicts(target, *numbers) == dict.fromkeys(numbers, Verdict.FAIL)


# --- who is asked ---------------------------------------------------------------------------------------------


def test_a_server_that_lets_everybody_in_is_caught(ringtail: Target) -> None:
    assert ringtail.own is not None
    found = ringtail.own.addresses
    for only in ({"http": f"http://{found['otlp/http']}"}, {"grpc": found["otlp/grpc"]}):
        target = Target(clock=SystemClock(), headers=KNOWN, timeout_s=5.0, **only)
        assert verdicts(target, "54a") == {"54a": Verdict.FAIL}
    target = Target(clock=SystemClock(), headers=KNOWN, http=f"http://{found['otlp/http']}")
    assert verdicts(target, "27i") == {"27i": Verdict.FAIL}


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (unchanged, set()),
        (replaced(b"HTTP/1.1 401", b"HTTP/1.1 503"), {"27i", "54a"}),
        (replaced(b"\x08\x10", b"\x0b\x10"), {"27i"}),
        (replaced(b"HTTP/1.1 200", b"HTTP/1.1 401"), {"54a"}),
    ],
)
def test_a_server_that_refuses_strangers_wrongly_is_caught(ringtail: Target, change: Change, failed: set[str]) -> None:
    guarded = ringtail.guarded()
    assert guarded.own is not None
    with Spoiler(guarded.own.addresses["otlp/http"], answers=change) as server:
        target = Target(clock=SystemClock(), headers=KNOWN, http=server.address, timeout_s=3.0)
        found = verdicts(target, "27i", "54a")
    assert {number for number, verdict in found.items() if verdict is Verdict.FAIL} == failed


def test_an_open_endpoint_is_not_asked_for_credentials(ringtail: Target) -> None:
    assert ringtail.own is not None
    target = Target(clock=SystemClock(), grpc=ringtail.own.addresses["otlp/grpc"])
    assert verdicts(target, "54a") == {"54a": Verdict.SKIP}


def test_another_service_in_the_place_of_http(ringtail: Target) -> None:
    """The gRPC port, taken for the HTTP port."""
    assert ringtail.own is not None
    target = Target(clock=SystemClock(), http=ringtail.own.addresses["otlp/grpc"], timeout_s=1.0)
    assert verdicts(target, "1c", "27a") == dict.fromkeys(("1c", "27a"), Verdict.FAIL)


# --- what was stored ------------------------------------------------------------------------------------------

STORED: list[tuple[str, Change]] = [
    ("34b", replaced(b"check", b"")),
    ("48c", replaced(b'"7"', b'"8"')),
    ("48d", replaced(b"vendor=a,other=b", b"vendor=a,other=c")),
    ("48d", replaced(b"it failed", b"IT FAILED")),
    ("48e", replaced(b"scope.attribute", b"scope,attribute")),
    ("48e", replaced(b"https://example.com/entity", b"https://example.com/entitY")),
    ("48f", lambda data: re.sub(rb"\xfa\x7c\x0c.{12}", b"\xfa\x7c\x0c" + bytes(12), data, flags=re.DOTALL)),
    ("48g", replaced(b"42a", b"42b")),
    ("49b", lambda data: re.sub(rb'\["\d{19}"', b'["1790000000000000000"', data)),
    ("51a", replaced(b"schemas/1.35.0", b"schemas/1.36.0")),
]


@pytest.mark.parametrize(("number", "change"), STORED, ids=[f"{number}-{i}" for i, (number, _) in enumerate(STORED)])
def test_what_comes_back_otherwise_is_caught(
    number: str, change: Change, ringtail: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readback, "PATIENCE_S", 0.3)
    assert ringtail.own is not None
    found = ringtail.own.addresses
    with Spoiler(found["api"], answers=change) as wrong:
        target = Target(clock=SystemClock(), http=found["otlp/http"], query=wrong.address, timeout_s=1.0)
        assert verdicts(target, number) == {number: Verdict.FAIL}


def test_what_is_forgotten_is_caught(ringtail: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "PATIENCE_S", 0.3)
    with Fixed(ACCEPTED) as forgetful:
        assert ringtail.own is not None
        query = ringtail.own.addresses["api"]
        target = Target(clock=SystemClock(), http=forgetful.address, query=query, timeout_s=1.0)
        numbers = ("5b", "34b", "48c", "48d", "48e", "48f", "48g", "49b", "51a")
        assert verdicts(target, *numbers) == dict.fromkeys(numbers, Verdict.FAIL)
