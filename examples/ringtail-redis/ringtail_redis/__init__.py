"""The kind `redis`: what the entry point names. The driver is imported when a backend is made, not before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from collector.declaration import setting
from collector.errors import InvalidConfig, Malformed
from collector.exporters.kinds import Kind
from collector.exporters.outbound import literal, parse_endpoint, refused
from collector.exporters.settings import ExporterSettings
from collector.security.secret import Secret

if TYPE_CHECKING:
    from collector.exporters.base import Backend, Context

PORTS: Final = {"redis": 6379}
DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class RedisSettings(ExporterSettings):
    """exporters.redis"""

    endpoint: str = setting("localhost:6379", "text", "host:port of the server.")
    database: int = setting(0, "count", "The number of the database.", low=0, high=65_535)
    username: str = setting("default", "text", "The user.")
    password: Secret | None = setting(None, "password", "The user's password.")
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
        host = parse_endpoint(settings.endpoint, ("", "redis"), PORTS).host
    except Malformed as error:
        yield "endpoint", str(error)
    else:
        reason = refused(host, allow_link_local=settings.allow_link_local) if literal(host) else ""
        if reason:
            yield "endpoint", reason


def make(settings: RedisSettings, context: Context) -> Backend:
    """See `Kind.make`."""
    if find_spec("redis") is None:
        raise InvalidConfig([f"exporters.{context.name}: redis-py is missing: pip install redis"])
    from ringtail_redis.backend import RedisBackend

    return RedisBackend(settings, context)


KIND: Final = Kind("A bounded buffer in Redis streams.", RedisSettings, make, problems, reads=True)
