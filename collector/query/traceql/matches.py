"""The spans that a query leaves, as a stream of columns: what metrics are made of.

`matches` yields batches of spans of one block each, every span of the answer once. A batch gives `times` (ns), ids, and
any expression as a column (`column`), its texts not decoded. Whole traces, where a query wants them, are evaluated so
many at a time, and fewer when they would hold too much memory; the order of batches means nothing.

    for batch in matches(deadline, view, everything, plan(query), start_ns, end_ns):
        batch.times, batch.column(Intrinsic("span:duration")), batch.mask(condition)
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import QueryLimit
from collector.query.engine import END_OF_TIME, Deadline
from collector.query.traceql import values
from collector.query.traceql.ast import Intrinsic
from collector.query.traceql.conditions import fulfilling, positions, remembered_of, rest
from collector.query.traceql.evaluate import Evaluation
from collector.query.traceql.remembered import END, START, Known
from collector.query.traceql.search import TRACE_SPREAD_NS, Search, answer, fresh, having, sifted
from collector.query.traceql.structure import Numbering
from collector.query.traceql.trees import assemble

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from collector.query.traceql.ast import Expression
    from collector.query.traceql.plan import Plan
    from collector.query.traceql.values import Column
    from collector.store import View

TRACES_AT_ONCE: Final = 32_768
"""Traces that are evaluated whole at a time."""
RECORDS_AT_ONCE: Final = 262_144
"""Records of the ring in one batch."""
_DURATION: Final = Intrinsic("span:duration")


class Batch:
    """Some spans of one block."""

    __slots__ = ("evaluation",)

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation

    def __len__(self) -> int:
        return len(self.evaluation.rows)

    @property
    def times(self) -> NDArray[np.uint64]:
        """Starts, Unix ns."""
        found: NDArray[np.uint64] = self.evaluation.block.column("time")[self.evaluation.rows]
        return found

    def column(self, expression: Expression) -> Column:
        """Return an expression's values, one for each span."""
        return self.evaluation.column(expression)

    def codes(self, expression: Expression) -> tuple[NDArray[np.intp], Column]:
        """Return the distinct values of an expression, and for each span the place of its value among them."""
        column = self.column(expression)
        found, firsts = values.codes(column)
        return found, column.take(firsts)

    def mask(self, condition: Expression | None) -> NDArray[np.bool_]:
        """Tell which spans fulfil a condition."""
        if condition is None:
            return np.ones(len(self), np.bool_)
        return self.evaluation.mask(condition)

    def only(self, entries: NDArray[np.intp]) -> Batch:
        """Return some of the spans, by their places in this batch."""
        return Batch(self.evaluation.only(entries))

    def ids(self, at: int) -> tuple[bytes, bytes]:
        """Return a span's trace id and span id."""
        block, row = self.evaluation.block, int(self.evaluation.rows[at])
        return block.column("trace_id")[row].tobytes(), block.column("span_id")[row].tobytes()

    def extents(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return where in the block's payload the spans lie."""
        block, rows = self.evaluation.block, self.evaluation.rows
        return block.column("start")[rows], block.column("length")[rows]


class RingBatch(Batch):
    """Live records of the ring whose fields are remembered: no block is looked at but for ids."""

    __slots__ = ("_fields", "_places", "_view")

    def __init__(self, view: View, places: NDArray[np.intp], fields: dict[Expression, Known]) -> None:
        """Take places counted from the ring's first record, and the fields that can be asked for."""
        self._view = view
        self._places = places
        self._fields = fields

    def __len__(self) -> int:
        return len(self._places)

    @property
    def times(self) -> NDArray[np.uint64]:
        """See `Batch`."""
        return self._fields[START].codes[self._places]

    def column(self, expression: Expression) -> Column:
        """See `Batch`."""
        if expression == _DURATION:
            starts, ends = self.times, self._fields[END].codes[self._places]
            return values.of_integers(np.where(ends > starts, ends - starts, 0).astype(np.int64))
        found, dictionary = self.codes(expression)
        return dictionary.take(found)

    def codes(self, expression: Expression) -> tuple[NDArray[np.intp], Column]:
        """See `Batch`; of the values some may be no span's here."""
        known = self._fields.get(expression)
        if known is None or known.dictionary is None:
            return super().codes(expression)
        return known.codes[self._places].astype(np.intp), known.dictionary

    def only(self, entries: NDArray[np.intp]) -> Batch:
        """See `Batch`."""
        return RingBatch(self._view, self._places[entries], self._fields)

    def ids(self, at: int) -> tuple[bytes, bytes]:
        """See `Batch`."""
        ring = self._view.ring
        offset = ring.first_offset + int(self._places[at])
        block = ring.blocks[bisect_right(ring.blocks, offset, key=lambda one: one.base_offset) - 1]
        row = offset - block.base_offset
        return block.column("trace_id")[row].tobytes(), block.column("span_id")[row].tobytes()


def _known(deadline: Deadline, view: View, fields: Sequence[Expression]) -> dict[Expression, Known] | None:
    """Return remembered columns of fields, and those that every batch wants; None when one is missing."""
    remembered = remembered_of(view)
    if remembered is None:
        return None
    wanted = [START, *(END if one == _DURATION else one for one in fields)]
    found: dict[Expression, Known] = {}
    for one in wanted:
        known = remembered.known(deadline, view, one)
        if known is None or (known.dictionary is None and one not in (START, END)):
            return None
        found[one] = known
    return found


def matches(
    deadline: Deadline,
    view: View,
    everything: View,
    planned: Plan,
    start_ns: int,
    end_ns: int,
    fields: Sequence[Expression] | None = None,
) -> Iterator[Batch]:
    """Yield the spans of the answer that started in [start_ns, end_ns].

    `view` may be narrowed to the plan's key; `everything` must not be. `fields` are all that the batches are asked for;
    None: anything may be. Raises QueryTimeout and QueryLimit.
    """
    if planned.flat:
        places = positions(deadline, view, planned.seed, start_ns, end_ns) if fields is not None else None
        columns = _known(deadline, view, fields) if fields is not None and places is not None else None
        if places is not None and columns is not None:
            for at in range(0, len(places), RECORDS_AT_ONCE):
                yield RingBatch(view, places[at : at + RECORDS_AT_ONCE], columns)
            for piece in rest(deadline, view, planned.seed, start_ns, end_ns):
                yield Batch(Evaluation(piece))
            return
        for piece in fulfilling(deadline, view, planned.seed, start_ns, end_ns):
            yield Batch(Evaluation(piece))
        return
    search = Search(None, 1, 1, start_ns, end_ns)
    known = Numbering()
    waiting: list[tuple[bytes, int]] = []
    for piece in fulfilling(deadline, view, planned.seed, start_ns, end_ns):
        waiting += fresh(known, *piece)
    waiting = sifted(waiting, [having(deadline, everything, one, search) for one in planned.required])
    at, count = 0, TRACES_AT_ONCE
    while at < len(waiting):
        deadline.check()
        some = waiting[at : at + count]
        times = [time for _, time in some]
        since, until = max(0, min(times) - TRACE_SPREAD_NS), min(END_OF_TIME, max(times) + TRACE_SPREAD_NS)
        try:
            traces = assemble(deadline, everything, [trace for trace, _ in some], since, until)
        except QueryLimit:
            if len(some) == 1:
                raise
            count = max(1, len(some) // 2)
            continue
        at += len(some)
        for evaluation, _ in traces.parts(answer(traces, planned, search).members):
            yield Batch(evaluation)
