"""The kind `redis`: what the entry point names. The driver is imported when a backend is made, not before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from collector.declaration import section, setting
from collector.errors import InvalidConfig, Malformed
from collector.exporters.kinds import Kind
from collector.exporters.outbound import literal, parse_endpoint, refused
from collector.exporters.settings import ClientTls, ExporterSettings, unreadable
from collector.security.secret import Secret

if TYPE_CHECKING:
    from collector.exporters.base import Backend, Context

SECURED: Final = "rediss"
"""The scheme that is TLS."""
SCHEMES: Final = ("", "redis", SECURED)
PORTS: Final = {"redis": 6379, SECURED: 6379}
DEFAULT_USER: Final = "default"
DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class RedisSettings(ExporterSettings):
    """exporters.redis"""

    endpoint: str = setting(
        "localhost:6379", "text", "host:port of the server, redis://host:port, or rediss://host:port for TLS."
    )
    database: int = setting(0, "count", "The number of the database.", low=0, high=65_535)
    username: str = setting(DEFAULT_USER, "text", "The user.")
    password: Secret | None = setting(None, "password", "The user's password.")
    tls: ClientTls = section(ClientTls, "How TLS is spoken, with rediss://.")
    prefix: str = setting("ringtail", "name", "What the names of all keys begin with.")
    max_len: int = setting(
        1_000_000,
        "count",
        "Records that each instance keeps of a signal; the oldest go first.",
        low=1,
        high=1_000_000_000,
    )
    ttl: float = setting(
        DAY_S, "duration", "After so long without a write, everything of a signal goes.", low=1, high=3650 * DAY_S
    )
    allow_link_local: bool = setting(False, "switch", "Connect to link-local addresses, too.")


def problems(settings: RedisSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.problems`."""
    try:
        endpoint = parse_endpoint(settings.endpoint, SCHEMES, PORTS)
    except Malformed as error:
        yield "endpoint", str(error)
        return
    if endpoint.path:
        yield "endpoint", "has no path: the database has a key of its own"
    reason = refused(endpoint.host, allow_link_local=settings.allow_link_local) if literal(endpoint.host) else ""
    if reason:
        yield "endpoint", reason
    if settings.password is None and settings.username != DEFAULT_USER:
        yield "password", "is missing; only the user default may have none"
    if settings.tls.insecure:
        yield "tls.insecure", "is for others; here the endpoint says redis:// or rediss://"
    elif settings.tls != ClientTls() and endpoint.scheme != SECURED:
        yield "endpoint", "is rediss://host:port where tls is set"
    if (settings.tls.cert_file is None) != (settings.tls.key_file is None):
        yield "tls.cert_file", "cert_file and key_file belong together"


def obstacles(settings: RedisSettings) -> Iterable[tuple[str, str]]:
    """See `Kind.obstacles`."""
    yield from unreadable(settings.tls)


def make(settings: RedisSettings, context: Context) -> Backend:
    """See `Kind.make`."""
    if find_spec("redis") is None:
        raise InvalidConfig([f"exporters.{context.name}: redis-py is missing: pip install redis"])
    from ringtail_redis.backend import RedisBackend

    return RedisBackend(settings, context)


KIND: Final = Kind("A bounded buffer in Redis streams.", RedisSettings, make, problems, obstacles, reads=True)
