"""Tempo's API: search and traces, as Grafana's Tempo data source asks for them.

Shapes are Tempo 3's. JSON of traces is what Tempo writes: protobuf's JSON mapping, ids in base64; with `Accept:
application/protobuf` a trace is the stored bytes themselves, since tempopb.Trace is OTLP's TracesData.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from collector import __version__
from collector.api.partial import lacking, not_found, partial_metrics
from collector.api.status import http_code
from collector.errors import InvalidQuery, Overloaded, RingtailError, Unavailable
from collector.otlp.json.write import to_json
from collector.otlp.records import regroup, tagged
from collector.otlp.signals import TRACES
from collector.query.completeness import completeness
from collector.query.slices import END_OF_TIME
from collector.query.trace import spans_of, within
from collector.query.traceql import tags
from collector.query.traceql.asking import trace_id_bytes
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import spansets_only
from collector.query.traceql.search import Search, Summary, describe, find

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from collector.api.limit import ResponseLimit
    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.query.trace import Held
    from collector.query.traceql.search import Effort, Found, Value
    from collector.store import Store, View

LIMIT_DEFAULT, LIMIT_MAX = 20, 10_000
"""Traces in a search's answer."""
SPANS_DEFAULT, SPANS_MAX = 3, 1000
"""Spans of each trace in a search's answer (`spss`)."""
UNREADABLE_MAX = 20
"""Ranges of the log that an answer names as unreadable."""

_CURSOR = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}\.-?[0-9]{1,20}")
_DIGITS_MAX = 18
"""Digits of a number in a request."""
NO_ROOT = "<root span not yet received>"
PROTOBUF, JSON = "application/protobuf", "application/json"


def routes(stores: Mapping[str, Store], engine: Engine, limit: ResponseLimit) -> list[BaseRoute]:
    """Return Tempo's routes over the store of traces. `limit` is for traces of which JSON is made."""
    api = _Tempo(stores["traces"], engine, limit)
    paths: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
        ("/api/echo", api.echo),
        ("/api/status/buildinfo", api.build_info),
        ("/api/traces/{id}", api.trace),
        ("/api/v2/traces/{id}", api.trace_v2),
        ("/api/search", api.search),
        ("/api/search/tags", api.tag_names),
        ("/api/v2/search/tags", api.tag_names_v2),
        ("/api/search/tag/{tag:path}/values", api.tag_values),
        ("/api/v2/search/tag/{tag:path}/values", api.tag_values_v2),
    ]
    return [Route(path, answering(handler)) for path, handler in paths]


