"""Evaluation against the brute-force oracle, and the refusals and limits of what is evaluated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import QueryLimit, QueryTimeout
from collector.otlp.signals import LOGS
from collector.query.deadline import Deadline
from collector.query.logql import ast, catalogue, logs, metrics
from collector.query.logql.labels import UNKNOWN_SERVICE
from collector.query.logql.logs import read_lines
from collector.query.logql.metrics import evaluate
from collector.query.logql.parser import parse_selector
from collector.query.logql.plan import prepare
from collector.query.logql.source import Statistics
from collector.store import View
from tests.query.logql import oracle
from tests.query.logql.evaluation import check, evaluated
from tests.query.logql.logs import DENSE_REQUESTS, REQUESTS, SECOND, Stopped, deadline, store_of, view_of
from tests.query.logql.trees import reachable, some

NAMES = st.sampled_from(["service_name", "level", "detected_level", "trace_id", "severity_number", "no"])
VALUES = st.sampled_from(["", "a", "b", "ab", "error", "info", "74" * 16, UNKNOWN_SERVICE])
EXPRESSIONS = st.sampled_from(["", "a", "a|b", ".+", "(a|e).*", "[^a]*"])
MATCHERS = st.builds(ast.Matcher, NAMES, st.sampled_from(["=", "!="]), VALUES) | st.builds(
    ast.Matcher, NAMES, st.sampled_from(["=~", "!~"]), EXPRESSIONS
)
NEEDLES = st.sampled_from(["", "a", "E", "é", "7"]).map(ast.LineOperand)
PATTERNS = st.sampled_from(["", "a|b", "G.T", "^a", "r$", "a.b", "[0-9]"]).map(ast.LineOperand)
CONDITIONS = st.recursive(
    MATCHERS,
    lambda inner: st.builds(ast.And, some(inner, 2)) | st.builds(ast.Or, some(inner, 2)),
    max_leaves=4,
)
STAGES = st.one_of(
    st.builds(ast.LineFilter, st.sampled_from(["|=", "!="]), some(NEEDLES, 1, 2)),
    st.builds(ast.LineFilter, st.sampled_from(["|~", "!~"]), some(PATTERNS, 1, 2)),
    st.builds(ast.LabelStage, CONDITIONS),
    st.builds(ast.Drop, some(NAMES | MATCHERS, 1)),
    st.builds(ast.Keep, some(NAMES | MATCHERS, 1)),
)
EVERYTHING = ast.Matcher("service_name", "=~", ".+")
QUERIES = st.builds(
    lambda matchers, stages: ast.LogQuery(ast.Selector((EVERYTHING, *matchers)), stages),
    some(st.builds(ast.Matcher, st.just("service_name"), st.just("="), VALUES), 0, 1) | some(MATCHERS, 0, 1),
    some(STAGES).filter(reachable),
)
SPANS = st.sampled_from([SECOND, 7 * SECOND, 20 * SECOND, 100 * SECOND])
RANGES = st.builds(
    lambda op, query, span, offset: ast.RangeAggregation(op, ast.LogRange(query, span, offset)),
    st.sampled_from(["count_over_time", "rate", "bytes_over_time", "bytes_rate"]),
    QUERIES,
    SPANS,
    st.sampled_from([0, 0, 0, SECOND, -3 * SECOND, 10**15, -(10**18) * 9]),
)
GROUPINGS = st.none() | st.builds(ast.Grouping, st.booleans(), some(NAMES, 0, 2))
SERIES = st.recursive(
    RANGES | st.builds(ast.Constant, st.sampled_from([0.0, 1.0, -2.5])),
    lambda inner: st.builds(
        lambda op, expression, grouping: ast.VectorAggregation(op, expression, None, grouping),
        st.sampled_from(["sum", "min", "max", "avg", "count"]),
        inner,
        GROUPINGS,
    ),
    max_leaves=2,
)
METRICS = st.recursive(
    SERIES | st.builds(ast.Number, st.sampled_from([0.0, 1.0, -2.5])),
    lambda inner: st.builds(
        lambda op, left, right, returns_bool: ast.Binary(op, left, right, returns_bool and op in ast.COMPARISONS),
        st.sampled_from(["+", "-", "*", "/", "%", *sorted(ast.COMPARISONS)]),
        inner,
        inner,
        st.booleans(),
    ),
    max_leaves=3,
)
PAYLOADS = st.lists(DENSE_REQUESTS | REQUESTS, max_size=4).map(
    lambda requests: [request.SerializeToString() for request in requests]
)


@given(
    payloads=PAYLOADS,
    query=QUERIES,
    start=st.integers(0, 30).map(lambda s: s * SECOND),
    length=st.integers(0, 70).map(lambda s: s * SECOND),
    limit=st.integers(1, 6),
    oldest_first=st.booleans(),
)
def test_log_queries_are_what_brute_force_finds(
    payloads: list[bytes], query: ast.LogQuery, start: int, length: int, limit: int, oldest_first: bool
) -> None:
    store = store_of(payloads)
    plan = prepare(str(query))
    [source] = plan.sources.values()
    service = source.selection.service
    view = store.view("service", service) if service else store.view()
    lines = read_lines(deadline(), view, source, start, start + length, limit, oldest_first, Statistics())
    found = [entry for entry in oracle.entries(store.view()) if start <= entry.time <= start + length]
    expected = sorted(oracle.run(query, found), key=lambda entry: entry[:2], reverse=not oldest_first)[:limit]
    assert [tuple(line) for line in lines] == [tuple(entry) for entry in expected]


@given(
    requests=st.lists(DENSE_REQUESTS.map(lambda each: each.SerializeToString()), min_size=2, max_size=4),
    matcher=st.builds(ast.Matcher, st.just("service_name"), st.sampled_from(["=", "!="]), VALUES)
    | st.builds(ast.Matcher, st.just("service_name"), st.sampled_from(["=~", "!~"]), EXPRESSIONS),
    stages=some(STAGES, 0, 1),
)
def test_one_stage_over_one_block_of_many_resources(
    requests: list[bytes], matcher: ast.Matcher, stages: tuple[ast.Stage, ...]
) -> None:
    view = view_of([b"".join(requests)])  # concatenated requests are one request
    query = ast.LogQuery(ast.Selector((EVERYTHING, matcher)), stages)
    [source] = prepare(str(query)).sources.values()
    lines = read_lines(deadline(), view, source, 0, 100 * SECOND, 1000, False, Statistics())
    expected = sorted(oracle.run(query, oracle.entries(view)), key=lambda entry: entry[:2], reverse=True)
    assert [tuple(line) for line in lines] == [tuple(entry) for entry in expected]


def lines_of(view: View, text: str) -> list[str]:
    """Return the lines that a log query finds, newest first."""
    [source] = prepare(text).sources.values()
    return [line.text for line in read_lines(deadline(), view, source, 0, 2**63, 100, False, Statistics())]


def test_regular_expressions_match_whole_labels_and_search_lines() -> None:
    view = view_of([at_times(1, service="shop", body="one\ntwo"), at_times(2, service="shop\nx", body="three")])
    assert lines_of(view, '{service_name=~"sho"}') == []
    assert lines_of(view, '{service_name=~"sho."}') == ["one\ntwo"]
    assert lines_of(view, '{service_name=~"sho.*"}') == ["one\ntwo"]
    assert lines_of(view, '{service_name=~"(?s)sho.*"}') == ["three", "one\ntwo"]
    assert lines_of(view, '{service_name=~".+p"} |~ "e.t"') == ["one\ntwo"]
    assert lines_of(view, '{service_name=~".+p"} |~ "^two"') == []
    assert lines_of(view, '{service_name=~".+p"} |~ "(?m)^two"') == ["one\ntwo"]
    assert lines_of(view, '{service_name=~"shop"} |~ "(?i)ONE"') == ["one\ntwo"]


def test_label_filters_combine() -> None:
    view = view_of([at_times(1, service="a", body="x"), at_times(2, service="b", body="y")])
    everything = '{service_name=~".+"} | '
    assert lines_of(view, everything + 'service_name="a" or service_name="b"') == ["y", "x"]
    assert lines_of(view, everything + 'service_name="a" and detected_level="unknown"') == ["x"]
    assert lines_of(view, everything + 'service_name="a" and service_name="b"') == []
    assert lines_of(view, everything + 'service_name="a", nowhere=""') == ["x"]
    assert lines_of(view, everything + 'drop service_name | service_name=""') == ["y", "x"]
    assert lines_of(view, everything + 'drop service_name="a" | service_name="b"') == ["y"]


@given(
    payloads=PAYLOADS,
    node=METRICS,
    first=st.integers(0, 40).map(lambda second: second * SECOND),
    step=st.sampled_from([1, SECOND, 3 * SECOND, 20 * SECOND]),
    count=st.integers(1, 5),
)
def test_metric_queries_are_what_brute_force_finds(
    payloads: list[bytes], node: ast.Metric, first: int, step: int, count: int
) -> None:
    check(view_of(payloads), node, [first + step * place for place in range(count)])


@given(
    payloads=st.lists(DENSE_REQUESTS.map(lambda each: each.SerializeToString()), min_size=1, max_size=3),
    op=st.sampled_from(["sum", "min", "max", "avg", "count"]),
    grouping=GROUPINGS,
    stages=st.just(()) | some(st.builds(ast.Keep, some(NAMES | MATCHERS, 1)), 1, 2),
)
def test_aggregations_are_what_brute_force_finds(
    payloads: list[bytes], op: str, grouping: ast.Grouping | None, stages: tuple[ast.Stage, ...]
) -> None:
    view = view_of(payloads)
    query = ast.LogQuery(ast.Selector((EVERYTHING,)), stages)
    inner = ast.RangeAggregation("count_over_time", ast.LogRange(query, 100 * SECOND))
    for node in (inner, ast.VectorAggregation(op, inner, None, grouping)):
        check(view, node, [50 * SECOND])


def numbers(value: metrics.Value) -> Any:
    """Return an evaluated value as plain numbers, absent ones as None."""
    if isinstance(value, float):
        return value
    return {
        labels: [
            number if there else None for number, there in zip(series.values.tolist(), series.present, strict=True)
        ]
        for labels, series in value.items()
    }


def at_times(*times: int, service: str = "a", body: str = "line") -> bytes:
    """Return a request of lines at these seconds."""
    return LOGS.request_type(
        resource_logs=[
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"string_value": service}}]},
                "scope_logs": [
                    {
                        "log_records": [
                            {"time_unix_nano": time * SECOND, "body": {"string_value": body}} for time in times
                        ]
                    }
                ],
            }
        ]
    ).SerializeToString()


def test_a_window_excludes_its_beginning_and_includes_its_end() -> None:
    view = view_of([at_times(10, 20, 30)])
    text = 'sum(count_over_time({service_name="a"}[10s]))'
    assert numbers(evaluated(view, text, [time * SECOND for time in (9, 10, 19, 20, 30, 39, 40)])) == {
        (): [None, 1.0, 1.0, 1.0, 1.0, 1.0, None]
    }
    assert numbers(evaluated(view, text.replace("10s", "10001ms"), [20 * SECOND, 30 * SECOND])) == {(): [2.0, 2.0]}


def test_arithmetic() -> None:
    view = view_of([])
    assert evaluated(view, "1 + 2 * 3 ^ 2 % 5", [0]) == 4.0
    assert evaluated(view, "1 >= 1", [0]) == 1.0
    assert math.isnan(evaluated(view, "1 / 0", [0]))  # type: ignore[arg-type]  # a number, not series
    assert numbers(evaluated(view, "vector(1)+vector(1)", [5, 6])) == {(): [2.0, 2.0]}
    assert numbers(evaluated(view, "2 < vector(3)", [5])) == {(): [3.0]}
    assert numbers(evaluated(view, "2 > vector(3)", [5])) == {}
    assert numbers(evaluated(view, "2 > bool vector(3)", [5])) == {(): [0.0]}


def test_the_log_volume_query_of_grafana() -> None:
    request = LOGS.request_type()
    request.ParseFromString(at_times(1, 2, 3, 8))
    for record, (number, text) in zip(
        request.resource_logs[0].scope_logs[0].log_records,
        [(9, "INFO"), (17, ""), (9, ""), (0, "")],
        strict=True,
    ):
        record.severity_number, record.severity_text = number, text
    view = view_of([request.SerializeToString()])
    text = 'sum by (level, detected_level) (count_over_time({service_name="a"} | drop __error__ [5s]))'
    assert numbers(evaluated(view, text, [5 * SECOND, 10 * SECOND])) == {
        (("detected_level", "error"),): [1.0, None],
        (("detected_level", "info"),): [2.0, None],
        (("detected_level", "unknown"),): [None, 1.0],
    }


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([at_times(1, service=f"s{number}") for number in range(4)])
    text = 'count_over_time({service_name=~".+"}[5s])'
    monkeypatch.setattr(metrics, "SERIES_MAX", 4)
    assert len(numbers(evaluated(view, text, [5 * SECOND]))) == 4
    monkeypatch.setattr(metrics, "SERIES_MAX", 3)
    for query in (text, text + " * 2", f"max by (service_name) ({text})", f"sum by (service_name) ({text})"):
        with pytest.raises(QueryLimit, match=r"number of series \(3\)"):
            evaluated(view, query, [5 * SECOND])
    assert numbers(evaluated(view, f"count({text})", [5 * SECOND])) == {(): [4.0]}


def test_cells_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([at_times(1, service=f"s{number}") for number in range(4)])
    text = 'count(count_over_time({service_name=~".+"}[5s]))'
    monkeypatch.setattr(metrics, "CELLS_MAX", 8)
    assert numbers(evaluated(view, text, [5 * SECOND])) == {(): [4.0]}
    with pytest.raises(QueryLimit, match="8 cells"):
        evaluated(view, text, [5 * SECOND, 6 * SECOND])


def test_answers_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([at_times(1, 2)])
    [source] = prepare('{service_name="a"}').sources.values()
    monkeypatch.setattr(logs, "ANSWER_BYTES_MAX", 20)
    assert len(read_lines(deadline(), view, source, 0, 9 * SECOND, 1, False, Statistics())) == 1
    with pytest.raises(QueryLimit, match="over 20"):
        read_lines(deadline(), view, source, 0, 9 * SECOND, 2, False, Statistics())


def test_a_cancelled_query_stops() -> None:
    view = view_of([at_times(1)])
    limit = Deadline(1.0, Stopped())
    limit.cancel()
    plan = prepare('count_over_time({service_name="a"}[5s])')
    with pytest.raises(QueryTimeout):
        evaluate(limit, dict.fromkeys(plan.services, view), plan, np.array([5 * SECOND]), Statistics())
    [source] = plan.sources.values()
    with pytest.raises(QueryTimeout):
        read_lines(limit, view, source, 0, 9 * SECOND, 1, False, Statistics())


def test_statistics_count_what_selectors_select() -> None:
    view = view_of([at_times(1, 2, service="a"), at_times(3, service="b")])
    plan = prepare('{service_name="a"} != "line"')
    [source] = plan.sources.values()
    statistics = Statistics()
    assert read_lines(deadline(), view, source, 0, 9 * SECOND, 9, False, statistics) == []
    assert statistics.ring_lines == 2
    assert statistics.ring_bytes == 2 * len(b"\n\x04line")
    assert statistics.log_lines == 0


@given(payloads=PAYLOADS, matchers=some(MATCHERS, 0, 2), start=st.integers(0, 30), length=st.integers(0, 60))
def test_the_catalogue_is_what_brute_force_finds(
    payloads: list[bytes], matchers: tuple[ast.Matcher, ...], start: int, length: int
) -> None:
    view = view_of(payloads)
    low, high = start * SECOND, (start + length) * SECOND
    selector = parse_selector(str(ast.Selector(matchers)))
    found = [entry for entry in oracle.entries(view) if low <= entry.time <= high]
    found = oracle.run(ast.LogQuery(selector), found)
    streams = [dict(each) for each in sorted({tuple(sorted(entry.stream.items())) for entry in found})]
    assert catalogue.streams(deadline(), view, [selector], low, high) == streams
    assert catalogue.label_names(deadline(), view, [selector], low, high) == sorted({n for s in streams for n in s})
    for name in ("service_name", "k8s_pod_name", "no"):
        values = sorted({stream[name] for stream in streams if name in stream})
        assert catalogue.label_values(deadline(), view, [selector], low, high, name) == values
    volume = catalogue.volume(deadline(), view, selector, low, high)
    assert (volume.streams, volume.entries) == (len(streams), len(found))
    assert volume.bytes == sum(len(entry.line.encode()) for entry in found)
    assert (volume.blocks > 0) == bool(found)


def test_the_catalogue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of([at_times(1, service=f"s{number}") for number in range(4)])
    monkeypatch.setattr(catalogue, "STREAMS_MAX", 3)
    for ask in (
        lambda: catalogue.streams(deadline(), view, [], 0, 9 * SECOND),
        lambda: catalogue.label_values(deadline(), view, [], 0, 9 * SECOND, "service_name"),
        lambda: catalogue.volume(deadline(), view, ast.Selector(()), 0, 9 * SECOND),
    ):
        with pytest.raises(QueryLimit, match="more than 3"):
            ask()
