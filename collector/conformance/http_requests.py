"""Section 3 of the list: requests of OTLP/HTTP."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from collector.conformance.check import Level, Section, require
from collector.conformance.grpc_calls import default_port, large
from collector.conformance.http2_client import Http2Connection
from collector.conformance.http_client import JSON, PROTOBUF, Response
from collector.conformance.target import CUSTOM_PATH, LIMITED, MIB, http_outcome
from collector.conformance.transport import all_accepted
from collector.otlp.signals import LOGS, SIGNALS, TRACES

if TYPE_CHECKING:
    from collector.conformance.target import Target

SECTION = Section("HTTP requests")
MUST, SHOULD, MAY = Level.MUST, Level.SHOULD, Level.MAY
CHUNK_BYTES = 64 * 1024


@SECTION.check("19a", SHOULD, "listens on port 4318 by default", sent="nothing", expected="port 4318", needs=("http",))
def _port(target: Target) -> str:
    return default_port(target, "http", target.http.port, 4318)


@SECTION.check(
    "19b",
    MUST,
    "takes POSTs at /v1/traces, /v1/metrics and /v1/logs",
    sent="a record to each path",
    expected="200",
    needs=("http",),
)
def _paths(target: Target) -> str:
    for one in SIGNALS:
        answer = target.http.post(one.http_path, target.payloads.body(one))
        require(answer.code == 200, f"{one.http_path}: {answer.words()}")
    return "200 at each"


@SECTION.check(
    "19c",
    MAY,
    "lets the paths be configured",
    sent=f"a span to {CUSTOM_PATH}, of a server that was told so",
    expected="200",
    needs=("http", "server"),
)
def _custom_path(target: Target) -> str:
    subject = target.variant(LIMITED)
    answer = subject.http.post(CUSTOM_PATH, subject.payloads.body(TRACES))
    require(answer.code == 200, answer.words())
    return f"200 at {CUSTOM_PATH}"


@SECTION.check(
    "20a",
    MUST,
    "reads each path's own Export…ServiceRequest",
    sent="twenty records of each signal to its path",
    expected="200, nothing rejected",
    needs=("http",),
)
def _bodies(target: Target) -> str:
    return all_accepted({one.name: target.export(one, target.payloads.message(one, 20)) for one in SIGNALS})


@SECTION.check(
    "21a",
    MUST,
    "reads application/x-protobuf as protobuf and application/json as JSON",
    sent="a span in each form, and each form under the other's name",
    expected="200 to the right ones, 400 to the wrong ones",
    needs=("http",),
)
def _media_types(target: Target) -> str:
    binary, text = target.payloads.body(TRACES), target.payloads.json(TRACES)
    for body, media_type, wanted in (
        (binary, PROTOBUF, 200),
        (text, JSON, 200),
        (binary, JSON, 400),
        (text, PROTOBUF, 400),
    ):
        answer = target.http.post("/v1/traces", body, media_type)
        form = "protobuf" if body is binary else "JSON"
        require(answer.code == wanted, f"{form} as {media_type}: {answer.words()}")
    return "each as its Content-Type says"


@SECTION.check(
    "21b",
    SHOULD,
    "reads media types with parameters, in any case",
    sent="Content-Type: application/json; charset=utf-8, and Application/X-Protobuf",
    expected="200",
    needs=("http",),
)
def _parameters(target: Target) -> str:
    json_answer = target.http.post("/v1/traces", target.payloads.json(TRACES), f"{JSON}; charset=utf-8")
    require(json_answer.code == 200, f"with charset: {json_answer.words()}")
    binary_answer = target.http.post("/v1/traces", target.payloads.body(TRACES), "Application/X-Protobuf")
    require(binary_answer.code == 200, f"in capitals: {binary_answer.words()}")
    return "200 to both"


@SECTION.check(
    "22a",
    MUST,
    "handles Content-Encoding: gzip for protobuf and JSON",
    sent="a span in each form, in gzip",
    expected="200, nothing rejected",
    needs=("http",),
)
def _gzip(target: Target) -> str:
    outcomes = {}
    for name, body, media_type in (
        ("protobuf", target.payloads.body(TRACES, 50), PROTOBUF),
        ("JSON", target.payloads.json(TRACES), JSON),
    ):
        answer = target.http.post("/v1/traces", gzip.compress(body), media_type, Content_Encoding="gzip")
        outcomes[name] = http_outcome(TRACES, answer)
    return all_accepted(outcomes)


@SECTION.check(
    "22b",
    MUST,
    "says Content-Encoding when it compresses a response",
    sent="a span with Accept-Encoding: gzip, and one without",
    expected="a body that its Content-Encoding tells how to read",
    needs=("http",),
)
def _accept_encoding(target: Target) -> str:
    seen = []
    for accepted in ("gzip", ""):
        answer = target.http.post("/v1/traces", target.payloads.json(TRACES), JSON, Accept_Encoding=accepted)
        require(answer.code == 200, answer.words())
        coding = answer.headers.get("content-encoding", "")
        require(coding in ("", "identity") or coding == accepted, f"Content-Encoding {coding!r} was not asked for")
        body = gzip.decompress(answer.body) if coding == "gzip" else answer.body
        http_outcome(TRACES, Response(answer.code, answer.headers, body))
        seen.append(coding or "none")
    return f"with Accept-Encoding: {seen[0]}; without: {seen[1]}"


@SECTION.check(
    "22c",
    SHOULD,
    "reads gzip of several members",
    sent="a request compressed in two pieces, one gzip member each",
    expected="200, nothing rejected",
    needs=("http",),
)
def _members(target: Target) -> str:
    body = target.payloads.body(TRACES, 20)
    cut = len(body) // 2
    made = gzip.compress(body[:cut]) + gzip.compress(body[cut:])
    return all_accepted(
        {"two members": http_outcome(TRACES, target.http.post("/v1/traces", made, Content_Encoding="gzip"))}
    )


@SECTION.check(
    "23a",
    MAY,
    "speaks HTTP/2 where it receives OTLP/HTTP",
    sent="the preface of HTTP/2",
    expected="SETTINGS",
    needs=("http",),
)
def _http2(target: Target) -> str:
    with Http2Connection(target.http.host, target.http.port, target.timeout_s) as connection:
        connection.settings()
    return "SETTINGS"


@SECTION.check(
    "24a",
    MUST,
    "refuses a body over the size limit with 413",
    sent="a body just over the limit (--limit for a foreign server), with Content-Length",
    expected="413",
    needs=("http",),
)
def _too_large(target: Target) -> str:
    subject = target.limited()
    answer = subject.http.post("/v1/logs", large(subject, subject.limit_bytes + CHUNK_BYTES))
    require(answer.code == 413, answer.words())
    return answer.words()


@SECTION.check(
    "24b",
    MUST,
    "refuses a chunked body over the size limit with 413",
    sent="the same body in chunks, without a length",
    expected="413",
    needs=("http",),
)
def _too_large_chunked(target: Target) -> str:
    subject = target.limited()
    body = large(subject, subject.limit_bytes + CHUNK_BYTES)
    pieces = [body[at : at + CHUNK_BYTES] for at in range(0, len(body), CHUNK_BYTES)]
    answer = subject.http.exchange(subject.http.chunked("/v1/logs", pieces))
    require(answer.code == 413, answer.words())
    return answer.words()


@SECTION.check(
    "24c",
    MUST,
    "refuses a body that is over the size limit once it is decompressed with 413",
    sent="the same body in gzip, a hundred times smaller",
    expected="413",
    needs=("http",),
)
def _too_large_inflated(target: Target) -> str:
    subject = target.limited()
    body = gzip.compress(large(subject, subject.limit_bytes + CHUNK_BYTES), 1)
    answer = subject.http.post("/v1/logs", body, Content_Encoding="gzip")
    require(answer.code == 413, answer.words())
    return answer.words()


@SECTION.check(
    "24d",
    SHOULD,
    "accepts bodies of nearly 64 MiB by default",
    sent="a valid request of 60 MiB, uncompressed",
    expected="200",
    needs=("http",),
)
def _default_limit(target: Target) -> str:
    answer = target.http.post("/v1/logs", large(target, 60 * MIB))
    require(answer.code == 200, answer.words())
    return all_accepted({"60 MiB": http_outcome(LOGS, answer)})


@SECTION.check(
    "24e",
    SHOULD,
    "lets the size limit be configured",
    sent="a request of 600 KiB, then one of 1088 KiB, to a server with a limit of 1 MiB",
    expected="200, then 413",
    needs=("http", "server"),
)
def _configurable_limit(target: Target) -> str:
    subject = target.variant(LIMITED)
    for size, wanted in ((600 * 1024, 200), (MIB + CHUNK_BYTES, 413)):
        answer = subject.http.post("/v1/logs", large(subject, size))
        require(answer.code == wanted, f"{size} bytes: {answer.words()}")
    return "it holds as configured"
