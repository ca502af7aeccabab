"""OTLP over gRPC: one channel for each endpoint, raw bytes in and out.

A channel is made to addresses that were resolved and looked at here (outbound.py), with the endpoint's name as authority
and for the certificate; after a failure it is made anew, so that a name that has moved is found. The gRPC library
compresses with gzip; it knows no zstd.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

import grpc

from collector.errors import Malformed, Retryable, Unwelcome
from collector.exporters.otlp.answers import of_grpc, of_response
from collector.exporters.otlp.exporter import OtlpExporter
from collector.exporters.otlp.settings import grpc_endpoints
from collector.exporters.outbound import ANSWER_BYTES_MAX, resolve
from collector.otlp.signals import BY_NAME
from collector.security.watched import read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.exporters.base import Context, Rejected
    from collector.exporters.otlp.settings import GrpcSettings
    from collector.exporters.outbound import Endpoint
    from collector.otlp.signals import Signal

KEEPALIVE_MS: Final = 60_000
RECONNECT_MS_MAX: Final = 5000
"""How long the gRPC library may wait before it connects again by itself."""


class GrpcLink:
    """See `Link`."""

    def __init__(self, endpoint: Endpoint, name: str, settings: GrpcSettings, *, plaintext: bool) -> None:
        self.name = name
        self._endpoint = endpoint
        self._settings = settings
        self._plaintext = plaintext
        self._channel: grpc.aio.Channel | None = None
        self._connecting = asyncio.Lock()

    async def send(self, signal: Signal, payload: bytes, headers: Mapping[str, str]) -> Rejected | None:
        """See `Link.send`."""
        channel = await self._connected()
        call = channel.unary_unary(f"/{signal.service}/Export")
        try:
            answer = await call(payload, metadata=tuple(headers.items()), timeout=self._settings.timeout)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            details = error.details() or ""
            details = self._hint(details) + details
            cause = of_grpc(code.value[0], code.name, details, tuple(error.trailing_metadata() or ()))
            if isinstance(cause, Retryable):
                await self._drop(channel)
            raise cause from error
        except grpc.aio.UsageError as error:  # The channel was closed under it, by another call that failed.
            raise Retryable(str(error)) from error
        return of_response(signal, answer, "application/x-protobuf")

    def _hint(self, details: str) -> str:
        """Say what a failure to connect most likely means; empty when nobody knows."""
        if "http1.x" in details:
            return "HTTP/1 is spoken there, perhaps OTLP/HTTP, for which otlphttp is; "
        if not self._plaintext and "andshake" in details:
            return "TLS failed, which http:// before the endpoint does without; "
        return ""

    async def _connected(self) -> grpc.aio.Channel:
        async with self._connecting:
            if self._channel is None:
                self._channel = await self._connect()
            return self._channel

    async def _connect(self) -> grpc.aio.Channel:
        at = self._endpoint
        found = await resolve(at.host, at.port, allow_link_local=self._settings.allow_link_local)
        family = found[0][0]
        name = "ipv6" if family == socket.AF_INET6 else "ipv4"
        hosts = (f"[{host}]:{at.port}" if name == "ipv6" else f"{host}:{at.port}" for of, host in found if of == family)
        gzip = self._settings.compression == "gzip"
        options: list[tuple[str, Any]] = [
            ("grpc.default_authority", at.authority),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        target = f"{name}:{','.join(hosts)}"
        if self._plaintext:
            return grpc.aio.insecure_channel(target, options=options, compression=compression)
        options.append(("grpc.ssl_target_name_override", self._settings.tls.server_name_override or at.host))
        return grpc.aio.secure_channel(target, self._credentials(), options=options, compression=compression)

    def _credentials(self) -> grpc.ChannelCredentials:
        tls = self._settings.tls
        try:
            files = [read_bytes(one) if one is not None else None for one in (tls.ca_file, tls.key_file, tls.cert_file)]
        except Malformed as error:
            raise Unwelcome(str(error)) from error
        return grpc.ssl_channel_credentials(*files)

    async def _drop(self, channel: Any) -> None:
        """Give up a channel that failed, once calls that are under way on it have ended."""
        is_current = self._channel is channel
        if not is_current:
            return
        self._channel = None
        await channel.close(grace=self._settings.timeout)

    async def renew(self) -> None:
        """See `Link.renew`."""
        channel = self._channel
        if channel is not None and not self._plaintext:
            await self._drop(channel)

    async def close(self) -> None:
        """See `Link.close`."""
        channel: Any = self._channel
        self._channel = None
        if channel is not None:
            await channel.close()


def grpc_exporter(settings: GrpcSettings, context: Context) -> OtlpExporter:
    """Make the exporter `otlp`."""
    links = [
        GrpcLink(at, text, settings, plaintext=at.scheme == "http" or (at.scheme == "" and settings.tls.insecure))
        for at, text in zip(grpc_endpoints(settings), settings.endpoint, strict=True)
    ]
    return OtlpExporter(settings, {BY_NAME[name]: links for name in settings.signals}, context)
