"""Which service calls which, from the spans themselves: one join of children with their parents.

A call is a span whose parent, in the same trace, belongs to another service. Spans that started in the range are read,
from ring and log; a call counts when both its spans are among them.

The join sorts spans by a mix of trace id and span id and looks parents up by it; what is found is then compared by the
ids themselves. Cost: about 0.3 µs and 60 B a span.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from collector.errors import QueryLimit
from collector.otlp.records import service_name
from collector.query.groups import groups_of
from collector.query.slices import slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.store import View

SPANS_MAX = 5_000_000
"""Spans that one answer may be made of."""

_MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)


class Dependency(NamedTuple):
    """So many calls of one service by another; services without a name have the empty one."""

    parent: str
    child: str
    calls: int


def dependencies(deadline: Deadline, view: View, start_ns: int, end_ns: int) -> list[Dependency]:
    """Return the calls among spans that started in the range (Unix ns, inclusive), ordered by service.

    Raises QueryLimit beyond SPANS_MAX spans.
    """
    parts: list[tuple[NDArray[np.uint64], ...]] = []
    names: dict[str, int] = {}
    count = 0
    for block, rows in slices(view, start_ns, end_ns, deadline):
        count += len(rows)
        if count > SPANS_MAX:
            raise QueryLimit(f"the range has more than {SPANS_MAX} spans; ask for a shorter one")
        groups, places = groups_of(block, rows)
        codes = [names.setdefault(service_name(block, group), len(names)) for group in groups.tolist()]
        trace = block.column("trace_id")[rows]
        parts.append(
            (
                trace[:, 0],
                trace[:, 1],
                block.column("span_id")[rows],
                block.column("parent_span_id")[rows],
                np.array(codes, np.uint64)[places],
            )
        )
    if not parts:
        return []
    high, low, span, parent, service = (np.concatenate(column) for column in zip(*parts, strict=True))
    parts.clear()
    deadline.check()
    counts = _calls(high, low, span, parent, service)
    texts = list(names)
    return sorted(Dependency(texts[caller], texts[called], calls) for (caller, called), calls in counts.items())


def _calls(
    high: NDArray[np.uint64],
    low: NDArray[np.uint64],
    span: NDArray[np.uint64],
    parent: NDArray[np.uint64],
    service: NDArray[np.uint64],
) -> dict[tuple[int, int], int]:
    """Count calls by (caller, called). Of several spans with the same id, one is the parent."""
    keys = _mixed(high, low, span)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    children = np.flatnonzero(parent)
    wanted = _mixed(high[children], low[children], parent[children])
    at = np.searchsorted(ordered, wanted)
    there = at < len(ordered)
    there[there] = ordered[at[there]] == wanted[there]
    children, parents = children[there], order[at[there]]
    same = (span[parents] == parent[children]) & (high[parents] == high[children]) & (low[parents] == low[children])
    children, parents = children[same], parents[same]
    pairs = service[parents] << _HALF | service[children]
    pairs = pairs[service[parents] != service[children]]
    distinct, counts = np.unique(pairs, return_counts=True)
    return {
        (int(pair) >> 32, int(pair) & 0xFFFFFFFF): count
        for pair, count in zip(distinct.tolist(), counts.tolist(), strict=True)
    }


def _mixed(high: NDArray[np.uint64], low: NDArray[np.uint64], span: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = high * _MIX_1
    for word, factor in ((low, _MIX_2), (span, _MIX_1)):
        mixed = ((mixed ^ mixed >> _HALF) ^ word) * factor  # Folded, for ids that differ in their last bytes only.
    found: NDArray[np.uint64] = mixed ^ mixed >> _HALF
    return found
