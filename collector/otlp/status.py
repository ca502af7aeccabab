"""The one table from causes to OTLP's answers: gRPC code, HTTP code, and the `google.rpc.Status` around them.

Follows the OTLP specification. Data that cannot become valid is INVALID_ARGUMENT / 400. What may succeed later
is UNAVAILABLE with RetryInfo / 503 with Retry-After: exporters retry exactly these (429 is not retried by all of
them). A request over the size limit is RESOURCE_EXHAUSTED without RetryInfo / 413, which they do not retry. What
is no cause of ours is a defect of ours: the data may be good, so the client is told to try again, and not why.

A Status is written in the client's own encoding. Its JSON form is written here, by proto3's rules, rather than
by json_format: it has three fields.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from collector.errors import (
    Forbidden,
    ForeignHost,
    Malformed,
    Overloaded,
    RingtailError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

MESSAGE_BYTES_MAX: Final = 1024
"""UTF-8 bytes of an error's message: over gRPC it travels three times in 8 KiB of headers, escaped threefold."""
_RETRY_DEFECT_S = 1.0

# google.rpc.Code, which gRPC's status codes are.
_INVALID_ARGUMENT, _DEADLINE_EXCEEDED, _NOT_FOUND, _RESOURCE_EXHAUSTED = 3, 4, 5, 8
_PERMISSION_DENIED, _UNIMPLEMENTED, _UNAVAILABLE, _UNAUTHENTICATED = 7, 12, 14, 16


class Answer(NamedTuple):
    """How a cause is answered."""

    grpc: int
    """The google.rpc.Code."""
    http: int
    """The HTTP status code."""
    outcome: str
    """The cause as a metric's label: one of `OUTCOMES`."""
    message: str
    retry_after_s: float | None = None
    """Seconds after which a retry makes sense; None when it never does."""
    headers: str = ""
    """Further HTTP header lines, each ending in CR LF."""


class Refused(RingtailError):
    """A request that is refused for a reason which only HTTP knows; holds its answer."""

    def __init__(self, found: Answer) -> None:
        super().__init__(found.message)
        self.answer = found


OUTCOMES: Final = (
    "success",
    "partial",
    "malformed",
    "too_large",
    "unsupported",
    "unauthenticated",
    "forbidden",
    "overloaded",
    "unavailable",
    "timeout",
    "failed",
)
"""What can become of a request: accepted whole or in part, refused for a cause, or failed by a defect."""

_CODES: Final[dict[type[RingtailError], tuple[int, int, str]]] = {
    Malformed: (_INVALID_ARGUMENT, 400, "malformed"),
    TooLarge: (_RESOURCE_EXHAUSTED, 413, "too_large"),
    Unsupported: (_UNIMPLEMENTED, 415, "unsupported"),
    Unauthenticated: (_UNAUTHENTICATED, 401, "unauthenticated"),
    Forbidden: (_PERMISSION_DENIED, 403, "forbidden"),
    ForeignHost: (_PERMISSION_DENIED, 421, "forbidden"),
    Overloaded: (_UNAVAILABLE, 503, "overloaded"),
    Unavailable: (_UNAVAILABLE, 503, "unavailable"),
}

PHRASES: Final = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
"""The reason phrase of every HTTP status that this house answers OTLP with."""


def answer(error: BaseException) -> Answer:
    """Return how a cause is answered."""
    if isinstance(error, Refused):
        return error.answer
    for kind, codes in _CODES.items():
        if isinstance(error, kind):
            retry = error.retry_after_s if isinstance(error, Overloaded | Unavailable) else None
            challenges = error.challenges if isinstance(error, Unauthenticated) else ()
            headers = "".join(f"WWW-Authenticate: {one}\r\n" for one in challenges)
            return Answer(*codes, shortened(str(error)), retry, headers)
    return Answer(_UNAVAILABLE, 503, "failed", "internal error; the daemon's log has it", _RETRY_DEFECT_S)


def unknown_path(message: str) -> Refused:
    """Nothing is served under this path."""
    return Refused(Answer(_NOT_FOUND, 404, "unsupported", shortened(message)))


def wrong_method(message: str, allowed: str) -> Refused:
    """The path exists, but not for this method; `allowed` is the one for which it does."""
    return Refused(Answer(_UNIMPLEMENTED, 405, "unsupported", shortened(message), None, f"Allow: {allowed}\r\n"))


def too_slow(message: str) -> Refused:
    """The request did not arrive in the time that it may take."""
    return Refused(Answer(_DEADLINE_EXCEEDED, 408, "timeout", shortened(message)))


def head_too_large(message: str) -> Refused:
    """The request line and the headers are over their limit."""
    return Refused(Answer(_RESOURCE_EXHAUSTED, 431, "too_large", shortened(message)))


def status_of(found: Answer) -> status_pb2.Status:
    """Return an answer's Status: with RetryInfo when it may be retried, with BadRequest when the data is bad."""
    status = status_pb2.Status(code=found.grpc, message=found.message)
    if found.retry_after_s is not None:
        status.details.add().Pack(retry_info(found.retry_after_s))
    elif found.outcome == "malformed":
        violation = error_details_pb2.BadRequest.FieldViolation(description=found.message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    return status


def status_json(found: Answer) -> bytes:
    """Return the same Status in proto3's JSON form."""
    status: dict[str, Any] = {"code": found.grpc, "message": found.message}
    if found.retry_after_s is not None:
        details = {
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": f"{_millis(found.retry_after_s) / 1000:.3f}s",
        }
        status["details"] = [details]
    elif found.outcome == "malformed":
        violations = [{"description": found.message}]
        status["details"] = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}]
    return msgspec.json.encode(status)


def _millis(seconds: float) -> int:
    return round(seconds * 1000)


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    """Return the RetryInfo of a delay in seconds, which is kept in whole milliseconds."""
    millis = _millis(seconds)
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000))


def trailing_metadata(found: Answer) -> tuple[tuple[str, bytes], ...]:
    """Return the gRPC trailers of an error: the Status, and the bare RetryInfo that the Python SDK looks for."""
    trailers = [("grpc-status-details-bin", status_of(found).SerializeToString())]
    if found.retry_after_s is not None:
        trailers.append(("google.rpc.retryinfo-bin", retry_info(found.retry_after_s).SerializeToString()))
    return tuple(trailers)


def shortened(message: str) -> str:
    """Return a message cut to `MESSAGE_BYTES_MAX` bytes."""
    encoded = message.encode(errors="replace")
    if len(encoded) <= MESSAGE_BYTES_MAX:
        return message
    return encoded[: MESSAGE_BYTES_MAX - 3].decode(errors="ignore") + "…"