def answering(
    handler: Callable[[Request], Awaitable[Response]], language: str = "TraceQL "
) -> Callable[[Request], Awaitable[Response]]:
    """Turn causes into Tempo's error answers: a status code and a line of text, in which queries are of a `language`."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except RingtailError as error:
            text = str(error)
            if isinstance(error, InvalidQuery):
                where = f" at column {error.position + 1}" if error.position is not None else ""
                text = f"invalid {language}query: {text}{where}" if where else text
            headers = {}
            if isinstance(error, Overloaded | Unavailable):
                headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
            return PlainTextResponse(text, http_code(error), headers)

    return answer


def json_response(value: Any) -> Response:
    """Answer with JSON."""
    return Response(msgspec.json.encode(value), media_type=JSON)


def number_of(request: Request, name: str, default: int, low: int, high: int) -> int:
    """Read a whole number of the request. Raises InvalidQuery outside of the bounds."""
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > _DIGITS_MAX or not low <= int(text) <= high:
        raise InvalidQuery(f"{name} must be a whole number from {low} to {high}, not {text[:50]!r}")
    return int(text)


def _range(request: Request) -> tuple[int, int]:
    """Return start and end in ns, inclusive; given in Unix seconds, as Grafana sends them."""
    if not request.scope["query_string"]:
        return 0, END_OF_TIME
    found = []
    for name, default in (("start", 0), ("end", 0)):
        text = request.query_params.get(name, "")
        try:
            found.append(int(float(text) * 10**9) if text else default)
        except (ValueError, OverflowError) as error:
            raise InvalidQuery(f"{name} must be in Unix seconds, not {text[:50]!r}") from error
    start, end = found
    if end and end < start:
        raise InvalidQuery("end lies before start")
    return min(max(0, start), END_OF_TIME), min(end, END_OF_TIME) if end > 0 else END_OF_TIME


def cursor_of(request: Request) -> tuple[int | None, tuple[int, int] | None]:
    """Return where a search goes on: before which offset, and behind which place. None at its beginning."""
    text = request.query_params.get("cursor", "")
    if not text:
        return None, None
    if not _CURSOR.fullmatch(text):
        raise InvalidQuery(f"cursor is a nextCursor of an answer before, not {text[:80]!r}")
    pinned, time, offset = map(int, text.split("."))
    return pinned, (time, offset)


def covered(view: View, *others: View) -> dict[str, Any]:
    """Say what an answer covers, in offsets: of the log, of the ring, and what of the log cannot be read; and what one of
    its views could not read from a backend."""
    metrics: dict[str, Any] = {
        "oldestOffset": str(view.first_offset),
        "oldestOffsetInMemory": str(view.ring_offset),
        "nextOffset": str(view.next_offset),
    }
    damaged = view.log.damaged if view.log is not None else []
    if damaged:
        metrics["unreadable"] = [
            {"firstOffset": str(one.first_offset), "endOffset": str(one.end_offset)} for one in damaged[:UNREADABLE_MAX]
        ]
        metrics["partial"] = True
    if reasons := lacking(view, *others):
        metrics |= {"partial": True, "message": "; ".join(reasons)}
    return metrics


AT_HAND_SPANS: Final = 64
AT_HAND_BYTES: Final = 64 * 1024
"""Spans of a trace in the ring, and their bytes, that are answered on the event loop, in 0.1 ms or so."""


class _Tempo:
    def __init__(self, store: Store, engine: Engine, limit: ResponseLimit) -> None:
        self._store = store
        self._engine = engine
        self._limit = limit

    async def echo(self, request: Request) -> Response:
        return PlainTextResponse("echo")

    async def build_info(self, request: Request) -> Response:
        return json_response({"version": __version__, "revision": "", "branch": "", "buildUser": "", "goVersion": ""})

    # --- one trace ----------------------------------------------------------------------------------------

    async def _load(self, request: Request, json: Callable[[bytes, str], bytes]) -> tuple[bytes, str]:
        """Return a trace as its request wants it, protobuf or what `json` makes of it, and what is known to be missing.

        Raises NotFound when nothing of it is held.
        """
        text = request.path_params["id"]
        trace = trace_id_bytes(text)
        if trace is None:
            raise InvalidQuery(f"a trace id has up to 32 hex digits, unlike {text[:50]!r}")
        start, end = _range(request)
        shape = json if not _wants_protobuf(request) else None
        with self._store.view("trace_id", trace) as view:
            if _is_at_hand(view):
                held = self._engine.at_once(spans_of, view)
                asked = held, view, start, end, self._limit, shape
                is_small = sum(ref.block.records.number("length", ref.row) for ref in held.refs) <= AT_HAND_BYTES
                body, missing = _shaped(*asked) if is_small else await self._engine.run(_large, *asked)
            else:
                body, missing = await self._engine.run(_trace, view, start, end, self._limit, shape)
        if not body:
            raise not_found(f"trace {trace.hex()} not found")
        return body, missing

    async def trace(self, request: Request) -> Response:
        body, _ = await self._load(request, _batches)
        return Response(body, media_type=PROTOBUF if _wants_protobuf(request) else JSON)

    async def trace_v2(self, request: Request) -> Response:
        body, missing = await self._load(request, _trace_v2)
        if not _wants_protobuf(request):
            return Response(body, media_type=JSON)
        # TraceByIDResponse: trace 1, metrics 2, status 3 (1 is partial), message 4
        body = tagged(1, body)
        if missing:
            body += b"\x18\x01" + tagged(4, missing.encode())
        return Response(body, media_type=PROTOBUF)

    # --- search -------------------------------------------------------------------------------------------

    async def search(self, request: Request) -> Response:
        text = request.query_params.get("q", "") or tags.query_of_legacy(request.query_params.get("tags", ""))
        start, end = _range(request)
        pinned, below = cursor_of(request)
        search = Search(
            spansets_only(parse(text)),
            number_of(request, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX),
            number_of(request, "spss", SPANS_DEFAULT, 1, SPANS_MAX),
            start,
            end,
            tags.duration(request.query_params.get("minDuration", ""), 0),
            tags.duration(request.query_params.get("maxDuration", ""), END_OF_TIME),
            below,
        )
        with self._store.view() as everything, self._store.view(*(search.planned.key or ())) as view:
            if pinned is not None:
                everything.cut(pinned)
                view.cut(pinned)
            found, effort, summaries = await self._engine.run(_searched, view, everything, search)
            metrics = covered(everything, view)
        metrics |= {"inspectedTraces": effort.traces, "matchingSpans": str(effort.spans)}
        answer: dict[str, Any] = {"traces": summaries, "metrics": metrics}
        if effort.more and found:
            answer["nextCursor"] = f"{metrics['nextOffset']}.{found[-1].time}.{found[-1].offset}"
        return json_response(answer)

    # --- tags ---------------------------------------------------------------------------------------------

    async def _scopes(self, request: Request) -> tags.Tags:
        start, end = _range(request)
        with self._store.view() as view:
            expression = tags.narrowing(request.query_params.get("q", ""))
            return await self._engine.run(tags.names, view, start, end, expression)

    async def tag_names(self, request: Request) -> Response:
        found = await self._scopes(request)
        names = sorted({name for scope in ("resource", "span") for name in found.names[scope]})
        return json_response({"tagNames": names, "metrics": found.metrics() | partial_metrics()})

    async def tag_names_v2(self, request: Request) -> Response:
        found = await self._scopes(request)
        wanted = request.query_params.get("scope", "")
        if wanted in ("none", ""):
            wanted = ""
        elif wanted not in found.names:
            raise InvalidQuery(f"unknown scope {wanted[:50]!r}; there are {', '.join(found.names)}")
        scopes = [
            {"name": scope, "tags": sorted(names)}
            for scope, names in found.names.items()
            if names and wanted in ("", scope)
        ]
        return json_response({"scopes": scopes, "metrics": found.metrics() | partial_metrics()})

    async def _values(self, request: Request) -> tags.TagValues:
        start, end = _range(request)
        expression = tags.narrowing(request.query_params.get("q", ""))
        field = tags.field_of(request.path_params["tag"])
        with self._store.view() as view:
            return await self._engine.run(tags.values, view, field, expression, start, end)

    async def tag_values(self, request: Request) -> Response:
        found = await self._values(request)
        texts = [str(value) for _, value in found.values]
        return json_response({"tagValues": texts, "metrics": found.metrics() | partial_metrics()})

    async def tag_values_v2(self, request: Request) -> Response:
        found = await self._values(request)
        values = [{"type": kind, "value": value} for kind, value in found.values]
        return json_response({"tagValues": values, "metrics": found.metrics() | partial_metrics()})


def _wants_protobuf(request: Request) -> bool:
    return PROTOBUF in request.headers.get("accept", "")


def _is_at_hand(view: View) -> bool:
    """Tell whether a trace is a few spans, and all of them in the ring: nothing is read elsewhere."""
    spans, blocks = view.candidates, view.ring.blocks
    in_log = view.log is not None and (not blocks or view.log.first_offset < blocks[0].base_offset)
    return spans is not None and len(spans) <= AT_HAND_SPANS and not in_log and view.behind is None


def _trace(deadline: Deadline, view: View, *asked: Any) -> tuple[bytes, str]:
    return _shaped(spans_of(deadline, view), view, *asked)


def _large(deadline: Deadline, *asked: Any) -> tuple[bytes, str]:
    return _shaped(*asked)


def _shaped(
    held: Held,
    view: View,
    start_ns: int,
    end_ns: int,
    limit: ResponseLimit,
    json: Callable[[bytes, str], bytes] | None,
) -> tuple[bytes, str]:
    """Return a trace as protobuf or as what `json` makes of it, empty if nothing is held, and what is missing."""
    missing = completeness(held.refs, view.first_offset, held.left_out).message
    missing = "; ".join([*([missing] if missing else []), *lacking(view)])
    payload = regroup(within(held.refs, start_ns, end_ns))
    if json is None or not payload:
        return payload, missing
    limit.require_trace(len(payload), f"all with Accept: {PROTOBUF}")
    return json(payload, missing), missing


def _batches(payload: bytes, message: str) -> bytes:
    return b'{"batches"' + to_json(TRACES, payload, protobuf_form=True).removeprefix(b'{"resourceSpans"')


def _trace_v2(payload: bytes, message: str) -> bytes:
    answer: dict[str, Any] = {"trace": msgspec.Raw(to_json(TRACES, payload, protobuf_form=True)), "metrics": {}}
    if message:
        answer |= {"status": "PARTIAL", "message": message}
    return msgspec.json.encode(answer)


def _searched(
    deadline: Deadline, view: View, everything: View, search: Search
) -> tuple[list[Found], Effort, list[dict[str, Any]]]:
    found, effort = find(deadline, view, everything, search)
    return found, effort, [_summary(one) for one in describe(deadline, everything, found, search)]


def _summary(one: Summary) -> dict[str, Any]:
    sets = [
        {
            "spans": [
                {
                    "spanID": span.span_id.hex(),
                    "name": span.name,
                    "startTimeUnixNano": str(span.time),
                    "durationNanos": str(span.duration),
                    "attributes": _attributes(span.attributes),
                }
                for span in each.spans
            ],
            "matched": each.matched,
            **({"attributes": _attributes(each.attributes)} if each.attributes else {}),
        }
        for each in one.spansets
    ]
    start = one.start if one.start != END_OF_TIME else 0
    answer: dict[str, Any] = {
        "traceID": one.trace_id.hex(),
        "rootServiceName": one.root_service if one.root_name or one.root_service else NO_ROOT,
        "rootTraceName": one.root_name,
        "startTimeUnixNano": str(start),
        "durationMs": max(0, one.end - start) // 1_000_000,
        **({"spanSet": sets[0]} if sets else {}),
        "spanSets": sets,
        "serviceStats": {
            name: {"spanCount": count, **({"errorCount": errors} if errors else {})}
            for name, (count, errors) in one.services.items()
        },
    }
    if one.missing or not one.has_root:
        answer["incomplete"] = {"spansWithoutTheirParent": one.missing, "rootIsMissing": not one.has_root}
    return answer


def _attributes(pairs: list[tuple[str, Value]]) -> list[dict[str, Any]]:
    return [{"key": key, "value": any_value(value)} for key, value in pairs]


def any_value(value: Value | None) -> dict[str, Any]:
    """Return a value as protobuf's JSON mapping of AnyValue."""
    if value is None:
        return {}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(one) for one in value]}}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
