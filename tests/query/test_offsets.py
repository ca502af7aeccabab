"""Reading by offset: ring and log as one, against a list."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.otlp.records import record
from collector.query.offsets import at_offsets, costs, from_offset
from tests.live import Live


def number(block: object, row: int) -> int:
    return int.from_bytes(record(block, row).span_id, "big") - 1  # type: ignore[arg-type]


@settings(max_examples=10)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=12),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=5),
)
def test_whatever_lies_where_every_offset_is_read_once(
    counts: list[int], capacity: int, ranges: list[tuple[int, int]]
) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            live = Live(Path(directory), capacity)
            for count in counts:
                await live.send(count)
            with live.store.view() as view:
                for first, end in ranges:
                    found = [
                        (block.base_offset + row, number(block, row))
                        for block, rows in from_offset(view, first, end)
                        for row in rows.tolist()
                    ]
                    assert found == [(one, one) for one in range(first, min(end, sum(counts)))]
                some = [first for first, _ in ranges]
                assert [(ref.offset, number(ref.block, ref.row)) for ref in at_offsets(view, some)] == [
                    (one, one) for one in some if one < sum(counts)
                ]
            await live.__aexit__(None, None, None)

    asyncio.run(run())


async def test_costs_count_a_resource_where_it_begins(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.send(6, scopes=2)
        with live.store.view() as view:
            [(block, rows)] = from_offset(view, 0)
            lengths = block.column("length").astype(np.int64)
            extra = costs(block, rows) - lengths
            assert [value > 0 for value in extra.tolist()] == [True, False, False, True, False, False]
            assert costs(block, rows[:0]).size == 0
