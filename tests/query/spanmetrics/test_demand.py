"""Nothing is counted before somebody asks; then, what the ring holds is, at its own time."""

from __future__ import annotations

import asyncio

import pytest

from collector.otlp.signals import TRACES
from collector.query.promql.ast import Matcher
from collector.query.promql.parser import parse
from collector.query.spanmetrics import demand
from collector.query.spanmetrics.demand import SpanMetrics, asks
from collector.ring.ring import Ring
from collector.store import Commit, Store
from collector.testing.otlp import traces
from tests.query.spanmetrics.test_history import deadline
from tests.query.spanmetrics.test_tally import Stopped

STEP_NS = 20 * 10**9
TOTAL = (Matcher("__name__", "=", "traces_spanmetrics_calls_total"),)


async def filled(clock: Stopped, capacity: int = 1000) -> tuple[Store, SpanMetrics]:
    """A store that has received five requests of ten spans, one in twenty seconds."""
    store = Store(TRACES, Ring(TRACES, capacity, 1 << 20), None, asyncio.get_running_loop())
    made = SpanMetrics(clock, 1 << 20)
    made.attach(store)
    for number in range(5):
        await store.append(traces(10, seed=number, time_ns=clock.now))
        clock.now += STEP_NS
    return store, made


def total(made: SpanMetrics, at_ms: int) -> float:
    """How many spans had been counted by then."""
    found = made.series().select(deadline(), TOTAL, 0, at_ms)
    return float(sum(one.values[-1] for one in found if len(one.values)))


async def test_nothing_is_held_until_it_is_asked() -> None:
    clock = Stopped()
    store, made = await filled(clock)
    made.tick()
    assert made.nbytes == 0
    assert made.stats()["series"] == {"calls": 0, "edges": 0}
    assert total(made, 2**62) == 50
    assert made.nbytes > 0
    await store.append(traces(10, seed=9, time_ns=clock.now))
    clock.now += STEP_NS
    made.tick()
    assert total(made, 2**62) == 60


async def test_what_the_ring_holds_is_counted_at_its_time() -> None:
    clock = Stopped()
    start = clock.now
    _, made = await filled(clock)
    counted = [total(made, (start + number * STEP_NS) // 10**6 + 1000) for number in range(5)]
    assert counted == sorted(counted)
    assert counted[0] < counted[2] < counted[4]


async def test_only_the_newest_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "HELD_MAX", 15)
    _, made = await filled(Stopped())
    assert total(made, 2**62) == 15


async def test_what_is_evicted_is_not_counted() -> None:
    _, made = await filled(Stopped(), capacity=25)
    assert total(made, 2**62) == 25


async def test_what_was_there_before_is_not_counted() -> None:
    clock = Stopped()
    store, _ = await filled(clock)
    later = SpanMetrics(clock, 1 << 20)
    later.attach(store)
    await store.append(traces(10, seed=9, time_ns=clock.now))
    assert total(later, 2**62) == 10


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("traces_spanmetrics_calls_total", True),
        ('sum by (client) (rate(traces_service_graph_request_total{client="a"}[5m]))', True),
        ('{client="a"}', True),
        ('up or {client="a"}', True),
        ('up OR{client="a"}', True),
        ('{__name__=~".+"}', True),
        ('{"\\x74races_service_graph_request_total"}', True),
        ('{__name__!="up", job="x"}', True),
        ('max_over_time((-{__name__=~"traces_service.*_count"})[5m:1m])', True),
        ("topk(scalar(traces_spanmetrics_latency_sum), up)", True),
        ('{__name__=~"up|down"}', False),
        ('up{a="{traces_spanmetrics_calls_total"}', False),
        ("traces_of_others", False),
        ("1 + 1", False),
        ("up", False),
        ('rate(http_requests_total{code="500"}[5m]) / rate(http_requests_total{}[5m])', False),
    ],
)
def test_only_queries_that_can_be_about_them_ask(query: str, expected: bool) -> None:
    assert asks(parse(query)) is expected


class Held:
    """A committer that keeps a commit under way."""

    def __init__(self) -> None:
        self.commit = asyncio.get_running_loop().create_future()

    def submit(self, commit: Commit) -> None:
        """Keep it."""
        self.commit.set_result(commit)


async def test_what_is_being_made_durable_is_counted_once() -> None:
    clock = Stopped()
    store, made = await filled(clock)
    committer = Held()
    store.attach(committer)
    answer = store.append(traces(10, seed=9, time_ns=clock.now))
    commit = await committer.commit
    assert total(made, 2**62) == 60
    store.committed(commit, commit.block.base_offset)
    await answer
    assert total(made, 2**62) == 60
