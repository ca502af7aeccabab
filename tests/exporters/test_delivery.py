"""Deliveries: nothing missing, whatever fails and whenever it crashes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.errors import Permanent, Retryable, Unwelcome
from collector.exporters.base import Batch, Rejected
from collector.exporters.settings import RetryOnFailure
from collector.testing.files import MemoryFiles, random_fates
from tests.exporters.rig import Rig, Told, dead_numbers, numbers, quick

BAD = 7
"""One span in so many is refused by an exporter that refuses some."""


async def test_records_arrive_once_and_in_order() -> None:
    exporter = Told()
    rig = Rig.start(MemoryFiles(), exporter)
    for first in range(0, 200, 20):
        await rig.append(first, 20)
    await rig.delivered()
    assert exporter.taken == list(range(200))
    assert (rig.counts.sent, rig.counts.attempts["success"]) == (200, len(exporter.batches))
    assert rig.delivery.figures()[:3] == (200, 0, 0)
    await rig.stop()
    again = Rig.start(rig.files, exporter)
    await again.append(200, 5)
    await again.delivered()
    assert exporter.taken == list(range(205)), "nothing twice after an orderly stop"
    await again.stop()


async def test_what_the_ring_has_let_go_comes_from_the_log() -> None:
    files = MemoryFiles()
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    exporter = Told(lambda batch: wait())
    rig = Rig.start(files, exporter, replace(quick(), timeout=20.0), capacity=16)
    for first in range(0, 400, 10):
        await rig.append(first, 10)
    assert rig.delivery.figures().records == 400
    assert rig.delivery.figures().size > 4000
    assert rig.store.ring.first_offset > 350
    gate.set()
    await rig.delivered()
    assert exporter.taken == list(range(400))
    await rig.stop()


async def test_batches_are_bounded() -> None:
    exporter = Told()
    rig = Rig.start(MemoryFiles(), exporter, quick(max_size=7))
    await rig.append(0, 40)
    await rig.append(40, 3)
    await rig.delivered()
    assert exporter.taken == list(range(43))
    assert max(len(found) for _, found in exporter.batches) <= 7
    await rig.stop()
    exporter = Told()
    rig = Rig.start(MemoryFiles(), exporter, quick(max_bytes=300))
    await rig.append(0, 40)
    await rig.delivered()
    assert exporter.taken == list(range(40))
    assert len(exporter.batches) > 3
    await rig.stop()


async def test_several_batches_are_under_way_and_the_cursor_waits_for_the_first() -> None:
    gate = asyncio.Event()

    async def finish() -> None:
        await gate.wait()

    exporter = Told(lambda batch: finish() if 0 in numbers(batch) else None)
    rig = Rig.start(MemoryFiles(), exporter, replace(quick(max_size=5, num_consumers=3), timeout=20.0))
    await rig.append(0, 40)
    while len(exporter.batches) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(exporter.batches) == 3, "no further than that"
    assert rig.delivery.position == 0
    gate.set()
    await rig.delivered()
    assert exporter.counted == Counter(range(40))
    await rig.stop()


async def test_a_batch_that_failed_comes_again_as_it_was() -> None:
    outcomes = [Retryable("away"), (Retryable("no answer"), True), OSError("a defect"), None]
    exporter = Told(lambda batch: outcomes.pop(0) if outcomes else None)
    rig = Rig.start(MemoryFiles(), exporter)
    await rig.append(0, 10)
    await rig.delivered()
    assert len({key for key, _ in exporter.batches}) == 1
    assert exporter.taken == [*range(10), *range(10)]
    assert rig.counts.attempts == {"retryable": 3, "success": 1}
    assert rig.logger.named("export fails")
    assert rig.logger.named("exports again")
    assert rig.delivery.failing == ""
    await rig.stop()


async def test_nothing_is_given_up_because_we_are_not_welcome() -> None:
    left = [Unwelcome("401")] * 20
    exporter = Told(lambda batch: left.pop() if left else None)
    rig = Rig.start(MemoryFiles(), exporter)
    await rig.append(0, 10)
    await rig.delivered()
    assert exporter.taken == list(range(10))
    assert rig.counts.attempts["unwelcome"] == 20
    await rig.stop()


async def test_a_destination_that_refuses_everything_does_not_fill_the_log() -> None:
    rig = Rig.start(MemoryFiles(), Told(lambda batch: Permanent("never")), quick())
    await rig.append(0, 50)
    await rig.delivered()
    assert rig.counts.refused == 50
    assert [event for _, event, _ in rig.logger.events].count("records refused") == 1
    await rig.stop()


async def test_a_batch_may_be_given_up_after_a_time() -> None:
    exporter = Told(lambda batch: Retryable("away") if 0 in numbers(batch) else None)
    retry = RetryOnFailure(initial_interval=0.001, max_interval=0.001, max_elapsed_time=0.02)
    rig = Rig.start(MemoryFiles(), exporter, replace(quick(), retry_on_failure=retry))
    await rig.append(0, 10)
    await asyncio.sleep(0.03)
    await rig.append(10, 5)
    await rig.delivered()
    assert exporter.taken == list(range(10, 15))
    (letter,) = rig.dead()
    assert letter[0] == 10
    assert "away" in letter[1]
    assert rig.counts.dead_letters == rig.counts.refused == 10
    await rig.stop()


@pytest.mark.parametrize("named", [True, False])
async def test_bad_records_are_found_and_the_others_delivered(named: bool) -> None:
    def behave(batch: Batch) -> Any:
        bad = [number for number in numbers(batch) if number % BAD == 3]
        if not bad:
            return None
        return Permanent("no sevens", tuple(bad) if named else ())

    exporter = Told(behave)
    rig = Rig.start(MemoryFiles(), exporter)
    await rig.append(0, 60)
    await rig.delivered()
    bad = {number for number in range(60) if number % BAD == 3}
    assert exporter.counted == Counter(set(range(60)) - bad)
    assert dead_numbers(rig.files) == bad  # type: ignore[arg-type]
    assert sum(records for records, _ in rig.dead()) == len(bad) == rig.counts.dead_letters
    assert {reason for _, reason in rig.dead()} == {"no sevens"}
    await rig.stop()


async def test_the_search_for_bad_records_has_an_end() -> None:
    exporter = Told(lambda batch: Permanent("nothing at all"))
    rig = Rig.start(MemoryFiles(), exporter)
    await rig.append(0, 500)
    await rig.delivered()
    assert len(exporter.batches) < 200
    assert dead_numbers(rig.files) == set(range(500))  # type: ignore[arg-type]
    assert rig.counts.dead_letters == 500
    await rig.stop()


async def test_a_destination_that_takes_less_at_once_gets_less() -> None:
    exporter = Told(lambda batch: Permanent("413", too_large=True) if len(numbers(batch)) > 30 else None)
    rig = Rig.start(MemoryFiles(), exporter)
    await rig.append(0, 100)
    await rig.delivered()
    assert exporter.taken == list(range(100))
    assert rig.counts.dead_letters == 0
    await rig.stop()


async def test_partial_success_is_counted_and_not_repeated() -> None:
    answers: list[Any] = [Rejected(3, "old"), Rejected(2, "two", (6, 8))]
    exporter = Told(lambda batch: answers.pop(0) if answers else None)
    rig = Rig.start(MemoryFiles(), exporter)
    await rig.append(0, 5)
    await rig.delivered()
    await rig.append(5, 5)
    await rig.delivered()
    assert exporter.taken == list(range(10))
    assert (rig.counts.sent, rig.counts.refused, rig.counts.dead_letters) == (5, 5, 2)
    assert dead_numbers(rig.files) == {6, 8}  # type: ignore[arg-type]
    await rig.stop()


async def test_a_timeout_is_a_failure() -> None:
    first = [True]

    async def hang() -> None:
        await asyncio.Event().wait()

    exporter = Told(lambda batch: hang() if first and first.pop() else None)
    rig = Rig.start(MemoryFiles(), exporter, replace(quick(), timeout=0.01))
    await rig.append(0, 5)
    await rig.delivered()
    assert exporter.taken == list(range(5))
    assert rig.counts.attempts == {"retryable": 1, "success": 1}
    await rig.stop()


async def test_what_retention_removes_first_is_counted_and_told() -> None:
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    exporter = Told(lambda batch: wait())
    rig = Rig.start(
        MemoryFiles(), exporter, replace(quick(), timeout=20.0), capacity=16, segment_bytes=1500, retention_bytes=6000
    )
    for first in range(0, 400, 10):
        await rig.append(first, 10)
        rig.log.enforce_retention()
    removed = rig.log.first_offset
    assert removed > 100
    gate.set()
    await rig.delivered()
    lost = rig.counts.lost["retention"]
    assert exporter.taken == [*range(removed - lost), *range(removed, 400)]
    assert lost > 50
    (event,) = rig.logger.named("records lost before they were exported")
    assert (event["records"], event["reason"], event["end_offset"]) == (lost, "retention", removed)
    await rig.stop()


async def test_a_log_that_is_not_synced_is_synced_before_it_is_shipped() -> None:
    files = MemoryFiles()
    exporter = Told()
    rig = Rig.start(files, exporter, sync=False)
    await rig.append(0, 10)
    await rig.delivered()
    assert exporter.taken == list(range(10))
    await rig.crash()
    again = Rig.start(files.after_power_cut(random_fates(random.Random(3))), exporter, sync=False)
    assert again.log.next_offset == 10, "no offset is given out again"
    await again.stop()


async def test_a_destination_that_knows_its_position_is_believed() -> None:
    files = MemoryFiles()
    exporter = Told()
    rig = Rig.start(files, exporter)
    await rig.append(0, 30)
    await rig.delivered()
    await rig.stop()
    second = Told()
    again = Rig.start(files, second, position=12)
    await again.append(30, 5)
    await again.delivered()
    assert second.taken == list(range(30, 35)), "the cursor is further"
    await again.stop()
    third = Told()
    last = Rig.start(files, third, position=33)
    await last.append(35, 5)
    await last.delivered()
    assert third.taken == list(range(35, 40))
    await last.stop()


class Steady(Told):
    """Wants batches that are repeated to be the same."""

    steady: ClassVar[bool] = True


class NoSteadyPromise(Told):
    """The canary: it is given whatever fits."""


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What happens: appends, outcomes of the next attempts, and crashes."""
    step = st.one_of(
        st.tuples(st.just("append"), st.integers(1, 30)),
        st.tuples(st.just("fail"), st.integers(0, 4)),
        st.tuples(st.just("turns"), st.integers(0, 12)),
        st.tuples(st.just("crash"), st.integers(0, 2**16)),
        st.tuples(st.just("stop"), st.just(0)),
    )
    return draw(st.lists(step, min_size=3, max_size=25))


