"""What is left of blocks when records of theirs are deleted.

`remains` gives it as blocks with gaps between them: what readers are shown. `erased` puts empty records in the place of the
deleted ones, with nothing in them, around them, or of their keys: what is written to a file, where every offset
keeps its place. A span has to have ids to be one: those of an erased one are all ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from collector.otlp.cut import cut
from collector.otlp.records import tagged
from collector.otlp.signals import LOGS, TRACES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.otlp.block import Block
    from collector.otlp.tombstones import Tombstones

ERASED: Final = {TRACES: tagged(1, b"\xff" * 16) + tagged(2, b"\xff" * 8), LOGS: b""}
"""A record with nothing in it."""


def remains(block: Block, deleted: Tombstones) -> Iterator[Block]:
    """Yield what of a block was not deleted, rising; the block itself when that is all of it."""
    base = block.base_offset
    for first, end in deleted.between(base, block.end_offset):
        yield cut(block, first - base, end - base)


def rest_of(blocks: Iterator[Block], deleted: Tombstones, *, backwards: bool) -> Iterator[Block]:
    """Yield what of blocks that follow each other, the newest first if `backwards`, was not deleted."""
    if not deleted:
        yield from blocks
        return
    for block in blocks:
        left = remains(block, deleted)
        yield from reversed(list(left)) if backwards else left


def erased(block: Block, deleted: Tombstones) -> bytes:
    """Return the payload of a block of spans or log records with empty ones in the place of those that were deleted."""
    parts = []
    at = block.base_offset
    empty = tagged(2, ERASED[block.signal])
    for first, end in deleted.within(at, block.end_offset).ranges():
        if at < first:
            parts.append(bytes(cut(block, at - block.base_offset, first - block.base_offset).payload))
        parts.append(tagged(1, tagged(2, empty * (end - first))))
        at = end
    if at < block.end_offset:
        parts.append(bytes(cut(block, at - block.base_offset, block.count).payload))
    return b"".join(parts)
