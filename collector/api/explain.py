"""`GET /api/explain`: run a query as its own API would, and say how: which index each part of it uses, and what was left out,
looked at and found, pass by pass. docs/api.md has the shape.

The query is run by the very handler that answers it, with the same parameters, on an engine that notes what is done
(`query/effort.py`); of its answer only the size is returned. An error is answered as that API does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from collector.api import loki, prometheus, tempo, tempo_metrics
from collector.api.partial import missing
from collector.api.tempo import answering, covered, json_response
from collector.errors import InvalidQuery
from collector.otlp.terms import PREFIX, SUFFIX, TRACE, WHOLE, WITHIN
from collector.query.effort import Effort, Explaining
from collector.query.logql import ast
from collector.query.logql.explain import uses as uses_of_logql
from collector.query.logql.plan import prepare
from collector.query.promql.explain import uses as uses_of_promql
from collector.query.promql.parser import parse as parse_promql
from collector.query.traceql.explain import uses as uses_of_traceql
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import plan
from collector.query.traceql.stages import is_metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.responses import Response

    from collector.api.limit import ResponseLimit
    from collector.query.deadline import Deadline
    from collector.query.effort import Pass, Use
    from collector.query.engine import Engine
    from collector.query.spanmetrics.series import SpanSeries
    from collector.store import Store, View

LANGUAGES: Final = {"traceql": "traces", "logql": "logs", "promql": "metrics"}
"""Each language, and the signal that it asks about."""
_STANDS: Final = {WHOLE: "whole", PREFIX: "at the beginning", SUFFIX: "at the end", WITHIN: "inside"}
"""Where in a word of the record a word of the query stands."""
_OVER_TIME: Final = ("start", "step", "since")
"""Parameters that a query over a range of time has, and one at a single time has not."""


def routes(
    stores: Mapping[str, Store], engine: Engine, limit: ResponseLimit, more: Callable[[], Sequence[SpanSeries]] = tuple
) -> list[BaseRoute]:
    """Return the route over all three stores; the others' arguments are those of the APIs that are explained."""
    return [Route("/api/explain", answering(_Explain(stores, engine, limit, more).explain, language=""))]


