"""Remembered columns: what fields were in the ring's records when a query last asked, by offset.

A field's value never changes at an offset, whatever becomes of the block. So a column that a query has taken out of the
ring's payloads is kept as one array over offsets: the next query reads what came since, and compares a million spans in
a millisecond.

* A field with few values is coded: a number for each record, of one byte or two, and a dictionary of values, which also
  knows where each was last. A condition is evaluated on the dictionary, by the same code as on spans, and looked up: the
  answer is exact. So are conditions on durations, which are computed of starts and ends.
* A field with more than `DISTINCT_MAX` values is hashed: 8 bytes for each record. That tells which spans may be equal to
  a text, and nothing else; those are looked at.
* A field that has arrays, lists or bytes, or several values (events, links), is not remembered.

Memory: 1, 2 or 8 bytes for each record of the ring and field, in all what the memo may hold (memory.py gives it a share of the
process' limit, and forgets it when memory is short); the field that was not asked for longest goes first. Shared by worker threads, under a lock: a column is made by one of them, and the others wait for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from collector.otlp.wire import hash_key
from collector.query import match
from collector.query.by_offset import ByOffset, merged
from collector.query.slices import Slice
from collector.query.traceql import values
from collector.query.traceql.ast import ARITHMETIC, Attribute, Binary, Expression, Intrinsic, Literal, Type, Unary
from collector.query.traceql.dictionary import Dictionary
from collector.query.traceql.evaluate import Evaluation
from collector.query.traceql.values import Column

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.store import Memo, View

DISTINCT_MAX: Final = 32_768
"""Values of a field that is coded."""
TEXT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of a dictionary's texts; with more a field is hashed."""
COMPARED_MAX: Final = 8
"""Values that all records are compared with, one after the other."""

_INTRINSICS: Final = (
    *("span:name", "span:kind", "span:status", "span:statusMessage"),
    *("instrumentation:name", "instrumentation:version"),
)
_SCOPES: Final = ("", "span", "resource", "instrumentation")
_SINGLE: Final = np.zeros(256, np.bool_)
_SINGLE[[match.ABSENT, match.EMPTY, match.STRING, match.BOOL, match.INT, match.DOUBLE]] = True
START: Final = Intrinsic("start")
"""The field of starts, in ns: for use inside only."""
END: Final = Intrinsic("end")
IS_ROOT: Final = Binary("=", Intrinsic("span:parentID"), Literal(Type.STRING, ""))
"""The condition that a span has no parent; it is remembered as if it were a field."""
DURATION: Final = Intrinsic("span:duration")


Places: TypeAlias = "NDArray[np.intp] | range"
"""Some of a ring's live records, counted from its first: ascending, or all that lie in a range."""


class Known(NamedTuple):
    """One field over the live offsets of a ring."""

    codes: NDArray[Any]
    """For each record the place of its value in the dictionary; without a dictionary a hash, or a number."""
    dictionary: Column | None
    last: NDArray[np.int64]
    """Of each value in the dictionary the last record that has it, counted from the ring's first; before it: none has."""

    def newest(self, places: Places) -> NDArray[np.int64]:
        """Return for each value in the dictionary the last of some records that has it, counted as they are; -1 for none."""
        if isinstance(places, range):
            if len(places) == len(self.codes) and int(self.last.max(initial=-1)) < len(self.codes):
                return np.maximum(self.last, -1)
            places = np.arange(places.start, places.stop)
        newest = np.full(len(self.last), -1, np.int64)
        newest[self.codes[places]] = places
        return newest


