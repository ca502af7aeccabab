"""Queries over whole traces against the definition: random forests with every deformity, over blocks, ring and log."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from collector.clock import SystemClock
from collector.otlp.scan import scan
from collector.otlp.signals import TRACES
from collector.query.deadline import Deadline
from collector.query.traceql import ast, candidates, conditions, matches, metrics, remembered, search, structure
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import plan
from collector.query.traceql.search import Search, describe, find
from collector.query.traceql.series import Steps
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.files import MemoryFiles
from collector.wal import merging
from tests.effort import seed_of_the_run
from tests.query.traceql import forest
from tests.query.traceql.forest import Node
from tests.wal.logs import open_log
from tests.wal.test_compact import compact_all

FORESTS = int(os.environ.get("RINGTAIL_TRACEQL_FORESTS", "0"))
"""Forests of sixty traces that the long form looks at, with eight queries each."""


def stored(chance: Random, nodes: list[Node], *, log: bool, compacted: bool, capacity: int) -> Store:
    """A store of these spans: a ring that may be too small for them, and a log that has them all."""
    loop = asyncio.new_event_loop()
    loop.close()
    ring = Ring(TRACES, capacity, 1 << 22)
    files = MemoryFiles()
    kept = open_log(files, segment_bytes=chance.choice([1500, 6000])) if log else None
    store = Store(TRACES, ring, kept, loop)
    for payload in forest.payloads(chance, nodes):
        block = scan(TRACES, payload, ring.next_offset)
        if kept is not None:
            kept.append([payload], block.count, block.min_time, block.max_time)
        ring.append(block)
    if kept is not None and compacted:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merging, "FRAME_RECORDS", chance.choice([4, 12]))
            compact_all(files, kept)
    return store


def run(store: Store, query: ast.Query, *, start: int, end: int, limit: int) -> Iterator[tuple[int, list[list[int]]]]:
    """What the API answers, page by page."""
    below = None
    deadline = Deadline(3600, SystemClock())
    key = plan(query).key
    while True:
        wanted = Search(query, limit, 1000, start, end, below=below)
        with store.view(*(key or ())) as view, store.view() as everything:
            found, effort = find(deadline, view, everything, wanted)
            for one in describe(deadline, everything, found, wanted):
                sets = sorted(sorted(span.offset for span in each.spans) for each in one.spansets)
                yield int.from_bytes(one.trace_id, "big"), sets
        if not effort.more:
            return
        assert found
        below = (found[-1].time, found[-1].offset)


def compare(seed: int, traces: int, spans: int, queries: int, counted: Counter[str], *, in_log: bool = False) -> None:
    """Compare answers with their definition; `in_log`: spans of a log that is compacted, and hardly a ring."""
    chance = Random(seed)
    nodes = forest.forest(chance, traces, spans)
    log = in_log or chance.random() < 0.3
    capacity = 1 if in_log else chance.choice([len(nodes), max(1, len(nodes) // 2), 1])
    store = stored(chance, nodes, log=log, compacted=in_log or chance.random() < 0.5, capacity=capacity)
    held = nodes if log else nodes[-capacity:]
    for _ in range(queries):
        text = forest.query(chance)
        query = parse(text)
        start, end = (0, 1000) if chance.random() < 0.7 else sorted((chance.randint(0, 70), chance.randint(0, 70)))
        expected = forest.answer(held, plan(query).stages, start, end)
        limit = chance.choice([3, 1000])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conditions, "PROBED", chance.choice([0, 2, 16]))
            patch.setattr(remembered, "DISTINCT_MAX", chance.choice([1, 1000]))
            patch.setattr(candidates, "FRAMES_FIRST", chance.choice([1, 3]))
            patch.setattr(candidates, "RARE_SHARE", chance.choice([0.5, 1.0]))
            answered = list(run(store, query, start=start, end=end, limit=limit))
        assert answered == expected, f"seed {seed}: {text} in [{start}, {end}], pages of {limit}"
        counted["queries"] += 1
        counted["pairs"] += len({node.trace for node in held})
        counted["answers"] += len(expected)
        for op in ast.STRUCTURAL:
            counted[op] += f") {op} (" in text
    counted["trees"] += traces


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_every_query_answers_what_it_means(seed: int) -> None:
    compare(seed, 8, 8, 6, Counter())


@pytest.mark.skipif(not FORESTS, reason="the long form: make oracle")
def test_the_long_form() -> None:
    counted: Counter[str] = Counter()

    @seeded(seed_of_the_run())
    @settings(deadline=None, max_examples=FORESTS, database=None)
    @given(seed=st.integers(0, 2**64))
    def compares(seed: int) -> None:
        compare(seed, 60, 9, 8, counted)

    compares()
    print(dict(counted))  # `make oracle` shows it
    assert all(counted[op] for op in ast.STRUCTURAL)


def test_batches_and_the_sieve_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BATCH_FIRST", 1)
    monkeypatch.setattr(search, "BATCH_MAX", 4)
    for seed in range(15):
        compare(seed, 12, 6, 6, Counter())


RARE = ('.who = "customer-1"', '.who = "customer-2"', 'span.who =~ "customer-(1|3)"', "span.x = 1", 'name = "a"', "")


@pytest.fixture
def rare_sides(monkeypatch: pytest.MonkeyPatch) -> list[ast.Expression]:
    """Queries mostly for what few spans have; what was rare in them."""
    monkeypatch.setattr(forest, "CONDITIONS", RARE)
    monkeypatch.setattr(forest, "WHO", [f"customer-{number}" for number in range(1, 9)])
    found: list[ast.Expression] = []
    find_by = search._find_by_rare_side

    def noted(deadline: Any, everything: Any, side: ast.Expression, *rest: Any) -> None:
        found.append(side)
        find_by(deadline, everything, side, *rest)

    monkeypatch.setattr(search, "_find_by_rare_side", noted)
    return found


def test_to_begin_at_a_rare_side_changes_nothing(rare_sides: list[ast.Expression]) -> None:
    for seed in range(12):
        compare(seed, 12, 6, 8, Counter(), in_log=True)
    assert len(rare_sides) > 10


@pytest.mark.usefixtures("rare_sides")
def test_metrics_begin_at_a_rare_side_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "RARE_SHARE", 1.0)
    asked: list[list[Any]] = []
    having_rare = matches.having_rare
    monkeypatch.setattr(matches, "having_rare", lambda *args: asked.append(having_rare(*args)) or asked[-1])
    steps = Steps.one(1, 1000)
    for seed in range(8):
        chance = Random(seed)
        nodes = forest.forest(chance, 20, 6)
        store = stored(chance, nodes, log=True, compacted=True, capacity=1)
        for _ in range(8):
            text = f"({forest._spansets(chance, 2)}) | count_over_time()"
            query = parse(text)
            expected = sum(len(each) for _, sets in forest.answer(nodes, plan(query).stages, 0, 1000) for each in sets)
            with store.view(*(metrics.key_of(query) or ())) as view, store.view() as everything:
                found = metrics.run(Deadline(60, SystemClock()), view, everything, query, steps, 0)
            assert sum(float(one.samples.sum()) for one in found) == expected, f"seed {seed}: {text}"
    assert len(asked) > 10
    assert any(asked)


def test_a_side_that_is_not_required_is_caught(
    rare_sides: list[ast.Expression], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary."""
    not_required = parse('{ .who = "customer-3" }').pipeline.stages[0]
    assert isinstance(not_required, ast.Filter)
    right = candidates.rare_side
    monkeypatch.setattr(search, "rare_side", lambda *asked: right(*asked) and not_required.expression)
    with pytest.raises(AssertionError, match="seed"):
        for seed in range(200):
            compare(seed, 12, 6, 8, Counter(), in_log=True)
    assert rare_sides


@pytest.mark.parametrize("wrong", ["below", "above"])
def test_a_wrong_walk_is_caught(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    right: Any = getattr(structure, wrong)

    def own_relative(node: Any, parent: Any, nodes: int, sources: Any) -> Any:
        return right(node, parent, nodes, sources) | (sources & (parent >= 0) & (node % 7 == 3))

    monkeypatch.setattr(structure, wrong, own_relative)
    with pytest.raises(AssertionError, match="seed"):
        for seed in range(200):
            compare(seed, 8, 8, 6, Counter())
