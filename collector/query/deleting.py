"""Deleting records: finding them, having that written down, and hiding them.

By trace id, all spans and log records of some traces go; by query, those records that the query matches, which is one that a
live tail takes (a TraceQL spanset of single spans, a LogQL selector with filters), or with `whole_traces` the traces that they
are of. What came after the deletion was asked for is not meant.

1. The offsets are found, by indexes for traces, by reading ring and log for a query, a turn at a time.
2. They are written to the deletions of their logs (wal/deletions.py), with what backends are to be told. From then on it
   is done for good; a crash before it deletes nothing.
3. Ring and log show them to nobody; queries that began before may still.

What is left to do, compaction and the exporters do: they find it written down. Data points have no trace, and are not deleted.
Owner: the event loop's thread. Memory: 8 bytes a record that is deleted, and 16 a range of them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import InvalidQuery, QueryLimit
from collector.otlp.signals import LOGS, TRACES, Signal
from collector.otlp.tombstones import NONE, Tombstones
from collector.query.offsets import from_offset
from collector.query.slices import END_OF_TIME, Among, Slice, slices
from collector.query.tail_filters import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.query.tail_filters import Matcher
    from collector.store import Store, View

SIGNALS: Final = (TRACES, LOGS)
"""What can be deleted of."""
TRACES_MAX: Final = 1000
"""Traces of one deletion."""
RECORDS_MAX: Final = 10_000_000
"""Records of one deletion."""
TURN_S: Final = 0.5
"""How long the search for a query's matches goes on before other queries come to their turn."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What is to be deleted: some traces, or what a query matches."""

    trace_ids: tuple[bytes, ...] = ()
    signal: Signal | None = None
    """Of the query; with trace ids, None for spans and log records."""
    query: str = ""
    start_ns: int = 0
    end_ns: int = END_OF_TIME
    """Of a query, main times, both inclusive."""
    whole_traces: bool = False
    """Delete the traces of what the query matches, with their log records."""
    dry_run: bool = False
    """Only find."""


@dataclass(slots=True)
class Deleted:
    """What was done."""

    records: dict[str, int] = field(default_factory=dict)
    """By signal, those that were there and are not any more."""
    backends: list[str] = field(default_factory=list)
    """Who is being told."""


