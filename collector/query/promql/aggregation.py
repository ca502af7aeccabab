"""Aggregations of instant vectors: groups of series by labels, and what becomes of each."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Final

import numpy as np

from collector.errors import InvalidQuery, QueryLimit
from collector.query.promql.series import SERIES_MAX, float_text
from collector.query.promql.vectors import Vector, check_cells, in_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.query.promql.ast import Aggregation
    from collector.query.promql.translate import Labels

RATIO_BYTES: Final = 8
"""Bytes of a series' hash that decide whether `limit_ratio` takes it."""


def _groups(vector: Vector, node: Aggregation) -> dict[Labels, list[int]]:
    groups: dict[Labels, list[int]] = {}
    grouping = set(node.grouping or ())
    for row, labels in enumerate(vector.labels):
        if node.without:
            key = tuple(pair for pair in labels if pair[0] != "__name__" and pair[0] not in grouping)
        else:
            key = tuple(pair for pair in labels if pair[0] in grouping)
        groups.setdefault(key, []).append(row)
    return groups


def aggregate(
    vector: Vector, node: Aggregation, parameter: NDArray[np.float64] | None, check: Callable[[], None]
) -> Vector:
    """Aggregate groups of series: sum, avg, min, max, count, group, stddev, stdvar, quantile."""
    groups = _groups(vector, node)
    steps = vector.values.shape[1]
    values = np.zeros((len(groups), steps))
    present = np.zeros((len(groups), steps), np.bool_)
    for number, rows in enumerate(groups.values()):
        for piece in in_pieces(len(rows), steps):
            check()
            there = vector.present[rows, piece]
            present[number, piece] = there.any(axis=0)
            own = parameter[piece] if parameter is not None else None
            with np.errstate(all="ignore"):
                values[number, piece] = _reduce(node.op, vector.values[rows, piece], there, own)
    order = sorted(range(len(groups)), key=list(groups).__getitem__)
    keys = list(groups)
    return Vector([keys[row] for row in order], values[order], present[order]).compact()


