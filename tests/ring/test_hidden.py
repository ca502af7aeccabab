"""Deleted records in a ring: the same questions with and without them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.otlp.records import record_bytes
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS
from collector.otlp.tombstones import Tombstones
from collector.ring.ring import Ring, Snapshot
from collector.testing import otlp


def shown(snapshot: Snapshot) -> dict[int, bytes]:
    return {
        block.base_offset + row: record_bytes(block, row)
        for block in snapshot.blocks
        for row in range(block.count)
        if snapshot.first_offset <= block.base_offset + row
    }


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 9), st.sets(st.integers(0, 60), max_size=6)), min_size=1, max_size=12))
def test_hidden_records_are_in_no_answer(steps: list[tuple[int, set[int]]]) -> None:
    """Appending, evicting and merging go on as ever meanwhile."""
    ring, plain = Ring(LOGS, 25, 1 << 21), Ring(LOGS, 25, 1 << 21)
    gone: set[int] = set()
    for seed, (count, deleted) in enumerate(steps):
        payload = otlp.logs(count, seed=seed, service=f"s{seed % 3}")
        for one in (ring, plain):
            one.append(scan(LOGS, payload, one.next_offset))
        fresh = {offset for offset in deleted if offset < ring.next_offset}
        gone |= fresh
        ring.hide(Tombstones.of(np.array(sorted(fresh), np.int64)))
        kept = {offset: data for offset, data in shown(plain.snapshot()).items() if offset not in gone}
        assert shown(ring.snapshot()) == kept
        assert ring.snapshot() is ring.snapshot()
        for service in ("s0", "s1", "s2"):
            key = ring.key("service", service.encode())
            want = [offset for offset in plain.find("service", key).tolist() if offset not in gone]
            assert ring.find("service", key).tolist() == want
            assert ring.find("service", key, limit=2).tolist() == want[:2]
            found, _ = ring.lookup("service").find([key], ring.snapshot())
            assert found.tolist() == sorted(want)
        assert ring.hidden.records == len([offset for offset in gone if offset >= ring.first_offset])
        assert (ring.first_offset, ring.next_offset) == (plain.first_offset, plain.next_offset)
        ring.check()


def test_what_is_left_of_blocks_is_counted_and_fits() -> None:
    """One record is deleted of every block of a ring that is full of bytes."""
    ring = Ring(LOGS, 4000, 1 << 20, keyword_index=False)
    while not ring.evicted:
        ring.append(scan(LOGS, otlp.logs(40, seed=ring.next_offset), ring.next_offset))
    ring.hide(Tombstones.of(np.array([block.base_offset + 1 for block in ring.snapshot().blocks], np.int64)))
    blocks = ring.snapshot().blocks
    made = {id(block): block.nbytes for block in blocks}
    assert sum(made.values()) == ring.stats()["remains_bytes"] > 0
    assert ring.total_bytes <= ring.max_bytes
    assert min(block.base_offset for block in blocks) >= ring.first_offset
    ring.append(scan(LOGS, otlp.logs(40, seed=1), ring.next_offset))
    assert ring.total_bytes <= ring.max_bytes
    ring.check()
