"""What a query does, for who asks to have it explained: passes over ring and log, what they left out, and why.

A query that is explained runs as any other, by the same code, under a deadline that carries an `Effort`; others carry none,
and pay for the question whether they do, once a block. Numbers are counted where blocks are chosen and conditions
evaluated, and belong to the pass that runs at that time: the last one that was begun and is not over. The time of a pass
is without that of those inside of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from collector.query.engine import Engine
from collector.wal.counts import ReadCounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from collector.clock import Clock
    from collector.otlp.block import Block
    from collector.otlp.terms import Term
    from collector.query.deadline import Deadline
    from collector.query.engine import Result
    from collector.ring.ring import Snapshot
    from collector.ring.search import Stretch

P = ParamSpec("P")
R = TypeVar("R")

REMEMBERED = "remembered columns"
MAYBE = "remembered columns tell which records may match; those are evaluated"
STAGES_MAX = 256
"""Stages of one pass that are told apart; what further ones do is not noted."""


@dataclass(slots=True)
class RingEffort:
    """Blocks of the ring, by what became of them, and records."""

    blocks: int = 0
    """Blocks that there were."""
    by_index: int = 0
    """Left out: the postings know of no record with the key."""
    by_keywords: int = 0
    """Left out: the keyword index knows of no record that can have the words."""
    by_time: int = 0
    """Left out: outside of the time range."""
    not_wanted: int = 0
    """Left out when their turn came: enough newer (or older) records had been found."""
    looked_at: int = 0
    records: int = 0
    """Records that were left of those looked at, by index, time and what is live, for conditions to decide."""
    keyword_records: int = 0
    """Records that the keyword index was asked about."""
    keyword_candidates: int = 0
    """Those of them that can have the words."""
    remembered_blocks: int = 0
    """Blocks that remembered columns stood for; only what they could not decide was looked at."""
    remembered_records: int = 0
    """Records that remembered columns had an answer for, at once."""
    remembered_matches: int = 0
    """Those of them that may match."""


@dataclass(slots=True)
class LogEffort:
    """The same of the log behind the ring."""

    read: ReadCounts = field(default_factory=ReadCounts)
    """Segments and frames."""
    looked_at: int = 0
    """Blocks that were read, or taken from the cache."""
    bytes: int = 0
    """Of their payloads."""
    records: int = 0


@dataclass(slots=True)
class BackendEffort:
    """What came from behind the log."""

    asked: int = 0
    """How often; more than once where many traces are asked for."""
    seconds: float = 0.0
    """Spent with waiting for it."""
    blocks: int = 0
    bytes: int = 0
    """Of their payloads."""
    records: int = 0
    """That are of the time and the key, and not held."""


@dataclass(slots=True)
class Stage:
    """A stage or a condition: records that came to it, records that it left, and its time."""

    records_in: int = 0
    records_out: int = 0
    seconds: float = 0.0
    how: str = ""
    """How it was decided, where there are several ways."""


@dataclass(slots=True)
class Pass:
    """One way through ring and log, or a part of the work behind that."""

    name: str
    times: int = 0
    seconds: float = 0.0
    ring: RingEffort = field(default_factory=RingEffort)
    log: LogEffort = field(default_factory=LogEffort)
    backend: BackendEffort = field(default_factory=BackendEffort)
    stages: dict[str, Stage] = field(default_factory=dict)

    def stage(self, text: str) -> Stage:
        """Return the stage of this text."""
        if text not in self.stages and len(self.stages) >= STAGES_MAX:
            return Stage()
        return self.stages.setdefault(text, Stage())


class Effort:
    """What one query does. For the thread that it runs in."""

    def __init__(self, clock: Clock) -> None:
        """Begin with a pass that is called `query`."""
        self.clock = clock
        self.passes: dict[str, Pass] = {}
        self._open: list[Pass] = []
        self._since = clock.monotonic()
        self._last: Block | None = None
        self._range = 0, 2**64 - 1
        self._begin("query")

    @property
    def now(self) -> Pass:
        """The pass that runs."""
        return self._open[-1]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Let a pass run; it goes on if there has been one of that name."""
        made = self._begin(name)
        try:
            yield
        finally:
            self.tick()
            self._open.remove(made)

    def _begin(self, name: str) -> Pass:
        if self._open:
            self.tick()
        made = self.passes.setdefault(name, Pass(name))
        made.times += 1
        self._last = None
        self._open.append(made)
        return made

    def within(self, start_ns: int, end_ns: int) -> None:
        """What follows looks for records in this range of time."""
        self._range = start_ns, end_ns

    def searched(self, blocks: Sequence[Block], stretches: Iterable[Stretch]) -> Iterator[Stretch]:
        """Pass on what the keyword index finds in these blocks of the ring; of some it may not have been asked."""
        ring = self.now.ring
        ring.blocks += len(blocks)
        bases = np.array([block.base_offset for block in blocks], np.int64)
        asked, having = np.zeros(len(blocks), np.bool_), np.zeros(len(blocks), np.bool_)
        try:
            for one in stretches:
                if one.first < one.end:
                    first, last = np.searchsorted(bases, (one.first, one.end - 1), side="right") - 1
                    asked[first : last + 1] = True
                    if one.offsets is None:
                        having[first : last + 1] = True
                    else:
                        ring.keyword_records += one.end - one.first
                        ring.keyword_candidates += len(one.offsets)
                        having[np.searchsorted(bases, one.offsets, side="right") - 1] = True
                yield one
        finally:
            ring.by_keywords += int((asked & ~having).sum())
            for at in np.flatnonzero(~asked).tolist():
                self.left_out(blocks[at])

    def left_out(self, block: Block) -> None:
        """A block of the ring was left out when its turn came: of another time, or not wanted any more."""
        if block is self._last:
            return
        self._last = block
        if block.max_time < self._range[0] or block.min_time > self._range[1]:
            self.now.ring.by_time += 1
        else:
            self.now.ring.not_wanted += 1

    def of_ring(self, block: Block, records: int) -> None:
        """A block of the ring was looked at; parts of one block come one after the other."""
        ring = self.now.ring
        ring.looked_at += block is not self._last
        ring.records += records
        self._last = block

    def by_postings(self, blocks: int, looked_at: int, records: int) -> None:
        """Of so many blocks of the ring, the postings have told where the records lie."""
        ring = self.now.ring
        ring.blocks += blocks
        ring.by_index += blocks - looked_at
        ring.looked_at += looked_at
        ring.records += records

    def stage(self, text: str, records_in: int, records_out: int, began: float) -> None:
        """A stage was run on some records; `began` is the clock's time before it."""
        stage = self.now.stage(text)
        stage.records_in += records_in
        stage.records_out += records_out
        stage.seconds += self.clock.monotonic() - began

    def remembered(self, condition: str, mask: NDArray[np.bool_], blocks: int, *, exact: bool) -> None:
        """A condition was answered by remembered columns, which spares so many blocks: a mask of the ring's records that may
        fulfil it or, exactly, do."""
        stage = self.now.stage(condition)
        stage.how = REMEMBERED if exact else MAYBE
        ring = self.now.ring
        ring.remembered_blocks += blocks
        ring.remembered_records += len(mask)
        ring.remembered_matches += int(mask.sum())

    def by_columns(self, ring: Snapshot) -> None:
        """Remembered columns stand for all of the ring."""
        self.now.ring.blocks += len(ring.blocks)
        self.now.ring.remembered_blocks += len(ring.blocks)

    def by_labels(self, blocks: Sequence[Block]) -> None:
        """Remembered labels stand for these blocks of the ring, as far as they lie in the range of time."""
        ring = self.now.ring
        ring.blocks += len(blocks)
        inside = sum(block.max_time >= self._range[0] and block.min_time <= self._range[1] for block in blocks)
        ring.by_time += len(blocks) - inside
        ring.remembered_blocks += inside

    def by_streams(self, selector: str, records: int, selected: int) -> None:
        """Remembered streams have told which of some records are selected."""
        self.stage(selector, records, selected, self.clock.monotonic())
        self.now.stage(selector).how = "remembered labels"
        self.now.ring.remembered_records += records
        self.now.ring.remembered_matches += selected

    def of_log(self, block: Block, records: int) -> None:
        """A block of the log was read."""
        log = self.now.log
        log.looked_at += 1
        log.bytes += len(block.payload)
        log.records += records

    def of_backend(self, block: Block, records: int) -> None:
        """A block came from a backend."""
        backend = self.now.backend
        backend.blocks += 1
        backend.bytes += len(block.payload)
        backend.records += records

    def start(self) -> None:
        """Time counts from now on, after a wait."""
        self._since = self.clock.monotonic()

    def tick(self) -> None:
        """Add the time since the last look at the clock to the pass that runs."""
        now = self.clock.monotonic()
        self.now.seconds += now - self._since
        self._since = now


