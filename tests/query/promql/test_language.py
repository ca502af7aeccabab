"""PromQL where Debian's Prometheus does not tell: what came after it, edges, mistakes and limits. Reckoned by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from collector.errors import InvalidQuery, QueryLimit
from collector.query.promql import aggregation, evaluate, relabel
from collector.query.promql.dates import part
from collector.query.promql.vectors import Vector
from tests.query.promql.points import Made, store_of
from tests.query.promql.test_evaluate import ask, metrics_store, request_with, run

SECOND = 1000
ZERO = 1_700_000_000_000 // 60_000 * 60_000
"""A full minute, in ms: steps of subqueries are multiples of their step."""


def gauge(values: dict[int, float], **labels: str) -> Made:
    """A gauge with values at seconds after `ZERO`."""
    return Made("g", labels, [(ZERO + second * SECOND, value) for second, value in values.items()], counter=False)


def at(store: Any, query: str, second: float) -> Any:
    """The answer at a time: a number, or {labels as a dict's items: value}."""
    value = run(query, [ZERO + round(second * SECOND)], store)
    if isinstance(value, Vector):
        return {labels: float(value.values[row, 0]) for row, labels in enumerate(value.labels)}
    return float(value[0])


# --- subqueries ---------------------------------------------------------------------------------------------------


def test_a_subquery_is_evaluated_at_multiples_of_its_step() -> None:
    store = store_of([gauge({0: 1, 10: 2, 20: 3, 30: 4})])
    assert at(store, "count_over_time(g[30s:10s])", 30) == {(): 3}, "at 10, 20 and 30: the range is open at its begin"
    assert at(store, "count_over_time(g[30s:10s])", 39) == {(): 3}, "at 10, 20 and 30"
    assert at(store, "sum_over_time(g[30s:10s])", 39) == {(): 2 + 3 + 4}
    assert at(store, "sum_over_time(g[20s:10s] offset 10s)", 30) == {(): 2 + 3}
    assert at(store, f"sum_over_time(g[20s:10s] @ {ZERO / 1000 + 20})", 99) == {(): 2 + 3}


def test_the_default_step_of_a_subquery_is_a_minute() -> None:
    store = store_of([gauge({0: 1, 50: 2, 110: 3})])
    assert at(store, "sum_over_time(g[2m:])", 130) == {(): 2 + 3}, "at 60 and 120"


def test_a_subquery_in_a_subquery_and_what_start_and_end_are_in_it() -> None:
    store = store_of([gauge({0: 1, 10: 2, 20: 3, 30: 4})])
    assert at(store, "max_over_time(sum_over_time(g[20s:10s])[30s:10s])", 30) == {(): 3 + 4}
    steps = [ZERO + 10 * SECOND, ZERO + 30 * SECOND]
    found = run("sum_over_time((g @ start())[20s:10s])", steps, store)
    assert found.values.tolist() == [[4.0, 4.0]], "twice 2 at both steps: the start is that of the whole query"
    found = run("sum_over_time((g @ end())[20s:10s])", steps, store)
    assert found.values.tolist() == [[8.0, 8.0]]


def test_a_subquery_without_a_step_in_it_has_no_series() -> None:
    store = store_of([gauge({0: 1})])
    assert at(store, "sum_over_time(g[5s:1h])", 30) == {}


def test_subqueries_are_bounded() -> None:
    store = store_of([gauge({0: 1})])
    with pytest.raises(QueryLimit, match="a subquery of"):
        at(store, f"sum_over_time(g[{evaluate.SUBQUERY_STEPS_MAX + 1}s:1s])", 30)
    assert at(store, f"count_over_time(g[{evaluate.SUBQUERY_STEPS_MAX - 1}s:1s])", 30) == {(): 31}
    with pytest.raises(QueryLimit, match="3153600000000 steps"):  # refused before anything is made of so many
        at(store, "sum_over_time(g[100y:1ms])", 30)


@pytest.mark.parametrize(
    "query", ["sum_over_time(time()[5m:])", "sum_over_time(g[5m][5m:])", 'label_join(g[5m:], "a", "")']
)
def test_subqueries_of_other_types_are_refused(query: str) -> None:
    with pytest.raises(InvalidQuery):
        run(query, [ZERO], store_of([]))


# --- matching -----------------------------------------------------------------------------------------------------


def test_many_to_one_takes_labels_of_the_one() -> None:
    store = store_of([gauge({0: 6}, a="x", n="1"), gauge({0: 8}, a="x", n="2"), gauge({0: 2}, a="x", of="k", n="3")])
    left, right = 'g{of=""}', 'g{of!=""}'
    assert at(store, f"{left} / on (a) group_left (of) {right}", 0) == {
        (("a", "x"), ("n", "1"), ("of", "k")): 3,
        (("a", "x"), ("n", "2"), ("of", "k")): 4,
    }
    assert at(store, f"{right} / on (a) group_right {left}", 0) == {
        (("a", "x"), ("n", "1")): 2 / 6,
        (("a", "x"), ("n", "2")): 2 / 8,
    }


def test_a_comparison_keeps_the_left_sides_value_whoever_is_many() -> None:
    store = store_of([gauge({0: 6}, a="x", n="1"), gauge({0: 1}, a="x", n="2"), gauge({0: 2}, a="x", of="k")])
    assert at(store, 'g{of!=""} < on (a) group_right g{of=""}', 0) == {(("__name__", "g"), ("a", "x"), ("n", "1")): 2}
    assert at(store, 'g{of=""} > on (a) group_left g{of!=""}', 0) == {(("__name__", "g"), ("a", "x"), ("n", "1")): 6}
    assert at(store, 'g{of=""} > bool on (a) group_left g{of!=""}', 0) == {
        (("a", "x"), ("n", "1")): 1,
        (("a", "x"), ("n", "2")): 0,
    }


def test_a_negation_of_series_that_differ_in_their_names_is_ambiguous() -> None:
    store = store_of([gauge({0: 1}, a="x"), Made("h", {"a": "x"}, [(ZERO, 2.0)], counter=False)])
    assert at(store, "-g", 0) == {(("a", "x"),): -1}
    with pytest.raises(QueryLimit, match="same labelset"):
        at(store, '-{__name__=~"g|h"}', 0)


def test_an_included_label_that_the_one_lacks_is_taken_away() -> None:
    store = store_of([gauge({0: 6}, a="x", of="many"), gauge({0: 2}, a="x", n="3")])
    assert at(store, 'g{n=""} + on (a) group_left (of) g{n!=""}', 0) == {(("a", "x"),): 8}


def test_ambiguous_matches_are_errors() -> None:
    store = store_of([gauge({0: 6}, a="x", n="1"), gauge({0: 8}, a="x", n="2"), gauge({0: 2}, a="x", of="k")])
    with pytest.raises(QueryLimit, match="duplicate series for the match group on the right hand-side"):
        at(store, 'g{of!=""} / on (a) group_left g{of=""}', 0)
    with pytest.raises(QueryLimit, match="duplicate series for the match group on the left hand-side"):
        at(store, 'g{of=""} / on (a) group_right g{of!=""}', 0)
    with pytest.raises(QueryLimit, match="grouping labels must ensure unique matches"):
        at(store, 'g{of=""} / on (a) group_left (n) g{of!=""}', 0)


# --- labels -------------------------------------------------------------------------------------------------------


def test_labels_are_replaced_only_where_all_of_the_text_matches() -> None:
    store = store_of([gauge({0: 1}, a="x1"), gauge({0: 2}, a="yx1y")])
    assert at(store, 'label_replace(g, "b", "$1", "a", "x(.)")', 0) == {
        (("__name__", "g"), ("a", "x1"), ("b", "1")): 1,
        (("__name__", "g"), ("a", "yx1y")): 2,
    }


def test_labels_that_become_equal_are_an_error() -> None:
    store = store_of([gauge({0: 1}, a="1"), gauge({0: 2}, a="2")])
    with pytest.raises(QueryLimit, match="same labelset"):
        at(store, 'label_replace(g, "a", "", "a", ".*")', 0)


def test_mistakes_in_functions_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of([gauge({0: 1}, a="1" * 30)])
    with pytest.raises(InvalidQuery, match="regular expression"):
        at(store, 'label_replace(g, "b", "", "a", "(")', 0)
    for query in ('label_replace(g, "", "", "a", ".*")', 'label_join(g, "", "", "a")'):
        with pytest.raises(InvalidQuery, match="destination label name"):
            at(store, query, 0)
    with pytest.raises(InvalidQuery, match="label name"):
        at(store, 'count_values("", g)', 0)
    monkeypatch.setattr(relabel, "LABEL_BYTES_MAX", 100)
    for query in ('label_replace(g, "b", "$1$1$1$1", "a", "(.*)")', 'label_join(g, "b", "", "a", "a", "a", "a")'):
        with pytest.raises(InvalidQuery, match="longer than 100 bytes"):
            at(store, query, 0)


def test_sorting_by_labels_knows_numbers() -> None:
    store = store_of([gauge({0: 1}, a=text) for text in ("disk10", "disk9", "a", "disk9b")])
    found = run('sort_by_label(g, "a")', [ZERO], store)
    assert [dict(labels)["a"] for labels in found.labels] == ["a", "disk9", "disk9b", "disk10"]
    odd = store_of([gauge({0: 1}, a=text) for text in ("²", "٣", "3")])
    assert len(run('sort_by_label(odd or g, "a")', [ZERO], odd).labels) == 3, (
        "digits that int() reads otherwise, or not"
    )
    found = run('sort_by_label_desc(g, "nothing", "a")', [ZERO], store)
    assert [dict(labels)["a"] for labels in found.labels] == ["disk10", "disk9b", "disk9", "a"]


# --- aggregations -------------------------------------------------------------------------------------------------


def test_limitk_takes_the_same_series_every_time() -> None:
    store = store_of([gauge({0: number}, a="xy"[number % 2], n=str(number)) for number in range(6)])
    assert sorted(at(store, "limitk(2, g)", 0).values()) == [0, 2]
    assert sorted(at(store, "limitk by (a) (1, g)", 0).values()) == [0, 1]
    assert at(store, "limitk(0, g)", 0) == {}
    with pytest.raises(InvalidQuery, match="must be a number"):
        at(store, "limitk(NaN, g)", 0)


def test_limit_ratio_takes_a_share_and_its_complement_the_rest() -> None:
    store = store_of([gauge({0: number}, n=str(number)) for number in range(200)])
    everything = at(store, "g", 0)
    for ratio in (0.0, 0.1, 0.5, 0.9, 1.0):
        some, rest = at(store, f"limit_ratio({ratio}, g)", 0), at(store, f"limit_ratio({ratio - 1}, g)", 0)
        if ratio < 1:
            assert some | rest == everything
            assert not some.keys() & rest.keys()
        assert abs(len(some) - 200 * ratio) < 30
    with pytest.raises(InvalidQuery, match="must be a number"):
        at(store, "limit_ratio(NaN, g)", 0)


def test_count_values_writes_numbers_without_exponents(monkeypatch: pytest.MonkeyPatch) -> None:
    values = (1.0, 1.0, 0.5, 1e21, 1e-7, math.inf, math.nan, math.nan)
    store = store_of([gauge({0: value}, n=str(number)) for number, value in enumerate(values)])
    assert at(store, 'count_values("v", g)', 0) == {
        (("v", "1"),): 2,
        (("v", "0.5"),): 1,
        (("v", "1000000000000000000000"),): 1,
        (("v", "0.0000001"),): 1,
        (("v", "+Inf"),): 1,
        (("v", "NaN"),): 2,
    }
    monkeypatch.setattr(aggregation, "SERIES_MAX", 5)
    with pytest.raises(QueryLimit, match="more than 5 values"):
        at(store, 'count_values("v", g)', 0)


# --- functions ----------------------------------------------------------------------------------------------------


def test_functions_that_came_later() -> None:
    store = store_of([gauge({0: 1, 10: 5, 20: 2, 30: 9})])
    assert at(store, "first_over_time(g[25s])", 30) == {(("__name__", "g"),): 5}
    assert at(store, "mad_over_time(g[1m])", 30) == {(): 2}, "of 1 2 5 9 the median is 3.5, deviations 2.5 1.5 1.5 5.5"
    # Levels: 1; 0.5 * 5 + 0.5 * (1 + 4) = 5; trend 0.5 * 4 + 0.5 * 4; 0.5 * 2 + 0.5 * (5 + 4) = 5.5
    assert at(store, "double_exponential_smoothing(g[25s], 0.5, 0.5)", 20) == {(): 5.5}


@pytest.mark.parametrize(
    "query", ["holt_winters(g[1m], 0, 0.5)", "holt_winters(g[1m], 0.5, 1)", "holt_winters(g[1m], NaN, 0.5)"]
)
def test_smoothing_factors_have_bounds(query: str) -> None:
    with pytest.raises(InvalidQuery, match="factor. Expected"):
        at(store_of([gauge({0: 1})]), query, 0)


def test_a_line_through_equal_values_is_flat() -> None:
    store = store_of([gauge({0: 0.1, 10: 0.1, 20: 0.1})])
    assert at(store, "deriv(g[1m])", 30) == {(): 0}
    assert at(store, "predict_linear(g[1m], 1e9)", 30) == {(): 0.1}
    assert at(store_of([gauge({0: 0.1})]), "deriv(g[1m])", 30) == {}, "one sample is no line"
    assert math.isnan(at(store_of([gauge({0: math.inf, 9: math.inf})]), "deriv(g[1m])", 30)[()])


def test_a_prediction_begins_at_the_querys_time_whatever_the_offset() -> None:
    store = store_of([gauge({0: 0, 10: 10, 20: 20})])
    assert at(store, "predict_linear(g[1m], 5)", 30) == {(): pytest.approx(35)}
    assert at(store, "predict_linear(g[1m] offset 10s, 5)", 30) == {(): pytest.approx(35)}


def test_dates_that_are_none_are_no_number() -> None:
    values = np.array([math.nan, math.inf, 1e300, -1.5, 951_782_400])
    assert part("year", values).tolist()[3:] == [1969, 2000]
    assert part("minute", values).tolist()[3:] == [59, 0]
    assert np.isnan(part("minute", values)[:3]).all()
    assert part("day_of_month", values)[4] == 29
    assert part("days_in_month", values)[4] == 29
    assert part("day_of_year", values)[4] == 60


def test_what_share_of_a_histogram_lies_between() -> None:
    store = metrics_store(
        request_with(
            "histogram", time_unix_nano=10**10, count=8, sum=9, bucket_counts=[2, 4, 2], explicit_bounds=[1, 3]
        )
    )
    for lower, upper, share in (
        ("0", "1", 2 / 8),
        ("0.5", "2", (1 + 2) / 8),
        ("-Inf", "+Inf", 1.0),
        ("3", "+Inf", 2 / 8),
        ("3", "9", 0.0),
        ("2", "1", 0.0),
    ):
        [found] = ask(store, f"histogram_fraction({lower}, {upper}, m_bucket)").values()
        assert found == pytest.approx(share), (lower, upper)
    [found] = ask(store, "histogram_fraction(NaN, 1, m_bucket)").values()
    assert math.isnan(found)
