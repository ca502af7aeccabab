"""The spans that a query leaves, as a stream of columns: what metrics are made of.

`matches` yields batches of spans, of one block or of several that follow each other, every span of the answer once. A batch gives `times` (ns), ids, and
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
from collector.query.deadline import Deadline
from collector.query.slices import END_OF_TIME
from collector.query.together import together
from collector.query.traceql import values
from collector.query.traceql.candidates import TRACE_SPREAD_NS, Candidate, fresh, having, having_rare, rare_side, sifted
from collector.query.traceql.conditions import fulfilling, positions, remembered_of, rest
from collector.query.traceql.evaluate import Evaluation
from collector.query.traceql.remembered import DURATION, END, START, Known, Places, verdict
from collector.query.traceql.search import Search, answer
from collector.query.traceql.structure import Numbering
from collector.query.traceql.trees import assemble

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from collector.query.traceql.ast import Expression
    from collector.query.traceql.plan import Plan
    from collector.query.traceql.values import Column
    from collector.store import View

TRACES_AT_ONCE: Final = 32_768
"""Traces that are evaluated whole at a time."""
RECORDS_AT_ONCE: Final = 262_144
"""Records of the ring in one batch."""


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

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Offsets in the log of traces."""
        return self.evaluation.block.base_offset + self.evaluation.rows.astype(np.int64)

    @property
    def trace_ids(self) -> NDArray[np.uint64]:
        """Trace ids, two words each."""
        found: NDArray[np.uint64] = self.evaluation.block.column("trace_id")[self.evaluation.rows]
        return found

    def column(self, expression: Expression) -> Column:
        """Return an expression's values, one for each span."""
        return self.evaluation.column(expression)

    def codes(self, expression: Expression) -> tuple[NDArray[Any], Column]:
        """Return the distinct values of an expression, and for each span the place of its value among them."""
        return self.evaluation.codes(expression)

    def entries(self, expression: Expression) -> Column:
        """Return all values of a field that spans have several of: of events or links, with their `owner`."""
        return self.evaluation.operand(expression)

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


class RingBatch(Batch):
    """Live records of the ring whose fields are remembered: no block is looked at but for ids."""

    __slots__ = ("_chosen", "_fields", "_masks", "_places", "_view")

    def __init__(
        self,
        view: View,
        places: Places,
        fields: Mapping[Expression, Known],
        masks: Mapping[Expression, NDArray[np.bool_]],
    ) -> None:
        """Take places, and the fields and conditions that can be asked for."""
        self._view = view
        self._places = places
        self._fields = fields
        self._masks = masks
        self._chosen = slice(places.start, places.stop) if isinstance(places, range) else places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def times(self) -> NDArray[np.uint64]:
        """See `Batch`."""
        found: NDArray[np.uint64] = self._fields[START].codes[self._chosen]
        return found

    @property
    def offsets(self) -> NDArray[np.int64]:
        """See `Batch`."""
        chosen = np.arange(self._places.start, self._places.stop) if isinstance(self._places, range) else self._places
        return chosen + self._view.ring.first_offset

    @property
    def trace_ids(self) -> NDArray[np.uint64]:
        """See `Batch`: put together of the blocks that have them."""
        ring = self._view.ring
        first, end = ring.first_offset + int(self._places[0]), ring.first_offset + int(self._places[-1]) + 1
        blocks = [one for one in ring.blocks if one.base_offset < end and one.end_offset > first]
        words: NDArray[np.uint64] = np.concatenate([one.column("trace_id") for one in blocks])
        return words[self.offsets - blocks[0].base_offset]

    def column(self, expression: Expression) -> Column:
        """See `Batch`."""
        if expression == DURATION:
            return values.of_integers(values.between(self.times, self._fields[END].codes[self._chosen]))
        found, dictionary = self.codes(expression)
        return dictionary.take(found)

    def codes(self, expression: Expression) -> tuple[NDArray[Any], Column]:
        """See `Batch`; of the values some may be no span's here."""
        known = self._fields.get(expression)
        if known is None or known.dictionary is None:
            column = self.column(expression)
            found, firsts = values.codes(column)
            return found, column.take(firsts)
        return known.codes[self._chosen], known.dictionary

    def mask(self, condition: Expression | None) -> NDArray[np.bool_]:
        """See `Batch`."""
        return super().mask(None) if condition is None else self._masks[condition][self._chosen]

    def only(self, entries: NDArray[np.intp]) -> Batch:
        """See `Batch`."""
        places = entries + self._places.start if isinstance(self._places, range) else self._places[entries]
        return RingBatch(self._view, places, self._fields, self._masks)

    def ids(self, at: int) -> tuple[bytes, bytes]:
        """See `Batch`."""
        ring = self._view.ring
        offset = ring.first_offset + int(self._places[at])
        block = ring.blocks[bisect_right(ring.blocks, offset, key=lambda one: one.base_offset) - 1]
        row = offset - block.base_offset
        return block.column("trace_id")[row].tobytes(), block.column("span_id")[row].tobytes()


