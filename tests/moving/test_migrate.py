"""Migration: the target has all records, once, also after failures and crashes anywhere; a difference is found by its hour."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from collector.cli import main
from collector.clock import SystemClock
from collector.errors import Retryable
from collector.exporters import kinds
from collector.exporters.base import Batch, Rejected, Source
from collector.exporters.settings import RetryOnFailure
from collector.moving import migrate
from collector.moving.migrate import HOUR_NS, Hour, Migration, Position
from collector.otlp.records import record_bytes
from collector.otlp.scan import scan
from collector.otlp.signals import SIGNALS, TRACES, Signal
from collector.testing import otlp
from tests.exporters.memory_backend import KEPT, MemoryBackend, MemorySettings

BEGIN = 1_700_000_000 * 10**9 // HOUR_NS * HOUR_NS


class Crash(BaseException):
    """The process ends."""


class Unsteady(MemoryBackend):
    """Fails, before or after it has taken a batch."""

    calls = 0
    crash_at = 0

    async def export(self, batch: Batch) -> Rejected | None:
        type(self).calls += 1
        if self.calls % 3 == 0:
            raise Retryable("busy", after_s=0.0)
        found = await super().export(batch)
        if self.calls == self.crash_at:
            raise Crash
        return found

    async def position(self, source: Source) -> int | None:
        return None


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(migrate, "_RETRY", RetryOnFailure(initial_interval=0.001, max_interval=0.001))
    KEPT.pop("from", None), KEPT.pop("to", None)
    yield MemoryBackend(MemorySettings(name="from"), None)  # type: ignore[arg-type]
    KEPT.pop("from", None), KEPT.pop("to", None)


async def fill(backend: MemoryBackend, signal: Signal) -> int:
    at = 0
    for hours, count in ((0, 30), (1, 90), (50, 7), (51, 1)):
        payload = otlp.BUILDERS[signal](count, seed=hours, time_ns=BEGIN + hours * HOUR_NS + HOUR_NS // 2)
        block = scan(signal, payload, at)
        at = block.end_offset
        await backend.export(Batch(Source("0" * 32, "", signal), (block,), block.base_offset, at))
    return at


def migration(source: MemoryBackend, target: MemoryBackend, position: Position | None = None) -> Migration:
    made = position or Position({}, "1" * 32, {})
    return Migration(source, target, made, SystemClock(), random.Random(1), window_records=16)


async def hours(one: Migration, signal: Signal) -> list[Hour]:
    return [hour async for hour in one.verify(signal, "")]


@pytest.mark.asyncio
@pytest.mark.parametrize("signal", SIGNALS)
async def test_all_of_it_arrives(source: MemoryBackend, signal: Signal) -> None:
    total = await fill(source, signal)
    target = MemoryBackend(MemorySettings(name="to"), None)  # type: ignore[arg-type]
    one = migration(source, target)
    done = await one.move(signal, "")
    assert (done.offset, done.rejected) == (total, 0)
    found = await hours(one, signal)
    assert all(hour.equal for hour in found)
    assert sum(hour.records[0] for hour in found) == total
    assert found[0].start_ns == BEGIN
    # One more is found, and one that is missing, and one that is another.
    key, ref = next(iter(KEPT["to"].items()))
    KEPT["to"][Source("2" * 32, "", signal), 0] = ref
    assert sum(not hour.equal for hour in await hours(one, signal)) == 1
    del KEPT["to"][Source("2" * 32, "", signal), 0], KEPT["to"][key]
    assert sum(not hour.equal for hour in await hours(one, signal)) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("crash_at", [1, 4, 8])
async def test_crashes_and_failures_lose_nothing_and_double_nothing(source: MemoryBackend, crash_at: int) -> None:
    total = await fill(source, TRACES)
    position = Position({}, "1" * 32, {})
    Unsteady.calls, Unsteady.crash_at = 0, crash_at
    target = Unsteady(MemorySettings(name="to"), None)  # type: ignore[arg-type]
    with pytest.raises(Crash):
        await migration(source, target, position).move(TRACES, "")
    one = migration(source, target, position)
    await one.move(TRACES, "")
    assert len(KEPT["to"]) == total
    assert all(hour.equal for hour in await hours(one, TRACES))
    again = await one.move(TRACES, "")
    assert again.offset == len(KEPT["to"]) == total


def test_the_command(tmp_path: Path, source: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.BUILT_IN, "memory", "tests.exporters.memory_backend:KIND")
    total = asyncio.run(fill(source, TRACES))
    both = ("--set", "exporters.memory/a.name=from", "--set", "exporters.memory/b.name=to", "--signal", "traces")
    asked = ("migrate", "--from", "memory/a", "--to", "memory/b", "--state", str(tmp_path / "state"), *both)
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    assert f"{total} spans moved" in done.output
    assert "the same" in done.output
    assert len(KEPT["to"]) == total
    KEPT["to"].popitem()
    done = CliRunner().invoke(main, (*asked, "--verify-only"))
    assert done.exit_code == 1
    assert "1 hours differ" in done.output
    done = CliRunner().invoke(main, ("migrate", "--from", "nothing:x", "--to", "memory/b", "--state", "x"))
    assert "there is no backend 'nothing'" in done.output
    done = CliRunner().invoke(main, (*asked[:3], "--to", "memory/c", "--state", str(tmp_path / "other"), *both))
    assert "there is no exporter memory/c" in done.output


@pytest.mark.asyncio
async def test_a_source_that_forgets_meanwhile_doubles_nothing(source: MemoryBackend) -> None:
    """Then there are other windows than before."""
    total = await fill(source, TRACES)
    position = Position({}, "1" * 32, {})
    Unsteady.calls, Unsteady.crash_at = 0, 5
    target = Unsteady(MemorySettings(name="to"), None)  # type: ignore[arg-type]
    with pytest.raises(Crash):
        await migration(source, target, position).move(TRACES, "")
    done = position.done["/traces"].offset
    assert 16 < done < total
    for key in sorted(KEPT["from"], key=lambda key: KEPT["from"][key].time)[: done - 4]:
        del KEPT["from"][key]
    await migration(source, target, position).move(TRACES, "")
    assert len(KEPT["to"]) == total
    assert len({(ref.time, record_bytes(ref.block, ref.row)) for ref in KEPT["to"].values()}) == total
