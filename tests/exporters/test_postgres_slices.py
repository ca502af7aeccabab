"""Where time is cut for reading: everything lies in one slice, whatever was sampled."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from collector.exporters.base import END_OF_TIME, PIECE_RECORDS
from collector.exporters.postgres.partitions import DAY_NS
from collector.exporters.postgres.slices import (
    CELL_PAGES,
    CELLS_MAX,
    EDGE_NS,
    MANY,
    SAMPLED_PAGES,
    Step,
    Stretch,
    cells,
    sampled,
    stretches,
)

DAYS = st.sets(st.integers(0, 30), max_size=8)
TIMES = st.integers(0, 31 * DAY_NS) | st.just(END_OF_TIME)


@given(DAYS, TIMES, TIMES, st.booleans())
def test_stretches_are_all_of_the_time_each_in_one_table(days: set[int], one: int, other: int, newest: bool) -> None:
    start, end = sorted((one, other))
    found = stretches(days, start, end, newest_first=newest)
    ordered = found[::-1] if newest else found
    assert ordered[0].start_ns == start
    assert ordered[-1].end_ns == end
    assert all(left.end_ns + 1 == right.start_ns for left, right in pairwise(ordered))
    for stretch in ordered:
        within = {stretch.start_ns // DAY_NS, stretch.end_ns // DAY_NS}
        assert within == {stretch.day} if stretch.day is not None else not within & days


@given(
    st.integers(0, 40 * CELL_PAGES) | st.integers(0, 2**32),
    st.lists(st.integers(0, 2 * DAY_NS), max_size=40),
    st.integers(1, 1000),
    st.lists(st.integers(0, 3 * MANY), max_size=60),
    st.booleans(),
)
def test_slices_are_all_of_a_stretch_in_order(
    pages: int, times: list[int], start: int, counts: list[int], newest: bool
) -> None:
    """With edges between microseconds, and never more cells than the limit."""
    stretch = Stretch(start, start + DAY_NS, 0)
    edges = cells(stretch, pages, times)
    assert edges == sorted(set(edges))
    assert (edges[0], edges[-1]) == (stretch.start_ns, stretch.end_ns + 1)
    assert all(edge % EDGE_NS == 0 for edge in edges[1:-1])
    assert len(edges) <= max(2, min(pages // CELL_PAGES, CELLS_MAX) + 1)
    step = Step()
    at = edges[-1] if newest else edges[0]
    while edges:
        taken, edges = step.taken(edges, newest_first=newest)
        assert at == (taken[-1] if newest else taken[0])
        at = taken[0] if newest else taken[-1]
        step.seen(counts.pop() if counts else 0)
    assert at == (stretch.start_ns if newest else stretch.end_ns + 1)


def test_cells_hold_about_as_much_each() -> None:
    """Of a table in which time went by at different paces."""
    times = [*range(0, 10**12, 10**10), *range(10**12, 100 * 10**12, 99 * 10**10)]
    edges = cells(Stretch(0, 100 * 10**12, 0), 10 * CELL_PAGES, times)
    held = [sum(low <= time < high for time in times) for low, high in pairwise(edges)]
    assert len(held) == 10
    assert max(held) - min(held) <= 2


def test_pages_are_looked_at_from_everywhere() -> None:
    assert sampled(3) == [0, 1, 2]
    found = sampled(10**6)
    assert len(found) == SAMPLED_PAGES
    assert (found[0], found[-1]) == (0, 10**6 - 1)


def test_slices_grow_only_where_there_was_more_to_take() -> None:
    step = Step()
    edges = list(range(100))
    widths = []
    for records in (0, PIECE_RECORDS, MANY + 1, 0):
        taken, edges = step.taken(edges, newest_first=True)
        widths.append(len(taken) - 1)
        step.seen(records)
    assert widths == [1, 4, 4, 1]
    for _ in range(5):  # days with little in them
        assert step.taken([0, 1], newest_first=True) == ([0, 1], [])
        step.seen(0)
    assert len(step.taken(list(range(100)), newest_first=True)[0]) - 1 == 4
