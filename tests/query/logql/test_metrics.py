"""Metric queries against the brute-force oracle: aggregations over lines and samples, operators, matching; and limits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import QueryLimit
from collector.otlp.signals import LOGS
from collector.query.logql import ast, metrics, tallies, vectors
from collector.query.logql.quantiles import quantiles
from collector.query.logql.windows import Windows, added, folded, greatest, least
from tests.query.logql import metric_oracle
from tests.query.logql.evaluation import check, evaluated
from tests.query.logql.logs import SECOND, store_of, view_of
from tests.query.logql.trees import reachable, some

NAMES = st.sampled_from(["service_name", "level", "detected_level", "value", "no"])


def _request(service: str, records: list[tuple[int, str, str, str, int]]) -> bytes:
    """Return a request of (half second, body, level, value, severity)."""
    return LOGS.request_type(
        resource_logs=[
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"string_value": service}}]},
                "scope_logs": [
                    {
                        "log_records": [
                            {
                                "time_unix_nano": half * SECOND // 2,
                                "body": {"string_value": body},
                                "attributes": [
                                    {"key": "level", "value": {"string_value": level}},
                                    {"key": "value", "value": {"string_value": value}},
                                ],
                                "severity_number": severity,
                            }
                            for half, body, level, value, severity in records
                        ]
                    }
                ],
            }
        ]
    ).SerializeToString()


def _requests(values: list[str]) -> st.SearchStrategy[bytes]:
    return st.builds(
        _request,
        st.sampled_from(["", "a", "b"]),
        st.lists(
            st.tuples(
                st.integers(0, 60),
                st.sampled_from(["", "a", "ab é"]),
                st.sampled_from(["", "a", "error"]),
                st.sampled_from(values),
                st.sampled_from([0, 9, 17]),
            ),
            min_size=1,
            max_size=12,
        ),
    )


REQUESTS = _requests(["", "0", "1", "2.5", "-3", "1e3", "7", "inf", "nan"])
FAULTY_REQUESTS = _requests(["", "1", "2.5", "7", "x"])
STAGES = st.one_of(
    st.builds(ast.LineFilter, st.sampled_from(["|=", "!="]), st.just((ast.LineOperand("a"),))),
    st.builds(
        ast.LabelStage,
        st.builds(ast.Matcher, NAMES, st.sampled_from(["=", "!="]), st.sampled_from(["", "a", "error", "1"])),
    ),
    st.builds(ast.Drop, some(NAMES, 1, 2)),
    st.builds(ast.Keep, some(NAMES | st.just("value"), 1, 3)),
)
SELECTORS = st.sampled_from(
    [
        (ast.Matcher("service_name", "=~", ".+"),),
        (ast.Matcher("service_name", "=", "a"),),
        (ast.Matcher("service_name", "!=", "b"), ast.Matcher("service_name", "=~", "a|u.*")),
    ]
).map(ast.Selector)
SPANS = st.sampled_from([SECOND // 2, SECOND, 3 * SECOND, 7 * SECOND, 100 * SECOND])
OFFSETS = st.sampled_from([0, 0, 0, SECOND, -3 * SECOND])
GROUPINGS = st.none() | st.builds(ast.Grouping, st.booleans(), some(NAMES, 0, 2))
OVER_LINES = st.builds(
    lambda op, selector, stages, span, offset: ast.RangeAggregation(
        op, ast.LogRange(ast.LogQuery(selector, stages), span, offset)
    ),
    st.sampled_from(["count_over_time", "rate", "bytes_over_time", "bytes_rate", "absent_over_time"]),
    SELECTORS,
    some(STAGES, 0, 2).filter(reachable),
    SPANS,
    OFFSETS,
)
_GROUPED = ("avg", "min", "max", "first", "last", "stddev", "stdvar", "quantile")


def _over_samples(op: str, selector: Any, stages: Any, span: int, offset: int, q: float, grouping: Any) -> Any:
    query = ast.LogQuery(selector, (*stages, ast.Unwrap("value")))
    return ast.RangeAggregation(
        op,
        ast.LogRange(query, span, offset),
        q if op == "quantile_over_time" else None,
        grouping if op.removesuffix("_over_time") in _GROUPED else None,
    )


OVER_SAMPLES = st.builds(
    _over_samples,
    st.sampled_from(["rate", "rate_counter", *(f"{each}_over_time" for each in ("sum", "absent", *_GROUPED))]),
    SELECTORS,
    some(STAGES, 0, 1).filter(reachable),
    SPANS,
    OFFSETS,
    st.sampled_from([0.0, 0.3, 0.5, 0.99, 1.0, 2.0, -1.0]),
    GROUPINGS,
)


def _aggregated(op: str, inner: ast.Metric, k: int, grouping: ast.Grouping | None) -> ast.Metric:
    if op in ("sort", "sort_desc", "approx_topk"):
        grouping = None
    return ast.VectorAggregation(op, inner, float(k) if "k" in op else None, grouping)


def _matched(op: str, left: Any, right: Any, returns_bool: bool, on: Any, names: Any, group: str, more: Any) -> Any:
    if op in ast.SET_OPERATORS:
        group = ""
    include = tuple(name for name in more if not (on and name in names)) if group else ()
    matching = None if on is None else ast.Matching(on, names, group, include)
    return ast.Binary(op, left, right, returns_bool and op in ast.COMPARISONS, matching)


OPS = ["sum", "avg", "min", "max", "count", "stddev", "stdvar", "topk", "bottomk", "approx_topk", "sort", "sort_desc"]
AGGREGATED = st.builds(_aggregated, st.sampled_from(OPS), OVER_LINES | OVER_SAMPLES, st.integers(1, 3), GROUPINGS)
SERIES = st.one_of(OVER_LINES, OVER_SAMPLES, AGGREGATED, AGGREGATED, st.just(ast.Constant(2.0)))
REPLACED = st.builds(
    ast.LabelReplace,
    SERIES,
    st.sampled_from(["level", "new"]),
    st.sampled_from(["", "$1", "x-$1"]),
    st.sampled_from(["service_name", "no"]),
    st.sampled_from(["(a|b)", "(.*)", "z"]),
)
VECTORS = st.one_of(SERIES, SERIES, REPLACED)
METRICS = st.recursive(
    VECTORS,
    lambda inner: st.one_of(
        st.builds(_aggregated, st.sampled_from(OPS), inner, st.integers(1, 3), GROUPINGS),
        st.builds(
            _matched,
            st.sampled_from(["+", "-", "*", "/", "%", *sorted(ast.COMPARISONS | ast.SET_OPERATORS)]),
            inner,
            inner,
            st.booleans(),
            st.sampled_from([None, True, False]),
            some(NAMES, 0, 2),
            st.sampled_from(["", "left", "right"]),
            some(NAMES, 0, 1),
        ),
        st.builds(
            lambda op, left, right, swap: ast.Binary(op, right, left) if swap else ast.Binary(op, left, right),
            st.sampled_from(["+", "-", "*", "/", "%", *sorted(ast.COMPARISONS)]),
            inner,
            st.sampled_from([0.0, 1.0, -2.5]).map(ast.Number),
            st.booleans(),
        ),
    ),
    max_leaves=3,
)


STEPS = st.builds(
    lambda first, step, count: [first + step * place for place in range(count)],
    st.integers(0, 40).map(lambda second: second * SECOND),
    st.sampled_from([1, SECOND, 3 * SECOND, 20 * SECOND]),
    st.integers(1, 6),
)


@given(payloads=st.lists(REQUESTS, max_size=4), node=METRICS, steps=STEPS)
def test_metric_queries_are_what_brute_force_finds(payloads: list[bytes], node: ast.Metric, steps: list[int]) -> None:
    check(view_of(payloads), node, steps)


@given(
    payloads=st.lists(REQUESTS, min_size=1, max_size=4),
    node=OVER_LINES | OVER_SAMPLES,
    steps=STEPS,
    at_once=st.sampled_from([1, 1_000_000]),
)
def test_range_aggregations_are_what_brute_force_finds(
    payloads: list[bytes], node: ast.Metric, steps: list[int], at_once: int
) -> None:
    with mock.patch.object(metrics, "CELLS_AT_ONCE", at_once):
        check(view_of(payloads), node, steps)


@given(
    payloads=st.lists(FAULTY_REQUESTS, min_size=1, max_size=3),
    node=OVER_SAMPLES,
    behind=some(
        st.builds(ast.LabelStage, st.builds(ast.Matcher, st.just("__error__"), st.just("="), st.just(""))), 0, 1
    ),
    steps=STEPS,
)
def test_faulty_samples_refuse_the_query_unless_filtered_out(
    payloads: list[bytes], node: ast.RangeAggregation, behind: tuple, steps: list[int]
) -> None:
    query = ast.LogQuery(node.range.query.selector, (*node.range.query.stages, *behind))
    check(view_of(payloads), replace(node, range=replace(node.range, query=query)), steps)


@given(
    payloads=st.lists(REQUESTS, min_size=2, max_size=5),
    capacity=st.integers(4, 30),
    nodes=some(st.builds(_aggregated, st.just("sum"), OVER_LINES, st.just(1), GROUPINGS), 1, 2),
    steps=STEPS,
)
def test_what_is_remembered_while_the_ring_moves_on_is_what_brute_force_finds(
    payloads: list[bytes], capacity: int, nodes: tuple, steps: list[int]
) -> None:
    from collector.otlp.scan import scan

    store = store_of([], capacity)
    for payload in payloads:
        store.ring.append(scan(LOGS, payload, store.ring.next_offset))
        for node in nodes:
            check(store.view(), node, steps)


@given(
    values=st.lists(st.sampled_from([0.0, 1.0, -2.5, 3.0, math.inf, -math.inf, math.nan]), max_size=12),
    data=st.data(),
    q=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0, -0.1, 1.1]),
)
def test_quantiles_of_stretches(values: list[float], data: st.DataObject, q: float) -> None:
    bounds = data.draw(
        st.lists(st.tuples(st.integers(0, len(values)), st.integers(0, len(values))).map(sorted), max_size=5)
    )
    begins, ends = np.array([pair[0] for pair in bounds], np.intp), np.array([pair[1] for pair in bounds], np.intp)
    actual = quantiles(q, np.array(values, np.float64), begins, ends)
    for (begin, end), number in zip(bounds, actual.tolist(), strict=True):
        expected = metric_oracle.quantile(q, values[begin:end]) if end > begin else math.nan
        assert number == pytest.approx(expected, nan_ok=True)


@given(
    rows=st.integers(1, 3).flatmap(
        lambda count: st.integers(1, 12).flatmap(
            lambda cells: st.lists(
                st.lists(st.integers(-5, 5), min_size=cells, max_size=cells), min_size=count, max_size=count
            )
        )
    ),
    data=st.data(),
)
def test_folds_are_what_joining_one_by_one_makes(rows: list[list[int]], data: st.DataObject) -> None:
    cells = len(rows[0])
    bounds = data.draw(st.lists(st.tuples(st.integers(0, cells), st.integers(0, cells)).map(sorted), max_size=5))
    begins = np.array([pair[0] for pair in bounds], np.intp)
    lengths = np.array([pair[1] - pair[0] for pair in bounds], np.intp)
    matrix = np.array(rows, np.float64)
    for join, function, nothing in ((added, np.sum, 0.0), (least, np.min, np.nan), (greatest, np.max, np.nan)):
        [actual] = folded((matrix,), begins, lengths, join, (nothing,))
        for place, (begin, end) in enumerate(bounds):
            part = matrix[:, begin:end]
            expected = function(part, axis=1) if end > begin else np.full(len(rows), nothing)
            np.testing.assert_array_equal(actual[:, place], expected)


def test_large_and_small_numbers_do_not_disturb_each_other() -> None:
    lines = [(20, "", "", "1e300", 0), (40, "", "", "1", 0), (60, "", "", "-inf", 0), (80, "", "", "2", 0)]
    view = view_of([_request("a", lines)])
    text = 'sum_over_time({service_name="a"} | keep value | unwrap value [10s])'
    value = evaluated(view, text, [10 * SECOND, 20 * SECOND, 30 * SECOND, 40 * SECOND])
    assert isinstance(value, dict)
    assert value[()].values.tolist() == [1e300, 1.0, -math.inf, 2.0]


@given(
    steps=st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True).map(sorted),
    span=st.integers(1, 30),
    offset=st.integers(-5, 60),
    times=st.lists(st.integers(0, 90), max_size=10),
)
def test_cells_make_up_windows(steps: list[int], span: int, offset: int, times: list[int]) -> None:
    windows = Windows(np.array(steps, np.int64), span, offset)
    kept = [time for time in times if windows.start_ns <= time <= windows.end_ns]
    cells = windows.places(np.array(kept, np.uint64)).tolist()
    for place, step in enumerate(steps):
        inside = [time for time in times if step - offset - span < time <= step - offset]
        run = range(int(windows.begins[place]) + 1, int(windows.ends[place]) + 1)
        assert [time for time, cell in zip(kept, cells, strict=True) if cell in run] == inside
    covered = windows.covered
    for time, cell in zip(kept, cells, strict=True):
        is_inside = any(step - offset - span < time <= step - offset for step in steps)
        assert (covered is None or bool(covered[cell])) == is_inside


def test_samples_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([_request("a", [(second, "", "", "1", 0) for second in range(4)])])
    text = 'quantile_over_time(0.5, {service_name="a"} | unwrap value [9s]) by ()'
    monkeypatch.setattr(tallies, "SAMPLES_MAX", 4)
    assert evaluated(view, text, [5 * SECOND])
    monkeypatch.setattr(tallies, "SAMPLES_MAX", 3)
    with pytest.raises(QueryLimit, match="3 samples"):
        evaluated(view, text, [5 * SECOND])


def test_pairs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([_request(f"s{number}", [(1, "", "", "1", 0)]) for number in range(4)])
    counts = 'sum by (service_name) (count_over_time({service_name=~".+"}[9s]))'
    text = f"{counts} * on () group_left vector(1)"
    monkeypatch.setattr(vectors, "CELLS_MAX", 4)
    assert evaluated(view, text, [5 * SECOND])
    monkeypatch.setattr(vectors, "CELLS_MAX", 3)
    with pytest.raises(QueryLimit, match="4 pairs"):
        evaluated(view, text, [5 * SECOND])


def test_series_in_gaps_between_windows_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([_request(f"s{number}", [(10 * number, "", "", "", 0)]) for number in range(4)])
    monkeypatch.setattr(metrics, "SERIES_MAX", 2)
    text = 'sum by (service_name) (count_over_time({service_name=~".+"}[1s]))'
    value = evaluated(view, text, [5 * SECOND, 15 * SECOND])
    assert isinstance(value, dict)
    assert [dict(labels)["service_name"] for labels in value] == ["s1", "s3"]


def test_a_wrong_answer_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([_request("a", [(2, "", "", "1", 0), (4, "", "", "3", 0)])])
    selector = ast.Selector((ast.Matcher("service_name", "=", "a"),))
    for op, broken in (("max_over_time", "min_over_time"), ("first_over_time", "last_over_time")):
        node = _over_samples(op, selector, (), 9 * SECOND, 0, 0, None)
        check(view, node, [5 * SECOND])
        with monkeypatch.context() as patch, pytest.raises(AssertionError):
            patch.setitem(tallies.OVER_SAMPLES, op, tallies.OVER_SAMPLES[broken])
            check(view, node, [5 * SECOND])
