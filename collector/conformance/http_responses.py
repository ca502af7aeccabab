"""Section 4 of the list: responses of OTLP/HTTP."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from collector.conformance.check import Failed, Level, Section, Skipped, require
from collector.conformance.grpc_calls import DAMAGED, RESPONSE_BYTES_MAX, counted, large, partial_points, partial_spans
from collector.conformance.http_client import JSON, PROTOBUF, Response, shown
from collector.conformance.open_points import crowd
from collector.conformance.target import CROWDED, http_outcome, json_object, partial_of, partial_of_json
from collector.otlp.signals import METRICS, SIGNALS, TRACES

if TYPE_CHECKING:
    from collector.conformance.target import Target

SECTION = Section("HTTP responses")
MUST, SHOULD, MAY = Level.MUST, Level.SHOULD, Level.MAY

RETRYABLE = frozenset({429, 502, 503, 504})
DAMAGED_JSON = {
    "a text cut short": b'{"resourceSpans":[{"scopeSpans":[',
    "an array": b"[1, 2]",
    "a number for a message": b'{"resourceSpans":[7]}',
    "a time that is no number": b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"soon"}]}]}]}',
    "no JSON": b"this is no message at all",
}
"""Bodies that are no ExportTraceServiceRequest in JSON."""
IDLE_S = 3.0
"""How long a connection rests before it is used again."""


def status_in(answer: Response, media_type: str) -> tuple[str, dict[str, Any]]:
    """Return the message of an error's Status, and the whole of it as plain values; Failed when the body is none."""
    require(answer.code >= 400, f"no error: {answer.words()}")
    require(answer.media_type == media_type, f"not in the request's encoding: {answer.words()}")
    if media_type == JSON:
        found = json_object(answer.body)
        fits = (
            isinstance(found.get("code", 0), int)
            and isinstance(found.get("message", ""), str)
            and isinstance(found.get("details", []), list)
            and not set(found) - {"code", "message", "details"}
        )
        require(fits, f"the body is no google.rpc.Status: {answer.words()}")
        return str(found.get("message", "")), found
    try:
        status = Status.FromString(answer.body)
    except DecodeError as error:
        raise Failed(f"the body is no google.rpc.Status: {answer.words()}") from error
    details = [{"@type": one.type_url} for one in status.details]
    return status.message, {"code": status.code, "message": status.message, "details": details}


def _both(target: Target, path: str, method: str = "POST", **headers: str) -> list[tuple[Response, str]]:
    """Return the answers to one wrong request in both encodings, each with its media type."""
    found = []
    for media_type, body in ((PROTOBUF, target.payloads.body(TRACES)), (JSON, target.payloads.json(TRACES))):
        request = target.http.request(path, body, media_type, method, **headers)
        found.append((target.http.exchange(request, method), media_type))
    return found


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
    if not outcome.accepted:
        raise Skipped(f"the server refuses the whole request: {outcome.words}")
    counted(outcome.partial, wanted)
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
        if not outcome.accepted:
            raise Skipped(f"the server refuses the whole request: {outcome.words}")
        seen.append(f"{signal.name}: {counted(outcome.partial, wanted).rejected}")
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
    if not outcome.accepted:
        raise Skipped(f"the server refuses the whole request: {outcome.words}")
    counted(outcome.partial, 1)
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
    if not outcome.accepted:
        raise Skipped(f"the server refuses the whole request: {outcome.words}")
    partial = counted(outcome.partial, wanted)
    require(partial.message, "error_message is empty")
    return repr(partial.message)


@SECTION.check(
    "27a",
    MUST,
    "answers 400 with a Status in protobuf to protobuf",
    sent="a body that is no request",
    expected="application/x-protobuf, a google.rpc.Status",
    needs=("http",),
)
def _status_400(target: Target) -> str:
    answer = target.http.post("/v1/traces", DAMAGED["a field cut short"])
    return f"{answer.code}, Status: {status_in(answer, PROTOBUF)[0]!r}"


@SECTION.check(
    "27b",
    MUST,
    "answers 400 with a Status in JSON to JSON",
    sent="a body that is no JSON",
    expected="application/json, a google.rpc.Status",
    needs=("http",),
)
def _status_400_json(target: Target) -> str:
    answer = target.http.post("/v1/traces", DAMAGED_JSON["a text cut short"], JSON)
    return f"{answer.code}, Status: {status_in(answer, JSON)[0]!r}"


@SECTION.check(
    "27c",
    MUST,
    "answers 413 with a Status in the request's encoding",
    sent="a body over the size limit, as protobuf and as JSON",
    expected="413 and a google.rpc.Status in each encoding",
    needs=("http",),
)
def _status_413(target: Target) -> str:
    subject = target.limited()
    body = large(subject, subject.limit_bytes + 64 * 1024)
    for media_type in (PROTOBUF, JSON):
        answer = subject.http.post("/v1/logs", body, media_type)
        require(answer.code == 413, answer.words())
        message = status_in(answer, media_type)[0]
    return f"413, Status: {message!r}"