def outcome(kind: int, batch: Batch) -> Any:
    """What an attempt comes to."""
    return (None, Retryable("away"), (Retryable("no answer"), True), Unwelcome("401"), ValueError("a defect"))[kind]


async def lived(
    story: list[tuple[str, int]], exporter: Told, consumers: int, *, bad: bool
) -> tuple[int, MemoryFiles, bool]:
    """Live a story; return how many spans there were, the files at the end, and whether anything may be there twice."""
    ahead: list[int] = []
    doubtful = False

    def behave(batch: Batch) -> Any:
        nonlocal doubtful
        kind = ahead.pop(0) if ahead else 0
        doubtful |= kind == 2
        refused = [one for one in numbers(batch) if one % BAD == 3] if bad else []
        if refused and kind in (0, 2):
            return Permanent("no sevens")
        return outcome(kind, batch)

    exporter.behave = behave
    files = MemoryFiles()
    settings = quick(max_size=11, num_consumers=consumers)
    rig = Rig.start(files, exporter, settings, capacity=20, segment_bytes=1500)
    sent = 0
    for action, number in story:
        if action == "append":
            await rig.append(sent, number)
            sent += number
        elif action == "fail":
            ahead.append(number)
        elif action == "turns":
            for _ in range(number):
                await asyncio.sleep(0)
        elif action == "stop":
            await rig.stop()
            rig = Rig.start(rig.files, exporter, settings, capacity=20, segment_bytes=1500)
        else:
            await rig.crash()
            doubtful = True
            assert isinstance(rig.files, MemoryFiles)
            survived = rig.files.after_power_cut(random_fates(random.Random(number)))
            rig = Rig.start(survived, exporter, settings, capacity=20, segment_bytes=1500)
            assert rig.log.next_offset == sent
    ahead.clear()
    await rig.delivered()
    await rig.stop()
    assert isinstance(rig.files, MemoryFiles)
    return sent, rig.files, doubtful


