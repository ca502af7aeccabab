"""Loki's `labels`, `label/…/values`, `series`, `index/stats` and `index/volume`: what streams there are, and how large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from collector.api.loki_parameters import LABELS_SPAN, QUERY_SPAN, Parameters
from collector.api.loki_shapes import success, volumes_data, warnings_of
from collector.api.partial import warnings
from collector.errors import InvalidQuery
from collector.query.logql import ast, catalogue, volumes
from collector.query.logql.parser import parse_selector

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.store import Store, View


class Catalogue:
    """The endpoints about streams. Each returns the JSON of its answer."""

    def __init__(self, store: Store, engine: Engine) -> None:
        """Answer from the store of logs."""
        self._store = store
        self._engine = engine

    async def labels(self, request: Request) -> bytes:
        """Answer with the names of index labels."""
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
        found = await self._catalogue(catalogue.label_names, parameters, parameters.all("query"))
        return success(found, warnings())

    async def label_values(self, request: Request) -> bytes:
        """Answer with the values of an index label."""
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
        name = request.path_params["name"]
        found = await self._catalogue(catalogue.label_values, parameters, parameters.all("query"), name)
        return success(found, warnings())

    async def series(self, request: Request) -> bytes:
        """Answer with the streams that selectors select."""
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
        texts = [*parameters.all("match[]"), *parameters.all("match")]
        if not any(texts):
            raise InvalidQuery("at least one match[] parameter is needed: a stream selector, or {} for all streams")
        found = await self._catalogue(catalogue.streams, parameters, texts)
        return success(found, warnings())

    async def index_stats(self, request: Request) -> bytes:
        """Answer with how much a selector selects. A chunk is what Ringtail calls a block."""
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
        query = parameters.text("query")
        if not query:
            raise InvalidQuery("the parameter query is needed: a stream selector")
        volume = await self._catalogue(_volume, parameters, [query], span_ns=QUERY_SPAN)
        return msgspec.json.encode(
            {"streams": volume.streams, "chunks": volume.blocks, "entries": volume.entries, "bytes": volume.bytes}
        )

    async def volume(self, request: Request) -> bytes:
        """Answer with how many bytes there are of each stream or label."""
        return await self._volumes(request, ranged=False)

    async def volume_range(self, request: Request) -> bytes:
        """Answer with the same for each step."""
        return await self._volumes(request, ranged=True)

    async def _volumes(self, request: Request, *, ranged: bool) -> bytes:
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
        start_ns, end_ns = parameters.bounds(QUERY_SPAN)
        step_ns = parameters.step(start_ns, end_ns) if ranged else 0
        limit = parameters.number("limit", volumes.LIMIT_DEFAULT)
        by = parameters.text("aggregateBy") or "series"
        if by not in ("series", "labels"):
            raise InvalidQuery(f"aggregateBy must be series or labels, not {by[:40]!r}")
        targets = [name for one in parameters.all("targetLabels") for name in one.split(",") if name]
        text = parameters.text("query")
        if not text:
            raise InvalidQuery("the parameter query is needed: a stream selector, or {} for all streams")

        def ask(deadline: Deadline, view: View) -> bytes:
            selector = parse_selector(text)
            found = volumes.volumes(
                deadline, view, selector, start_ns, end_ns, step_ns, targets, by_labels=by == "labels", limit=limit
            )
            return success(volumes_data(found, ranged=ranged), warnings_of(view))

        with self._store.view() as view:
            return await self._engine.run(ask, view)

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


def _volume(
    deadline: Deadline, view: View, selectors: list[ast.Selector], start_ns: int, end_ns: int
) -> catalogue.Volume:
    return catalogue.volume(deadline, view, selectors[0], start_ns, end_ns)
