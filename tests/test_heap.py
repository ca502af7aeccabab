"""The heap gives back what it does not need, and only then."""

from __future__ import annotations

import subprocess
import sys

import pytest

from collector import heap
from collector.heap import PATIENCE, SLACK_BYTES, HeapKeeper
from tests.daemon import ROOT

MIB = 1024 * 1024


class Process:
    """A process that uses `used` bytes and holds `free` more; giving back leaves `stuck` of those."""

    def __init__(self) -> None:
        self.used = 100 * MIB
        self.free = 50 * MIB
        self.stuck = 50 * MIB
        self.querying = False
        self.keeper = HeapKeeper(
            lambda: self.used, lambda: self.used + self.free, self.give_back, querying=lambda: self.querying
        )

    def look(self) -> bool:
        """Look as long as patience lasts."""
        return True in [self.keeper.look() for _ in range(PATIENCE)]

    def give_back(self) -> None:
        self.free = min(self.free, self.stuck)


def test_what_is_held_from_the_start_stays() -> None:
    process = Process()
    assert not process.look()
    process.used += 500 * MIB
    assert not process.look()


def test_what_has_grown_without_use_goes_back_once() -> None:
    process = Process()
    process.look()
    process.free += SLACK_BYTES
    assert not process.look()
    process.free += 1
    assert process.look()
    assert process.free == 50 * MIB
    assert not process.look()


def test_what_cannot_go_back_is_not_tried_again_until_more_has_come() -> None:
    process = Process()
    process.look()
    process.free = process.stuck = 90 * MIB
    assert process.look()
    assert not process.look()
    process.free += SLACK_BYTES + 1
    assert process.look()


def test_a_large_ring_may_have_larger_holes() -> None:
    process = Process()
    process.used = 1024 * MIB
    process.look()
    process.free += 32 * MIB
    assert not process.look()
    process.free += 1
    assert process.look()


def test_what_was_freed_by_itself_counts_no_longer() -> None:
    process = Process()
    process.look()
    process.free = 0
    process.look()
    process.free = SLACK_BYTES + 1
    assert process.look()


def test_what_is_needed_again_soon_is_not_given_back() -> None:
    process = Process()
    process.look()
    for _ in range(10):
        process.free += 300 * MIB
        assert not any(process.keeper.look() for _ in range(PATIENCE - 1))
        process.free -= 300 * MIB
        assert not process.keeper.look()


def test_what_running_queries_hold_is_no_hole() -> None:
    process = Process()
    process.look()
    process.free += 300 * MIB
    process.querying = True
    assert not process.look()
    process.querying = False
    assert process.look()


HOLES = """
from collector.heap import anonymous_bytes, give_back
kept = [bytes(50_000) for _ in range(2000)]
del kept[::2]
before = anonymous_bytes()
give_back()
print(before - anonymous_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(heap.ctypes.CDLL(None), "malloc_trim"), reason="no glibc")
def test_holes_in_a_real_heap_go_back() -> None:
    found = subprocess.run([sys.executable, "-c", HOLES], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(found.stdout) > 30 * MIB


def test_resident_memory_is_what_the_kernel_says() -> None:
    assert 0 < heap.anonymous_bytes() < heap.resident_bytes()
