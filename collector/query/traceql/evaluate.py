"""Evaluation of one spanset filter over a slice of a block: an expression becomes a mask, with numpy.

Operands are columns of typed values (`match.Values`): intrinsics come from the block's columns, attributes are
taken out of the payload once for each block by `match.attribute`, resource and scope attributes once for each
group. Semantics are Tempo's: a comparison with something absent, or of another type, is false, whichever the
operator; integers and floats compare as numbers; `=~` matches the whole text; an array satisfies a comparison when
one of its elements does, and `!=` or `!~` when all do.

What this issue's evaluation does not do is refused by `check` before anything runs, by name and column.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from opentelemetry.proto.common.v1 import common_pb2

from collector.errors import InvalidQuery
from collector.otlp.records import RESOURCE_ATTRIBUTES, SCOPE_ATTRIBUTES, SPAN_ATTRIBUTES
from collector.query import match
from collector.query.regex import compile_regex
from collector.query.traceql.ast import (
    ARITHMETIC,
    Attribute,
    Binary,
    Expression,
    Filter,
    Intrinsic,
    Literal,
    Query,
    SpansetOperation,
    Type,
    Unary,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from collector.query.engine import Slice

_STATUS_MESSAGE, _STATUS = 2, 15  # Status.message, Span.status
_SCOPE_NAME, _SCOPE_VERSION = 1, 2

TRACE_INTRINSICS = ("trace:duration", "trace:rootName", "trace:rootService")
"""What only the whole trace can tell; `search.py` finds it out first."""

_EVALUATED = (
    *("span:duration", "span:name", "span:kind", "span:status", "span:statusMessage", "span:id", "span:parentID"),
    *("trace:id", "instrumentation:name", "instrumentation:version", *TRACE_INTRINSICS),
)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_IDS = {"trace:id": ("trace_id", 16), "span:id": ("span_id", 8), "span:parentID": ("parent_span_id", 8)}


class Column(NamedTuple):
    """A column of typed values, as `match.Values`, and the bytes that its texts lie in."""

    type: NDArray[np.uint8]
    integer: NDArray[np.int64]
    double: NDArray[np.float64]
    start: NDArray[np.uint32]
    length: NDArray[np.uint32]
    payload: bytes | bytearray


class TraceFacts:
    """What a filter may ask about whole traces: duration in ns, root span's name and service, by trace id."""

    __slots__ = ("duration", "root_name", "root_service")

    def __init__(self) -> None:
        self.duration: dict[bytes, int] = {}
        self.root_name: dict[bytes, str] = {}
        self.root_service: dict[bytes, str] = {}


def single_filter(query: Query) -> Filter:
    """Return the one filter that a query consists of; InvalidQuery names the first thing that is more."""
    stages = query.pipeline.stages
    first = stages[0]
    if not isinstance(first, Filter):
        raise InvalidQuery(f"{_feature(first)} is not supported yet", first.at)
    if len(stages) > 1:
        raise InvalidQuery(f"{_feature(stages[1])} is not supported yet", stages[1].at)
    check(first.expression)
    return first


def _feature(stage: Any) -> str:
    if isinstance(stage, SpansetOperation):
        return f"the operation {stage.op}"
    if isinstance(stage, Filter):
        return "a second filter"
    return f"the stage {stage}"[:100]


def check(expression: Expression | None) -> None:
    """Raise InvalidQuery for what is parsed but not evaluated, with its name and column."""
    if isinstance(expression, Attribute):
        if expression.parent or expression.scope in ("event", "link"):
            what = "parent" if expression.parent else expression.scope
            raise InvalidQuery(f"attributes of {what} are not supported yet", expression.at)
    elif isinstance(expression, Intrinsic):
        if expression.name not in _EVALUATED:
            raise InvalidQuery(f"the intrinsic {expression.name} is not supported yet", expression.at)
    elif isinstance(expression, Unary):
        check(expression.operand)
    elif isinstance(expression, Binary):
        check(expression.left)
        check(expression.right)


def uses(expression: Expression | None, names: tuple[str, ...]) -> bool:
    """Tell whether an expression asks for one of these intrinsics."""
    if isinstance(expression, Intrinsic):
        return expression.name in names
    if isinstance(expression, Unary):
        return uses(expression.operand, names)
    return isinstance(expression, Binary) and (uses(expression.left, names) or uses(expression.right, names))


def fields_of(expression: Expression | None) -> list[Attribute | Intrinsic]:
    """Return the fields that an expression mentions, each once, in their order."""
    if isinstance(expression, Attribute | Intrinsic):
        return [expression]
    if isinstance(expression, Unary):
        return fields_of(expression.operand)
    if isinstance(expression, Binary):
        return list(dict.fromkeys(fields_of(expression.left) + fields_of(expression.right)))
    return []


