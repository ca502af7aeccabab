"""Live tails, without a transport: what is told, in what order, and what is said of the rest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from collector.errors import InvalidQuery, Overloaded, Unavailable
from collector.otlp.records import Ref, regroup
from collector.otlp.signals import LOGS, SIGNALS
from collector.query import tail as tailing
from collector.query.deadline import Deadline
from collector.query.slices import Slice
from collector.query.tail import REMOVED, SLOW, STUCK, TOO_LARGE, Matches, Missed, Tail
from collector.query.tail_filters import lines, signal_of, spans
from collector.query.tail_scan import Scan
from collector.store import View
from collector.testing import otlp
from tests.live import Live, numbers_of


def as_it_is(signal: object, refs: Sequence[Ref], deadline: object) -> bytes:
    return regroup(refs)


def opened(live: Live, query: str = "", past: int = 0, offset: int | None = None, signal: str = "traces") -> Tail:
    return live.tails.open(live.stores[signal], query, past, offset, as_it_is, live.engine)


async def told(tail: Tail, until: int) -> list[Any]:
    """Everything until the tail stands at an offset."""
    found: list[Any] = []
    async with asyncio.timeout(5):
        while tail.position < until:
            found += await tail.next(5.0)
    return found


def numbers(found: list[Any]) -> list[int]:
    return [number for one in found if isinstance(one, Matches) for number in numbers_of(one.data)]


async def test_the_newest_of_the_past_then_what_arrives(tmp_path: Path) -> None:
    async with Live(tmp_path, capacity=20) as live:
        for _ in range(10):
            await live.send(10)
        tail = opened(live, '{ name = "even" }', past=15)
        found, since = await tail.past()
        assert numbers(found) == list(range(70, 100, 2)), "oldest first, from ring and log"
        assert since == 70
        assert [one.offset for one in found] == [99]
        await live.send(4)
        assert numbers(await told(tail, 104)) == [100, 102]
        tail.close()


async def test_a_past_with_fewer_matches_has_looked_at_everything(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.send(10)
        tail = opened(live, "{ .number = 3 }", past=5)
        found, since = await tail.past()
        assert (numbers(found), since) == ([3], 0)
        assert await tail.next(0.0) == []
        tail.close()


@pytest.mark.parametrize("offset", [0, 1, 37, 99, 100, 10**9])
async def test_from_an_offset(tmp_path: Path, offset: int) -> None:
    async with Live(tmp_path, capacity=30) as live:
        for _ in range(10):
            await live.send(10)
        tail = opened(live, "", past=5, offset=offset)
        assert await tail.past() == ([], min(offset, 100)), "who resumes has had the past"
        await live.send(3)
        assert numbers(await told(tail, 103)) == list(range(min(offset, 100), 103))
        tail.close()


async def test_much_is_told_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "TOLD_BYTES", 2000)
    monkeypatch.setattr(tailing, "PACE_S", 0.0)
    async with Live(tmp_path) as live:
        tail = opened(live)
        await live.send(100)
        found = await told(tail, 100)
        assert numbers(found) == list(range(100))
        assert len(found) == 4
        assert max(len(one.data) for one in found) < 2100
        assert [one.offset for one in found] == sorted({one.offset for one in found})
        tail.close()


async def test_what_is_too_large_is_told_as_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "TOLD_BYTES", 2000)
    async with Live(tmp_path) as live:
        tail = opened(live)
        await live.send(2)
        await live.send(1, padding=5000)
        await live.send(1)
        found = await told(tail, 4)
        assert numbers(found) == [0, 1, 3]
        assert [one for one in found if isinstance(one, Missed)] == [Missed(TOO_LARGE, 2, 3, 1)]
        tail.close()


async def test_who_was_level_and_falls_behind_is_told_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "BEHIND_MAX", 50)
    monkeypatch.setattr(tailing, "BEHIND_S", 0.0)
    async with Live(tmp_path, capacity=20) as live:
        tail = opened(live, '{ name = "odd" }')
        await live.send(10)
        assert numbers(await told(tail, 10)) == [1, 3, 5, 7, 9]
        for _ in range(6):
            await live.send(10)
        assert await told(tail, 70) == [Missed(SLOW, 10, 70, 30)]
        await live.send(2)
        assert numbers(await told(tail, 72)) == [71]
        assert live.metric("ringtail_tail_missed_records_total", signal="traces") == 60
        resumed = opened(live, '{ name = "odd" }', offset=5)
        assert numbers(await told(resumed, 72)) == list(range(5, 72, 2)), "who resumes is not hurried"
        for one in (tail, resumed):
            one.close()


async def test_what_retention_has_removed_is_told(tmp_path: Path) -> None:
    async with Live(tmp_path, capacity=10, segment_bytes=1 << 16) as live:
        tail = opened(live, offset=0)
        log = live.store.log
        assert log is not None
        log.retain(1 << 16, None)
        for _ in range(300):
            await live.send(10, padding=100)
        found = await told(tail, 3000)
        assert isinstance(found[0], Missed)
        gone = [one for one in found if isinstance(one, Missed)]
        assert [(one.reason, one.matches) for one in gone] == [(REMOVED, None)] * len(gone)
        lost = [number for one in gone for number in range(one.first_offset, one.next_offset)]
        assert len(lost) > 100
        assert sorted(lost + numbers(found)) == list(range(3000)), "what is not told is said to be missed"
        tail.close()


async def test_concurrent_writers_and_any_number_of_resumptions_leave_no_gap(tmp_path: Path) -> None:
    async with Live(tmp_path, capacity=50) as live:

        async def write() -> None:
            for count in (1, 7, 1, 30, 2, 1, 64, 3) * 3:
                await live.send(count)

        writers = [asyncio.ensure_future(write()) for _ in range(3)]
        seen: list[int] = []
        position: int | None = 0
        while not all(one.done() for one in writers) or position != live.store.ring.next_offset:
            tail = opened(live, "", offset=position)
            found = await tail.next(0.2)
            seen += numbers(found)
            position = found[-1].offset + 1 if found else tail.position
            tail.close()
        total = 3 * 3 * 109
        assert len(seen) == total
        assert sorted(seen) == list(range(total)), "each once"
        assert live.tails.held_bytes == 0


async def test_log_records(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.stores["logs"].append(otlp.logs(50))
        tail = opened(live, '{service_name="checkout"} |= "order"', past=1000, signal="logs")
        found, _ = await tail.past()
        [one] = found
        data = LOGS.request_type.FromString(one.data)
        bodies = [r.body.string_value for e in data.resource_logs for s in e.scope_logs for r in s.log_records]
        assert bodies
        assert all("order" in body for body in bodies)
        assert len(bodies) == one.records < 50
        everything = opened(live, "", past=1000, signal="logs")
        [one], _ = await everything.past()
        assert one.records == 50
        for each in (tail, everything):
            each.close()


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("{ rootName = `x` }", "trace:rootName"),
        ("{ traceDuration > 1s }", "trace:duration"),
        ("{ .a = 1 } >> { .b = 2 }", ">>"),
        ("{ .a = 1 } && { .b = 2 }", "&&"),
        ("{ .a = 1 } | count() > 2", "count"),
        ("{ .a = 1 } | rate()", "rate"),
        ("{ parent.a = 1 }", "parent"),
        ("{ nestedSetLeft > 1 }", "nestedSetLeft"),
        ("{ childCount > 1 }", "childCount"),
    ],
)
def test_what_needs_more_than_the_span_is_refused_by_name(query: str, name: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        spans(query)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "query", ["", "{}", "{ trace:id = `ab` }", "{ span.a = 1 && resource.b != nil || !(.c = true) }"]
)
def test_what_a_span_tells_by_itself(query: str) -> None:
    spans(query)


def test_what_is_no_tail_of_logs() -> None:
    with pytest.raises(InvalidQuery, match="query of metrics"):
        lines('rate({a="b"}[1m])')
    assert [signal_of(one.name) for one in SIGNALS[:2]] == list(SIGNALS[:2])
    for name in ("metrics", "x" * 1000):
        with pytest.raises(InvalidQuery, match="traces or logs"):
            signal_of(name)


async def test_there_are_so_many_and_each_is_given_back(tmp_path: Path) -> None:
    async with Live(tmp_path, tails_max=2) as live:
        tails = [opened(live) for _ in range(2)]
        with pytest.raises(Overloaded, match=r"query\.max_tails"):
            opened(live)
        with pytest.raises(InvalidQuery):
            opened(live, "{")
        tails[0].close(STUCK)
        tails[0].close()
        opened(live).close()
        assert live.metric("ringtail_tails") == 1
        assert live.metric("ringtail_tails_ended_total", reason="stuck") == 1
        assert live.metric("ringtail_tails_ended_total", reason="closed") == 1
        assert len(live.store._subscribers) == 1
        tails[1].close()
        assert live.store._subscribers == ()


async def test_no_tenant_takes_all(tmp_path: Path) -> None:
    async with Live(tmp_path, tails_max=6) as live:
        live.tails._apart = True
        taken = [opened(live) for _ in range(4)]
        with pytest.raises(Overloaded):
            opened(live)
        taken.append(opened(live, signal="logs"))
        for one in taken:
            one.close()


async def test_the_budget_is_kept(tmp_path: Path) -> None:
    """A reader that has not taken what it was given keeps others from looking, when there is no room for more."""
    async with Live(tmp_path) as live:
        live.tails.bytes_max = tailing.ROOM_BYTES
        slow, other = opened(live), opened(live)
        await live.send(10)
        [held] = await slow.next(5.0)
        assert live.tails.held_bytes == len(held.data)
        waiting = asyncio.ensure_future(other.next(5.0))
        await asyncio.sleep(0)
        assert not waiting.done()
        slow.took()
        assert numbers(await waiting) == list(range(10))
        other.close()
        slow.close()
        assert live.tails.held_bytes == 0


async def test_a_tail_that_is_given_up_half_way_holds_nothing(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        tail = opened(live)
        looking, go_on = threading.Event(), threading.Event()

        def match(piece: Slice, view: View, deadline: Deadline) -> Any:
            looking.set()
            assert go_on.wait(20)
            return piece.rows

        tail._match = Scan().follow("", match)
        waiting = asyncio.ensure_future(tail.next(5.0))
        await live.send(5)
        await live.until(looking.is_set)
        assert live.tails.held_bytes == tailing.ROOM_BYTES
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        tail.close()
        go_on.set()
        assert live.tails.held_bytes == 0


async def test_all_end_when_the_daemon_stops(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        tail = opened(live)
        waiting = asyncio.ensure_future(tail.next(60.0))
        await asyncio.sleep(0)
        live.tails.stop()
        with pytest.raises(Unavailable, match="shutting down"):
            await waiting
        with pytest.raises(Unavailable):
            opened(live)
        tail.close()
