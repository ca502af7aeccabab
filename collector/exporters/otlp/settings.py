"""The keys of the exporters `otlp` (gRPC) and `otlphttp`, as the Collector names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from collector.declaration import headers, section, setting
from collector.errors import Malformed
from collector.exporters.outbound import Endpoint, literal, parse_endpoint, refused
from collector.exporters.settings import ClientTls, ExporterSettings, unreadable
from collector.security.secret import Secret

ENDPOINTS_MAX: Final = 64
_ENDPOINT: Final = "the first that answers takes all (balance: failover), or each its share (balance: trace_id)."


@dataclass(frozen=True, slots=True)
class OtlpSettings(ExporterSettings):
    """What both have."""

    balance: Literal["failover", "trace_id"] = setting(
        "failover",
        "choice",
        "Between several endpoints. trace_id: all records of a trace go to the same one, as long as it answers; data points "
        "by their service.",
        choices=("failover", "trace_id"),
    )
    headers: Mapping[str, Secret] = headers("Sent with every request.")
    bearer_token_file: str | None = setting(
        None, "path", "A file with a token that is sent as Authorization: Bearer. It may change."
    )
    tls: ClientTls = section(ClientTls, "How TLS is spoken.")
    allow_link_local: bool = setting(
        False,
        "switch",
        "Connect to link-local addresses, too, and to those where clouds tell machines about themselves.",
    )


@dataclass(frozen=True, slots=True)
class GrpcSettings(OtlpSettings):
    """exporters.otlp"""

    endpoint: tuple[str, ...] = setting(
        (), "text", f"host:port, or several: {_ENDPOINT} http:// before it means plaintext, https:// TLS.", many=True
    )
    compression: Literal["gzip", "none"] = setting(
        "gzip", "choice", "Of messages; zstd is for otlphttp.", choices=("gzip", "none")
    )


@dataclass(frozen=True, slots=True)
class HttpSettings(OtlpSettings):
    """exporters.otlphttp"""

    endpoint: tuple[str, ...] = setting(
        (), "text", f"http(s)://host:port, to which /v1/traces and so on are added; or several: {_ENDPOINT}", many=True
    )
    traces_endpoint: str | None = setting(None, "text", "The whole URL for spans, instead of that.")
    logs_endpoint: str | None = setting(None, "text", "The whole URL for log records.")
    metrics_endpoint: str | None = setting(None, "text", "The whole URL for metrics.")
    compression: Literal["gzip", "zstd", "none"] = setting(
        "gzip", "choice", "Of bodies.", choices=("gzip", "zstd", "none")
    )
    encoding: Literal["proto", "json"] = setting("proto", "choice", "Of bodies.", choices=("proto", "json"))


GRPC_SCHEMES: Final = ("", "http", "https")
HTTP_SCHEMES: Final = ("http", "https")
PORTS: Final = {"http": 80, "https": 443}


def grpc_endpoints(settings: GrpcSettings) -> list[Endpoint]:
    """Return the endpoints. Raises Malformed."""
    return [parse_endpoint(one, GRPC_SCHEMES, {}) for one in settings.endpoint]


def http_endpoints(settings: HttpSettings, signal: str) -> list[Endpoint]:
    """Return the endpoints of a signal, with their paths. Raises Malformed."""
    own = getattr(settings, f"{signal}_endpoint")
    if own is not None:
        return [parse_endpoint(own, HTTP_SCHEMES, PORTS)]
    bases = [parse_endpoint(one, HTTP_SCHEMES, PORTS) for one in settings.endpoint]
    return [one._replace(path=f"{one.path}/v1/{signal}") for one in bases]


def grpc_servers(settings: GrpcSettings) -> Iterable[tuple[str, str, int]]:
    """See `Kind.otlp_servers`."""
    for one in grpc_endpoints(settings):
        yield "endpoint", one.host, one.port


def http_servers(settings: HttpSettings) -> Iterable[tuple[str, str, int]]:
    """See `Kind.otlp_servers`."""
    for signal in settings.signals:
        key = "endpoint" if getattr(settings, f"{signal}_endpoint") is None else f"{signal}_endpoint"
        for one in http_endpoints(settings, signal):
            yield key, one.host, one.port


def grpc_problems(settings: GrpcSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.problems`."""
    yield from _endpoint_problems("endpoint", settings.endpoint, settings, GRPC_SCHEMES)
    if not settings.endpoint:
        yield "endpoint", "is missing: host:port of an OTLP/gRPC server"
    if settings.tls.min_version != "1.2" or settings.tls.cipher_suites:
        yield "tls", "min_version and cipher_suites are the gRPC library's own; otlphttp has them"
    yield from _tls_problems(settings)


def http_problems(settings: HttpSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.problems`."""
    yield from _endpoint_problems("endpoint", settings.endpoint, settings, HTTP_SCHEMES)
    for signal in settings.signals:
        own = getattr(settings, f"{signal}_endpoint")
        if own is not None:
            yield from _endpoint_problems(f"{signal}_endpoint", (own,), settings, HTTP_SCHEMES)
        elif not settings.endpoint:
            yield "endpoint", f"is missing, and so is {signal}_endpoint: http(s)://host:port of an OTLP/HTTP server"
    if settings.tls.insecure:
        yield "tls.insecure", "is for otlp; here the endpoint says http:// or https://"
    yield from _tls_problems(settings)


def _endpoint_problems(
    key: str, texts: tuple[str, ...], settings: OtlpSettings, schemes: tuple[str, ...]
) -> Iterable[tuple[str, str]]:
    if len(texts) > ENDPOINTS_MAX:
        yield key, f"there are more than {ENDPOINTS_MAX}"
    for text in texts:
        try:
            found = parse_endpoint(text, schemes, PORTS if "" not in schemes else {})
        except Malformed as error:
            yield key, str(error)
            continue
        if literal(found.host) and (reason := refused(found.host, allow_link_local=settings.allow_link_local)):
            yield key, reason
        if "" in schemes and found.path:
            yield key, f"{text!r}: gRPC has no paths"
        if "" in schemes and found.scheme == "https" and settings.tls.insecure:
            yield key, f"{text!r}: https:// and tls.insecure contradict each other"


def _tls_problems(settings: OtlpSettings) -> Iterable[tuple[str, str]]:
    if (settings.tls.cert_file is None) != (settings.tls.key_file is None):
        yield "tls.cert_file", "cert_file and key_file belong together"
    if settings.bearer_token_file is not None and "authorization" in settings.headers:
        yield "bearer_token_file", "headers has an Authorization, too"
    for name in settings.headers:
        if name in _RESERVED or name.startswith("grpc-"):
            yield "headers", f"{name} is the transport's own"


_RESERVED: Final = frozenset(
    {"host", "content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "te", "upgrade"}
)


def otlp_obstacles(settings: OtlpSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.obstacles`."""
    yield from unreadable(settings.tls, bearer_token_file=settings.bearer_token_file)
