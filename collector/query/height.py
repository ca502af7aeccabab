"""How high a syntax tree may be: what evaluates one calls itself once a level or more often.

Parsers bound what stands within each other, but `1 + 1 + 1 + …` grows a tree too, without a parenthesis.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, Final

from collector.errors import InvalidQuery

HEIGHT_MAX: Final = 200
"""Levels of a tree. Python's stack has room for a thousand calls."""
OPERATORS_MAX: Final = 2 * HEIGHT_MAX
"""Operators between two operands in one query: a tree can be no higher while it grows."""


def check_operators(count: int, at: int) -> None:
    """Raise InvalidQuery when a parser has read more than `OPERATORS_MAX` of them."""
    if count > OPERATORS_MAX:
        raise InvalidQuery(f"the query has more than {OPERATORS_MAX} operators", at)


def check_height(tree: Any) -> None:
    """Raise InvalidQuery for a tree of dataclasses, and tuples of them, with more than `HEIGHT_MAX` levels."""
    pending = [(tree, 1)]
    while pending:
        node, level = pending.pop()
        if isinstance(node, tuple):
            pending.extend((item, level) for item in node)
        elif is_dataclass(node):
            if level > HEIGHT_MAX:
                message = f"the query has more than {HEIGHT_MAX} operators around each other; use parentheses"
                raise InvalidQuery(message, getattr(node, "at", None))
            pending.extend((getattr(node, one.name), level + 1) for one in fields(node))
