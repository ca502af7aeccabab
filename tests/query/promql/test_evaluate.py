"""PromQL against a naive evaluation, sample by sample and step by step, and what OTLP becomes."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.clock import SystemClock
from collector.errors import InvalidQuery, QueryLimit
from collector.otlp.block import EXPONENTIAL_HISTOGRAM, GAUGE, SUM
from collector.otlp.signals import METRICS
from collector.query.deadline import Deadline
from collector.query.promql.ast import Matcher, Type
from collector.query.promql.evaluate import evaluate
from collector.query.promql.functions import FUNCTIONS, PARAMETRIC_AGGREGATIONS
from collector.query.promql.parser import parse
from collector.query.promql.series import float_text, matcher_of
from collector.query.promql.translate import bucket_bounds, family, label_name
from collector.query.promql.vectors import Vector
from collector.ring.ring import Ring
from collector.store import Store
from tests.query.promql.points import INTERVAL_MS, START_MS, Made, random_series, store_of

SERIES = random_series(4, 12, 60)
STORE = store_of(SERIES)
STEPS = np.arange(START_MS - 7_000, START_MS + 60 * INTERVAL_MS + 400_000, 30_000, dtype=np.int64)


def run(query: str, steps: Any = STEPS, store: Store = STORE) -> Any:
    return evaluate(Deadline(60, SystemClock()), store.view(), parse(query), np.asarray(steps, np.int64)).value


def table(vector: Vector) -> dict[tuple[tuple[str, str], ...], dict[int, float]]:
    """A vector as {labels: {step number: value}}."""
    return {
        labels: {step: float(vector.values[row, step]) for step in np.flatnonzero(vector.present[row]).tolist()}
        for row, labels in enumerate(vector.labels)
    }


def labels_of(one: Made, *, name: bool = True) -> tuple[tuple[str, str], ...]:
    return tuple(sorted([*([("__name__", one.name)] if name else []), *one.labels.items()]))


def assert_same(found: dict[Any, dict[int, float]], expected: dict[Any, dict[int, float]]) -> None:
    expected = {labels: values for labels, values in expected.items() if values}
    assert found.keys() == expected.keys()
    for labels, values in expected.items():
        assert found[labels].keys() == values.keys(), labels
        for step, value in values.items():
            assert found[labels][step] == pytest.approx(value, rel=1e-9, nan_ok=True), (labels, step)


def in_window(one: Made, step: int, range_ms: int) -> list[tuple[int, float]]:
    return [(time, value) for time, value in one.samples if step - range_ms < time <= step]


def naive_rate(samples: list[tuple[int, float]], step: int, range_ms: int) -> float | None:
    """Prometheus' extrapolated rate, written out for one window."""
    if len(samples) < 2:
        return None
    change = samples[-1][1] - samples[0][1]
    for (_, before), (_, after) in pairwise(samples):
        if after < before:
            change += before
    sampled = (samples[-1][0] - samples[0][0]) / 1000
    average = sampled / (len(samples) - 1)
    to_start = (samples[0][0] - (step - range_ms)) / 1000
    to_end = (step - samples[-1][0]) / 1000
    if to_start >= average * 1.1:
        to_start = average / 2
    if change > 0 and samples[0][1] >= 0:
        to_start = min(to_start, sampled * samples[0][1] / change)
    if to_end >= average * 1.1:
        to_end = average / 2
    return change * (sampled + to_start + to_end) / sampled / (range_ms / 1000)


def test_an_instant_selector_looks_back_five_minutes() -> None:
    expected = {}
    for one in SERIES:
        values = {}
        for number, step in enumerate(STEPS.tolist()):
            inside = in_window(one, step, 300_000)
            if inside:
                values[number] = inside[-1][1]
        expected[labels_of(one)] = values
    assert_same(table(run('{__name__=~"requests_total|temperature"}')), expected)


