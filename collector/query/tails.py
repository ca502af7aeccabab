"""All live tails of the daemon (`tail.py`): how many there may be, what they hold, and the thread that they run in.

One worker thread for all. Matching is compiled and lets ingest run beside it; encoding what matches holds Python's lock, so
the thread rests `REST_TIMES` as long as that took: a quarter of the lock's time at most, however many tails there are. Before
a tail looks it takes `ROOM_BYTES` of the budget, and waits where there is none; afterwards it holds what it really tells, until
its reader has taken that. Owner: the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from collector.errors import Overloaded, Unavailable
from collector.query.engine import Engine
from collector.query.tail import CLOSED, FAILED, REVOKED, ROOM_BYTES, STOPPED, STUCK, Tail
from collector.query.tail_filters import LANGUAGES
from collector.query.tail_scan import Scan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from prometheus_client import CollectorRegistry

    from collector.clock import Clock
    from collector.otlp.signals import Signal
    from collector.query.tail import Encode
    from collector.store import Store

TIMEOUT_S: Final = 30.0
"""How long a turn may take, waiting for those of others included."""
BYTES_MAX_DEFAULT: Final = 32 * 1024 * 1024
REST_TIMES: Final = 3
TENANT_TIMES: Final = 2
"""Tails of one tenant, in times of what is left free: none takes all."""
ENDS: Final = (CLOSED, STUCK, STOPPED, FAILED, REVOKED)
"""Why tails end, as the metric says it."""


@dataclass(slots=True)
class Counts:
    """What all tails have done."""

    told: int = 0
    missed: int = 0


@dataclass(slots=True)
class Turn:
    """One look of one tail, and how long its encoding took."""

    encoded_s: float = 0.0


class Tails:
    """All live tails of the daemon: how many there may be, what they hold, and the thread that they run in."""

    def __init__(
        self, count_max: int, clock: Clock, registry: CollectorRegistry | None = None, *, apart: bool = False
    ) -> None:
        """Allow `count_max` at a time; `apart` says that stores are of several tenants. `close` ends it."""
        self.count_max = count_max
        self.bytes_max = BYTES_MAX_DEFAULT
        """What may be held of records that readers have not taken yet."""
        self.held_bytes = 0
        self.engine = Engine(1, TIMEOUT_S, clock)
        self.clock = clock
        self.stopping = False
        self._apart = apart
        self._open: set[Tail] = set()
        self._scans: dict[Store, Scan] = {}
        self._freed = asyncio.Event()
        self._turns = asyncio.Lock()
        self._rests_until = -math.inf
        self._counts = {signal: Counts() for signal in LANGUAGES}
        self._ended = dict.fromkeys(ENDS, 0)
        if registry is not None:
            registry.register(self)

    def open(
        self,
        store: Store,
        query: str,
        past: int,
        offset: int | None,
        encode: Encode,
        engine: Engine,
        *,
        since_ns: int = 0,
        delay_s: float = 0.0,
    ) -> Tail:
        """Begin a tail, which its caller ends by `close`; `encode` makes the form that its reader wants, in a thread.

        It tells the newest `past` matches first, none older than `since_ns`, or, with an `offset`, what has come from there
        on. What follows it tells `delay_s` seconds after it came. `engine` is what queries run in: the past is one. Raises InvalidQuery, Overloaded when there are too many, and Unavailable.
        """
        match, key = LANGUAGES[store.signal](query)
        if self.stopping:
            raise Unavailable("the daemon is shutting down")
        mine = sum(one.store is store for one in self._open)
        if len(self._open) >= self.count_max or (self._apart and mine >= TENANT_TIMES * self._free):
            raise Overloaded(
                f"there are {len(self._open)} tails, {mine} of them here; query.max_tails sets the limit", 5.0
            )
        followed = self._scans.setdefault(store, Scan()).follow(query, match)
        made = Tail(self, store, followed, key, past, offset, encode, engine, since_ns, delay_s)
        self._open.add(made)
        return made

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """Look, one tail at a time, after a rest for ingest and queries. Raises Unavailable when the daemon stops."""
        async with self._turns:
            rest = self._rests_until - self.clock.monotonic()
            if rest > 0:
                await asyncio.sleep(rest)
            if self.stopping:
                raise Unavailable("the daemon is shutting down")
            turn = Turn()
            yield turn
            self._rests_until = self.clock.monotonic() + REST_TIMES * turn.encoded_s

    @property
    def _free(self) -> int:
        return self.count_max - len(self._open)

    async def room(self) -> None:
        """Take `ROOM_BYTES`, when there is room for them."""
        while self.held_bytes and self.held_bytes + ROOM_BYTES > self.bytes_max:
            self._freed.clear()
            await self._freed.wait()
        self.held_bytes += ROOM_BYTES

    def give_back(self, size: int) -> None:
        """Give room back."""
        self.held_bytes -= size
        assert self.held_bytes >= 0, "more was given back than taken"
        self._freed.set()

    def counts(self, signal: Signal) -> Counts:
        """Return the counts of a signal's tails."""
        return self._counts[signal]

    def forget(self, tail: Tail, why: str) -> None:
        """A tail has ended."""
        self._open.discard(tail)
        if not self._scans[tail.store].is_followed:
            del self._scans[tail.store]
        self._ended[why] += 1

    def stop(self) -> None:
        """Let all tails end, as Unavailable, and open no more."""
        self.stopping = True
        for one in self._open:
            one.wake()

    def close(self) -> None:
        """End the thread; no tail runs any more."""
        self.engine.close()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, as a scrape asks for them."""
        yield GaugeMetricFamily("ringtail_tails", "Live tails.", value=len(self._open))
        yield GaugeMetricFamily(
            "ringtail_tail_held_bytes", "Bytes of records that tails hold for their readers.", value=self.held_bytes
        )
        told = CounterMetricFamily("ringtail_tail_records", "Records told to tails.", labels=("signal",))
        missed = CounterMetricFamily(
            "ringtail_tail_missed_records",
            "Records that tails have passed over and told as missed.",
            labels=("signal",),
        )
        for signal, counts in self._counts.items():
            told.add_metric((signal.name,), counts.told)
            missed.add_metric((signal.name,), counts.missed)
        ended = CounterMetricFamily(
            "ringtail_tails_ended", f"Tails that have ended, by reason: {', '.join(ENDS)}.", labels=("reason",)
        )
        for reason, count in self._ended.items():
            ended.add_metric((reason,), count)
        yield from (told, missed, ended)
