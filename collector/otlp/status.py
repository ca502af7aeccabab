"""The one table from causes to OTLP's answers: gRPC code, HTTP code, and the `google.rpc.Status` body.

Follows the OTLP specification: data that cannot become valid is INVALID_ARGUMENT / 400; what may succeed later is
UNAVAILABLE with RetryInfo / 503 with Retry-After, because exporters retry exactly these; a message over the size
limit is RESOURCE_EXHAUSTED without RetryInfo / 413, which they do not retry.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from collector.errors import Malformed, Overloaded, RingtailError, TooLarge, Unavailable, Unsupported

# google.rpc.Code, which gRPC's status codes are
_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED, _UNIMPLEMENTED, _INTERNAL, _UNAVAILABLE = 3, 8, 12, 13, 14

MESSAGE_BYTES_MAX = 8192
"""Characters of an error message in an answer: it travels in a header over gRPC."""


class Answer(NamedTuple):
    """How a cause is answered."""

    grpc: int
    """The google.rpc.Code."""
    http: int
    """The HTTP status code."""
    message: str
    retry_after_s: float | None
    """Seconds after which a retry makes sense; None when it never does."""


_CODES: dict[type[RingtailError], tuple[int, int]] = {
    Malformed: (_INVALID_ARGUMENT, 400),
    TooLarge: (_RESOURCE_EXHAUSTED, 413),
    Unsupported: (_UNIMPLEMENTED, 415),
    Overloaded: (_UNAVAILABLE, 503),
    Unavailable: (_UNAVAILABLE, 503),
}


def answer(error: BaseException) -> Answer:
    """Return how a cause is answered; what is no cause of ours is a defect, and may be retried."""
    message = str(error)[:MESSAGE_BYTES_MAX]
    if isinstance(error, Overloaded | Unavailable):
        return Answer(_UNAVAILABLE, 503, message, error.retry_after_s)
    if isinstance(error, RingtailError) and type(error) in _CODES:
        return Answer(*_CODES[type(error)], message, None)
    return Answer(_UNAVAILABLE, 503, "internal error", 1.0)


def status_of(found: Answer) -> status_pb2.Status:
    """Return the google.rpc.Status of an answer, with RetryInfo when it may be retried."""
    status = status_pb2.Status(code=found.grpc, message=found.message)
    if found.retry_after_s is not None:
        status.details.add().Pack(retry_info(found.retry_after_s))
    return status


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    """Return the RetryInfo of a delay in seconds."""
    nanos = round(seconds * 1e9)
    delay = Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)
    return error_details_pb2.RetryInfo(retry_delay=delay)
