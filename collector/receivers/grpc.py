"""OTLP over gRPC: grpc.aio on the daemon's loop, with raw bytes for handlers, so that nothing is parsed twice.

grpcio itself enforces the message size limit, before and after decompression, knows identity, deflate and gzip,
and answers unknown services (the profiles' too) as UNIMPLEMENTED. Errors carry a `google.rpc.Status` in
`grpc-status-details-bin`; retryable ones also the bare RetryInfo in `google.rpc.retryinfo-bin`, which is where
the Python SDK looks. No exception leaves a handler as UNKNOWN, which clients do not retry.

A message is in memory before a handler sees it, so the budget is taken late here; `STREAMS_MAX` and the message
size bound what one connection can bring before that.

One process may serve gRPC on one event loop only (grpcio's poller belongs to the first).

Cost: about 250 µs for a request of 200 KB, nearly all of it grpcio's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from collector.errors import Unavailable
from collector.otlp.status import answer, trailing_metadata
from collector.receivers.address import probe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from collector.otlp.status import Answer
    from collector.receivers.admission import Admission
    from collector.receivers.export import Receiver

STREAMS_MAX: Final = 256
"""Calls in flight on one connection; a client's further calls wait on its side."""
PING_INTERVAL_MIN_MS: Final = 10_000
"""How often a client may ping without being cut off; SDKs and load balancers ping every 10 to 30 s."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def channel_options(message_bytes_max: int) -> list[tuple[str, int]]:
    """Return the server's channel arguments.

    A request of 200 KB is common: the window and the frames take it whole. Measured, these three are as good as
    or better than the defaults with 1, 4 and 16 calls in flight, by up to a tenth; a window without larger frames
    is worse. Ports are not shared: a second daemon on the same address must fail, not take half of the
    connections.
    """
    return [
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", STREAMS_MAX),
        ("grpc.http2.lookahead_bytes", 4 * 1024 * 1024),
        ("grpc.http2.max_frame_size", 1024 * 1024),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


class GrpcReceiver:
    """The gRPC listener for all signals, with the standard health service beside them."""

    def __init__(
        self, receivers: Sequence[Receiver], admission: Admission, message_bytes_max: int, logger: Any
    ) -> None:
        """Build the server on the running loop; it listens after `start`."""
        self._logger = logger
        self._admission = admission
        self._server = grpc.aio.server(options=channel_options(message_bytes_max))
        self._health: Any = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._services = [receiver.signal.service for receiver in receivers]
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    receiver.signal.service,
                    {"Export": grpc.unary_unary_rpc_method_handler(self._export(receiver))},
                )
                for receiver in receivers
            ]
        )

    def _export(self, receiver: Receiver) -> Callable[[bytes, Any], Awaitable[bytes]]:
        admission = self._admission

        async def export(payload: bytes, context: Any) -> bytes:
            size = len(payload)
            admitted = False
            try:
                admission.admit(size)
                admitted = True
                future = receiver.export(payload)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
                if admitted:
                    admission.release(size)
                return await self._abort(context, receiver.refused(error), error)
            if future.done():
                admission.release(size)
            else:
                # The store holds the payload until it answers, whether or not the client still waits: hence the
                # shield, and the budget is given back by the future itself.
                future.add_done_callback(lambda _: admission.release(size))
                future = asyncio.shield(future)
            try:
                return receiver.response(await future)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
                return await self._abort(context, answer(error), error)

        return export

    async def _abort(self, context: Any, found: Answer, error: Exception) -> bytes:
        if found.outcome == "failed":
            self._logger.error("request failed", transport="grpc", error=repr(error))
        await context.abort(_CODES[found.grpc], found.message, trailing_metadata(found))
        raise AssertionError("abort does not return")

    async def start(self, address: str) -> int:
        """Listen on `host:port`, `[::1]:port` or `unix:path`, and return the port (0 for a path).

        Raises Unavailable, naming the address, when it cannot be bound.
        """
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {address} for OTLP/gRPC: {probe(address)}") from error
        await self._server.start()
        for service in ("", *self._services):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return 0 if address.startswith("unix:") else int(port)

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, let calls in flight end for at most `grace_s` seconds, and close."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
