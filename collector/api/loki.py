"""Loki's HTTP API under /loki/api/v1: what Grafana's Loki source asks, answered from the store of logs.

A request becomes a plan (`query/logql/plan.py`) in a worker thread, a view of the store on the event loop, and an
answer, serialized, in a worker thread again. Parameters are those of Loki (`loki_parameters.py`), answers have its
shapes (`loki_shapes.py`). Errors are answered as Loki does: the message as plain text; limits are the client's to
mind, so they are bad requests.

Line queries are over start <= time < end, metric queries at start, start + step, … up to end. Where Loki leaves a
choice, the answer is in one order: streams and series by their labels, lines by time and then by offset.

Left out: `interval` (Grafana does not send it), tail, push, volumes, patterns and detected fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from collector import __version__
from collector.api.loki_catalogue import Catalogue
from collector.api.loki_queries import Queries
from collector.api.status import http_code
from collector.errors import InvalidQuery, QueryLimit, QueryTimeout
from collector.otlp.signals import LOGS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from collector.query.engine import Engine
    from collector.store import Store

    Handler = Callable[[Request], Awaitable[bytes]]


def routes(stores: Mapping[str, Store], engine: Engine) -> list[BaseRoute]:
    """Return the routes, all for GET and POST, over the store of logs."""
    queries = Queries(stores[LOGS.name], engine)
    catalogue = Catalogue(stores[LOGS.name], engine)
    handlers: dict[str, Handler] = {
        "/query_range": queries.query_range,
        "/query": queries.query,
        "/labels": catalogue.labels,
        "/label": catalogue.labels,
        "/label/{name}/values": catalogue.label_values,
        "/series": catalogue.series,
        "/index/stats": catalogue.index_stats,
        "/status/buildinfo": buildinfo,
    }
    return [
        Route(f"/loki/api/v1{path}", _answering(handler), methods=["GET", "POST"]) for path, handler in handlers.items()
    ]


def _answering(
    handler: Handler,
) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint of a handler: its JSON, or the message of what is wrong with the query."""

    async def endpoint(request: Request) -> Response:
        try:
            return Response(await handler(request), media_type="application/json")
        except QueryLimit as error:
            return PlainTextResponse(str(error), http_code(InvalidQuery(str(error))))
        except (InvalidQuery, QueryTimeout) as error:
            return PlainTextResponse(str(error), http_code(error))

    return endpoint


async def buildinfo(request: Request) -> bytes:
    """Answer with Ringtail's version, in Loki's fields."""
    info = dict.fromkeys(("revision", "branch", "buildUser", "buildDate", "goVersion"), "")
    return msgspec.json.encode({"version": __version__} | info)
