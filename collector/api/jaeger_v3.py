"""Jaeger's HTTP API, version 3, under /jaeger: traces as OTLP/JSON, as the newest Jaeger UI asks for them.

Parameters may be named as in the protocol buffers (`query.service_name`) or as in their JSON (`query.serviceName`); times
are RFC 3339. Errors are `{"error": {"httpCode", "message"}}`. Unlike Jaeger, a search needs no time range. A span whose
parent is not held carries the attribute `@jaeger@warnings`, which is where Jaeger itself puts warnings.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry.proto.trace.v1 import trace_pb2
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from collector.api.jaeger_parameters import LIMIT_DEFAULT, LIMIT_MAX, duration, given, instant, tags, trace_id, whole
from collector.api.partial import not_found
from collector.api.status import http_code
from collector.errors import InvalidQuery, Overloaded, RingtailError, Unavailable
from collector.otlp.json.write import to_json
from collector.otlp.records import Ref, regroup
from collector.otlp.signals import TRACES
from collector.query.completeness import Completeness, completeness, hex_of
from collector.query.jaeger.search import Search
from collector.query.jaeger.summaries import summary
from collector.query.slices import END_OF_TIME
from collector.query.trace import within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from collector.api.jaeger_traces import Traces
    from collector.query.deadline import Deadline

WARNINGS = "@jaeger@warnings"
"""The attribute that holds warnings about a span."""

Json = dict[str, Any]


def routes(traces: Traces) -> list[BaseRoute]:
    """Return version 3's routes."""
    api = _Jaeger(traces)
    paths: list[tuple[str, Callable[[Request], Awaitable[Json]]]] = [
        ("/jaeger/api/v3/services", api.services),
        ("/jaeger/api/v3/operations", api.operations),
        ("/jaeger/api/v3/traces", api.search),
        ("/jaeger/api/v3/traces/{id}", api.trace),
        ("/jaeger/api/v3/trace-summaries", api.summaries),
    ]
    return [Route(path, _answering(handler)) for path, handler in paths]


def _answering(handler: Callable[[Request], Awaitable[Json]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn what a handler returns into JSON, and causes into Jaeger's error object."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        headers, code = {}, 200
        try:
            body = await handler(request)
        except RingtailError as error:
            code = http_code(error)
            body = {"error": {"httpCode": code, "message": str(error)}}
            if isinstance(error, Overloaded | Unavailable):
                headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
        return Response(msgspec.json.encode(body), code, headers, media_type="application/json")

    return answer


class _Jaeger:
    def __init__(self, traces: Traces) -> None:
        self._traces = traces

    async def services(self, request: Request) -> Json:
        return {"services": await self._traces.services()}

    async def operations(self, request: Request) -> Json:
        service = request.query_params.get("service", "")
        if not service:
            raise InvalidQuery("parameter service is required")
        found = await self._traces.operations(service, given(request.query_params, "span_kind"))
        return {"operations": [{"name": one.name, "spanKind": one.kind or "internal"} for one in found]}

    async def trace(self, request: Request) -> Json:
        start, end = _range(request.query_params, "start_time", "end_time")
        shape = functools.partial(_resource_spans, start_ns=start, end_ns=end)
        made = await self._traces.by_id(trace_id(request.path_params["id"], "trace_id"), shape)
        return _result([made] if made else [])

    async def search(self, request: Request) -> Json:
        return _result(await self._traces.found(_search(request.query_params), _resource_spans))

    async def summaries(self, request: Request) -> Json:
        found = await self._traces.found(_search(request.query_params), _summary, whole=False)
        return {"summaries": found}


def _result(traces: list[bytes]) -> Json:
    if not traces:
        raise not_found("No traces found")
    return {"result": {"resourceSpans": msgspec.Raw(b"[" + b",".join(traces) + b"]")}}


def _range(parameters: QueryParams, first: str, last: str) -> tuple[int, int]:
    """Return a range of times in Unix ns, inclusive; everything by default."""
    start, end = given(parameters, first), given(parameters, last)
    found = (instant(start, first) if start else 0, instant(end, last) if end else END_OF_TIME)
    if found[1] < found[0]:
        raise InvalidQuery(f"malformed parameter {last}: it lies before {first}")
    return found


def _search(parameters: QueryParams) -> Search:
    start, end = _range(parameters, "query.start_time_min", "query.start_time_max")
    depth = given(parameters, "query.search_depth") or given(parameters, "query.num_traces")
    search = Search(
        given(parameters, "query.service_name"),
        given(parameters, "query.operation_name"),
        tags(parameters.getlist("query.attributes"), name="query.attributes"),
        start,
        end,
        duration(given(parameters, "query.duration_min"), "query.duration_min", 0),
        duration(given(parameters, "query.duration_max"), "query.duration_max", END_OF_TIME),
        whole(depth, "query.search_depth", LIMIT_DEFAULT, 1, LIMIT_MAX),
    )
    if search.max_duration_ns < search.min_duration_ns:
        raise InvalidQuery("malformed parameter query.duration_max: it is less than query.duration_min")
    return search


def _resource_spans(
    deadline: Deadline,
    refs: list[Ref],
    first_offset: int,
    left_out: int,
    start_ns: int = 0,
    end_ns: int = END_OF_TIME,
) -> bytes:
    """Return a trace's elements of `resourceSpans` as OTLP/JSON; empty when none of it lies in the range."""
    known = completeness(refs, first_offset, left_out)
    payload = regroup(within(refs, start_ns, end_ns))
    if payload and known.missing:
        payload = _with_warnings(payload, known)
    deadline.check()
    return to_json(TRACES, payload).removeprefix(b'{"resourceSpans":[').removesuffix(b"]}") if payload else b""


def _with_warnings(payload: bytes, known: Completeness) -> bytes:
    """Return a trace whose spans say that their parents are not held, and the first one what was left out."""
    absent = {hex_of(word) for word in known.parents.tolist()}
    data = trace_pb2.TracesData.FromString(payload)
    for envelope in data.resource_spans:
        for scope in envelope.scope_spans:
            for span in scope.spans:
                parent = span.parent_span_id.hex()
                if parent in absent:
                    _warn(span, f"the parent span {parent} is not held: {known.cause}")
    if known.left_out:
        _warn(data.resource_spans[0].scope_spans[0].spans[0], known.message)
    return data.SerializeToString()


def _warn(span: trace_pb2.Span, text: str) -> None:
    span.attributes.add(key=WARNINGS).value.array_value.values.add(string_value=text)


def _summary(deadline: Deadline, refs: list[Ref], first_offset: int, left_out: int) -> Json:
    deadline.check()
    found = summary(refs)
    return {
        "traceId": refs[0].block.column("trace_id")[refs[0].row].tobytes().hex(),
        "rootServiceName": found.root_service,
        "rootOperationName": found.root_operation,
        "minStartTimeUnixNano": str(found.start),
        "maxEndTimeUnixNano": str(found.end),
        "spanCount": found.spans + left_out,
        "errorSpanCount": found.errors,
        "services": [
            {"name": name, "spanCount": spans, "errorSpanCount": errors}
            for name, (spans, errors) in sorted(found.services.items())
        ],
    }
