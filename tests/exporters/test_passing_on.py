"""Backends are told of deletions, when nothing of what is meant is on its way any more; over failures and crashes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from collector.errors import Retryable
from collector.exporters.base import Batch, Rejected, Source, Wanted
from collector.exporters.passing_on import PassingOn, Reached
from collector.otlp.block import Block
from collector.otlp.tombstones import Tombstones
from collector.testing.files import MemoryFiles
from tests.exporters.memory_backend import KEPT, MemoryBackend, MemorySettings
from tests.exporters.rig import Rig, Told, quick
from tests.wal.logs import RecordingLogger


class Kept(MemoryBackend):
    """Fails at first, and may have to wait for the first batch."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        super().__init__(MemorySettings(name="passing"), None)  # type: ignore[arg-type]
        self.gate = gate
        self.failures = 2

    async def export(self, batch: Batch) -> Rejected | None:
        if self.gate is not None:
            await self.gate.wait()
        return await super().export(batch)

    async def delete(self, wanted: Wanted) -> int:
        self.failures -= 1
        if self.failures >= 0:
            raise Retryable("busy")
        return await super().delete(wanted)

    async def delete_offsets(self, source: Source, ranges: Sequence[tuple[int, int]]) -> int | None:
        self.failures -= 1
        if self.failures >= 0:
            raise Retryable("busy")
        return await super().delete_offsets(source, ranges)


class Keyless(MemoryBackend):
    """Keeps no keys."""

    async def delete_offsets(self, source: Source, ranges: Sequence[tuple[int, int]]) -> int | None:
        return None


def numbers() -> list[int]:
    return sorted(
        int.from_bytes(ref.block.column("span_id")[ref.row].tobytes(), "big") - 1 for ref in KEPT["passing"].values()
    )


def passing_on(rig: Rig, backend: Any, logger: Any = None) -> PassingOn:
    return PassingOn(
        lambda name, tenant, signal: (
            Reached(backend, rig.delivery.source, rig.delivery.position) if name == "x" else None
        ),
        random.Random(1),
        logger or RecordingLogger(),
        CollectorRegistry(),
    )


async def told(rig: Rig, one: PassingOn) -> None:
    one.wake("", {"traces": rig.store})
    async with asyncio.timeout(20):
        while rig.store.deletions.pending:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await one.stop()


async def test_what_was_on_its_way_is_deleted_behind_it() -> None:
    KEPT.pop("passing", None)
    files, gate = MemoryFiles(), asyncio.Event()
    backend = Kept(gate)
    rig = Rig.start(files, backend, quick(), capacity=20)
    await rig.append(0, 30)
    await asyncio.sleep(0.01)  # The batch is in the exporter's hands.
    rig.store.deletions.add(Tombstones([(5, 9), (28, 30)]), 0, 30, [], ["x"])
    rig.store.hide()
    one = passing_on(rig, backend)
    one.wake("", {"traces": rig.store})
    await asyncio.sleep(0.01)
    assert backend.failures == 2, "not told as long as a batch from before is under way"
    gate.set()
    await told(rig, one)
    assert numbers() == [*range(5), *range(9, 28)]
    await rig.stop()


async def test_what_is_deleted_first_is_not_exported_and_no_loss() -> None:
    exporter = Told()
    files = MemoryFiles()
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    exporter.behave = lambda batch: wait()
    rig = Rig.start(files, exporter, quick(max_size=10), capacity=1000)
    for first in range(0, 60, 10):
        await rig.append(first, 10)
    rig.store.deletions.add(Tombstones([(15, 17), (30, 50), (59, 60)]), 0, 60, [], [])
    rig.store.hide()
    gate.set()
    await rig.delivered()
    assert exporter.taken == [*range(15), *range(17, 30), *range(50, 59)]
    assert sum(rig.counts.lost.values()) == 0
    assert rig.delivery.position == 60
    await rig.append(60, 5)
    await rig.delivered()
    assert exporter.taken[-5:] == list(range(60, 65))
    await rig.stop()


async def test_a_crash_between_the_deletion_and_the_backend_changes_nothing() -> None:
    KEPT.pop("passing", None)
    files = MemoryFiles()
    backend = Kept()
    rig = Rig.start(files, backend)
    await rig.append(0, 30)
    await rig.delivered()
    rig.store.deletions.add(Tombstones([(0, 30)]), 0, 30, ["01" * 16], ["gone", "x"])
    await rig.crash()
    again = Rig.start(files, backend)
    assert again.store.ring.snapshot().blocks == ()
    logger = RecordingLogger()
    one = passing_on(again, backend, logger)
    one.wake("", {"traces": again.store})
    async with asyncio.timeout(20):
        while again.store.deletions.pending[0].backends != ["gone"]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await one.stop()
    assert numbers() == []
    assert [fields["records"] for fields in logger.named("deletion passed on")] == [30]
    await again.stop()


async def test_a_backend_without_keys_cannot_delete_single_records() -> None:
    KEPT.pop("passing", None)
    rig = Rig.start(MemoryFiles(), Keyless(MemorySettings(name="passing"), None))  # type: ignore[arg-type]
    await rig.append(0, 10)
    await rig.delivered()
    rig.store.deletions.add(Tombstones([(0, 3)]), 0, 10, [], ["x"])
    logger = RecordingLogger()
    await told(rig, passing_on(rig, rig.exporter, logger))
    assert len(numbers()) == 10
    assert logger.named("deletion of single records is nothing that this backend can do")
    await rig.stop()


class Knowing(Keyless):
    """Keeps no keys, and knows spans by their ids."""

    def identities(self, block: Block, rows: Any) -> list[bytes] | None:
        return [block.column("span_id")[row].tobytes() for row in rows]

    async def delete_identified(self, source: Source, identities: Sequence[bytes]) -> int | None:
        self.failures -= 1
        if self.failures >= 0:
            raise Retryable("busy")
        return self._drop(
            (key, ref)
            for key, ref in tuple(self._kept.items())
            if ref.block.column("span_id")[ref.row].tobytes() in identities
        )

    failures = 1


async def test_a_backend_without_keys_is_told_what_it_knows_records_by() -> None:
    """Over a restart, by which time the records are gone here."""
    KEPT.pop("passing", None)
    files = MemoryFiles()
    backend = Knowing(MemorySettings(name="passing"), None)  # type: ignore[arg-type]
    rig = Rig.start(files, backend)
    await rig.append(0, 30)
    await rig.delivered()
    known = [(number + 1).to_bytes(8, "big") for number in (4, 5, 20)]
    rig.store.deletions.add(Tombstones([(4, 6), (20, 21)]), 0, 30, [], ["x"], {"x": known})
    await rig.crash()
    again = Rig.start(files, backend)
    logger = RecordingLogger()
    await told(again, passing_on(again, backend, logger))
    assert numbers() == [one for one in range(30) if one not in (4, 5, 20)]
    assert [fields["records"] for fields in logger.named("deletion passed on")] == [3]
    await again.stop()
