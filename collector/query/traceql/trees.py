"""Whole traces: every span of some traces, from ring and log, and the trees that they form.

`assemble` fetches: the ring's postings say where a trace's spans lie, the log's key indexes say in which frames. All
traces asked for stand in one set of arrays, a row for each span, in pieces of one block each; nothing is decoded.

A span's parent is a span of the same trace with the id that it names. What traces of real life also have:

* Spans with the same id (one that was sent twice, or a client's and a server's half): relations hold between ids, so
  both are the parent of whoever names that id, and neither is a relative of the other. Where one parent is wanted
  (`parent.a`, nested sets), it is the one that started first, then the one that came first.
* A parent that is not held: the span is no root, and no child of anything. It may have siblings, which name the same id.
* A span that names itself as its parent counts as one whose parent is not held.
* Cycles: a span is never its own relative. No root is above a cycle, so it has no nested sets.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from collector.errors import QueryLimit
from collector.otlp.pick import pick
from collector.otlp.records import Ref
from collector.query.deadline import Deadline
from collector.query.slices import Among, Slice, log_slices
from collector.query.traceql import structure, values
from collector.query.traceql.ast import Attribute, Expression, Intrinsic
from collector.query.traceql.evaluate import Evaluation
from collector.query.traceql.structure import Numbering

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.traceql.values import Column
    from collector.store import View

SPANS_MAX: Final = 2_000_000
"""Spans of traces that are looked at together; a trace with more cannot be queried as a whole."""
HELD_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes of the log's blocks that are held at a time for traces that are looked at together."""


PICKED_ROWS: Final = 256
"""Spans of a piece, on average: with fewer, all pieces are made one."""
PICKED_MAX: Final = 65_536
PICKED_BYTES_MAX: Final = 32 * 1024 * 1024
"""Spans, and their bytes, that are copied for that."""


class Piece(NamedTuple):
    """The spans of one block: ascending rows, and where they stand in the arrays: from `begin` to before `end`."""

    block: Block
    rows: NDArray[np.intp]
    begin: int
    end: int


