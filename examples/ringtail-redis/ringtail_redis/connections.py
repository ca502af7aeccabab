"""Connections to the server: where they go, how they are secured, and what it means when something fails on them.

The endpoint's name is resolved by the rules of `collector.exporters.outbound`, so that addresses which are not to be
connected to are refused, and connections go to that address. With rediss:// the server's certificate is verified for the
name, or for `tls.server_name_override`; redis-py alone would verify it for the address, and trust the system's authorities
beside those of `ca_file`. Files of `tls` are looked at for each new connection: one that was renewed needs no restart.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from collector.errors import Retryable, Unwelcome
from collector.exporters.outbound import parse_endpoint, resolve
from collector.exporters.secured import client_context
from collector.security.watched import Watched
from ringtail_redis import PORTS, SCHEMES, SECURED, RedisSettings

if TYPE_CHECKING:
    from collector.exporters.settings import ClientTls

CONNECTIONS_MAX: Final = 32
"""Connections of one backend; who finds them all at work waits."""
_CAUSES_MAX: Final = 8
"""How far back an error's causes are followed."""


class _Secured(SSLConnection):
    """One that is verified for a name, though it goes to an address."""

    def __init__(self, *, context: Callable[[], ssl.SSLContext], name: str, **rest: Any) -> None:
        super().__init__(**rest)
        self._context, self._name = context, name

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._context(), "server_hostname": self._name}


class _Newest:
    """The context that the files make as they are now."""

    def __init__(self, tls: ClientTls) -> None:
        self._tls = tls
        self._watched = Watched([one for one in (tls.ca_file, tls.cert_file, tls.key_file) if one])
        self._made: ssl.SSLContext | None = None

    def __call__(self) -> ssl.SSLContext:
        if self._watched.changed():
            self._made = None
        if self._made is None:
            self._made = client_context(self._tls)
        return self._made


async def client(settings: RedisSettings) -> Redis:
    """Return a client, which connects when it is used. Raises Retryable or Unwelcome for a name that leads nowhere."""
    endpoint = parse_endpoint(settings.endpoint, SCHEMES, PORTS)
    pairs = await resolve(endpoint.host, endpoint.port, allow_link_local=settings.allow_link_local)
    how: dict[str, Any] = {"connection_class": Connection}
    if endpoint.scheme == SECURED:
        name = settings.tls.server_name_override or endpoint.host
        how = {"connection_class": _Secured, "context": _Newest(settings.tls), "name": name}
    if settings.password is not None:
        how |= {"username": settings.username, "password": settings.password.reveal()}
    return Redis.from_pool(
        BlockingConnectionPool(
            host=pairs[0][1],
            port=endpoint.port,
            db=settings.database,
            socket_timeout=settings.timeout,
            socket_connect_timeout=settings.timeout,
            retry=Retry(NoBackoff(), 0),  # Who calls repeats what failed.
            max_connections=CONNECTIONS_MAX,
            timeout=settings.timeout,
            **how,
        )
    )


def cause_of(error: Exception) -> Retryable | Unwelcome:
    """Return what an error of redis-py's means: nothing now, or nothing as we are configured."""
    match error:
        case OutOfMemoryError() | ReadOnlyError():
            return Retryable(f"Redis takes nothing now: {error}")
        case AuthenticationError() | AuthorizationError() | NoPermissionError():
            return Unwelcome(f"Redis refuses us: {error}")
        case ResponseError():
            return Retryable(f"Redis has refused a command: {error}")
    return _of_tls(error) or Retryable(f"Redis does not answer: {error}")


def _of_tls(error: BaseException) -> Unwelcome | None:
    """Return why there is no TLS, if that is behind an error: redis-py makes its own of all that fails in connecting."""
    inner: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if inner is None:
            break
        if isinstance(inner, Unwelcome):
            return inner
        if isinstance(inner, ssl.SSLCertVerificationError):
            return Unwelcome(f"no TLS: the server's certificate: {inner.verify_message}")
        if isinstance(inner, ssl.SSLError) and not isinstance(inner, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return Unwelcome(f"no TLS: {(inner.reason or str(inner)).replace('_', ' ').lower()}")
        inner = inner.__cause__ or inner.__context__
    return None