@pytest.mark.parametrize("range_s", [20, 60, 300])
def test_rate_is_prometheus_extrapolated_rate(range_s: int) -> None:
    expected: dict[Any, dict[int, float]] = {}
    for one in (each for each in SERIES if each.counter):
        values = {}
        for number, step in enumerate(STEPS.tolist()):
            rate = naive_rate(in_window(one, step, range_s * 1000), step, range_s * 1000)
            if rate is not None:
                values[number] = rate
        expected[labels_of(one, name=False)] = values
    assert_same(table(run(f"rate(requests_total[{range_s}s])")), expected)


@pytest.mark.parametrize(
    ("function", "naive"),
    [
        ("avg_over_time", lambda values: sum(values) / len(values)),
        ("max_over_time", max),
        ("count_over_time", len),
        ("changes", lambda values: sum(a != b for a, b in pairwise(values))),
        ("last_over_time", lambda values: values[-1]),
    ],
)
def test_functions_over_time(function: str, naive: Any) -> None:
    expected: dict[Any, dict[int, float]] = {}
    for one in (each for each in SERIES if not each.counter):
        values = {}
        for number, step in enumerate(STEPS.tolist()):
            inside = [value for _, value in in_window(one, step, 90_000)]
            if inside:
                values[number] = float(naive(inside))
        expected[labels_of(one, name=function == "last_over_time")] = values
    assert_same(table(run(f"{function}(temperature[90s])")), expected)


@pytest.mark.parametrize(("op", "naive"), [("sum", sum), ("max", max), ("min", min), ("count", len)])
def test_aggregations_by_a_label(op: str, naive: Any) -> None:
    expected: dict[Any, dict[int, float]] = {}
    for code in "abc":
        values = {}
        for number, step in enumerate(STEPS.tolist()):
            newest = [in_window(one, step, 300_000) for one in SERIES if not one.counter and one.labels["code"] == code]
            inside = [samples[-1][1] for samples in newest if samples]
            if inside:
                values[number] = float(naive(inside))
        expected[(("code", code),)] = values
    assert_same(table(run(f"{op} by (code) (temperature)")), expected)
    assert_same(table(run(f"{op} without (n) (temperature)")), expected)


def at(query: str, time_ms: int = START_MS + 400_000) -> Any:
    """The value of a query at one time: a number, or {labels: value}."""
    value = run(query, [time_ms])
    if isinstance(value, Vector):
        return {labels: float(value.values[row, 0]) for row, labels in enumerate(value.labels)}
    return float(value[0])


def test_arithmetic_and_comparison_with_scalars() -> None:
    assert at("1 + 1") == 2
    assert at("2 ^ 3 ^ 2") == 512
    assert at("-2 ^ 2") == -4
    assert at("5 % 3") == 2
    assert math.isnan(at("0 / 0"))
    assert at("1 > bool 2") == 0
    values = at("temperature")
    assert at("temperature > 0") == {labels: value for labels, value in values.items() if value > 0}
    doubled = {tuple(pair for pair in labels if pair[0] != "__name__"): 2 * value for labels, value in values.items()}
    assert at("temperature * 2") == doubled
    assert at("temperature + temperature") == doubled
    assert at("time()") == (START_MS + 400_000) / 1000


def test_set_operators_and_matching() -> None:
    low, high = at("temperature < 0"), at("temperature >= 0")
    assert at("temperature < 0 or temperature >= 0") == low | high
    assert at("temperature unless temperature < 0") == high
    assert at("temperature and on (n) temperature >= 0") == high
    with pytest.raises(QueryLimit, match="many-to-many"):
        at("temperature + on (code) temperature")


def test_topk_quantile_and_scalar() -> None:
    values = sorted(at("temperature").values())
    assert sorted(at("topk(2, temperature)").values()) == values[-2:]
    assert sorted(at("bottomk(2, temperature)").values()) == values[:2]
    assert at("quantile(0.5, temperature)")[()] == pytest.approx(float(np.quantile(values, 0.5)))
    assert at("topk(-1, temperature)") == {}
    for huge in ("1e400", "-Inf", "9223372036854775808"):
        with pytest.raises(InvalidQuery, match="overflows int64"):
            at(f"topk({huge}, temperature)")
    assert math.isnan(at("scalar(temperature)"))
    assert at("scalar(sum(temperature))") == pytest.approx(sum(values))


