"""Loki's `query` and `query_range`: from parameters to a plan, a view of the store, and an answer, serialized."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.api.loki_parameters import QUERY_SPAN, Parameters
from collector.api.loki_shapes import (
    CATEGORIZE,
    instant,
    is_categorized,
    matrix,
    statistics_data,
    streams,
    success,
    warnings_of,
)
from collector.errors import InvalidQuery
from collector.query.logql import ast
from collector.query.logql.logs import read_lines
from collector.query.logql.metrics import evaluate
from collector.query.logql.plan import Plan, prepare
from collector.query.logql.source import Source, Statistics
from collector.query.logql.spaced import read_spaced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.query.logql.logs import Line
    from collector.store import Store, View


SHORT_CHARS: Final = 1000
"""Characters of a query that is parsed at once, on the event loop, in some 50 µs: a worker thread costs more than that."""
_SLOW: Final = re.compile(r"\\+[pP]|\{\s*[0-9]")
"""What regular expressions have that take ms to compile, a few characters long: classes of Unicode, and counted repetitions."""


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
    interval_ns: int = 0
    """How far lines must be from each other."""


class Queries:
    """The endpoints that run LogQL. Each returns the JSON of its answer."""

    def __init__(self, store: Store, engine: Engine) -> None:
        """Answer from the store of logs."""
        self._store = store
        self._engine = engine

    async def query_range(self, request: Request) -> bytes:
        """Answer a query over a range of time: lines, or series with many points."""
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
        start_ns, end_ns = parameters.bounds(QUERY_SPAN)
        plan = await self._plan(parameters)
        lines = isinstance(plan.expression, ast.LogQuery)
        steps = np.zeros(0, np.int64) if lines else parameters.steps(start_ns, end_ns)
        limit = parameters.limit() if lines else 0
        asked = _Asked(
            False,
            start_ns,
            end_ns,
            limit,
            parameters.oldest_first(),
            steps,
            is_categorized(request),
            parameters.interval() if lines else 0,
        )
        with ExitStack() as released:
            views = self._views(plan, released)
            return await self._engine.run(self._answer, plan, views, asked)

    async def query(self, request: Request) -> bytes:
        """Answer a metric query at one time."""
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
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

    async def _plan(self, parameters: Parameters) -> Plan:
        text = parameters.text("query")
        if len(text) <= SHORT_CHARS and not _SLOW.search(text):
            return prepare(text)
        return await self._engine.run(_prepare, text)

    def _views(self, plan: Plan, released: ExitStack) -> dict[bytes | None, View]:
        """Return the views that a plan needs, of one moment, to be released with the stack."""
        return {
            service: released.enter_context(self._store.view("service", service) if service else self._store.view())
            for service in plan.services
        }

    def _answer(self, deadline: Deadline, plan: Plan, views: Mapping[bytes | None, View], asked: _Asked) -> bytes:
        """Run a query and serialize its answer. In a worker thread."""
        started = self._engine.clock.monotonic()
        statistics = Statistics()
        data: dict[str, Any]
        if isinstance(plan.expression, ast.LogQuery):
            [source] = plan.sources.values()
            view = views[source.selection.service]
            lines = _lines(deadline, view, source, asked, statistics)
            entries = len(lines)
            data = {"resultType": "streams", "result": streams(lines, asked.categorized)}
            if asked.categorized:
                data["encodingFlags"] = [CATEGORIZE]
        else:
            value = evaluate(deadline, views, plan, asked.steps, statistics)
            entries = 1 if isinstance(value, float) else len(value)
            data = instant(value, asked.end_ns) if asked.instant else matrix(value, asked.steps)
        seconds = self._engine.clock.monotonic() - started
        data["stats"] = statistics_data(statistics, seconds, entries)
        return success(data, warnings_of(*views.values()))


def _lines(deadline: Deadline, view: View, source: Source, asked: _Asked, statistics: Statistics) -> list[Line]:
    """Return the lines of a log query."""
    bounds = asked.start_ns, asked.end_ns - 1
    if asked.interval_ns:
        return read_spaced(
            deadline, view, source, *bounds, asked.limit, asked.oldest_first, asked.interval_ns, statistics
        )
    return read_lines(deadline, view, source, *bounds, asked.limit, asked.oldest_first, statistics)


def _prepare(deadline: Deadline, text: str) -> Plan:
    return prepare(text)
