"""What a server's answer to an export request means: OTLP's table, read by a client that can wait.

| means | gRPC | HTTP |
| --- | --- | --- |
| again, after a while | CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS, RESOURCE_EXHAUSTED with RetryInfo | 408, 429, 502, 503, 504 |
| again, too | UNKNOWN, INTERNAL | 500, and other 5xx |
| never, these records | INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION | 400, 409, 422, and other 4xx |
| never, so many | RESOURCE_EXHAUSTED without RetryInfo | 413 |
| nothing, as we are configured | UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND, UNIMPLEMENTED | 3xx, 401, 403, 404, 405, 406, 407, 415, 421, 426, 501, 505 |

The specification has a client drop what is neither in the first row nor accepted. Ringtail has the records in its log, so
where an answer says nothing of the records themselves (rows two and five) it keeps them, and tries again; in row five as
seldom as `max_interval` says. `max_elapsed_time` bounds both.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from collector.errors import Permanent, Retryable, RingtailError, Unwelcome
from collector.exporters.base import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.otlp.signals import Signal

MESSAGE_CHARACTERS_MAX: Final = 300
"""Of what a server says that is repeated in logs and figures."""
_RESOURCE_EXHAUSTED: Final = 8
_GRPC_UNWELCOME: Final = frozenset({5, 7, 12, 16})
_GRPC_PERMANENT: Final = frozenset({3, 6, 9})
_HTTP_UNWELCOME: Final = frozenset({401, 403, 404, 405, 406, 407, 415, 421, 426, 501, 505})
_HTTP_RETRYABLE: Final = frozenset({408, 429})
_DETAILS: Final = "grpc-status-details-bin"


def of_grpc(code: int, name: str, message: str, trailers: Iterable[tuple[str, str | bytes]]) -> RingtailError:
    """Return the cause that a status other than OK means. `name` is the status' own."""
    told = f"{name}: {_short(message)}"
    after_s = _retry_info(trailers)
    if code in _GRPC_UNWELCOME:
        return Unwelcome(told)
    if code in _GRPC_PERMANENT:
        return Permanent(told)
    if code == _RESOURCE_EXHAUSTED and after_s is None:
        return Permanent(told, too_large=True)
    return Retryable(told, after_s)


def of_http(status: int, retry_after: str | None, content_type: str, body: bytes, now_s: float) -> RingtailError:
    """Return the cause that a status other than 200 means."""
    said = _said(content_type, body)
    told = f"{status}: {said}" if said else f"{status}"
    if status in _HTTP_UNWELCOME or 300 <= status < 400:
        return Unwelcome(f"{told}; redirects are not followed" if 300 <= status < 400 else told)
    if status == 413:
        return Permanent(told, too_large=True)
    if status in _HTTP_RETRYABLE or status >= 500 or status < 200:
        return Retryable(told, _seconds(retry_after, now_s))
    return Permanent(told)


def of_response(signal: Signal, body: bytes, content_type: str) -> Rejected | None:
    """Return what a successful answer says was rejected. One that cannot be read says nothing: the records are there."""
    response: Any = signal.response_type()
    try:
        if content_type.startswith("application/json"):
            json_format.Parse(body.decode("utf-8", "replace") or "{}", response, ignore_unknown_fields=True)
        else:
            response.ParseFromString(body)
    except (DecodeError, json_format.ParseError, RecursionError):
        return None
    partial = response.partial_success
    rejected = int(getattr(partial, signal.rejected_field))
    return Rejected(rejected, _short(partial.error_message)) if rejected > 0 else None


def _retry_info(trailers: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Return the seconds that a RetryInfo among the details of a status asks for."""
    for key, value in trailers:
        if key != _DETAILS or not isinstance(value, bytes):
            continue
        try:
            details = status_pb2.Status.FromString(value).details
            for detail in details:
                info = error_details_pb2.RetryInfo()
                if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
                    return max(0.0, float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9))
        except DecodeError:
            return None
    return None


def _seconds(retry_after: str | None, now_s: float) -> float | None:
    """Read Retry-After: seconds, or a date."""
    if retry_after is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", retry_after.strip()):
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now_s)
    except (ValueError, TypeError, OverflowError):
        return None


def _said(content_type: str, body: bytes) -> str:
    """Return the message of a google.rpc.Status, in protobuf or JSON, or the beginning of a text."""
    status = status_pb2.Status()
    try:
        if content_type.startswith("application/x-protobuf"):
            return _short(status_pb2.Status.FromString(body).message)
        if content_type.startswith("application/json"):
            json_format.Parse(body.decode("utf-8", "replace"), status, ignore_unknown_fields=True)
            return _short(status.message)
    except (DecodeError, json_format.ParseError, RecursionError):
        pass
    return _short(body[: 4 * MESSAGE_CHARACTERS_MAX].decode("utf-8", "replace"))


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= MESSAGE_CHARACTERS_MAX else f"{plain[: MESSAGE_CHARACTERS_MAX - 1]}…"
