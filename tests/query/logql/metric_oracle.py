"""LogQL's metric queries by brute force: every line decoded, every window gone through, one step at a time.

A vector is a list of (labels, number), so that it can hold equals, as Loki's can.
"""

from __future__ import annotations

import math
import operator
import re
from collections import defaultdict
from itertools import pairwise
from typing import Any

from collector.query.logql import ast
from tests.query.logql import oracle
from tests.query.logql.oracle import Entry

Labels = tuple[tuple[str, str], ...]
Vector = list[tuple[Labels, float]]


class Refused(Exception):
    """The query fails."""


_OPERATORS: dict[str, Any] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else math.nan,
    "%": lambda a, b: math.fmod(a, b) if b else math.nan,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def at(node: ast.Metric, found: list[Entry], step: int) -> float | Vector:
    """Return a metric expression's value at one step; series without order. Raises Refused."""
    if isinstance(node, ast.Number):
        return node.value
    if isinstance(node, ast.Constant):
        return [((), node.value)]
    if isinstance(node, ast.RangeAggregation):
        return _range(node, found, step)
    if isinstance(node, ast.VectorAggregation):
        return _aggregation(node, at(node.expression, found, step))
    if isinstance(node, ast.LabelReplace):
        return [(_replaced(node, labels), value) for labels, value in at(node.expression, found, step)]
    assert isinstance(node, ast.Binary)
    return _binary(node, at(node.left, found, step), at(node.right, found, step))


def samples(query: ast.LogQuery, found: list[Entry]) -> list[tuple[Entry, dict[str, str], float]]:
    """Return the lines that a query leaves, in the order of time, with all labels and what each counts for."""
    places = [place for place, stage in enumerate(query.stages) if isinstance(stage, ast.Unwrap)]
    before = query.stages[: places[0]] if places else query.stages
    left = []
    for entry in sorted(oracle.run(ast.LogQuery(query.selector, before), found), key=lambda each: each[:2]):
        labels = entry.stream | entry.metadata
        if not places:
            left.append((entry, labels, 1.0))
            continue
        text = labels.get(query.stages[places[0]].label, "")
        if not text:
            continue
        value = 0.0
        try:
            value = float(text)
        except ValueError:
            labels["__error__"] = "SampleExtractionErr"
        if all(oracle._meets(stage.condition, labels) for stage in query.stages[places[0] + 1 :]):
            left.append((entry, labels, value))
    return left


def _range(node: ast.RangeAggregation, found: list[Entry], step: int) -> Vector:
    end, span, query = step - node.range.offset_ns, node.range.range_ns, node.range.query
    window = [entry for entry in found if end - span < entry.time <= end]
    series: dict[Labels, list[tuple[Entry, float]]] = defaultdict(list)
    unwrapped = {stage.label for stage in query.stages if isinstance(stage, ast.Unwrap)}
    for entry, labels, value in samples(query, window):
        if "__error__" in labels:
            raise Refused
        grouping = node.grouping or ast.Grouping(True, ())
        gone = unwrapped if grouping.without else set()
        key = tuple(
            sorted(
                pair
                for pair in labels.items()
                if (pair[0] in grouping.labels) != grouping.without and pair[0] not in gone
            )
        )
        series[key].append((entry, value))
    if node.op == "absent_over_time":
        if series:
            return []
        names = [matcher.label for matcher in query.selector.matchers]
        return [
            (
                tuple(
                    sorted(
                        (matcher.label, matcher.value)
                        for matcher in query.selector.matchers
                        if matcher.op == "=" and names.count(matcher.label) == 1 and matcher.value
                    )
                ),
                1.0,
            )
        ]
    return [(labels, _over_time(node, each, end, bool(unwrapped))) for labels, each in series.items()]


def _over_time(node: ast.RangeAggregation, each: list[tuple[Entry, float]], end: int, unwraps: bool) -> float:
    values = [value for _, value in each]
    seconds = node.range.range_ns / 1e9
    mean = sum(values) / len(values)
    match node.op:
        case "count_over_time":
            return float(len(each))
        case "rate":
            return (sum(values) if unwraps else len(each)) / seconds
        case "bytes_over_time":
            return float(sum(len(entry.line.encode()) for entry, _ in each))
        case "bytes_rate":
            return sum(len(entry.line.encode()) for entry, _ in each) / seconds
        case "sum_over_time":
            return sum(values)
        case "avg_over_time":
            return mean
        case "min_over_time" | "max_over_time":
            real = [value for value in values if not math.isnan(value)]
            return (min if node.op.startswith("min") else max)(real) if real else math.nan
        case "first_over_time":
            return values[0]
        case "last_over_time":
            return values[-1]
        case "stdvar_over_time":
            return sum((value - mean) ** 2 for value in values) / len(values)
        case "stddev_over_time":
            return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        case "quantile_over_time":
            assert node.parameter is not None
            return quantile(node.parameter, values)
        case "rate_counter":
            return _rate_counter([(entry.time, value) for entry, value in each], end, seconds)
    raise AssertionError(node.op)


