"""`/metrics/spans`: the span metrics, for a Prometheus to scrape; the same that /api/v1 answers queries from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

from collector.api.exposition import Exposed, exposed, exposition, line, wants_openmetrics

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.query.spanmetrics.demand import SpanMetrics
    from collector.query.spanmetrics.series import SpanSeries


def routes(engine: Engine, generator: SpanMetrics | None) -> list[BaseRoute]:
    """Return the route; without a generator it answers 404, and why."""

    async def spans(request: Request) -> Response:
        if generator is None:
            return PlainTextResponse("span metrics are off (metrics_generator.enabled)\n", 404)
        openmetrics = wants_openmetrics(request)
        body = await engine.run(_expose, generator.series(), openmetrics)
        return exposed(body, openmetrics=openmetrics)

    return [Route("/metrics/spans", spans)]


def _expose(deadline: Deadline, series: SpanSeries, openmetrics: bool) -> bytes:
    families = {}
    for metric, values in series.newest():
        deadline.check()
        family = families[metric.name] = Exposed(metric.type, metric.help)
        for labels, value in values:
            name = dict(labels)["__name__"]
            family.lines[name, labels] = line(name, labels, value)
    body, _ = exposition(families, openmetrics=openmetrics)
    return body