class Deleting:
    """Deletes of one tenant's stores; one deletion at a time."""

    def __init__(
        self,
        stores: Mapping[str, Store],
        engine: Engine,
        logger: Any,
        backends: Callable[[str], list[str]] = lambda _: [],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`backends` names the exporters that keep records of a signal and can delete them; `wake` has them told."""
        self._stores = stores
        self._engine = engine
        self._logger = logger
        self._backends = backends
        self._wake = wake
        self._one = asyncio.Lock()

    async def run(self, wanted: Deletion) -> Deleted:
        """Delete. It lasts when this returns, and shows in every query from then on.

        Raises InvalidQuery, QueryLimit when it is too much at once, QueryTimeout, and Unavailable when it cannot be
        written.
        """
        if bool(wanted.trace_ids) == bool(wanted.query):
            raise InvalidQuery("either trace ids or a query say what is deleted")
        async with self._one:
            ids = wanted.trace_ids
            found: dict[Signal, Tombstones] = {}
            ends = {one: self._stores[one.name].ring.next_offset for one in SIGNALS}
            if wanted.query:
                signal = wanted.signal or TRACES
                found[signal], ids = await self._matching(self._stores[signal.name], wanted, ends[signal])
            if len(ids) > TRACES_MAX:
                raise QueryLimit(f"{len(ids)} traces; {TRACES_MAX} are deleted at once, at most")
            if ids:
                chosen = SIGNALS if wanted.signal is None or wanted.whole_traces else (wanted.signal,)
                found = {one: await self._of_traces(self._stores[one.name], ids) for one in chosen}
            done = Deleted()
            for signal, tombstones in found.items():
                await self._delete(signal, tombstones, ends[signal], ids, wanted.dry_run, done)
        if not wanted.dry_run:
            self._logger.info(
                "records deleted",
                records=done.records,
                traces=len(ids),
                by_query=bool(wanted.query),
                backends=done.backends,
            )
            self._wake()
        return done

    async def _delete(
        self, signal: Signal, found: Tombstones, end: int, ids: Sequence[bytes], dry_run: bool, done: Deleted
    ) -> None:
        store = self._stores[signal.name]
        if dry_run:
            done.records[signal.name] = (found - store.deletions.hidden).records
            return
        backends = self._backends(signal.name)
        names = [one.hex() for one in ids]
        with store.view(held_only=True) as view:
            oldest = view.first_offset
        done.records[signal.name] = await asyncio.to_thread(store.deletions.add, found, oldest, end, names, backends)
        store.hide()
        if names or found:
            done.backends = sorted({*done.backends, *backends})

    async def _of_traces(self, store: Store, ids: Sequence[bytes]) -> Tombstones:
        with store.view(held_only=True) as view:
            return await self._engine.run(of_traces, view, ids)

    async def _matching(self, store: Store, wanted: Deletion, end: int) -> tuple[Tombstones, tuple[bytes, ...]]:
        """Return what a query matches, or the traces of that."""
        matcher, _ = LANGUAGES[store.signal](wanted.query)
        found, ids, position = NONE, set[bytes](), 0
        while position < end:
            with store.view(held_only=True) as view:
                position = max(position, view.first_offset)
                turn = await self._engine.run(_turn, view, matcher, wanted, position, end)
            found, position = found | turn[0], turn[2]
            ids |= turn[1]
            if found.records > RECORDS_MAX or len(ids) > TRACES_MAX:
                what = f"traces; {TRACES_MAX}" if wanted.whole_traces else f"records; {RECORDS_MAX}"
                raise QueryLimit(f"the query matches more {what} are deleted at once, at most")
        return found, tuple(sorted(ids))


def of_traces(deadline: Deadline, view: View, ids: Sequence[bytes]) -> Tombstones:
    """Return the records of some traces, as a query finds them. Raises QueryTimeout."""
    wanted = np.array([np.frombuffer(one, "u8") for one in ids], np.uint64)
    found = []
    for block, rows in slices(view, deadline=deadline, among=Among("trace_id", ids)):
        column = block.column("trace_id")[rows]
        near = np.flatnonzero(np.isin(column[:, 1], wanted[:, 1]))
        exact = (column[near][:, None, :] == wanted[None, :, :]).all(axis=2).any(axis=1)
        found.append(block.base_offset + rows[near[exact]])
    return Tombstones.of(np.concatenate(found)) if found else NONE


def _turn(
    deadline: Deadline, view: View, matcher: Matcher, wanted: Deletion, position: int, end: int
) -> tuple[Tombstones, set[bytes], int]:
    """Look at records from a position on; return which match, or the traces of these, and how far this came."""
    found: list[NDArray[np.intp]] = []
    ids: set[bytes] = set()
    until = deadline.clock.monotonic() + TURN_S
    for piece in from_offset(view, position, end, deadline):
        block = piece.block
        position = block.base_offset + int(piece.rows[-1]) + 1
        times = block.column("time")[piece.rows]
        rows = piece.rows[(times >= wanted.start_ns) & (times <= wanted.end_ns)]
        rows = matcher(Slice(block, rows), view, deadline) if rows.size else rows
        if wanted.whole_traces:
            ids.update(one.tobytes() for one in np.unique(block.column("trace_id")[rows], axis=0))
        elif rows.size:
            found.append(block.base_offset + rows)
        if deadline.clock.monotonic() >= until or len(ids) > TRACES_MAX:
            break
    else:
        position = end
    ids.discard(bytes(16))
    return Tombstones.of(np.concatenate(found)) if found else NONE, ids, position
