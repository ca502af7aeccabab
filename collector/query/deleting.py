"""Deleting records: finding them, having that written down, and hiding them.

By trace id, all spans and log records of some traces go; by query, those records that the query matches, which is one that a
live tail takes (a TraceQL spanset of single spans, a LogQL selector with filters), or of data points a PromQL selector of
series; with `whole_traces`, the traces that spans and log records are of. What came after the deletion was asked for is not meant.

1. The offsets are found, by indexes for traces, by reading ring and log for a query, a turn at a time.
2. They are written to the deletions of their logs (wal/deletions.py), with what backends are to be told. From then on it
   is done for good; a crash before it deletes nothing.
3. Ring and log show them to nobody; queries that began before may still.

What is left to do, compaction and the exporters do: they find it written down. Backends that keep no offsets are told by
what is in the records (`Identify`), which is reckoned when they are found: later their bytes may be gone.

Owner: the event loop's thread. Memory: 8 bytes a record that is deleted, and 16 a range of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import InvalidQuery, QueryLimit
from collector.otlp.block import Block
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.otlp.tombstones import NONE, Tombstones
from collector.query.offsets import from_offset
from collector.query.promql.points import points
from collector.query.slices import END_OF_TIME, Among, Slice, slices
from collector.query.tail_filters import LANGUAGES
from collector.wal.deletions import IDENTITIES_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.query.tail_filters import Matcher
    from collector.store import Store, View

OF_TRACES: Final = (TRACES, LOGS)
"""What traces have records of."""
_MATCHING: Final[Mapping[Signal, Callable[[str], tuple[Matcher, Any]]]] = {**LANGUAGES, METRICS: points}
TRACES_MAX: Final = 1000
"""Traces of one deletion."""
RECORDS_MAX: Final = 10_000_000
"""Records of one deletion."""
Identify = Callable[[Block, "NDArray[np.intp]"], list[bytes] | None]
"""Returns what some records of a block are known by, or None."""
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
        backends: Callable[[str], Mapping[str, Identify]] = lambda _: {},
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`backends` names the exporters that keep records of a signal and can delete them, each with what says what single
        records are known by to it, or None where that is their offset; `wake` has them told."""
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
        if wanted.signal is METRICS and (wanted.trace_ids or wanted.whole_traces):
            raise InvalidQuery("data points have no trace; a query says which are deleted")
        async with self._one:
            ids = wanted.trace_ids
            found: dict[Signal, Tombstones] = {}
            identities: dict[str, list[bytes]] = {}
            ends = {one: self._stores[one.name].ring.next_offset for one in SIGNALS}
            if wanted.query:
                signal = wanted.signal or TRACES
                found[signal], ids, identities = await self._matching(self._stores[signal.name], wanted, ends[signal])
            if len(ids) > TRACES_MAX:
                raise QueryLimit(f"{len(ids)} traces; {TRACES_MAX} are deleted at once, at most")
            if ids:
                chosen = OF_TRACES if wanted.signal is None or wanted.whole_traces else (wanted.signal,)
                found = {one: await self._of_traces(self._stores[one.name], ids) for one in chosen}
            done = Deleted()
            for signal, tombstones in found.items():
                await self._delete(signal, tombstones, ends[signal], ids, identities, wanted.dry_run, done)
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
        self,
        signal: Signal,
        found: Tombstones,
        end: int,
        ids: Sequence[bytes],
        identities: Mapping[str, Sequence[bytes]],
        dry_run: bool,
        done: Deleted,
    ) -> None:
        store = self._stores[signal.name]
        if dry_run:
            done.records[signal.name] = (found - store.deletions.hidden).records
            return
        backends = sorted(self._backends(signal.name))
        names = [one.hex() for one in ids]
        with store.view(held_only=True) as view:
            oldest = view.first_offset
        done.records[signal.name] = await asyncio.to_thread(
            store.deletions.add, found, oldest, end, names, backends, identities
        )
        store.hide()
        if names or found:
            done.backends = sorted({*done.backends, *backends})

    async def _of_traces(self, store: Store, ids: Sequence[bytes]) -> Tombstones:
        with store.view(held_only=True) as view:
            return await self._engine.run(of_traces, view, ids)

    async def _matching(
        self, store: Store, wanted: Deletion, end: int
    ) -> tuple[Tombstones, tuple[bytes, ...], dict[str, list[bytes]]]:
        """Return what a query matches, or the traces of that; and what single records are known by to backends that ask for it."""
        matcher, _ = _MATCHING[store.signal](wanted.query)
        found, ids, position = NONE, set[bytes](), 0
        asking = {} if wanted.dry_run or wanted.whole_traces else self._backends(store.signal.name)
        identities: dict[str, list[bytes]] = {}
        while position < end:
            with store.view(held_only=True) as view:
                position = max(position, view.first_offset)
                turn = await self._engine.run(_turn, view, matcher, wanted, position, end, asking)
            found, position = found | turn[0], turn[2]
            ids |= turn[1]
            for name, some in turn[3].items():
                identities.setdefault(name, []).extend(some)
            if sum(map(len, identities.values())) > IDENTITIES_MAX:
                raise QueryLimit(
                    f"the query matches more than {IDENTITIES_MAX} records, which is what backends without keys "
                    f"({', '.join(sorted(identities))}) delete at once, at most; whole traces they delete by their ids"
                )
            if found.records > RECORDS_MAX or len(ids) > TRACES_MAX:
                what = f"traces; {TRACES_MAX}" if wanted.whole_traces else f"records; {RECORDS_MAX}"
                raise QueryLimit(f"the query matches more {what} are deleted at once, at most")
        return found, tuple(sorted(ids)), identities


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
    deadline: Deadline,
    view: View,
    matcher: Matcher,
    wanted: Deletion,
    position: int,
    end: int,
    asking: Mapping[str, Identify],
) -> tuple[Tombstones, set[bytes], int, dict[str, list[bytes]]]:
    """Look at records from a position on; return which match, or the traces of these, how far this came, and what backends know
    the records by."""
    found: list[NDArray[np.intp]] = []
    identities: dict[str, list[bytes]] = {}
    identified = 0
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
            for name, identify in asking.items():
                if (some := identify(block, rows)) is not None:
                    identities.setdefault(name, []).extend(some)
                    identified += len(some)
        if deadline.clock.monotonic() >= until or len(ids) > TRACES_MAX or identified > IDENTITIES_MAX:
            break
    else:
        position = end
    ids.discard(bytes(16))
    return Tombstones.of(np.concatenate(found)) if found else NONE, ids, position, identities
