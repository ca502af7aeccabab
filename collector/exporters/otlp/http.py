"""OTLP over HTTP/1.1: bodies in protobuf or JSON, plain, gzip or zstd.

The client is aiohttp's: its parser is compiled, it keeps connections, and it lets us resolve names ourselves, which is
where outbound.py looks at every address before it is connected to. Redirects are not followed, cookies not kept,
proxies of the environment not used, and of an answer `ANSWER_BYTES_MAX` bytes are read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp
import zstandard
from aiohttp.abc import AbstractResolver, ResolveResult
from isal import igzip

from collector.errors import Retryable, RingtailError, Unwelcome
from collector.exporters.otlp.answers import of_http, of_response
from collector.exporters.otlp.exporter import OtlpExporter
from collector.exporters.otlp.settings import http_endpoints
from collector.exporters.outbound import ANSWER_BYTES_MAX, CONNECT_S, resolve
from collector.exporters.secured import client_context
from collector.otlp.json.write import to_json
from collector.otlp.signals import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.exporters.base import Context, Rejected
    from collector.exporters.otlp.settings import HttpSettings
    from collector.exporters.outbound import Endpoint
    from collector.exporters.settings import ClientTls
    from collector.otlp.signals import Signal

ZSTD_LEVEL: Final = 1
GZIP_LEVEL: Final = 1
IDLE_S: Final = 30.0
"""How long a connection without requests is kept."""
HEADER_BYTES_MAX: Final = 16 * 1024
_CONTENT_TYPES: Final = {"proto": "application/x-protobuf", "json": "application/json"}


class _Refused(OSError):
    """A name that leads nowhere, or where it must not lead; `cause` says which."""

    def __init__(self, cause: RingtailError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Resolver(AbstractResolver):
    """Names, by the rules of outbound.py."""

    def __init__(self, *, allow_link_local: bool) -> None:
        self._allow = allow_link_local

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host."""
        try:
            found = await resolve(host, port, allow_link_local=self._allow)
        except RingtailError as error:
            raise _Refused(error) from error
        return [
            ResolveResult(hostname=host, host=address, port=port, family=of, proto=0, flags=socket.AI_NUMERICHOST)
            for of, address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


class Connecting(Protocol):
    """What of an exporter's settings says how it connects."""

    @property
    def timeout(self) -> float:
        """Seconds that an exchange may take."""

    @property
    def tls(self) -> ClientTls:
        """How TLS is spoken."""

    @property
    def allow_link_local(self) -> bool:
        """See outbound.py."""


class HttpClient:
    """The connections of one exporter, to all its endpoints."""

    def __init__(self, settings: Connecting) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None  # of that session; the authorities' certificates cost 40 ms to read
        self._requests: Counter[aiohttp.ClientSession] = Counter()  # under way

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(
                resolver=_Resolver(allow_link_local=self._settings.allow_link_local),
                use_dns_cache=False,
                keepalive_timeout=IDLE_S,
                limit=0,  # num_consumers is the limit
            )
            self._context = None
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout, sock_connect=CONNECT_S),
                trust_env=False,
                auto_decompress=False,
                max_line_size=HEADER_BYTES_MAX,
                max_field_size=HEADER_BYTES_MAX,
                headers={"User-Agent": "ringtail", "Accept-Encoding": "identity"},
            )
        return self._session

    def _tls(self, url: str) -> ssl.SSLContext | bool:
        """Return how TLS is spoken, where it is. Raises Unwelcome for files that do not fit."""
        if not url.startswith("https:"):
            return True
        if self._context is None:
            self._context = client_context(self._settings.tls)
        return self._context

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of the answer. Raises Retryable or Unwelcome."""
        async with self.asked(url, body, headers) as answer:
            data = await answer.content.read(ANSWER_BYTES_MAX + 1)
            while len(data) <= ANSWER_BYTES_MAX and not answer.content.at_eof():
                data += await answer.content.read(ANSWER_BYTES_MAX + 1 - len(data))
            if len(data) > ANSWER_BYTES_MAX:
                answer.close()
                raise Unwelcome(f"{answer.status}: the answer is larger than {ANSWER_BYTES_MAX} bytes")
            return answer.status, answer.headers, data

    @asynccontextmanager
    async def asked(
        self, url: str, body: bytes, headers: Mapping[str, str], *, silence_s: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a POST, and give the answer to read as it comes; who stops before its end closes the connection.

        The whole exchange may take `timeout`; with `silence_s` it may take any time, but for pauses. What breaks in it,
        also while it is read, raises Retryable or Unwelcome.
        """
        limits = aiohttp.ClientTimeout(total=self._settings.timeout, sock_connect=CONNECT_S)
        if silence_s is not None:
            limits = aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=silence_s)
        session = self._opened()
        tls = self._tls(url)
        self._requests[session] += 1
        try:
            async with session.post(
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                ssl=tls,
                server_hostname=self._settings.tls.server_name_override,
                timeout=limits,
            ) as answer:
                yield answer
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, _Refused):
                raise error.os_error.cause from None
            raise Retryable(str(error)) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unwelcome(f"no TLS: {error.certificate_error}") from error
        except TimeoutError as error:
            waited = self._settings.timeout if silence_s is None else silence_s
            raise Retryable(f"no answer within {waited:g} s (timeout)") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable(f"{type(error).__name__}: {error}") from error
        finally:
            self._requests[session] -= 1
            if session is not self._session:
                await self._close_unused(session)

    async def renew(self) -> None:
        """Open other connections from now on; those with a request under way are closed after it."""
        session, self._session = self._session, None
        if session is not None:
            await self._close_unused(session)

    async def _close_unused(self, session: aiohttp.ClientSession) -> None:
        if not self._requests[session]:
            del self._requests[session]
            await session.close()

    async def close(self) -> None:
        """Close all connections; the next request opens others."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class HttpLink:
    """See `Link`."""

    def __init__(self, at: Endpoint, name: str, client: HttpClient, settings: HttpSettings, context: Context) -> None:
        self.name = name
        self._url = f"{at.scheme}://{at.authority}{at.path}"
        self._client = client
        self._settings = settings
        self._context = context

    async def send(self, signal: Signal, payload: bytes, headers: Mapping[str, str]) -> Rejected | None:
        """See `Link.send`."""
        settings = self._settings
        body = await asyncio.get_running_loop().run_in_executor(
            self._context.threads, encoded, signal, payload, settings.encoding, settings.compression
        )
        own = {"Content-Type": _CONTENT_TYPES[settings.encoding]}
        if settings.compression != "none":
            own["Content-Encoding"] = settings.compression
        status, answered, data = await self._client.post(self._url, body, {**headers, **own})
        content_type = answered.get("Content-Type", "")
        if 200 <= status < 300:
            return of_response(signal, data, content_type)
        now_s = self._context.clock.now_ns() / 1e9
        raise of_http(status, answered.get("Retry-After"), content_type, data, now_s)

    async def renew(self) -> None:
        """See `Link.renew`."""
        await self._client.renew()

    async def close(self) -> None:
        """See `Link.close`."""
        await self._client.close()


def encoded(signal: Signal, payload: bytes, encoding: str, compression: str) -> bytes:
    """Return the body of a request."""
    if encoding == "json":
        payload = to_json(signal, payload)
    if compression == "gzip":
        return bytes(igzip.compress(payload, GZIP_LEVEL))
    if compression == "zstd":
        return zstandard.ZstdCompressor(ZSTD_LEVEL).compress(payload)
    return payload


def http_exporter(settings: HttpSettings, context: Context) -> OtlpExporter:
    """Make the exporter `otlphttp`."""
    client = HttpClient(settings)
    links: dict[Signal, Any] = {}
    for name in settings.signals:
        own = getattr(settings, f"{name}_endpoint")
        texts = (own,) if own is not None else settings.endpoint
        found = http_endpoints(settings, name)
        links[BY_NAME[name]] = [
            HttpLink(at, text, client, settings, context) for at, text in zip(found, texts, strict=True)
        ]
    return OtlpExporter(settings, links, context)
