"""Prometheus' HTTP API over the received metrics, as Grafana's Prometheus data source asks for it.

The envelope is Prometheus': `{"status": "success", "data": …}`, or `{"status": "error", "errorType", "error"}` with
400 for what was asked wrongly, 422 for what cannot be computed, 503 for what took too long or has no room now.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
import numpy as np
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from collector import __version__
from collector.api.partial import warnings
from collector.api.status import http_code
from collector.errors import InvalidQuery, Overloaded, QueryTimeout, RingtailError, TooLarge, Unavailable
from collector.query.promql import catalogue, exemplars
from collector.query.promql.ast import Matcher, MatrixSelector, Subquery, Type, selectors
from collector.query.promql.evaluate import evaluate, range_vector
from collector.query.promql.lexer import tokenize
from collector.query.promql.parser import parse, parse_selector
from collector.query.promql.series import float_text
from collector.query.promql.vectors import Vector
from collector.query.spanmetrics.demand import asks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request

    from collector.query.engine import Engine
    from collector.query.promql.translate import Labels
    from collector.query.spanmetrics.series import SpanSeries
    from collector.store import Store

_DIGITS_MAX = 18
"""Digits of a whole number in a request."""
STEPS_MAX = 11_000
"""Steps of a range query, as in Prometheus."""
FORM_BYTES_MAX, FORM_FIELDS_MAX = 1024 * 1024, 1000
"""Bytes and fields of a POSTed form."""
TIME_MAX_MS = 2**62
"""Times beyond are refused."""

_ESCAPED_NAME = re.compile(r"_([0-9A-Fa-f]{1,6})_|__")


def routes(
    stores: Mapping[str, Store], engine: Engine, more: Callable[[], Sequence[SpanSeries]] = tuple
) -> list[BaseRoute]:
    """Return Prometheus' routes over the store of metrics, and what `more` gives for one query."""
    api = _Prometheus(stores["metrics"], engine, more)
    both = ["GET", "POST"]
    paths: list[tuple[str, Callable[[Request], Awaitable[Any]], list[str]]] = [
        ("/api/v1/query", api.query, both),
        ("/api/v1/query_range", api.query_range, both),
        ("/api/v1/query_exemplars", api.exemplars, both),
        ("/api/v1/series", api.series, both),
        ("/api/v1/labels", api.labels, both),
        ("/api/v1/label/{name}/values", api.label_values, ["GET"]),
        ("/api/v1/metadata", api.metadata, ["GET"]),
        ("/api/v1/rules", api.rules, ["GET"]),
        ("/api/v1/alerts", api.alerts, ["GET"]),
        ("/api/v1/status/buildinfo", api.build_info, ["GET"]),
    ]
    return [Route(path, _answering(handler), methods=methods) for path, handler, methods in paths]


