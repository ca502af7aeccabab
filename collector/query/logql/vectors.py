"""Series at all steps of a query, and what LogQL does with them: aggregation, operators, matching, label_replace.

A `Vector` has a row for each series and a column for each step. Two rows may have the same labels: where they are at
different steps they are one series, and `label_replace` may make equals that meet at a step, which the next aggregation
adds up, as in Loki; in an answer they are an error.

Semantics are Loki's, which differ from Prometheus' in this: dividing by 0, and the rest of it, is NaN; `on` keeps no
labels but its own; a comparison with `bool` keeps all labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from collector.errors import InvalidQuery, QueryLimit
from collector.query.logql import ast
from collector.query.regex import compile_regex

if TYPE_CHECKING:
    from numpy.typing import NDArray

Labels = tuple[tuple[str, str], ...]
"""A label set: pairs sorted by name."""

Key = TypeVar("Key")

CELLS_MAX: Final = 2_000_000
"""Numbers, of 8 bytes each, that one intermediate result may hold: its series times its steps, or cells of time."""


@dataclass(slots=True)
class Vector:
    """Series by rows, steps by columns."""

    labels: list[Labels]
    values: NDArray[np.float64]
    """A number for every step; without meaning where there is none."""
    present: NDArray[np.bool_]
    """Where there is a number."""

    @property
    def steps(self) -> int:
        """The number of steps."""
        return int(self.values.shape[1])

    def rows(self, rows: NDArray[np.intp]) -> Vector:
        """Return some of the rows, in the order given."""
        return Vector([self.labels[row] for row in rows.tolist()], self.values[rows], self.present[rows])

    def compact(self) -> Vector:
        """Return the vector without series that have no number at any step."""
        there = self.present.any(axis=1)
        return self if there.all() else self.rows(np.flatnonzero(there))


def constant(value: float, steps: int) -> Vector:
    """Return the one series without labels that has a value at every step."""
    return Vector([()], np.full((1, steps), value), np.ones((1, steps), np.bool_))


def merged(vector: Vector) -> Vector:
    """Return the vector with rows of the same labels made one, unless they meet at a step."""
    if len(set(vector.labels)) == len(vector.labels):
        return vector
    kept: list[int] = []
    first: dict[Labels, int] = {}
    values, present = vector.values.copy(), vector.present.copy()
    for row, labels in enumerate(vector.labels):
        target = first.setdefault(labels, row)
        if target == row or (present[target] & present[row]).any():
            kept.append(row)
        else:
            values[target] = np.where(present[row], values[row], values[target])
            present[target] |= present[row]
    return Vector(vector.labels, values, present).rows(np.array(kept, np.intp))


def _numbered(keys: Iterable[Key]) -> tuple[NDArray[np.intp], list[Key]]:
    """Return a number for each key, and the key of each number."""
    numbers: dict[Key, int] = {}
    codes = [numbers.setdefault(key, len(numbers)) for key in keys]
    return np.array(codes, np.intp), list(numbers)


# Aggregation.


def aggregate(op: str, parameter: float | None, grouping: ast.Grouping | None, vector: Vector) -> Vector:
    """Return a vector aggregation; `parameter` is the k of topk and its kin."""
    if not vector.labels:
        return vector
    grouping = grouping or ast.Grouping(without=False, labels=())
    named = frozenset(grouping.labels)
    codes, groups = _numbered(
        tuple(pair for pair in labels if (pair[0] in named) != grouping.without) for labels in vector.labels
    )
    if op in ("topk", "bottomk", "approx_topk"):
        assert parameter is not None
        return _selected(vector, codes, int(min(parameter, len(codes))), largest=op != "bottomk")
    if op in ("sort", "sort_desc"):
        return _sorted(vector, descending=op == "sort_desc")
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(groups)))
    values, present = vector.values[order], vector.present[order]
    counts = np.add.reduceat(present, starts, axis=0, dtype=np.int64)
    with np.errstate(all="ignore"):
        result = _REDUCTIONS[op](values, present, starts, counts)
    order = np.array(sorted(range(len(groups)), key=groups.__getitem__), np.intp)
    return Vector(groups, result, counts > 0).rows(order)


def _sum(values: Any, present: Any, starts: Any, counts: Any) -> NDArray[np.float64]:
    return np.asarray(np.add.reduceat(np.where(present, values, 0.0), starts, axis=0))


def _average(values: Any, present: Any, starts: Any, counts: Any) -> NDArray[np.float64]:
    return np.asarray(_sum(values, present, starts, counts) / np.maximum(counts, 1))


def _variance(values: Any, present: Any, starts: Any, counts: Any) -> NDArray[np.float64]:
    means = np.repeat(_average(values, present, starts, counts), np.diff(np.append(starts, len(values))), axis=0)
    return _average((values - means) ** 2, present, starts, counts)


def _least(values: Any, present: Any, starts: Any, counts: Any) -> NDArray[np.float64]:
    return np.asarray(np.fmin.reduceat(np.where(present, values, np.nan), starts, axis=0))


def _greatest(values: Any, present: Any, starts: Any, counts: Any) -> NDArray[np.float64]:
    return np.asarray(np.fmax.reduceat(np.where(present, values, np.nan), starts, axis=0))


_REDUCTIONS: Final[dict[str, Callable[..., NDArray[np.float64]]]] = {
    "sum": _sum,
    "avg": _average,
    "min": _least,  # a NaN only counts where there is nothing else
    "max": _greatest,
    "count": lambda values, present, starts, counts: counts.astype(np.float64),
    "stdvar": _variance,
    "stddev": lambda *parts: np.sqrt(_variance(*parts)),
}


def _selected(vector: Vector, codes: NDArray[np.intp], count: int, *, largest: bool) -> Vector:
    """Keep the `count` largest, or smallest, of each group at each step: NaN last, equals in the order of rows."""
    keys = np.where(vector.present, -vector.values if largest else vector.values, 0.0)
    absent, unknown = ~vector.present, np.isnan(keys)
    keys = np.where(unknown, 0.0, keys)
    kept = np.zeros_like(vector.present)
    for code in range(int(codes.max()) + 1):
        rows = np.flatnonzero(codes == code)
        order = np.lexsort((keys[rows], unknown[rows], absent[rows]), axis=0)
        places = np.empty_like(order)
        np.put_along_axis(places, order, np.arange(len(rows))[:, np.newaxis], axis=0)
        kept[rows] = places < count
    return Vector(vector.labels, vector.values, vector.present & kept).compact()


def _sorted(vector: Vector, *, descending: bool) -> Vector:
    """Order series by their number at the last step: NaN last, then those without one."""
    last, present = vector.values[:, -1], vector.present[:, -1]
    unknown = np.isnan(last)
    keys = np.where(unknown | ~present, 0.0, -last if descending else last)
    return vector.rows(np.lexsort((keys, unknown, ~present)))


# Operators.


def _divide(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(right == 0, np.nan, np.divide(left, right))  # as Loki: not infinity


def _modulo(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(right == 0, np.nan, np.fmod(left, right))


_OPERATIONS: Final[dict[str, Callable[..., NDArray[Any]]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": _divide,
    "%": _modulo,
    "^": np.power,
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "<": np.less,
    "<=": np.less_equal,
}


def apply(op: str, left: Any, right: Any) -> NDArray[np.float64]:
    """Apply an arithmetic operator, or a comparison to make 1 or 0."""
    with np.errstate(all="ignore"):
        return np.asarray(_OPERATIONS[op](left, right), np.float64)


def binary(node: ast.Binary, left: float | Vector, right: float | Vector) -> float | Vector:
    """Return left op right.

    A comparison keeps the numbers of the left side (of the series, if the other side is a number) for which it holds;
    with `bool`, and between two numbers, it makes 1 or 0. Series pair with those of the same labels, or as `on`,
    `ignoring`, `group_left` and `group_right` say. Raises InvalidQuery when one has several partners at a step.
    """
    if not isinstance(left, Vector) and not isinstance(right, Vector):
        return float(apply(node.op, np.float64(left), np.float64(right)))
    if isinstance(left, Vector) and isinstance(right, Vector):
        if node.op in ast.SET_OPERATORS:
            return _combined(node, left, right)
        return _matched(node, left, right)
    series = left if isinstance(left, Vector) else right
    assert isinstance(series, Vector)
    result = apply(
        node.op,
        left.values if isinstance(left, Vector) else left,
        right.values if isinstance(right, Vector) else right,
    )
    if node.op in ast.COMPARISONS and not node.returns_bool:
        return Vector(series.labels, series.values, series.present & (result != 0)).compact()
    return Vector(series.labels, result, series.present)


_EVERYTHING: Final = ast.Matching(on=False, labels=())


def _signature(labels: Labels, matching: ast.Matching) -> Labels:
    return tuple(pair for pair in labels if (pair[0] in matching.labels) == matching.on)


def _signatures(matching: ast.Matching, left: Vector, right: Vector) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    """Return the signature of each row on both sides, as numbers, and how many signatures there are."""
    codes, keys = _numbered(_signature(labels, matching) for labels in (*left.labels, *right.labels))
    return codes[: len(left.labels)], codes[len(left.labels) :], len(keys)


def _anywhere(codes: NDArray[np.intp], present: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Return how many of the rows of each code there are, by code and step."""
    there = np.zeros((count, present.shape[1]), np.int64)
    np.add.at(there, codes, present)
    return there


