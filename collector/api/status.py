"""The HTTP code of every cause, for the query API. Each API shapes its own error body around it."""

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