class _Explain:
    def __init__(
        self,
        stores: Mapping[str, Store],
        engine: Engine,
        limit: ResponseLimit,
        more: Callable[[], Sequence[SpanSeries]],
    ) -> None:
        self._stores = stores
        self._engine = engine
        self._limit = limit
        self._more = more

    async def explain(self, request: Request) -> Response:
        asked = request.query_params
        language = asked.get("language", "") or "traceql"
        if language not in LANGUAGES:
            raise InvalidQuery(f"language must be {', '.join(LANGUAGES)}, not {language[:50]!r}")
        text = asked.get("q", "") or asked.get("query", "")
        planned = await self._engine.run(_planned, language, text)
        effort = Effort(self._engine.clock)
        began = self._engine.clock.monotonic()
        handler = self._handler(language, request, planned, Explaining(self._engine, effort))
        response = await handler(_renamed(request, text))
        if response.status_code != 200:
            return response
        seconds = self._engine.clock.monotonic() - began
        store = self._stores[LANGUAGES[language]]
        shown = [_use(one, store) for one in planned.uses]
        with store.view() as view:
            coverage = covered(view)
            await self._engine.run(_add_words, view, planned.uses, shown)
        return json_response(
            {
                "language": language,
                "query": text,
                "plan": shown,
                "passes": [_pass(one) for one in effort.passes.values()],
                "answer": {**_size(bytes(response.body)), "bytes": len(response.body)},
                "seconds": round(seconds, 6),
                "coverage": coverage,
            }
            | ({"missing": reasons} if (reasons := missing()) else {})
        )

    def _handler(
        self, language: str, request: Request, planned: _Planned, engine: Engine
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return what answers the query."""
        over_time = planned.is_records or any(request.query_params.get(name) for name in _OVER_TIME)
        if language == "promql":
            path = f"/api/v1/query{'_range' if over_time else ''}"
            found = prometheus.routes(self._stores, engine, self._more)
        elif language == "logql":
            path = f"/loki/api/v1/query{'_range' if over_time else ''}"
            found = loki.routes(self._stores, engine)
        elif planned.is_records:
            path, found = "/api/search", tempo.routes(self._stores, engine, self._limit)
        else:
            path, found = "/api/metrics/query_range", tempo_metrics.routes(self._stores, engine)
        handlers = {one.path: one.endpoint for one in found if isinstance(one, Route)}
        handler: Callable[[Request], Awaitable[Response]] = handlers[path]
        return handler


@dataclass(frozen=True, slots=True)
class _Planned:
    """What is known of a query before it runs."""

    is_records: bool
    """It yields lines or traces, not series."""
    uses: list[Use]


def _planned(deadline: Deadline, language: str, text: str) -> _Planned:
    try:
        if language == "logql":
            prepared = prepare(text)
            return _Planned(isinstance(prepared.expression, ast.LogQuery), list(uses_of_logql(prepared)))
        if language == "traceql":
            query = parse(text)
            return _Planned(not is_metrics(query), list(uses_of_traceql(plan(query))))
        return _Planned(False, list(uses_of_promql(parse_promql(text))))
    except InvalidQuery:
        return _Planned(language != "promql", [])  # Its own API says what is wrong.


def _renamed(request: Request, text: str) -> Request:
    """Return the same request with the query under every name that an API has for it."""
    others = [(name, value) for name, value in request.query_params.multi_items() if name not in ("q", "query")]
    scope = {**request.scope, "query_string": urlencode([("q", text), ("query", text), *others]).encode()}
    return Request(scope, request.receive)


# --- what is answered -------------------------------------------------------------------------------------------


def _use(one: Use, store: Store) -> dict[str, Any]:
    shown: dict[str, Any] = {"part": one.part, "how": one.how}
    if one.index:
        key = one.key.hex() if one.index == "trace_id" else one.key.decode("utf-8", "replace")
        records = store.ring.count(one.index, store.ring.key(one.index, one.key))
        shown |= {"index": one.index, "key": key, "recordsInMemory": records}
    return shown


def _add_words(deadline: Deadline, view: View, uses: list[Use], shown: list[dict[str, Any]]) -> None:
    """Add what the keyword index knows: of each word, how many records in memory can have it, at most."""
    for use, one in zip(uses, shown, strict=True):
        deadline.check()
        words = [
            {
                "word": piece.text.hex() if piece.kind == TRACE else piece.text.decode("utf-8", "replace"),
                "stands": _STANDS[piece.how],
                "recordsInMemory": records,
            }
            for sought in use.term
            for piece, records in view.word_counts(sought)
        ]
        if words:
            one |= {"index": "tokens", "words": words}


def _pass(one: Pass) -> dict[str, Any]:
    ring, read = one.ring, one.log.read
    shown: dict[str, Any] = {
        "pass": one.name,
        "times": one.times,
        "seconds": round(one.seconds, 6),
        "memory": {
            "blocks": ring.blocks,
            "leftOutByIndex": ring.by_index,
            "leftOutByKeywords": ring.by_keywords,
            "leftOutByTime": ring.by_time,
            "notWanted": ring.not_wanted,
            "lookedAt": ring.looked_at,
            "records": ring.records,
        },
        "log": {
            "segments": read.segments,
            "leftOutByIndex": read.by_index,
            "leftOutByTime": read.by_time,
            "notWanted": read.not_wanted,
            "readByIndex": read.indexed,
            "readWhole": read.whole,
            "stretches": read.stretches,
            "framesPassed": read.passed,
            "framesRead": read.read,
            "framesCached": read.cached,
            "lookedAt": one.log.looked_at,
            "bytes": one.log.bytes,
            "records": one.log.records,
        },
        "stages": [
            {
                "stage": text,
                "recordsIn": stage.records_in,
                "recordsOut": stage.records_out,
                "seconds": round(stage.seconds, 6),
            }
            | ({"how": stage.how} if stage.how else {})
            for text, stage in one.stages.items()
        ],
    }
    if one.backend.asked:
        backend = one.backend
        shown["backend"] = {
            "asked": backend.asked,
            "seconds": round(backend.seconds, 6),
            "blocks": backend.blocks,
            "bytes": backend.bytes,
            "records": backend.records,
        }
    if ring.keyword_records:
        shown["keywords"] = {"records": ring.keyword_records, "candidates": ring.keyword_candidates}
    if ring.remembered_blocks:
        remembered = {"records": ring.remembered_records, "mayMatch": ring.remembered_matches}
        shown["remembered"] = {"blocks": ring.remembered_blocks, **remembered}
    return shown


def _size(body: bytes) -> dict[str, Any]:
    """Return how much an answer holds: lines, traces or series."""
    answer = msgspec.json.decode(body)
    if "traces" in answer:
        return {"traces": len(answer["traces"])}
    if "series" in answer:
        return {"series": len(answer["series"])}
    data = answer["data"]
    if data["resultType"] == "streams":
        return {"lines": sum(len(stream["values"]) for stream in data["result"])}
    return {"series": len(data["result"]) if data["resultType"] in ("matrix", "vector") else 1}
