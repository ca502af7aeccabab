"""Where records are sent to: any OTLP endpoint, by the links of the exporters `otlp` and `otlphttp`, or any exporter.

`http(s)://HOST:PORT` is OTLP/HTTP, `grpc(s)://HOST:PORT` OTLP/gRPC. A request counts as sent when it was acknowledged; what may
succeed later is repeated, with waits that grow, for `PATIENCE_S`. Every call waits until it is done.
"""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from prometheus_client import CollectorRegistry

from collector.errors import Malformed, Retryable, Unavailable
from collector.exporters.base import Batch, Context, Rejected, Source
from collector.exporters.otlp.grpc import GrpcLink
from collector.exporters.otlp.http import HttpClient, HttpLink
from collector.exporters.otlp.settings import GrpcSettings, HttpSettings, grpc_endpoints, http_endpoints
from collector.exporters.retry import Backoff
from collector.exporters.settings import ClientTls, RetryOnFailure
from collector.otlp.cut import cut
from collector.otlp.scan import scan
from collector.otlp.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from concurrent.futures import Executor

    from collector.clock import Clock
    from collector.exporters.base import Exporter
    from collector.exporters.otlp.exporter import Link
    from collector.moving.source import Runs
    from collector.otlp.block import Block
    from collector.otlp.signals import Signal

T = TypeVar("T")

PATIENCE_S: Final = 300.0
TIMEOUT_S: Final = 30.0
THREADS: Final = 4
_RETRY: Final = RetryOnFailure(initial_interval=0.2, max_interval=10.0)


class Target:
    """Somewhere to send to, for commands. A context manager."""

    def __init__(self, clock: Clock, patience_s: float, waiting: Callable[[str], None]) -> None:
        """Not for callers; `waiting` is told why something is repeated."""
        self._clock = clock
        self._patience_s = patience_s
        self._waiting = waiting
        self._chance = random.SystemRandom()
        self._threads = ThreadPoolExecutor(THREADS)
        self._runner = asyncio.Runner()

    def send(self, signal: Signal, payload: bytes, runs: Runs = ()) -> Rejected | None:
        """Send a request and wait for its acknowledgement; returns what of it was rejected. `runs` are the offsets of its
        records.

        Raises Permanent, Unwelcome, and Unavailable when nobody has taken it for so long.
        """
        return self._runner.run(self._send(signal, payload, runs))

    async def _send(self, signal: Signal, payload: bytes, runs: Runs) -> Rejected | None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    async def _patient(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Call until it succeeds; raise Unavailable when that takes too long."""
        backoff = Backoff(_RETRY, self._chance)
        until = self._clock.monotonic() + self._patience_s
        while True:
            try:
                async with asyncio.timeout(2 * TIMEOUT_S):
                    return await call()
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
        """Let go of it."""
        self._runner.run(self._close())
        self._runner.close()
        self._threads.shutdown()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


class OtlpTarget(Target):
    """An OTLP endpoint."""

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
        """Connect to nothing yet. Raises Malformed."""
        super().__init__(clock, patience_s, waiting)
        self._headers = {name.lower(): value for name, value in headers.items()}
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
            client = HttpClient(by_http)
            for signal in SIGNALS:
                endpoint = http_endpoints(by_http, signal.name)[0]
                self._links[signal] = HttpLink(endpoint, url, client, by_http, context)
        else:
            raise Malformed(f"{url!r} is no endpoint: it begins with http://, https://, grpc:// or grpcs://")

    async def _send(self, signal: Signal, payload: bytes, runs: Runs) -> Rejected | None:
        return await self._patient(lambda: self._links[signal].send(signal, payload, self._headers))

    async def _close(self) -> None:
        for link in set(self._links.values()):
            await link.close()


class ExporterTarget(Target):
    """An exporter, which is given the records under keys of a made-up source."""

    def __init__(
        self,
        make: Callable[[Executor], Exporter],
        instance: str,
        tenant: str,
        clock: Clock,
        *,
        patience_s: float = PATIENCE_S,
        waiting: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`instance` is the made-up source's; `make` is given threads for what the exporter has to do. Raises as starting it
        does."""
        super().__init__(clock, patience_s, waiting)
        self._instance = instance
        self._tenant = tenant
        self._reached: dict[Signal, int] = {}
        self._exporter = make(self._threads)
        try:
            self._runner.run(self._patient(self._exporter.start))
        except BaseException:
            self.close()
            raise

    async def _send(self, signal: Signal, payload: bytes, runs: Runs) -> Rejected | None:
        source = Source(self._instance, self._tenant, signal)
        if signal not in self._reached:
            reached: int | None = await self._patient(lambda: self._exporter.position(source))
            self._reached[signal] = reached or 0
        whole = Batch(source, tuple(numbered(signal, payload, runs)), runs[0][0], runs[-1][1])
        batch = whole.part(max(whole.first_offset, self._reached[signal]), whole.end_offset)
        if batch is None:
            return None
        return await self._patient(lambda: self._exporter.export(batch))

    async def _close(self) -> None:
        await self._exporter.stop()


def numbered(signal: Signal, payload: bytes, runs: Runs) -> Iterator[Block]:
    """Yield the records of a request as blocks that begin at these offsets. Raises Malformed."""
    block = scan(signal, payload, 0)
    row = 0
    for first, end in runs:
        part = cut(block, row, row + end - first)
        yield scan(signal, part.payload, first)
        row += end - first
    if row != block.count:
        raise Malformed(f"{block.count} records for {row} offsets")
