"""Tempo's API of metrics from traces: TraceQL over time, as Grafana's Tempo data source asks for it.

Shapes are Tempo 3's, protobuf's JSON mapping of its QueryRangeResponse and QueryInstantResponse. Whatever the answer, it
says in `metrics` which offsets it covers.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.routing import BaseRoute, Route

from collector.api.tempo import answering, any_value, covered, json_response, number_of
from collector.errors import InvalidQuery
from collector.query.traceql import metrics, tags
from collector.query.traceql.parser import parse
from collector.query.traceql.series import Series, Steps, samples, usual_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from collector.query.engine import Engine
    from collector.store import Store

EXEMPLARS_USUAL, EXEMPLARS_MAX = 100, 1000
"""Exemplars of an answer: when no number is asked for, and at most."""
HOUR_NS = 3600 * 10**9
"""The range when none is given: the last hour."""
STEP_MIN_NS = 10**6
"""The smallest step: samples have times in ms."""
_SECONDS_MAX = 10**11
"""Above it a number is in ns, as Tempo reads it: seconds until the year 5138."""
TIME_MAX = 2**63 - 1


def routes(stores: Mapping[str, Store], engine: Engine) -> list[BaseRoute]:
    """Return the routes over the store of traces."""
    api = _Metrics(stores["traces"], engine)
    return [
        Route("/api/metrics/query_range", answering(api.query_range)),
        Route("/api/metrics/query", answering(api.query)),
    ]


def _time(text: str, name: str) -> int:
    """Read a time in Unix seconds or ns, or as RFC 3339, as ns."""
    try:
        number = float(text) if not text.isdecimal() else int(text)
        if not math.isfinite(number):
            raise ValueError(text)
        return round(number * 10**9) if number < _SECONDS_MAX else int(number)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(text)
    except ValueError:
        raise InvalidQuery(f"{name} must be in Unix seconds or RFC 3339, not {text[:50]!r}") from None
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def _duration(text: str, name: str) -> int:
    """Read a duration, `30s`, or a number of seconds, as ns."""
    try:
        found = int(float(text) * 10**9)
    except (ValueError, OverflowError):
        found = tags.duration(text, 0)
    if not STEP_MIN_NS <= found <= TIME_MAX:
        raise InvalidQuery(f"{name} must be a duration of at least 1ms, not {text[:50]!r}")
    return found


class _Metrics:
    def __init__(self, store: Store, engine: Engine) -> None:
        self._store = store
        self._engine = engine

    def _range(self, request: Request) -> tuple[int, int]:
        """Return start and end in ns; by default the last hour."""
        params = request.query_params
        end = _time(params["end"], "end") if params.get("end") else self._engine.clock.now_ns()
        if params.get("start"):
            start = _time(params["start"], "start")
        else:
            start = end - (_duration(params["since"], "since") if params.get("since") else HOUR_NS)
        if end < start:
            raise InvalidQuery("end lies before start")
        return min(max(1, start), TIME_MAX), min(max(1, end), TIME_MAX - HOUR_NS)

    async def query_range(self, request: Request) -> Response:
        start, end = self._range(request)
        text = request.query_params.get("step", "")
        steps = Steps.over(start, end, _duration(text, "step") if text else usual_step(start, end))
        found, covers = await self._run(request, steps)
        series = [
            {
                "labels": _labels(one),
                "samples": [{"timestampMs": str(time), "value": value} for time, value in samples(steps, one)],
                "exemplars": _exemplars(one),
            }
            for one in found
        ]
        return json_response({"series": series, "metrics": covers})

    async def query(self, request: Request) -> Response:
        steps = Steps.one(*self._range(request))
        found, covers = await self._run(request, steps)
        series = [{"labels": _labels(one), "value": float(one.samples[0])} for one in found]
        return json_response({"series": series, "metrics": covers})

    async def _run(self, request: Request, steps: Steps) -> tuple[list[Series], dict[str, Any]]:
        query = parse(request.query_params.get("q", "") or request.query_params.get("query", ""))
        exemplars = number_of(request, "exemplars", EXEMPLARS_USUAL, 0, 10**6) if not steps.instant else 0
        key = metrics.key_of(query)
        with self._store.view() as everything, self._store.view(*(key or ())) as view:
            wanted = min(exemplars, EXEMPLARS_MAX)
            found = await self._engine.run(metrics.run, view, everything, query, steps, wanted)
            return found, covered(everything, view)


def _labels(series: Series) -> list[dict[str, Any]]:
    return [{"key": key, "value": any_value("nil" if value is None else value)} for key, value in series.labels]


def _exemplars(series: Series) -> list[dict[str, Any]]:
    """Return exemplars: their value is the span's, or the sample's where spans are counted."""
    found = []
    for one in series.exemplars:
        value = float(series.samples[one.step]) if math.isnan(one.value) else one.value
        if math.isfinite(value):
            labels = [("trace:id", one.trace_id.hex()), ("span:id", one.span_id.hex())]
            found.append(
                {
                    "labels": [{"key": key, "value": any_value(text)} for key, text in labels],
                    "value": value,
                    "timestampMs": str(one.time // 1_000_000),
                }
            )
    return found
