"""HTTP responses as bytes: heads, media types, and the Status that every error has for a body."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from collector.otlp.status import PHRASES, Answer, status_json, status_of

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Leave for a client to send the body that it has announced."""
CLOSE: Final = "Connection: close\r\n"
"""The header line that ends a connection."""


def greeting(paths: Sequence[str]) -> bytes:
    """Return what the root of the listener says to whoever looks there."""
    return f"Ringtail receives OTLP/HTTP here: POST to {', '.join(paths)}. Queries have their own port.\n".encode()


def preflight_head(date: str, headers: str) -> bytes:
    """Return the answer to a preflight request, which has no body."""
    return f"HTTP/1.1 204 {PHRASES[204]}\r\nDate: {date}\r\n{headers}\r\n".encode("latin-1")


def response_head(code: int, media_type: str, length: int, date: str, headers: str = "") -> bytes:
    """Return a response's head, up to its empty line; `headers` are lines that each end in CR LF."""
    return (
        f"HTTP/1.1 {code} {PHRASES[code]}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n"
        f"Date: {date}\r\n{headers}\r\n"
    ).encode("latin-1")


def error_body(found: Answer, *, is_json: bool) -> bytes:
    """Return the google.rpc.Status of an error in the client's own form."""
    return status_json(found) if is_json else bytes(status_of(found).SerializeToString())


def error_headers(found: Answer) -> str:
    """Return the header lines that belong to an error: what is allowed, and when to come again (whole seconds)."""
    if found.retry_after_s is None:
        return found.headers
    return f"{found.headers}Retry-After: {max(1, math.ceil(found.retry_after_s))}\r\n"