def _combined(node: ast.Binary, left: Vector, right: Vector) -> Vector:
    """`and`, `or`, `unless`, step by step."""
    lefts, rights, count = _signatures(node.matching or _EVERYTHING, left, right)
    if node.op == "or":
        there = _anywhere(lefts, left.present, count) > 0
        rest = right.present & ~there[rights]
        if (len(left.labels) + len(right.labels)) * left.steps > CELLS_MAX:
            raise QueryLimit(f"the series of {node.op!r} times {left.steps} steps are more than {CELLS_MAX}")
        return merged(
            Vector(
                left.labels + right.labels,
                np.concatenate((left.values, right.values)),
                np.concatenate((left.present, rest)),
            ).compact()
        )
    there = _anywhere(rights, right.present, count) > 0
    mask = there[lefts] if node.op == "and" else ~there[lefts]
    return Vector(left.labels, left.values, left.present & mask).compact()


def _matched(node: ast.Binary, left: Vector, right: Vector) -> Vector:
    """Apply an operator to pairs of series with equal signatures."""
    matching = node.matching or _EVERYTHING
    lefts, rights, count = _signatures(matching, left, right)
    swaps = matching.group == "right"
    many, one = (right, left) if swaps else (left, right)
    of_many, of_one = (rights, lefts) if swaps else (lefts, rights)
    there = _anywhere(of_one, one.present, count)
    if (there > 1).any():
        raise InvalidQuery(
            f"found duplicate series on the {'left' if swaps else 'right'} hand-side of {node.op!r}; many-to-many "
            "matching is not allowed: matching labels must be unique on one side"
        )
    if not matching.group and ((_anywhere(of_many, many.present, count) > 1) & (there > 0)).any():
        raise InvalidQuery(
            f"multiple matches for labels at {node.op!r}: many-to-one matching must be explicit (group_left/group_right)"
        )
    ours, theirs = _pairs(of_many, of_one, count)
    if len(ours) * many.steps > CELLS_MAX:
        raise QueryLimit(f"{len(ours)} pairs of series times {many.steps} steps are more than {CELLS_MAX}")
    present = many.present[ours] & one.present[theirs]
    first, second = (one.values[theirs], many.values[ours]) if swaps else (many.values[ours], one.values[theirs])
    result = apply(node.op, first, second)
    labels = [
        _result_labels(many.labels[row], one.labels[other], matching)
        for row, other in zip(ours.tolist(), theirs.tolist(), strict=True)
    ]
    if matching.group:
        codes, keys = _numbered(zip(of_many[ours].tolist(), labels, strict=True))
        if (_anywhere(codes, present, len(keys)) > 1).any():
            raise InvalidQuery(
                f"multiple matches for labels at {node.op!r}: grouping labels must ensure unique matches"
            )
    if node.op in ast.COMPARISONS and not node.returns_bool:
        present &= result != 0
        result = first
    return merged(Vector(labels, result, present).compact())