@dataclass(frozen=True, slots=True)
class Use:
    """A part of a query, and how it is answered."""

    part: str
    """In the query's own language."""
    how: str
    index: str = ""
    """The index that is used, if one is."""
    key: bytes = b""
    """What is looked up there."""
    term: Term = ()
    """What the keyword index is asked, if it is: one of these texts."""


def as_part(name: str) -> Callable[[Callable[Concatenate[Deadline, P], R]], Callable[Concatenate[Deadline, P], R]]:
    """Name a function's part of a query, for who asks. It takes the deadline first."""

    def decorate(function: Callable[Concatenate[Deadline, P], R]) -> Callable[Concatenate[Deadline, P], R]:
        @functools.wraps(function)
        def run(deadline: Deadline, /, *args: P.args, **options: P.kwargs) -> R:
            if deadline.effort is None:
                return function(deadline, *args, **options)
            with deadline.effort.part(name):
                return function(deadline, *args, **options)

        return run

    return decorate


class Explaining(Engine):
    """An engine for one query: it runs in another one, and notes what it does."""

    def __init__(self, engine: Engine, effort: Effort) -> None:
        self.clock = engine.clock
        self.timeout_s = engine.timeout_s
        self._engine = engine
        self._effort = effort

    async def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """See `Engine.run`."""
        return await self._engine.run(self._noted, function, *args)

    def _noted(self, deadline: Deadline, function: Callable[..., Result], *args: Any) -> Result:
        deadline.effort = self._effort
        self._effort.start()
        try:
            return function(deadline, *args)
        finally:
            self._effort.tick()
