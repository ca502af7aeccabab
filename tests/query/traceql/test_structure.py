"""The compiled walk and numbering against plain Python, on graphs of any kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.query.traceql.structure import Numbering, above, below, nested_sets

_graphs = st.integers(1, 7).flatmap(
    lambda nodes: st.tuples(
        st.just(nodes),
        st.lists(
            st.tuples(st.integers(0, nodes - 1), st.integers(-1, nodes - 1), st.booleans()), min_size=1, max_size=10
        ),
    )
)


@given(_graphs)
def test_below_and_above_are_reachability(graph: tuple[int, list[tuple[int, int, bool]]]) -> None:
    nodes, spans = graph
    node = np.array([one for one, _, _ in spans], np.int32)
    parent = np.array([up for _, up, _ in spans], np.int32)
    chosen = np.array([source for _, _, source in spans])

    def over(start: int) -> set[int]:
        """Every node on the way up from a node, itself included."""
        found, pending = set(), [start]
        while pending:
            one = pending.pop()
            if one >= 0 and one not in found:
                found.add(one)
                pending += [up for own, up, _ in spans if own == one]
        return found

    up = [over(one) - {own} for own, one, _ in spans]
    sources = {own for own, _, source in spans if source}
    assert below(node, parent, nodes, chosen).tolist() == [bool(found & sources) for found in up]
    expected = [
        any(own in found for found, (_, _, source) in zip(up, spans, strict=True) if source) for own, _, _ in spans
    ]
    assert above(node, parent, nodes, chosen).tolist() == expected


@given(st.lists(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 300)), max_size=300), max_size=4))
def test_numbers_are_given_in_order(batches: list[list[tuple[int, int]]]) -> None:
    numbers = Numbering()
    known: dict[tuple[int, int], int] = {}
    for batch in batches:
        first = np.array([one for one, _ in batch], np.uint64)
        second = np.array([two for _, two in batch], np.uint64)
        assert numbers.find(first, second).tolist() == [known.get(pair, -1) for pair in batch]
        assert numbers.add(first, second).tolist() == [known.setdefault(pair, len(known)) for pair in batch]
        assert len(numbers) == len(known)


def test_nested_sets_of_a_deep_trace_need_no_stack() -> None:
    count = 200_000
    parents = np.arange(-1, count - 1)
    left, right, outer = nested_sets(np.zeros(count, np.int64), parents, parents < 0, np.arange(count))
    assert left.tolist() == list(range(1, count + 1))
    assert right.tolist() == list(range(2 * count, count, -1))
    assert outer[:3].tolist() == [-1, 1, 2]


def test_numbers_out_of_bounds_are_refused() -> None:
    node = np.array([0, 5], np.int32)
    with pytest.raises(ValueError, match="out of bounds"):
        below(node, node, 2, np.array([True, False]))
