"""Tags: which attributes there are, and which values they have, newest blocks first.

Both answers are bounded; when a bound was hit they say so. Names of attributes come from the payload by
`match.keys`, values by the same columns that filters use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from collector.errors import InvalidQuery
from collector.query import match
from collector.query.traceql.asking import needs_tree, single_filter
from collector.query.traceql.ast import (
    COMPARISONS,
    INTRINSICS,
    KINDS,
    SHORT_NAMES,
    STATUSES,
    Attribute,
    Binary,
    Expression,
    Intrinsic,
    Type,
    quote,
)
from collector.query.traceql.conditions import (
    fulfilling,
    is_everything,
    positions,
    remembered_names,
    remembered_of,
    rest,
)
from collector.query.traceql.evaluate import Evaluation
from collector.query.traceql.lexer import tokenize
from collector.query.traceql.names import SCOPES, names_of
from collector.query.traceql.parser import parse
from collector.query.traceql.remembered import IS_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.query.deadline import Deadline
    from collector.query.traceql.values import Column, Single
    from collector.store import View

NAMES_MAX = 10_000
"""Attribute names of each scope in an answer."""
VALUES_MAX = 1000
"""Distinct values in an answer, the newest."""
VALUE_BYTES_MAX = 4096
"""Bytes of a value in an answer; longer ones are left out."""

_OF_ROOTS: dict[str, Attribute | Intrinsic] = {
    "trace:rootName": Intrinsic("span:name"),
    "trace:rootService": Attribute("resource", "service.name"),
}
"""What roots tell of their traces, and by which field."""
_KIND_NAMES = {number: name for name, number in KINDS.items()}
_STATUS_NAMES = {number: name for name, number in STATUSES.items()}


@dataclass(slots=True)
class Tags:
    """Attribute names by scope."""

    names: dict[str, set[str]]
    complete: bool = True

    def metrics(self) -> dict[str, Any]:
        """Say whether everything was looked at."""
        return {} if self.complete else {"partial": True, "message": f"more than {NAMES_MAX} names in a scope"}


@dataclass(slots=True)
class TagValues:
    """Typed values in their order: (string, int, float, bool or keyword, text); of too many the newest."""

    values: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = True

    def metrics(self) -> dict[str, Any]:
        """Say whether everything was looked at."""
        return {} if self.complete else {"partial": True, "message": f"the newest {VALUES_MAX} values"}


def names(deadline: Deadline, view: View, start_ns: int, end_ns: int, expression: Expression | None = None) -> Tags:
    """Collect the attribute names of the spans that an expression matches, by scope, and the intrinsics."""
    intrinsics = {
        name for name, full in (*SHORT_NAMES.items(), *zip(INTRINSICS, INTRINSICS, strict=True)) if full != "parent"
    }
    found = Tags({scope: set() for scope in SCOPES})
    found.names["intrinsic"] = intrinsics
    live = remembered_names(deadline, view) if is_everything(view, expression, start_ns, end_ns) else None
    _extend(found, live or {})
    walk = fulfilling if live is None else rest
    for block, rows in walk(deadline, view, expression, start_ns, end_ns):
        _extend(found, names_of(block, rows))
    return found


def narrowing(text: str) -> Expression | None:
    """Return the condition by which `q` narrows tags. Of a filter that is still being written, what is complete counts.

    Raises InvalidQuery for a query that is complete, and more than one filter over single spans.
    """
    if not text.strip():
        return None
    try:
        query = parse(text)
    except InvalidQuery:
        return _complete(text)
    return single_filter(query).expression


def _complete(text: str) -> Expression | None:
    """Return the conditions of an incomplete filter that stand complete between && and braces."""
    try:
        tokens = tokenize(text)
    except InvalidQuery:
        return None
    if any(token.kind == "op" and token.text in ("||", "(", "!") for token in tokens):
        return None
    found: Expression | None = None
    for at in range(1, len(tokens) - 3):
        between = {tokens[at - 1].text, tokens[at + 3].text} <= {"{", "&&", "}", ""}
        if not between or tokens[at + 1].text not in COMPARISONS:
            continue
        condition = " ".join(token.text for token in tokens[at : at + 3])
        try:
            one = single_filter(parse(f"{{ {condition} }}")).expression
        except InvalidQuery:
            continue
        found = one if found is None or one is None else Binary("&&", found, one)
    return found


def _extend(found: Tags, more: dict[str, set[bytes]]) -> None:
    for scope, keys in more.items():
        names = found.names[scope]
        for key in keys:
            if len(names) >= NAMES_MAX:
                found.complete = False
                break
            names.add(key.decode("utf-8", "replace"))


def field_of(tag: str) -> Attribute | Intrinsic:
    """Return the field that a tag names: `name`, `span:name`, `resource.service.name`, `.a`, or a bare attribute."""
    if tag in SHORT_NAMES:
        return _evaluated(Intrinsic(SHORT_NAMES[tag]))
    if tag in INTRINSICS:
        return _evaluated(Intrinsic(tag))
    for text in (tag, f".{tag}", f".{quote(tag)}"):
        try:
            tokens = tokenize(text)
        except InvalidQuery:
            continue
        if len(tokens) == 2 and tokens[0].kind == "attribute" and isinstance(tokens[0].value, tuple):
            scope, name, parent = tokens[0].value
            return _evaluated(Attribute(scope, name, parent))
    raise InvalidQuery(f"{tag[:100]!r} names no tag")


def _evaluated(field_: Attribute | Intrinsic) -> Attribute | Intrinsic:
    if needs_tree(field_) and field_.name not in _OF_ROOTS:
        raise InvalidQuery(f"values of {field_}, which only whole traces tell, are not listed")
    return field_


def values(
    deadline: Deadline,
    view: View,
    wanted: Attribute | Intrinsic,
    expression: Expression | None,
    start_ns: int,
    end_ns: int,
) -> TagValues:
    """Collect the distinct values of a field over the spans that an expression matches, newest blocks first."""
    if isinstance(wanted, Intrinsic) and wanted.name in _OF_ROOTS:
        wanted = _OF_ROOTS[wanted.name]
        expression = IS_ROOT if expression is None else Binary("&&", IS_ROOT, expression)
    found = TagValues()
    seen: set[tuple[str, str]] = set()
    for column in _columns(deadline, view, wanted, expression, start_ns, end_ns):
        for value in _distinct(column, wanted):
            if value in seen:
                continue
            if len(seen) >= VALUES_MAX:
                found.complete = False
                break
            seen.add(value)
        if not found.complete:
            break
    found.values = sorted(seen)
    return found


def _columns(
    deadline: Deadline,
    view: View,
    wanted: Attribute | Intrinsic,
    expression: Expression | None,
    start_ns: int,
    end_ns: int,
) -> Iterator[Column]:
    """Yield columns that have every value of a field, the newest first."""
    places = positions(deadline, view, expression, start_ns, end_ns)
    remembered = remembered_of(view)
    known = remembered.known(deadline, view, wanted) if remembered is not None and places is not None else None
    if places is None or known is None or known.dictionary is None:
        for piece in fulfilling(deadline, view, expression, start_ns, end_ns):
            yield Evaluation(piece).operand(wanted)
        return
    newest = known.newest(places)
    order = np.argsort(-newest, kind="stable")[: int(np.count_nonzero(newest >= 0))]
    for at in range(0, len(order), VALUES_MAX):
        yield known.dictionary.take(order[at : at + VALUES_MAX])
    for piece in rest(deadline, view, expression, start_ns, end_ns):
        yield Evaluation(piece).operand(wanted)


def _distinct(column: Any, wanted: Attribute | Intrinsic) -> list[tuple[str, str]]:
    """Return a column's distinct values in one block, in a fixed order."""
    named = {"span:kind": _KIND_NAMES, "span:status": _STATUS_NAMES}.get(getattr(wanted, "name", ""), {})
    distinct: set[tuple[str, str]] = set()
    integers = column.type == match.INT
    for number in np.unique(column.integer[integers]).tolist():
        if named:
            distinct.add(("keyword", named.get(number, str(number))))
        else:
            is_duration = isinstance(wanted, Intrinsic) and wanted.type is Type.DURATION
            distinct.add(("duration", f"{number}ns") if is_duration else ("int", str(number)))
    for number in np.unique(column.double[column.type == match.DOUBLE]).tolist():
        distinct.add(("float", repr(number)))
    for truth in np.unique(column.integer[column.type == match.BOOL]).tolist():
        distinct.add(("bool", "true" if truth else "false"))
    texts = (column.type == match.STRING) & (column.length <= VALUE_BYTES_MAX)
    contents = {
        bytes(column.payload[start : start + length])
        for start, length in zip(column.start[texts].tolist(), column.length[texts].tolist(), strict=True)
    }
    distinct |= {("string", content.decode("utf-8", "replace")) for content in contents if content}
    arrays = (column.type == match.ARRAY) & (column.length <= VALUE_BYTES_MAX)
    for at in np.flatnonzero(arrays).tolist():
        distinct.update(_typed(one) for one in column.elements(at) or () if one is not None and one != "")
    return sorted(distinct)


