"""Tombstones against sets of numbers; what is left of blocks, and what is written in the place of the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.otlp.records import record_bytes
from collector.otlp.remains import erased, remains
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, TRACES, Signal
from collector.otlp.tombstones import NONE, Tombstones
from collector.testing import otlp

ranges = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda one: (one[0], one[0] + one[1])), max_size=8
)


def numbers(one: Tombstones) -> set[int]:
    found = [number for first, end in one.ranges() for number in range(first, end)]
    assert found == sorted(set(found))
    assert all(before[1] < after[0] for before, after in zip(one.ranges(), one.ranges()[1:], strict=False))
    assert len(found) == one.records
    assert bool(found) is bool(one)
    return set(found)


def flat(some: list[tuple[int, int]]) -> set[int]:
    return {number for first, end in some for number in range(first, end)}


@given(ranges, ranges, st.integers(0, 50), st.integers(0, 50))
def test_they_are_sets(a: list[tuple[int, int]], b: list[tuple[int, int]], first: int, end: int) -> None:
    one, other, among = Tombstones(a), Tombstones(b), set(range(first, end))
    assert numbers(one) == flat(a)
    assert numbers(one | other) == flat(a) | flat(b)
    assert numbers(one - other) == flat(a) - flat(b)
    assert numbers(one.within(first, end)) == flat(a) & among
    assert one.touch(first, end) is bool(flat(a) & among)
    assert flat(list(one.between(first, end))) == among - flat(a)
    assert one == Tombstones.of(np.array(sorted(flat(a)), np.int64))
    offsets = np.arange(first, end)[::-1]
    assert one.left_of(offsets).tolist() == [number for number in offsets.tolist() if number not in flat(a)]


@pytest.mark.parametrize("signal", [TRACES, LOGS], ids=lambda one: one.name)
@given(st.data())
def test_what_is_left_and_what_is_written(signal: Signal, data: st.DataObject) -> None:
    """The rest keeps its bytes and its offsets, and an erased payload has nothing else but empty records."""
    pieces = [
        otlp.BUILDERS[signal](3, seed=seed, service=f"secret{seed}") for seed in range(data.draw(st.integers(1, 4)))
    ]
    block = scan(signal, b"".join(pieces), 100)
    deleted = Tombstones((first + 100, end + 100) for first, end in data.draw(ranges))
    gone = numbers(deleted)
    kept = {100 + row: record_bytes(block, row) for row in range(block.count) if 100 + row not in gone}
    left = [
        (one.base_offset + row, record_bytes(one, row)) for one in remains(block, deleted) for row in range(one.count)
    ]
    assert left == list(kept.items())
    written = scan(signal, erased(block, deleted), 100)
    assert written.count == block.count
    found = {100 + row: record_bytes(written, row) for row in range(written.count)}
    assert {offset: found[offset] for offset in kept} == kept
    assert {found[offset] for offset in found if offset not in kept} <= {record_bytes(EMPTY[signal], 0)}
    services = {f"secret{(offset - 100) // 3}".encode() for offset in kept}
    for number in range(4):
        assert (f"secret{number}".encode() in bytes(written.payload)) is (f"secret{number}".encode() in services)


EMPTY = {
    signal: scan(signal, erased(scan(signal, otlp.BUILDERS[signal](1), 0), Tombstones([(0, 1)])), 0)
    for signal in (TRACES, LOGS)
}


def test_nothing_is_left_as_it_is() -> None:
    block = scan(TRACES, otlp.traces(3), 5)
    assert list(remains(block, NONE)) == [block]
    assert erased(block, NONE) == block.payload
    assert len(EMPTY[TRACES].payload) < 40
