"""The query APIs: any request gets an answer that is no 500.

An input is a target like `/api/search?q=…`, as it stands in a request line, and behind a line break the body of a POST.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import quote, unquote

import structlog
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from collector.api.app import create_app
from collector.otlp.signals import SIGNALS
from collector.query.engine import Engine
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.otlp import BUILDERS, TIME_NS
from tests.fuzz.target import Target
from tests.query.logql.logs import Stopped

_LOOP = asyncio.new_event_loop()
_SECONDS = TIME_NS // 10**9
REQUESTS = (
    "/api/search?q={.a=1}&limit=5&spss=2&start=1&end=2",
    f"/api/search?tags=service.name=checkout&minDuration=1ms&maxDuration=10s&start={_SECONDS - 60}&end={_SECONDS}",
    "/api/traces/0102030405060708090a0b0c0d0e0f10?start=1&end=9",
    "/api/v2/traces/1",
    "/api/search/tags?scope=span",
    "/api/v2/search/tags?scope=resource&limit=3",
    "/api/search/tag/service.name/values",
    "/api/v2/search/tag/resource.service.name/values?q={status=error}",
    f'/loki/api/v1/query_range?query={{service_name="checkout"}}&start={TIME_NS - 10**10}&end={TIME_NS}&limit=10&step=1s',
    "/loki/api/v1/query?query=vector(1)&time=1700000000.5&direction=forward",
    "/loki/api/v1/labels?since=1h",
    '/loki/api/v1/label/service_name/values?query={a="b"}',
    '/loki/api/v1/series\nmatch[]={service_name=~".+"}&start=0',
    '/loki/api/v1/index/stats?query={service_name="checkout"}',
    '/loki/api/v1/index/volume?query={service_name="checkout"}&limit=3&targetLabels=a',
    '/loki/api/v1/detected_labels?query={service_name="checkout"}',
    "/api/v1/query?query=up&time=2026-09-21T13:33:20Z&timeout=5s",
    f"/api/v1/query_range?query=1&start={_SECONDS - 60}&end={_SECONDS}&step=15s",
    "/api/v1/query\nquery=sum(rate(x[5m]))&time=1e9",
    "/api/v1/series?match[]=up&start=1&end=2&limit=1",
    "/api/v1/labels?match[]=up",
    "/api/v1/label/__name__/values?limit=4",
    "/api/v1/metadata?limit=2&metric=up",
    "/metrics/received?max_age=5m",
    "/metrics",
    "/api/stats",
    "/healthz",
    "/",
)
_WORDS = (
    b"&start=",
    b"&end=",
    b"&limit=",
    b"&step=",
    b"&query=",
    b"%00",
    b"%ed%a0%80",
    b"1e999",
    b"-1",
    b"nan",
    b"inf",
)
_WORDS += (b"9223372036854775808", b"99999999999999999999", b"0001-01-01T00:00:00Z", b"&match[]=", b"&time=", b"%2f..")


@cache
def _app() -> Starlette:
    stores: dict[str, Store] = {}
    for signal in SIGNALS:
        stores[signal.name] = store = Store(signal, Ring(signal, 1000, 1 << 22), None, _LOOP)
        _LOOP.run_until_complete(store.append(BUILDERS[signal](16)))
    engine = Engine(1, 0.5, Stopped(TIME_NS))
    return create_app(stores, engine, CollectorRegistry(), list, dict, dict, structlog.get_logger())


def _check(data: bytes) -> None:
    target, _, body = data.partition(b"\n")
    path, _, query = target.partition(b"?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST" if body else "GET",
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),  # as uvicorn reads it
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"content-type", b"application/x-www-form-urlencoded")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    incoming: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if incoming:
            return incoming.pop(0)
        return await asyncio.get_running_loop().create_future()  # the client stays

    async def send(message: Any) -> None:
        sent.append(message)

    app = _app()

    async def bounded() -> None:
        async with asyncio.timeout(5):
            await app(scope, receive, send)

    _LOOP.run_until_complete(bounded())
    assert sent[0]["status"] != 500
    for name, value in sent[0]["headers"]:
        assert not set(b"\r\n\0") & set(name + value)


def _seeds() -> Iterator[bytes]:
    for request in REQUESTS:
        target, newline, body = request.partition("\n")
        yield target.encode() + (newline + body).encode()
        yield quote(target, safe="/?&=").encode() + (newline + quote(body, safe="&=")).encode()


TARGETS = [Target("query-api", _check, _seeds, _WORDS, length_max=1024)]
