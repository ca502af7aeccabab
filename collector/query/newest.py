"""The question that most queries end with: the exact newest matches, in a repeatable order (time, then offset).

Blocks older than enough of them are not looked at, and segments not opened.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from collector.otlp.asked import NOTHING
from collector.otlp.records import isolate
from collector.query.best import Best, best_of, refs_of, split_off
from collector.query.slices import END_OF_TIME, Among, RingRange, Slice, log_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from collector.otlp.asked import Hints
    from collector.otlp.records import Ref
    from collector.otlp.terms import Terms
    from collector.query.deadline import Deadline
    from collector.store import View

FEW_ROWS = 32
"""Records that are looked at one by one, where an index has named them and they are of many blocks, at once."""


def newest(
    view: View,
    limit: int,
    select: Callable[[Slice], NDArray[np.intp]],
    start_ns: int = 0,
    end_ns: int = END_OF_TIME,
    deadline: Deadline | None = None,
    *,
    oldest: bool = False,
    terms: Terms = (),
    hints: Hints = NOTHING,
    among_few: Callable[[list[Ref]], list[Ref]] | None = None,
) -> list[Ref]:
    """Return exactly the `limit` newest records that `select` finds, newest first (or oldest, oldest first).

    The order is (time, offset). Blocks that cannot hold a better record than those found are not selected from; nor
    records that do not fulfil the `terms`, see `slices`. Where these leave a few records of many blocks, `among_few`
    selects among those, if it is given, at most FEW_ROWS at once; it agrees with `select`.
    """
    if limit <= 0:
        return []
    best = Best(limit, oldest=oldest)
    ring = RingRange(view, start_ns, end_ns, deadline, best.wants, not oldest)
    among = Among(view.index, (view.key,)) if view.index is not None else None
    log = log_slices(view, start_ns, end_ns, deadline, among, best.wants, terms, hints, newest_first=not oldest)
    few = min(limit, FEW_ROWS) if terms and among_few is not None else 0
    parts: tuple[Iterator[Slice | list[Ref]], ...] = (ring.parts(terms, few), log)
    is_dense = True  # nearly all records that the terms leave are found
    for part in chain(*(reversed(parts) if oldest else parts)):
        if isinstance(part, list):
            assert among_few is not None
            best.add_of(part, among_few, few)
            continue
        block, rows = part
        in_ring = block.end_offset > view.ring_offset
        if few and is_dense and in_ring and limit <= few < len(rows):
            # The best of a block are most of what is wanted of it.
            rows, tried = split_off(block, rows, limit, oldest=oldest)
            assert among_few is not None
            is_dense = best.add_of(refs_of(block, tried), among_few, few) * 2 >= limit
            if not best.wants_one_of(block, rows):
                continue
        refs = best.better(best_of(block, select(Slice(block, rows)), limit, oldest=oldest))
        if not in_ring and len(refs) * 4 < block.count:
            refs = [isolate(ref) for ref in refs]  # do not hold a block of the log for a few records of it
        best.add(refs)
    return best.found()
