"""The OTLP exporter: batches as export requests, to one endpoint, the first that answers, or each trace to its own.

What a transport does is behind `Link`. An endpoint that fails is passed over for `REST_S`, unless all are. With several
endpoints that share a batch, what one of them has taken is not sent again when another fails: the delivery hands over the
same batch again, and only the rest of it goes out, perhaps elsewhere.

OTLP has no key by which a server would know a request that it was sent before, so that what was under way at a crash, or
timed out, may arrive twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import numpy as np

from collector.errors import Malformed, Permanent, Retryable, RingtailError
from collector.exporters.base import Exporter, Rejected
from collector.exporters.otlp.balance import Share, seeds, shares
from collector.security.watched import Interval, Watched, read_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from collector.exporters.base import Batch, Context, Source
    from collector.exporters.otlp.settings import OtlpSettings
    from collector.otlp.signals import Signal

TENANT_HEADER: Final = "x-scope-orgid"
REST_S: Final = 10.0
"""How long an endpoint that failed is passed over."""
REMEMBERED_MAX: Final = 1_000_000
"""Offsets of batches that were delivered in part; beyond, some records may be sent twice."""


class Link(Protocol):
    """The way to one endpoint."""

    @property
    def name(self) -> str:
        """The endpoint, as it is written in the configuration."""
        ...

    async def send(self, signal: Signal, payload: bytes, headers: Mapping[str, str]) -> Rejected | None:
        """Send one export request. Returns what was rejected, if anything; raises Retryable, Permanent, Unwelcome."""
        ...

    async def renew(self) -> None:
        """Let new connections be made with what certificates are in the files now."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class OtlpExporter(Exporter):
    """See the module."""

    parallel: ClassVar[int] = 32

    def __init__(self, settings: OtlpSettings, links: Mapping[Signal, Sequence[Link]], context: Context) -> None:
        """Send each signal by its links."""
        self._settings = settings
        self._links = links
        self._context = context
        self._seeds = {signal: seeds([link.name for link in found]) for signal, found in links.items()}
        self._rests_until: dict[Link, float] = {}
        self._partly: dict[Source, NDArray[np.int64]] = {}
        self._rejected: dict[Source, list[Rejected]] = {}
        """What some endpoints have refused of batches that are not finished."""
        self._headers = {name: value.reveal() for name, value in settings.headers.items()}
        tls = settings.tls
        watched = [one for one in (tls.ca_file, tls.cert_file, tls.key_file, settings.bearer_token_file) if one]
        self._watched = Watched(watched) if watched else None
        self._interval: Interval | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Exporter.start`: connections are made when there is something to send."""
        if self._watched is not None and self._interval is None:
            self._watched.changed()
            self._read_token()
            self._interval = Interval(self._settings.tls.reload_interval, self._look)

    def _look(self) -> None:
        """Look at the files."""
        assert self._watched is not None
        if self._watched.changed():
            self._renewing = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        try:
            self._read_token()
            for links in self._links.values():
                for link in links:
                    await link.renew()
        except RingtailError as error:
            self._context.logger.error("files not read again, the old ones stay in use", reason=str(error))
        else:
            self._context.logger.info("files read again")

    def _read_token(self) -> None:
        path = self._settings.bearer_token_file
        if path is None:
            return
        try:
            lines = read_lines(path)
        except Malformed as error:
            raise Retryable(str(error)) from error
        if len(lines) != 1 or not lines[0][1].isascii() or not lines[0][1].isprintable():
            raise Retryable(f"{path}: holds no token, or several")
        self._headers["authorization"] = f"Bearer {lines[0][1]}"

    async def stop(self) -> None:
        """See `Exporter.stop`."""
        if self._interval is not None:
            self._interval.stop()
        if self._renewing is not None:
            self._renewing.cancel()
        for links in self._links.values():
            for link in links:
                await link.close()

    def stats(self) -> dict[str, Any]:
        """See `Exporter.stats`."""
        now = self._context.clock.monotonic()
        names = dict.fromkeys(link.name for links in self._links.values() for link in links)
        resting = {link.name for link, until in self._rests_until.items() if until > now}
        return {"endpoints": [{"endpoint": name, "resting": name in resting} for name in names]}

    async def export(self, batch: Batch) -> Rejected | None:
        """See `Exporter.export`."""
        links = self._links[batch.signal]
        headers = dict(self._headers)
        if batch.source.tenant:
            headers.setdefault(TENANT_HEADER, batch.source.tenant)
        if len(links) > 1 and self._settings.balance == "trace_id":
            return await self._shared(batch, links, headers)
        error: RingtailError | None = None
        for link in self._in_turn(links):
            try:
                return await self._sent(link, batch.signal, batch.payload, headers)
            except Permanent:
                raise
            except RingtailError as failure:
                error = error or failure
        assert error is not None
        raise error

    def _answering(self, links: Sequence[Link]) -> list[int]:
        """Return the places of the links that did not fail lately; of all, if they all did."""
        now = self._context.clock.monotonic()
        found = [i for i, link in enumerate(links) if self._rests_until.get(link, 0.0) <= now]
        return found or list(range(len(links)))

    def _in_turn(self, links: Sequence[Link]) -> list[Link]:
        """Return the links, those that failed lately at the end, the one that failed first before others."""
        now = self._context.clock.monotonic()
        return sorted(links, key=lambda link: max(self._rests_until.get(link, 0.0), now))

    async def _sent(self, link: Link, signal: Signal, payload: bytes, headers: Mapping[str, str]) -> Rejected | None:
        """Send by one link, and remember whether it works."""
        worked = False
        try:
            found = await link.send(signal, payload, headers)
            worked = True
        except Permanent:
            worked = True
            raise
        finally:  # also when it is cancelled, because that took too long
            if worked:
                self._rests_until.pop(link, None)
            else:
                self._rests_until[link] = self._context.clock.monotonic() + REST_S
        return found

    async def _shared(self, batch: Batch, links: Sequence[Link], headers: Mapping[str, str]) -> Rejected | None:
        """Send each endpoint its share."""
        source = batch.source
        delivered = self._partly.get(source, np.empty(0, np.int64))
        parts = await asyncio.get_running_loop().run_in_executor(
            self._context.threads, shares, batch, self._seeds[batch.signal], self._answering(links), delivered
        )
        errors: list[RingtailError] = []

        async def send(share: Share) -> None:
            try:
                found = await self._sent(links[share.endpoint], batch.signal, share.payload, headers)
            except RingtailError as error:
                errors.append(error)
                return
            self._remember(source, share.offsets)
            if found is not None:
                self._rejected.setdefault(source, []).append(found)

        await asyncio.gather(*(send(share) for share in parts))
        if errors:
            raise next((one for one in errors if not isinstance(one, Permanent)), errors[0])
        self._forget(source, batch)
        rejected = self._rejected.pop(source, [])
        return Rejected(sum(one.records for one in rejected), rejected[0].reason) if rejected else None

    def _remember(self, source: Source, offsets: NDArray[np.int64]) -> None:
        known = self._partly.get(source)
        both = offsets if known is None else np.union1d(known, offsets)
        self._partly[source] = both[-REMEMBERED_MAX:]

    def _forget(self, source: Source, batch: Batch) -> None:
        known = self._partly.pop(source, None)
        if known is not None:
            left = known[(known < batch.first_offset) | (known >= batch.end_offset)]
            if left.size:
                self._partly[source] = left
