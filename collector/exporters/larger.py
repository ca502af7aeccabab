"""Small blocks of a batch as one: what is done for each block, and each statement, costs more than a row.

While little comes in, each request is a block of a few records, and a batch has thousands of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.otlp.merge import merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from collector.otlp.block import Block


def larger(blocks: Iterable[Block], records: int) -> Iterator[Block]:
    """Yield the blocks, those that follow each other without a gap as one of up to so many records."""
    run: list[Block] = []
    count = 0
    for block in blocks:
        if run and (run[-1].end_offset != block.base_offset or count + block.count > records):
            yield merge(run) if len(run) > 1 else run[0]
            run, count = [], 0
        run.append(block)
        count += block.count
    if run:
        yield merge(run) if len(run) > 1 else run[0]