class Traces:
    """Every span of some traces: parallel arrays over all spans, in pieces."""

    def __init__(self, ids: Sequence[bytes], deadline: Deadline) -> None:
        """Begin with no spans of the traces with these ids (16 bytes each, distinct); the deadline is asked on the way."""
        self.ids = ids
        self._deadline = deadline
        self.pieces: list[Piece] = []
        self.count = 0
        """Spans."""
        self._trace: list[NDArray[np.int32]] = []
        self._columns: dict[Expression, Column] = {}
        words = np.frombuffer(b"".join(ids), "u8").reshape(-1, 2)
        self._numbers = Numbering()
        self._numbers.add(words[:, 0], words[:, 1])

    def add(self, block: Block, rows: NDArray[np.intp]) -> None:
        """Take those of the rows that are spans of the traces. Raises QueryLimit when they become too many."""
        words = block.column("trace_id")[rows]
        numbers = self._numbers.find(words[:, 0], words[:, 1])
        if int(numbers.min(initial=0)) < 0:
            kept = numbers >= 0
            rows, numbers = rows[kept], numbers[kept]
        if not rows.size:
            return
        if self.count + len(rows) > SPANS_MAX:
            raise QueryLimit(f"traces with more than {SPANS_MAX} spans together cannot be looked at as a whole")
        self.pieces.append(Piece(block, rows, self.count, self.count + len(rows)))
        self.count += len(rows)
        self._trace.append(numbers)

    def condense(self) -> None:
        """Put the spans of many pieces into one, if these are small: each piece costs as much as a hundred spans do."""
        if len(self.pieces) < 2 or self.count > min(PICKED_MAX, PICKED_ROWS * len(self.pieces)):
            return
        size = sum(int(one.block.column("length")[one.rows].sum(dtype=np.int64)) for one in self.pieces)
        if size > PICKED_BYTES_MAX:
            return
        self.offset = np.concatenate([one.block.base_offset + one.rows for one in self.pieces])
        picked = pick([(one.block, one.rows) for one in self.pieces])
        self.pieces = [Piece(picked, np.arange(self.count), 0, self.count)]

    # --- arrays, an entry for each span ---------------------------------------------------------------------

    def _column(self, name: str) -> NDArray[Any]:
        if not self.pieces:
            return np.empty(0, np.uint64)
        return np.concatenate([piece.block.column(name)[piece.rows] for piece in self.pieces])

    @cached_property
    def trace(self) -> NDArray[np.int32]:
        """The place of each span's trace among the ids."""
        return np.concatenate(self._trace) if self._trace else np.empty(0, np.int32)

    @cached_property
    def time(self) -> NDArray[np.uint64]:
        """Start, Unix ns."""
        return self._column("time")

    @cached_property
    def end(self) -> NDArray[np.uint64]:
        """End, Unix ns, never before the start."""
        return np.asarray(np.maximum(self._column("end_time"), self.time))

    @cached_property
    def offset(self) -> NDArray[np.int64]:
        """Offsets in the log of traces."""
        return np.concatenate([np.empty(0, np.int64)] + [p.block.base_offset + p.rows for p in self.pieces])

    @cached_property
    def span_id(self) -> NDArray[np.uint64]:
        """Ids as numbers, in the machine's order of bytes."""
        return self._column("span_id")

    @cached_property
    def parent_id(self) -> NDArray[np.uint64]:
        """The ids of parents as numbers; 0 is none."""
        return self._column("parent_span_id")

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """All spans by trace, start and offset."""
        return np.lexsort((self.offset, self.time, self.trace))

    @cached_property
    def _nodes(self) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
        numbers = Numbering()
        trace = self.trace.astype(np.uint64)
        node = numbers.add(trace, self.span_id)
        parent = numbers.add(trace, self.parent_id)
        parent[(self.parent_id == 0) | (parent == node)] = -1
        return node, parent, len(numbers)

    @property
    def node(self) -> NDArray[np.int32]:
        """The number of each span's id in its trace."""
        return self._nodes[0]

    @property
    def parent(self) -> NDArray[np.int32]:
        """The number of each span's parent id, held or not; -1 for none, and for the span itself."""
        return self._nodes[1]

    @property
    def nodes(self) -> int:
        """How many numbers there are."""
        return self._nodes[2]

    @cached_property
    def parent_row(self) -> NDArray[np.intp]:
        """The row of each span's parent, -1 for none: of several the first in `order`."""
        first = np.full(self.nodes + 1, -1, np.intp)
        backwards = self.order[::-1]
        first[self.node[backwards]] = backwards
        first[-1] = -1
        return first[self.parent]

    @cached_property
    def is_orphan(self) -> NDArray[np.bool_]:
        """Whether a span names a parent that is not held."""
        held = np.zeros(self.nodes + 1, np.bool_)
        held[self.node] = True
        held[-1] = False
        return np.asarray((self.parent_id != 0) & ~held[self.parent], np.bool_)

    # --- arrays, an entry for each trace --------------------------------------------------------------------

    @cached_property
    def bounds(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """First start and last end of each trace, Unix ns."""
        starts = np.full(len(self.ids), 2**64 - 1, np.uint64)
        ends = np.zeros(len(self.ids), np.uint64)
        np.minimum.at(starts, self.trace, self.time)
        np.maximum.at(ends, self.trace, self.end)
        return starts, ends

    @cached_property
    def duration(self) -> NDArray[np.int64]:
        """From the first start to the last end, ns."""
        starts, ends = self.bounds
        return np.where(ends > starts, ends - starts, 0).astype(np.int64)

    @cached_property
    def root_row(self) -> NDArray[np.intp]:
        """The row of the root, which has no parent id; of several the one that started first; -1 for none."""
        rows = np.full(len(self.ids), -1, np.intp)
        backwards = self.order[::-1]
        backwards = backwards[self.parent_id[backwards] == 0]
        rows[self.trace[backwards]] = backwards
        return rows

    # --- expressions ----------------------------------------------------------------------------------------

    def mask(self, expression: Expression | None) -> NDArray[np.bool_]:
        """Tell for each span whether a condition holds."""
        if expression is None:
            return np.ones(self.count, np.bool_)
        self._deadline.check()
        parts = [
            Evaluation(Slice(piece.block, piece.rows), TreeRows(self, np.arange(piece.begin, piece.end))).mask(
                expression
            )
            for piece in self.pieces
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.bool_)

    def parts(self, rows: NDArray[np.intp]) -> Iterator[tuple[Evaluation, NDArray[np.intp]]]:
        """Yield an evaluation for each piece that has some of these ascending rows, with those rows."""
        at = 0
        for piece in self.pieces:
            self._deadline.check()
            upto = at + int(np.searchsorted(rows[at:], piece.end))
            if upto > at:
                mine = rows[at:upto]
                yield Evaluation(Slice(piece.block, piece.rows[mine - piece.begin]), TreeRows(self, mine)), mine
            at = upto

    def ref(self, row: int) -> Ref:
        """Return one span."""
        piece = self.pieces[bisect_right(self.pieces, row, key=lambda one: one.begin) - 1]
        own = int(piece.rows[row - piece.begin])
        return Ref(int(piece.block.column("time")[own]), piece.block.base_offset + own, piece.block, own)

    def gather(self, expression: Expression, rows: NDArray[np.intp]) -> Column:
        """Return an expression's values at ascending rows: of several, the first."""
        return values.joined([evaluation.column(expression) for evaluation, _ in self.parts(rows)])

    def scattered(self, expression: Expression, rows: NDArray[np.intp]) -> Column:
        """Return an expression's values at rows in any order; absent at row -1."""
        distinct, place = np.unique(rows, return_inverse=True)
        missing = int(distinct.size > 0 and distinct[0] < 0)
        found = values.joined([values.absent(missing), self.gather(expression, distinct[missing:])])
        return found.take(place.reshape(-1))

    def tree_column(self, node: Attribute | Intrinsic) -> Column:
        """Return a field that only whole traces tell, for all spans."""
        if node not in self._columns:
            self._columns[node] = self._tree_column(node)
        return self._columns[node]

    def _tree_column(self, node: Attribute | Intrinsic) -> Column:
        if isinstance(node, Attribute):
            return self.scattered(Attribute(node.scope, node.name), self.parent_row)
        match node.name:
            case "trace:duration":
                return values.of_integers(self.duration[self.trace])
            case "trace:rootName":
                return self.scattered(Intrinsic("span:name"), self.root_row[self.trace])
            case "trace:rootService":
                return self.scattered(Attribute("resource", "service.name"), self.root_row[self.trace])
            case "span:childCount":
                return values.of_integers(self._child_counts[self.node])
            case "nestedSetLeft":
                return values.of_integers(self._nested_sets[0])
            case "nestedSetRight":
                return values.of_integers(self._nested_sets[1])
            case "nestedSetParent":
                return values.of_integers(self._nested_sets[2])
        raise AssertionError(node.name)

    @cached_property
    def _child_counts(self) -> NDArray[np.int64]:
        """How many children each node has: spans with the same id count once."""
        has = self.parent >= 0
        pairs = Numbering().add(self.parent[has].astype(np.uint64), self.node[has].astype(np.uint64))
        highest = np.maximum.accumulate(pairs)
        fresh = np.ones(len(pairs), np.bool_)
        np.greater(highest[1:], highest[:-1], out=fresh[1:])
        return np.bincount(self.parent[has][fresh], minlength=self.nodes).astype(np.int64)

    @cached_property
    def _nested_sets(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        return structure.nested_sets(self.trace, self.parent_row, self.parent_id == 0, self.order)


class TreeRows:
    """`evaluate.TreeFields` of some rows."""

    __slots__ = ("_rows", "_traces")

    def __init__(self, traces: Traces, rows: NDArray[np.intp]) -> None:
        self._traces = traces
        self._rows = rows

    def column(self, node: Attribute | Intrinsic) -> Column:
        """Return a field that only whole traces tell, for these rows."""
        return self._traces.tree_column(node).take(self._rows)

    def only(self, places: NDArray[np.intp]) -> TreeRows:
        """Return the same for some of the rows, by their places among these."""
        return TreeRows(self._traces, self._rows[places])


def assemble(deadline: Deadline, view: View, ids: Sequence[bytes], since_ns: int, until_ns: int) -> Traces:
    """Return every span of the traces that the ring holds, and that started in [since_ns, until_ns] in the log.

    `view` is not narrowed by a key. Raises QueryLimit when that is more than can be held.
    """
    traces = Traces(ids, deadline)
    if not ids:
        return traces
    held = 0
    for block, rows in log_slices(view, since_ns, until_ns, deadline, Among("trace_id", ids), newest_first=False):
        before = traces.count
        traces.add(block, rows)
        held += block.nbytes if traces.count > before else 0
        if held > HELD_BYTES_MAX:
            raise QueryLimit(f"the traces lie in more than {HELD_BYTES_MAX} bytes of the log's blocks")
    offsets, complete = view.ring_offsets(ids)
    blocks = view.ring.blocks
    bases = view.ring.reaches().bases
    for block in blocks[: int(np.searchsorted(bases, complete))]:
        first, last = max(view.first_offset, block.base_offset), min(complete, block.end_offset)
        if first < last:
            traces.add(block, np.arange(first - block.base_offset, last - block.base_offset))
    places = np.searchsorted(bases, offsets, side="right") - 1
    edges = np.concatenate(([0], np.flatnonzero(np.diff(places)) + 1, [len(places)]))
    if deadline.effort is not None:
        deadline.effort.by_postings(len(blocks), len(edges) - 1 if len(places) else 0, len(places))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        deadline.check()
        if begin < end:
            block = blocks[places[begin]]
            traces.add(block, (offsets[begin:end] - block.base_offset).astype(np.intp))
    traces.condense()
    return traces


def related(op: str, traces: Traces, left: NDArray[np.bool_], right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the spans of `right` that stand in a relation (`>>`, `>`, `<<`, `<`, `~`) to one of `left`."""
    node, parent, nodes = traces.node, traces.parent, traces.nodes
    if not left.any() or not right.any():
        return np.zeros(len(right), np.bool_)
    has = parent >= 0
    match op:
        case ">>":
            found = structure.below(node, parent, nodes, left)
        case "<<":
            found = structure.above(node, parent, nodes, left)
        case ">":
            sources = np.zeros(nodes, np.bool_)
            sources[node[left]] = True
            found = has & sources[parent]
        case "<":
            sources = np.zeros(nodes, np.bool_)
            sources[parent[left & has]] = True
            found = sources[node]
        case "~":
            least, most = np.full(nodes, nodes, np.int32), np.full(nodes, -1, np.int32)
            np.minimum.at(least, parent[left & has], node[left & has])
            np.maximum.at(most, parent[left & has], node[left & has])
            found = has & (most[parent] >= 0) & ((least[parent] != node) | (most[parent] != node))
        case _:
            raise AssertionError(op)
    return np.asarray(right & found, np.bool_)
