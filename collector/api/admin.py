"""What operators ask: is it alive, is it ready, what does it hold, and its own metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from collector.errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

    from collector.query.spanmetrics.demand import SpanMetrics
    from collector.store import Store


def statistics(stores: Mapping[str, Store], spans: SpanMetrics | None = None) -> dict[str, Any]:
    """Return the parts of `/api/stats` that are about the signals, and about span metrics if there are any; bytes are
    sums of real buffer sizes."""
    found: dict[str, Any] = {"signals": {name: store.stats() for name, store in stores.items()}}
    if spans is not None:
        found["spanmetrics"] = spans.stats()
    return found


def routes(
    stores: Mapping[str, Store],
    registry: CollectorRegistry,
    not_ready: Callable[[], list[str]],
    memory: Callable[[], dict[str, int]],
    reload: Callable[[], dict[str, list[str]]],
    listeners: Callable[[], dict[str, Any]],
    spans: SpanMetrics | None,
    exporters: Callable[[], dict[str, Any]],
    troubles: Callable[[], list[str]],
) -> list[BaseRoute]:
    """Return the operators' routes. `not_ready` tells why no traffic should come, in a line each, `troubles` what else is
    wrong; `memory`, `listeners` and `exporters` give their parts of `/api/stats`, and so do the span metrics; `reload`
    reads the configuration again, and returns what that did."""

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        reasons = not_ready()
        if reasons:
            return PlainTextResponse("".join(f"not ready: {reason}\n" for reason in reasons), 503)
        return PlainTextResponse("".join(["ready\n", *(f"{trouble}\n" for trouble in troubles())]))

    async def stats(request: Request) -> Response:
        found = statistics(stores, spans) | {"memory": memory(), "listeners": listeners(), "exporters": exporters()}
        return Response(msgspec.json.encode(found), media_type="application/json")

    async def metrics(request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(registry), headers={"Content-Type": content_type})

    async def reloaded(request: Request) -> Response:
        try:
            body: Any = {"status": "success", "data": reload()}
        except InvalidConfig as error:
            body = {"status": "error", "errorType": "bad_data", "error": "; ".join(error.problems)}
        code = 200 if body["status"] == "success" else 400
        return Response(msgspec.json.encode(body), code, media_type="application/json")

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/api/stats", stats),
        Route("/metrics", metrics),
        Route("/-/reload", reloaded, methods=["POST", "PUT"]),
    ]
