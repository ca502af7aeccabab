"""Operators between two instant vectors: which series of one side belongs to which of the other.

Series find each other by their signature: the labels of `on`, or all but the metric's name and those of `ignoring`. One to
one by default; with `group_left` many series of the left side share one of the right, with `group_right` the other way
round. A signature may name several series of a side if no step has two of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.errors import QueryLimit
from collector.query.promql.vectors import COMPARISONS, Vector, apply, check_cells, merged

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.query.promql.ast import Binary, Matching
    from collector.query.promql.translate import Labels


def matched(node: Binary, left: Vector, right: Vector, check: Callable[[], None]) -> Vector:
    """Apply an operator to the pairs of series that belong together. Raises QueryLimit when that is ambiguous, or too much.

    A comparison without `bool` keeps the left side's value, also where series of the right side are the many.
    """
    matching = node.matching
    many, one, side, other = (
        (right, left, "right", "left") if matching.group == "right" else (left, right, "left", "right")
    )
    ones = _by_signature(one, matching, other)
    if not matching.group:
        _by_signature(many, matching, side)
    filters = node.op in COMPARISONS and not node.returns_bool
    labels: list[Labels] = []
    values: list[NDArray[np.float64]] = []
    present: list[NDArray[np.bool_]] = []
    for row, own in enumerate(many.labels):
        check()
        for partner in ones.get(_signature(own, matching), ()):
            both = many.present[row] & one.present[partner]
            if not both.any():
                continue
            check_cells(len(labels) + 1, len(both))
            a, b = many.values[row], one.values[partner]
            if matching.group == "right":
                a, b = b, a
            result = apply(node.op, a, b)
            if filters:
                both, result = both & result, a
            labels.append(_joined(own, one.labels[partner], matching, keep_name=filters))
            values.append(result.astype(np.float64))
            present.append(both)
    if not labels:
        return Vector([], np.zeros((0, left.values.shape[1])), np.zeros((0, left.values.shape[1]), np.bool_))
    if not matching.group:
        return merged(labels, np.array(values), np.array(present)).compact()
    try:
        return merged(labels, np.array(values), np.array(present)).compact()
    except QueryLimit:
        raise QueryLimit("multiple matches for labels: grouping labels must ensure unique matches") from None


def set_operation(op: str, left: Vector, right: Vector, matching: Matching) -> Vector:
    """`and`, `or`, `unless`, step by step."""
    there: dict[Labels, NDArray[np.bool_]] = {}
    first, second = (left, right) if op != "or" else (right, left)
    for row, labels in enumerate(second.labels):
        key = _signature(labels, matching)
        there[key] = there.get(key, False) | second.present[row]
    nowhere = np.zeros(first.values.shape[1], np.bool_)
    masks = [there.get(_signature(labels, matching), nowhere) for labels in first.labels]
    mask = np.array(masks, np.bool_).reshape(first.present.shape)
    kept = first.present & (mask if op == "and" else ~mask)
    if op != "or":
        return Vector(first.labels, first.values, kept).compact()
    rest = Vector(first.labels, first.values, kept).compact()
    return merged(
        left.labels + rest.labels,
        np.concatenate((left.values, rest.values)),
        np.concatenate((left.present, rest.present)),
    )


def _signature(labels: Labels, matching: Matching) -> Labels:
    if matching.on:
        return tuple(pair for pair in labels if pair[0] in matching.labels)
    return tuple(pair for pair in labels if pair[0] != "__name__" and pair[0] not in matching.labels)


def _by_signature(vector: Vector, matching: Matching, side: str) -> dict[Labels, list[int]]:
    """Return the rows of each signature. Raises QueryLimit when two of them meet at a step."""
    groups: dict[Labels, list[int]] = {}
    for row, labels in enumerate(vector.labels):
        groups.setdefault(_signature(labels, matching), []).append(row)
    for rows in groups.values():
        if len(rows) > 1 and (vector.present[rows].sum(axis=0) > 1).any():
            raise QueryLimit(
                f"found duplicate series for the match group on the {side} hand-side of the operation; "
                "many-to-many matching not allowed: matching labels must be unique on one side"
            )
    return groups


def _joined(many: Labels, one: Labels, matching: Matching, *, keep_name: bool) -> Labels:
    """Return the labels of a result: those of the many, or of the signature, and of the one what it is to give."""
    if matching.group:
        found = {name: text for name, text in many if keep_name or name != "__name__"}
        given = dict(one)
        for name in matching.include:
            found.pop(name, None)
            if given.get(name):
                found[name] = given[name]
        return tuple(sorted(found.items()))
    if matching.on:
        return _signature(many, matching)
    dropped = set(matching.labels) | (set() if keep_name else {"__name__"})
    return tuple(pair for pair in many if pair[0] not in dropped)