def quantile(q: float, values: list[float]) -> float:
    """Return a quantile, NaN being the smallest."""
    if q < 0 or q > 1:
        return math.copysign(math.inf, q)
    ordered = sorted(values, key=lambda value: (not math.isnan(value), value))
    rank = q * (len(values) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(values) - 1)
    return ordered[low] * (1 - (rank - low)) + ordered[high] * (rank - low)


def _rate_counter(each: list[tuple[int, float]], end: int, seconds: float) -> float:
    if len(each) < 2:
        return 0.0
    (first_time, first), (last_time, last) = each[0], each[-1]
    increase = last - first + sum(a for (_, a), (_, b) in pairwise(each) if b < a)
    sampled = (last_time - first_time) / 1e9
    if sampled == 0:
        return math.nan
    average = sampled / (len(each) - 1)
    to_start = seconds - (end - first_time) / 1e9
    to_end = (end - last_time) / 1e9
    if to_start >= average * 1.1:
        to_start = average / 2
    if increase > 0 and first >= 0:
        to_start = min(to_start, sampled * (first / increase))
    if to_end >= average * 1.1:
        to_end = average / 2
    return increase * ((sampled + to_start + to_end) / sampled) / seconds


def _aggregation(node: ast.VectorAggregation, vector: Any) -> Vector:
    grouping = node.grouping or ast.Grouping(False, ())
    groups: dict[Labels, list[tuple[Labels, float]]] = defaultdict(list)
    for labels, value in sorted(vector, key=lambda pair: pair[0]):
        key = tuple(pair for pair in labels if (pair[0] in grouping.labels) != grouping.without)
        groups[key].append((labels, value))
    if node.op in ("topk", "bottomk", "approx_topk"):
        sign = 1 if node.op == "bottomk" else -1
        assert node.parameter is not None
        return [
            pair
            for each in groups.values()
            for pair in sorted(each, key=lambda pair: (math.isnan(pair[1]), sign * pair[1]))[: int(node.parameter)]
        ]
    if node.op in ("sort", "sort_desc"):
        sign = 1 if node.op == "sort" else -1
        return sorted(vector, key=lambda pair: (math.isnan(pair[1]), sign * pair[1]))
    result: Vector = []
    for labels, each in groups.items():
        values = [value for _, value in each]
        mean = sum(values) / len(values)
        real = [value for value in values if not math.isnan(value)] or [math.nan]
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        result.append(
            (
                labels,
                {
                    "sum": sum(values),
                    "avg": mean,
                    "min": min(real),
                    "max": max(real),
                    "count": float(len(values)),
                    "stdvar": variance,
                    "stddev": math.sqrt(variance),
                }[node.op],
            )
        )
    return result


def _replaced(node: ast.LabelReplace, labels: Labels) -> Labels:
    pairs = dict(labels)
    match = re.fullmatch(node.regex, pairs.get(node.source, ""))
    if match is None:
        return labels
    value = re.sub(r"\$(\d)", lambda group: match.group(int(group.group(1))) or "", node.replacement)
    pairs.pop(node.target, None)
    if value:
        pairs[node.target] = value
    return tuple(sorted(pairs.items()))


def _signature(labels: Labels, matching: ast.Matching) -> Labels:
    return tuple(pair for pair in labels if (pair[0] in matching.labels) == matching.on)


def _binary(node: ast.Binary, left: Any, right: Any) -> float | Vector:
    if node.op in ast.SET_OPERATORS:
        return _combined(node, left, right)
    function = _OPERATORS[node.op]
    filters = node.op in ast.COMPARISONS and not node.returns_bool
    if isinstance(left, float) and isinstance(right, float):
        return float(function(left, right))
    result: Vector = []
    if isinstance(left, float) or isinstance(right, float):
        for labels, own in right if isinstance(left, float) else left:
            value = function(left, own) if isinstance(left, float) else function(own, right)
            if filters and value:
                result.append((labels, own))
            elif not filters:
                result.append((labels, float(value)))
        return result
    matching = node.matching or ast.Matching(False, ())
    swaps = matching.group == "right"
    many, one = (right, left) if swaps else (left, right)
    partners: dict[Labels, tuple[Labels, float]] = {}
    for labels, value in one:
        if _signature(labels, matching) in partners:
            raise Refused
        partners[_signature(labels, matching)] = (labels, value)
    seen = set()
    for labels, own in many:
        signature = _signature(labels, matching)
        if signature not in partners:
            continue
        others, other = partners[signature]
        key = labels if matching.group else signature
        if matching.include:
            pairs = {name: text for name, text in labels if name not in matching.include}
            pairs |= {name: text for name, text in others if name in matching.include}
            key = tuple(sorted(pairs.items()))
        if (signature, key) in seen:
            raise Refused
        seen.add((signature, key))
        first, second = (other, own) if swaps else (own, other)
        value = function(first, second)
        if filters and value:
            result.append((key, first))
        elif not filters:
            result.append((key, float(value)))
    return result


def _combined(node: ast.Binary, left: Vector, right: Vector) -> Vector:
    matching = node.matching or ast.Matching(False, ())
    lefts, rights = ({_signature(labels, matching) for labels, _ in side} for side in (left, right))
    if node.op == "or":
        return left + [pair for pair in right if _signature(pair[0], matching) not in lefts]
    return [pair for pair in left if (_signature(pair[0], matching) in rights) == (node.op == "and")]
