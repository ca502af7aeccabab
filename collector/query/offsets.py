"""Ring and log as one, read by offset: what tails, readers of the log and consumers go by.

`slices` serves queries, which go by time; here the order is that of arrival. What lies before the ring is read
from the log, the rest from the ring's blocks, without a gap or an overlap between them. Offsets that cannot be read,
because they were removed or are damaged, are simply not there: the next slice begins behind them.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from collector.otlp.records import Ref
from collector.query.slices import Slice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.store import View

END: int = 2**63
"""Behind every offset."""


def from_offset(view: View, first: int, end: int = END, deadline: Deadline | None = None) -> Iterator[Slice]:
    """Yield what can be read of the offsets [first, end), in their order. Raises QueryTimeout."""
    held = view.ring.blocks
    end = min(end, view.next_offset)
    first = max(first, view.first_offset)
    begin = held[0].base_offset if held else view.next_offset
    if view.log is not None and first < begin:
        until = min(begin, end)
        # One record may be asked for again soon; who reads many goes on to others.
        for block in view.log.blocks(first, until, cached=until - first == 1):
            yield from _part(block, first, until, deadline)
    for at in range(max(0, bisect_right(held, first, key=_base_offset) - 1), len(held)):
        if held[at].base_offset >= end:
            break
        yield from _part(held[at], first, end, deadline)


def _base_offset(block: Block) -> int:
    return block.base_offset


def _part(block: Block, first: int, end: int, deadline: Deadline | None) -> Iterator[Slice]:
    """Yield the rows of a block in [first, end), if there are any."""
    if deadline is not None:
        deadline.check()
    begin, behind = max(0, first - block.base_offset), min(block.count, end - block.base_offset)
    if begin < behind:
        yield Slice(block, np.arange(begin, behind))


def costs(block: Block, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the bytes that each of these records adds to an answer, its resource and scope where it is the first of
    them: what limits on answers count."""
    groups = block.column("group")[rows]
    own = block.column("length")[rows].astype(np.int64)
    if rows.size:
        around = sum(block.group_column(f"{part}_length").astype(np.int64) for part in ("resource", "scope"))
        first = np.concatenate(([True], groups[1:] != groups[:-1]))
        own[first] += np.asarray(around)[groups[first]]
    return own


def at_offsets(view: View, offsets: Sequence[int], deadline: Deadline | None = None) -> list[Ref]:
    """Return the records at these offsets, in their order; those that cannot be read are left out."""
    found = []
    for offset in offsets:
        for block, rows in from_offset(view, offset, offset + 1, deadline):
            row = int(rows[0])
            found.append(Ref(int(block.column("time")[row]), offset, block, row))
    return found
