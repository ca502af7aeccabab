"""Instant vectors over all steps, and what PromQL does with them: operators, matching, aggregation, quantiles."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from collector.errors import InvalidQuery, QueryLimit
from collector.query.promql.ranges import quantile
from collector.query.promql.series import float_text
from collector.query.promql.translate import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.promql.ast import Aggregation, Binary, Matching

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


@dataclass(slots=True)
class Vector:
    """Series by rows, steps by columns; `present` tells where there is a value."""

    labels: list[Labels]
    values: NDArray[np.float64]
    present: NDArray[np.bool_]

    def compact(self) -> Vector:
        """Return the vector without series that have no value at any step."""
        rows = np.flatnonzero(self.present.any(axis=1))
        if len(rows) == len(self.labels):
            return self
        return Vector([self.labels[row] for row in rows.tolist()], self.values[rows], self.present[rows])

    def renamed(self) -> Vector:
        """Return the vector without metric names; series that become equal must not meet at a step."""
        return merged(without_name(self.labels), self.values, self.present)

    def sorted_by_value(self, *, descending: bool) -> Vector:
        """Return the series ordered by their values at the last step, NaN last."""
        last = self.values[:, -1]
        keys = np.where(np.isnan(last), np.inf, -last if descending else last)
        order = np.argsort(keys, kind="stable").tolist()
        return Vector([self.labels[row] for row in order], self.values[order], self.present[order])


def without_name(labels: list[Labels]) -> list[Labels]:
    """Return the labels without the metric's name."""
    return [tuple(pair for pair in one if pair[0] != "__name__") for one in labels]