def _answering(handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """Wrap what a handler returns, or what it raises, into Prometheus' envelope."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            found = await handler(request)
            data, more = (found.data, found.warnings) if isinstance(found, _Warned) else (found, ())
            body: dict[str, Any] = {"status": "success", "data": data, **warnings(*more)}
            return Response(msgspec.json.encode(body), media_type="application/json")
        except RingtailError as error:
            code = 503 if isinstance(error, QueryTimeout) else http_code(error)
            kind = "bad_data" if code == 400 else "execution"
            if isinstance(error, QueryTimeout):
                kind = "timeout"
            elif isinstance(error, Overloaded | Unavailable):
                kind = "unavailable"
            text = str(error)
            if isinstance(error, InvalidQuery) and error.position is not None:
                text = f"1:{error.position + 1}: {text}"
            body = {"status": "error", "errorType": kind, "error": text}
            return Response(msgspec.json.encode(body), code, media_type="application/json")

    return answer


async def _parameters(request: Request) -> QueryParams:
    """Return the parameters of a form's body, which come first, and of the URL."""
    if request.method != "POST":
        return request.query_params
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > FORM_BYTES_MAX:
            raise TooLarge(f"a form is larger than {FORM_BYTES_MAX} bytes")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError as error:
        raise InvalidQuery(f"not a form: {error}") from error
    return QueryParams([*pairs, *request.query_params.multi_items()])


def _time(text: str, name: str, default: int) -> int:
    """Read a time, in Unix seconds or as RFC 3339, in ms."""
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
            seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
        except ValueError as error:
            raise InvalidQuery(
                f"invalid parameter {name!r}: cannot parse {text[:50]!r} to a valid timestamp"
            ) from error
    if not abs(seconds) * 1000 < TIME_MAX_MS:
        raise InvalidQuery(f"invalid parameter {name!r}: {text[:50]!r} is out of range")
    return round(seconds * 1000)


def _step(text: str) -> int:
    """Read a step, in seconds or as a duration, in ms."""
    try:
        milliseconds = round(float(text) * 1000)
    except (ValueError, OverflowError):
        tokens = tokenize(text) if text else []
        if len(tokens) != 2 or tokens[0].kind != "duration":
            raise InvalidQuery(f"invalid parameter 'step': cannot parse {text[:50]!r} to a valid duration") from None
        milliseconds = int(tokens[0].value)
    if milliseconds > TIME_MAX_MS:
        raise InvalidQuery(f"invalid parameter 'step': {text[:50]!r} is out of range")
    if milliseconds <= 0:
        raise InvalidQuery("invalid parameter 'step': zero or negative query resolution step widths are not accepted")
    return milliseconds


def _limit(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal()) or len(text) > _DIGITS_MAX:
        raise InvalidQuery("invalid parameter 'limit': must be a whole number")
    return int(text)


class _Warned(NamedTuple):
    """Data, and what to warn about beside it."""

    data: Any
    warnings: tuple[str, ...]


class _Prometheus:
    def __init__(self, store: Store, engine: Engine, more: Callable[[], Sequence[SpanSeries]]) -> None:
        self._store = store
        self._engine = engine
        self._more = more

    def _now_ms(self) -> int:
        return self._engine.clock.now_ns() // 1_000_000

    async def query(self, request: Request) -> Any:
        parameters = await _parameters(request)
        expression = parse(parameters.get("query", ""))
        more = self._more() if asks(expression) else ()
        time = _time(parameters.get("time", ""), "time", self._now_ms())
        if isinstance(expression, MatrixSelector | Subquery):
            with self._store.view() as view:
                found = await self._engine.run(range_vector, view, expression, time, more)
            matrix = [
                {"metric": dict(series.labels), "values": _pairs(series.times[inside], series.values[inside])}
                for series, inside in found
            ]
            return {"resultType": "matrix", "result": matrix}
        with self._store.view() as view:
            result = await self._engine.run(evaluate, view, expression, np.array([time], np.int64), more)
        value = result.value
        if isinstance(value, str):
            return {"resultType": "string", "result": [time / 1000, value]}
        if isinstance(value, Vector):
            vector = [
                {"metric": dict(labels), "value": [time / 1000, float_text(number)]}
                for labels, number in zip(value.labels, value.values[:, 0].tolist(), strict=True)
            ]
            return {"resultType": "vector", "result": vector}
        return {"resultType": "scalar", "result": [time / 1000, float_text(float(value[0]))]}

    async def query_range(self, request: Request) -> Any:
        parameters = await _parameters(request)
        expression = parse(parameters.get("query", ""))
        for name in ("start", "end", "step"):
            if not parameters.get(name):
                raise InvalidQuery(f"invalid parameter {name!r}: it is missing")
        start = _time(parameters["start"], "start", 0)
        end = _time(parameters["end"], "end", 0)
        step = _step(parameters["step"])
        if end < start:
            raise InvalidQuery("invalid parameter 'end': end timestamp must not be before start time")
        if (end - start) // step + 1 > STEPS_MAX:
            raise InvalidQuery(
                f"exceeded maximum resolution of {STEPS_MAX:,} points per timeseries; "
                "try decreasing the query resolution (?step=XX)"
            )
        if expression.type not in (Type.SCALAR, Type.VECTOR):
            raise InvalidQuery(
                f"invalid expression type {expression.type.value!r} for range query, must be scalar or instant vector"
            )
        steps = np.arange(start, end + 1, step, dtype=np.int64)
        more = self._more() if asks(expression) else ()
        with self._store.view() as view:
            result = await self._engine.run(evaluate, view, expression, steps, more)
        value = result.value
        if isinstance(value, Vector):
            order = sorted(range(len(value.labels)), key=value.labels.__getitem__)
            matrix = [
                {
                    "metric": dict(value.labels[row]),
                    "values": _pairs(steps[value.present[row]], value.values[row][value.present[row]]),
                }
                for row in order
            ]
        else:
            assert not isinstance(value, str)
            matrix = [{"metric": {}, "values": _pairs(steps, value)}]
        return {"resultType": "matrix", "result": matrix}

    async def exemplars(self, request: Request) -> Any:
        """Answer with the exemplars of all series that a selector of the query matches; its functions, offsets and ranges
        count for nothing.

        As in Prometheus 3, `start` and `end` may both be missing, and have no bound then. Series made of spans have none.
        """
        parameters = await _parameters(request)
        start = _time(parameters.get("start", ""), "start", 0)
        end = _time(parameters.get("end", ""), "end", TIME_MAX_MS)
        if end < start:
            raise InvalidQuery("invalid parameter 'end': end timestamp must not be before start timestamp")
        wanted = list(dict.fromkeys(one.matchers for one in selectors(parse(parameters.get("query", "")))))
        with self._store.view() as view:
            found = await self._engine.run(exemplars.select, view, wanted, start, end)
        data = [
            {
                "seriesLabels": dict(labels),
                "exemplars": [
                    {"labels": dict(one.labels), "value": one.value, "timestamp": one.time / 1000} for one in held
                ],
            }
            for labels, held in found.series
        ]
        if not found.left_out:
            return data
        return _Warned(
            data, (f"these are the newest {exemplars.EXEMPLARS_MAX} exemplars; there are no older ones in the answer",)
        )

    async def _catalogue(self, parameters: QueryParams) -> tuple[catalogue.Catalogue, int]:
        """Return the series that `match[]` selects in a time range; everything readable by default."""
        selectors = [parse_selector(text).matchers for text in parameters.getlist("match[]")]
        start = _time(parameters.get("start", ""), "start", 0)
        end = _time(parameters.get("end", ""), "end", TIME_MAX_MS)
        with self._store.view() as view:
            found = await self._engine.run(catalogue.collect, view, selectors, start, end, self._more())
        return found, _limit(parameters.get("limit", ""))

    async def series(self, request: Request) -> Any:
        parameters = await _parameters(request)
        if not parameters.getlist("match[]"):
            raise InvalidQuery("no match[] parameter provided")
        found, limit = await self._catalogue(parameters)
        labels: list[Labels] = sorted(found.series)
        return [dict(one) for one in (labels[:limit] if limit else labels)]

    async def labels(self, request: Request) -> Any:
        found, limit = await self._catalogue(await _parameters(request))
        names = sorted({name for labels in found.series for name, _ in labels})
        return names[:limit] if limit else names

    async def label_values(self, request: Request) -> Any:
        name = _unescaped(request.path_params["name"])
        found, limit = await self._catalogue(await _parameters(request))
        values = sorted({value for labels in found.series for key, value in labels if key == name})
        return values[:limit] if limit else values

    async def metadata(self, request: Request) -> Any:
        selectors = [(Matcher("__name__", "!=", ""),)]
        with self._store.view(held_only=True) as view:  # It has no time range, and is asked all the time.
            found = await self._engine.run(catalogue.collect, view, selectors, 0, TIME_MAX_MS, self._more())
        wanted = request.query_params.get("metric", "")
        limit = _limit(request.query_params.get("limit", ""))
        names = [name for name in sorted(found.metadata) if wanted in ("", name)]
        return {name: [found.metadata[name]] for name in (names[:limit] if limit else names)}

    async def rules(self, request: Request) -> Any:
        return {"groups": []}

    async def alerts(self, request: Request) -> Any:
        return {"alerts": []}

    async def build_info(self, request: Request) -> Any:
        return {
            "version": __version__,
            "revision": "",
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
            "features": {},
        }


def _pairs(times: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> list[list[Any]]:
    return [[time / 1000, float_text(value)] for time, value in zip(times.tolist(), values.tolist(), strict=True)]


def _unescaped(name: str) -> str:
    """Undo the escaping of names that a path cannot hold: `U__http_2e_method` is `http.method`."""
    if not name.startswith("U__"):
        return name
    return _ESCAPED_NAME.sub(lambda match: chr(int(match[1], 16)) if match[1] else "_", name[3:])
