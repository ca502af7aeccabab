"""The catalogue of services and their operations: every one that a readable span has, and no other.

What was once looked at is not looked at again: a service's operation is remembered with the offset of its newest span,
and is there as long as that offset can be read. Spans leave ring and log oldest first, so this is exact; when some are
deleted, it is forgotten. The first question reads everything, further ones only what has come since. Where there is a
backend, the first that it answers reads that, too, as far as its time allows; and what has gone there stays known.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from collector.otlp.asked import NOTHING
from collector.otlp.records import service_name
from collector.query.jaeger.model import KINDS, NO_SERVICE
from collector.query.reach import OLDEST, ONLY_HELD
from collector.query.slices import slices

if TYPE_CHECKING:
    from collector.query.deadline import Deadline
    from collector.query.slices import Slice
    from collector.store import View

OPERATIONS_MAX = 50_000
"""Operations that are remembered; of more, those with the newest spans."""

_MIX = np.uint64(0x9E3779B97F4A7C15)


class Operation(NamedTuple):
    """A service's name, a span's name and its kind's (empty for an unspecified one)."""

    service: str
    name: str
    kind: str


class Operations:
    """What is known of one store of traces. For any thread."""

    def __init__(self) -> None:
        self._newest: dict[Operation, int] = {}
        self._next = 0
        self._reached = False
        self._deletions = 0
        self._lock = threading.Lock()

    def known(self, deadline: Deadline, view: View) -> list[Operation]:
        """Return the operations of all spans that the view can read, sorted; learn what is new in it."""
        with self._lock:
            if view.deletions > self._deletions:
                self._newest, self._next, self._deletions, self._reached = {}, 0, view.deletions, False
            is_new = view.next_offset > self._next or (view.behind is not None and not self._reached)
            if is_new and view.deletions == self._deletions:
                self._learn(deadline, view)
            first = _oldest(view)
            return sorted(operation for operation, newest in self._newest.items() if newest >= first)

    def _learn(self, deadline: Deadline, view: View) -> None:
        found: dict[tuple[int, int, int], tuple[Operation, int]] = {}
        for piece in slices(view, deadline=deadline, hints=ONLY_HELD if self._reached else NOTHING):
            if piece.block.base_offset >= 0 and piece.block.end_offset <= self._next:
                if self._reached or view.behind is None:
                    break
                continue
            self._reached |= piece.block.base_offset < 0
            _add(found, piece)
        self._reached |= view.behind is not None and not view.behind.missing
        for operation, newest in found.values():
            self._newest[operation] = max(newest, self._newest.get(operation, newest))
        first = _oldest(view)
        kept = [item for item in self._newest.items() if item[1] >= first]
        if len(kept) > OPERATIONS_MAX:
            kept = sorted(kept, key=lambda item: item[1], reverse=True)[:OPERATIONS_MAX]
        self._newest = dict(kept)
        self._next = view.next_offset


def _oldest(view: View) -> int:
    """Return the oldest offset that can be read; records that have gone into a backend can."""
    return view.first_offset if view.behind is None else OLDEST


def _add(found: dict[tuple[int, int, int], tuple[Operation, int]], piece: Slice) -> None:
    """Add the operations of one slice; what is newer was added before."""
    block, rows = piece
    rows = rows[::-1]
    services, names, kinds = block.column("service")[rows], block.column("name")[rows], block.column("kind")[rows]
    mixed = (services * _MIX ^ names) * _MIX + kinds
    _, firsts = np.unique(mixed, return_index=True)
    for first in firsts.tolist():
        key = (int(services[first]), int(names[first]), int(kinds[first]))
        if key in found:
            continue
        row = int(rows[first])
        start, length = int(block.column("name_start")[row]), int(block.column("name_length")[row])
        name = bytes(memoryview(block.payload)[start : start + length]).decode()
        service = service_name(block, int(block.column("group")[row])) or NO_SERVICE
        found[key] = (Operation(service, name, KINDS.get(key[2], "")), block.base_offset + row)
        if len(found) > 2 * OPERATIONS_MAX:
            return
