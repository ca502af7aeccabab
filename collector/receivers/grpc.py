"""OTLP over gRPC: the listener, and the methods of its services.

gRPC is served on our own HTTP/2 (`http2/`), because half of all CPU went into grpcio's server (docs/benchmarks.md).
What one call does is in `call.py`.

Methods: Export of each signal's service, and grpc.health.v1's Check and Watch. Unknown ones, the profiles service
among them, are UNIMPLEMENTED. Where clients must say who they are, health is what anybody may ask for.
"""

from __future__ import annotations

from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from collector.errors import Malformed, Unavailable
from collector.otlp.status import answer, unknown_path
from collector.receivers.call import LIMIT_KEY, Call
from collector.receivers.call_route import Method, decide
from collector.receivers.http2.connection import Connection
from collector.receivers.http2.fields import Requests
from collector.receivers.http2.keepalive import Keepalive
from collector.receivers.http2.listener import Http2Listener
from collector.receivers.listener import CONNECTIONS_MAX, GRACE_S
from collector.security.rights import NOBODY, WRITE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collector.clock import Clock
    from collector.receivers.admission import Admission
    from collector.receivers.export import Receiver
    from collector.security.gate import Gate
    from collector.security.tls import ServerTls

READ_BYTES: Final = 64 * 1024
"""What is read at once, unless it can go straight into a message."""
STREAMS_MAX: Final = 256
"""Calls in flight on one connection; a client's further calls wait on its side."""
WATCHES_MAX: Final = 1024
"""Health watches at a time."""


class Export:
    """A signal's Export method."""

    right = WRITE

    def __init__(self, receiver: Receiver) -> None:
        self.receiver: Receiver | None = receiver

    def serve(self, call: Call, message: bytes) -> None:
        """Give the request to the store; it is answered when the store has."""
        assert call.destination is not None
        call.destination.store.submit(message, call.stored)


class Health:
    """grpc.health.v1: everything is serving until the listener stops."""

    def __init__(self, services: Sequence[str]) -> None:
        """Know these services, and the whole, whose name is empty."""
        self._services = {"", *services}
        self._watches: set[Call] = set()
        self.stopping = False
        """Whether nothing is served any more."""

    def status(self, message: bytes) -> int:
        """Return the status of the service that a HealthCheckRequest asks for."""
        try:
            service = health_pb2.HealthCheckRequest.FromString(message).service
        except DecodeError as error:
            raise Malformed("this is no HealthCheckRequest") from error
        if service not in self._services:
            return int(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        serving = health_pb2.HealthCheckResponse.SERVING
        return int(health_pb2.HealthCheckResponse.NOT_SERVING if self.stopping else serving)

    def watch(self, call: Call, status: int) -> None:
        """Keep a call that has heard the status."""
        if len(self._watches) >= WATCHES_MAX:
            raise Unavailable(f"there are {WATCHES_MAX} watches, which is the limit")
        call.begin(response_of(status))
        self._watches.add(call)

    def stop(self, call: Call) -> None:
        """Tell a watching call that nothing is served any more."""
        if call in self._watches:
            self._watches.discard(call)
            found = answer(Unavailable("the daemon is shutting down"))
            call.end(response_of(health_pb2.HealthCheckResponse.NOT_SERVING), found)

    def forget(self, call: Call) -> None:
        """A call is gone."""
        self._watches.discard(call)


class Check:
    """grpc.health.v1.Health/Check."""

    receiver: Receiver | None = None
    right = NOBODY

    def __init__(self, health: Health) -> None:
        self._health = health

    def serve(self, call: Call, message: bytes) -> None:
        """Answer with the status of a service; NOT_FOUND for one that is not known."""
        status = self._health.status(message)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            raise unknown_path("there is no such service")
        call.succeed(response_of(status))


class Watch:
    """grpc.health.v1.Health/Watch."""

    receiver: Receiver | None = None
    right = NOBODY

    def __init__(self, health: Health) -> None:
        self._health = health

    def serve(self, call: Call, message: bytes) -> None:
        """Answer with the status of a service now, and when it changes, which is when the daemon stops."""
        self._health.watch(call, self._health.status(message))


def response_of(status: int) -> bytes:
    """Return a HealthCheckResponse."""
    response: Any = health_pb2.HealthCheckResponse()
    response.status = status
    return bytes(response.SerializeToString())


class GrpcReceiver(Http2Listener):
    """The gRPC listener for all signals, with the standard health service beside them."""

    limit_key = LIMIT_KEY
    """What sets `message_bytes_max`, for people."""

    def __init__(
        self,
        receivers: Sequence[Receiver],
        admission: Admission,
        clock: Clock,
        logger: Any,
        *,
        message_bytes_max: int,
        first_bytes_timeout_s: float,
        idle_timeout_s: float,
        streams_max: int = STREAMS_MAX,
        keepalive: Keepalive | None = None,
        connections_max: int = CONNECTIONS_MAX,
        tls: ServerTls | None = None,
        gate: Gate | None = None,
        services: Sequence[str] = (),
    ) -> None:
        """Take one receiver for each service; it listens after `start`. `services` names others, for the health service.

        `message_bytes_max` holds before and after decompression. `first_bytes_timeout_s` is for a connection's
        preface, `idle_timeout_s` for a message to bring its due.
        """
        super().__init__(
            "grpc",
            "OTLP/gRPC",
            admission,
            clock,
            logger,
            scratch_bytes=READ_BYTES,
            connections_max=connections_max,
            tls=tls,
            gate=gate,
        )
        self.message_bytes_max = message_bytes_max
        self.first_bytes_timeout_s = first_bytes_timeout_s
        self.idle_timeout_s = idle_timeout_s
        self.streams_max = streams_max
        self.keepalive = keepalive or Keepalive()
        self.chance = SystemRandom()
        self.health = Health([*services, *(one.signal.service for one in receivers)])
        methods: dict[bytes, Method] = {
            b"/grpc.health.v1.Health/Check": Check(self.health),
            b"/grpc.health.v1.Health/Watch": Watch(self.health),
        }
        methods.update({f"/{one.signal.service}/Export".encode(): Export(one) for one in receivers})
        self.methods: Mapping[bytes, Method] = methods
        """What is served, by path."""
        self.requests = Requests(lambda fields: decide(fields, self.methods))
        self.open_stream = partial(Call, self)

    def connect(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Stop as listeners do, and tell those who watch the health."""
        self.health.stopping = True
        await super().stop(grace_s)

    def greet(self, data: bytes) -> bytes:
        """Tell a client that speaks HTTP/1 where that is spoken: that its data are bad (400) would have it drop them."""
        if b" HTTP/1." not in data:
            return b""
        return (
            b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
            b"Ringtail receives OTLP/gRPC here; OTLP/HTTP has its own port, usually 4318.\n"
        )
