"""Where records are sent to: any OTLP endpoint, by the links of the exporters `otlp` and `otlphttp`.

`http(s)://HOST:PORT` is OTLP/HTTP, `grpc(s)://HOST:PORT` OTLP/gRPC. A request counts as sent when it was acknowledged; what may
succeed later is repeated, with waits that grow, for `PATIENCE_S`.
"""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self

from prometheus_client import CollectorRegistry

from collector.errors import Malformed, Retryable, Unavailable
from collector.exporters.base import Context, Rejected
from collector.exporters.otlp.grpc import GrpcLink
from collector.exporters.otlp.http import HttpClient, HttpLink
from collector.exporters.otlp.settings import GrpcSettings, HttpSettings, grpc_endpoints, http_endpoints
from collector.exporters.retry import Backoff
from collector.exporters.settings import ClientTls, RetryOnFailure
from collector.otlp.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from collector.clock import Clock
    from collector.exporters.otlp.exporter import Link
    from collector.otlp.signals import Signal

PATIENCE_S: Final = 300.0
TIMEOUT_S: Final = 30.0
_RETRY: Final = RetryOnFailure(initial_interval=0.2, max_interval=10.0)


class Target:
    """An endpoint, for commands: every call waits until it is done. A context manager."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        tls: ClientTls,
        clock: Clock,
        logger: Any,
        *,
        patience_s: float = PATIENCE_S,
        waiting: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Connect to nothing yet; `waiting` is told why a request is repeated. Raises Malformed."""
        self._headers = {name.lower(): value for name, value in headers.items()}
        self._clock = clock
        self._patience_s = patience_s
        self._waiting = waiting
        self._chance = random.SystemRandom()
        self._threads = ThreadPoolExecutor(1)
        self._links: dict[Signal, Link] = {}
        context = Context("target", clock, logger, CollectorRegistry(), self._threads, None)
        scheme, _, rest = url.partition("://")
        if scheme in ("grpc", "grpcs") and rest:
            settings = GrpcSettings(endpoint=(rest,), timeout=TIMEOUT_S, tls=tls, compression="none")
            at = grpc_endpoints(settings)[0]
            link = GrpcLink(at, url, settings, plaintext=scheme == "grpc")
            self._links = dict.fromkeys(SIGNALS, link)
        elif scheme in ("http", "https"):
            by_http = HttpSettings(endpoint=(url,), timeout=TIMEOUT_S, tls=tls, compression="none")
            client = HttpClient(by_http, context)
            for signal in SIGNALS:
                endpoint = http_endpoints(by_http, signal.name)[0]
                self._links[signal] = HttpLink(endpoint, url, client, by_http, context)
        else:
            raise Malformed(f"{url!r} is no endpoint: it begins with http://, https://, grpc:// or grpcs://")
        self._runner = asyncio.Runner()

    def send(self, signal: Signal, payload: bytes) -> Rejected | None:
        """Send a request and wait for its acknowledgement; returns what of it was rejected.

        Raises Permanent, Unwelcome, and Unavailable when nobody has taken it for so long.
        """
        return self._runner.run(self._send(signal, payload))

    async def _send(self, signal: Signal, payload: bytes) -> Rejected | None:
        backoff = Backoff(_RETRY, self._chance)
        until = self._clock.monotonic() + self._patience_s
        while True:
            try:
                async with asyncio.timeout(2 * TIMEOUT_S):
                    return await self._links[signal].send(signal, payload, self._headers)
            except (Retryable, TimeoutError) as error:
                wait_s = backoff.wait_s(error.after_s if isinstance(error, Retryable) else None)
                if self._clock.monotonic() + wait_s > until:
                    raise Unavailable(f"given up after {self._patience_s:.0f} s: {error or 'no answer'}") from error
                self._waiting(str(error) or "no answer")
                await asyncio.sleep(wait_s)

    def wait(self, seconds: float) -> None:
        """Let time go by."""
        self._runner.run(asyncio.sleep(seconds))

    def close(self) -> None:
        """Close the connections."""
        for link in set(self._links.values()):
            self._runner.run(link.close())
        self._runner.close()
        self._threads.shutdown()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
