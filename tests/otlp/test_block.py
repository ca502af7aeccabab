"""Blocks: what one holds of memory, and several of them as one."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.otlp.block import FROM_GROUPS, FROM_PAYLOAD, GROUPS, RECORDS, Block, Table
from collector.otlp.merge import merge
from collector.otlp.records import Ref, metric, record, regroup, resource, scope
from collector.otlp.scan import BlockBuilder, scan
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.testing.otlp import BUILDERS
from tests.otlp.messages import requests

SIGNAL = pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)


# --- memory -----------------------------------------------------------------------------------------------


def held(make: Callable[[], Block]) -> tuple[int, int]:
    """What a block holds of memory as the interpreter's allocator sees it, and what it says itself; of many."""
    made: list[Any] = [None] * 500
    make()
    gc.collect()
    tracemalloc.start()
    try:
        for at in range(len(made)):
            made[at] = make()
        return tracemalloc.get_traced_memory()[0], sum(block.nbytes for block in made)
    finally:
        tracemalloc.stop()


@SIGNAL
@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("count", [1, 20])
def test_a_block_says_what_it_holds(signal: Signal, kind: type, count: int) -> None:
    payload = BUILDERS[signal](count)
    builder = BlockBuilder(signal)
    offsets = iter(range(10**6, 10**9, 1000))

    def make() -> Block:
        builder.add(kind(memoryview(payload)))
        return builder.build(next(offsets))

    real, said = held(make)
    assert abs(said - real) < 0.05 * real


@SIGNAL
def test_a_merged_block_says_what_it_holds(signal: Signal) -> None:
    parts = list(blocks(signal, [BUILDERS[signal](1)] * 20))
    real, said = held(lambda: merge(parts))
    assert abs(said - real) < 0.05 * real


def test_a_buffer_that_grew_is_counted_as_large_as_it_is_or_trimmed() -> None:
    whole = BUILDERS[TRACES](100)
    payload = bytearray(whole[:-10])
    payload += whole[-10:]
    assert payload.__alloc__() > len(payload) * 1.05
    block = scan(TRACES, payload, 0)
    assert block.payload == payload
    assert block.payload_bytes == len(payload)
    exact = bytearray(whole)
    assert scan(TRACES, exact, 0).payload is exact


# --- merging ----------------------------------------------------------------------------------------------


def blocks(signal: Signal, payloads: list[Any], base_offset: int = 0) -> Iterator[Block]:
    """Blocks of these payloads, one after the other."""
    for payload in payloads:
        block = scan(signal, payload, base_offset)
        base_offset = block.end_offset
        yield block


def difference(merged: Block, parts: list[Block]) -> str:
    """What a merged block says otherwise than its parts; empty if nothing."""
    payload_base = group_base = row_base = 0
    for part in parts:
        rows = slice(row_base, row_base + part.count)
        groups = slice(group_base, group_base + part.groups.count)
        for layouts, of_part, of_merged, inside in (
            (RECORDS, part.column, merged.column, rows),
            (GROUPS, part.group_column, merged.group_column, groups),
        ):
            layout = layouts[part.signal]
            for (name, (dtype, _)), base in zip(layout.columns.items(), layout.bases, strict=True):
                expected = of_part(name)
                if base == FROM_PAYLOAD:
                    expected = expected + (expected > 0).astype(dtype) * dtype.type(payload_base)
                elif base == FROM_GROUPS:
                    expected = expected + dtype.type(group_base)
                if expected.tobytes() != of_merged(name)[inside].tobytes():
                    return name
        if [decoded(part, row) for row in range(part.count)] != [
            decoded(merged, row) for row in range(rows.start, rows.stop)
        ]:
            return "records"
        payload_base, group_base, row_base = payload_base + len(part.payload), groups.stop, rows.stop
    return "" if (merged.count, merged.groups.count) == (row_base, group_base) else "counts"


def decoded(block: Block, row: int) -> tuple[Any, ...]:
    """Everything that an answer can say of a record."""
    group = int(block.column("group")[row])
    around = (resource(block, group).SerializeToString(), scope(block, group).SerializeToString())
    if block.signal is METRICS:
        around += (metric(block, group).SerializeToString(),)
    return block.base_offset + row, record(block, row).SerializeToString(), *around


def refs(some: list[Block]) -> list[Ref]:
    return [Ref(0, block.base_offset + row, block, row) for block in some for row in range(block.count)]


@given(data=st.data(), signal=st.sampled_from(SIGNALS), base=st.integers(0, 2**62))
def test_a_merged_block_answers_as_its_parts(data: st.DataObject, signal: Signal, base: int) -> None:
    messages = data.draw(st.lists(requests(signal), min_size=1, max_size=5))
    kind = data.draw(st.sampled_from([bytes, bytearray]))
    payloads = [kind(message.SerializeToString()) for message in messages]
    parts = list(blocks(signal, payloads, base))
    merged = merge(parts)
    assert difference(merged, parts) == ""
    assert regroup(refs([merged])) == regroup(refs(parts))
    with_records = [part for part in parts if part.count]
    if len(with_records) == len(parts):
        assert merged.min_time == min(part.min_time for part in parts)
        assert merged.max_time == max(part.max_time for part in parts)
    # The second oracle: what a scan of the whole would make. And the parts are as they were.
    whole = scan(signal, b"".join(payloads), base)
    assert (whole.records.buffer, whole.groups.buffer) == (merged.records.buffer, merged.groups.buffer)
    assert whole.payload == merged.payload
    assert [bytes(part.payload) for part in parts] == [bytes(payload) for payload in payloads]


@SIGNAL
def test_merging_merged_blocks_is_merging_their_parts(signal: Signal) -> None:
    parts = list(blocks(signal, [BUILDERS[signal](count, seed=count) for count in (3, 1, 1, 4, 1, 5)], 9))
    at_once = merge(parts)
    in_steps = merge([merge(parts[:2]), parts[2], merge(parts[3:])])
    assert in_steps.payload == at_once.payload
    assert in_steps.records.buffer == at_once.records.buffer
    assert in_steps.groups.buffer == at_once.groups.buffer
    assert (in_steps.base_offset, in_steps.end_offset) == (9, 24)


@pytest.mark.parametrize("name", ["group", "name_start"])
def test_the_comparison_catches_a_column_that_was_not_moved(name: str) -> None:
    """The canary of the tests above."""
    parts = list(blocks(TRACES, [BUILDERS[TRACES](2), BUILDERS[TRACES](2, seed=1)]))
    merged = merge(parts)
    assert difference(merged, parts) == ""
    dtype, place = RECORDS[TRACES].columns[name]
    begin, size = place * merged.count, dtype.itemsize * merged.count
    unmoved = b"".join(part.column(name).tobytes() for part in parts)
    buffer = merged.records.buffer[:begin] + unmoved + merged.records.buffer[begin + size :]
    table = Table(RECORDS[TRACES], merged.count, buffer)
    wrong = Block(TRACES, 0, merged.payload, table, merged.groups, merged.min_time, merged.max_time)
    assert difference(wrong, parts) == name


def test_what_does_not_follow_is_not_merged() -> None:
    first, second = blocks(TRACES, [BUILDERS[TRACES](2)] * 2)
    with pytest.raises(ValueError, match="does not follow offset 4"):
        merge([first, second, second])
    with pytest.raises(ValueError, match="does not follow offset 2 of traces"):
        merge([first, scan(LOGS, BUILDERS[LOGS](1), 2)])
    with pytest.raises(ValueError, match="nothing to merge"):
        merge([])