def demanded_key(expression: Expression | None) -> tuple[str, bytes] | None:
    """Return an index and a key without which no span can match, if the expression's conjunction has one."""
    if not isinstance(expression, Binary):
        return None
    if expression.op == "&&":
        return demanded_key(expression.left) or demanded_key(expression.right)
    if expression.op != "=" or not isinstance(expression.right, Literal) or not isinstance(expression.right.value, str):
        return None
    text, field = expression.right.value, expression.left
    if isinstance(field, Intrinsic) and field.name == "trace:id":
        raw = trace_id_bytes(text)
        return ("trace_id", raw) if raw is not None else None
    if not text:
        return None
    if isinstance(field, Intrinsic) and field.name == "span:name":
        return "name", text.encode()
    if isinstance(field, Attribute) and (field.scope, field.name, field.parent) == ("resource", "service.name", False):
        return "service", text.encode()
    return None


def trace_id_bytes(text: str) -> bytes | None:
    """Return a trace id written in hex as 16 bytes, padded on the left; None when it is not one."""
    digits = text.replace("-", "")
    # Python reads over spaces in hex.
    if not 0 < len(digits) <= 32 or not digits.isalnum():
        return None
    try:
        return bytes.fromhex(digits.zfill(32))
    except ValueError:
        return None


