"""The seam between queries and the backend that they read back from: what is asked, in the words of the backend protocol.

`query/reach.py` knows no backends, and backends know no queries; here one's question becomes the other's `Wanted`, with
this instance's own records, which ring and log hold, left out. So is what was deleted, and of which the backend was not told yet:
traces by their ids, single records by what the backend knows them by, if those are not their keys.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import Retryable
from collector.exporters.base import Equal, Held, Wanted
from collector.otlp.records import Ref, regroup
from collector.otlp.scan import scan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from collector.exporters.base import Backend
    from collector.exporters.exports import Exports
    from collector.otlp.asked import Asked
    from collector.otlp.block import Block
    from collector.otlp.signals import Signal

NAMES_MAX: Final = 256
"""Names of metrics that a backend is asked for; of more, all metrics are read."""


def reading(exports: Exports, name: str, tenant: str, signal: Signal) -> Callable[[Asked, int], AsyncIterator[Block]]:
    """Return what reads from the backend of that name, as it is then: a reload may exchange it."""

    async def read(asked: Asked, held_from: int) -> AsyncIterator[Block]:
        backend = exports.backend(name)
        if backend is None:
            raise Retryable("it has not started")
        source = exports.source(tenant, signal)
        if source is None:
            raise Retryable("nothing is exported to it from here yet")
        names: tuple[str, ...] | None = asked.names
        if asked.named is not None:
            names = await _named(backend, asked, asked.named, signal, tenant)
            if names is None:
                return
        wanted = Wanted(
            signal,
            tenant,
            asked.start_ns,
            asked.end_ns,
            trace_ids=asked.trace_ids,
            services=asked.services,
            names=names or (),
            severities=asked.severities,
            texts=asked.texts,
            attributes=tuple(Equal(*one) for one in asked.attributes),
            newest_first=asked.newest_first,
            held=(Held(source, held_from),),
        )
        records = exports.deleted_records(name, tenant, signal)
        blocks: Any = backend.read(wanted)
        async with aclosing(blocks):
            async for block in blocks:
                left = _without(block, exports.deleted_traces(name, tenant, signal), records, backend)
                if left is not None:
                    yield left

    return read


def _without(block: Block, traces: frozenset[bytes], records: frozenset[bytes], backend: Backend) -> Block | None:
    """Return a block without these traces and records; None when nothing is left."""
    if not traces and not records:
        return block
    column = block.column("trace_id")
    rows = [row for row in range(block.count) if column[row].tobytes() not in traces]
    known = backend.identities(block, np.array(rows, np.intp)) if records and rows else None
    if known is not None:
        rows = [row for row, one in zip(rows, known, strict=True) if one not in records]
    if len(rows) == block.count:
        return block
    return scan(block.signal, regroup(Ref(0, 0, block, row) for row in rows), 0) if rows else None


def keyed(exports: Exports, name: str) -> bool:
    """Tell whether the backend of that name, as it is now, leaves out what is held."""
    backend = exports.backend(name)
    return backend is None or backend.keyed


async def _named(
    backend: Backend, asked: Asked, fits: Callable[[str], bool], signal: Signal, tenant: str
) -> tuple[str, ...] | None:
    """Return the names to ask for; empty when it is to be all of them, None when there is nothing of the kind."""
    known = await backend.names(signal, tenant, asked.start_ns, asked.end_ns)
    if known is None:
        return ()
    names = await asyncio.to_thread(lambda: tuple(name for name in known if fits(name)))
    if not names:
        return None
    return names if len(names) <= NAMES_MAX else ()