class _Field(ByOffset):
    """One remembered field."""

    def __init__(self, node: Attribute | Intrinsic | Binary, *, hashed: bool = False) -> None:
        super().__init__(np.uint64 if hashed or node in (START, END) else np.uint8)
        self.node = node
        self.usable = True
        self.coded = not hashed and node not in (START, END, IS_ROOT)
        self._values = Dictionary()
        self._dictionary: Column | None = None

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._values.nbytes

    def known(self, first: int, end: int) -> Known:
        """Return what is remembered of the offsets from `first` to before `end`."""
        return Known(self.between(first, end), self.dictionary(), self._values.last() - first)

    def dictionary(self) -> Column | None:
        if not self.coded:
            return None
        if self._dictionary is None or len(self._dictionary.type) != len(self._values):
            self._dictionary = Column(*self._values.columns())
        return self._dictionary

    def restart(self, offset: int) -> None:
        """Forget all records, and begin at an offset."""
        super().restart(offset)
        self._values = Dictionary()
        self._dictionary = None

    def has(self, first: int, end: int) -> bool:
        """Tell whether these offsets are remembered."""
        return self.usable and self.first <= first and end <= self.end

    def add(self, records: Evaluation) -> bool:
        """Take the records that follow; False when they cannot be remembered this way."""
        if self.node in (START, END):
            self.append(records.block.column("time" if self.node == START else "end_time")[records.rows])
            return True
        if self.node == IS_ROOT:
            self.append(records.block.column("parent_span_id")[records.rows] == 0)
            return True
        of_groups = records.of_groups(self.node)
        column, where = of_groups if of_groups is not None else (records.operand(self.node), slice(None))
        if not _SINGLE[column.type].all():
            self.usable = False
            return False
        if self.coded:
            numbers = self._values.add(
                *(column.payload, column.type, column.integer, column.double, column.start, column.length),
                *(DISTINCT_MAX, TEXT_BYTES_MAX),
            )
            if numbers is None:
                return False
            numbers = np.ascontiguousarray(numbers[where])
            self._values.seen(numbers, self.end)
            self.append(numbers, len(self._values))
            return True
        hashes = match.hashes(column.payload, column.start, column.length)
        self.append(np.where(column.type == match.STRING, hashes, 0)[where])
        return True


class Remembered:
    """The remembered columns of one store's ring."""

    def __init__(self, memo: Memo) -> None:
        """Remember nothing yet; the memo tells how many bytes there may be."""
        self._memo = memo
        self._lock = threading.Lock()
        self._fields: OrderedDict[Expression, _Field] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """The bytes of all columns."""
        return sum(field.nbytes for field in tuple(self._fields.values()))

    def known(self, deadline: Deadline, view: View, node: Expression) -> Known | None:
        """Return a field over the live offsets of a view's ring; None when it cannot be remembered."""
        return self.several(deadline, view, [node]).get(node)

    def several(self, deadline: Deadline, view: View, nodes: Iterable[Expression]) -> dict[Expression, Known]:
        """Return those of some fields that can be remembered; what has to be read for them is read in one walk."""
        wanted = [one for one in nodes if _is_single(one)]
        with self._lock:
            fields = []
            for node in wanted:
                assert isinstance(node, Attribute | Intrinsic | Binary)
                field = self._fields.setdefault(node, _Field(node))
                self._fields.move_to_end(node)
                if field.usable:
                    fields.append(field)
            self._fill(deadline, view, fields)
            first, end = view.ring.first_offset, view.ring.next_offset
            found = {
                node: self._fields[node].known(first, end) for node in wanted if self._fields[node].has(first, end)
            }
            self._make_room(frozenset(wanted))
            return found

    def _make_room(self, wanted: frozenset[Expression]) -> None:
        """Forget fields until the others have room: those that were not asked for longest, then the last of these.

        Not the first of these: a question about more fields than there is room for would find none of them next time.
        """
        others = [one for one in self._fields if one not in wanted]
        for one in (*others, *reversed([one for one in self._fields if one in wanted])):
            if max(self.nbytes, self._memo.nbytes) <= self._memo.bytes_max:
                break
            del self._fields[one]

    def durations(self, deadline: Deadline, view: View) -> Column | None:
        """Return how long each live record of a view's ring took, in ns; None when that cannot be remembered."""
        starts, ends = self.known(deadline, view, START), self.known(deadline, view, END)
        if starts is None or ends is None:
            return None
        return values.of_integers(values.between(starts.codes, ends.codes))

    def _fill(self, deadline: Deadline, view: View, fields: Sequence[_Field]) -> None:
        """Read what came since, but for fields that are remembered from later on than the view begins."""
        ring = view.ring
        pending = []
        for field in fields:
            if field.end < ring.first_offset or field.first == field.end:
                field.restart(ring.first_offset)
            if field.first <= ring.first_offset:
                field.forget_before(ring.first_offset)
                pending.append(field)
        while pending:
            again = []
            for block in merged(ring.blocks, min(field.end for field in pending)):
                deadline.check()
                end = min(block.end_offset, ring.next_offset)
                parts: dict[int, Evaluation] = {}
                for field in tuple(pending):
                    begin, is_new = max(field.end, block.base_offset), field.first == field.end
                    if begin >= end:
                        continue
                    if begin not in parts:
                        parts[begin] = Evaluation(
                            Slice(block, np.arange(begin - block.base_offset, end - block.base_offset))
                        )
                        parts[begin].prepare([one.node for one in pending])
                    if field.add(parts[begin]):
                        continue
                    pending.remove(field)
                    if field.usable:
                        # A dictionary fills up with values of records that are gone: then it is made anew.
                        other = _Field(field.node, hashed=field.first == ring.first_offset or is_new)
                        other.restart(ring.first_offset)
                        self._fields[field.node] = other
                        again.append(other)
                    else:
                        field.restart(0)
            pending = again


