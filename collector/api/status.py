"""The code of every cause, for the query APIs: HTTP's, and gRPC's. Each API shapes its own error body around it."""

from __future__ import annotations

from collector.errors import (
    Corrupt,
    Forbidden,
    ForeignHost,
    InvalidQuery,
    Malformed,
    NotFound,
    Overloaded,
    QueryLimit,
    QueryTimeout,
    RingtailError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from collector.otlp.status import Answer, answer, shortened

_CODES: dict[type[RingtailError], int] = {
    InvalidQuery: 400,
    Malformed: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    TooLarge: 413,
    ForeignHost: 421,
    QueryLimit: 422,
    Corrupt: 500,
    Unsupported: 501,
    Overloaded: 503,
    Unavailable: 503,
    QueryTimeout: 504,
}


def http_code(error: RingtailError) -> int:
    """Return the HTTP status that a cause is answered with."""
    return _CODES.get(type(error), 500)


_GRPC: dict[type[RingtailError], tuple[int, str]] = {
    InvalidQuery: (3, "malformed"),
    QueryTimeout: (4, "timeout"),
    NotFound: (5, "unsupported"),
    QueryLimit: (8, "too_large"),
    Corrupt: (15, "failed"),
}
"""google.rpc.Code and outcome of what only queries meet; the rest is as for OTLP."""


def grpc_answer(error: BaseException) -> Answer:
    """Return how a cause is answered over gRPC."""
    for kind, (code, outcome) in _GRPC.items():
        if isinstance(error, kind):
            where = f" at column {error.position + 1}" if isinstance(error, InvalidQuery) and error.position else ""
            return Answer(code, _CODES[kind], outcome, shortened(f"{error}{where}"))
    return answer(error)
