"""`/api/delete`: what may be asked, and what happens to queries around it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from collector.errors import QueryLimit
from collector.otlp.signals import LOGS, TRACES
from collector.query import deleting
from collector.query.deleting import Deleting, Deletion
from collector.testing import otlp
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
        ({"query": "{}", "signal": "metrics"}, "traces or logs"),
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
