"""New records are read once for all tails, and each tail finds what its own filter finds."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from collector.clock import SystemClock
from collector.errors import QueryLimit
from collector.otlp.signals import TRACES
from collector.query import tail_scan
from collector.query.deadline import Deadline
from collector.query.offsets import from_offset
from collector.query.tail_filters import spans
from collector.query.tail_scan import Followed, Scan
from collector.ring.ring import Ring
from collector.store import Store, View
from tests.query.traceql.test_search import random_request

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.slices import Slice

QUERIES = [
    '{ span.y = "get" }',
    "{ span.x = 1 }",
    '{ resource.service.name = "a" }',
    "{ status = error && .y != nil }",
    "",
]


def offsets(followed: Followed, view: View, first: int, *, shared: bool = True) -> list[int]:
    deadline = Deadline(60, SystemClock())
    return [
        piece.block.base_offset + row
        for piece, rows in followed.over(from_offset(view, first, deadline=deadline), view, deadline, shared=shared)
        for row in rows.tolist()
    ]


@pytest.mark.parametrize("kept", [0, 40, 1 << 18])
def test_each_finds_what_it_would_alone(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(tail_scan, "FOUND_MAX", kept)
    monkeypatch.setattr(tail_scan, "WINDOW_BYTES", 2000)
    chance = Random(kept)
    loop = asyncio.new_event_loop()
    store = Store(TRACES, Ring(TRACES, 200, 1 << 24), None, loop)
    scan = Scan()
    tails = [scan.follow(query, spans(query)[0]) for query in [*QUERIES, *QUERIES]]
    positions = [0] * len(tails)
    found: list[list[int]] = [[] for _ in tails]
    expected: list[list[int]] = [[] for _ in tails]
    for _ in range(60):
        for _ in range(chance.randint(0, 6)):
            loop.run_until_complete(store.append(random_request(chance, chance.randint(1, 9)).SerializeToString()))
        for at in chance.sample(range(len(tails)), 7):
            with store.view() as view:
                found[at] += offsets(tails[at], view, positions[at])
                expected[at] += offsets(tails[at], view, positions[at], shared=False)
                positions[at] = view.next_offset - (chance.randint(0, 3) if chance.random() < 0.2 else 0)
    loop.close()
    assert found == expected
    assert len(found[0]) > 30
    for one in tails:
        one.leave()
    assert not scan.is_followed
    assert scan._kept <= max(kept, 0)


def test_a_block_is_looked_at_once_for_all_and_a_filter_that_fails_fails_its_own_tail() -> None:
    looked: Counter[str] = Counter()

    def filter_of(name: str) -> Followed:
        def match(piece: Slice, view: View, deadline: Deadline) -> NDArray[np.intp]:
            looked[name] += len(piece.rows)
            if name == "fails":
                raise QueryLimit("too much")
            return piece.rows[::2]

        return scan.follow(name, match)

    loop = asyncio.new_event_loop()
    store = Store(TRACES, Ring(TRACES, 1000, 1 << 24), None, loop)
    scan = Scan()
    tails = [filter_of(name) for name in ("a", "b", "a", "fails")]
    for seed in range(20):
        loop.run_until_complete(store.append(random_request(Random(seed), 10).SerializeToString()))
    loop.close()
    with store.view() as view:
        answers = [offsets(one, view, 0) for one in tails[:3]]
        assert looked == {"a": 200, "b": 200, "fails": 200}
        with pytest.raises(QueryLimit):
            offsets(tails[3], view, 0)
        assert answers[0] == answers[1] == answers[2] == list(range(0, 200, 2))
        assert offsets(tails[0], view, 155) == list(range(156, 200, 2))
