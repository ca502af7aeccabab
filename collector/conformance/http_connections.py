"""Section 4 of the list, at its end: how connections of OTLP/HTTP are used, and in which pieces requests come on them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from collector.conformance.check import Level, Section, require
from collector.conformance.http_client import JSON, PROTOBUF
from collector.conformance.target import http_outcome
from collector.otlp.signals import METRICS, SIGNALS, TRACES

if TYPE_CHECKING:
    from collector.conformance.target import Target

SECTION = Section("HTTP responses")
MUST, SHOULD = Level.MUST, Level.SHOULD

IDLE_S = 3.0
"""How long a connection rests before it is used again."""


@SECTION.check(
    "33a",
    SHOULD,
    "keeps connections open between requests",
    sent=f"two requests on one connection, with {IDLE_S:.0f} s of rest between",
    expected="200 to both",
    needs=("http",),
)
def _keep_alive(target: Target) -> str:
    with target.http.open() as connection:
        for i in range(2):
            connection.send(target.http.request("/v1/traces", target.payloads.body(TRACES)))
            answer = connection.response()
            require(answer.code == 200, answer.words())
            require(answer.headers.get("connection", "").lower() != "close", "Connection: close")
            if i == 0:
                require(connection.quiet(IDLE_S), f"the connection did not rest for {IDLE_S:.0f} s")
    return "200 to both"


@SECTION.check(
    "33b",
    MUST,
    "answers pipelined requests in their order",
    sent="protobuf, an unknown path, JSON and protobuf at once on one connection",
    expected="200, 404, 200 and 200",
    needs=("http",),
)
def _pipelining(target: Target) -> str:
    http = target.http
    requests = http.request("/v1/traces", target.payloads.body(TRACES)) + http.request("/v1/nothing", b"")
    requests += http.request("/v1/logs", target.payloads.json(SIGNALS[1]), JSON)
    requests += http.request("/v1/metrics", target.payloads.body(METRICS))
    with http.open() as connection:
        connection.send(requests)
        codes = [connection.response().code for _ in range(4)]
    require(codes == [200, 404, 200, 200], f"{codes}")
    return "in their order"


@SECTION.check(
    "33c",
    MUST,
    "reads chunked bodies",
    sent="a request in chunks of 100 bytes, with a chunk extension, as protobuf and as JSON",
    expected="200, nothing rejected",
    needs=("http",),
)
def _chunked(target: Target) -> str:
    for body, media_type in ((target.payloads.body(TRACES, 20), PROTOBUF), (target.payloads.json(TRACES), JSON)):
        pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
        request = target.http.chunked("/v1/traces", pieces, media_type).replace(b"\r\n64\r\n", b"\r\n64;a=b\r\n", 1)
        outcome = http_outcome(TRACES, target.http.exchange(request))
        require(outcome.accepted and not outcome.rejected, f"{media_type}: {outcome.words}")
    return "200 to both"


@SECTION.check(
    "33d",
    MUST,
    "answers Expect: 100-continue",
    sent="a head with Expect: 100-continue, and the body after the answer to it",
    expected="100, or a final answer; then 200",
    needs=("http",),
)
def _expect(target: Target) -> str:
    body = target.payloads.body(TRACES, 5)
    head = target.http.request("/v1/traces", b"", Content_Length=str(len(body)), Expect="100-continue")
    with target.http.open() as connection:
        connection.send(head)
        code = connection.interim()
        require(code == 100, f"{code} instead of 100")
        connection.send(body)
        answer = connection.response()
    require(answer.code == 200, answer.words())
    return "100, then 200"


@SECTION.check(
    "33e",
    MUST,
    "honours Connection: close",
    sent="a request with Connection: close",
    expected="200, and the end of the connection",
    needs=("http",),
)
def _close(target: Target) -> str:
    with target.http.open() as connection:
        connection.send(target.http.request("/v1/traces", target.payloads.body(TRACES), Connection="close"))
        answer = connection.response()
        require(answer.code == 200, answer.words())
        require(not connection.quiet(target.timeout_s / 2), "the connection stays open")
    return "200, and the end"


@SECTION.check(
    "33f",
    SHOULD,
    "reads a request that comes in pieces",
    sent="a request byte by byte in its head, and in two pieces in its body",
    expected="200",
    needs=("http",),
)
def _pieces(target: Target) -> str:
    body = target.payloads.body(TRACES, 5)
    request = target.http.request("/v1/traces", body)
    head = len(request) - len(body)
    with target.http.open() as connection:
        for at in range(head):
            connection.send(request[at : at + 1])
        connection.send(body[:7])
        threading.Event().wait(0.05)
        connection.send(body[7:])
        answer = connection.response()
    require(answer.code == 200, answer.words())
    return "200"
