"""Jaeger's API of metrics, under /jaeger/api/metrics: what the Monitor tab of its UI draws, out of span metrics.

Each answer is the result of one PromQL range query over `traces_spanmetrics_…`, as a Jaeger whose metrics are in a
Prometheus would ask it, in the JSON of OpenMetrics' protocol buffers: one gauge for each service, or each operation.
Points without a value are left out. Latencies are in milliseconds. Without a generator of span metrics the answer is
501, as from a Jaeger without a metrics storage.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from collector.api.jaeger_envelope import enveloped, failed
from collector.api.jaeger_parameters import whole
from collector.errors import InvalidQuery, NotFound, RingtailError, Unsupported
from collector.query.promql.evaluate import evaluate
from collector.query.promql.parser import parse
from collector.query.promql.vectors import Vector

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from collector.query.engine import Engine
    from collector.query.spanmetrics.demand import SpanMetrics
    from collector.store import Store

POINTS_MAX: Final = 11_000
"""Points of each line in an answer, as in Prometheus."""
SERVICES_MAX: Final = 64
"""Services in one question."""
MIN_STEP_MS: Final = 1000
"""The finest step that makes sense."""
_LOOKBACK_MS, _STEP_MS, _RATE_MS = 3_600_000, 5_000, 600_000
_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")


class _Asked(NamedTuple):
    """What a line is drawn of: a PromQL expression, and how the answer names and explains it."""

    expression: str
    name: str
    help: str
    scale: float = 1.0


def routes(store: Store, engine: Engine, generator: SpanMetrics | None) -> list[BaseRoute]:
    """Return the route; the store is that of received metrics."""

    async def metrics(request: Request) -> Response:
        try:
            if request.path_params["name"] == "minstep":
                return enveloped(MIN_STEP_MS)
            if generator is None:
                raise Unsupported("metrics querying is currently disabled (metrics_generator.enabled)")
            asked = _asked(request.path_params["name"], request.query_params)
            steps = _steps(request.query_params, engine.clock.now_ns() // 10**6)
            with store.view(ring_only=True) as view:
                expression = parse(asked.expression)
                result = await engine.run(evaluate, view, expression, steps, [generator.series()])
            assert isinstance(result.value, Vector), "a sum, or a quantile of it"
            return Response(msgspec.json.encode(_family(asked, result.value, steps)), media_type="application/json")
        except RingtailError as error:
            return failed(error)

    return [Route("/jaeger/api/metrics/{name}", metrics)]


def _asked(name: str, parameters: QueryParams) -> _Asked:
    by_operation = _switch(parameters, "groupByOperation")
    labels = "service, span_name" if by_operation else "service"
    what, grouped = ("service_operation", "service & operation") if by_operation else ("service", "service")
    selector, rate = _selector(parameters), whole(parameters.get("ratePer", ""), "ratePer", _RATE_MS, 1)
    calls = f"sum by ({labels}) (rate(traces_spanmetrics_calls_total{{{selector}}}[{rate}ms]))"
    if name == "calls":
        return _Asked(calls, f"{what}_call_rate", f"calls/sec, grouped by {grouped}")
    if name == "errors":
        status = 'status_code="STATUS_CODE_ERROR"'
        failures = f"sum by ({labels}) (rate(traces_spanmetrics_calls_total{{{selector},{status}}}[{rate}ms]))"
        expression = f"({failures} / {calls}) or ({calls} * 0)"
        about = f"error rate, computed as a fraction of errors/sec over calls/sec, grouped by {grouped}"
        return _Asked(expression, f"{what}_error_rate", about)
    if name == "latencies":
        quantile = _quantile(parameters.get("quantile", ""))
        buckets = f"sum by ({labels}, le) (rate(traces_spanmetrics_latency_bucket{{{selector}}}[{rate}ms]))"
        about = f"{quantile:g}th quantile latency, grouped by {grouped}"
        return _Asked(f"histogram_quantile({quantile}, {buckets})", f"{what}_latencies", about, 1000.0)
    raise NotFound(f"there is no metric {name[:50]!r}; there are calls, errors, latencies and minstep")


def _selector(parameters: QueryParams) -> str:
    services = parameters.getlist("service")
    if not any(services):
        raise InvalidQuery("please provide at least one service name")
    if len(services) > SERVICES_MAX:
        raise InvalidQuery(f"more than {SERVICES_MAX} services")
    kinds = parameters.getlist("spanKind") or ["server"]
    for kind in kinds:
        if kind.lower() not in _KINDS:
            raise InvalidQuery(f"unsupported span kind: {kind[:50]!r}")
    wanted = "|".join(f"SPAN_KIND_{kind.upper()}" for kind in dict.fromkeys(kinds))
    return f"service=~{_quoted('|'.join(map(re.escape, services)))},span_kind=~{_quoted(wanted)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _switch(parameters: QueryParams, name: str) -> bool:
    text = parameters.get(name, "").lower()
    if text not in ("", "true", "false", "1", "0", "t", "f"):
        raise InvalidQuery(f"unable to parse param '{name}': {text[:50]!r} is neither true nor false")
    return text in ("true", "1", "t")


def _quantile(text: str) -> float:
    try:
        quantile = float(text)
    except ValueError:
        quantile = -1.0
    if not 0 <= quantile <= 1:
        raise InvalidQuery(f"unable to parse param 'quantile': {text[:50]!r} is no number from 0 to 1")
    return quantile


def _steps(parameters: QueryParams, now_ms: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    end = whole(parameters.get("endTs", ""), "endTs", now_ms, 0, 2**50)
    lookback = whole(parameters.get("lookback", ""), "lookback", _LOOKBACK_MS, 1, 2**50)
    step = whole(parameters.get("step", ""), "step", _STEP_MS, 1, 2**50)
    if lookback // step + 1 > POINTS_MAX:
        raise InvalidQuery(f"lookback and step make more than {POINTS_MAX} points")
    return np.arange(max(0, end - lookback), end + 1, step, dtype=np.int64)


def _family(asked: _Asked, vector: Vector, steps: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Any]:
    """Return the answer; its lines in the order of their labels."""
    times = [datetime.fromtimestamp(time / 1000, UTC).isoformat().replace("+00:00", "Z") for time in steps.tolist()]
    metrics = []
    for row in sorted(range(len(vector.labels)), key=vector.labels.__getitem__):
        there = vector.present[row] & np.isfinite(vector.values[row])
        names = {"service": "service_name", "span_name": "operation"}
        points = [
            {"gaugeValue": {"doubleValue": float(vector.values[row, at]) * asked.scale}, "timestamp": times[at]}
            for at in np.flatnonzero(there).tolist()
        ]
        labels = [{"name": names[name], "value": text} for name, text in vector.labels[row] if name in names]
        if points:
            metrics.append({"labels": labels, "metricPoints": points})
    return {"name": asked.name, "type": "GAUGE", "help": asked.help, "metrics": metrics}
