"""What both versions of Jaeger's API ask of a store of traces; each shapes what it gets."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from collector.query.jaeger.model import NO_SERVICE
from collector.query.jaeger.operations import Operation, Operations
from collector.query.jaeger.search import find
from collector.query.slices import END_OF_TIME
from collector.query.trace import SPREAD_NS, spans_of, traces_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collector.api.limit import ResponseLimit
    from collector.otlp.records import Ref
    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.query.jaeger.search import Search
    from collector.store import Store, View

    Shape = Callable[[Deadline, list[Ref], int, int], Any]
    """What is made of a trace: of its spans, the oldest offset that can be read, and how many were left out."""

OTHERWISE = "a smaller limit asks for fewer traces"
SPANS_MAX = 100_000
"""Spans in one answer; of more, traces say that they are incomplete."""

Result = TypeVar("Result")


class Traces:
    """A store of traces, as Jaeger sees it. For the event loop; the work is done in the engine's threads."""

    def __init__(self, store: Store, engine: Engine, limit: ResponseLimit) -> None:
        self._store = store
        self._engine = engine
        self._limit = limit
        self._operations = Operations()

    def now_ns(self) -> int:
        """Return the time, Unix ns."""
        return self._engine.clock.now_ns()

    async def read(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return `function(deadline, view, *args)` over everything."""
        with self._store.view() as view:
            return await self._engine.run(function, view, *args)

    async def compute(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return `function(deadline, *args)`, which reads nothing."""
        return await self._engine.run(function, *args)

    async def services(self) -> list[str]:
        """Return the names of all services with a span, sorted."""
        return sorted({one.service for one in await self.read(self._operations.known)})

    async def operations(self, service: str, kind: str) -> list[Operation]:
        """Return a service's operations, sorted; of one kind of span, if that is not empty."""
        known = await self.read(self._operations.known)
        return [one for one in known if one.service == service and kind in ("", one.kind)]

    async def by_id(self, trace: bytes, shape: Shape) -> Any:
        """Return one trace, shaped; None when it is not held."""
        with self._store.view("trace_id", trace) as view:
            return await self._engine.run(_one, view, self._limit, shape)

    async def by_ids(self, ids: Sequence[bytes], shape: Shape) -> list[Any]:
        """Return those of the traces that are held, shaped, in the order asked for."""
        return await self._several(list(dict.fromkeys(ids)), 0, END_OF_TIME, shape)

    async def found(self, search: Search, shape: Shape, *, whole: bool = True) -> list[Any]:
        """Return what a search finds, shaped, newest first; `whole` tells whether the shapes have all of the spans."""
        key = ("service", search.service.encode()) if search.service not in ("", NO_SERVICE) else ()
        with self._store.view(*key) as view:
            found = await self._engine.run(find, view, search)
        if not found:
            return []
        times = [one.time for one in found]
        since, until = max(0, min(times) - SPREAD_NS), min(max(times) + SPREAD_NS, END_OF_TIME)
        return await self._several([one.trace_id for one in found], since, until, shape, whole=whole)

    async def _several(
        self, ids: list[bytes], start_ns: int, end_ns: int, shape: Shape, *, whole: bool = True
    ) -> list[Any]:
        limit = self._limit if whole else None
        with ExitStack() as stack:
            everything = stack.enter_context(self._store.view())
            views = [stack.enter_context(self._store.view("trace_id", trace, ring_only=True)) for trace in ids]
            return await self._engine.run(_shaped, views, everything, start_ns, end_ns, limit, shape)


def _one(deadline: Deadline, view: View, limit: ResponseLimit, shape: Shape) -> Any:
    held = spans_of(deadline, view, SPANS_MAX)
    limit.require_trace(_bytes(held.refs), OTHERWISE)
    return shape(deadline, held.refs, view.first_offset, held.left_out) if held.refs else None


def _shaped(
    deadline: Deadline,
    views: Sequence[View],
    everything: View,
    start_ns: int,
    end_ns: int,
    limit: ResponseLimit | None,
    shape: Shape,
) -> list[Any]:
    found = traces_of(deadline, views, everything, start_ns, end_ns, SPANS_MAX)
    if limit is not None:
        limit.require_trace(sum(_bytes(held.refs) for held in found.values()), OTHERWISE)
    return [shape(deadline, held.refs, everything.first_offset, held.left_out) for held in found.values() if held.refs]


def _bytes(refs: Sequence[Ref]) -> int:
    """Return how many bytes spans have, without their resources."""
    return sum(int(ref.block.column("length")[ref.row]) for ref in refs)
