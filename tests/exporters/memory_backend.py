"""The smallest backend that keeps the contract: a dictionary. What the contract's own tests run on, with broken variants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from collector.declaration import setting
from collector.exporters.base import PIECE_RECORDS, Backend, Batch, Context, Rejected, Source, Wanted
from collector.exporters.kinds import Kind
from collector.exporters.settings import ExporterSettings
from collector.otlp.block import Block
from collector.otlp.records import Ref, group_bytes, isolate, regroup
from collector.otlp.scan import scan
from collector.otlp.signals import METRICS, Signal

KEPT: dict[str, dict[tuple[Source, int], Ref]] = {}
"""Destinations by name: they outlive backends."""


@dataclass(frozen=True, slots=True)
class MemorySettings(ExporterSettings):
    name: str = setting("kept", "name", "Which dictionary.")


class MemoryBackend(Backend):
    parallel: ClassVar[int] = 4

    def __init__(self, settings: MemorySettings, context: Context) -> None:
        self._kept = KEPT.setdefault(settings.name, {})

    async def export(self, batch: Batch) -> Rejected | None:
        for block in batch.blocks:
            times = block.column("time").tolist()
            for row in range(block.count):
                offset = block.base_offset + row
                self._kept[batch.source, offset] = isolate(Ref(times[row], offset, block, row))
        return None

    async def position(self, source: Source) -> int | None:
        return max((offset + 1 for of, offset in self._kept if of == source), default=None)

    def _of(self, wanted: Wanted) -> Iterable[tuple[tuple[Source, int], Ref]]:
        held = {one.source: one.first_offset for one in wanted.held}
        for (source, offset), ref in tuple(self._kept.items()):
            if (source.signal, source.tenant) == (wanted.signal, wanted.tenant) and offset < held.get(source, 2**63):
                if wanted.start_ns <= ref.time <= wanted.end_ns and self._in_trace(ref, wanted):
                    yield (source, offset), ref

    def _in_trace(self, ref: Ref, wanted: Wanted) -> bool:
        if not wanted.trace_ids:
            return True
        return ref.block.column("trace_id")[ref.row].tobytes() in wanted.trace_ids

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        found = sorted((ref for _, ref in self._of(wanted)), key=lambda ref: ref.time, reverse=wanted.newest_first)
        for first in range(0, len(found), PIECE_RECORDS):
            yield scan(wanted.signal, regroup(found[first : first + PIECE_RECORDS]), 0)

    async def names(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> set[str] | None:
        refs = [ref for _, ref in self._of(Wanted(signal, tenant, start_ns, end_ns)) if signal is METRICS]
        return {group_bytes(ref.block, 0, "name").decode() for ref in refs}

    async def delete(self, wanted: Wanted) -> int:
        return self._drop(self._of(wanted))

    async def delete_offsets(self, source: Source, ranges: Sequence[tuple[int, int]]) -> int | None:
        keys = [(source, offset) for first, end in ranges for offset in range(first, end)]
        return self._drop([(key, None) for key in keys if key in self._kept])

    def _drop(self, found: Iterable[Any]) -> int:
        keys = [key for key, _ in found]
        for key in keys:
            del self._kept[key]
        return len(keys)

    async def retain(self, signal: Signal, before_ns: int) -> None:
        self._drop(
            (key, ref) for key, ref in tuple(self._kept.items()) if key[0].signal is signal and ref.time < before_ns
        )

    async def count(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        return sum(1 for _ in self._of(Wanted(signal, tenant, start_ns, end_ns - 1))) if end_ns > start_ns else 0


KIND = Kind("A dictionary, for tests.", MemorySettings, MemoryBackend, reads=True)
