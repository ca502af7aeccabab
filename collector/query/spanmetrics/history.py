"""A table of counters over time: what was counted in each interval, for as long as the bytes allow.

At every tick, what `LabelSets` has counted since the last one becomes an interval: the slots that counted anything, and
their rows. Values at a tick are the sum of the intervals up to it, and of `base`, which has everything older. So a
label set costs memory only for the intervals in which it counts, and the oldest interval goes when the bytes are too
many, whatever is in it.

A label set begins at the tick before its first span, with 0, so that `rate` sees what it begins with. One that has
counted nothing for `stale_ms` ends: its slot leaves the table at once, and is free again when no interval is kept in
which it counted. Slot 0, of everything that was folded, never ends.

Owned by the event loop's thread. A query takes `moment()`: what never changes by reference, and a copy of what has been
counted since the last tick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from collector.query.spanmetrics.labelsets import LabelSets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Texts = tuple[tuple[str, str], ...]
"""Labels, without a metric's name."""

OVERFLOW: Texts = (("metric_overflow", "true"),)
"""The labels, as Tempo has them, of what was folded."""
INTERVALS_MAX = 6000
"""Intervals that are kept at most: a day at 15 s."""
INTERVAL_BYTES = 400
"""What an interval holds besides its arrays."""


@dataclass(frozen=True, slots=True)
class Interval:
    """What was counted in the time up to `time` (Unix ms): slots, ascending, and a row of counts and sums for each."""

    time: int
    slots: NDArray[np.intp]
    counts: NDArray[np.uint32]
    sums: NDArray[np.float64]

    @property
    def nbytes(self) -> int:
        """What it holds of memory, in bytes."""
        return self.slots.nbytes + self.counts.nbytes + self.sums.nbytes + INTERVAL_BYTES


@dataclass(frozen=True, slots=True)
class Life:
    """A label set: its labels, and the ticks (Unix ms) from and up to which it has values; `ended` is 0 while it lives."""

    labels: Texts
    began: int
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """All values at one moment. Nothing in it changes, but `lives` may get more entries."""

    base_time: int
    """The tick (Unix ms) at which `base` was counted; values before are not known."""
    base_counts: NDArray[np.int64]
    base_sums: NDArray[np.float64]
    intervals: tuple[Interval, ...]
    lives: Mapping[int, Life]
    """By slot."""
    open: Interval
    """What has been counted since the last tick, which its time, the moment, lies behind."""


class History:
    """The values of one `LabelSets` at every tick."""

    def __init__(self, sets: LabelSets, max_bytes: int, stale_ms: int, now_ms: int) -> None:
        """Begin with nothing counted. Intervals have at most `max_bytes`."""
        self.sets = sets
        self._max_bytes = max_bytes
        self._stale_ms = stale_ms
        self._base_time = now_ms
        self._base_counts = np.zeros(sets.counts.shape, np.int64)
        self._base_sums = np.zeros(sets.sums.shape)
        self._intervals: tuple[Interval, ...] = ()
        self._interval_bytes = 0
        self._lives: dict[int, Life] = {0: Life(OVERFLOW, now_ms)}
        self._active = np.full(sets.capacity, now_ms, np.int64)  # by slot: the last tick at which it had counted

    @property
    def last_tick(self) -> int:
        """The time of the last tick, Unix ms."""
        return self._intervals[-1].time if self._intervals else self._base_time

    @property
    def nbytes(self) -> int:
        """What it holds of memory, in bytes, the table of counters left out."""
        fixed = self._base_counts.nbytes + self._base_sums.nbytes + self._active.nbytes
        return fixed + self._interval_bytes + len(self._lives) * 500

    def begin(self, slot: int, labels: Texts) -> None:
        """Give a fresh slot its labels."""
        self._lives[slot] = Life(labels, self.last_tick)
        self._active[slot] = self.last_tick

    def tick(self, now_ms: int) -> None:
        """End the interval; a clock that has not gone on, or has gone back, ends nothing."""
        if now_ms <= self.last_tick:
            return
        interval = self._open(now_ms)
        self.sets.counts[interval.slots] = 0
        self.sets.sums[interval.slots] = 0
        self._active[interval.slots] = now_ms
        kept = [*self._intervals, interval]
        self._interval_bytes += interval.nbytes
        gone = 0
        while len(kept) - gone > 1 and (self._interval_bytes > self._max_bytes or len(kept) - gone > INTERVALS_MAX):
            self._interval_bytes -= kept[gone].nbytes
            gone += 1
        self._intervals = tuple(kept[gone:])
        self._forget(kept[:gone])
        self._end(now_ms)

    def _open(self, now_ms: int) -> Interval:
        slots = np.flatnonzero(self.sets.counts.any(axis=1))
        return Interval(now_ms, slots, self.sets.counts[slots], self.sets.sums[slots])

    def _forget(self, intervals: list[Interval]) -> None:
        """Count the oldest intervals in `base`, of which queries may hold the one before."""
        if not intervals:
            return
        self._base_counts, self._base_sums = self._base_counts.copy(), self._base_sums.copy()
        for one in intervals:
            self._base_counts[one.slots] += one.counts
            self._base_sums[one.slots] += one.sums
        self._base_time = intervals[-1].time
        over = [slot for slot, life in self._lives.items() if 0 < life.ended <= self._base_time]
        if over:
            self._base_counts[over] = 0
            self._base_sums[over] = 0
            self._lives = {slot: life for slot, life in self._lives.items() if slot not in over}
            self.sets.release(over)

    def _end(self, now_ms: int) -> None:
        """End label sets that have counted nothing for long."""
        idle = np.flatnonzero(self._active < now_ms - self._stale_ms).tolist()
        stale = [slot for slot in idle if slot and slot in self._lives and not self._lives[slot].ended]
        if stale:
            self.sets.retire(stale)
            self._lives = self._lives | {slot: replace(self._lives[slot], ended=now_ms) for slot in stale}

    def moment(self, now_ms: int) -> Moment:
        """Return all values there are."""
        return Moment(
            self._base_time,
            self._base_counts,
            self._base_sums,
            self._intervals,
            self._lives,
            self._open(max(now_ms, self.last_tick + 1)),
        )

    def live(self) -> int:
        """Return how many label sets there are that have not ended."""
        return sum(1 for life in self._lives.values() if not life.ended) - 1

    def check(self) -> None:
        """Recount; AssertionError when anything is not as it should be."""
        assert self._interval_bytes == sum(one.nbytes for one in self._intervals)
        assert len(self._intervals) <= 1 or self._interval_bytes <= self._max_bytes
        times = [self._base_time, *(one.time for one in self._intervals)]
        assert times == sorted(set(times))
        known = set(self._lives)
        assert all(set(one.slots.tolist()) <= known for one in self._intervals)
        assert self.sets.free + len(self._lives) == self.sets.capacity
        unknown = np.setdiff1d(np.arange(self.sets.capacity), np.array(sorted(known)))
        assert not self._base_counts[unknown].any()
        assert not self.sets.counts[unknown].any()
        for slot, life in self._lives.items():
            inside = [one.time for one in self._intervals if slot in one.slots.tolist()]
            assert not life.ended or all(life.began < time <= life.ended for time in inside), life
