"""A gRPC client of raw bytes: grpcio carries the messages, and nobody looks into them on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

_OPTIONS: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class GrpcAnswer(NamedTuple):
    """How a call ended."""

    code: str
    """The status code's name: `OK`, `UNAVAILABLE`, …"""
    message: str
    body: bytes
    """The response message; empty when there is none."""
    trailers: Mapping[str, bytes]

    def words(self) -> str:
        """Say what it is."""
        said = f"{self.code}: {self.message[:160]!r}" if self.message else self.code
        return said if self.code != "OK" else f"OK, a message of {len(self.body)} bytes"

    def status(self) -> Status | None:
        """Return the google.rpc.Status of the trailers; None when there is none that can be read."""
        found = self.trailers.get("grpc-status-details-bin")
        if found is None:
            return None
        try:
            return Status.FromString(found)
        except DecodeError:
            return None

    def retry_delay_s(self) -> float | None:
        """Return the delay of the RetryInfo in the details; None when there is none."""
        status = self.status()
        for detail in status.details if status is not None else ():
            found = RetryInfo()
            if detail.Unpack(found):
                return float(found.retry_delay.ToTimedelta().total_seconds())
        return None

    def has_bad_request(self) -> bool:
        """Tell whether the details hold a BadRequest."""
        status = self.status()
        return status is not None and any(detail.Is(BadRequest.DESCRIPTOR) for detail in status.details)


class GrpcClient:
    """Where OTLP/gRPC is received. One connection."""

    def __init__(self, address: str, headers: Mapping[str, str], timeout_s: float) -> None:
        """Take `host:port`; with `https://` in front, over TLS."""
        scheme, _, rest = address.rpartition("://")
        host, _, port = rest.partition("/")[0].rpartition(":")
        self.host, self.port = host.strip("[]") or "127.0.0.1", int(port)
        self.timeout_s = timeout_s
        self.is_secure = scheme == "https"
        self._metadata = tuple((name.lower(), text) for name, text in headers.items())
        target = f"{host or '127.0.0.1'}:{port}"
        self._channel: Any = (
            grpc.secure_channel(target, grpc.ssl_channel_credentials(), _OPTIONS)
            if self.is_secure
            else grpc.insecure_channel(target, _OPTIONS)
        )

    def with_headers(self, headers: Mapping[str, str]) -> GrpcClient:
        """Return a client of the same endpoint that sends other metadata."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return GrpcClient(f"{'https://' if self.is_secure else ''}{host}:{self.port}", headers, self.timeout_s)

    def start(self, method: str, payload: bytes, *, gzip: bool = False) -> Any:
        """Begin a call; `finish` waits for its end."""
        compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        call = self._channel.unary_unary(method)
        return call.future(payload, timeout=self.timeout_s, metadata=self._metadata, compression=compression)

    def finish(self, call: Any) -> GrpcAnswer:
        """Wait for the end of a call."""
        try:
            body = bytes(call.result())
        except grpc.RpcError:
            body = b""
        trailers = {
            str(key): text if isinstance(text, bytes) else text.encode()
            for key, text in (call.trailing_metadata() or ())
        }
        return GrpcAnswer(call.code().name, call.details() or "", body, trailers)

    def call(self, method: str, payload: bytes, *, gzip: bool = False) -> GrpcAnswer:
        """Make one call."""
        return self.finish(self.start(method, payload, gzip=gzip))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
