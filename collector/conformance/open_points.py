"""Section 7 of the list: what the specification leaves open, and a good server defines."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from collector.conformance.check import Failed, Level, NoAnswer, Section, Skipped, require
from collector.conformance.http2_client import GOAWAY, MAX_CONCURRENT_STREAMS, Http2Connection
from collector.conformance.target import LIMITED, MIB, ORIGIN, POWERLESS, Target, http_outcome, method_of
from collector.otlp.signals import LOGS, TRACES

if TYPE_CHECKING:
    from collector.conformance.grpc_client import GrpcAnswer
    from collector.conformance.http_client import HttpConnection, Response

SECTION = Section("Open points")
MUST, SHOULD, MAY = Level.MUST, Level.SHOULD, Level.MAY
PROMPT_S = 2.0
"""Well inside an exporter's timeout of ten seconds."""


@contextmanager
def crowd(target: Target) -> Iterator[HttpConnection]:
    """Hold nearly all of a server's budget of 1 MiB with a request that is not sent to its end."""
    held = MIB - 100_000
    with target.http.open() as connection:
        head = target.http.request("/v1/logs", b"", Content_Length=str(held), Expect="100-continue")
        connection.send(head)
        if connection.interim() != 100:
            raise Failed("the server had no room for the request that was to fill it")
        yield connection


@SECTION.check(
    "52a",
    MAY,
    "still has what it acknowledged when its process is killed",
    sent="a span; when it is acknowledged, SIGKILL; after a new start, a query for it",
    expected="the span",
    needs=("http", "query", "server"),
)
def _durable(target: Target) -> str:
    with target.fresh() as (subject, process, directory):
        message = subject.payloads.spans({})
        outcome = subject.export(TRACES, message)
        process.kill()
        require(outcome.accepted, outcome.words)
        with Target.on(target.clock, directory) as again:
            again.query.trace(message.resource_spans[0].scope_spans[0].spans[0].trace_id)
    return "the span is there after SIGKILL"


@SECTION.check(
    "53a",
    SHOULD,
    "announces how many calls of a connection it serves at once",
    sent="the preface of HTTP/2 to the gRPC port",
    expected="SETTINGS_MAX_CONCURRENT_STREAMS",
    needs=("grpc",),
)
def _streams(target: Target) -> str:
    if target.grpc.is_secure:
        raise Skipped("the raw HTTP/2 client does not speak TLS")
    with Http2Connection(target.grpc.host, target.grpc.port, target.timeout_s) as connection:
        limit = connection.settings().get(MAX_CONCURRENT_STREAMS)
    require(limit, "it is not announced: there is no limit")
    return f"{limit} calls"


@SECTION.check(
    "54a",
    SHOULD,
    "refuses requests without credentials, or with wrong ones, in a way that is not retried",
    sent="a span without the headers that --header gives, and with others in their place",
    expected="401 or 403 over HTTP, UNAUTHENTICATED or PERMISSION_DENIED over gRPC",
    needs=(),
)
def _credentials(target: Target) -> str:
    subject = target.guarded()
    known = subject.export(TRACES, subject.payloads.spans({}))
    require(known.accepted, f"with credentials: {known.words}")
    seen = []
    for how, headers in subject.strangers().items():
        answer, code = _refusals(subject, headers)
        require(answer is None or answer.code in (401, 403), f"{how}: {answer.words() if answer else ''}")
        wanted = ("UNAUTHENTICATED", "PERMISSION_DENIED")
        require(code is None or code.code in wanted, f"{how}: {code.words() if code else ''}")
        seen.append(f"{how} {' and '.join(str(one.code) for one in (answer, code) if one is not None)}")
    return "; ".join(seen)


@SECTION.check(
    "54b",
    SHOULD,
    "tells those apart who are not known, and those who are and may not",
    sent="a span without credentials, and with those of somebody who may read only",
    expected="401 with WWW-Authenticate and UNAUTHENTICATED; 403 and PERMISSION_DENIED",
    needs=("grpc", "http", "server"),
)
def _rights(target: Target) -> str:
    subject = target.guarded()
    for headers, code, name in (({}, 401, "UNAUTHENTICATED"), (POWERLESS, 403, "PERMISSION_DENIED")):
        answer, call = _refusals(subject, headers)
        assert answer is not None
        assert call is not None
        require(answer.code == code, answer.words())
        require(call.code == name, call.words())
        require(code != 401 or answer.headers.get("www-authenticate"), "401 without WWW-Authenticate")
    return "401 and UNAUTHENTICATED; 403 and PERMISSION_DENIED"


def _refusals(target: Target, headers: Mapping[str, str]) -> tuple[Response | None, GrpcAnswer | None]:
    """Send a span with other headers, over each transport that there is."""
    body = target.payloads.body(TRACES)
    answer = call = None
    if "http" in target.has:
        answer = target.http.with_headers(headers).post("/v1/traces", body)
    if "grpc" in target.has:
        client = target.grpc.with_headers(headers)
        call = client.call(method_of(TRACES), body)
        client.close()
    return answer, call


