"""TraceQL's static types: what can be told to be wrong before a span is looked at.

Attributes have any type, so only what can never hold is refused.
"""

from __future__ import annotations

from collector.errors import InvalidQuery
from collector.query.regex import compile_regex
from collector.query.traceql.ast import (
    ARITHMETIC,
    LOGICAL,
    NUMERIC,
    Attribute,
    Binary,
    Expression,
    Intrinsic,
    Literal,
    Type,
    Unary,
)

MULTIPLE = ("event", "link")
"""Scopes of which a span has any number."""


def checked(node: Binary) -> Binary:
    """Return the node if its types can meet; raise InvalidQuery if they never do."""
    left, right = node.left.type, node.right.type
    known = {left, right} - {Type.ATTRIBUTE}
    if node.op in LOGICAL:
        if known - {Type.BOOL}:
            raise InvalidQuery(f"{node.op} joins conditions, not {left.value} and {right.value}", node.at)
    elif node.op in ARITHMETIC:
        if known - NUMERIC:
            raise InvalidQuery(f"{node.op} wants numbers, not {left.value} and {right.value}", node.at)
    elif node.op in ("=~", "!~"):
        if not isinstance(node.right, Literal) or right is not Type.STRING or left not in (Type.STRING, Type.ATTRIBUTE):
            raise InvalidQuery(f"{node.op} matches a text against a regular expression in quotes", node.at)
        compile_regex(str(node.right.value), node.right.at, any_character=True)
    else:
        if len(known - NUMERIC) + bool(known & NUMERIC) > 1 and Type.NIL not in known:
            raise InvalidQuery(f"{left.value} and {right.value} cannot be compared", node.at)
        ordered = node.op not in ("=", "!=")
        if ordered and known & {Type.BOOL, Type.STATUS, Type.KIND, Type.NIL}:
            raise InvalidQuery(f"{node.op} wants numbers or texts", node.at)
    if node.op not in LOGICAL and {source(node.left), source(node.right)} >= set(MULTIPLE):
        raise InvalidQuery("an event and a link of a span do not belong together: write two conditions", node.at)
    return node


def source(expression: Expression) -> str:
    """Return `event` or `link` when an expression has a value for each of a span's events or links, else nothing."""
    if isinstance(expression, Attribute):
        return expression.scope if expression.scope in MULTIPLE else ""
    if isinstance(expression, Intrinsic):
        scope = expression.name.partition(":")[0]
        return scope if scope in MULTIPLE else ""
    if isinstance(expression, Unary):
        return source(expression.operand)
    if isinstance(expression, Binary):
        if expression.type is Type.BOOL:
            return ""  # one answer, for whichever event
        return source(expression.left) or source(expression.right)
    return ""
