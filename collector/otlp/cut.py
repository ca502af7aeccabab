"""A run of a block's records as a block of its own, for consumers that go by offset.

A block's payload is one request after the other, so a run that begins and ends where a top-level message does (a
ResourceSpans, ResourceLogs or ResourceMetrics) is a slice of the payload, scanned again: 0.1 µs a span. That is the case
wherever a block was merged of what had been smaller blocks. Any other run is regrouped, record by
record, container after container, so that the order stays.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from collector.otlp.records import Ref, regroup
from collector.otlp.scan import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.otlp.block import Block


def cut(block: Block, first: int, end: int) -> Block:
    """Return the rows [first, end) of a block as a block; that itself for all of them. AssertionError for no rows."""
    assert 0 <= first < end <= block.count, f"rows {first} to {end} of {block.count}"
    if first == 0 and end == block.count:
        return block
    base = block.base_offset + first
    begin, behind = _end_before(block, first), _end_before(block, end)
    if begin is not None and behind is not None:
        made = scan(block.signal, bytes(memoryview(block.payload)[begin:behind]), base)
        if made.count == end - first:
            return made
    return scan(block.signal, b"".join(_runs(block, first, end)), base)


def _runs(block: Block, first: int, end: int) -> Iterator[bytes]:
    """Regroup each run of rows of one container by itself: of all of them together, the order could become another."""
    groups = block.column("group")[first:end]
    edges = [0, *((groups[1:] != groups[:-1]).nonzero()[0] + 1).tolist(), end - first]
    for begin, behind in pairwise(edges):
        yield regroup(Ref(0, 0, block, first + row) for row in range(begin, behind))


def _end_before(block: Block, row: int) -> int | None:
    """Return the byte of the payload where the top-level message before this row's ends; None when the row before is in
    the same one."""
    if row == 0:
        return 0
    if row == block.count:
        return len(block.payload)
    groups = block.column("group")
    starts = block.group_column("envelope_start")
    before, own = int(groups[row - 1]), int(groups[row])
    if starts[before] == starts[own]:
        return None
    return int(starts[before]) + int(block.group_column("envelope_length")[before])


def parts(block: Block, records: int, size: int) -> Iterator[Block]:
    """Yield a block in parts of at most so many records, and about so many bytes of payload: a part that is one record, or
    whose top-level messages are large, may have more. At least one record each."""
    if block.count <= records and len(block.payload) <= size:
        yield block
        return
    ends = (block.column("start") + block.column("length")).tolist()
    first = 0
    while first < block.count:
        begin = ends[first - 1] if first else 0
        last = min(first + records, block.count)
        while last > first + 1 and ends[last - 1] - begin > size:
            last = first + max(1, (last - first) * size // (ends[last - 1] - begin))
        yield cut(block, first, _friendly(block, first, last))
        first = _friendly(block, first, last)


def _friendly(block: Block, first: int, last: int) -> int:
    """Return a row near before `last` where a top-level message begins, else `last`."""
    if last == block.count:
        return last
    groups = block.column("group")[first : last + 1]
    starts = block.group_column("envelope_start")[groups]
    edges = (starts[1:] != starts[:-1]).nonzero()[0]
    found = first + int(edges[-1]) + 1 if edges.size else last
    return found if (found - first) * 2 >= last - first else last