def _is_single(node: Expression) -> bool:
    if isinstance(node, Attribute):
        return not node.parent and node.scope in _SCOPES
    return node == IS_ROOT or (isinstance(node, Intrinsic) and (node.name in _INTRINSICS or node in (START, END)))


class _OverDictionary(Evaluation):
    """An expression over one field, evaluated on the field's dictionary."""

    def __init__(self, dictionary: Column) -> None:
        self.rows = np.arange(len(dictionary.type))
        self._dictionary = dictionary

    def operand(self, node: Expression) -> Column:
        return self._constant(node) if isinstance(node, Literal) else self._dictionary


class Verdict(NamedTuple):
    """Which live records of the ring may fulfil a condition; `exact`: do."""

    mask: NDArray[np.bool_]
    exact: bool


def verdict(deadline: Deadline, view: View, remembered: Remembered, node: Expression) -> Verdict | None:
    """Evaluate a condition on remembered columns; None when that tells nothing."""
    if isinstance(node, Unary) and node.op == "!" and not isinstance(node.operand, Attribute):
        inner = verdict(deadline, view, remembered, node.operand)
        return Verdict(~inner.mask, exact=True) if inner is not None and inner.exact else None
    if isinstance(node, Binary) and node.op in ("&&", "||"):
        left = verdict(deadline, view, remembered, node.left)
        right = verdict(deadline, view, remembered, node.right)
        if left is not None and right is not None:
            mask = left.mask & right.mask if node.op == "&&" else left.mask | right.mask
            return Verdict(mask, left.exact and right.exact)
        known = left or right
        return Verdict(known.mask, exact=False) if known is not None and node.op == "&&" else None
    if node == IS_ROOT:
        found = remembered.known(deadline, view, node)
        return Verdict(found.codes != 0, exact=True) if found is not None else None
    field = _only_field(node)
    if field == DURATION:
        durations = remembered.durations(deadline, view)
        return Verdict(_OverDictionary(durations).mask(node), exact=True) if durations is not None else None
    found = remembered.known(deadline, view, field) if field is not None else None
    if found is None or field is None:
        return None
    if found.dictionary is not None:
        return Verdict(_of_codes(found.codes, _OverDictionary(found.dictionary).mask(node)), exact=True)
    if isinstance(node, Binary) and node.op == "=":
        for side in (node.left, node.right):
            if isinstance(side, Literal) and side.type is Type.STRING and side.value:
                return Verdict(found.codes == np.uint64(hash_key(str(side.value).encode())), exact=False)
    return None


def _of_codes(codes: NDArray[Any], holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each code whether it holds: of a few by comparing, a tenth of what looking up costs."""
    few = np.flatnonzero(holds)
    if len(few) > COMPARED_MAX:
        return np.asarray(holds[codes], np.bool_)
    mask = np.zeros(len(codes), np.bool_)
    for code in few.astype(codes.dtype):
        mask |= codes == code
    return mask


def _only_field(node: Expression) -> Attribute | Intrinsic | None:
    """Return the field that a simple condition is about: a comparison with a constant, or an attribute by itself."""
    if isinstance(node, Unary):
        node = node.operand
    if isinstance(node, Attribute):
        return node
    if isinstance(node, Binary) and node.op not in ARITHMETIC:
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(other, Literal) and isinstance(side, Attribute | Intrinsic):
                return side
    return None
