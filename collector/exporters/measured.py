"""A backend whose answers are timed: what `Exports.backend` gives to those who read.

Everything goes to the backend itself; what it took goes to the histograms of figures.py. The time of a read is that of
waiting for its blocks, without what who reads does between them; it counts when the read ends, however it ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from collector.exporters.base import Backend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from collector.clock import Clock
    from collector.exporters.base import Batch, Health, Rejected, Source, Wanted
    from collector.exporters.figures import ExporterMetrics
    from collector.otlp.block import Block
    from collector.otlp.signals import Signal


class Measured(Backend):
    """See the module. It is not started and not stopped through this."""

    def __init__(self, name: str, backend: Backend, metrics: ExporterMetrics, clock: Clock) -> None:
        """`name` is the exporter's in the configuration."""
        self._name = name
        self._backend = backend
        self._metrics = metrics
        self._clock = clock

    @property
    def keyed(self) -> bool:
        """See base.py."""
        return self._backend.keyed

    @contextmanager
    def _timed(self, operation: str, signal: Signal) -> Iterator[None]:
        began = self._clock.monotonic()
        try:
            yield
        finally:
            self._metrics.duration(self._name, operation, signal).observe(self._clock.monotonic() - began)

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        """See base.py."""
        took = 0.0
        blocks = self._backend.read(wanted)
        try:
            while True:
                began = self._clock.monotonic()
                try:
                    block = await anext(blocks)
                except StopAsyncIteration:
                    return
                finally:
                    took += self._clock.monotonic() - began
                yield block
        finally:
            self._metrics.duration(self._name, "read", wanted.signal).observe(took)
            await blocks.aclose()  # type: ignore[attr-defined]  # an asynchronous generator, as the contract has it

    async def names(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> Collection[str] | None:
        """See base.py."""
        return await self._backend.names(signal, tenant, start_ns, end_ns)

    async def count(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        """See base.py."""
        with self._timed("count", signal):
            return await self._backend.count(signal, tenant, start_ns, end_ns)

    async def delete(self, wanted: Wanted) -> int:
        """See base.py."""
        with self._timed("delete", wanted.signal):
            return await self._backend.delete(wanted)

    async def delete_offsets(self, source: Source, ranges: Sequence[tuple[int, int]]) -> int | None:
        """See base.py."""
        with self._timed("delete", source.signal):
            return await self._backend.delete_offsets(source, ranges)

    def identities(self, block: Block, rows: NDArray[np.intp]) -> list[bytes] | None:
        """See base.py."""
        return self._backend.identities(block, rows)

    async def delete_identified(self, source: Source, identities: Sequence[bytes]) -> int | None:
        """See base.py."""
        with self._timed("delete", source.signal):
            return await self._backend.delete_identified(source, identities)

    async def retain(self, signal: Signal, before_ns: int) -> None:
        """See base.py."""
        with self._timed("retain", signal):
            await self._backend.retain(signal, before_ns)

    async def export(self, batch: Batch) -> Rejected | None:
        """See base.py; deliveries time their attempts themselves."""
        return await self._backend.export(batch)

    async def position(self, source: Source) -> int | None:
        """See base.py."""
        return await self._backend.position(source)

    async def size(self) -> int | None:
        """See base.py."""
        return await self._backend.size()

    def health(self) -> Health:
        """See base.py."""
        return self._backend.health()

    def stats(self) -> dict[str, Any]:
        """See base.py."""
        return self._backend.stats()
