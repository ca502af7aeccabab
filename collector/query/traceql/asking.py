"""What an expression asks: which fields, of the span alone or of its trace, of an event or a link, and what first.

`&&` joins conditions that hold for the same event, and the same link; they are evaluated together (`units`).
"""

from __future__ import annotations

from collector.errors import InvalidQuery
from collector.query.traceql.ast import (
    ARITHMETIC,
    LOGICAL,
    Attribute,
    Binary,
    Expression,
    Filter,
    Intrinsic,
    Literal,
    Query,
    Type,
    Unary,
)
from collector.query.traceql.types import source

TREE_INTRINSICS = (
    *("trace:duration", "trace:rootName", "trace:rootService"),
    *("span:childCount", "nestedSetLeft", "nestedSetRight", "nestedSetParent"),
)
"""What only the whole trace can tell."""


def single_filter(query: Query) -> Filter:
    """Return the one filter over spans that a query consists of; InvalidQuery for anything more."""
    stages = query.pipeline.stages
    first = stages[0]
    if not isinstance(first, Filter) or len(stages) > 1 or needs_tree(first.expression):
        raise InvalidQuery("only one filter over single spans, { … }, can be used here", stages[-1].at)
    return first


def needs_tree(expression: Expression | None) -> bool:
    """Tell whether an expression asks for something that only the whole trace can tell."""
    return any(
        one.parent if isinstance(one, Attribute) else one.name in TREE_INTRINSICS for one in fields_of(expression)
    )


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


def asked_first(node: Expression) -> list[Attribute | Intrinsic]:
    """Return the fields that a condition asks of every row; what else it asks may be asked of few."""
    first = units(node)[0] if isinstance(node, Binary) and node.op == "&&" else [node]
    return [field for one in first for field in fields_of(one)]


def units(node: Binary) -> list[list[Expression]]:
    """Return the conditions that && joins, those together that hold for one event or one link, the cheapest first."""
    found: list[list[Expression]] = []
    joint: dict[str, list[Expression]] = {}
    for one in _conjuncts(node):
        scopes = multiple_of(one)
        if len(scopes) != 1:
            found.append([one])
            continue
        scope = next(iter(scopes))
        if scope not in joint:
            found.append(joint.setdefault(scope, []))
        joint[scope].append(one)
    return sorted(found, key=lambda unit: max(map(_cost, unit)))


def _cost(node: Expression) -> int:
    """Return how dear a condition is: 0 for what columns and groups tell, 1 for attributes of spans, 2 for their parts."""
    costs = [0]
    for field in fields_of(node):
        if isinstance(field, Attribute):
            costs.append(0 if field.scope in ("resource", "instrumentation") and not field.parent else 1)
        elif field.name == "span:statusMessage":
            costs.append(1)
        if source(field):
            costs.append(2)
    return max(costs)


def _conjuncts(node: Expression) -> list[Expression]:
    """Return the conditions that && joins, in their order."""
    if isinstance(node, Binary) and node.op == "&&":
        return [*_conjuncts(node.left), *_conjuncts(node.right)]
    return [node]


def compared_with_nil(node: Binary) -> Expression | None:
    """Return what a comparison holds against nil."""
    for side, other in ((node.left, node.right), (node.right, node.left)):
        if isinstance(other, Literal) and other.type is Type.NIL:
            return side
    return None


def multiple_of(node: Expression) -> set[str]:
    """Return whether a condition is one on an event, on a link, or on both.

    `!(…)` and `= nil` are conditions on the span: that none of its events or links is such. `!event.a` is one on an
    event: that a is false there.
    """
    if isinstance(node, Binary) and node.op in LOGICAL:
        return multiple_of(node.left) | multiple_of(node.right)
    if isinstance(node, Binary) and node.op == "=" and compared_with_nil(node) is not None:
        return set()
    if isinstance(node, Unary) and node.op == "!":
        return multiple_of(node.operand) if isinstance(node.operand, Attribute) else set()
    if isinstance(node, Binary) and node.op not in ARITHMETIC:
        return {source(node.left) or source(node.right)} - {""}
    return {source(node)} - {""}
