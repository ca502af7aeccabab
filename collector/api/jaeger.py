"""Jaeger's HTTP API, version 1, under /jaeger: as Grafana's Jaeger data source and Jaeger's own UI ask it.

The envelope is Jaeger's: `{"data", "total", "limit", "offset", "errors"}`; errors are `{"code", "msg"}` in it, beside
data when they concern a part of it. Times are µs, but ms in /api/dependencies. Without `start` and `end` a search
goes through everything held.

Its API of metrics is in jaeger_metrics.py.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from starlette.routing import BaseRoute, Route

from collector.api.jaeger_envelope import enveloped, failed
from collector.api.jaeger_parameters import LIMIT_DEFAULT, LIMIT_MAX, duration, tags, trace_id, whole
from collector.api.jaeger_traces import Traces
from collector.api.partial import not_found
from collector.errors import InvalidQuery, RingtailError, TooLarge
from collector.otlp.json.request import to_protobuf
from collector.otlp.records import Ref
from collector.otlp.scan import BlockBuilder
from collector.otlp.signals import TRACES
from collector.otlp.validate import accept
from collector.query.completeness import completeness
from collector.query.dependencies import dependencies
from collector.query.jaeger import model
from collector.query.jaeger.search import Search
from collector.query.slices import END_OF_TIME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from collector.query.deadline import Deadline
    from collector.query.jaeger.operations import Operation

TRANSFORM_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of OTLP/JSON that /api/transform takes."""
_LOOKBACK_MS = 24 * 3600 * 1000


def routes(traces: Traces) -> list[BaseRoute]:
    """Return version 1's routes."""
    api = _Jaeger(traces)
    paths: list[tuple[str, Callable[[Request], Awaitable[Any]], list[str]]] = [
        ("/jaeger/api/services", api.services, ["GET"]),
        ("/jaeger/api/services/{service:path}/operations", api.operation_names, ["GET"]),
        ("/jaeger/api/operations", api.operations, ["GET"]),
        ("/jaeger/api/traces", api.search, ["GET"]),
        ("/jaeger/api/traces/{id}", api.trace, ["GET"]),
        ("/jaeger/api/dependencies", api.dependencies, ["GET"]),
        ("/jaeger/api/transform", api.transform, ["POST"]),
    ]
    return [Route(path, _answering(handler), methods=methods) for path, handler, methods in paths]


def _answering(handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """Wrap what a handler returns, or what it raises, into Jaeger's envelope."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return enveloped(await handler(request))
        except RingtailError as error:
            return failed(error)

    return answer


class _Jaeger:
    def __init__(self, traces: Traces) -> None:
        self._traces = traces

    async def services(self, request: Request) -> Any:
        return await self._traces.services()

    async def operation_names(self, request: Request) -> Any:
        found = await self._traces.operations(request.path_params["service"], "")
        return sorted({one.name for one in found})

    async def operations(self, request: Request) -> Any:
        service = request.query_params.get("service", "")
        if not service:
            raise InvalidQuery("parameter 'service' is required")
        found = await self._traces.operations(service, request.query_params.get("spanKind", ""))
        return [_operation(one) for one in found]

    async def search(self, request: Request) -> Any:
        parameters = request.query_params
        ids = [trace_id(text, "traceID") for text in parameters.getlist("traceID")]
        if len(ids) > LIMIT_MAX:
            raise InvalidQuery(f"parameter 'traceID' is given more than {LIMIT_MAX} times")
        if ids:
            return await self._traces.by_ids(ids, _as_json)
        search = Search(
            parameters.get("service", ""),
            parameters.get("operation", ""),
            tags(parameters.getlist("tags"), parameters.getlist("tag")),
            whole(parameters.get("start", ""), "start", 0) * 1000,
            min(whole(parameters.get("end", ""), "end", END_OF_TIME // 1000) * 1000 + 999, END_OF_TIME),
            duration(parameters.get("minDuration", ""), "minDuration", 0),
            duration(parameters.get("maxDuration", ""), "maxDuration", END_OF_TIME),
            whole(parameters.get("limit", ""), "limit", LIMIT_DEFAULT, 1, LIMIT_MAX),
        )
        if not search.service:
            raise InvalidQuery("parameter 'service' is required")
        if search.max_duration_ns < search.min_duration_ns:
            raise InvalidQuery("'maxDuration' should be greater than 'minDuration'")
        return await self._traces.found(search, _as_json)

    async def trace(self, request: Request) -> Any:
        made = await self._traces.by_id(trace_id(request.path_params["id"], "traceID"), _as_json)
        if made is None:
            raise not_found("trace not found")
        return [made]

    async def dependencies(self, request: Request) -> Any:
        now = self._traces.now_ns() // 10**6
        end = whole(request.query_params.get("endTs", ""), "endTs", now)
        lookback = whole(request.query_params.get("lookback", ""), "lookback", _LOOKBACK_MS)
        start = max(0, end - lookback)
        found = await self._traces.read(
            dependencies, min(start * 10**6, END_OF_TIME), min(end * 10**6 + 999_999, END_OF_TIME)
        )
        return [
            {"parent": one.parent or model.NO_SERVICE, "child": one.child or model.NO_SERVICE, "callCount": one.calls}
            for one in found
        ]

    async def transform(self, request: Request) -> Any:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > TRANSFORM_BYTES_MAX:
                raise TooLarge(f"the body is larger than {TRANSFORM_BYTES_MAX} bytes")
        return await self._traces.compute(_transformed, body)


def _operation(one: Operation) -> dict[str, str]:
    return {"name": one.name, "spanKind": one.kind}


def _as_json(deadline: Deadline, refs: list[Ref], first_offset: int, left_out: int) -> Any:
    return model.trace(deadline, refs, completeness(refs, first_offset, left_out))


def _transformed(deadline: Deadline, body: bytearray) -> list[Any]:
    """Return the traces in OTLP/JSON, as if they had been received; raise Malformed when it is none."""
    builder = BlockBuilder(TRACES)
    accept(builder, to_protobuf(TRACES, body))
    if not builder.records:
        return []
    block = builder.build(0)
    traces: dict[bytes, list[Ref]] = {}
    for row, time in enumerate(block.column("time").tolist()):
        traces.setdefault(block.column("trace_id")[row].tobytes(), []).append(Ref(time, row, block, row))
    return [_as_json(deadline, refs, 0, 0) for refs in traces.values()]
