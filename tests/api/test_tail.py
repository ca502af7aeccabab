"""`/api/tail` on a real socket: events, resumption, slow readers, and what is left when a client has gone."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from collector.api import tail as transport
from collector.otlp.signals import LOGS
from collector.query import tail as tailing
from collector.testing import otlp
from tests.api.asgi import call
from tests.live import Events, Live, numbers_of

EVEN = quote('{ name = "even" }')


async def numbers_until(events: Events, last: int) -> list[int]:
    """The numbers of spans up to and with the last."""
    seen: list[int] = []
    while last not in seen:
        event = await events.next()
        if event.name == "":
            seen += numbers_of(event.data)
    return seen


async def test_past_then_live_with_resources_and_scopes(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        await live.send(10)
        async with live.sse(f"q={EVEN}&limit=2") as events:
            assert events.status == 200
            assert events.headers["content-type"].startswith("text/event-stream")
            assert events.headers["cache-control"] == "no-store"
            assert await events.next() == ("start", "", {"signal": "traces", "offset": "10", "pastOffset": "6"})
            past = await events.next()
            assert (past.name, past.id, numbers_of(past.data)) == ("", "9", [6, 8])
            await live.send(3, service="other")
            event = await events.next()
            assert (event.id, numbers_of(event.data)) == ("12", [10, 12])
            [envelope] = event.data["resourceSpans"]
            assert envelope["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "other"}}]
            assert envelope["scopeSpans"][0]["scope"] == {"name": "scope 0"}
            assert envelope["scopeSpans"][0]["spans"][0]["traceId"] == "04" * 16


async def test_log_records_are_otlp_json(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        payload = otlp.logs(20)
        await live.stores["logs"].append(payload)
        async with live.sse("signal=logs&limit=1000") as events:
            assert (await events.next()).name == "start"
            event = await events.next()
            expected = json.loads(otlp.to_json(LOGS, payload))
            assert event.data == expected


async def test_a_heartbeat_moves_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that matches nothing does not make its client read everything again."""
    monkeypatch.setattr(transport, "HEARTBEAT_S", 0.05)
    async with Live(tmp_path) as live:
        await live.listen()
        async with live.sse(f"q={quote('{ .number = 7 }')}&limit=0") as events:
            await events.next()
            await live.send(5)
            while events.last_id != "4":
                block = await events._block()
                events.last_id = block.removeprefix("id: ") if block.startswith("id: ") else events.last_id


async def test_clients_that_are_cut_at_any_time_miss_nothing(tmp_path: Path) -> None:
    """Three writers, and a client that loses its connection again and again, with a ring that turns over."""
    chance = random.Random(7)
    async with Live(tmp_path, capacity=64) as live:
        await live.listen()

        async def write() -> None:
            for count in (1, 5, 40, 1, 1, 90, 3, 8) * 4:
                await live.send(count)
                await asyncio.sleep(0)

        writers = [asyncio.ensure_future(write()) for _ in range(3)]
        total, seen, last_id, connections = 3 * 4 * 149, [], "", 0
        while len(seen) < total:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            connections += 1
            async with live.sse("offset=0", headers) as events:
                for _ in range(chance.randint(1, 3)):
                    event = await events.next()
                    assert event.name in ("", "start")
                    if event.name == "":
                        seen += numbers_of(event.data)
                        last_id = event.id
                    if len(seen) >= total:
                        break
        await asyncio.gather(*writers)
        assert sorted(seen) == list(range(total)), "each once"
        assert connections > 3
        await live.until(lambda: live.metric("ringtail_tails") == 0)