def _typed(value: Single) -> tuple[str, str]:
    """Return an array's element with its type."""
    if isinstance(value, bool):
        return "bool", "true" if value else "false"
    if isinstance(value, int):
        return "int", str(value)
    return ("float", repr(value)) if isinstance(value, float) else ("string", value)


def query_of_legacy(tags: str) -> str:
    """Turn the older form of a search, `service.name=a http.status_code=500`, into a filter."""
    conditions = []
    for pair in tags.split():
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise InvalidQuery(f"tags are written key=value, unlike {pair[:100]!r}")
        text = value.strip('"')
        name = key if key in SHORT_NAMES else f".{quote(key)}"
        number = f" || {name} = {text}" if text.isdecimal() and key not in SHORT_NAMES else ""
        if key == "status" and text in STATUSES:
            conditions.append(f"{name} = {text}")
        else:
            conditions.append(f"({name} = {quote(text)}{number})")
    return f"{{ {' && '.join(conditions)} }}"


def duration(text: str, default: int) -> int:
    """Read a duration like 100ms or 1.5s as ns."""
    if not text:
        return default
    tokens = tokenize(text)
    if len(tokens) != 2 or tokens[0].kind != "duration" or not isinstance(tokens[0].value, int):
        raise InvalidQuery(f"{text[:50]!r} is no duration like 1.5s or 100ms")
    return tokens[0].value