def _pairs(lefts: NDArray[np.intp], rights: NDArray[np.intp], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return every pair of a left and a right row of one signature, by left row."""
    order = np.argsort(rights, kind="stable")
    counts = np.bincount(rights, minlength=count)
    starts = np.cumsum(counts) - counts
    partners = counts[lefts]
    ours = np.repeat(np.arange(len(lefts)), partners)
    within = np.arange(len(ours)) - np.repeat(np.cumsum(partners) - partners, partners)
    return ours, order[np.repeat(starts[lefts], partners) + within]


def _result_labels(many: Labels, one: Labels, matching: ast.Matching) -> Labels:
    if not matching.group:
        return _signature(many, matching)
    if not matching.include:
        return many
    included = tuple(pair for pair in one if pair[0] in matching.include)
    return tuple(sorted((*(pair for pair in many if pair[0] not in matching.include), *included)))


# label_replace.

_GROUP: Final = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))", re.ASCII)


def label_replace(node: ast.LabelReplace, vector: Vector) -> Vector:
    """Return the series with a label set to what the replacement makes of another label's value, where that matches.

    The expression matches whole values; the replacement is as in Go: `$1`, `${name}`, `$$`. An empty result takes the
    label away.
    """
    pattern = compile_regex(node.regex, captures=True)
    labels = []
    for one in vector.labels:
        pairs = dict(one)
        match = pattern.fullmatch(pairs.get(node.source, ""))
        if match is not None:
            pairs.pop(node.target, None)
            value = _expanded(node.replacement, match)
            if value:
                pairs[node.target] = value
        labels.append(tuple(sorted(pairs.items())))
    return merged(Vector(labels, vector.values, vector.present))


def _expanded(template: str, match: Any) -> str:
    """Return a template with `$name` replaced by groups; one that there is not is empty."""
    pieces: list[str] = []
    end = 0
    for found in _GROUP.finditer(template):
        pieces.append(template[end : found.start()])
        end = found.end()
        dollar, braced, bare = found.groups()
        pieces.append("$" if dollar else _group(match, braced or bare))
    pieces.append(template[end:])
    return "".join(pieces)


def _group(match: Any, name: str) -> str:
    try:
        return match.group(int(name) if name.isdigit() else name) or ""
    except (IndexError, KeyError):
        return ""