@SECTION.check(
    "55a",
    SHOULD,
    "answers for signals that it does not serve in a way that is not retried",
    sent="a message to /v1development/profiles, and to a service that does not exist",
    expected="404 (or 200) over HTTP, UNIMPLEMENTED over gRPC",
    needs=("grpc", "http"),
)
def _not_served(target: Target) -> str:
    answer = target.http.post("/v1development/profiles", b"")
    require(answer.code in (200, 404), f"profiles: {answer.words()}")
    call = target.grpc.call("/opentelemetry.proto.collector.dreams.v1.DreamService/Export", b"")
    require(call.code == "UNIMPLEMENTED", call.words())
    return f"{answer.code}, {call.code}"


@SECTION.check(
    "56a",
    SHOULD,
    "finishes what is in flight when it is stopped",
    sent="half a request, SIGTERM, the other half",
    expected="an answer: 200, or 503 so that it is sent again; then the end of the process",
    needs=("http", "server"),
)
def _in_flight(target: Target) -> str:
    with target.fresh() as (subject, process, _):
        body = subject.payloads.body(TRACES, 50)
        head = subject.http.request("/v1/traces", b"", Content_Length=str(len(body)), Expect="100-continue")
        with subject.http.open() as connection:
            connection.send(head)
            require(connection.interim() == 100, "no 100 Continue")
            connection.send(body[:100])
            process.terminate()
            connection.send(body[100:])
            answer = connection.response()
        code = process.wait()
    require(answer.code in (200, 503), answer.words())
    require(code == 0, f"the process ended with {code}" if code is not None else "the process did not end")
    return f"{answer.code}, and an orderly end"


@SECTION.check(
    "56b",
    SHOULD,
    "says GOAWAY to gRPC clients when it is stopped",
    sent="SIGTERM, with an idle HTTP/2 connection open",
    expected="GOAWAY",
    needs=("grpc", "server"),
)
def _goaway(target: Target) -> str:
    with (
        target.fresh() as (subject, process, _),
        Http2Connection(subject.grpc.host, subject.grpc.port, target.timeout_s) as connection,
    ):
        connection.settings()
        process.terminate()
        connection.until(GOAWAY)
        process.wait()
    return "GOAWAY"


@SECTION.check(
    "57a",
    MAY,
    "answers CORS preflight requests of origins that are allowed",
    sent="OPTIONS with Origin, Access-Control-Request-Method and -Headers: content-type,content-encoding,authorization",
    expected="2xx, with that origin and those headers allowed",
    needs=("http",),
)
def _preflight(target: Target) -> str:
    subject = target if target.own is None else target.variant(LIMITED)
    asked = "content-type,content-encoding,authorization"
    fields = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": asked,
    }
    answer = subject.http.exchange(subject.http.head("OPTIONS", "/v1/logs", fields), "OPTIONS")
    require(200 <= answer.code < 300, answer.words())
    origin = answer.headers.get("access-control-allow-origin", "")
    allowed = answer.headers.get("access-control-allow-headers", "").lower()
    require(origin in (ORIGIN, "*"), f"Access-Control-Allow-Origin: {origin or 'none'}")
    wanted = [name for name in asked.split(",") if name not in allowed and allowed != "*"]
    require(not wanted, f"not allowed: {', '.join(wanted)}")
    return f"{answer.code}, Access-Control-Allow-Origin: {origin}"


@SECTION.check(
    "57b",
    MAY,
    "lets pages of allowed origins read its answers",
    sent="a span with Origin",
    expected="200, Access-Control-Allow-Origin",
    needs=("http",),
)
def _cross_origin(target: Target) -> str:
    subject = target if target.own is None else target.variant(LIMITED)
    answer = subject.http.post("/v1/logs", subject.payloads.body(LOGS), Origin=ORIGIN)
    require(answer.code == 200, answer.words())
    origin = answer.headers.get("access-control-allow-origin", "")
    require(origin in (ORIGIN, "*"), f"Access-Control-Allow-Origin: {origin or 'none'}")
    return f"200, Access-Control-Allow-Origin: {origin}"


@SECTION.check(
    "58a",
    SHOULD,
    "survives a decompression bomb",
    sent="a gzip body that inflates to four times the size limit, a thousand times its own size; then a log record",
    expected="413 within the timeout, then 200",
    needs=("http",),
)
def _bomb(target: Target) -> str:
    subject = target.limited()
    size = 4 * subject.limit_bytes
    compressor = zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(bytes(MIB)) for _ in range(size // MIB)) + compressor.flush()
    answer = subject.http.post("/v1/logs", bomb, Content_Encoding="gzip")
    require(answer.code == 413, answer.words())
    after = http_outcome(LOGS, subject.http.post("/v1/logs", subject.payloads.body(LOGS)))
    require(after.accepted, f"afterwards: {after.words}")
    return f"{len(bomb)} bytes that inflate to {size // MIB} MiB: {answer.code}, then success"


@SECTION.check(
    "59a",
    SHOULD,
    "answers well inside an exporter's timeout",
    sent="twenty requests of 512 spans, one after the other",
    expected=f"each answer within {PROMPT_S:.0f} s",
    needs=(),
)
def _prompt(target: Target) -> str:
    message = target.payloads.spans(*({} for _ in range(512)))
    slowest = 0.0
    for _ in range(20):
        started = target.clock.monotonic()
        outcome = target.export(TRACES, message)
        slowest = max(slowest, target.clock.monotonic() - started)
        if not outcome.accepted:
            raise NoAnswer(outcome.words)
    require(slowest < PROMPT_S, f"the slowest took {slowest:.1f} s")
    return f"the slowest took {slowest * 1000:.0f} ms"