def _reduce(
    op: str, values: NDArray[np.float64], there: NDArray[np.bool_], parameter: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    count = there.sum(axis=0)
    if op == "count":
        return np.asarray(count, np.float64)
    if op == "group":
        return np.ones(values.shape[1])
    if op in ("min", "max"):
        missing = np.inf if op == "min" else -np.inf
        numbers = there & ~np.isnan(values)
        filled = np.where(numbers, values, missing)
        best = filled.min(axis=0) if op == "min" else filled.max(axis=0)
        return np.where(numbers.any(axis=0), best, np.nan)
    if op == "quantile":
        assert parameter is not None
        return _quantile(values, there, parameter)
    total = np.where(there, values, 0.0).sum(axis=0)
    if op == "sum":
        return np.asarray(total)
    mean = total / count
    if op == "avg":
        return np.asarray(mean)
    variance = np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / count
    return np.asarray(np.sqrt(variance) if op == "stddev" else variance)


def _quantile(values: NDArray[np.float64], there: NDArray[np.bool_], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quantile of each column's values that are there, of which there are some; see ranges.quantile."""
    unknown = np.isnan(values)
    order = np.lexsort((np.where(unknown, 0.0, values), ~unknown, ~there), axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    last = np.maximum(there.sum(axis=0) - 1, 0)
    rank = np.clip(np.nan_to_num(q), 0.0, 1.0) * last
    low = np.floor(rank).astype(np.intp)
    weight = rank - low
    below = np.take_along_axis(ordered, low[np.newaxis], axis=0)[0]
    above = np.take_along_axis(ordered, np.minimum(low + 1, last)[np.newaxis], axis=0)[0]
    found = below * (1 - weight) + above * weight
    return np.select([np.isnan(q), q < 0, q > 1], [np.nan, -np.inf, np.inf], found)


def top(vector: Vector, parameter: NDArray[np.float64], node: Aggregation, check: Callable[[], None]) -> Vector:
    """`topk` and `bottomk`: at each step, the k best series of each group, with all their labels."""
    counts = np.array([_count(float(one), node) for one in parameter])
    present = np.zeros_like(vector.present)
    for rows in _groups(vector, node).values():
        places = np.array(rows)
        for piece in in_pieces(len(rows), vector.values.shape[1]):
            check()
            there, values = vector.present[places, piece], vector.values[places, piece]
            keys = np.where(np.isnan(values), np.inf, -values if node.op == "topk" else values)
            order = np.lexsort((keys, np.isnan(values), ~there), axis=0)
            ranks = np.empty_like(order)
            np.put_along_axis(ranks, order, np.arange(len(rows))[:, np.newaxis], axis=0)
            present[places, piece] = there & (ranks < counts[piece])
    made = Vector(vector.labels, vector.values, present).compact()
    return made.sorted_by_value(descending=node.op == "topk") if vector.values.shape[1] == 1 else made


def first(vector: Vector, parameter: NDArray[np.float64], node: Aggregation) -> Vector:
    """`limitk`: at each step, k series of each group, the first in the order of their labels."""
    counts = np.array([_count(float(one), node) for one in parameter], np.int64)
    present = np.zeros_like(vector.present)
    for rows in _groups(vector, node).values():
        ordered = sorted(rows, key=vector.labels.__getitem__)
        present[ordered] = vector.present[ordered] & (np.cumsum(vector.present[ordered], axis=0) <= counts)
    return Vector(vector.labels, vector.values, present).compact()


def share(vector: Vector, parameter: NDArray[np.float64], node: Aggregation) -> Vector:
    """`limit_ratio`: about that share of all series, always the same ones; below zero, those that 1 + it leaves out."""
    if np.isnan(parameter).any():
        raise InvalidQuery(f"the parameter of {node.op} must be a number", node.at)
    ratio = np.clip(parameter, -1.0, 1.0)
    places = np.array([[_place(labels)] for labels in vector.labels]).reshape(-1, 1)
    chosen = np.where(ratio >= 0, places < ratio, places >= 1.0 + ratio)
    return Vector(vector.labels, vector.values, vector.present & chosen).compact()


def count_values(vector: Vector, label: str, node: Aggregation, check: Callable[[], None]) -> Vector:
    """How many series of each group have a value: a series for each value, which stands in a label.

    The grouping comes after that label was set, so `without` may take it away. Raises QueryLimit beyond SERIES_MAX values.
    """
    if not label:
        raise InvalidQuery(f"invalid label name {label!r} in {node.op}", node.at)
    dropped = node.without and label in (node.grouping or ())
    found: dict[Labels, NDArray[np.float64]] = {}
    for group, rows in _groups(vector, node).items():
        rest = [pair for pair in group if pair[0] != label]
        values, there = vector.values[rows], vector.present[rows]
        for value in _distinct(values[there]):
            check()
            key = tuple(rest if dropped else sorted([*rest, (label, decimal_text(value))]))
            same = np.isnan(values) if math.isnan(value) else values == value
            count = (same & there).sum(axis=0)
            found[key] = found[key] + count if key in found else count
            if len(found) > SERIES_MAX:
                raise QueryLimit(f"{node.op} finds more than {SERIES_MAX} values")
            check_cells(len(found), vector.values.shape[1])
    labels = sorted(found)
    counts = np.array([found[one] for one in labels], np.float64).reshape(len(labels), vector.values.shape[1])
    return Vector(labels, counts, counts > 0)


def decimal_text(value: float) -> str:
    """Write a number without an exponent, as Prometheus writes values into labels."""
    if not math.isfinite(value):
        return float_text(value)
    return np.format_float_positional(value, unique=True, trim="-")


def _distinct(values: NDArray[np.float64]) -> list[float]:
    found: list[float] = np.unique(values).tolist()
    return found


def _count(wanted: float, node: Aggregation) -> int:
    """Return a parameter that says how many."""
    if math.isnan(wanted):
        raise InvalidQuery(f"the parameter of {node.op} must be a number", node.at)
    if abs(wanted) >= 2**63:
        raise InvalidQuery(f"Scalar value {float_text(wanted)} overflows int64", node.at)
    return max(0, int(wanted))


def _place(labels: Labels) -> float:
    """Return where in [0, 1) a series' labels put it."""
    text = "\xff".join(f"{name}\xfe{value}" for name, value in labels)
    digest = hashlib.blake2b(text.encode(), digest_size=RATIO_BYTES).digest()
    return int.from_bytes(digest, "big") / float(1 << 8 * RATIO_BYTES)
