"""The lines that a metric query leaves, as a stream of batches: out of the ring by remembered labels where it can be.

A pipeline of `drop`, `keep`, label filters and `unwrap` needs no payload when the labels are remembered
(`remembered.py`): then a batch is a quarter of a million of the ring's records, and its bottom layer looks labels up.
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.engine import Deadline
    from collector.query.logql.known import Known
    from collector.query.logql.layer import Layer
    from collector.query.logql.row import Row
    from collector.query.logql.source import Source, Statistics
    from collector.store import View

RECORDS_AT_ONCE: Final = 262_144
"""Records of the ring in one batch, unless a block has more."""
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
        known = remembered.known(deadline, view, sorted(fields), _about(view, start_ns, end_ns))
    found: Iterator[Batch]
    if known is not None:
        found = chain(
            _ring(deadline, view, source, known, start_ns, end_ns, statistics),
            (
                source.batch(piece, view, deadline, statistics)
                for piece in source.pieces(view, start_ns, end_ns, deadline, in_ring=False)
            ),
        )
    else:
        found = _blocks(
            deadline, view, source, remembered, sorted({STREAM, *(names or ())}), start_ns, end_ns, statistics
        )
    for batch in found:
        if batch.rows.size:
            yield batch


def _about(view: View, start_ns: int, end_ns: int) -> int:
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
    looked = left = 0
    for number, piece in enumerate(source.pieces(view, start_ns, end_ns, deadline)):
        if number == BLOCKS_TRIED and remembered is not None and looked:
            wanted = _about(view, start_ns, end_ns) * left // looked
            known = remembered.known(deadline, view, names, wanted) or known
        batch = source.batch(piece, view, deadline, statistics, known)
        looked += len(piece.rows)
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


def _ring(
    deadline: Deadline,
    view: View,
    source: Source,
    known: dict[str, Known],
    start_ns: int,
    end_ns: int,
    statistics: Statistics,
) -> Iterator[Batch]:
    first, end = reach(view)
    streams = known[STREAM]
    selected = source.selection.verdicts(streams)
    for run in _runs(view, start_ns, end_ns):
        deadline.check()
        low, high = max(run[0].base_offset, first), min(run[-1].end_offset, end)
        inside = slice(low - run[0].base_offset, high - run[0].base_offset)
        times = np.concatenate([block.column("time") for block in run])[inside]
        chosen = selected[streams.codes[low - streams.first : high - streams.first]]
        if any(block.min_time < start_ns or block.max_time > end_ns for block in run):
            chosen = chosen & (times >= start_ns) & (times <= end_ns)
        rows = np.flatnonzero(chosen)
        if not rows.size:
            continue
        bodies = np.concatenate([block.column("body_length") for block in run])[inside]
        statistics.count_ring(len(rows), int(bodies[rows].sum(dtype=np.int64)))
        batch = RingBatch(view, source, RingLayer(rows + low, times[rows], known, deadline))
        yield source.through(batch, deadline)


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
