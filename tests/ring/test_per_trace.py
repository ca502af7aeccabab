"""Which spans are too many of their traces, beside a count in plain Python."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from collector.otlp.signals import TRACES
from collector.ring.per_trace import surplus
from collector.ring.ring import Ring
from tests.ring.blocks import spans

TRACE = st.sampled_from((1, 2, 3, 1 << 64, 1 << 64 | 1))
"""Some differ in one half of their ids only."""


def id_of(trace: int) -> bytes:
    return trace.to_bytes(16, "big")


@given(st.lists(TRACE, max_size=12), st.lists(TRACE, max_size=12), st.integers(1, 6), st.integers(1, 8))
def test_the_last_spans_of_a_trace_are_too_many(there: list[int], come: list[int], limit: int, capacity: int) -> None:
    ring = Ring(TRACES, capacity, 1 << 20)
    if there:
        ring.append(spans(0, [(trace, "a", "x") for trace in there]))
    counted = Counter(there[-capacity:])
    assert ring.counts("trace_id", b"".join(map(id_of, come))).tolist() == [counted[trace] for trace in come]
    over = []
    for number, trace in enumerate(come):
        counted[trace] += 1
        if counted[trace] > limit:
            over.append(number)
    assert surplus(ring, b"".join(map(id_of, come)), limit) == over