@SECTION.check(
    "27d",
    MUST,
    "answers 404 with a Status in the request's encoding",
    sent="a span to /v1/nothing, as protobuf and as JSON",
    expected="404 and a google.rpc.Status in each encoding",
    needs=("http",),
)
def _status_404(target: Target) -> str:
    for answer, media_type in _both(target, "/v1/nothing"):
        message = status_in(answer, media_type)[0]
    return f"{answer.code}, Status: {message!r}"


@SECTION.check(
    "27e",
    MUST,
    "answers 405 with a Status in the request's encoding",
    sent="PUT of a span to /v1/traces, as protobuf and as JSON",
    expected="405 and a google.rpc.Status in each encoding",
    needs=("http",),
)
def _status_405(target: Target) -> str:
    for answer, media_type in _both(target, "/v1/traces", "PUT"):
        message = status_in(answer, media_type)[0]
    return f"{answer.code}, Status: {message!r}"


@SECTION.check(
    "27f",
    MUST,
    "answers an unknown Content-Encoding with a Status in the request's encoding",
    sent="a span with Content-Encoding: x-unheard-of, as protobuf and as JSON",
    expected="4xx and a google.rpc.Status in each encoding",
    needs=("http",),
)
def _status_415(target: Target) -> str:
    for answer, media_type in _both(target, "/v1/traces", Content_Encoding="x-unheard-of"):
        message = status_in(answer, media_type)[0]
    return f"{answer.code}, Status: {message!r}"


@SECTION.check(
    "27g",
    MUST,
    "answers overload with a Status in the request's encoding",
    sent="a body while requests in flight fill the server's budget, as protobuf and as JSON",
    expected="an error and a google.rpc.Status in each encoding",
    needs=("http", "server"),
)
def _status_503(target: Target) -> str:
    for media_type in (PROTOBUF, JSON):
        answer = crowded(target, media_type)
        message = status_in(answer, media_type)[0]
    return f"{answer.code}, Status: {message!r}"


@SECTION.check(
    "27h",
    SHOULD,
    "has a message for developers in every Status",
    sent="bad bodies, an unknown path, a wrong method and an unknown encoding",
    expected="a message in each",
    needs=("http",),
)
def _messages(target: Target) -> str:
    answers = [target.http.post("/v1/traces", DAMAGED["text"]), target.http.post("/v1/nothing", b"")]
    answers.append(target.http.post("/v1/traces", b"", Content_Encoding="x-unheard-of"))
    answers.append(target.http.exchange(target.http.request("/v1/traces", b"", PROTOBUF, "PUT"), "PUT"))
    for answer in answers:
        require(status_in(answer, PROTOBUF)[0], f"no message: {answer.words()}")
    return f"{len(answers)} messages"


@SECTION.check(
    "27i",
    MUST,
    "answers who is not known with a Status in the request's encoding",
    sent="a span without the headers that --header gives, as protobuf and as JSON",
    expected="401 or 403 and a google.rpc.Status in each encoding",
    needs=("http",),
)
def _status_401(target: Target) -> str:
    stranger = target.guarded().http.with_headers({})
    for media_type, body in ((PROTOBUF, target.payloads.body(TRACES)), (JSON, b"{}")):
        answer = stranger.post("/v1/traces", body, media_type)
        require(answer.code in (401, 403), answer.words())
        message = status_in(answer, media_type)[0]
    return f"{answer.code}, Status: {message!r}"


@SECTION.check(
    "28a",
    MUST,
    "answers 400 to protobuf that cannot be decoded",
    sent=", ".join(DAMAGED),
    expected="400",
    needs=("http",),
)
def _damaged(target: Target) -> str:
    for name, body in DAMAGED.items():
        answer = target.http.post("/v1/traces", body)
        require(answer.code == 400, f"{name}: {answer.words()}")
    return "400 to each"


@SECTION.check(
    "28b",
    MUST,
    "answers 400 to JSON that cannot be decoded",
    sent=", ".join(DAMAGED_JSON),
    expected="400",
    needs=("http",),
)
def _damaged_json(target: Target) -> str:
    for name, body in DAMAGED_JSON.items():
        answer = target.http.post("/v1/traces", body, JSON)
        require(answer.code == 400, f"{name}: {answer.words()}")
    return "400 to each"


@SECTION.check(
    "28c",
    MUST,
    "answers 400 to a body that does not decompress",
    sent="text with Content-Encoding: gzip",
    expected="400",
    needs=("http",),
)
def _damaged_gzip(target: Target) -> str:
    answer = target.http.post("/v1/traces", b"this is no gzip", Content_Encoding="gzip")
    require(answer.code == 400, answer.words())
    return answer.words()