def known_fields(deadline: Deadline, view: View, fields: Iterable[Expression]) -> dict[Expression, Known]:
    """Return those of some fields that are remembered with their values, or as numbers."""
    remembered = remembered_of(view)
    found = remembered.several(deadline, view, fields) if remembered is not None else {}
    return {one: known for one, known in found.items() if known.dictionary is not None or one in (START, END)}


def _remembered(
    deadline: Deadline,
    view: View,
    planned: Plan,
    start_ns: int,
    end_ns: int,
    fields: Sequence[Expression],
    conditions: Sequence[Expression],
) -> Iterator[RingBatch] | None:
    """Return batches of what the ring has of an answer; None when not all that they are asked for is remembered."""
    remembered = remembered_of(view)
    places = positions(deadline, view, planned.seed, start_ns, end_ns)
    if remembered is None or places is None:
        return None
    wanted = {START, *(END if one == DURATION else one for one in fields)}
    known = known_fields(deadline, view, wanted)
    if len(known) < len(wanted):
        return None
    masks = {}
    for one in conditions:
        found = verdict(deadline, view, remembered, one)
        if found is None or not found.exact:
            return None
        masks[one] = found.mask
    if deadline.effort is not None:
        deadline.effort.by_columns(view.ring)
    return (
        RingBatch(view, places[at : at + RECORDS_AT_ONCE], known, masks)
        for at in range(0, len(places), RECORDS_AT_ONCE)
    )


def matches(
    deadline: Deadline,
    view: View,
    everything: View,
    planned: Plan,
    start_ns: int,
    end_ns: int,
    fields: Sequence[Expression] | None = None,
    conditions: Sequence[Expression] = (),
) -> Iterator[Batch]:
    """Yield the spans of the answer that started in [start_ns, end_ns].

    `view` may be narrowed to the plan's key; `everything` must not be. `fields` and `conditions` are all that the batches
    are asked for; None: anything may be. Raises QueryTimeout and QueryLimit.
    """
    if planned.flat:
        batches = (
            _remembered(deadline, view, planned, start_ns, end_ns, fields, conditions) if fields is not None else None
        )
        if batches is not None:
            yield from batches
            for piece in rest(deadline, view, planned.seed, start_ns, end_ns):
                yield Batch(Evaluation(piece))
            return
        pieces = fulfilling(deadline, view, planned.seed, start_ns, end_ns)
        for piece in together(pieces, newest_first=True) if fields is None else pieces:
            yield Batch(Evaluation(piece))
        return
    search = Search(None, 1, 1, start_ns, end_ns)
    waiting = _in_question(deadline, view, everything, planned, start_ns, end_ns)
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


def _in_question(
    deadline: Deadline, view: View, everything: View, planned: Plan, start_ns: int, end_ns: int
) -> list[Candidate]:
    """Return the traces that can have spans of the answer."""
    since, until = max(0, start_ns - TRACE_SPREAD_NS), min(END_OF_TIME, end_ns + TRACE_SPREAD_NS)
    side = rare_side(everything, planned, since, until)
    if side is not None:
        return having_rare(deadline, everything, side, since, until)
    known = Numbering()
    found: list[Candidate] = []
    for piece in fulfilling(deadline, view, planned.seed, start_ns, end_ns):
        found += fresh(known, *piece)
    return sifted(found, [having(deadline, everything, one, start_ns, end_ns) for one in planned.required])
