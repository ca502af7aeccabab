"""The memory guard: shares, and what it does when the process holds too much."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.errors import InvalidConfig, Overloaded
from collector.heap import resident_bytes
from collector.memory import MIB, MemoryGuard, RingSize, available_bytes, limit_bytes
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, TRACES
from collector.query.tails import Tails
from collector.receivers.admission import Admission
from collector.ring.ring import Ring, bytes_min
from collector.store import Memo
from collector.testing import otlp
from collector.testing.otlp import traces
from collector.wal.cache import BlockCache

SIGNALS = (TRACES, LOGS, METRICS)


class Recorder:
    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.events.append(event)


class Process:
    """A process whose resident memory is what it holds itself, the rings, and what else a test says."""

    def __init__(self, limit: int, *, own: int = 60 * MIB, ring_bytes: int = 64 * MIB, in_flight: int = 128 * MIB):
        self.rings = [Ring(signal, 10_000, ring_bytes) for signal in SIGNALS]
        self.admission = Admission(in_flight)
        self.logger = Recorder()
        self.own, self.other, self.trims, self.holes = own, 0, 0, 0
        self.guard = MemoryGuard(
            limit,
            lambda: self.rings,
            {signal.name: RingSize(10_000, ring_bytes) for signal in SIGNALS},
            self.admission,
            self.logger,
            CollectorRegistry(),
            resident=lambda: self.own + self.other + self.holes + sum(ring.total_bytes for ring in self.rings),
            trim=self.trim,
        )

    def trim(self) -> None:
        self.trims += 1
        self.holes = 0

    @property
    def max_bytes(self) -> list[int]:
        return [ring.max_bytes for ring in self.rings]

    def press(self, limit: int) -> None:
        """Let the process hold more than the limit."""
        self.other = limit - self.own - sum(ring.total_bytes for ring in self.rings) + 3 * MIB

    def fill(self, ring: Ring, records: int = 20_000) -> None:
        payload = otlp.BUILDERS[ring.signal](500)
        for _ in range(records // 500):
            ring.append(scan(ring.signal, payload, ring.next_offset))


def test_with_room_everyone_has_what_is_configured() -> None:
    process = Process(1024 * MIB, in_flight=64 * MIB)
    process.guard.divide()
    assert process.max_bytes == [64 * MIB] * 3
    assert process.admission.bytes_max == 64 * MIB
    assert process.logger.events == []


@given(st.integers(70, 400), st.integers(1, 512), st.integers(1, 512))
def test_shares_never_pass_the_limit(limit: int, ring_mib: int, in_flight: int) -> None:
    process = Process(limit * MIB, ring_bytes=ring_mib * MIB, in_flight=in_flight * MIB)
    try:
        process.guard.divide()
    except InvalidConfig as error:
        assert "memory.limit" in error.problems[0]
        return
    assert all(bytes_min(ring.signal, ring.capacity) <= ring.max_bytes <= ring_mib * MIB for ring in process.rings)
    assert process.admission.bytes_max <= in_flight * MIB
    assert process.own + sum(process.max_bytes) + 2 * process.admission.bytes_max <= limit * MIB


def test_too_small_a_limit_says_what_would_do() -> None:
    process = Process(61 * MIB)
    with pytest.raises(InvalidConfig, match=r"memory\.limit: .* make it at least (\d+)") as caught:
        process.guard.divide()
    needed = int(caught.value.problems[0].partition("at least ")[2].partition(",")[0])
    Process(needed).guard.divide()


def test_above_the_limit_rings_shrink_and_requests_wait() -> None:
    process = Process(140 * MIB)
    process.guard.divide()
    for ring in process.rings:
        process.fill(ring)
    process.guard.check()
    assert process.trims == 0
    process.press(140 * MIB)
    process.guard.check()
    assert process.trims == 2
    assert "memory limit reached" in process.logger.events
    assert process.own + process.other + sum(ring.total_bytes for ring in process.rings) <= 140 * MIB
    for ring in process.rings:
        ring.check()
    one, other = process.admission.share(), process.admission.share()
    one.admit(10)
    with pytest.raises(Overloaded):
        other.admit(10)
    one.release(10)


def test_holes_in_the_heap_are_given_back_before_rings_shrink() -> None:
    process = Process(140 * MIB)
    process.guard.divide()
    process.fill(process.rings[0])
    held, before = process.rings[0].total_bytes, process.max_bytes
    process.press(140 * MIB)
    process.holes, process.other = process.other - 1 * MIB, 1 * MIB
    process.guard.check()
    assert process.trims == 1
    assert (process.rings[0].total_bytes, process.max_bytes) == (held, before)
    assert "memory limit reached" not in process.logger.events


def test_rings_and_requests_recover_in_steps() -> None:
    process = Process(140 * MIB)
    process.guard.divide()
    shares, in_flight = process.max_bytes, process.admission.bytes_max
    for ring in process.rings:
        process.fill(ring)
    process.press(140 * MIB)
    process.guard.check()
    small = process.max_bytes
    assert all(now < share for now, share in zip(small, shares, strict=True))
    process.other = 0
    process.guard.check()
    assert process.admission.bytes_max == in_flight
    assert all(now < share for now, share in zip(process.max_bytes, shares, strict=True)), "not at once"
    for _ in range(40):
        process.guard.check()
    assert process.max_bytes == shares


def test_in_between_nothing_moves() -> None:
    process = Process(140 * MIB)
    process.guard.divide()
    for ring in process.rings:
        process.fill(ring)
    process.press(140 * MIB)
    process.guard.check()
    small = process.max_bytes
    process.other = int(140 * MIB * 0.85) - process.own - sum(ring.total_bytes for ring in process.rings)
    process.guard.check()
    assert process.max_bytes == small


@pytest.mark.parametrize(
    ("setting", "available", "expected"),
    [
        ("auto", 1 << 30, 1 << 29),
        ("auto", 64 << 30, 1 << 30),
        ("25%", 1 << 30, 1 << 28),
        ("512MiB", 1 << 30, 512 << 20),
    ],
)
def test_what_a_setting_means(setting: str, available: int, expected: int) -> None:
    assert limit_bytes(setting, available) == expected


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {}, 2000 * 1024),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "max"}, 2000 * 1024),
        ("0::/a/b\n", {"sys/fs/cgroup/a/memory.max": "500000", "sys/fs/cgroup/a/b/memory.max": "max"}, 500_000),
        ("0::/../..\n", {"sys/fs/cgroup/memory.max": "700000"}, 700_000),
        ("4:cpu:/x\n3:memory:/y\n", {"sys/fs/cgroup/memory/y/memory.limit_in_bytes": "600000"}, 600_000),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "99999999999"}, 2000 * 1024),
    ],
)
def test_what_is_available(tmp_path: Path, cgroup: str, files: dict[str, str], expected: int) -> None:
    for name, text in (
        {"proc/meminfo": "MemFree: 5 kB\nMemTotal: 2000 kB\n", "proc/self/cgroup": cgroup} | files
    ).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_bytes(tmp_path) == expected


def test_this_process() -> None:
    assert 10 * MIB < resident_bytes() < available_bytes()


@pytest.mark.parametrize(("limit", "expected"), [(1024 * MIB, (1024 - 60) * MIB // 16), (100 * MIB, 4 * MIB)])
async def test_live_tails_have_a_part_of_what_queries_have(limit: int, expected: int) -> None:
    process = Process(limit, ring_bytes=4 * MIB, in_flight=16 * MIB)
    tails = Tails(1, SystemClock())
    guard = MemoryGuard(
        limit,
        lambda: process.rings,
        {signal.name: RingSize(10_000, 4 * MIB) for signal in SIGNALS},
        process.admission,
        process.logger,
        CollectorRegistry(),
        resident=lambda: 60 * MIB,
        tails=tails,
    )
    guard.divide()
    assert tails.bytes_max == expected
    tails.held_bytes = 7
    assert guard.stats()["tail_bytes"] == 7
    tails.close()


async def test_what_queries_remember_has_a_part_and_goes_first() -> None:
    process = Process(400 * MIB, ring_bytes=4 * MIB, in_flight=16 * MIB)
    resident = 60 * MIB
    memos = [Memo(), Memo()]
    guard = MemoryGuard(
        400 * MIB,
        lambda: process.rings,
        {signal.name: RingSize(10_000, 4 * MIB) for signal in SIGNALS},
        process.admission,
        process.logger,
        CollectorRegistry(),
        resident=lambda: resident,
        memos=lambda: memos,
    )
    guard.divide()
    assert [memo.bytes_max for memo in memos] == [340 * MIB // 32] * 2
    memos[0].kept("columns", lambda memo: SimpleNamespace(nbytes=7))
    assert guard.stats()["remembered_bytes"] == 7
    guard.check()
    assert memos[0].nbytes == 7
    resident = 390 * MIB
    guard.check()
    assert guard.stats()["remembered_bytes"] == 0


async def test_blocks_of_the_log_have_a_part_and_go_when_memory_is_short() -> None:
    process = Process(400 * MIB, ring_bytes=4 * MIB, in_flight=16 * MIB)
    resident = 60 * MIB
    cache = BlockCache(CollectorRegistry())
    guard = MemoryGuard(
        400 * MIB,
        lambda: process.rings,
        {signal.name: RingSize(10_000, 4 * MIB) for signal in SIGNALS},
        process.admission,
        process.logger,
        CollectorRegistry(),
        resident=lambda: resident,
        cache=cache,
    )
    guard.divide()
    assert cache.bytes_max == 340 * MIB // 16
    cache.put(1, 0, scan(TRACES, traces(5), 0))
    stats = guard.stats()
    assert stats["log_cache_bytes"] == cache.nbytes > 0
    assert (stats["log_cache_blocks"], stats["log_cache_limit_bytes"]) == (1, cache.bytes_max)
    guard.check()
    assert len(cache) == 1
    resident = 390 * MIB
    guard.check()
    assert guard.stats()["log_cache_bytes"] == 0
    guard.reconfigure(200 * MIB, 16 * MIB, {signal.name: RingSize(10_000, 4 * MIB) for signal in SIGNALS})
    assert cache.bytes_max == 140 * MIB // 16
