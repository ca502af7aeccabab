"""Loki's HTTP API under /loki/api/v1: what Grafana's Loki source asks, answered from the store of logs.

A request becomes a plan (`query/logql/plan.py`) in a worker thread, a view of the store on the event loop, and an
answer, serialized, in a worker thread again. Parameters are those of Loki, in the query string or in a form body.
Errors are answered as Loki does: the message as plain text; limits are the client's to mind, so they are bad requests.

Line queries are over start <= time < end, metric queries at start, start + step, … up to end. Where Loki leaves a
choice, the answer is in one order: streams and series by their labels, lines by time and then by offset.

Left out: `interval` (Grafana does not send it), tail, push, volumes, patterns and detected fields.
"""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from collector import __version__
from collector.api.status import http_code
from collector.errors import InvalidQuery, QueryLimit, QueryTimeout, TooLarge
from collector.otlp.signals import LOGS
from collector.query.logql import ast, catalogue
from collector.query.logql.literals import duration_ns
from collector.query.logql.logs import Line, read_lines
from collector.query.logql.metrics import TIME_MAX, Value, evaluate
from collector.query.logql.parser import parse_selector
from collector.query.logql.plan import Plan, prepare
from collector.query.logql.source import Statistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.requests import Request

    from collector.query.engine import Deadline, Engine
    from collector.store import Store, View

ENTRIES_DEFAULT: Final = 100
"""Lines in an answer when the request sets no limit."""
ENTRIES_MAX: Final = 5000
"""The largest limit: Loki's default of max_entries_limit_per_query."""
POINTS_MAX: Final = 11_000
"""Steps of a metric query beyond the first, as in Loki and Prometheus."""
POINTS_DEFAULT: Final = 250
"""About how many steps there are when the request sets no step; none is shorter than a second."""
FORM_BYTES_MAX: Final = 1 << 20
"""The largest form body, in bytes."""

SECOND: Final = 1_000_000_000
YEAR_S: Final = 365 * 86_400
QUERY_SPAN: Final = 3600 * SECOND
"""How far back queries look by default, in ns."""
LABELS_SPAN: Final = 6 * QUERY_SPAN
"""How far back labels and series are looked for by default, in ns."""

CATEGORIZE: Final = "categorize-labels"
_FORM = "application/x-www-form-urlencoded"
_INTEGER = re.compile(r"-?[0-9]+")
_DECIMAL = re.compile(r"-?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,3})?|-?[0-9]+\.")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def routes(stores: Mapping[str, Store], engine: Engine) -> list[BaseRoute]:
    """Return the routes, all for GET and POST, over the store of logs."""
    api = _Api(stores[LOGS.name], engine)
    handlers = {
        "/query_range": api.query_range,
        "/query": api.query,
        "/labels": api.labels,
        "/label": api.labels,
        "/label/{name}/values": api.label_values,
        "/series": api.series,
        "/index/stats": api.index_stats,
        "/status/buildinfo": api.buildinfo,
    }
    return [
        Route(f"/loki/api/v1{path}", _answering(handler), methods=["GET", "POST"]) for path, handler in handlers.items()
    ]