@settings(max_examples=60, deadline=None)
@given(lives(), st.sampled_from([1, 3]), st.booleans())
def test_nothing_is_missing_whatever_happens(story: list[tuple[str, int]], consumers: int, bad: bool) -> None:
    exporter = Told()
    sent, files, doubtful = asyncio.run(lived(story, exporter, consumers, bad=bad))
    dead = dead_numbers(files)
    assert dead == {one for one in range(sent) if bad and one % BAD == 3}
    assert set(exporter.taken) == set(range(sent)) - dead
    if not doubtful:
        assert max(exporter.counted.values(), default=1) == 1
    if consumers == 1:
        fresh = list(dict.fromkeys(exporter.taken))
        assert fresh == sorted(fresh), "out of order"


def differing(batches: list[tuple[str, list[int]]]) -> list[str]:
    """Batches that overlap others and are not the same."""
    whole = {key: (found[0], found[-1] + 1) for key, found in batches}
    spans = sorted(set(whole.values()))
    return [f"{one} and {other}" for one, other in pairwise(spans) if other[0] < one[1]]


@settings(max_examples=40, deadline=None)
@given(lives(), st.sampled_from([1, 3]))
@example([*[("append", 1)] * 6, ("crash", 0), ("stop", 0)], 1)  # stopped before it has come to where it was
def test_repeated_batches_are_the_same_for_those_who_ask(story: list[tuple[str, int]], consumers: int) -> None:
    exporter = Steady()
    sent, _, _ = asyncio.run(lived(story, exporter, consumers, bad=False))
    assert set(exporter.taken) == set(range(sent))
    assert differing(exporter.batches) == []


def test_batches_that_differ_would_be_seen() -> None:
    """The canary: without the promise there is a story in which they do."""
    story = [("append", 5), ("turns", 0), ("fail", 1), ("append", 5), ("crash", 0), ("append", 6), ("turns", 5)]
    found = []
    for fate in range(20):
        exporter = NoSteadyPromise()
        told = [(action, fate if action == "crash" else number) for action, number in story]
        asyncio.run(lived([("fail", 1), *told], exporter, 1, bad=False))
        found += differing(exporter.batches)
    assert found
