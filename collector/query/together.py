"""Small blocks that follow each other, looked at as one.

Most questions cost as much for a block of five hundred records as for one of five thousand: numpy's calls, and Python's. A
log of ten million records has twenty thousand blocks. Copying them together costs some 20 us each, a tenth of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.otlp.merge import merge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.query.slices import Slice

WINDOW_BYTES = 2 * 1024 * 1024
"""Bytes of blocks that are looked at as one."""
SPARSE = 8
"""A slice of fewer rows than one in so many is looked at by itself: joining copies the whole block."""


def together(
    pieces: Iterator[Slice], *, newest_first: bool, single: int = 0, before: int | None = None
) -> Iterator[Slice]:
    """Yield slices, those of small blocks that follow each other as one of `WINDOW_BYTES` or so.

    The `single` first ones stay as they are, and so do those of blocks that do not end `before` an offset, if one is given.
    """
    held: list[Slice] = []
    size = 0
    for number, piece in enumerate(pieces):
        block = piece.block
        alone = number < single or (before is not None and block.end_offset > before)
        alone = alone or len(piece.rows) * SPARSE < block.count
        if held:
            last = held[-1].block
            follows = block.end_offset == last.base_offset if newest_first else last.end_offset == block.base_offset
            if alone or not follows or size + block.nbytes > WINDOW_BYTES:
                yield _joined(held, newest_first=newest_first)
                held, size = [], 0
        if alone:
            yield piece
            continue
        held.append(piece)
        size += block.nbytes
    if held:
        yield _joined(held, newest_first=newest_first)


def _joined(pieces: list[Slice], *, newest_first: bool) -> Slice:
    """Return slices of blocks that follow each other as one."""
    if len(pieces) == 1:
        return pieces[0]
    ordered = pieces[::-1] if newest_first else pieces
    whole = merge([block for block, _ in ordered])
    rows = np.concatenate([rows + (block.base_offset - whole.base_offset) for block, rows in ordered])
    return pieces[0]._replace(block=whole, rows=rows)
