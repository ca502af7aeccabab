"""How many spans of one trace a ring takes: a trace that never ends must not push out all others.

Counted by the ring's postings, so a trace gets room again as its oldest spans are evicted. What is on its way into the ring is
not counted yet: requests that come at the same moment may bring a trace above the limit, by as many spans as are under way.

Cost, where there is a limit: one more scan of the request, and a look at the postings for each of its traces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.ring.postings import key_of_column

if TYPE_CHECKING:
    from collector.otlp.block import Block
    from collector.ring.ring import Ring


def surplus(ring: Ring, block: Block, limit: int) -> list[int]:
    """Return the rows of a block, ascending, that are above the limit of their traces: of each the last ones."""
    words = np.ascontiguousarray(block.column("trace_id"))
    distinct, inverse, counts = np.unique(words.view("V16").reshape(-1), return_inverse=True, return_counts=True)
    over: list[int] = []
    for at, count in enumerate(counts.tolist()):
        room = limit - ring.count("trace_id", key_of_column(memoryview(distinct[at].tobytes()), 16, 0))
        if count > room:
            over += np.flatnonzero(inverse.reshape(-1) == at)[max(0, room) :].tolist()
    return sorted(over)