async def test_a_slow_reader_holds_up_nothing_and_hears_how_many_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailing, "BEHIND_MAX", 50)
    monkeypatch.setattr(tailing, "BEHIND_S", 0.0)
    monkeypatch.setattr(tailing, "PACE_S", 0.0)
    async with Live(tmp_path, capacity=500) as live:
        await live.listen()
        async with live.sse(f"q={EVEN}&limit=0") as events:
            await events.next()
            total = 0
            while total < 2000:  # 20 MB of JSON, which no socket's buffers take
                await live.send(25, padding=20_000)
                total += 25
            assert live.tails.held_bytes <= 2 * tailing.ROOM_BYTES
            assert live.store.ring.next_offset == total, "everything was taken"
            seen, missed = [], 0
            position = 0
            while position < total:
                event = await events.next()
                if event.name == "missed":
                    assert event.data["reason"] == "slow"
                    assert event.data["firstOffset"] == str(position)
                    assert event.data["records"] == int(event.data["nextOffset"]) - position
                    missed += event.data["matches"]
                else:
                    seen += numbers_of(event.data)
                position = int(event.id) + 1
            assert missed > 0
            assert len(set(seen)) + missed == total // 2, "what is not told is counted"
        await live.until(lambda: live.metric("ringtail_tails") == 0)
        assert live.tails.held_bytes == 0


async def test_one_that_never_reads_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STUCK_S", 0.2)
    monkeypatch.setattr(tailing, "PACE_S", 0.0)
    async with Live(tmp_path) as live:
        await live.listen()
        async with live.sse("limit=0", limit=4096) as events:
            while not live.metric("ringtail_tails_ended_total", reason="stuck"):
                await live.send(25, padding=20_000)
            assert live.metric("ringtail_tails") == 0
            assert live.tails.held_bytes == 0
            assert live.store._subscribers == ()
            with pytest.raises((EOFError, ConnectionError)):
                while True:
                    await events.next()


async def test_a_client_that_leaves_is_forgotten_at_once(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        async with live.sse() as events:
            await events.next()
            assert live.metric("ringtail_tails") == 1
        await live.until(lambda: live.metric("ringtail_tails_ended_total", reason="closed") == 1)
        assert live.store._subscribers == ()


async def test_the_daemon_says_why_it_ends_a_tail(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        async with live.sse() as events:
            await events.next()
            live.tails.stop()
            assert await events.next() == ("end", "", {"error": "the daemon is shutting down"})
            with pytest.raises(EOFError):
                await events.next()
        await live.until(lambda: live.metric("ringtail_tails_ended_total", reason="stopped") == 1)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"q": "{ .a = 1 } >> { .b = 2 }"}, ">>"),
        ({"q": "{ .a ="}, "column"),
        ({"q": "{ .a = 1 } | count() > 1"}, "count"),
        ({"q": "{ rootName = `a` }"}, "trace:rootName is not known of a span by itself"),
        ({"signal": "metrics"}, "signal must be traces or logs"),
        ({"signal": "logs", "q": "rate({a=`b`}[1m])"}, "query of metrics"),
        ({"signal": "logs", "q": "{a="}, "line 1"),
        ({"limit": "1001"}, "limit must be a whole number up to 1000"),
        ({"limit": "-1"}, "limit"),
        ({"offset": "x"}, "offset"),
        ({"offset": "9" * 30}, "offset"),
    ],
)
async def test_what_cannot_be_tailed_is_answered_400(tmp_path: Path, query: dict[str, Any], says: str) -> None:
    async with Live(tmp_path) as live:
        answer = await call(live.app, "/api/tail", query)
        assert (answer.status, says in answer.text) == (400, True), answer.text
        assert live.metric("ringtail_tails") == 0


async def test_a_last_event_id_that_is_none(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        answer = await call(live.app, "/api/tail", {"offset": 1}, headers={"Last-Event-ID": "one"})
        assert (answer.status, "Last-Event-ID" in answer.text) == (400, True)


async def test_head_opens_no_tail(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        answer = await call(live.app, "/api/tail", method="HEAD")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert live.metric("ringtail_tails") == 0


async def test_one_too_many_is_told_to_come_again(tmp_path: Path) -> None:
    async with Live(tmp_path, tails_max=1) as live:
        await live.listen()
        async with live.sse(), live.sse() as second:
            assert second.status == 503
            assert second.headers["retry-after"] == "5"
            assert "query.max_tails" in await second.rest()
