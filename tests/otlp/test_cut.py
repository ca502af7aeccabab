"""Runs of a block's records: the same records, offsets and order as in the block, however they were divided."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.otlp.block import Block
from collector.otlp.cut import cut, parts
from collector.otlp.merge import merge
from collector.otlp.records import Ref, regroup
from collector.otlp.scan import scan
from collector.otlp.signals import SIGNALS, Signal
from collector.testing.corpus import corpus, wholes


def keys(block: Block) -> list[bytes]:
    """The records with all that they stand in, in order of offset: each by itself as a request."""
    times = block.column("time").tolist()
    requests = (regroup([Ref(times[row], 0, block, row)]) for row in range(block.count))
    return [one.key() for request in requests for one in wholes(block.signal, request)]


def made(signal: Signal, counts: list[int], base: int) -> Block:
    """A block merged of requests."""
    found = []
    for seed, count in enumerate(counts):
        found.append(scan(signal, corpus(signal, count, seed=seed), base))
        base = found[-1].end_offset
    return merge(found) if len(found) > 1 else found[0]


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_cut_has_the_same_records(signal: Signal, data: st.DataObject) -> None:
    block = made(signal, data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5)), data.draw(st.integers(0, 99)))
    first = data.draw(st.integers(0, block.count - 1))
    end = data.draw(st.integers(first + 1, block.count))
    found = cut(block, first, end)
    assert (found.base_offset, found.count) == (block.base_offset + first, end - first)
    assert keys(found) == keys(block)[first:end]


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_parts_are_the_whole_within_limits(signal: Signal, data: st.DataObject) -> None:
    block = made(signal, data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=6)), 5)
    records, size = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 8000))
    found = list(parts(block, records, size))
    assert [key for part in found for key in keys(part)] == keys(block)
    assert all(part.count <= records for part in found)
    offsets = [(part.base_offset, part.end_offset) for part in found]
    assert [end for _, end in offsets[:-1]] == [first for first, _ in offsets[1:]]


def test_requests_are_divided_between_not_within() -> None:
    block = made(SIGNALS[0], [10, 10, 10], 0)
    ends = {10, 20, 30}
    assert cut(block, 10, 20).payload == corpus(SIGNALS[0], 10, seed=1), "a slice, byte for byte"
    assert {part.end_offset for part in parts(block, 14, 10**9)} & ends