def _answering(
    handler: Callable[[Request], Awaitable[bytes]],
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


class Parameters:
    """A request's parameters, from its form body and its query string, the body first."""

    def __init__(self, pairs: Iterable[tuple[str, str]], now_ns: int) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)
        self._now_ns = now_ns

    @classmethod
    async def of(cls, request: Request, now_ns: int) -> Parameters:
        """Read them; raises TooLarge for a body over FORM_BYTES_MAX."""
        body = b""
        if request.headers.get("content-type", "").split(";")[0].strip().lower() == _FORM:
            async for chunk in request.stream():
                body += chunk
                if len(body) > FORM_BYTES_MAX:
                    raise TooLarge(f"the form is larger than {FORM_BYTES_MAX} bytes")
        pairs = parse_qsl(body.decode("ascii", "replace"), keep_blank_values=True)
        return cls([*pairs, *request.query_params.multi_items()], now_ns)

    def all(self, name: str) -> list[str]:
        """Return every value of a parameter."""
        return self._values.get(name, [])

    def text(self, name: str) -> str:
        """Return the first value of a parameter, or nothing."""
        return self._values.get(name, [""])[0]

    def time(self, name: str) -> int | None:
        """Return a time in Unix ns, if it is given."""
        text = self.text(name)
        return _timestamp_ns(name, text, self._now_ns) if text else None

    def duration(self, name: str) -> int | None:
        """Return a duration in ns, if it is given: seconds, or with units."""
        text = self.text(name)
        return _duration_ns(name, text) if text else None

    def bounds(self, span_ns: int) -> tuple[int, int]:
        """Return start and end in Unix ns. The end is now by default, the start `since`, or a span, before it."""
        end = self.time("end")
        start = self.time("start")
        if end is None:
            end = self._now_ns
        if start is None:
            since = self.duration("since")
            start = max(0, min(end, self._now_ns) - (span_ns if since is None else since))
        if end < start:
            raise InvalidQuery("end timestamp must not be before or equal to start time")
        return start, end

    def now(self, name: str) -> int:
        """Return a time in Unix ns; now by default."""
        time = self.time(name)
        return self._now_ns if time is None else time

    def limit(self) -> int:
        """Return how many lines are wanted."""
        text = self.text("limit") or str(ENTRIES_DEFAULT)
        limit = int(text) if _INTEGER.fullmatch(text) and len(text) < 10 else 0
        if limit <= 0:
            raise InvalidQuery(f"limit must be a positive value, not {text[:40]!r}")
        if limit > ENTRIES_MAX:
            raise InvalidQuery(
                f"max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {ENTRIES_MAX})"
            )
        return limit

    def oldest_first(self) -> bool:
        """Return the direction; newest first by default."""
        direction = self.text("direction").lower() or "backward"
        if direction not in ("forward", "backward"):
            raise InvalidQuery(f"direction must be forward or backward, not {direction[:40]!r}")
        return direction == "forward"

    def steps(self, start_ns: int, end_ns: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the times that a metric query is evaluated at, in Unix ns."""
        step = self.duration("step")
        if step is None:
            step = max((end_ns - start_ns) // SECOND // POINTS_DEFAULT, 1) * SECOND
        if step <= 0:
            raise InvalidQuery("zero or negative query resolution step widths are not accepted. Try a positive integer")
        count = (end_ns - start_ns) // step
        if count > POINTS_MAX:
            raise InvalidQuery(
                "exceeded maximum resolution of 11,000 points per time series. "
                "Try increasing the value of the step parameter"
            )
        return np.int64(start_ns) + np.arange(count + 1, dtype=np.int64) * np.int64(step if count else 0)


def _timestamp_ns(name: str, text: str, now_ns: int) -> int:
    """Read a time: an integer in ns, decimal seconds, or RFC 3339.

    An integer of ten digits is taken for seconds if that makes a time up to a year from now: what `date +%s`
    writes, which Loki reads so too. In nanoseconds it would be in the first seconds of 1970.
    """
    match = _RFC3339.fullmatch(text)
    if match is not None:
        date, time, fraction, zone = match.groups()
        try:
            moment = datetime.fromisoformat(f"{date}T{time}{zone.upper().replace('Z', '+00:00')}")
        except ValueError as error:
            raise InvalidQuery(f"{name}: {text[:60]!r}: {error}") from None
        value = int(moment.timestamp()) * SECOND + int((fraction or "")[:9].ljust(9, "0"))
    elif _INTEGER.fullmatch(text) and len(text) <= 100:
        value = int(text)
        if len(text) == 10 and 10**9 <= value <= now_ns // SECOND + YEAR_S:
            value *= SECOND
    elif _DECIMAL.fullmatch(text) and len(text) <= 100:
        value = int(Decimal(text) * SECOND)
    else:
        raise InvalidQuery(f"{name}: {text[:60]!r} is no time: give Unix nanoseconds, decimal seconds or RFC 3339")
    return min(max(value, 0), TIME_MAX)


def _duration_ns(name: str, text: str) -> int:
    """Read a duration: decimal seconds, or numbers with units."""
    if _DECIMAL.fullmatch(text) and len(text) <= 100:
        return min(int(Decimal(text) * SECOND), TIME_MAX)
    try:
        return duration_ns(text)
    except ValueError as error:
        raise InvalidQuery(f"{name}: {error}") from None


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a query endpoint was asked, beside the query itself."""

    instant: bool
    start_ns: int
    end_ns: int
    limit: int
    oldest_first: bool
    steps: np.ndarray[Any, np.dtype[np.int64]]
    categorized: bool


class _Api:
    """The endpoints. Each returns the JSON of its answer."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self._store = store
        self._engine = engine

    async def query_range(self, request: Request) -> bytes:
        """Answer a query over a range of time: lines, or series with many points."""
        parameters = await self._parameters(request)
        if parameters.text("interval"):
            raise InvalidQuery("the parameter interval is not supported")
        start_ns, end_ns = parameters.bounds(QUERY_SPAN)
        plan = await self._plan(parameters)
        lines = isinstance(plan.expression, ast.LogQuery)
        steps = np.zeros(0, np.int64) if lines else parameters.steps(start_ns, end_ns)
        limit = parameters.limit() if lines else 0
        asked = _Asked(False, start_ns, end_ns, limit, parameters.oldest_first(), steps, _categorized(request))
        with ExitStack() as released:
            views = self._views(plan, released)
            return await self._engine.run(self._answer, plan, views, asked)

    async def query(self, request: Request) -> bytes:
        """Answer a metric query at one time."""
        parameters = await self._parameters(request)
        time = parameters.now("time")
        plan = await self._plan(parameters)
        if isinstance(plan.expression, ast.LogQuery):
            raise InvalidQuery(
                "log queries are not supported as an instant query type, please change your query to a range query type"
            )
        asked = _Asked(True, time, time, 0, False, np.array([time], np.int64), False)
        with ExitStack() as released:
            views = self._views(plan, released)
            return await self._engine.run(self._answer, plan, views, asked)

    async def labels(self, request: Request) -> bytes:
        """Answer with the names of index labels."""
        parameters = await self._parameters(request)
        return _success(await self._catalogue(catalogue.label_names, parameters, parameters.all("query")))

    async def label_values(self, request: Request) -> bytes:
        """Answer with the values of an index label."""
        parameters = await self._parameters(request)
        name = request.path_params["name"]
        return _success(await self._catalogue(catalogue.label_values, parameters, parameters.all("query"), name))

    async def series(self, request: Request) -> bytes:
        """Answer with the streams that selectors select."""
        parameters = await self._parameters(request)
        texts = [*parameters.all("match[]"), *parameters.all("match")]
        if not any(texts):
            raise InvalidQuery("at least one match[] parameter is needed: a stream selector, or {} for all streams")
        return _success(await self._catalogue(catalogue.streams, parameters, texts))

    async def index_stats(self, request: Request) -> bytes:
        """Answer with how much a selector selects. A chunk is what Ringtail calls a block."""
        parameters = await self._parameters(request)
        query = parameters.text("query")
        if not query:
            raise InvalidQuery("the parameter query is needed: a stream selector")
        volume = await self._catalogue(_volume, parameters, [query], span_ns=QUERY_SPAN)
        return msgspec.json.encode(
            {"streams": volume.streams, "chunks": volume.blocks, "entries": volume.entries, "bytes": volume.bytes}
        )

    async def buildinfo(self, request: Request) -> bytes:
        """Answer with Ringtail's version, in Loki's fields."""
        info = dict.fromkeys(("revision", "branch", "buildUser", "buildDate", "goVersion"), "")
        return msgspec.json.encode({"version": __version__} | info)

    async def _parameters(self, request: Request) -> Parameters:
        return await Parameters.of(request, self._engine.clock.now_ns())

    async def _plan(self, parameters: Parameters) -> Plan:
        return await self._engine.run(_prepare, parameters.text("query"))

    def _views(self, plan: Plan, released: ExitStack) -> dict[bytes | None, View]:
        """Return the views that a plan needs, of one moment, to be released with the stack."""
        return {
            service: released.enter_context(self._store.view("service", service) if service else self._store.view())
            for service in plan.services
        }

    async def _catalogue(
        self,
        function: Callable[..., Any],
        parameters: Parameters,
        selectors: list[str],
        *rest: str,
        span_ns: int = LABELS_SPAN,
    ) -> Any:
        """Ask the catalogue about a time range and the texts of selectors."""
        start_ns, end_ns = parameters.bounds(span_ns)

        def ask(deadline: Deadline, view: View) -> Any:
            parsed = [parse_selector(text) for text in selectors if text]
            return function(deadline, view, parsed, start_ns, end_ns, *rest)

        with self._store.view() as view:
            return await self._engine.run(ask, view)

    def _answer(self, deadline: Deadline, plan: Plan, views: Mapping[bytes | None, View], asked: _Asked) -> bytes:
        """Run a query and serialize its answer. In a worker thread."""
        started = self._engine.clock.monotonic()
        statistics = Statistics()
        data: dict[str, Any]
        if isinstance(plan.expression, ast.LogQuery):
            [source] = plan.sources.values()
            view = views[source.selection.service]
            last_ns = asked.end_ns - 1
            lines = (
                read_lines(deadline, view, source, asked.start_ns, last_ns, asked.limit, asked.oldest_first, statistics)
                if asked.start_ns <= last_ns
                else []
            )
            entries = len(lines)
            data = {"resultType": "streams", "result": _streams(lines, asked.categorized)}
            if asked.categorized:
                data["encodingFlags"] = [CATEGORIZE]
        else:
            value = evaluate(deadline, views, plan, asked.steps, statistics)
            entries = 1 if isinstance(value, float) else len(value)
            data = _instant(value, asked) if asked.instant else _matrix(value, asked)
        seconds = self._engine.clock.monotonic() - started
        data["stats"] = _statistics(statistics, seconds, entries)
        return _success(data)


def _prepare(deadline: Deadline, text: str) -> Plan:
    return prepare(text)


def _categorized(request: Request) -> bool:
    flags = request.headers.get("x-loki-response-encoding-flags", "")
    return CATEGORIZE in (flag.strip() for flag in flags.split(","))


def _volume(
    deadline: Deadline, view: View, selectors: list[ast.Selector], start_ns: int, end_ns: int
) -> catalogue.Volume:
    return catalogue.volume(deadline, view, selectors[0], start_ns, end_ns)


def _success(data: Any) -> bytes:
    return msgspec.json.encode({"status": "success", "data": data})


def _streams(lines: list[Line], categorized: bool) -> list[dict[str, Any]]:
    """Group lines by their labels: the stream's alone if categorized, else the structured metadata among them."""
    streams: dict[tuple[tuple[str, str], ...], list[list[Any]]] = {}
    for line in lines:
        value: list[Any] = [str(line.time), line.text]
        if categorized:
            labels = line.stream
            parts = {"structuredMetadata": line.metadata, "parsed": line.parsed}
            value.append({name: labels for name, labels in parts.items() if labels})
        else:
            labels = line.stream | line.metadata | line.parsed
        streams.setdefault(tuple(sorted(labels.items())), []).append(value)
    return [{"stream": dict(labels), "values": values} for labels, values in sorted(streams.items())]


def _instant(value: Value, asked: _Asked) -> dict[str, Any]:
    seconds = _seconds(asked.end_ns)
    if isinstance(value, float):
        return {"resultType": "scalar", "result": [seconds, sample_text(value)]}
    return {
        "resultType": "vector",
        "result": [
            {"metric": dict(labels), "value": [seconds, sample_text(float(series.values[0]))]}
            for labels, series in value.items()
        ],
    }


def _matrix(value: Value, asked: _Asked) -> dict[str, Any]:
    seconds = list(map(_seconds, asked.steps.tolist()))
    if isinstance(value, float):
        text = sample_text(value)
        return {"resultType": "matrix", "result": [{"metric": {}, "values": [[at, text] for at in seconds]}]}
    return {
        "resultType": "matrix",
        "result": [
            {
                "metric": dict(labels),
                "values": [
                    [at, sample_text(number)]
                    for at, number, present in zip(
                        seconds, series.values.tolist(), series.present.tolist(), strict=True
                    )
                    if present
                ],
            }
            for labels, series in value.items()
        ],
    }


def sample_text(value: float) -> str:
    """Return a sample's value as Prometheus writes it: the shortest digits without an exponent, NaN, +Inf, -Inf."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value).removesuffix(".0")
    return np.format_float_positional(value, trim="-") if "e" in text else text


def _seconds(ns: int) -> int | float:
    """Return Unix seconds to the millisecond, which is as fine as Prometheus' times are."""
    seconds, rest = divmod(ns // 1_000_000, 1000)
    return seconds + rest / 1000 if rest else seconds


def _statistics(statistics: Statistics, seconds: float, entries: int) -> dict[str, Any]:
    """Return Loki's statistics. The ring stands for its ingesters' head chunks, the log for its store."""
    lines = statistics.ring_lines + statistics.log_lines
    size = statistics.ring_bytes + statistics.log_bytes
    return {
        "summary": {
            "bytesProcessedPerSecond": round(size / seconds) if seconds > 0 else 0,
            "linesProcessedPerSecond": round(lines / seconds) if seconds > 0 else 0,
            "totalBytesProcessed": size,
            "totalLinesProcessed": lines,
            "execTime": seconds,
            "queueTime": 0,
            "totalEntriesReturned": entries,
        },
        "ingester": {"headChunkBytes": statistics.ring_bytes, "headChunkLines": statistics.ring_lines},
        "store": {"decompressedBytes": statistics.log_bytes, "decompressedLines": statistics.log_lines},
    }
