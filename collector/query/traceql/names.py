"""The names of attributes that spans have, by scope, and whether there are events; those of the ring are remembered.

For each name it is remembered behind which offset it was last seen, block by block. A name is live if that lies in the
ring; of the block that is being evicted, whose end may be all that is known of a name, what is left is looked at again. So
the next question reads what came since. A view that is older than what is remembered is told names that came after it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import numpy as np

from collector.otlp.records import RESOURCE_ATTRIBUTES, SCOPE_ATTRIBUTES, SPAN_ATTRIBUTES
from collector.query import match
from collector.query.traceql.evaluate import EVENT_ATTRIBUTES, EVENTS, LINK_ATTRIBUTES, LINKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.store import Memo, View

SCOPES: Final = ("resource", "span", "event", "link", "instrumentation")
INTRINSIC: Final = "intrinsic"
"""The scope of what is no attribute and not of every span: `EVENT_NAME`."""
EVENT_NAME: Final = b"event:name"
REMEMBERED_MAX: Final = 10_000
"""Names of each scope that are remembered; of more, none are."""


def names_of(block: Block, rows: NDArray[np.intp]) -> dict[str, set[bytes]]:
    """Return the names of the attributes that rows of a block have, by scope; `event:name` if there are events."""
    groups = np.unique(block.column("group")[rows])
    spans = block.column("start")[rows], block.column("length")[rows]
    resources = block.group_column("resource_start")[groups], block.group_column("resource_length")[groups]
    scopes = block.group_column("scope_start")[groups], block.group_column("scope_length")[groups]
    events, links = (match.children(block.payload, *spans, field)[1:] for field in (EVENTS, LINKS))
    found = {
        scope: match.keys(block.payload, starts, lengths, number)
        for scope, (starts, lengths), number in (
            ("resource", resources, RESOURCE_ATTRIBUTES),
            ("instrumentation", scopes, SCOPE_ATTRIBUTES),
            ("span", spans, SPAN_ATTRIBUTES),
            ("event", events, EVENT_ATTRIBUTES),
            ("link", links, LINK_ATTRIBUTES),
        )
    }
    found[INTRINSIC] = {EVENT_NAME} if len(events[0]) else set()
    return found


class Names:
    """The remembered names of one store's ring. For any thread: one reads, and the others wait for it."""

    def __init__(self, memo: Memo) -> None:
        """Remember nothing yet."""
        self._lock = threading.Lock()
        self._first = self._end = 0
        self._seen: dict[str, dict[bytes, int]] = {scope: {} for scope in (*SCOPES, INTRINSIC)}

    @property
    def nbytes(self) -> int:
        """About what it holds."""
        return 200 * sum(map(len, self._seen.values()))

    def live(self, deadline: Deadline, view: View) -> dict[str, set[bytes]] | None:
        """Return the names that live records of a view's ring have; None when they cannot be remembered."""
        ring = view.ring
        with self._lock:
            if self._end < ring.first_offset:
                self._first = self._end = ring.first_offset
            if ring.first_offset < self._first or not self._fill(deadline, view):
                return None
            self._first = ring.first_offset
            for names in self._seen.values():
                for name in [name for name, seen in names.items() if seen <= ring.first_offset]:
                    del names[name]
            oldest = ring.blocks[0] if ring.blocks else None
            if oldest is None or oldest.base_offset == ring.first_offset:
                return {scope: set(names) for scope, names in self._seen.items()}
            left = names_of(oldest, np.arange(ring.first_offset - oldest.base_offset, oldest.count))
            end = oldest.end_offset
            return {
                scope: {name for name, seen in names.items() if seen > end or name in left[scope]}
                for scope, names in self._seen.items()
            }

    def _fill(self, deadline: Deadline, view: View) -> bool:
        ring = view.ring
        for block in ring.blocks:
            if block.end_offset <= self._end:
                continue
            deadline.check()
            end = min(block.end_offset, ring.next_offset)
            for scope, names in names_of(
                block, np.arange(self._end - block.base_offset, end - block.base_offset)
            ).items():
                self._seen[scope].update(dict.fromkeys(names, end))
                if len(self._seen[scope]) > REMEMBERED_MAX:
                    self._seen = {one: {} for one in self._seen}
                    self._first = self._end = ring.next_offset
                    return False
            self._end = end
        return True
