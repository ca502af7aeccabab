"""Evaluation of one expression over a slice of a block: an expression becomes a mask or a column, with numpy.

Operands are columns of typed values (`values.py`): intrinsics come from the block's columns, attributes are taken out of
the payload once for each block by `match.attribute`, resource and scope attributes once for each group. What only the
whole trace can tell (`parent.…`, child counts, nested sets, the trace's duration and root) is asked of `TreeFields`,
which `trees.py` makes.

Semantics are Tempo's: a comparison with something absent, or of another type, is false, whichever the operator;
integers and floats compare as numbers; `=~` matches the whole text. Where a span has several values (an array; events
and links) a comparison holds when one of them satisfies it; of an array `!=` and `!~` only when none is equal or matches.
Conditions that `&&` joins hold for the same event, and the same link; one that joins events with links by `||` is a
condition of its own.
Arithmetic is that of `arithmetic.py`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from collector.otlp.records import RESOURCE_ATTRIBUTES, SCOPE_ATTRIBUTES, SPAN_ATTRIBUTES
from collector.query import match
from collector.query.slices import Slice
from collector.query.traceql import values
from collector.query.traceql.arithmetic import combined
from collector.query.traceql.asking import TREE_INTRINSICS, compared_with_nil, multiple_of, units
from collector.query.traceql.ast import (
    ARITHMETIC,
    LOGICAL,
    Attribute,
    Binary,
    Expression,
    Intrinsic,
    Literal,
    Type,
    Unary,
)
from collector.query.traceql.comparisons import MIRRORED, whole_id, with_column, with_literal
from collector.query.traceql.values import Column

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


NARROWED: Final = 4
"""Further conditions are evaluated on the rows that are left when these are at most one of so many."""

_OF_SPANS = ("span", "")  # scopes of attributes that spans may have
_STATUS_MESSAGE, _STATUS = 2, 15  # Status.message, Span.status
_CONTAINERS: Final = {"resource": ("resource", RESOURCE_ATTRIBUTES), "instrumentation": ("scope", SCOPE_ATTRIBUTES)}
_SCOPE_TEXTS: Final = {"instrumentation:name": 1, "instrumentation:version": 2}
EVENTS, LINKS = 11, 13
_EVENT_TIME, _EVENT_NAME, EVENT_ATTRIBUTES = 1, 2, 3
_LINK_TRACE, _LINK_SPAN, LINK_ATTRIBUTES = 1, 2, 4

_IDS = {"trace:id": ("trace_id", 16), "span:id": ("span_id", 8), "span:parentID": ("parent_span_id", 8)}


class TreeFields(Protocol):
    """What whole traces tell about the rows of a slice."""

    def column(self, node: Attribute | Intrinsic) -> Column:
        """Return a field of `TREE_INTRINSICS`, or an attribute of the parent, with an entry for each row."""
        ...

    def only(self, places: NDArray[np.intp]) -> TreeFields:
        """Return the same for some of the rows, by their places among these."""
        ...


class Evaluation:
    """Expressions over one slice. Columns are made once, and only for the fields that are mentioned."""

    def __init__(self, piece: Slice, tree: TreeFields | None = None) -> None:
        """Take a slice, and what tells about its rows' traces if an expression asks for that."""
        self.block = piece.block
        self.rows = piece.rows
        self._tree = tree
        self._operands: dict[Expression, Column] = {}
        self._parts: dict[str, tuple[NDArray[np.intp], NDArray[Any], NDArray[Any]]] = {}
        self._of_spans: dict[bytes, Column] = {}

    def prepare(self, fields: Iterable[Expression]) -> None:
        """Take attributes of spans out of the payload in one walk, for expressions that are going to ask for them."""
        wanted = {
            one.name.encode()
            for one in fields
            if isinstance(one, Attribute) and one.scope in _OF_SPANS and not one.parent
        }
        keys = sorted(wanted - self._of_spans.keys())
        for at in range(0, len(keys), match.KEYS_MAX):
            some = keys[at : at + match.KEYS_MAX]
            found = match.attributes(self.block.payload, *self._extents(), SPAN_ATTRIBUTES, some)
            for key, one in zip(some, found, strict=True):
                self._of_spans[key] = Column(*one, self.block.payload)

    def only(self, places: NDArray[np.intp]) -> Evaluation:
        """Return an evaluation of some of the rows, by their places among these."""
        return Evaluation(Slice(self.block, self.rows[places]), None if self._tree is None else self._tree.only(places))

    def matching(self, expression: Expression | None) -> NDArray[np.intp]:
        """Return the rows for which the expression is true."""
        return self.rows if expression is None else self.rows[self.mask(expression)]

    def mask(self, node: Expression) -> NDArray[np.bool_]:
        """Tell for each row whether a condition holds."""
        if isinstance(node, Literal):
            return np.full(len(self.rows), node.value is True)
        if isinstance(node, Unary) and node.op == "!":
            return self._negated(node.operand)
        if isinstance(node, Binary) and node.op == "&&":
            return self._conjunction(node)
        if isinstance(node, Binary) and node.op == "||":
            return self.mask(node.left) | self.mask(node.right)
        if isinstance(node, Binary) and node.op not in ARITHMETIC:
            return self._comparison(node)
        column = self.operand(node)  # an attribute by itself: present and true
        return self._any(column, (column.type == match.BOOL) & (column.integer != 0))

    def column(self, node: Expression) -> Column:
        """Return a value for each row: of several, the first that is there."""
        return values.first_of_each(self.operand(node), len(self.rows))

    def codes(self, node: Expression) -> tuple[NDArray[np.intp], Column]:
        """Return the distinct values of an expression, and for each row the place of its value among them."""
        of_groups = self.of_groups(node)
        column, where = of_groups if of_groups is not None else (self.column(node), slice(None))
        found, firsts = values.codes(column)
        return found[where], column.take(firsts)

    def _conjunction(self, node: Binary) -> NDArray[np.bool_]:
        """Tell for each row whether all of several conditions hold: those on events of one event, on links of one link.

        What the columns tell comes first; when few rows are left, the rest is asked of those alone.
        """
        target, rows, holds = self, None, np.empty(0, np.bool_)
        joined = units(node)
        for at, unit in enumerate(joined):
            found = target._together(unit)
            holds = holds & found if holds.size else found
            left = int(np.count_nonzero(holds))
            if not left:
                break
            if at + 1 < len(joined) and left * NARROWED <= len(holds):
                places = np.flatnonzero(holds)
                rows = places if rows is None else rows[places]
                target, holds = target.only(places), np.empty(0, np.bool_)
        if rows is None:
            return holds
        whole = np.zeros(len(self.rows), np.bool_)
        whole[rows[holds]] = True
        return whole

    def _together(self, unit: list[Expression]) -> NDArray[np.bool_]:
        scopes = multiple_of(unit[0])
        return self.mask(unit[0]) if len(unit) == 1 else self._of_one(next(iter(scopes)), unit)

    def _of_one(self, scope: str, conditions: list[Expression]) -> NDArray[np.bool_]:
        """Tell for each row whether conditions hold together for one of its events or links, or without any."""
        owner = self._part(scope)[0]
        entries = np.logical_and.reduce([self._by_entry(scope, owner, one) for one in conditions])
        rows = np.logical_and.reduce([self._without(scope, one) for one in conditions])
        rows[owner[entries]] = True
        return np.asarray(rows, np.bool_)

    def _by_entry(self, scope: str, owner: NDArray[np.intp], node: Expression) -> NDArray[np.bool_]:
        """Tell for each event or link of the rows whether a condition holds."""
        if isinstance(node, Binary) and node.op in LOGICAL:
            left, right = self._by_entry(scope, owner, node.left), self._by_entry(scope, owner, node.right)
            return left & right if node.op == "&&" else left | right
        if scope not in multiple_of(node):
            return self.mask(node)[owner]
        if isinstance(node, Binary) and node.op not in ARITHMETIC:
            side = compared_with_nil(node)
            return self._entries(node.op, node)[0] if side is None else self.operand(side).is_there()
        wanted = not (isinstance(node, Unary) and node.op == "!")
        column = self.operand(node.operand if isinstance(node, Unary) and not wanted else node)
        return np.asarray((column.type == match.BOOL) & (column.integer == wanted), np.bool_)

    def _without(self, scope: str, node: Expression) -> NDArray[np.bool_]:
        """Tell for each row whether a condition holds whatever its events or links are."""
        if isinstance(node, Binary) and node.op in LOGICAL:
            left, right = self._without(scope, node.left), self._without(scope, node.right)
            return left & right if node.op == "&&" else left | right
        return np.zeros(len(self.rows), np.bool_) if scope in multiple_of(node) else self.mask(node)

    def _negated(self, node: Expression) -> NDArray[np.bool_]:
        if isinstance(node, Attribute):
            column = self.operand(node)
            return self._any(column, (column.type == match.BOOL) & (column.integer == 0))
        return ~self.mask(node)

    def _any(self, column: Column, entries: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell for each row whether one of its entries is true."""
        if column.owner is None:
            return np.asarray(entries, np.bool_)
        rows = np.zeros(len(self.rows), np.bool_)
        rows[column.owner[entries]] = True
        return rows

    def _comparison(self, node: Binary) -> NDArray[np.bool_]:
        side = compared_with_nil(node)
        if side is not None:
            column = self.operand(side)
            there = self._any(column, column.is_there())
            return ~there if node.op == "=" else there
        found, owned = self._entries(node.op, node)
        return self._any(owned, found)

    def _entries(self, op: str, node: Binary) -> tuple[NDArray[np.bool_], Column]:
        """Compare entry by entry; return also a column that tells whose entries they are."""
        if isinstance(node.right, Literal):
            column = self.operand(node.left)
            return with_literal(op, column, whole_id(op, node.left, node.right), node.left.type), column
        if isinstance(node.left, Literal):
            column = self.operand(node.right)
            literal = whole_id(op, node.right, node.left)
            return with_literal(MIRRORED.get(op, op), column, literal, node.right.type), column
        left, right = self._aligned(node)
        return with_column(op, left, right), left

    def _aligned(self, node: Binary) -> tuple[Column, Column]:
        """Return both operands with an entry for each of the rows, or of the events or links that one of them has."""
        left, right = self.operand(node.left), self.operand(node.right)
        if left.owner is None and right.owner is not None:
            left = left.take(right.owner)._replace(owner=right.owner)
        elif right.owner is None and left.owner is not None:
            right = right.take(left.owner)._replace(owner=left.owner)
        return left, right

    # --- operands -----------------------------------------------------------------------------------------

    def operand(self, node: Expression) -> Column:
        """Return a field, a constant or an arithmetic expression as a column over the slice's rows."""
        if node not in self._operands:
            self._operands[node] = self._operand(node)
        return self._operands[node]

    def _operand(self, node: Expression) -> Column:
        match node:
            case Literal():
                return self._constant(node)
            case Attribute():
                return self._attribute(node)
            case Intrinsic():
                return self._intrinsic(node)
            case Unary(op="-"):
                inner = self.operand(node.operand)
                kinds = np.where(inner.is_number(), inner.type, match.ABSENT).astype(np.uint8)
                opposite = -inner.integer
                doubles = np.where(inner.type == match.INT, opposite.astype(np.float64), -inner.double)
                return inner._replace(type=kinds, integer=opposite, double=doubles)
            case Binary() if node.op in ARITHMETIC:
                return self._arithmetic(node)
            case _:
                return values.of_integers(self.mask(node).astype(np.int64), match.BOOL)

    def _constant(self, literal: Literal) -> Column:
        count = len(self.rows)
        if literal.type is Type.NIL:
            return values.absent(count)
        if isinstance(literal.value, str):
            text = literal.value.encode()
            return values.of_texts(np.zeros(count, np.uint32), np.full(count, len(text), np.uint32), text)
        if isinstance(literal.value, float):
            return values.of_doubles(np.full(count, literal.value), np.ones(count, np.bool_))
        kind = match.BOOL if literal.type is Type.BOOL else match.INT
        return values.of_integers(np.full(count, int(literal.value or 0), np.int64), kind)

    def _arithmetic(self, node: Binary) -> Column:
        left, right = self._aligned(node)
        return combined(node.op, left, right, (node.left.type, node.right.type))

    def _attribute(self, node: Attribute) -> Column:
        key = node.name.encode()
        if node.parent:
            assert self._tree is not None, "the search assembles traces first"
            return self._tree.column(node)
        match node.scope:
            case "resource" | "instrumentation":
                return self._of_group(node)
            case "span":
                return self._of_span(node)
            case "event" | "link":
                owner, starts, lengths = self._part(node.scope)
                field = EVENT_ATTRIBUTES if node.scope == "event" else LINK_ATTRIBUTES
                found = match.attribute(self.block.payload, starts, lengths, field, key)
                return Column(*found, self.block.payload, owner)
        return values.chosen(self._of_span(node), self._of_group(Attribute("resource", node.name)))

    def _of_span(self, node: Attribute) -> Column:
        self.prepare([node])
        return self._of_spans[node.name.encode()]

    def _extents(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return where the rows' spans lie."""
        return self.block.column("start")[self.rows], self.block.column("length")[self.rows]

    def _part(self, scope: str) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any]]:
        """Return whose each event or link is, and where it lies."""
        if scope not in self._parts:
            field = EVENTS if scope == "event" else LINKS
            self._parts[scope] = match.children(self.block.payload, *self._extents(), field)
        return self._parts[scope]

    def of_groups(self, node: Expression) -> tuple[Column, NDArray[np.intp]] | None:
        """Return a field that rows have from their resource or scope, once for each of those, and each row's place among
        them; None for any other field."""
        if isinstance(node, Attribute) and not node.parent and node.scope in _CONTAINERS:
            part, field = _CONTAINERS[node.scope]
            found = match.attribute(self.block.payload, *self._groups(part), field, node.name.encode())
            return Column(*found, self.block.payload), self._group_places[1]
        if isinstance(node, Intrinsic) and node.name in _SCOPE_TEXTS:
            text = match.string_field(self.block.payload, *self._groups("scope"), _SCOPE_TEXTS[node.name])
            return values.of_texts(*text, self.block.payload), self._group_places[1]
        return None

    @cached_property
    def _group_places(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The groups that the rows are in, and each row's place among them."""
        groups = self.block.column("group")[self.rows]
        used = np.flatnonzero(np.bincount(groups))
        places = np.zeros(self.block.groups.count, np.intp)
        places[used] = np.arange(len(used))
        return used, places[groups]

    def _groups(self, part: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return where the resources or scopes of the rows' groups lie."""
        used = self._group_places[0]
        return self.block.group_column(f"{part}_start")[used], self.block.group_column(f"{part}_length")[used]

    def _of_group(self, node: Expression) -> Column:
        found = self.of_groups(node)
        assert found is not None
        return found[0].take(found[1])

    def _intrinsic(self, node: Intrinsic) -> Column:
        block, rows = self.block, self.rows
        if node.name in TREE_INTRINSICS:
            assert self._tree is not None, "the search assembles traces first"
            return self._tree.column(node)
        scope, _, name = node.name.partition(":")
        if scope in ("event", "link"):
            return self._of_parts(scope, name)
        match node.name:
            case "span:name":
                starts, lengths = block.column("name_start")[rows], block.column("name_length")[rows]
                return values.of_texts(starts, lengths, block.payload)
            case "span:duration":
                start, end = block.column("time")[rows], block.column("end_time")[rows]
                return values.of_integers(values.between(start, end))
            case "span:kind":
                return values.of_integers(block.column("kind")[rows].astype(np.int64))
            case "span:status":
                return values.of_integers(block.column("status")[rows].astype(np.int64))
            case "span:statusMessage":
                status = match.string_field(block.payload, *self._extents(), _STATUS)
                return values.of_texts(*match.string_field(block.payload, *status, _STATUS_MESSAGE), block.payload)
            case "instrumentation:name" | "instrumentation:version":
                return self._of_group(node)
            case "trace:id" | "span:id" | "span:parentID":
                column, size = _IDS[node.name]
                return values.of_hex(np.ascontiguousarray(block.column(column)[rows]).tobytes(), size)
            case "parent":
                return values.of_integers(np.zeros(len(rows), np.int64), match.KVLIST)._replace(
                    type=np.where(block.column("parent_span_id")[rows] != 0, match.KVLIST, match.ABSENT).astype(
                        np.uint8
                    )
                )
        raise AssertionError(node.name)

    def _of_parts(self, scope: str, name: str) -> Column:
        """Return an intrinsic of the rows' events or links."""
        payload = self.block.payload
        owner, starts, lengths = self._part(scope)
        if name == "name":
            found = match.string_field(payload, starts, lengths, _EVENT_NAME)
            return values.of_texts(*found, payload)._replace(owner=owner)
        if name == "timeSinceStart":
            begin = self.block.column("time")[self.rows][owner]
            since = match.fixed64(payload, starts, lengths, _EVENT_TIME).astype(np.uint64) - begin
            return values.of_integers(since.view(np.int64))._replace(owner=owner)
        field, size = (_LINK_TRACE, 16) if name == "traceID" else (_LINK_SPAN, 8)
        starts, lengths = match.string_field(payload, starts, lengths, field)
        whole = np.flatnonzero(lengths == size)
        raw = np.zeros((len(starts), size), np.uint8)
        if whole.size:
            raw[whole] = np.frombuffer(payload, np.uint8)[starts[whole].astype(np.int64)[:, None] + np.arange(size)]
        return values.of_hex(raw.tobytes(), size)._replace(owner=owner)
