"""Live tails: the newest matches of the past, then matches as they arrive, by offset and without a gap.

A tail is a position in its signal's log and a filter; what it has not looked at yet lies in ring and log, not in a
buffer of its own. When the store tells of new records it takes a view, reads on from its position in a worker thread,
at most `TURN_RECORDS` or `TURN_S` seconds at a time, and gives what matches to its reader as one piece of OTLP bytes of
at most `TOLD_BYTES`. While the reader has not taken that, it looks no further. So ingest never waits for a reader, and
a reader that stops costs what it has been given and no more.

One that is slow falls behind. If it has once been level with the store and is then more than `BEHIND_MAX` records
behind, and for more than `BEHIND_S` seconds, the tail goes on at the end and tells what it passed over, with the number of matches (`Missed`). One that
resumes at an offset is not hurried: it gets everything that is held, in its own time. One may lag on purpose, so that
records which arrive late can be put in order. Records that are no longer held,
or are damaged, are told as missed, too: between the positions told there is never a silent gap.

What matches is for `tail_filters.py` to say; `tails.py` has what all tails of the daemon share. Owner: the event loop's
thread.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from collector.errors import Unavailable
from collector.otlp.records import Ref
from collector.query.offsets import costs, from_offset
from collector.query.slices import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collector.otlp.signals import Signal
    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.query.tail_scan import Followed
    from collector.query.tails import Tails
    from collector.store import Store, View

    Encode = Callable[[Signal, Sequence[Ref], Deadline], bytes]

PAST_MAX: Final = 1000
"""Matches of the past that a tail may begin with."""
PAST_S: Final = 2.0
"""How long they are looked for: from the newest on, and told how far that went."""
TURN_RECORDS: Final = 65_536
TURN_S: Final = 0.2
"""What a tail looks at before others come to their turn."""
TOLD_BYTES: Final = 256 * 1024
"""Bytes of records, as protobuf, that are told at once. A larger match is told as missed."""
PACE_S: Final = 0.1
"""Between two looks of a tail that is level: under load it tells of many commits at once."""
BEHIND_MAX: Final = 100_000
BEHIND_S: Final = 1.0
"""How many records and how many seconds a tail that was level may be behind; less of either is well."""
COUNTING_S: Final = 2.0
"""How long what is passed over is counted; else nobody knows how much of it matches."""
ROOM_BYTES: Final = 1024 * 1024
"""What is taken of the budget for a turn, until it is known what it tells: JSON has about four times the bytes."""
SLOW, REMOVED, TOO_LARGE = "slow", "removed", "too large"
"""Why records are missed."""
CLOSED, STUCK, STOPPED, FAILED, REVOKED = "closed", "stuck", "stopped", "failed", "revoked"
"""Why a tail has ended: its client left, never read, the daemon stops, something broke, or its client may not any more."""


class Matches(NamedTuple):
    """Records that match, as OTLP data in the form that the reader wants."""

    data: bytes
    records: int
    offset: int
    """The last record that was looked at: everything up to it has been told."""


class Missed(NamedTuple):
    """Records that were passed over."""

    reason: str
    first_offset: int
    next_offset: int
    matches: int | None
    """How many of them match; None where they cannot be looked at."""

    @property
    def offset(self) -> int:
        """As in `Matches`."""
        return self.next_offset - 1


Told = Matches | Missed


class Look(NamedTuple):
    """What one look has found."""

    told: list[Told]
    position: int
    """Where the next one begins; of a look back, where it began."""
    encoded_s: float = 0.0
    """How long it took to encode that."""


class Tail:
    """One reader's tail. Call `next` until it raises, `took` when its reader has taken what that gave, and `close`."""

    def __init__(
        self,
        tails: Tails,
        store: Store,
        match: Followed,
        key: tuple[str, bytes] | None,
        past: int,
        offset: int | None,
        encode: Encode,
        engine: Engine,
        since_ns: int = 0,
        delay_s: float = 0.0,
    ) -> None:
        """Not for callers: see `Tails.open`."""
        self.store = store
        self.first_offset = store.ring.next_offset if offset is None else offset
        """Where it begins to follow, the past aside: not behind the end of the log."""
        self.position = self.first_offset = min(self.first_offset, store.ring.next_offset)
        """The next record to look at."""
        self._level_at = tails.clock.monotonic() if offset is None else math.inf
        self._tails = tails
        self._match = match
        self._key = key
        self._past = past if offset is None else 0
        self._since_ns = since_ns
        self._delay_s = delay_s
        # When records were there, by the monotonic clock, and up to which offset: for a tail that lags on purpose.
        self._came: deque[tuple[float, int]] = deque()
        self._encode = encode
        self._engine = engine
        self._held = 0
        self._rests_until = -math.inf
        self._news = asyncio.Event()
        self._news.set()
        self._unsubscribe: Callable[[], None] | None = store.subscribe(self.wake)

    def wake(self) -> None:
        """There is something new to look at, or the end."""
        if self._delay_s:
            self._note(self._tails.clock.monotonic())
        self._news.set()

    def _note(self, now: float) -> None:
        """Remember how much there is now; the marks are so few because each is `PACE_S` after the one before."""
        came = self._came
        while len(came) > 1 and came[1][0] + self._delay_s <= now:
            came.popleft()
        if came and now < came[-1][0] + PACE_S:
            now = came.pop()[0]
        came.append((now, self.store.ring.next_offset))

    def _end(self, now: float) -> int:
        """Return the offset up to which it may look: all that is there, or was there a delay ago."""
        if not self._delay_s:
            return self.store.ring.next_offset
        self._note(now)
        ripe = [offset for at, offset in self._came if at + self._delay_s <= now]
        return max(self.position, ripe[-1]) if ripe else self.position

    def close(self, why: str = CLOSED) -> None:
        """End it, giving back what it holds. Doing it again changes nothing."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
            self.took()
            self._match.leave()
            self._tails.forget(self, why)

    def took(self) -> None:
        """The reader has taken what it was given."""
        if self._held:
            self._tails.give_back(self._held)
            self._held = 0

    async def past(self) -> tuple[list[Told], int]:
        """Return the newest matches of the past, and the offset from which on they were looked for."""
        if not self._past:
            return [], self.position
        await self._tails.room()
        self._held += ROOM_BYTES
        with self.store.view(*(self._key or ()), held_only=True) as view:
            self.position = self.first_offset = view.next_offset
            look = await self._told(self._engine, self._look_back, view)
            return look.told, look.position

    async def next(self, patience_s: float) -> list[Told]:
        """Wait for news, and return them in the order of their offsets; nothing when there was none for so long.

        Raises Unavailable when the daemon stops, and what reading raises.
        """
        self.took()
        until = self._tails.clock.monotonic() + patience_s
        while True:
            if self._tails.stopping:
                raise Unavailable("the daemon is shutting down")
            now = self._tails.clock.monotonic()
            end = self._end(now)
            if self.position >= end:
                self._news.clear()
                ripens = self._ripens(now)
                if not await _before(self._news, min(until, ripens) - now) and until <= ripens:
                    return []
                continue
            if now >= until:
                return []
            if now < self._rests_until:
                await asyncio.sleep(self._rests_until - now)
            await self._tails.room()
            self._held += ROOM_BYTES
            async with self._tails.turn() as turn:
                began = self._tails.clock.monotonic()
                with self.store.view(held_only=True) as view:
                    if self._delay_s:
                        view.cut(end)
                    look = await self._told(self._tails.engine, self._look, view)
                    if look.position >= view.next_offset:
                        self._level_at, self._rests_until = began, began + PACE_S
                self.position = look.position
                turn.encoded_s = look.encoded_s
            if look.told:
                return look.told

    def _ripens(self, now: float) -> float:
        """Return when there is more to look at without anything new."""
        if not self._delay_s:
            return math.inf
        return next((at + self._delay_s for at, offset in self._came if offset > self.position), math.inf)

    async def _told(self, engine: Engine, look: Callable[[Deadline, View], Look], view: View) -> Look:
        """Run a look in a worker thread; of the room that was taken, keep what it tells."""
        result = await engine.run(look, view)
        size = sum(len(one.data) for one in result.told if isinstance(one, Matches))
        self._held += size - ROOM_BYTES
        self._tails.give_back(ROOM_BYTES - size)
        counts = self._tails.counts(self.store.signal)
        for one in result.told:
            if isinstance(one, Matches):
                counts.told += one.records
            else:
                counts.missed += one.next_offset - one.first_offset
        return result

    # --- in a worker thread -------------------------------------------------------------------------------

    def _look_back(self, deadline: Deadline, view: View) -> Look:
        refs: list[Ref] = []
        size = 0
        since = view.next_offset
        until = self._tails.clock.monotonic() + PAST_S
        for piece in slices(view, self._since_ns, deadline=deadline):
            block = piece.block
            rows = self._match(piece, view, deadline)
            for row, cost in zip(rows[::-1].tolist(), costs(block, rows)[::-1].tolist(), strict=True):
                size += cost
                if len(refs) >= self._past or size > TOLD_BYTES:
                    break
                since = block.base_offset + row
                refs.append(Ref(0, since, block, row))
            else:
                since = block.base_offset
                if self._tails.clock.monotonic() < until:
                    continue
            break
        else:
            since = view.first_offset
        return self._matches(deadline, [], refs[::-1], since, view.next_offset - 1)

    def _look(self, deadline: Deadline, view: View) -> Look:
        """Read on from the position."""
        position = self.position
        is_late = self._tails.clock.monotonic() > self._level_at + BEHIND_S
        if is_late and view.next_offset - position > BEHIND_MAX:
            return Look([self._passed_over(deadline, view)], view.next_offset)
        refs: list[Ref] = []
        size = looked_at = 0
        until = self._tails.clock.monotonic() + TURN_S
        gone: list[Told] = []
        pieces = from_offset(view, position, deadline=deadline)
        for piece, rows in self._match.over(pieces, view, deadline, shared=self._level_at < math.inf):
            block = piece.block
            first = block.base_offset + int(piece.rows[0])
            if first > position:
                if refs:
                    break
                gone.append(Missed(REMOVED, position, first, None))
                position = first
            stop = False
            for row, cost in zip(rows.tolist(), costs(block, rows).tolist(), strict=True):
                offset = block.base_offset + row
                if cost > TOLD_BYTES:
                    stop = True
                    if not refs:
                        gone.append(Missed(TOO_LARGE, offset, offset + 1, 1))
                        position = offset + 1
                    break
                size += cost
                if size > TOLD_BYTES:
                    stop = True
                    break
                refs.append(Ref(0, offset, block, row))
                position = offset + 1
            if stop:
                break
            position = block.base_offset + int(piece.rows[-1]) + 1
            looked_at += len(piece.rows)
            if looked_at >= TURN_RECORDS or self._tails.clock.monotonic() >= until:
                break
        else:
            if position < view.next_offset and not refs:
                gone.append(Missed(REMOVED, position, view.next_offset, None))
                position = view.next_offset
        return self._matches(deadline, gone, refs, position, position - 1)

    def _passed_over(self, deadline: Deadline, view: View) -> Missed:
        """Count what is being missed."""
        matches: int | None = 0
        expected = self.position
        until = self._tails.clock.monotonic() + COUNTING_S
        pieces = from_offset(view, self.position, deadline=deadline)
        for piece, rows in self._match.over(pieces, view, deadline, shared=True):
            if self._tails.clock.monotonic() > until:
                break
            if piece.block.base_offset + int(piece.rows[0]) != expected:
                matches = None
            expected = piece.block.base_offset + int(piece.rows[-1]) + 1
            if matches is not None:
                matches += len(rows)
        return Missed(SLOW, self.position, view.next_offset, matches if expected == view.next_offset else None)

    def _matches(self, deadline: Deadline, gone: list[Told], refs: Sequence[Ref], position: int, offset: int) -> Look:
        if not refs:
            return Look(gone, position)
        began = self._tails.clock.monotonic()
        data = self._encode(self.store.signal, refs, deadline)
        return Look([*gone, Matches(data, len(refs), offset)], position, self._tails.clock.monotonic() - began)


async def _before(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; tell whether it came in time."""
    try:
        # Not wait_for: Python 3.11's may lose a cancellation that comes with the event.
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True
