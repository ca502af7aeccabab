"""Span metrics on demand: nothing is counted, and nothing held, until somebody asks for the first time.

Counting is a sixth of the instructions that receiving a span takes, and most daemons are never asked. The first question
finds the spans counted that the ring still has of those received since the start, each at the time at which it ended, so
that rates are there at once; from then on blocks are counted as they are committed. What was received in an earlier life
is not counted again: counters begin anew with a process, and whoever scrapes them relies on that.

Owned by the event loop's thread, which the first question holds for as long as `HELD_MAX` spans take: about 12 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from collector.query.promql.ast import selectors
from collector.query.promql.series import matcher_of
from collector.query.spanmetrics.generator import Generator
from collector.query.spanmetrics.series import CALLS, EDGES

if TYPE_CHECKING:
    from collector.clock import Clock
    from collector.otlp.block import Block
    from collector.query.promql.ast import Expression
    from collector.query.spanmetrics.series import SpanSeries
    from collector.store import Store

HELD_MAX = 200_000
"""Spans of the ring that the first question counts: the newest."""
INTERVAL_MS = 15_000
"""How far apart the values of those are kept."""
_NAMES: Final = tuple(
    dict.fromkeys(sample.name for table in (CALLS, EDGES) for one in table.metrics for sample in one.samples)
)


def asks(expression: Expression) -> bool:
    """Tell whether a PromQL query is about span metrics, as far as names tell: one of its selectors finds one of theirs.

    It is asked of every query, so that dashboards about other things begin no counting. Raises InvalidQuery for an
    expression that is none, as evaluating the query would.
    """
    for selector in selectors(expression):
        matches = matcher_of([one for one in selector.matchers if one.name == "__name__"])
        if any(matches((("__name__", name),)) for name in _NAMES):
            return True
    return False


class SpanMetrics:
    """Span metrics of one store of traces, from the first question on."""

    def __init__(self, clock: Clock, max_bytes: int) -> None:
        """Belong to no store yet: see `attach`. The history has at most `max_bytes`."""
        self._clock = clock
        self._max_bytes = max_bytes
        self._store: Store | None = None
        self._since = self._since_ms = 0
        self._generator: Generator | None = None

    def attach(self, store: Store) -> None:
        """Count the spans that this store receives from now on."""
        self._store = store
        self._since, self._since_ms = store.ring.next_offset, self._clock.now_ns() // 1_000_000
        store.observe(self.add)

    def add(self, block: Block) -> None:
        """Count a block's spans, if anybody has ever asked."""
        if self._generator is not None:
            self._generator.add(block)

    def tick(self) -> None:
        """End an interval."""
        if self._generator is not None:
            self._generator.tick()

    def series(self) -> SpanSeries:
        """Return all values there are now, for queries in any thread."""
        if self._generator is None:
            self._generator = self._begin()
        return self._generator.series()

    def _begin(self) -> Generator:
        generator = Generator(self._clock, self._max_bytes, self._since_ms)
        if self._store is None:
            return generator
        held = self._store.ring.snapshot()
        first = max(self._since, held.first_offset, held.next_offset - HELD_MAX)
        blocks = [block for block in held.blocks if block.end_offset > first]
        if self._store.under_way is not None:
            blocks.append(self._store.under_way)  # `add` was told of it, when nobody had asked
        time, now = self._since_ms, self._clock.now_ns() // 1_000_000
        for block in blocks:
            newest = block.max_time // 1_000_000
            if time + INTERVAL_MS <= newest <= now:
                time = newest
                generator.tick(time)
            generator.add(block, max(0, first - block.base_offset))
        generator.tick()
        return generator

    @property
    def nbytes(self) -> int:
        """What it holds of memory, in bytes."""
        return self._generator.nbytes if self._generator is not None else 0

    def stats(self) -> dict[str, Any]:
        """Return its part of `/api/stats`."""
        if self._generator is not None:
            return self._generator.stats()
        none = {"calls": 0, "edges": 0}
        return {"series": none, "folded": none, "waiting": 0, "expired": 0, "bytes": 0}
