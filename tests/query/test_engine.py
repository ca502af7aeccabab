"""The engine: queries run in worker threads, under a deadline, and not without bound."""

from __future__ import annotations

import asyncio
import threading

import pytest

from collector.clock import SystemClock
from collector.errors import NotFound, Overloaded, QueryTimeout
from collector.query import deadline as module
from collector.query.deadline import Deadline
from collector.query.engine import Engine


class StoppedClock(SystemClock):
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


async def test_a_query_runs_in_another_thread_and_returns() -> None:
    engine = Engine(1, 1.0, SystemClock())
    found = await engine.run(lambda deadline, number: (number + 1, threading.current_thread()), 41)
    assert found[0] == 42
    assert found[1] is not threading.current_thread()
    engine.close()


async def test_causes_come_through() -> None:
    engine = Engine(1, 1.0, SystemClock())

    def fails(deadline: Deadline) -> None:
        raise NotFound("nothing")

    with pytest.raises(NotFound, match="nothing"):
        await engine.run(fails)
    engine.close()


def test_a_deadline_passes() -> None:
    clock = StoppedClock()
    deadline = Deadline(2.0, clock)
    clock.seconds = 2.0
    deadline.check()
    clock.seconds = 2.1
    with pytest.raises(QueryTimeout, match=r"longer than 2 s \(query.timeout\)"):
        deadline.check()


def test_a_query_rests_while_requests_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, received, rests = StoppedClock(), [0], []

    def rest(_: threading.Event, seconds: float) -> bool:
        rests.append(seconds)
        clock.seconds += seconds
        return False

    monkeypatch.setattr(threading.Event, "wait", rest)
    deadline = Deadline(2.0, clock, lambda: received[0])
    clock.seconds = 0.01
    deadline.check()
    assert rests == [], "nothing came in"
    received[0] += 1
    deadline.check()
    assert rests == [], "it has not worked yet"
    clock.seconds += 0.002
    deadline.check()
    assert rests == [pytest.approx(0.002 * module.REST)]
    received[0] += 1
    clock.seconds += 1.0
    deadline.check()
    assert rests[1:] == [module.REST_MAX_S]
    clock.seconds += 1.0
    with pytest.raises(QueryTimeout):
        deadline.check()


async def test_a_query_that_nobody_waits_for_is_stopped() -> None:
    engine = Engine(1, 60.0, SystemClock())
    started, stopped = threading.Event(), threading.Event()

    def endless(deadline: Deadline) -> None:
        started.set()
        try:
            while True:
                deadline.check()
        except QueryTimeout:
            stopped.set()
            raise

    task = asyncio.create_task(engine.run(endless))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(stopped.wait, 10)
    engine.close()


async def test_too_many_queries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.query.engine.QUERIES_WAITING_MAX", 2)
    engine = Engine(1, 60.0, SystemClock())
    release = threading.Event()
    running = [asyncio.create_task(engine.run(lambda deadline: release.wait(10))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 queries are running or waiting"):
        await engine.run(lambda deadline: None)
    release.set()
    assert await asyncio.gather(*running) == [True, True]
    assert await engine.run(lambda deadline: 7) == 7
    engine.close()


async def test_a_lane_leaves_a_thread_to_others() -> None:
    engine = Engine(2, 10.0, SystemClock())
    greedy, other = engine.lane(), engine.lane()
    release = threading.Event()

    def wait(deadline: Deadline) -> bool:
        return release.wait(10)

    waiting = [asyncio.ensure_future(greedy.run(wait)) for _ in range(5)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(other.run(lambda deadline: "answered"), 10) == "answered"
    assert engine.pending == 5, "queries of all lanes"
    release.set()
    assert await asyncio.gather(*waiting) == [True] * 5
    assert engine.pending == 0
    engine.close()
