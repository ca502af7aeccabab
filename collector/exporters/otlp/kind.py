"""The kinds `otlp` and `otlphttp`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from collector.exporters.kinds import Kind
from collector.exporters.otlp.settings import (
    GrpcSettings,
    HttpSettings,
    grpc_problems,
    grpc_servers,
    http_problems,
    http_servers,
    otlp_obstacles,
)

if TYPE_CHECKING:
    from collector.exporters.base import Context, Exporter


def _grpc(settings: GrpcSettings, context: Context) -> Exporter:
    from collector.exporters.otlp.grpc import grpc_exporter

    return grpc_exporter(settings, context)


def _http(settings: HttpSettings, context: Context) -> Exporter:
    from collector.exporters.otlp.http import http_exporter

    return http_exporter(settings, context)


GRPC: Final = Kind(
    "To any OTLP/gRPC server.", GrpcSettings, _grpc, grpc_problems, otlp_obstacles, otlp_servers=grpc_servers
)
HTTP: Final = Kind(
    "To any OTLP/HTTP server.", HttpSettings, _http, http_problems, otlp_obstacles, otlp_servers=http_servers
)
