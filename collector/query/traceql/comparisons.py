"""Comparisons of columns with constants and with columns, entry by entry; semantics are those of `evaluate.py`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from opentelemetry.proto.common.v1 import common_pb2

from collector.query import match
from collector.query.regex import compile_regex
from collector.query.traceql.ast import Expression, Intrinsic, Literal, Type
from collector.query.traceql.values import COMPARE, Column

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""The operator that says the same with its sides exchanged, where that is another."""

_POSITIVE = {"!=": "=", "!~": "=~"}
_ID_DIGITS = {"trace:id": 32, "link:traceID": 32, "span:id": 16, "span:parentID": 16, "link:spanID": 16}


def with_literal(op: str, column: Column, literal: Literal, of: Type) -> NDArray[np.bool_]:
    """Compare a field, `of` this type, with a constant; of an array, its elements."""
    if literal.type is Type.STRING:
        mask = _text(op, column, str(literal.value))
    elif literal.type in (Type.STATUS, Type.KIND):
        if of is Type.ATTRIBUTE:
            return np.zeros(len(column.type), np.bool_)
        mask = np.asarray(COMPARE[op](column.integer, int(literal.value or 0)), np.bool_)
    elif literal.type is Type.BOOL:
        mask = (column.type == match.BOOL) & COMPARE[op](column.integer, int(literal.value or 0))
    elif isinstance(literal.value, int):
        integers = (column.type == match.INT) & COMPARE[op](column.integer, literal.value)
        mask = integers | ((column.type == match.DOUBLE) & COMPARE[op](column.double, literal.value))
    else:
        mask = column.is_number() & COMPARE[op](column.double, float(literal.value or 0))
    for at in np.flatnonzero(column.type == match.ARRAY).tolist():
        mask[at] = _array_matches(op, column.content(at), literal)
    return np.asarray(mask, np.bool_)


def _text(op: str, column: Column, text: str) -> NDArray[np.bool_]:
    texts = column.type == match.STRING
    if op in ("=", "!="):
        same = match.equal(column.payload, column.start, column.length, text.encode())
        return np.asarray(texts & (same if op == "=" else ~same), np.bool_)
    mask = np.zeros(len(texts), np.bool_)
    where = np.flatnonzero(texts)
    if not where.size:
        return mask
    numbers, firsts = match.distinct(column.payload, (column.start[where], column.length[where]))
    contents = [column.content(at) for at in where[firsts].tolist()]
    if op in ("=~", "!~"):
        pattern = compile_regex(text, any_character=True)
        verdicts = [(pattern.fullmatch(content) is not None) == (op == "=~") for content in contents]
    else:
        verdicts = [COMPARE[op](content, text.encode()) for content in contents]
    mask[where] = np.array(verdicts, np.bool_)[numbers]
    return mask


def with_column(op: str, left: Column, right: Column) -> NDArray[np.bool_]:
    """Compare two fields: numbers with numbers, texts with texts, booleans with booleans."""
    mask = np.zeros(len(left.type), np.bool_)
    texts = np.flatnonzero((left.type == match.STRING) & (right.type == match.STRING)).tolist()
    if op in ("=~", "!~"):
        return mask
    mask |= left.compared(op, right)
    booleans = (left.type == match.BOOL) & (right.type == match.BOOL)
    mask |= booleans & COMPARE[op](left.integer, right.integer)
    for at in texts:
        mask[at] = COMPARE[op](left.content(at), right.content(at))
    return mask


def whole_id(op: str, node: Expression, literal: Literal) -> Literal:
    """Write an id that is compared in full: with its leading zeros, in small letters."""
    digits = _ID_DIGITS.get(node.name, 0) if isinstance(node, Intrinsic) and op in COMPARE else 0
    if digits and isinstance(literal.value, str) and re.fullmatch("[0-9A-Fa-f]+", literal.value):
        return replace(literal, value=literal.value.lower().zfill(digits))
    return literal


def _array_matches(op: str, content: bytes, literal: Literal) -> bool:
    """Compare an array attribute element by element."""
    elements = common_pb2.ArrayValue.FromString(content).values
    holds = any(_element_matches(op, one, literal) for one in elements)
    if op in _POSITIVE:
        return holds and not any(_element_matches(_POSITIVE[op], one, literal) for one in elements)
    return holds


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
        return (compile_regex(str(literal.value), any_character=True).fullmatch(element) is not None) == (op == "=~")
    return bool(COMPARE[op](element, literal.value))
