"""New records of one store, read once for all tails that follow them.

Tails that are level with the store come to the same blocks a moment after each other. The first one that needs a block
puts it together with those behind it, a window of `WINDOW_BYTES`, and has every filter that is followed look at it: numpy
costs as much for a block of ten records as for one of a thousand, a payload is read while it lies in the caches, and the
attributes that filters of spans ask for are found in one walk.
What each filter found is kept until the others come by, the rows of `FOUND_MAX` records at most. Who comes later, or reads
from the log to catch up, looks for itself.

`follow` and `leave` are called on the event loop, `matching` in the tails' thread: one at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from collector.errors import RingtailError
from collector.otlp.merge import merge
from collector.query.slices import Slice
from collector.query.tail_filters import SpanFilter
from collector.query.traceql.evaluate import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.tail_filters import Matcher
    from collector.store import View

WINDOW_BYTES: Final = 1024 * 1024
"""Bytes of blocks that are looked at together."""
FOUND_MAX: Final = 262_144
"""Rows that are kept for tails which come by later, and blocks."""

Key = tuple[int, int]
"""A block's base offset and how many records it has: the ring merges blocks."""
Found: TypeAlias = "Iterator[tuple[Slice, NDArray[np.intp]]]"
"""Pieces, each with its rows that match."""


class Scan:
    """The filters that are followed over one store, and what they found lately."""

    def __init__(self) -> None:
        """Follow nothing yet."""
        self._filters: dict[str, tuple[Matcher, int]] = {}
        self._found: OrderedDict[Key, dict[str, NDArray[np.intp]]] = OrderedDict()
        self._kept = 0
        self._passed = 0  # what lies before this offset was kept once, and is not any more

    @property
    def is_followed(self) -> bool:
        """Whether there is any filter."""
        return bool(self._filters)

    def follow(self, query: str, match: Matcher) -> Followed:
        """Look at new records with this filter, too; those of equal queries are the same."""
        known, count = self._filters.get(query, (match, 0))
        self._filters[query] = known, count + 1
        return Followed(self, query, known)

    def leave(self, query: str) -> None:
        """One who followed does not any more."""
        match, count = self._filters.pop(query)
        if count > 1:
            self._filters[query] = match, count - 1

    def matching(self, pieces: Iterable[Slice], query: str, match: Matcher, view: View, deadline: Deadline) -> Found:
        """Yield each piece with those of its rows that match, in their order."""
        waiting: list[Slice] = []
        size = 0
        for piece in pieces:
            block = piece.block
            if block.end_offset <= view.ring_offset or block.base_offset < self._passed:
                yield from self._looked_at(waiting, query, match, view, deadline)
                waiting, size = [], 0
                yield piece, match(piece, view, deadline)
                continue
            waiting.append(piece)
            size += block.nbytes
            if size >= WINDOW_BYTES:
                yield from self._looked_at(waiting, query, match, view, deadline)
                waiting, size = [], 0
        yield from self._looked_at(waiting, query, match, view, deadline)

    def _looked_at(
        self, pieces: list[Slice], query: str, match: Matcher, view: View, deadline: Deadline
    ) -> list[tuple[Slice, NDArray[np.intp]]]:
        fresh = [one for one in pieces if query not in self._found.get(_key(one), ())]
        for run in _runs(fresh):
            self._look(run, query, match, view, deadline)
        answer = []
        for piece in pieces:
            rows = self._found[_key(piece)][query]
            first = int(piece.rows[0])
            answer.append((piece, rows[np.searchsorted(rows, first) :] if first else rows))
        while self._kept > FOUND_MAX:
            (base, count), gone = self._found.popitem(last=False)
            self._kept -= 1 + sum(map(len, gone.values()))
            self._passed = max(self._passed, base + count)
        return answer

    def _look(self, run: list[Slice], query: str, match: Matcher, view: View, deadline: Deadline) -> None:
        """Have all filters look at blocks that follow each other."""
        block = merge([one.block for one in run]) if len(run) > 1 else run[0].block
        edges = np.array([one.block.base_offset - block.base_offset for one in run] + [block.count], np.intp)
        piece = Slice(block, np.arange(block.count))
        others = {name: known for name, (known, _) in tuple(self._filters.items())}
        filters = {query: match} | others
        records = Evaluation(piece)
        records.prepare([field for one in filters.values() if isinstance(one, SpanFilter) for field in one.fields])
        for name, each in filters.items():
            missing = [at for at, one in enumerate(run) if name not in self._found.get(_key(one), ())]
            if not missing:
                continue
            deadline.check()
            try:
                rows = each.among(records) if isinstance(each, SpanFilter) else each(piece, view, deadline)
            except RingtailError:
                if name == query:
                    raise
                continue  # whose filter it is will see for himself
            places = np.searchsorted(rows, edges).tolist()
            for at in missing:
                found = self._found.setdefault(_key(run[at]), {})
                self._kept += not found
                found[name] = rows[places[at] : places[at + 1]] - edges[at]
                self._kept += len(found[name])


class Followed:
    """One tail's filter; called as it is, it looks at one piece for this tail alone."""

    def __init__(self, scan: Scan, query: str, match: Matcher) -> None:
        self._scan = scan
        self._query = query
        self._match = match

    def __call__(self, piece: Slice, view: View, deadline: Deadline) -> NDArray[np.intp]:
        """Return the rows of a piece that match, in their order."""
        return self._match(piece, view, deadline)

    def over(self, pieces: Iterable[Slice], view: View, deadline: Deadline, *, shared: bool) -> Found:
        """Yield each piece with its rows that match; `shared` when others are about to look at the same pieces."""
        if shared:
            return self._scan.matching(pieces, self._query, self._match, view, deadline)
        return ((piece, self._match(piece, view, deadline)) for piece in pieces)

    def leave(self) -> None:
        """Follow no more."""
        self._scan.leave(self._query)


def _key(piece: Slice) -> Key:
    return piece.block.base_offset, piece.block.count


def _runs(pieces: list[Slice]) -> list[list[Slice]]:
    """Return the pieces in runs of blocks without a gap."""
    runs: list[list[Slice]] = []
    for one in pieces:
        if runs and runs[-1][-1].block.end_offset == one.block.base_offset:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs
