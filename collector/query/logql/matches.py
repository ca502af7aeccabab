"""The lines that a metric query leaves, as a stream of batches: out of the ring by remembered labels where it can be.

A pipeline of `drop`, `keep`, label filters and `unwrap` needs no payload when the labels are remembered
(`remembered.py`): then a batch is many thousands of the ring's records, and its bottom layer looks labels up.
Everything else goes block by block (`Source.batch`), as do the records that only the log holds.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np

from collector.query.logql import ast
from collector.query.logql.columns import Batch
from collector.query.logql.known import SIZE, STREAM, RingLayer
from collector.query.logql.remembered import Remembered, reach
from collector.query.logql.row import ERRORS
from collector.query.logql.source import log_pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.query.logql.known import Known
    from collector.query.logql.layer import Layer
    from collector.query.logql.row import Row
    from collector.query.logql.source import Selection, Source, Statistics
    from collector.store import View

RECORDS_AT_ONCE: Final = 65_536
"""Records of the ring in one batch, unless a block has more: what the caches of a processor hold of their columns."""
BLOCKS_TRIED: Final = 16
"""Blocks after which a query decides whether it has labels remembered that it has to group lines by."""


def batches(
    deadline: Deadline,
    view: View,
    source: Source,
    names: Iterable[str] | None,
    start_ns: int,
    end_ns: int,
    statistics: Statistics,
    *,
    sizes: bool = False,
) -> Iterator[Batch]:
    """Yield the batches with lines of start_ns <= time <= end_ns, none of them empty.

    `names` are all the labels that they are asked for, and with `sizes` the sizes of lines; None: anything may be.
    Raises QueryTimeout.
    """
    remembered = view.memo.kept("logql", Remembered) if view.memo is not None else None
    looked_at = labels_looked_at(source.query.stages)
    known = None
    if remembered is not None and names is not None and looked_at is not None:
        fields = {STREAM, *looked_at, *names, *((SIZE,) if sizes else ())}
        known = remembered.known(deadline, view, sorted(fields), records_about(view, start_ns, end_ns))
    found: Iterator[Batch]
    if known is not None:
        layers = (
            RingLayer(offsets, times, known, deadline)
            for offsets, times in selected(deadline, view, source.selection, known, start_ns, end_ns, statistics)
        )
        found = chain(
            (source.through(RingBatch(view, source, layer), deadline) for layer in layers),
            (
                source.batch(piece, view, deadline, statistics)
                for piece in log_pieces(view, start_ns, end_ns, deadline, source.terms, source.hints)
            ),
        )
    else:
        found = _blocks(
            deadline, view, source, remembered, sorted({STREAM, *(names or ())}), start_ns, end_ns, statistics
        )
    for batch in found:
        if batch.rows.size:
            yield batch


def records_about(view: View, start_ns: int, end_ns: int) -> int:
    """Return how many of the ring's records a query looks at, or more."""
    count = sum(block.count for block in view.ring.blocks if block.max_time >= start_ns and block.min_time <= end_ns)
    return count if view.candidates is None else min(count, len(view.candidates))


def _blocks(
    deadline: Deadline,
    view: View,
    source: Source,
    remembered: Remembered | None,
    names: Sequence[str],
    start_ns: int,
    end_ns: int,
    statistics: Statistics,
) -> Iterator[Batch]:
    """Yield what is left of each block.

    Labels that are remembered are not looked for again. Whether it is worth it to remember them all first is decided
    after the first few blocks, by how many lines they leave.
    """
    known = remembered.peek(names) if remembered is not None else {}
    left = 0
    for number, piece in enumerate(source.pieces(view, start_ns, end_ns, deadline)):
        if number == BLOCKS_TRIED and remembered is not None:
            covered = max(1, view.ring.next_offset - piece.block.end_offset)
            wanted = records_about(view, start_ns, end_ns) * left // covered
            known = remembered.known(deadline, view, names, wanted) or known
        batch = source.batch(piece, view, deadline, statistics, known)
        left += len(batch.rows)
        yield batch


