"""Is a trace whole? What is known to be missing from it: spans that others name as their parents.

A span tells its parent's id, so a parent that is not among the trace's spans is known to exist, or to have existed. It
may have been evicted, with the oldest segment of the log or, without a log, from the ring; it may still be on its way; it
may have been rejected; or another program never sent it here. Which of these it is cannot be known from the spans, but
when nothing was ever evicted it was not received, and that is said.

A span that is missing and has no children leaves no trace, and neither does a whole trace: this finds no more than what
is known to be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from collector.otlp.records import Ref

FEW = 64
"""Spans that are looked at one by one: of so many, arrays cost more."""
NAMED_MAX = 5
"""Missing spans that a message names; of more it gives the number."""


@dataclass(frozen=True, slots=True)
class Completeness:
    """What is known to be missing from a trace."""

    parents: NDArray[np.uint64]
    """Ids of spans that are named as parents and are not there, as words of the id columns, ascending."""
    left_out: int
    """Spans that are held and were left out of the answer, because of its limit."""
    first_offset: int
    """The oldest offset that could be read; 0: nothing was ever evicted."""

    @property
    def missing(self) -> bool:
        """Whether anything is known to be missing."""
        return bool(len(self.parents)) or self.left_out > 0

    @property
    def message(self) -> str:
        """What is missing, for people; empty when nothing is known to be."""
        parts = []
        if len(self.parents):
            count = len(self.parents)
            named = ", ".join(hex_of(word) for word in self.parents[:NAMED_MAX].tolist())
            more = f" and {count - NAMED_MAX} more" if count > NAMED_MAX else ""
            what = "1 parent span is" if count == 1 else f"{count} parent spans are"
            parts.append(f"{what} not held ({named}{more}): {self.cause}")
        if self.left_out:
            parts.append(f"{self.left_out} spans were left out, which the limit on one answer does not allow")
        return "the trace is incomplete: " + "; ".join(parts) if parts else ""

    @property
    def cause(self) -> str:
        """Why parents may be missing."""
        if self.first_offset == 0:
            return "not received, so far"
        return f"not received, or among the {self.first_offset} oldest spans, which are not kept any more"


def completeness(refs: Sequence[Ref], first_offset: int, left_out: int = 0) -> Completeness:
    """Tell what is known to be missing from a trace, of which these spans are held; see `Completeness`."""
    if len(refs) <= FEW:
        named = {ref.block.records.number("parent_span_id", ref.row) for ref in refs}
        missing = named - {ref.block.records.number("span_id", ref.row) for ref in refs} - {0}
        return Completeness(np.array(sorted(missing), np.uint64), left_out, first_offset)
    ids, parents = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for _, run in groupby(refs, key=lambda ref: id(ref.block)):
        same = list(run)
        rows = [ref.row for ref in same]
        ids.append(same[0].block.column("span_id")[rows])
        parents.append(same[0].block.column("parent_span_id")[rows])
    return completeness_of(np.concatenate(ids), np.concatenate(parents), first_offset, left_out)


def completeness_of(
    ids: NDArray[np.uint64], parents: NDArray[np.uint64], first_offset: int, left_out: int = 0
) -> Completeness:
    """The same of spans of which the columns `span_id` and `parent_span_id` are given."""
    named = np.unique(parents)
    return Completeness(np.setdiff1d(named[named != 0], ids), left_out, first_offset)


def hex_of(word: int) -> str:
    """Return an id column's word as the 16 hex digits of the span id that it is."""
    return np.uint64(word).tobytes().hex()
