"""Records of several blocks in one, against the records where they came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.otlp.block import Block
from collector.otlp.pick import pick
from collector.otlp.records import group_bytes, record_bytes
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal
from collector.testing.otlp import BUILDERS
from tests.otlp.messages import requests

_MOVED = ("start", "group", "name_start", "body_start")


def assert_picked(blocks: list[Any], rows: list[list[int]]) -> None:
    parts = [(block, np.array(some, np.intp)) for block, some in zip(blocks, rows, strict=True)]
    made = pick(parts)
    expected = [(block, row) for block, some in zip(blocks, rows, strict=True) for row in some]
    assert made.count == len(expected)
    times = [int(block.column("time")[row]) for block, row in expected]
    assert (made.min_time, made.max_time, made.base_offset) == (min(times), max(times), 0)
    for place, (block, row) in enumerate(expected):
        assert record_bytes(made, place) == record_bytes(block, row)
        group, own = made.records.number("group", place), block.records.number("group", row)
        for part in ("resource", "scope", "service"):
            assert group_bytes(made, group, part) == group_bytes(block, own, part)
        assert made.group_column("service")[group] == block.group_column("service")[own]
        for name in block.records.layout.columns:
            if name not in _MOVED:
                assert (made.column(name)[place] == block.column(name)[row]).all()
        for part in ("name", "body"):
            if f"{part}_start" in block.records.layout.columns:
                assert text(made, part, place) == text(block, part, row)


def text(block: Any, part: str, row: int) -> bytes:
    start, length = block.records.number(f"{part}_start", row), block.records.number(f"{part}_length", row)
    return bytes(block.payload[start : start + length])


@given(st.data(), st.sampled_from([TRACES, LOGS]))
def test_picked_records_are_those_of_the_blocks(data: st.DataObject, signal: Signal) -> None:
    payloads = data.draw(st.lists(requests(signal).map(lambda one: one.SerializeToString()), max_size=3))
    payloads.append(BUILDERS[signal](data.draw(st.integers(1, 40)), seed=len(payloads)))
    blocks = [scan(signal, payload, 7) for payload in payloads]
    rows = [sorted(data.draw(st.sets(st.integers(0, block.count - 1)))) if block.count else [] for block in blocks]
    if any(rows):
        assert_picked(blocks, rows)


def test_what_cannot_be_picked() -> None:
    spans, logs = (scan(one, BUILDERS[one](3), 0) for one in (TRACES, LOGS))
    points = scan(METRICS, BUILDERS[METRICS](3), 0)
    first = np.zeros(1, np.intp)
    for parts in (
        [],
        [(spans, first[:0])],
        [(spans, first + 3)],
        [(spans, first - 1)],
        [(spans, first), (logs, first)],
    ):
        with pytest.raises(ValueError, match=r"row|signals|needed"):
            pick(parts)
    with pytest.raises(ValueError, match="needed"):
        pick([(points, first)])
    end = spans.records.number("start", 2) + spans.records.number("length", 2)
    for size in (end - 1, end):
        cut = Block(TRACES, 0, spans.payload[:size], spans.records, spans.groups, 0, 0)
        if size == end:
            assert pick([(cut, first + 2)]).count == 1
        else:
            with pytest.raises(ValueError, match="outside"):
                pick([(cut, first + 2)])