def test_offset_and_at() -> None:
    assert at("temperature offset 1m") == at("temperature", START_MS + 340_000)
    assert at(f"temperature @ {(START_MS + 100_000) / 1000}") == at("temperature", START_MS + 100_000)


# --- what OTLP becomes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unit", "kind", "monotonic", "expected"),
    [
        ("http.server.duration", "s", GAUGE, False, "http_server_duration_seconds"),
        ("http.requests", "{request}", SUM, True, "http_requests_total"),
        ("requests_total", "1", SUM, True, "requests_total"),
        ("disk.io", "By/s", GAUGE, False, "disk_io_bytes_per_second"),
        ("cpu.utilization", "1", GAUGE, False, "cpu_utilization_ratio"),
        ("cpu.time", "1", SUM, False, "cpu_time"),
        ("a__b..c", "", GAUGE, False, "a_b_c"),
        ("1st", "", GAUGE, False, "_1st"),
        ("memory.bytes", "By", GAUGE, False, "memory_bytes"),
    ],
)
def test_names(name: str, unit: str, kind: int, monotonic: bool, expected: str) -> None:
    assert family(name, unit, kind, 2, monotonic).name == expected


def test_label_names() -> None:
    assert [label_name(name) for name in ("http.method", "1a", "_x", "__y", "é")] == [
        "http_method",
        "key_1a",
        "key_x",
        "__y",
        "key_",
    ]


def metrics_store(*requests: Any) -> Store:
    loop = asyncio.new_event_loop()
    store = Store(METRICS, Ring(METRICS, 1000, 1 << 24), None, loop)
    for request in requests:
        loop.run_until_complete(store.append(request.SerializeToString()))
    loop.close()
    return store


def request_with(kind: str, **fields: Any) -> Any:
    request = METRICS.request_type()
    envelope = request.resource_metrics.add()
    for key, text in (("service.name", "shop"), ("service.namespace", "x"), ("service.instance.id", "i"), ("a.b", "c")):
        envelope.resource.attributes.add(key=key).value.string_value = text
    inner = envelope.scope_metrics.add()
    inner.scope.name = "lib"
    metric = inner.metrics.add(name="m")
    data = getattr(metric, kind)
    if kind in ("sum", "histogram", "exponential_histogram"):
        data.aggregation_temporality = fields.pop("temporality", 2)
    if kind == "sum":
        data.is_monotonic = True
    data.data_points.add(**fields)
    return request


def ask(store: Store, query: str, time_ms: int = 10_000) -> dict[Any, float]:
    vector = run(query, [time_ms], store)
    assert isinstance(vector, Vector)
    return {labels: float(vector.values[row, 0]) for row, labels in enumerate(vector.labels)}


COMMON = (("instance", "i"), ("job", "x/shop"))


def test_histograms_become_buckets_sum_and_count() -> None:
    store = metrics_store(
        request_with(
            "histogram",
            time_unix_nano=10**10,
            count=6,
            sum=7.5,
            bucket_counts=[1, 2, 3],
            explicit_bounds=[0.5, 2],
        )
    )
    scope = ("otel_scope_name", "lib")
    buckets = {dict(labels)["le"]: value for labels, value in ask(store, "m_bucket").items()}
    assert buckets == {"0.5": 1, "2": 3, "+Inf": 6}
    assert ask(store, "m_sum") == {(("__name__", "m_sum"), *COMMON, scope): 7.5}
    assert ask(store, "m_count") == {(("__name__", "m_count"), *COMMON, scope): 6}
    quantile = ask(store, "histogram_quantile(0.5, m_bucket)")
    assert list(quantile.values()) == [2.0]
    assert ask(store, "target_info") == {(("__name__", "target_info"), ("a_b", "c"), *COMMON): 1}


def test_deltas_are_added_up() -> None:
    store = metrics_store(
        *(request_with("sum", temporality=1, time_unix_nano=second * 10**9, as_int=second) for second in (1, 2, 3))
    )
    assert list(ask(store, "m_total", 2_500).values()) == [3]
    assert list(ask(store, "m_total", 3_500).values()) == [6]


