"""`/api/delete`: what may be asked, and what happens to queries around it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from collector.errors import QueryLimit
from collector.otlp.block import Block
from collector.otlp.signals import LOGS, TRACES
from collector.query import deleting
from collector.query.deleting import Deleting, Deletion
from collector.testing import otlp
from collector.wal import deletions
from tests.api.asgi import Answer, call
from tests.live import Live

TRACE = "05" * 16


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with Live(tmp_path) as made:
        yield made


async def ask(live: Live, **asked: Any) -> Answer:
    pairs = [(name, one) for name, some in asked.items() for one in (some if isinstance(some, list) else [some])]
    return await call(live.app, "/api/delete", pairs, method="POST")


async def test_what_may_be_asked(live: Live) -> None:
    for asked, said in (
        ({}, "either trace ids or a query"),
        ({"trace_id": TRACE, "query": "{}"}, "either"),
        ({"trace_id": "xyz"}, "no trace id"),
        ({"trace_id": "0"}, "no trace id"),
        ({"trace_id": TRACE, "start": "1"}, "deleted whole"),
        ({"query": "{}", "signal": "profiles"}, "traces, logs, metrics"),
        ({"query": "{} | rate()"}, "single spans"),
        ({"query": '{a="b"}', "signal": "logs", "dry_run": "maybe"}, "true or false"),
        ({"query": 'rate({a="b"}[1m])', "signal": "logs"}, "log lines"),
        ({"trace_id": [f"{number + 1:x}" for number in range(1001)]}, "at once"),
    ):
        answer = await ask(live, **asked)
        assert (answer.status, said in answer.text) == (400, True), (asked, answer.text)
    assert (await call(live.app, "/api/delete")).status == 405
    assert (await call(live.app, "/api/traces/zz", method="DELETE")).status == 400


async def test_times_signals_and_traces_of_a_query(live: Live) -> None:
    await live.send(70)
    one = {"query": "{ span.number < 14 }", "start": str(10**18 + 5), "end": str(10**18 + 9)}
    assert (await ask(live, **one, dry_run="1")).json["deleted"] == {"traces": 5}
    assert (await ask(live, **one)).json == {"deleted": {"traces": 5}, "backends": [], "dry_run": False}
    assert (await ask(live, **one)).json["deleted"] == {"traces": 0}
    found = await ask(live, query="{ span.number = 2 }", whole_traces="true")
    assert found.json["deleted"] == {"traces": 9, "logs": 0}, "every seventh; one was deleted before"
    store = live.stores["traces"]
    with store.view() as view:
        assert view.memo is None
        left = sum(block.count for block in view.ring.blocks)
    assert left == 70 - 14
    assert store.stats()["deleted"]["records"] == 14
    store.ring.check()


async def test_too_much_at_once(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.send(40)
    monkeypatch.setattr(deleting, "RECORDS_MAX", 20)
    monkeypatch.setattr(deleting, "TRACES_MAX", 3)
    one = Deleting(live.stores, live.engine, structlog.get_logger())
    for wanted in (Deletion(query="{}"), Deletion(query="{}", whole_traces=True)):
        with pytest.raises(QueryLimit):
            await one.run(wanted)
    assert store_records(live) == 40


async def test_backends_without_keys_are_told_what_they_know_records_by(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of single records that a query matches, and so many only that they can be kept."""
    await live.send(40)

    def identify(block: Block, rows: Any) -> list[bytes]:
        return [block.column("span_id")[row].tobytes() for row in rows]

    one = Deleting(live.stores, live.engine, structlog.get_logger(), lambda _: {"a": identify, "b": lambda _, __: None})
    pending = live.stores["traces"].deletions
    await one.run(Deletion(query="{ span.number < 3 }", dry_run=True))
    await one.run(Deletion(query="{ span.number < 3 }"))
    assert [(known.backends, list(known.identities)) for known in pending.pending] == [(["a", "b"], ["a"])]
    assert len(set(pending.pending[0].identities["a"])) == 3
    monkeypatch.setattr(deleting, "IDENTITIES_MAX", 5)
    with pytest.raises(QueryLimit, match="backends without keys"):
        await one.run(Deletion(query="{}"))
    monkeypatch.setattr(deletions, "IDENTITIES_MAX", 5)
    with pytest.raises(QueryLimit, match="beside 3 that wait"):
        await one.run(Deletion(query="{ span.number < 6 }"))
    assert store_records(live) == 37
    await one.run(Deletion(query="{ span.number = 5 }", whole_traces=True))
    pending.passed_on(1, "a")
    assert [known.identities for known in pending.pending] == [{}, {}]


def store_records(live: Live) -> int:
    with live.stores["traces"].view() as view:
        return sum(block.count for block in view.ring.blocks)


async def test_every_record_is_found_by_its_trace(live: Live) -> None:
    """Of many traces at once, in small and large blocks, against the columns."""
    chance = random.Random(3)
    for seed in range(5):
        for signal in (TRACES, LOGS):
            await live.stores[signal.name].append(otlp.BUILDERS[signal](chance.randrange(1, 60), seed=seed))
    expected, ids = {}, set[bytes]()
    for name in ("traces", "logs"):
        with live.stores[name].view() as view:
            held = [
                (block.base_offset + row, block.column("trace_id")[row].tobytes())
                for block in view.ring.blocks
                for row in range(block.count)
            ]
        ids |= set(chance.sample(sorted({one for _, one in held if any(one)}), 5))
        expected[name] = held
    done = await ask(live, trace_id=[one.hex() for one in ids])
    for name, held in expected.items():
        gone = {offset for offset, one in held if one in ids}
        assert done.json["deleted"][name] == len(gone) > 0
        hidden = live.stores[name].deletions.hidden
        assert {at for first, end in hidden.ranges() for at in range(first, end)} == gone


async def test_data_points_by_a_selector(live: Live) -> None:
    store = live.stores["metrics"]
    for number in range(3):
        await store.append(otlp.metrics(10, time_ns=otlp.TIME_NS + number * 10**9))
    total = "http_server_active_requests_total"
    one = {"signal": "metrics", "query": total, "start": str(otlp.TIME_NS + 10**9)}
    series = {"query": f"count_over_time({total}[1m])", "time": str(otlp.TIME_NS // 10**9 + 5)}

    async def counted() -> list[str]:
        found = (await call(live.app, "/api/v1/query", list(series.items()))).json
        return [each["value"][1] for each in found["data"]["result"]]

    assert await counted() == ["3", "3"]
    assert (await ask(live, **one, dry_run="true")).json["deleted"] == {"metrics": 4}
    assert (await ask(live, **one)).json == {"deleted": {"metrics": 4}, "backends": [], "dry_run": False}
    assert await counted() == ["1", "1"]
    assert (await ask(live, **one)).json["deleted"] == {"metrics": 0}
    assert (await ask(live, signal="metrics", query="rpc_client_duration_milliseconds_count")).json["deleted"] == {
        "metrics": 6
    }
    names = (await call(live.app, "/api/v1/label/__name__/values")).json["data"]
    assert total in names
    assert not [name for name in names if name.startswith("rpc_")]
    store.ring.check()
    for asked, said in (
        ({"signal": "metrics", "query": f"rate({total}[1m])"}, "a series selector"),
        ({"signal": "metrics", "query": total, "whole_traces": "1"}, "no trace"),
        ({"signal": "metrics", "trace_id": TRACE}, "no trace"),
    ):
        answer = await ask(live, **asked)
        assert (answer.status, said in answer.text) == (400, True), (asked, answer.text)
