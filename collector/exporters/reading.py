"""The next batch of a log: from the ring where it holds the offsets, else from the log's segments.

Blocks stay whole where they fit into a batch at all; one that does not is divided, between requests where it can be. What
cannot be read is told as a gap, so that no record is passed over in silence; what was deleted is none.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from collector.otlp.cut import cut, parts
from collector.otlp.tombstones import NONE
from collector.query.offsets import from_offset

if TYPE_CHECKING:
    from collections.abc import Generator

    from collector.otlp.block import Block
    from collector.otlp.tombstones import Tombstones
    from collector.store import View

REMOVED, DAMAGED, EVICTED = "retention", "damage", "eviction"
"""Why records can no longer be read: the log has removed them, they are damaged, or, without a log, the ring has let go."""

UNLIMITED: Final = 2**62


class Limits(NamedTuple):
    """How much goes into one batch."""

    records: int
    size: int
    """Bytes of payload."""


class Gap(NamedTuple):
    """Offsets that cannot be read."""

    first_offset: int
    end_offset: int
    reason: str


@dataclass(slots=True)
class Gathered:
    """What was read."""

    end_offset: int
    """The position behind it."""
    blocks: list[Block] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    rest: Block | None = None
    """A block that was read from the log, and of which the next batch wants more."""


def gather(
    view: View, position: int, end: int, limits: Limits, rest: Block | None = None, deleted: Tombstones = NONE
) -> Gathered:
    """Read from a position on, up to `end`, as much as the limits allow, and at least one record if there is one.

    `rest` is that of the last call, if any; `deleted` is what the view may not show. For any thread. Raises Unavailable when the log cannot be read.
    """
    found = Gathered(position)
    records = size = 0
    if rest is not None and deleted.touch(rest.base_offset, rest.end_offset):
        rest = None  # It was read before.
    with closing(_pieces(view, position, end, rest)) as pieces:
        for block, first, behind in pieces:
            _note_gap(found, view, block.base_offset + first, deleted)
            count = behind - first
            payload = len(block.payload) * count // block.count
            if found.blocks and (records + count > limits.records or size + payload > limits.size):
                _keep(found, view, block)
                return found
            if count > limits.records or payload > limits.size:
                part = next(parts(cut(block, first, behind), limits.records, limits.size))
                _take(found, part)
                if part.count < count:
                    _keep(found, view, block)
                    return found
            else:
                _take(found, cut(block, first, behind))
            records += count
            size += payload
    _note_gap(found, view, end, deleted)
    return found


def _pieces(view: View, position: int, end: int, rest: Block | None) -> Generator[tuple[Block, int, int]]:
    """Yield (block, first row, row behind the last one)."""
    if rest is not None and rest.base_offset <= position < rest.end_offset:
        behind = min(rest.end_offset, end)
        yield rest, position - rest.base_offset, behind - rest.base_offset
        position = behind
    if position < end:
        for block, rows in from_offset(view, position, end):
            yield block, int(rows[0]), int(rows[-1]) + 1


def _take(found: Gathered, block: Block) -> None:
    found.blocks.append(block)
    found.end_offset = block.end_offset


def _keep(found: Gathered, view: View, block: Block) -> None:
    """Keep a block for the next batch, unless the ring has it."""
    if block.end_offset <= view.ring.first_offset:
        found.rest = block


def _note_gap(found: Gathered, view: View, offset: int, deleted: Tombstones) -> None:
    """Note that nothing was found up to an offset, if so, of what was not deleted."""
    for first, end in deleted.between(found.end_offset, offset):
        held = min(max(view.first_offset, first), end)
        if held > first:
            found.gaps.append(Gap(first, held, REMOVED if view.log is not None else EVICTED))
        if end > held:
            found.gaps.append(Gap(held, end, DAMAGED))
    found.end_offset = max(found.end_offset, offset)
