"""Redis as a backend: a stream for each instance, and two indexes.

**Once.** An entry's id is its record's offset, and a stream takes no id that is not above the last one. So what is handed
over again is known by the stream's last id, which is also the `position`, and everything about a batch is written in
one transaction (MULTI).

**Bounded.** Each stream is cut to `max_len`; what is cut leaves the indexes first. Nobody else writes to that stream, so
there is no race. All keys of a signal and tenant get `ttl` anew with each write, so they go together.

**Read** in the order of times: pages of places from an index, then the entries they name, in one pipeline. Only times and
traces narrow the search; the rest is the business of who asks.

Left out, for it is an example: indexes by service or name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError, ResponseError

from collector.errors import Unwelcome
from collector.exporters.base import Backend, Batch, Context, Health, Rejected, Source, Wanted
from collector.otlp.records import Ref, regroup
from collector.otlp.scan import scan
from collector.otlp.signals import METRICS, Signal
from ringtail_redis.connections import cause_of, client
from ringtail_redis.keys import TRACE_BYTES, Keys, bounds, instance_of, offset_of, place, tenants

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from collector.otlp.block import Block
    from ringtail_redis import RedisSettings

AT_ONCE: Final = 1000
"""Records of one transaction, and of one block."""
NO_TRACE: Final = bytes(TRACE_BYTES)
TOP: Final = 2**63
"""Above every offset."""


class RedisBackend(Backend):
    """See the module."""

    def __init__(self, settings: RedisSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._redis: Redis | None = None
        self._trouble = ""
        self._written = self._cut = 0

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect."""
        await self.stop()
        self._redis = await client(self._settings)
        with self._causes():
            await self._redis.ping()

    async def stop(self) -> None:
        """Let go of all connections."""
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.aclose()

    def health(self) -> Health:
        """How the last call ended."""
        return Health(not self._trouble, self._trouble)

    def stats(self) -> dict[str, Any]:
        """Figures since the start."""
        return {"records": self._written, "cut": self._cut}

    @property
    def _connected(self) -> Redis:
        if self._redis is None:
            raise Unwelcome("the backend was stopped")
        return self._redis

    @contextmanager
    def _causes(self) -> Iterator[None]:
        """Turn redis-py's errors into causes."""
        try:
            yield
        except (RedisError, OSError) as error:
            cause = cause_of(error)
            self._trouble = str(cause)
            raise cause from error
        self._trouble = ""

    def _keys(self, signal: Signal, tenant: str) -> Keys:
        return Keys.of(self._settings.prefix, signal, tenant)

    # --- writing --------------------------------------------------------------------------------------------------

    async def export(self, batch: Batch) -> Rejected | None:
        """Write what the stream does not have yet, and cut it to its length."""
        with self._causes():
            keys = self._keys(batch.signal, batch.source.tenant)
            stream = keys.stream(batch.source.instance)
            position = await self._position(stream) or 0
            entries: list[tuple[int, dict[bytes, bytes]]] = []
            for block in batch.blocks:
                for offset, fields in _entries(batch.source, block, position):
                    entries.append((offset, fields))
                    if len(entries) == AT_ONCE:
                        await self._write(batch.source, keys, entries)
                        entries = []
            await self._write(batch.source, keys, entries)
            await self._trim(keys, stream)
        return None

    async def _write(self, source: Source, keys: Keys, entries: list[tuple[int, dict[bytes, bytes]]]) -> None:
        if not entries:
            return
        redis, stream, ttl = self._connected, keys.stream(source.instance), round(self._settings.ttl)
        others = await redis.smembers(keys.sources)
        async with redis.pipeline(transaction=True) as work:
            for offset, fields in entries:
                work.xadd(stream, fields, id=f"{offset + 1}-0")
            work.zadd(keys.times, {fields[b"p"]: 0 for _, fields in entries})
            traced = {fields[b"t"] + fields[b"p"]: 0 for _, fields in entries if b"t" in fields}
            if traced:
                work.zadd(keys.traces, traced)
            work.sadd(keys.sources, source.instance)
            streams = {stream, *(keys.stream(one.decode()) for one in others)}
            for key in (keys.times, keys.traces, keys.sources, *sorted(streams)):
                work.expire(key, ttl)
            await work.execute()
        await redis.sadd(tenants(self._settings.prefix, source.signal), source.tenant)
        self._written += len(entries)

    async def _trim(self, keys: Keys, stream: str) -> None:
        """Cut a stream to its length; what goes leaves the indexes in the same transaction."""
        redis = self._connected
        while (excess := await redis.xlen(stream) - self._settings.max_len) > 0:
            oldest = await redis.xrange(stream, count=min(excess, AT_ONCE))
            await self._remove(keys, [(stream, id_, fields) for id_, fields in oldest])
            self._cut += len(oldest)

    async def _remove(self, keys: Keys, entries: list[tuple[str, bytes, dict[bytes, bytes]]]) -> None:
        """Remove entries: (stream, id, fields)."""
        if not entries:
            return
        async with self._connected.pipeline(transaction=True) as work:
            for stream, id_, fields in entries:
                work.xdel(stream, id_)
                if b"t" in fields:
                    work.zrem(keys.traces, fields[b"t"] + fields[b"p"])
            work.zrem(keys.times, *(fields[b"p"] for _, _, fields in entries))
            await work.execute()

    async def position(self, source: Source) -> int | None:
        """The offset behind the last one that the stream has had."""
        with self._causes():
            return await self._position(self._keys(source.signal, source.tenant).stream(source.instance))

    async def _position(self, stream: str) -> int | None:
        try:
            about = await self._connected.xinfo_stream(stream)
        except ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        return int(bytes(about["last-generated-id"]).partition(b"-")[0])

    # --- reading --------------------------------------------------------------------------------------------------

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        """By trace where traces are asked for, else by time."""
        keys = self._keys(wanted.signal, wanted.tenant)
        own = (wanted.tenant, wanted.signal)
        held = {one.source.instance: one.first_offset for one in wanted.held if one.source[1:] == own}
        by_trace = wanted.trace_ids and wanted.signal is not METRICS and NO_TRACE not in wanted.trace_ids
        pages = self._of_traces(keys, wanted) if by_trace else self._of_times(keys, wanted)
        async for page in pages:
            places = [one for one in page if offset_of(one) < held.get(instance_of(one), TOP)]
            payloads = [fields[b"d"] for _, _, fields in await self._fetch(keys, places)]
            if payloads:
                yield scan(wanted.signal, b"".join(payloads), 0)

    async def _of_times(self, keys: Keys, wanted: Wanted) -> AsyncIterator[list[bytes]]:
        """Yield places in the order of times, a page at a time: each begins behind the last place of the one before."""
        first, last = bounds(wanted.start_ns, wanted.end_ns)
        while True:
            with self._causes():
                page = await self._page(keys.times, first, last, newest_first=wanted.newest_first)
            if not page:
                return
            yield page
            if wanted.newest_first:
                last = b"(" + page[-1]
            else:
                first = b"(" + page[-1]

    async def _page(self, key: str, first: bytes, last: bytes, *, newest_first: bool) -> list[bytes]:
        redis = self._connected
        if newest_first:
            return list(await redis.zrevrangebylex(key, last, first, start=0, num=AT_ONCE))
        return list(await redis.zrangebylex(key, first, last, start=0, num=AT_ONCE))

    async def _of_traces(self, keys: Keys, wanted: Wanted) -> AsyncIterator[list[bytes]]:
        """The same for traces, whose places are put into order here: 32 bytes for each record of theirs."""
        places: list[bytes] = []
        for trace in dict.fromkeys(wanted.trace_ids):
            with self._causes():
                found = await self._connected.zrangebylex(
                    keys.traces, *bounds(wanted.start_ns, wanted.end_ns, before=trace)
                )
            places += [one[TRACE_BYTES:] for one in found]
        places.sort(reverse=wanted.newest_first)
        for at in range(0, len(places), AT_ONCE):
            yield places[at : at + AT_ONCE]

    async def _fetch(self, keys: Keys, places: Iterable[bytes]) -> list[tuple[str, bytes, dict[bytes, bytes]]]:
        """Return the entries at places: (stream, id, fields); those that are gone meanwhile are left out."""
        with self._causes():
            asked = []
            async with self._connected.pipeline(transaction=False) as work:
                for one in places:
                    id_ = f"{offset_of(one) + 1}-0"
                    asked.append(keys.stream(instance_of(one)))
                    work.xrange(asked[-1], id_, id_)
                answers = await work.execute() if asked else []
        return [(stream, id_, fields) for stream, found in zip(asked, answers, strict=True) for id_, fields in found]

    # --- deleting and counting ------------------------------------------------------------------------------------

    async def delete(self, wanted: Wanted) -> int:
        """Delete the records of traces."""
        keys = self._keys(wanted.signal, wanted.tenant)
        deleted = 0
        async for places in self._of_traces(keys, wanted):
            entries = await self._fetch(keys, places)
            with self._causes():
                await self._remove(keys, entries)
            deleted += len(entries)
        return deleted

    async def delete_offsets(self, source: Source, ranges: Sequence[tuple[int, int]]) -> int | None:
        """Delete records by their offsets, which are their entries' ids."""
        keys = self._keys(source.signal, source.tenant)
        stream, deleted = keys.stream(source.instance), 0
        for first, end in ranges:
            while True:
                with self._causes():
                    found = await self._connected.xrange(stream, f"{first + 1}-0", f"{end}-0", count=AT_ONCE)
                    await self._remove(keys, [(stream, id_, fields) for id_, fields in found])
                deleted += len(found)
                if len(found) < AT_ONCE:
                    break
        return deleted

    async def retain(self, signal: Signal, before_ns: int) -> None:
        """Forget what is older, of all tenants."""
        if before_ns <= 0:
            return
        with self._causes():
            known = await self._connected.smembers(tenants(self._settings.prefix, signal))
        for tenant in known:
            keys = self._keys(signal, tenant.decode())
            while True:
                with self._causes():
                    page = await self._page(keys.times, *bounds(0, before_ns - 1), newest_first=False)
                    if not page:
                        break
                    await self._remove(keys, await self._fetch(keys, page))
                    await self._connected.zrem(keys.times, *page)  # Also those whose entries are gone.

    async def count(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        """Count places."""
        if end_ns <= start_ns:
            return 0
        with self._causes():
            return int(await self._connected.zlexcount(self._keys(signal, tenant).times, *bounds(start_ns, end_ns - 1)))


def _entries(source: Source, block: Block, position: int) -> Iterator[tuple[int, dict[bytes, bytes]]]:
    """Yield (offset, fields) of the records of a block from a position on."""
    times = block.column("time").tolist()
    traces = block.column("trace_id") if block.signal is not METRICS else None
    for row in range(max(0, position - block.base_offset), block.count):
        offset = block.base_offset + row
        fields = {
            b"d": regroup([Ref(times[row], offset, block, row)]),
            b"p": place(times[row], source, offset),
        }
        trace = traces[row].tobytes() if traces is not None else NO_TRACE
        if trace != NO_TRACE:
            fields[b"t"] = trace
        yield offset, fields
