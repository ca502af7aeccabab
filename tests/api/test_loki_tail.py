"""`/loki/api/v1/tail` as a WebSocket, by a real client: lines, what comes late or is missed, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from collector.api import loki_tail, standing, websocket
from collector.api.access import AccessControl
from collector.api.server import ApiServer
from collector.errors import Forbidden
from collector.otlp.signals import LOGS
from collector.query import tail as tailing
from collector.security.hosts import HostGuard
from tests.live import PATIENCE_S, Live

SECOND = 1_000_000_000
CATEGORIZE = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}


def request(lines: list[tuple[int, str]], service: str = "shop") -> bytes:
    """A request of lines at these times."""
    resource = {"attributes": [{"key": "service.name", "value": {"string_value": service}}]}
    records = [{"time_unix_nano": time, "body": {"string_value": line}, "severity_number": 9} for time, line in lines]
    message = LOGS.request_type(resource_logs=[{"resource": resource, "scope_logs": [{"log_records": records}]}])
    return bytes(message.SerializeToString())


@asynccontextmanager
async def tailed(live: Live, headers: dict[str, str] | None = None, **query: Any) -> AsyncIterator[ClientConnection]:
    url = f"ws://127.0.0.1:{live.port}/loki/api/v1/tail?{urlencode(query)}"
    async with connect(url, additional_headers=headers, proxy=None, close_timeout=0.1) as socket:
        yield socket


async def frame(socket: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return json.loads(await socket.recv())


def lines_of(found: Any) -> list[str]:
    return [line for stream in found["streams"] for _, line, *_ in stream["values"]]


async def test_past_then_live_in_lokis_shape(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        now = live.clock.now_ns()
        old = now - 7200 * SECOND
        await live.stores["logs"].append(
            request([(old, "old"), (now - 2, "one a"), (now - 1, "two b"), (now, "three a")])
        )
        async with tailed(live, query='{service_name="shop"} |= "a"') as socket:
            assert await frame(socket) == {
                "streams": [
                    {
                        "stream": {"service_name": "shop", "severity_number": "9", "detected_level": "info"},
                        "values": [[str(now - 2), "one a"], [str(now), "three a"]],
                    }
                ],
                "dropped_entries": [],
            }
            await live.stores["logs"].append(request([(now + 2, "later a"), (now + 1, "sooner a"), (now + 3, "no")]))
            assert [stream["values"] for stream in (await frame(socket))["streams"]] == [
                [[str(now + 1), "sooner a"], [str(now + 2), "later a"]]
            ]


async def test_start_limit_and_categorized_labels(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        await live.stores["logs"].append(request([(SECOND * n, f"line {n}") for n in range(1, 6)]))
        query = {"query": '{service_name="shop"} | drop severity_number', "start": SECOND * 2, "limit": 3}
        async with tailed(live, CATEGORIZE, **query) as socket:
            found = await frame(socket)
            assert found["encodingFlags"] == ["categorize-labels"]
            [stream] = found["streams"]
            assert stream["stream"] == {"service_name": "shop"}
            metadata = {"structuredMetadata": {"detected_level": "info"}}
            assert stream["values"] == [[str(SECOND * n), f"line {n}", metadata] for n in (3, 4, 5)]


async def test_frames_have_a_hundred_lines_at_most(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        async with tailed(live, query='{service_name="shop"}') as socket:
            now = live.clock.now_ns()
            await live.stores["logs"].append(request([(now + n, f"line {n}") for n in range(250)]))
            frames = [await frame(socket) for _ in range(3)]
            assert [len(lines_of(one)) for one in frames] == [100, 100, 50]
            assert [line for one in frames for line in lines_of(one)] == [f"line {n}" for n in range(250)]


async def test_a_delayed_tail_puts_late_lines_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "PACE_S", 0.0)
    async with Live(tmp_path) as live:
        await live.listen()
        async with tailed(live, query='{service_name="shop"}', delay_for=1) as socket:
            began, now = live.clock.monotonic(), live.clock.now_ns()
            await live.stores["logs"].append(request([(now + 2, "second")]))
            await live.stores["logs"].append(request([(now + 1, "first")]))
            seen: list[str] = []
            while len(seen) < 2:
                seen += lines_of(await frame(socket))
            assert live.clock.monotonic() >= began + 1.0
            assert sorted(seen) == ["first", "second"]


async def test_a_slow_reader_hears_what_it_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "BEHIND_MAX", 50)
    monkeypatch.setattr(tailing, "BEHIND_S", 0.0)
    monkeypatch.setattr(tailing, "PACE_S", 0.0)
    async with Live(tmp_path, capacity=500) as live:
        await live.listen()
        async with tailed(live, query='{service_name="shop"} |= "even"') as socket:
            socket.transport.pause_reading()  # type: ignore[attr-defined]
            now = live.clock.now_ns()
            told = 0
            while live.metric("ringtail_tail_missed_records_total", signal="logs") == 0:
                batch = [(now, f"{'even' if n % 2 == 0 else 'odd'} {'x' * 2000}") for n in range(200)]
                await live.stores["logs"].append(request(batch))
                told += 200
                assert told < 100_000
            socket.transport.resume_reading()  # type: ignore[attr-defined]
            missed: dict[str, str] = {}
            while not missed:
                for entry in (await frame(socket))["dropped_entries"]:
                    missed = entry["labels"]
            assert missed["reason"] == "slow"
            records = int(missed["next_offset"]) - int(missed["first_offset"])
            assert int(missed["records"]) == records
            assert 0 < int(missed["matches"]) <= records


async def test_one_that_never_reads_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loki_tail, "STUCK_S", 0.2)
    async with Live(tmp_path) as live:
        await live.listen()
        async with tailed(live, query='{service_name="shop"}') as socket:
            socket.transport.pause_reading()  # type: ignore[attr-defined]
            now = live.clock.now_ns()
            while live.metric("ringtail_tails_ended_total", reason="stuck") == 0:
                await live.stores["logs"].append(request([(now, "x" * 100_000) for _ in range(20)]))
                await asyncio.sleep(0)
            assert live.metric("ringtail_tail_held_bytes") == 0
            assert live.metric("ringtail_tails") == 0


async def test_a_client_that_leaves_ends_its_tail_and_what_it_says_is_not_read(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        async with tailed(live, query='{service_name="shop"}') as socket:
            await live.until(lambda: live.metric("ringtail_tails") == 1)
            for _ in range(3):
                await socket.send("hello?")
        await live.until(lambda: live.metric("ringtail_tails") == 0)
        assert live.metric("ringtail_tails_ended_total", reason="closed") == 1
        async with tailed(live, query='{service_name="shop"}') as socket:
            await socket.send("x" * (websocket.MESSAGE_BYTES_MAX + 1))
            with pytest.raises(ConnectionClosed) as closed:
                await frame(socket)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        await live.until(lambda: live.metric("ringtail_tails") == 0)


async def test_the_daemon_stops(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        async with tailed(live, query='{service_name="shop"}') as socket:
            await live.until(lambda: live.metric("ringtail_tails") == 1)
            live.tails.stop()
            with pytest.raises(ConnectionClosed) as closed:
                await frame(socket)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the daemon is shutting down")
        assert live.metric("ringtail_tails_ended_total", reason="stopped") == 1


class Gate:
    """Lets everybody in until `shut`."""

    shut = False

    def admit(self, authorization: bytes, peer: frozenset[str], right: int, tenant: str) -> None:
        if self.shut:
            raise Forbidden("the token was revoked")


async def test_one_whose_right_is_revoked_hears_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loki_tail, "CHECK_S", 0.01)
    monkeypatch.setattr(standing, "CHECK_S", 0.01)
    gate: Any = Gate()
    async with Live(tmp_path) as live:
        guarded = AccessControl(live.app, gate, HostGuard((), "api.allowed_hosts", is_local=True))
        live.api = ApiServer(guarded)
        await live.listen()
        async with tailed(live, query='{service_name="shop"}') as socket:
            await live.until(lambda: live.metric("ringtail_tails") == 1)
            gate.shut = True
            with pytest.raises(ConnectionClosed) as closed:
                await frame(socket)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the token was revoked")
        await live.until(lambda: live.metric("ringtail_tails_ended_total", reason="revoked") == 1)
        with pytest.raises(InvalidStatus) as refused:
            async with tailed(live, query='{service_name="shop"}'):
                pass
        assert refused.value.response.status_code == 403
        gate.shut = False
        with pytest.raises(InvalidStatus) as refused:
            async with tailed(live, {"Origin": "https://evil.example"}, query='{service_name="shop"}'):
                pass
        assert refused.value.response.status_code == 421


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ({}, 400, "parse error"),
        ({"query": 'count_over_time({a="b"}[5m])'}, 400, "query of metrics"),
        ({"query": '{a="b"}', "delay_for": 6}, 400, "delay_for can't be greater than 5"),
        ({"query": '{a="b"}', "delay_for": "x"}, 400, "delay_for"),
        ({"query": '{a="b"}', "limit": 0}, 400, "limit must be"),
        ({"query": '{a="b"}', "start": "x"}, 400, "start"),
    ],
)
async def test_refused_before_it_opens(tmp_path: Path, query: dict[str, Any], code: int, words: str) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        with pytest.raises(InvalidStatus) as refused:
            async with tailed(live, **query):
                pass
        assert refused.value.response.status_code == code
        assert words in refused.value.response.body.decode()


async def test_other_sockets_are_not_there(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws://127.0.0.1:{live.port}/loki/api/v1/tails", proxy=None):
                pass
        assert refused.value.response.status_code == 404


async def test_too_many(tmp_path: Path) -> None:
    async with Live(tmp_path, tails_max=1) as live:
        await live.listen()
        async with tailed(live, query='{a="b"}'):
            with pytest.raises(InvalidStatus) as refused:
                async with tailed(live, query='{a="b"}'):
                    pass
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"] == "5"


async def test_pings_find_out_who_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.api.server.PING_S", 0.02)
    monkeypatch.setattr("collector.api.server.PONG_S", 0.1)
    async with Live(tmp_path) as live:
        await live.listen()
        async with tailed(live, query='{a="b"}') as socket:
            await live.until(lambda: live.metric("ringtail_tails") == 1)
            socket.transport.pause_reading()  # type: ignore[attr-defined]
            await live.until(lambda: live.metric("ringtail_tails") == 0)


async def test_over_http_it_is_named(tmp_path: Path) -> None:
    from tests.api.asgi import call

    async with Live(tmp_path) as live:
        answer = await call(live.app, "/loki/api/v1/tail", {"query": '{a="b"}'})
        assert (answer.status, "WebSocket" in answer.text) == (400, True)
