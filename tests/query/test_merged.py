"""Queries answer the same whether a ring has merged its blocks or not: every route, over requests of one record each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collector.api.app import create_app
from collector.clock import SystemClock
from collector.otlp.scan import scan
from collector.otlp.signals import SIGNALS
from collector.query import match
from collector.query.engine import Engine
from collector.ring.blocks import Limits
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.otlp import BUILDERS, TIME_NS
from tests.api.asgi import Answer, call

SERVICES = ("checkout", "cart", "catalogue")
END = TIME_NS // 10**9 + 1
SPAN = {"start": END - 600, "end": END}
TRACEQL = ["{}", '{ resource.service.name = "cart" }', "{ duration > 1ms && status = error }", '{ name =~ "GET.*" }']
LOGQL = ['{service_name=~".+"}', '{service_name="cart"} |= "order"', '{service_name=~"c.*"} | severity_text="WARN"']
LOGQL_METRICS = [
    'sum by (service_name) (count_over_time({service_name=~".+"}[1m]))',
    'sum by (detected_level) (rate({service_name=~".+"}[1m]))',
]
PROMQL = ['{__name__=~".+"}', '{job=~".*cart"}', "target_info", 'rate({__name__=~".+_total"}[5m])', "nothing_there"]
ROUTES: list[tuple[str, dict[str, Any]]] = [
    *(("/api/search", {"q": query, "limit": 50, **SPAN}) for query in TRACEQL),
    ("/api/v2/search/tags", {}),
    ("/api/v2/search/tag/resource.service.name/values", {}),
    ("/api/v2/search/tag/name/values", {}),
    *(("/loki/api/v1/query_range", {"query": query, "limit": 1000, **SPAN}) for query in LOGQL),
    *(("/loki/api/v1/query_range", {"query": query, "step": 10, **SPAN}) for query in LOGQL_METRICS),
    ("/loki/api/v1/labels", SPAN),
    ("/loki/api/v1/series", {"match[]": "{}", **SPAN}),
    ("/loki/api/v1/label/service_name/values", SPAN),
    *(("/api/v1/query_range", {"query": query, "step": 15, **SPAN}) for query in PROMQL),
    ("/api/v1/series", {"match[]": '{__name__=~".+"}', **SPAN}),
    ("/api/v1/labels", SPAN),
    ("/api/v1/metadata", {}),
]


class Fixed(SystemClock):
    """Now is the end of what was sent."""

    def now_ns(self) -> int:
        return END * 10**9


@pytest.fixture
async def apps() -> AsyncIterator[tuple[Any, Any]]:
    """Two applications over the same records: with merged blocks, and with a block for each request."""
    made = []
    engine = Engine(1, 60.0, Fixed())
    for merging in (None, Limits(0, 0, 0, 0)):
        stores = {}
        for signal in SIGNALS:
            ring = Ring(signal, 20_000, 1 << 27, merging=merging)
            for i in range(150):
                count = 1 if i % 10 else 3
                seed, service = i % 60, SERVICES[i % 3]
                payload = BUILDERS[signal](count, seed=seed, service=service, time_ns=TIME_NS - i * 10**9)
                ring.append(scan(signal, payload, ring.next_offset))
            count = len(ring.snapshot().blocks)
            assert count < 60 if merging is None else count == 150
            stores[signal.name] = Store(signal, ring, None, asyncio.get_running_loop())
        made.append(create_app(stores, engine, CollectorRegistry(), list, dict, dict, None))
    yield made[0], made[1]
    engine.close()


def without_statistics(answer: Answer) -> Any:
    """The answer, less what says how it was found."""
    body = json.loads(answer.body)
    if isinstance(body.get("data"), dict):
        body["data"].pop("stats", None)
    return body


async def test_answers_are_the_same(apps: tuple[Any, Any]) -> None:
    for path, query in ROUTES:
        merged, apart = [await call(app, path, query) for app in apps]
        assert merged.status == apart.status == 200, merged.text
        assert without_statistics(merged) == without_statistics(apart), (path, query)
        is_empty = any(empty in merged.text for empty in ('"result":[]', '"traces":[]', '"data":[]', '"tagValues":[]'))
        assert is_empty == (query.get("query") == "nothing_there"), (path, query, merged.text)


async def test_received_metrics_are_the_same(apps: tuple[Any, Any]) -> None:
    merged, apart = [await call(app, "/metrics/received") for app in apps]
    assert merged.body == apart.body
    assert merged.body.count(b"\n") > 100


_TEXTS = st.lists(st.tuples(st.sampled_from(["", "a", "ab", "b"]), st.sampled_from(["", "x", "y"])), max_size=30)


@given(texts=_TEXTS)
def test_distinct_tells_rows_by_their_bytes(texts: list[tuple[str, str]]) -> None:
    payload = "".join(first + second for first, second in texts).encode()
    lengths = np.array([[len(first), len(second)] for first, second in texts], np.uint32).reshape(-1, 2)
    ends = np.cumsum(lengths.reshape(-1)).reshape(-1, 2)
    starts = (ends - lengths).astype(np.uint32)
    codes, firsts = match.distinct(payload, (starts[:, 0], lengths[:, 0]), (starts[:, 1], lengths[:, 1]))
    distinct = list(dict.fromkeys(texts))
    assert codes.tolist() == [distinct.index(text) for text in texts]
    assert firsts.tolist() == [texts.index(text) for text in distinct]
