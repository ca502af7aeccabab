"""The query API as one ASGI application: every API's routes, and a last word for errors that none of them shaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router

from collector.api import (
    admin,
    delete,
    explain,
    jaeger,
    jaeger_metrics,
    jaeger_v3,
    loki,
    loki_push,
    loki_tail,
    prometheus,
    received,
    related,
    spanmetrics,
    tail,
    tempo,
    tempo_metrics,
)
from collector.api.jaeger_traces import Traces
from collector.api.limit import LimitedResponses, ResponseLimit
from collector.api.partial import PartialAnswers
from collector.api.status import http_code
from collector.errors import Overloaded, RingtailError, Unavailable
from collector.otlp.signals import SIGNALS
from collector.query.deleting import Deleting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from collector.api.loki_push import PushDoor
    from collector.query.engine import Engine
    from collector.query.spanmetrics.demand import SpanMetrics
    from collector.query.tails import Tails
    from collector.store import Store

INDEX = """Ringtail answers here.

Tempo       /api/search?q={...}   /api/v2/traces/<id>   /api/metrics/query_range?q={...}|rate()
Jaeger      /jaeger/api/traces?service=...   /jaeger/api/v3/traces/<id>
Loki        /loki/api/v1/query_range?query={...}   /loki/api/v1/push
Prometheus  /api/v1/query?query=...
Live        /api/tail?q={...}
Together    /api/related?trace_id=<id>
How         /api/explain?q=...&language=logql
Delete      POST /api/delete?trace_id=<id>   DELETE /api/traces/<id>
Operations  /metrics  /metrics/received  /metrics/spans  /api/stats  /healthz  /readyz  /-/reload

OTLP is received on other ports: 4317 for gRPC and 4318 for HTTP, unless configured otherwise.
"""

_OTLP_PATHS: Final = frozenset(one.http_path for one in SIGNALS)


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 404, to WebSockets too: Starlette would close those as forbidden."""
    if scope["type"] == "websocket":
        await PlainTextResponse(f"{scope['path']}: Not Found\n", 404)(scope, receive, send)
    else:
        raise HTTPException(404)


class KnownRoutes(Router):
    """Finds a route again by its path alone, for paths without parameters: there are some seventy to be tried else."""

    def __init__(self, router: Router) -> None:
        """Take over the routes of a router."""
        super().__init__(router.routes, redirect_slashes=False, default=_nowhere)
        self._known: dict[tuple[str, str], Route] = {}

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await super().app(scope, receive, send)
            return
        key = scope["method"], scope["path"]
        route = self._known.get(key)
        if route is None:
            await super().app(scope, receive, send)
            found = scope.get("route")
            if isinstance(found, Route) and not found.param_convertors and scope["method"] in (found.methods or ()):
                self._known[key] = found
            return
        scope.update(router=self, route=route, endpoint=route.endpoint, path_params={})
        await route.handle(scope, receive, send)


def create_app(
    stores: Mapping[str, Store],
    engine: Engine,
    registry: CollectorRegistry,
    not_ready: Callable[[], list[str]],
    memory: Callable[[], dict[str, int]],
    reload: Callable[[], dict[str, list[str]]],
    logger: Any,
    listeners: Callable[[], dict[str, Any]] = dict,
    limit: ResponseLimit | None = None,
    tails: Tails | None = None,
    spans: SpanMetrics | None = None,
    pushes: PushDoor | None = None,
    exporters: Callable[[], dict[str, Any]] = dict,
    troubles: Callable[[], list[str]] = list,
    deleting: Deleting | None = None,
) -> Starlette:
    """Build the application over the three stores; `listeners` and `exporters` give their parts of `/api/stats`, `troubles`
    what `/readyz` tells although all is well with the daemon; `deleting` deletes (None: by what there is here); `limit` is how large answers may be (None: as large as by
    default). Without `tails` there is no live tail, without `spans` there are no metrics made of spans, without `pushes`
    nothing is received."""
    limit = limit or ResponseLimit()

    async def index(request: Request) -> Response:
        return PlainTextResponse(INDEX)

    async def on_cause(request: Request, error: Exception) -> Response:
        assert isinstance(error, RingtailError)
        headers = {}
        if isinstance(error, Overloaded | Unavailable):
            headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
        return PlainTextResponse(f"{error}\n", http_code(error), headers)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.scope["path"]
        hint = "; OTLP is received on another port, 4318 unless configured otherwise" if path in _OTLP_PATHS else ""
        return PlainTextResponse(f"{path}: {error.detail}{hint}\n", error.status_code, error.headers)

    async def on_defect(request: Request, error: Exception) -> Response:
        logger.error("query failed", path=request.scope["path"], error=repr(error))
        return PlainTextResponse("internal error; the daemon's log has it\n", 500)

    async def on_gone(request: Request, error: Exception) -> Response:
        return PlainTextResponse("", 400)  # To nobody: the client went, or was cut, before its request was whole.

    traces = Traces(stores["traces"], engine, limit)
    more = (lambda: [spans.series()]) if spans is not None else tuple
    app = Starlette(
        routes=[
            *admin.routes(stores, registry, not_ready, memory, reload, listeners, spans, exporters, troubles),
            *tempo.routes(stores, engine, limit),
            *tempo_metrics.routes(stores, engine),
            *loki.routes(stores, engine),
            *prometheus.routes(stores, engine, more),
            *explain.routes(stores, engine, limit, more),
            *received.routes(stores, engine),
            *related.routes(stores, engine),
            *delete.routes(deleting or Deleting(stores, engine, logger), engine.clock),
            *(tail.routes(stores, engine, tails) if tails is not None else ()),
            *(loki_tail.routes(stores["logs"], engine, tails) if tails is not None else ()),
            *(loki_push.routes(pushes) if pushes is not None else ()),
            *spanmetrics.routes(engine, spans),
            *jaeger_v3.routes(traces),
            *jaeger.routes(traces),
            *jaeger_metrics.routes(stores["metrics"], engine, spans),
        ],
        exception_handlers={
            RingtailError: on_cause,
            HTTPException: on_http,
            ClientDisconnect: on_gone,
            Exception: on_defect,
        },
        middleware=[Middleware(PartialAnswers), Middleware(LimitedResponses, limit)],
    )
    app.add_route("/", index)
    app.router = KnownRoutes(app.router)  # without redirects: Starlette reads the query as UTF-8 for them
    return app
