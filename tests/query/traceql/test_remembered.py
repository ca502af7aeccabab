"""Remembered columns change nothing, while records come and go."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import numpy as np
import pytest

from collector.clock import SystemClock
from collector.otlp.signals import TRACES
from collector.query.deadline import Deadline
from collector.query.slices import slices
from collector.query.traceql import conditions, metrics, remembered, tags
from collector.query.traceql.ast import Filter
from collector.query.traceql.evaluate import Evaluation
from collector.query.traceql.parser import parse
from collector.query.traceql.series import Steps
from collector.ring.ring import Ring
from collector.store import Store, View
from tests.query.traceql.test_search import random_request

CONDITIONS = [
    *("span.x = 1", "span.x != nil", '.y = "get" && span.x = 1', 'name =~ "g.*"', "!(status = error)", "!span.y"),
    *('resource.service.name = "a" || kind = server', "duration > 20ns && .x = nil", '"b" = resource.service.name'),
    *("span.x + 1 = 2", 'event:name = "x"', 'span.y = "get" || duration > 5ns', 'instrumentation:name != "lib"'),
]


def offsets(view: View, condition: str, *, start: int, end: int) -> tuple[list[int], list[int]]:
    """What `fulfilling` finds, and what evaluating every block does."""
    (only,) = parse(f"{{ {condition} }}").pipeline.stages
    assert isinstance(only, Filter)
    deadline = Deadline(60, SystemClock())
    found = [
        block.base_offset + row
        for block, rows in conditions.fulfilling(deadline, view, only.expression, start, end)
        for row in rows.tolist()
    ]
    expected = [
        piece.block.base_offset + row
        for piece in slices(view, start, end)
        for row in Evaluation(piece).matching(only.expression).tolist()
    ]
    return sorted(found), sorted(expected)


@pytest.mark.parametrize("distinct", [2, 1000])
def test_what_is_found_is_what_every_block_has(monkeypatch: pytest.MonkeyPatch, distinct: int) -> None:
    monkeypatch.setattr(conditions, "PROBED", 0)
    monkeypatch.setattr(remembered, "DISTINCT_MAX", distinct)
    chance = Random(5)
    loop = asyncio.new_event_loop()
    store = Store(TRACES, Ring(TRACES, 60, 1 << 24), None, loop)
    old: list[View] = []
    for step in range(60):
        for _ in range(chance.randint(1, 3)):
            loop.run_until_complete(store.append(random_request(chance, chance.randint(1, 9)).SerializeToString()))
        start, end = (0, 1000) if step % 3 else (50, 120)
        with store.view() as view:
            for condition in chance.sample(CONDITIONS, 5):
                found, expected = offsets(view, condition, start=start, end=end)
                assert found == expected, (condition, step)
        old.append(store.view())
        if len(old) > 4:  # a query that began before others, and ends after them
            with old.pop(0) as view:
                found, expected = offsets(view, chance.choice(CONDITIONS), start=start, end=end)
                assert found == expected
    loop.close()


METRICS = [
    *("{ } | rate() by (span.x, name)", "{ span.x = 1 } | count_over_time() by (resource.service.name)"),
    *("{ status != ok } | quantile_over_time(duration, .5, .9)", "{ } | avg_over_time(span.x) by (kind)"),
    *("{ duration > 5ns } | max_over_time(span.y)", "{ } | histogram_over_time(duration) by (status)"),
    *("{ } | compare({ status = error })", "{ span.x != nil } | compare({ duration > 5ns }, 2)"),
    *('{ .y != 1 } | compare({ span.y = "get" }, 3, 40, 120)', "{ } | compare({ event:name = nil })"),
    "({ status = error } | rate() by (name)) / ({ } | rate() by (name))",
]


@pytest.mark.parametrize("distinct", [3, 1000])
def test_metrics_and_tags_are_the_same(monkeypatch: pytest.MonkeyPatch, distinct: int) -> None:
    monkeypatch.setattr(remembered, "DISTINCT_MAX", distinct)
    chance = Random(7)
    loop = asyncio.new_event_loop()
    store = Store(TRACES, Ring(TRACES, 150, 1 << 24), None, loop)
    deadline = Deadline(60, SystemClock())
    steps = Steps.over(20, 220, 50)
    for _ in range(4):
        for _ in range(12):
            loop.run_until_complete(store.append(random_request(chance, chance.randint(1, 9)).SerializeToString()))
        answers: list[list[Any]] = []
        monkeypatch.setattr(conditions, "PROBED", 0)
        for remembering in (True, False):
            with store.view() as view:
                if not remembering:
                    view.memo = None
                found: list[Any] = []
                for text in METRICS:
                    for one in metrics.run(deadline, view, view, parse(text), steps, 0):
                        found.append((str(one.labels), [str(value) for value in one.samples.round(9).tolist()]))
                found.sort()
                for start, end in ((30, 170), (0, 1000)):
                    for tag in ("span.x", "name", "resource.service.name", "rootName"):
                        found.append(tags.values(deadline, view, tags.field_of(tag), None, start, end).values)
                    found.append(
                        sorted(
                            map(
                                str,
                                {
                                    one: sorted(each)
                                    for one, each in tags.names(deadline, view, start, end).names.items()
                                }.items(),
                            )
                        )
                    )
                answers.append(found)
        assert answers[0] == answers[1]
        assert len(answers[0]) > 30
    loop.close()


def test_memory_is_bounded_and_the_oldest_field_goes_first() -> None:
    loop = asyncio.new_event_loop()
    store = Store(TRACES, Ring(TRACES, 1000, 1 << 24), None, loop)
    for seed in range(40):
        loop.run_until_complete(store.append(random_request(Random(seed), 20).SerializeToString()))
    loop.close()
    store.memo.bytes_max = 100_000
    known = store.memo.kept("traceql", remembered.Remembered)
    deadline = Deadline(60, SystemClock())
    with store.view() as view:
        for number in range(20):
            field = parse(f"{{ .f{number} = 1 }}").pipeline.stages[0].expression.left  # type: ignore[union-attr]
            assert known.known(deadline, view, field) is not None
            assert 0 < known.nbytes == store.memo.nbytes <= 100_000
        again = known.known(deadline, view, field)
        assert again is not None
        assert np.array_equal(again.codes, np.zeros(800))