def labels_looked_at(stages: Sequence[ast.Stage]) -> set[str] | None:
    """Return the labels that a pipeline of `drop`, `keep`, label filters and `unwrap` looks at; None of any other."""
    found: set[str] = set()
    for stage in stages:
        if isinstance(stage, ast.Unwrap):
            found |= {stage.label, *ERRORS}
        elif isinstance(stage, ast.LabelStage):
            pending = [stage.condition]
            while pending:
                condition = pending.pop()
                if isinstance(condition, ast.And | ast.Or):
                    pending.extend(condition.terms)
                    found.update(ERRORS)
                else:
                    found.add(condition.label)
                    if not isinstance(condition, ast.Matcher):
                        found.update(ERRORS)
        elif not isinstance(stage, ast.Drop | ast.Keep):
            return None
    return found


def _runs(view: View, start_ns: int, end_ns: int) -> Iterator[list[Block]]:
    """Yield the ring's blocks in the time range, newest first, neighbours together up to RECORDS_AT_ONCE."""
    run: list[Block] = []
    count = 0
    for block in reversed(view.ring.blocks):
        if block.max_time < start_ns or block.min_time > end_ns:
            continue
        if run and (block.end_offset != run[-1].base_offset or count + block.count > RECORDS_AT_ONCE):
            yield run[::-1]
            run, count = [], 0
        run.append(block)
        count += block.count
    if run:
        yield run[::-1]


def selected(
    deadline: Deadline,
    view: View,
    selection: Selection,
    known: Mapping[str, Known],
    start_ns: int,
    end_ns: int,
    statistics: Statistics | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint64]]]:
    """Yield offsets and times of the ring's records that a selector selects, by the streams that are known.

    Newest first, many at a time, each time ascending by offset. Raises QueryTimeout.
    """
    first, end = reach(view)
    streams = known[STREAM]
    verdicts = selection.verdicts(streams)
    effort = deadline.effort
    if effort is not None:
        effort.within(start_ns, end_ns)
        effort.by_labels(view.ring.blocks)
    for run in _runs(view, start_ns, end_ns):
        deadline.check()
        low, high = max(run[0].base_offset, first), min(run[-1].end_offset, end)
        inside = slice(low - run[0].base_offset, high - run[0].base_offset)
        times = np.concatenate([block.column("time") for block in run])[inside]
        chosen = verdicts[streams.codes[low - streams.first : high - streams.first]]
        if any(block.min_time < start_ns or block.max_time > end_ns for block in run):
            chosen = chosen & (times >= start_ns) & (times <= end_ns)
        rows = np.flatnonzero(chosen)
        if effort is not None:
            effort.by_streams(str(selection.selector), len(chosen), len(rows))
        if statistics is not None:
            bodies = np.concatenate([block.column("body_length") for block in run])[inside]
            statistics.count_ring(len(rows), int(bodies[rows].sum(dtype=np.int64)))
        if rows.size:
            yield rows + low, times[rows]


class RingBatch(Batch):
    """Some records of the ring, of many blocks."""

    def __init__(self, view: View, source: Source, layer: RingLayer) -> None:
        """Take the bottom layer; `rows` are offsets."""
        super().__init__(view.ring.blocks[0], layer.offsets, source.records)
        self.layer: Layer = layer
        self._view = view

    @property
    def offsets(self) -> NDArray[np.int64]:
        """See `Batch`."""
        return self.rows

    def row(self, place: int) -> Row:
        """See `Batch`."""
        offset = int(self.rows[place])
        blocks = self._view.ring.blocks
        block = blocks[bisect_right(blocks, offset, key=lambda one: one.base_offset) - 1]
        row = self.records.row(block, offset - block.base_offset)
        for step in self.steps:
            step(row)
        return row