def merged(labels: list[Labels], values: NDArray[np.float64], present: NDArray[np.bool_]) -> Vector:
    """Return one series for each label set; QueryLimit when two have a value at the same step."""
    if len(set(labels)) == len(labels):
        return Vector(labels, values, present)
    rows: dict[Labels, int] = {}
    kept: list[int] = []
    values, present = values.copy(), present.copy()
    for row, one in enumerate(labels):
        if one not in rows:
            rows[one] = row
            kept.append(row)
            continue
        target = rows[one]
        if (present[target] & present[row]).any():
            raise QueryLimit("vector cannot contain metrics with the same labelset")
        values[target] = np.where(present[row], values[row], values[target])
        present[target] |= present[row]
    return Vector([labels[row] for row in kept], values[kept], present[kept])


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def apply(op: str, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[Any]:
    """Apply an operator element by element, with IEEE's infinities and NaNs."""
    with np.errstate(all="ignore"):
        return np.asarray(_OPERATIONS[op](left, right))


def with_scalar(node: Binary, vector: Vector, scalar: NDArray[np.float64], *, scalar_left: bool) -> Vector:
    """Apply an operator to a vector and a scalar; comparisons filter unless they return bool."""
    spread = np.broadcast_to(scalar, vector.values.shape)
    left, right = (spread, vector.values) if scalar_left else (vector.values, spread)
    result = apply(node.op, left, right)
    if node.op in COMPARISONS and not node.returns_bool:
        return Vector(vector.labels, vector.values, vector.present & result).compact()
    return Vector(vector.labels, result.astype(np.float64), vector.present).renamed()


def _signature(labels: Labels, matching: Matching) -> Labels:
    if matching.on:
        return tuple(pair for pair in labels if pair[0] in matching.labels)
    return tuple(pair for pair in labels if pair[0] != "__name__" and pair[0] not in matching.labels)


def _by_signature(vector: Vector, matching: Matching, side: str, at: int) -> dict[Labels, list[int]]:
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


def one_to_one(node: Binary, left: Vector, right: Vector) -> Vector:
    """Apply an operator to pairs of series with equal signatures."""
    matching = node.matching
    lefts = _by_signature(left, matching, "left", node.at)
    rights = _by_signature(right, matching, "right", node.at)
    labels: list[Labels] = []
    values, present = [], []
    filters = node.op in COMPARISONS and not node.returns_bool
    for signature, rows in lefts.items():
        for row in rows:
            for other in rights.get(signature, ()):
                both = left.present[row] & right.present[other]
                result = apply(node.op, left.values[row], right.values[other])
                if filters:
                    both = both & result
                    result = left.values[row]
                labels.append(_result_labels(left.labels[row], signature, matching, keep_name=filters))
                values.append(result.astype(np.float64))
                present.append(both)
    if not labels:
        return Vector([], np.zeros((0, left.values.shape[1])), np.zeros((0, left.values.shape[1]), np.bool_))
    return merged(labels, np.array(values), np.array(present)).compact()


def _result_labels(labels: Labels, signature: Labels, matching: Matching, *, keep_name: bool) -> Labels:
    if matching.on:
        return signature
    dropped = set(matching.labels) | (set() if keep_name else {"__name__"})
    return tuple(pair for pair in labels if pair[0] not in dropped)


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


def aggregate(vector: Vector, node: Aggregation, parameter: NDArray[np.float64] | None) -> Vector:
    """Aggregate groups of series: sum, avg, min, max, count, group, stddev, stdvar, quantile."""
    groups = _groups(vector, node)
    steps = vector.values.shape[1]
    values = np.zeros((len(groups), steps))
    present = np.zeros((len(groups), steps), np.bool_)
    for number, rows in enumerate(groups.values()):
        there = vector.present[rows]
        present[number] = there.any(axis=0)
        with np.errstate(all="ignore"):
            values[number] = _reduce(node.op, vector.values[rows], there, parameter)
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
        found = [quantile(values[there[:, step], step], float(parameter[step])) for step in range(values.shape[1])]
        return np.array(found)
    total = np.where(there, values, 0.0).sum(axis=0)
    if op == "sum":
        return np.asarray(total)
    mean = total / count
    if op == "avg":
        return np.asarray(mean)
    variance = np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / count
    return np.asarray(np.sqrt(variance) if op == "stddev" else variance)


def top(vector: Vector, parameter: NDArray[np.float64], node: Aggregation) -> Vector:
    """`topk` and `bottomk`: at each step, the k best series of each group, with all their labels."""
    present = np.zeros_like(vector.present)
    for rows in _groups(vector, node).values():
        for step in range(vector.values.shape[1]):
            wanted = float(parameter[step])
            if np.isnan(wanted):
                raise InvalidQuery("the parameter of topk and bottomk must be a number", node.at)
            if abs(wanted) >= 2**63:
                raise InvalidQuery(f"Scalar value {float_text(wanted)} overflows int64", node.at)
            inside = [row for row in rows if vector.present[row, step]]
            column = vector.values[inside, step]
            sign = -1 if node.op == "topk" else 1
            order = np.argsort(np.where(np.isnan(column), np.inf, sign * column), kind="stable")
            for place in order[: max(0, int(wanted))].tolist():
                present[inside[place], step] = True
    made = Vector(vector.labels, vector.values, present).compact()
    return made.sorted_by_value(descending=node.op == "topk") if vector.values.shape[1] == 1 else made


def to_scalar(vector: Vector) -> NDArray[np.float64]:
    """Return the only value at each step, or NaN."""
    single = vector.present.sum(axis=0) == 1
    values = np.where(vector.present, vector.values, 0.0).sum(axis=0)
    return np.where(single, values, np.nan)


def histogram_quantile(q: NDArray[np.float64], vector: Vector) -> Vector:
    """Return the quantile of classic histograms, by linear interpolation within buckets, as Prometheus does."""
    groups: dict[Labels, list[tuple[float, int]]] = {}
    for row, labels in enumerate(vector.labels):
        text = dict(labels).get("le", "")
        try:
            bound = float(text)
        except ValueError:
            continue
        key = tuple(pair for pair in labels if pair[0] not in ("__name__", "le"))
        groups.setdefault(key, []).append((bound, row))
    steps = vector.values.shape[1]
    values = np.zeros((len(groups), steps))
    present = np.zeros((len(groups), steps), np.bool_)
    for number, buckets in enumerate(groups.values()):
        buckets.sort()
        for step in range(steps):
            inside = [(bound, vector.values[row, step]) for bound, row in buckets if vector.present[row, step]]
            present[number, step] = bool(inside)
            if inside:
                values[number, step] = _bucket_quantile(float(q[step]), inside)
    return Vector(list(groups), values, present).compact()


def _bucket_quantile(q: float, buckets: list[tuple[float, float]]) -> float:
    if np.isnan(q) or len(buckets) < 2 or not np.isinf(buckets[-1][0]):
        return float("nan")
    if q < 0 or q > 1:
        return float("-inf") if q < 0 else float("inf")
    counts = np.maximum.accumulate([count for _, count in buckets])
    if counts[-1] == 0 or np.isnan(counts[-1]):
        return float("nan")
    rank = q * counts[-1]
    at = int(np.searchsorted(counts[:-1], rank, "left"))
    if at == len(buckets) - 1:
        return buckets[-2][0]
    if at == 0 and buckets[0][0] <= 0:
        return buckets[0][0]
    lower = 0.0 if at == 0 else buckets[at - 1][0]
    below = 0.0 if at == 0 else float(counts[at - 1])
    inside = float(counts[at]) - below
    if inside == 0:
        return lower
    return lower + (buckets[at][0] - lower) * float(rank - below) / inside


def _round(values: NDArray[np.float64], to: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
    inverse = 1.0 / np.asarray(to)
    return np.asarray(np.floor(values * inverse + 0.5) / inverse)


def _clamp(
    values: NDArray[np.float64], low: NDArray[np.float64] | float, high: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    return np.asarray(np.maximum(low, np.minimum(high, values)))


FUNCTIONS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "exp": np.exp,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "sgn": np.sign,
    "round": _round,
    "clamp": _clamp,
    "clamp_min": np.maximum,
    "clamp_max": np.minimum,
}
"""Functions of values alone, by name; further arguments are scalars."""
