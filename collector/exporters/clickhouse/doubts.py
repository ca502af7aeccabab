"""Which inserts are looked at afterwards: those that the server may have taken for known although their rows are not there.

A table without replicas writes down that it has an insert before it has the rows. A server that dies in between takes the
repeated insert for known, and nothing says that it is not so. So a batch that may be a repeated one is looked for once it was
inserted, by its offsets, and what is missing is inserted by itself. That is one whose last attempt failed, and the first ones of
each source after a start, of which as many may have been under way when the last life ended. Replicated tables are left alone: they write
both down in one transaction, and another replica may not show yet what is there.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from collector.otlp.signals import METRICS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.exporters.base import Batch, Source
    from collector.exporters.clickhouse.schema import Table

FAILED_MAX: Final = 10_000
"""Batches that failed and have not come again, which are remembered; with more, every source is as after a start."""
SLICE: Final = 100_000
"""Offsets that are asked for at once."""


class Doubts:
    """What is known of the batches that come. Owner: the event loop."""

    def __init__(self, under_way: int) -> None:
        """`under_way` is how many batches of a source there may be at once."""
        self._under_way = under_way
        self._taken: Counter[Source] = Counter()
        self._failed: set[str] = set()

    def has(self, batch: Batch) -> bool:
        """Tell whether a batch may be a repeated one."""
        return self._taken[batch.source] < self._under_way or batch.key in self._failed

    def failed(self, batch: Batch) -> None:
        """An attempt has failed, or was given up."""
        if len(self._failed) >= FAILED_MAX:
            self._failed.clear()
            self._taken.clear()
        self._failed.add(batch.key)

    def taken(self, batch: Batch) -> None:
        """All of it is there."""
        self._failed.discard(batch.key)
        self._taken[batch.source] = min(self._taken[batch.source] + 1, self._under_way)


def offsets_of(batch: Batch, table: Table) -> NDArray[np.uint64]:
    """Return the offsets of the records that belong into a table, ascending."""
    found = []
    for block in batch.blocks:
        offsets = np.arange(block.base_offset, block.end_offset, dtype=np.uint64)
        found.append(offsets[block.column("type") == table.layout.kind] if batch.signal is METRICS else offsets)
    return np.concatenate(found)