def test_a_point_without_a_value_ends_its_series() -> None:
    store = metrics_store(
        request_with("gauge", time_unix_nano=1 * 10**9, as_double=1.5),
        request_with("gauge", time_unix_nano=2 * 10**9, flags=1),
    )
    assert list(ask(store, "m", 1_500).values()) == [1.5]
    assert ask(store, "m", 2_500) == {}
    assert list(ask(store, "count_over_time(m[10s])", 2_500).values()) == [1]


def test_the_newest_offset_of_one_millisecond_counts() -> None:
    store = metrics_store(
        request_with("gauge", time_unix_nano=10**9, as_double=1),
        request_with("gauge", time_unix_nano=10**9 + 1, as_double=2),
    )
    assert list(ask(store, "m").values()) == [2]


def test_exponential_histograms_become_classic_buckets() -> None:
    request = request_with(
        "exponential_histogram", time_unix_nano=10**10, count=7, scale=0, zero_count=1, zero_threshold=0.1
    )
    point = request.resource_metrics[0].scope_metrics[0].metrics[0].exponential_histogram.data_points[0]
    point.positive.offset = 0
    point.positive.bucket_counts.extend([2, 3])
    point.negative.offset = 1
    point.negative.bucket_counts.extend([1])
    assert bucket_bounds(point, EXPONENTIAL_HISTOGRAM) == ([-2.0, 0.1, 2.0, 4.0], [1, 2, 4, 7])


@given(st.floats())
def test_numbers_are_written_so_that_they_read_back(value: float) -> None:
    text = float_text(value)
    assert float(text) == value or (math.isnan(value) and text == "NaN")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (0.1, "0.1"), (1e21, "1e+21"), (1e-7, "1e-07"), (math.inf, "+Inf"), (123456789.0, "123456789")],
)
def test_numbers_are_written_as_prometheus_does(value: float, text: str) -> None:
    assert float_text(value) == text


ODD_NUMBERS = ("0", "-1", "0.5", "1e400", "-Inf", "NaN", "1e18", "9223372036854775808", "1e-300")


@pytest.mark.parametrize("number", ODD_NUMBERS)
def test_odd_numbers_are_answered_or_refused(number: str) -> None:
    """Whatever takes a number, with numbers that no integer holds."""
    arguments = {
        Type.SCALAR: number,
        Type.VECTOR: "temperature",
        Type.MATRIX: "temperature[5m]",
        Type.STRING: '"x"',
    }
    queries = [f"{name}({', '.join(arguments[kind] for kind in one.arguments)})" for name, one in FUNCTIONS.items()]
    queries += [f"{op}({arguments[kind]}, temperature)" for op, kind in PARAMETRIC_AGGREGATIONS.items()]
    queries += [f"temperature {op} {number}" for op in ("+", "-", "*", "/", "%", "^", "atan2", "==", "> bool")]
    queries += [f"temperature @ {number}", f"temperature offset {number}", f"temperature[{number}]", number]
    for query in queries:
        try:
            run(query, STEPS[:3])
        except (InvalidQuery, QueryLimit):
            continue


def test_every_function_and_aggregation_is_evaluated() -> None:
    arguments = {Type.SCALAR: "0.5", Type.VECTOR: "temperature", Type.MATRIX: "temperature[5m]", Type.STRING: '"x"'}
    for name, one in FUNCTIONS.items():
        query = f"{name}({', '.join(arguments[kind] for kind in one.arguments)})"
        if name.startswith("histogram_") and name not in ("histogram_quantile", "histogram_fraction"):
            with pytest.raises(InvalidQuery, match="native histograms") as caught:
                run(query, STEPS[:3])
            assert caught.value.position == 0
        else:
            run(query, STEPS[:3])
    for op, kind in PARAMETRIC_AGGREGATIONS.items():
        run(f"{op}({arguments[kind]}, temperature)", STEPS[:3])


def test_a_dot_matches_a_newline_as_in_prometheus_3() -> None:
    labels = (("code", "a\nb"),)
    assert matcher_of([Matcher("code", "=~", "a.b")])(labels)
    assert not matcher_of([Matcher("code", "!~", "a.b")])(labels)
