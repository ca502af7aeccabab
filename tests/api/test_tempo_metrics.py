"""Tempo's API of metrics: the shapes that Grafana reads, times in every form, cursors, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette

from collector.api import tempo, tempo_metrics
from collector.api.limit import ResponseLimit
from collector.clock import SystemClock
from collector.otlp.signals import TRACES
from collector.query.engine import Engine
from collector.ring.ring import Ring
from collector.store import Store
from tests.api.asgi import Answer, call
from tests.ring.blocks import span_payload

S = 10**9


class Api:
    """The routes over eight traces of one span each, which start at 100 s, 101 s, …"""

    def __init__(self) -> None:
        self.store = Store(TRACES, Ring(TRACES, 100, 1 << 20), None, asyncio.get_running_loop())
        self.engine = Engine(1, 30.0, SystemClock())
        stores = {"traces": self.store}
        self.app = Starlette(
            routes=[*tempo.routes(stores, self.engine, ResponseLimit()), *tempo_metrics.routes(stores, self.engine)]
        )

    async def get(self, path: str, **query: Any) -> Answer:
        return await call(self.app, path, query, headers={})


@pytest.fixture
async def api() -> Any:
    made = Api()
    await made.store.append(span_payload([(n + 1, "ab"[n % 2], "get", (100 + n) * S) for n in range(8)]))
    yield made
    made.engine.close()


@pytest.mark.parametrize(
    ("start", "end"),
    [("100", "108"), ("100000000000", "108000000000"), ("1970-01-01T00:01:40Z", "1970-01-01T00:01:48+00:00")],
)
async def test_a_range_query(api: Api, start: str, end: str) -> None:
    query = '{ resource.service.name = "a" } | rate() by (resource.service.name)'
    answer = await api.get("/api/metrics/query_range", q=query, start=start, end=end, step="4s", exemplars=1)
    trace = (3).to_bytes(16, "big").hex()
    assert answer.json["series"] == [
        {
            "labels": [{"key": "resource.service.name", "value": {"stringValue": "a"}}],
            "samples": [{"timestampMs": "104000", "value": 0.5}, {"timestampMs": "108000", "value": 0.25}],
            "exemplars": [
                {
                    "labels": [
                        {"key": "trace:id", "value": {"stringValue": trace}},
                        {"key": "span:id", "value": {"stringValue": (3).to_bytes(8, "big").hex()}},
                    ],
                    "value": 0.5,
                    "timestampMs": "102000",
                }
            ],
        }
    ]
    assert answer.json["metrics"] == {"oldestOffset": "0", "oldestOffsetInMemory": "0", "nextOffset": "8"}


async def test_an_instant_query(api: Api) -> None:
    answer = await api.get("/api/metrics/query", q="{ } | count_over_time() by (name)", start=100, end=103)
    label = {"key": "name", "value": {"stringValue": "get"}}
    assert answer.json["series"] == [{"labels": [label], "value": 4.0}]
    quantile = await api.get("/api/metrics/query", q="{ } | quantile_over_time(duration, .5)", start=100, end=103)
    assert quantile.json["series"] == [{"labels": [{"key": "p", "value": {"doubleValue": 0.5}}], "value": 0.0}]


async def test_the_range_is_the_last_hour_when_none_is_given(api: Api) -> None:
    assert (await api.get("/api/metrics/query", q="{ } | rate()")).json["series"] == []
    wide = await api.get("/api/metrics/query", q="{ } | count_over_time()", since="876000h")
    assert [one["value"] for one in wide.json["series"]] == [8.0]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"q": "{ }"}, "this query yields spans, not series"),
        ({"q": "{ } | rate("}, "invalid TraceQL query"),
        ({"q": "{ } | rate()", "start": "x"}, "start must be in Unix seconds or RFC 3339, not 'x'"),
        ({"q": "{ } | rate()", "step": "0s"}, "step must be a duration of at least 1ms"),
        ({"q": "{ } | rate()", "start": "1", "end": "100000", "step": "1s"}, "11000 are the most"),
        ({"q": "{ } | rate()", "start": "2", "end": "1"}, "end lies before start"),
        ({"q": "{ } | rate()", "exemplars": "-1"}, "exemplars must be a whole number"),
    ],
)
async def test_mistakes_are_told(api: Api, query: dict[str, str], message: str) -> None:
    answer = await api.get("/api/metrics/query_range", **query)
    assert answer.status == 400
    assert message in answer.text


@pytest.mark.parametrize("query", ["{ }", "{ } | count() = 1"])
async def test_a_cursor_pages_through_what_was_there_at_first(api: Api, query: str) -> None:
    seen: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get("/api/search", q=query, limit=3, **cursor)).json
        seen += [int(one["traceID"], 16) for one in page["traces"]]
        if "nextCursor" not in page:
            break
        cursor = {"cursor": page["nextCursor"]}
        await api.store.append(span_payload([(len(seen), "a", "newer", 200 * S), (50 + len(seen), "a", "old", 50 * S)]))
    assert seen == [8, 7, 6, 5, 4, 3, 2, 1]
