"""Loki's HTTP API under /loki/api/v1: what Grafana's Loki source asks, answered from the store of logs.

A request becomes a plan (`query/logql/plan.py`) in a worker thread, a view of the store on the event loop, and an
answer, serialized, in a worker thread again. Parameters are those of Loki (`loki_parameters.py`), answers have its
shapes (`loki_shapes.py`). Errors are answered as Loki does: the message as plain text; limits are the client's to
mind, so they are bad requests.

Answers say what they lack, in `warnings`, where it is known that records cannot be read, or a limit ended the search.

Line queries are over start <= time < end, metric queries at start, start + step, … up to end. Where Loki leaves a
choice, the answer is in one order: streams and series by their labels, lines by time and then by offset.

Beside this there are `loki_tail.py` and `loki_push.py`. Left out: Loki's rules, deletes and the older paths under
/api/prom.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from collector import __version__
from collector.api.loki_catalogue import Catalogue
from collector.api.loki_fields import Fields
from collector.api.loki_parameters import ENTRIES_MAX, Parameters
from collector.api.loki_queries import Queries
from collector.api.status import http_code
from collector.errors import InvalidQuery, QueryLimit, QueryTimeout
from collector.otlp.signals import LOGS
from collector.query.logql import volumes
from collector.query.logql.labels import INDEX_ATTRIBUTES
from collector.query.logql.levels import LEVEL_LABELS
from collector.query.logql.metrics import SERIES_MAX
from collector.query.logql.parser import parse
from collector.receivers.loki import DISCOVERED

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
    fields = Fields(stores[LOGS.name], engine)
    handlers: dict[str, Handler] = {
        "/query_range": queries.query_range,
        "/query": queries.query,
        "/labels": catalogue.labels,
        "/label": catalogue.labels,
        "/label/{name}/values": catalogue.label_values,
        "/series": catalogue.series,
        "/index/stats": catalogue.index_stats,
        "/index/volume": catalogue.volume,
        "/index/volume_range": catalogue.volume_range,
        "/detected_fields": fields.detected_fields,
        "/detected_field/{name}/values": fields.detected_field_values,
        "/detected_labels": fields.detected_labels,
        "/patterns": fields.patterns,
        "/drilldown-limits": limits,
        "/status/buildinfo": buildinfo,
    }
    made = {path: _answering(handler) for path, handler in handlers.items()} | {
        "/format_query": partial(format_query, engine)
    }
    return [Route(f"/loki/api/v1{path}", endpoint, methods=["GET", "POST"]) for path, endpoint in made.items()]


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


async def format_query(engine: Engine, request: Request) -> Response:
    """Answer with a query as it is usually written, or with what is wrong with it, in Loki's own shape."""
    asked = await Parameters.of(request, engine.clock.now_ns())
    try:
        text = await engine.run(lambda deadline: str(parse(asked.text("query"))))
        body, code = {"status": "success", "data": text}, 200
    except InvalidQuery as error:
        body, code = {"status": "invalid-query", "error": str(error)}, http_code(error)
    return Response(msgspec.json.encode(body), code, media_type="application/json")


async def limits(request: Request) -> bytes:
    """Answer with the limits that Logs Drilldown looks at, in Loki's names; `0s` is none."""
    return msgspec.json.encode(
        {
            "limits": {
                "discover_log_levels": True,
                "discover_service_name": list(DISCOVERED),
                "log_level_fields": list(LEVEL_LABELS),
                "max_entries_limit_per_query": ENTRIES_MAX,
                "max_line_size_truncate": False,
                "max_query_bytes_read": "0B",
                "max_query_length": "0s",
                "max_query_lookback": "0s",
                "max_query_range": "0s",
                "max_query_series": SERIES_MAX,
                "metric_aggregation_enabled": False,
                "otlp_config": {"resource_attributes": {"attributes_config": [_OTLP_LABELS]}},
                "pattern_persistence_enabled": False,
                "retention_period": "0s",
                "volume_enabled": True,
                "volume_max_series": volumes.SERIES_MAX,
            },
            "pattern_ingester_enabled": True,
            "version": __version__,
        }
    )


_OTLP_LABELS = {"action": "index_label", "attributes": sorted(INDEX_ATTRIBUTES)}