class Evaluation:
    """One filter over one slice. Columns are made once, and only for the fields that the filter mentions."""

    def __init__(self, piece: Slice, facts: TraceFacts | None = None) -> None:
        self.block = piece.block
        self.rows = piece.rows
        self._facts = facts
        self._operands: dict[Expression, Column] = {}

    def matching(self, expression: Expression | None) -> NDArray[np.intp]:
        """Return the rows for which the expression is true."""
        return self.rows if expression is None else self.rows[self._mask(expression)]

    def _mask(self, node: Expression) -> NDArray[np.bool_]:
        if isinstance(node, Literal):
            return np.full(len(self.rows), node.value is True)
        if isinstance(node, Unary) and node.op == "!":
            return self._negated(node.operand)
        if isinstance(node, Binary) and node.op == "&&":
            left = self._mask(node.left)
            return left & self._mask(node.right) if left.any() else left
        if isinstance(node, Binary) and node.op == "||":
            return self._mask(node.left) | self._mask(node.right)
        if isinstance(node, Binary) and node.op not in ARITHMETIC:
            return self._comparison(node)
        values = self.operand(node)  # an attribute by itself: present and true
        return np.asarray((values.type == match.BOOL) & (values.integer != 0), np.bool_)

    def _negated(self, node: Expression) -> NDArray[np.bool_]:
        if isinstance(node, Attribute):
            values = self.operand(node)
            return np.asarray((values.type == match.BOOL) & (values.integer == 0), np.bool_)
        return ~self._mask(node)

    def _comparison(self, node: Binary) -> NDArray[np.bool_]:
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(other, Literal) and other.type is Type.NIL:
                absent = self.operand(side).type == match.ABSENT
                return np.asarray(absent if node.op == "=" else ~absent, np.bool_)
        if isinstance(node.right, Literal):
            return self._with_literal(node.op, self.operand(node.left), node.right)
        if isinstance(node.left, Literal):
            mirrored = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(node.op, node.op)
            return self._with_literal(mirrored, self.operand(node.right), node.left)
        return self._with_values(node.op, self.operand(node.left), self.operand(node.right))

    def _with_literal(self, op: str, values: Column, literal: Literal) -> NDArray[np.bool_]:
        if literal.type is Type.STRING:
            mask = self._text(op, values, str(literal.value))
        elif literal.type in (Type.BOOL, Type.STATUS, Type.KIND):
            kind = match.BOOL if literal.type is Type.BOOL else match.INT
            mask = (values.type == kind) & _COMPARE[op](values.integer, int(literal.value or 0))
        elif isinstance(literal.value, int):
            integers = (values.type == match.INT) & _COMPARE[op](values.integer, literal.value)
            mask = integers | ((values.type == match.DOUBLE) & _COMPARE[op](values.double, literal.value))
        else:
            numbers = (values.type == match.INT) | (values.type == match.DOUBLE)
            mask = numbers & _COMPARE[op](values.double, float(literal.value or 0))
        arrays = np.flatnonzero(values.type == match.ARRAY)
        for row in arrays.tolist():
            mask[row] = _array_matches(op, _content(values, row), literal)
        return mask

    def _text(self, op: str, values: Column, text: str) -> NDArray[np.bool_]:
        texts = values.type == match.STRING
        if op in ("=", "!="):
            same = match.equal(values.payload, values.start, values.length, text.encode())
            return np.asarray(texts & (same if op == "=" else ~same), np.bool_)
        where = np.flatnonzero(texts)
        verdicts: dict[bytes, bool] = {}
        mask = np.zeros(len(texts), np.bool_)
        pattern = compile_regex(text) if op in ("=~", "!~") else None
        for row in where.tolist():
            content = _content(values, row)
            verdict = verdicts.get(content)
            if verdict is None:
                if pattern is not None:
                    verdict = (pattern.fullmatch(content) is not None) == (op == "=~")
                else:
                    verdict = _COMPARE[op](content, text.encode())
                verdicts[content] = verdict
            mask[row] = verdict
        return mask

    def _with_values(self, op: str, left: Column, right: Column) -> NDArray[np.bool_]:
        """Compare two fields: numbers with numbers, texts with texts, booleans with booleans."""
        numbers = _numbers(left) & _numbers(right)
        both_integers = (left.type == match.INT) & (right.type == match.INT)
        mask = numbers & np.where(
            both_integers, _COMPARE[op](left.integer, right.integer), _COMPARE[op](left.double, right.double)
        )
        booleans = (left.type == match.BOOL) & (right.type == match.BOOL)
        mask |= booleans & _COMPARE[op](left.integer, right.integer)
        for row in np.flatnonzero((left.type == match.STRING) & (right.type == match.STRING)).tolist():
            mask[row] = _COMPARE[op](_content(left, row), _content(right, row))
        return np.asarray(mask, np.bool_)

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
                return inner._replace(
                    type=np.where(_numbers(inner), inner.type, match.ABSENT),
                    integer=-inner.integer,
                    double=-inner.double,
                )
            case Binary() if node.op in ARITHMETIC:
                return self._arithmetic(node)
            case _:
                return _of_integers(self._mask(node).astype(np.int64), match.BOOL)

    def _constant(self, literal: Literal) -> Column:
        count = len(self.rows)
        if isinstance(literal.value, float):
            return _of_doubles(np.full(count, literal.value), np.full(count, match.DOUBLE, np.uint8))
        value = literal.value if isinstance(literal.value, int) else 0
        kind = match.BOOL if literal.type is Type.BOOL else match.INT
        return _of_integers(np.full(count, value, np.int64), kind)

    def _arithmetic(self, node: Binary) -> Column:
        left, right = self.operand(node.left), self.operand(node.right)
        numbers = _numbers(left) & _numbers(right)
        with np.errstate(all="ignore"):
            match node.op:
                case "+":
                    result = left.double + right.double
                case "-":
                    result = left.double - right.double
                case "*":
                    result = left.double * right.double
                case "/":
                    result = left.double / right.double
                case "%":
                    result = np.fmod(left.double, right.double)
                case _:
                    result = np.power(left.double, right.double)
        kinds = np.where(numbers, match.DOUBLE, match.ABSENT).astype(np.uint8)
        return _of_doubles(np.where(numbers, result, 0.0), kinds)

    def _attribute(self, node: Attribute) -> Column:
        key = node.name.encode()
        match node.scope:
            case "resource":
                return self._of_groups("resource", RESOURCE_ATTRIBUTES, key)
            case "instrumentation":
                return self._of_groups("scope", SCOPE_ATTRIBUTES, key)
            case "span":
                return self._of_spans(key)
        own, outer = self._of_spans(key), self._of_groups("resource", RESOURCE_ATTRIBUTES, key)
        missing = own.type == match.ABSENT
        return Column(
            np.where(missing, outer.type, own.type),
            np.where(missing, outer.integer, own.integer),
            np.where(missing, outer.double, own.double),
            np.where(missing, outer.start, own.start),
            np.where(missing, outer.length, own.length),
            own.payload,
        )

    def _of_spans(self, key: bytes) -> Column:
        block, rows = self.block, self.rows
        starts, lengths = block.column("start")[rows], block.column("length")[rows]
        return Column(*match.attribute(block.payload, starts, lengths, SPAN_ATTRIBUTES, key), block.payload)

    def _of_groups(self, part: str, field: int, key: bytes) -> Column:
        block = self.block
        starts, lengths = block.group_column(f"{part}_start"), block.group_column(f"{part}_length")
        return self._spread(Column(*match.attribute(block.payload, starts, lengths, field, key), block.payload))

    def _spread(self, values: Column) -> Column:
        """Give each row its group's value."""
        group = self.block.column("group")[self.rows]
        return Column(
            values.type[group],
            values.integer[group],
            values.double[group],
            values.start[group],
            values.length[group],
            values.payload,
        )

    def _intrinsic(self, node: Intrinsic) -> Column:
        block, rows = self.block, self.rows
        match node.name:
            case "span:name":
                return _of_texts(block.column("name_start")[rows], block.column("name_length")[rows], block.payload)
            case "span:duration":
                end, start = block.column("end_time")[rows], block.column("time")[rows]
                return _of_integers(np.where(end > start, end - start, 0).astype(np.int64), match.INT)
            case "span:kind":
                return _of_integers(block.column("kind")[rows].astype(np.int64), match.INT)
            case "span:status":
                return _of_integers(block.column("status")[rows].astype(np.int64), match.INT)
            case "span:statusMessage":
                starts, lengths = block.column("start")[rows], block.column("length")[rows]
                status = match.string_field(block.payload, starts, lengths, _STATUS)
                return _of_texts(*match.string_field(block.payload, *status, _STATUS_MESSAGE), block.payload)
            case "instrumentation:name" | "instrumentation:version":
                field = _SCOPE_NAME if node.name.endswith("name") else _SCOPE_VERSION
                scopes = (block.group_column("scope_start"), block.group_column("scope_length"))
                return self._spread(_of_texts(*match.string_field(block.payload, *scopes, field), block.payload))
            case "trace:id" | "span:id" | "span:parentID":
                return self._identifier(node.name)
            case "trace:duration" | "trace:rootName" | "trace:rootService":
                return self._of_traces(node.name)
        raise AssertionError(node.name)

    def _identifier(self, name: str) -> Column:
        """Return ids as texts of hex digits; an absent one as the empty text."""
        column, size = _IDS[name]
        raw = np.ascontiguousarray(self.block.column(column)[self.rows]).tobytes()
        count = len(self.rows)
        present = np.frombuffer(raw, np.uint8).reshape(count, size).any(axis=1)
        starts = (np.arange(count) * size * 2).astype(np.uint32)
        lengths = np.where(present, size * 2, 0).astype(np.uint32)
        return _of_texts(starts, lengths, raw.hex().encode())

    def _of_traces(self, name: str) -> Column:
        """Return what is known of each row's trace; absent where that is nothing."""
        facts = self._facts
        assert facts is not None, "the search finds out about traces first"
        raw = np.ascontiguousarray(self.block.column("trace_id")[self.rows]).tobytes()
        traces = [raw[at : at + 16] for at in range(0, len(raw), 16)]
        if name == "trace:duration":
            return _of_integers(np.array([facts.duration.get(trace, 0) for trace in traces], np.int64), match.INT)
        known = facts.root_name if name == "trace:rootName" else facts.root_service
        texts = [known.get(trace, "").encode() for trace in traces]
        lengths = np.array([len(text) for text in texts], np.uint32)
        starts = (np.cumsum(lengths) - lengths).astype(np.uint32)
        return _of_texts(starts, lengths, b"".join(texts))


