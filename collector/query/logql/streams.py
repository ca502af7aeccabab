"""Lines by stream: which streams lines are in, when they were, and how large they are. No pipeline, no labels.

What the catalogue and the volumes are made of. Out of the ring by what is remembered (`remembered.py`), if that is worth
it; else, and out of the log, block by block. No record is decoded, but for sizes of bodies that are not texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from collector.query.logql.known import SIZE, STREAM
from collector.query.logql.labels import Records
from collector.query.logql.lines import body_lines
from collector.query.logql.matches import records_about, selected
from collector.query.logql.remembered import Remembered
from collector.query.logql.source import log_pieces
from collector.query.slices import slices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.logql.labels import Container
    from collector.query.logql.source import Selection
    from collector.store import View

_NOT_ASKED: Final = np.empty(0, np.int64)


class StreamLines(NamedTuple):
    """Some lines: arrays of one length."""

    streams: list[Container]
    codes: NDArray[Any]
    """For each line the place of its stream."""
    times: NDArray[np.uint64]
    """Unix ns."""
    sizes: NDArray[Any]
    """In bytes; empty where they were not asked for."""
    blocks: int
    """In how many blocks they are."""

    def used(self) -> list[int]:
        """Return the places of the streams that have a line."""
        counts = np.bincount(self.codes, minlength=len(self.streams))
        found: list[int] = np.flatnonzero(counts).tolist()
        return found


def stream_lines(
    deadline: Deadline, view: View, selection: Selection, start_ns: int, end_ns: int, *, sizes: bool
) -> Iterator[StreamLines]:
    """Yield the lines of start_ns <= time <= end_ns that a selector selects, many at a time. Raises QueryTimeout."""
    known = None
    if view.memo is not None:
        remembered = view.memo.kept("logql", Remembered)
        fields = (SIZE, STREAM) if sizes else (STREAM,)
        known = remembered.known(deadline, view, fields, records_about(view, start_ns, end_ns))
    if known is not None:
        bases = view.ring.reaches().bases
        for offsets, times in selected(deadline, view, selection, known, start_ns, end_ns):
            blocks = int(np.count_nonzero(np.diff(np.searchsorted(offsets, bases), append=len(offsets))))
            streams, lengths = known[STREAM], known[SIZE].of(offsets) if sizes else _NOT_ASKED
            yield StreamLines(streams.streams, streams.of(offsets), times, lengths, blocks)
    records = Records()
    records.remember(view.memo)
    find = slices if known is None else log_pieces
    for piece in find(view, start_ns, end_ns, deadline):
        block, rows = piece.block, selection.rows(piece, records)
        if rows.size:
            codes, containers = records.containers(block, rows)
            lengths = body_lines(block, rows).sizes() if sizes else _NOT_ASKED
            yield StreamLines(containers, codes, block.column("time")[rows], lengths, 1)
