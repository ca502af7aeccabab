"""What a condition demands of every span, for backends (otlp/asked.py): texts that names and attributes must have.

Numbers are left out: 5 is also 5.0, and a backend may know them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from collector.otlp.asked import Attributed, Hints
from collector.query.traceql.ast import Attribute, Binary, Expression, Intrinsic, Literal, Type

if TYPE_CHECKING:
    from collections.abc import Iterator

HINTS_MAX: Final = 16
"""Conditions on attributes that are passed on."""
_WHERE: Final = {"resource": "resource", "span": "record", "": "either"}


def hints_of(condition: Expression | None) -> Hints:
    """Return what is certain of every span that fulfils a condition."""
    services: list[str] = []
    names: list[str] = []
    attributes: list[Attributed] = []
    for field, text in _equalities(condition):
        if isinstance(field, Intrinsic):
            names += [text] if field.name == "span:name" else []
        elif (field.scope, field.name) == ("resource", "service.name"):
            services.append(text)
        elif field.scope in _WHERE:
            attributes.append(Attributed(_WHERE[field.scope], field.name, (text,)))
    return Hints(services=tuple(services[:1]), names=tuple(names[:1]), attributes=tuple(attributes[:HINTS_MAX]))


def _equalities(node: Expression | None) -> Iterator[tuple[Attribute | Intrinsic, str]]:
    """Yield the fields that must be equal to a text."""
    if not isinstance(node, Binary):
        return
    if node.op == "&&":
        yield from _equalities(node.left)
        yield from _equalities(node.right)
    elif node.op == "=":
        for side, other in ((node.left, node.right), (node.right, node.left)):
            if not isinstance(other, Literal) or other.type is not Type.STRING or not isinstance(other.value, str):
                continue
            if other.value and (isinstance(side, Intrinsic) or (isinstance(side, Attribute) and not side.parent)):
                yield side, other.value
