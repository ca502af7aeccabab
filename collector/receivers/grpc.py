"""OTLP over gRPC: grpc.aio on the daemon's loop, with raw bytes for handlers, so that nothing is parsed twice.

grpcio itself enforces the message size limit, before and after decompression, knows identity, deflate and gzip,
and answers unknown services (the profiles' too) as UNIMPLEMENTED. Errors carry a `google.rpc.Status` in
`grpc-status-details-bin`; retryable ones also the bare RetryInfo in `google.rpc.retryinfo-bin`, which is where
the Python SDK looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from collector.errors import Unavailable
from collector.otlp.status import answer, retry_info, status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from collector.receivers.admission import Admission
    from collector.receivers.export import Receiver

CODES = {code.value[0]: code for code in grpc.StatusCode}
STREAMS_MAX = 1024
"""Calls in flight on one connection."""


class GrpcReceiver:
    """The gRPC listener for all signals."""

    def __init__(
        self, receivers: Sequence[Receiver], admission: Admission, message_bytes_max: int, logger: Any
    ) -> None:
        self._logger = logger
        self._admission = admission
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", message_bytes_max),
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", STREAMS_MAX),
                ("grpc.http2.lookahead_bytes", 4 * 1024 * 1024),
                ("grpc.http2.max_frame_size", 1024 * 1024),
                ("grpc.http2.bdp_probe", 0),
            ]
        )
        self._health: Any = vars(health)["aio"].HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._services = [receiver.signal.service for receiver in receivers]
        handlers = [
            grpc.method_handlers_generic_handler(
                receiver.signal.service, {"Export": grpc.unary_unary_rpc_method_handler(self._export(receiver))}
            )
            for receiver in receivers
        ]
        self._server.add_generic_rpc_handlers(handlers)

    def _export(self, receiver: Receiver) -> Callable[[bytes, Any], Awaitable[bytes]]:
        admission = self._admission

        async def export(payload: bytes, context: Any) -> bytes:
            size = len(payload)
            try:
                admission.admit(size)
                try:
                    response = receiver.respond(await receiver.export(payload))
                finally:
                    admission.release(size)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer that it may retry
                await self._refuse(receiver, context, error)
            return b"" if response is None else bytes(response.SerializeToString())

        return export

    async def _refuse(self, receiver: Receiver, context: Any, error: Exception) -> None:
        found = answer(error)
        receiver.failed(found.http)
        if found.message == "internal error":
            self._logger.error("request failed", signal=receiver.signal.name, transport="grpc", error=repr(error))
        trailers = [("grpc-status-details-bin", status_of(found).SerializeToString())]
        if found.retry_after_s is not None:
            trailers.append(("google.rpc.retryinfo-bin", retry_info(found.retry_after_s).SerializeToString()))
        await context.abort(CODES[found.grpc], found.message, tuple(trailers))

    async def start(self, address: str) -> int:
        """Listen on `host:port`, and return the port; raise Unavailable when the address cannot be bound."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {address} for OTLP/gRPC: {error}") from error
        if not port:
            raise Unavailable(f"cannot listen on {address} for OTLP/gRPC: the address is in use")
        await self._server.start()
        for service in ("", *self._services):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return int(port)

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, let calls in flight end for at most `grace_s` seconds, and close."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