@SECTION.check(
    "28d",
    SHOULD,
    "says with BadRequest what is wrong",
    sent="bodies that are no request, as protobuf and as JSON",
    expected="google.rpc.BadRequest in the details",
    needs=("http",),
)
def _bad_request(target: Target) -> str:
    for media_type, body in ((PROTOBUF, DAMAGED["text"]), (JSON, DAMAGED_JSON["no JSON"])):
        status = status_in(target.http.post("/v1/traces", body, media_type), media_type)[1]
        kinds = [str(one.get("@type", "")).rpartition("/")[2] for one in status.get("details", [])]
        require(BadRequest.DESCRIPTOR.full_name in kinds, f"{media_type}: details hold {kinds or 'nothing'}")
    return "BadRequest in both encodings"


@SECTION.check(
    "29a",
    MUST,
    "never asks for bad data to be sent again",
    sent="bad bodies in protobuf, JSON and gzip",
    expected="no 429, 502, 503 or 504, and no other 5xx",
    needs=("http",),
)
def _never_again(target: Target) -> str:
    answers = [target.http.post("/v1/traces", body) for body in DAMAGED.values()]
    answers += [target.http.post("/v1/traces", body, JSON) for body in DAMAGED_JSON.values()]
    answers.append(target.http.post("/v1/traces", b"this is no gzip", Content_Encoding="gzip"))
    for answer in answers:
        require(answer.code not in RETRYABLE and answer.code < 500, answer.words())
    return ", ".join(sorted({str(one.code) for one in answers}))


def crowded(target: Target, media_type: str = PROTOBUF) -> Response:
    """Return the answer of a server that has no room at the moment."""
    subject = target.variant(CROWDED)
    with crowd(subject):
        return subject.http.post("/v1/logs", large(subject, 500_000), media_type)


@SECTION.check(
    "30a",
    SHOULD,
    "answers overload with 429 or 503",
    sent="a body while requests in flight fill the server's budget",
    expected="429 or 503",
    needs=("http", "server"),
)
def _overload(target: Target) -> str:
    answer = crowded(target)
    require(answer.code in (429, 503), answer.words())
    return answer.words()


@SECTION.check(
    "30b",
    MAY,
    "says with Retry-After when to try again",
    sent="a body while requests in flight fill the server's budget",
    expected="Retry-After, in seconds or as a date",
    needs=("http", "server"),
)
def _retry_after(target: Target) -> str:
    found = crowded(target).headers.get("retry-after", "")
    require(found, "there is none")
    return f"Retry-After: {found}"


@SECTION.check(
    "31a",
    MUST,
    "limits the size of responses",
    sent="10,000 spans with invalid ids and long names, each of which could be complained about",
    expected="a body of less than 4 MiB",
    needs=("http",),
)
def _response_limit(target: Target) -> str:
    message = target.payloads.spans(*({"trace_id": b"\0", "name": f"span {i} " + "x" * 200} for i in range(10_000)))
    answer = target.http.post("/v1/traces", message.SerializeToString())
    require(len(answer.body) < RESPONSE_BYTES_MAX, f"a body of {len(answer.body)} bytes")
    return f"{answer.code}, {len(answer.body)} bytes"


@SECTION.check(
    "32a",
    MUST,
    "answers 404 to unknown paths",
    sent="a span to /v1/nothing",
    expected="404",
    needs=("http",),
)
def _not_found(target: Target) -> str:
    answer = target.http.post("/v1/nothing", target.payloads.body(TRACES))
    require(answer.code == 404, answer.words())
    return answer.words()


@SECTION.check(
    "32b",
    MUST,
    "answers 405 to other methods, and says with Allow which one it takes",
    sent="GET and PUT to /v1/traces",
    expected="405, Allow: POST",
    needs=("http",),
)
def _not_allowed(target: Target) -> str:
    for method in ("GET", "PUT"):
        answer = target.http.exchange(target.http.request("/v1/traces", b"", PROTOBUF, method), method)
        require(answer.code == 405, f"{method}: {answer.words()}")
        require("POST" in answer.headers.get("allow", ""), f"{method}: 405, Allow: {answer.headers.get('allow')}")
    return f"405, Allow: {answer.headers['allow']}"


@SECTION.check(
    "32c",
    SHOULD,
    "answers 415 to unknown media types",
    sent="a body with Content-Type: text/plain, and one without Content-Type",
    expected="415",
    needs=("http",),
)
def _media_type(target: Target) -> str:
    for media_type in ("text/plain", ""):
        answer = target.http.post("/v1/traces", target.payloads.body(TRACES), media_type)
        require(answer.code == 415, f"{media_type or 'no Content-Type'}: {answer.words()}")
    return answer.words()


@SECTION.check(
    "32d",
    SHOULD,
    "answers 415 to unknown content encodings",
    sent="a body with Content-Encoding: x-unheard-of",
    expected="415",
    needs=("http",),
)
def _encoding(target: Target) -> str:
    answer = target.http.post("/v1/traces", target.payloads.body(TRACES), Content_Encoding="x-unheard-of")
    require(answer.code == 415, answer.words())
    return answer.words()


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
