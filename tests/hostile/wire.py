"""Requests and frames as bytes, and answers read back, written without the code under test."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field

import hpack
from google.rpc import error_details_pb2, status_pb2

from collector.otlp.signals import Signal

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
RETRYABLE_HTTP = (429, 502, 503, 504)
UNAVAILABLE = 14
LOST = "no answer"
"""The code of a request whose connection ended before its answer."""


@dataclass(slots=True)
class Reply:
    """What became of one request."""

    code: str
    """`200`, `503`, …; `grpc 0`, `grpc 14`, …; `reset N`; or `LOST`."""
    retry_after_s: float | None = None
    """What a refused client is told to wait."""
    wrong: str = ""
    """What is missing in the answer."""
    closing: bool = field(default=False, repr=False)
    """Whether the connection ends with it."""

    @property
    def ok(self) -> bool:
        """Whether the request was taken."""
        return self.code in ("200", "grpc 0")

    @property
    def retryable(self) -> bool:
        """Whether exporters try again: by the rules of the Collector's, and of gRPC."""
        if self.code == LOST or self.code == "reset 7":
            return True
        kind, _, number = self.code.rpartition(" ")
        return self.retry_after_s is not None and (
            int(number) == UNAVAILABLE if kind == "grpc" else int(number) in RETRYABLE_HTTP
        )


def http_head(signal: Signal, length: int | None, more: str = "") -> bytes:
    """Return the head of an export; chunked without a length."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return (
        f"POST {signal.http_path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
        f"{size}\r\n{more}\r\n"
    ).encode()


def http_reply(code: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """Judge an answer."""
    reply = Reply(str(code), closing=headers.get("connection", "").lower() == "close")
    if "retry-after" in headers:
        reply.retry_after_s = float(headers["retry-after"])
    if code in RETRYABLE_HTTP and reply.retry_after_s is None:
        reply.wrong = f"{code} without Retry-After"
    if code >= 400:
        try:
            if not status_pb2.Status.FromString(body).message:
                reply.wrong = f"{code} with an empty Status"
        except Exception:
            reply.wrong = f"{code} without a Status"
    return reply


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def setting(key: int, value: int) -> bytes:
    """Return one setting, for the payload of SETTINGS."""
    return key.to_bytes(2, "big") + value.to_bytes(4, "big")


def literal(name: str, value: str) -> bytes:
    """Return a field of a header block that leaves no trace in tables; name and value are short."""
    one, two = name.encode(), value.encode()
    assert max(len(one), len(two)) < 127
    return b"\0" + bytes([len(one)]) + one + bytes([len(two)]) + two


def grpc_fields(signal: Signal, **more: str) -> bytes:
    """Return the header block of an export."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{signal.service}/Export",
        ":authority": "ringtail",
        "te": "trailers",
        "content-type": "application/grpc",
        **more,
    }
    return b"".join(literal(name, value) for name, value in fields.items())


def message(payload: bytes) -> bytes:
    """Return a gRPC message with its prefix."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


OK_TRAILER = b"grpc-status\x010"


def grpc_reply(block: bytes) -> Reply | None:
    """Judge a header block; None when it has no status, as the one that begins an answer."""
    if OK_TRAILER in block:
        return Reply("grpc 0")
    fields = dict(hpack.Decoder().decode(block, raw=True))
    if b"grpc-status" not in fields:
        code = fields.get(b":status", b"")
        return None if code == b"200" else Reply(code.decode())
    reply = Reply(f"grpc {int(fields[b'grpc-status'])}")
    if reply.code != f"grpc {UNAVAILABLE}":
        return reply
    bare = _retry_info(_decoded(fields.get(b"google.rpc.retryinfo-bin", b"")))
    status = status_pb2.Status.FromString(_decoded(fields.get(b"grpc-status-details-bin", b"")))
    inside = [_retry_info(one.value) for one in status.details if one.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    if bare is None or inside != [bare]:
        reply.wrong = f"RetryInfo is {bare} alone and {inside} in the Status"
    reply.retry_after_s = bare
    return reply


def _decoded(text: bytes) -> bytes:
    return b64decode(text + b"=" * (-len(text) % 4))


def _retry_info(data: bytes) -> float | None:
    if not data:
        return None
    delay = error_details_pb2.RetryInfo.FromString(data).retry_delay
    return float(delay.seconds) + float(delay.nanos) / 1e9