def _content(values: Column, row: int) -> bytes:
    start = int(values.start[row])
    return bytes(memoryview(values.payload)[start : start + int(values.length[row])])


def _numbers(values: Column) -> NDArray[np.bool_]:
    return np.asarray((values.type == match.INT) | (values.type == match.DOUBLE), np.bool_)


def _of_integers(integers: NDArray[np.int64], kind: int) -> Column:
    count = len(integers)
    none = np.zeros(count, np.uint32)
    return Column(np.full(count, kind, np.uint8), integers, integers.astype(np.float64), none, none, b"")


def _of_doubles(doubles: NDArray[np.float64], kinds: NDArray[np.uint8]) -> Column:
    none = np.zeros(len(doubles), np.uint32)
    return Column(kinds, np.zeros(len(doubles), np.int64), doubles, none, none, b"")


def _of_texts(starts: NDArray[np.uint32], lengths: NDArray[np.uint32], payload: bytes | bytearray) -> Column:
    count = len(starts)
    kinds = np.full(count, match.STRING, np.uint8)
    return Column(kinds, np.zeros(count, np.int64), np.zeros(count), starts, lengths, payload)


def _array_matches(op: str, content: bytes, literal: Literal) -> bool:
    """Compare an array attribute element by element."""
    verdicts = [_element_matches(op, value, literal) for value in common_pb2.ArrayValue.FromString(content).values]
    return bool(verdicts) and (all(verdicts) if op in ("!=", "!~") else any(verdicts))


def _element_matches(op: str, value: Any, literal: Literal) -> bool:
    which = value.WhichOneof("value")
    if which is None:
        return False
    element = getattr(value, which)
    kinds: Mapping[str, tuple[Type, ...]] = {
        "string_value": (Type.STRING,),
        "bool_value": (Type.BOOL,),
        "int_value": (Type.INT, Type.FLOAT, Type.DURATION),
        "double_value": (Type.INT, Type.FLOAT, Type.DURATION),
    }
    if literal.type not in kinds.get(which, ()):
        return False
    if op in ("=~", "!~"):
        return (compile_regex(str(literal.value)).fullmatch(element) is not None) == (op == "=~")
    return bool(_COMPARE[op](element, literal.value))
