"""How many spans of one trace a ring takes: a trace that never ends must not push out all others.

Counted by the ring's postings, so a trace gets room again as its oldest spans are evicted. What is on its way into the ring is
not counted yet: requests that come at the same moment may bring a trace above the limit, by as many spans as are under way.

Cost, where there is a limit: a look at the postings for each span of a request, some 10 ns; and of a request that might bring
a trace above the limit a sort, some 50 ns a span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collector.ring.ring import Ring


def surplus(ring: Ring, trace_ids: bytes, limit: int) -> list[int]:
    """Return the numbers of those spans, ascending, that are above the limit of their traces: of each the last ones.

    `trace_ids` has 16 bytes for each span of a request, in order.
    """
    there = ring.counts("trace_id", trace_ids)
    if int(there.max(initial=0)) + len(there) <= limit:
        return []
    high, low = np.frombuffer(trace_ids, "2u8").T
    order = np.lexsort((low, high))  # stable: of each trace the first span comes first
    starts = np.ones(len(order), np.bool_)
    starts[1:] = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
    numbers = np.arange(len(order))
    nth = numbers - np.maximum.accumulate(np.where(starts, numbers, 0))
    over = order[nth + there[order] >= limit]
    over.sort()
    found: list[int] = over.tolist()
    return found
