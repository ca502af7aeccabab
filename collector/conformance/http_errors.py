"""Section 4 of the list, on: responses of OTLP/HTTP to what is refused, their codes and the Status in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from collector.conformance.check import Failed, Level, Section, require
from collector.conformance.grpc_calls import DAMAGED, RESPONSE_BYTES_MAX, large
from collector.conformance.http_client import JSON, PROTOBUF, Response
from collector.conformance.open_points import crowd
from collector.conformance.target import CROWDED, json_object
from collector.otlp.signals import TRACES

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
