"""Functions over ranges against Python's own, window by window, with samples that are no numbers among them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import QueryTimeout
from collector.query.promql import ranges
from collector.query.promql.ranges import FUNCTIONS, Window

NUMBERS = st.sampled_from([0.0, 1.0, -2.5, 3.0, 1e9, math.nan, math.inf, -math.inf])


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def numbers(values: list[float]) -> list[float]:
    return [one for one in values if not math.isnan(one)] or [math.nan]


NAIVE: dict[str, Callable[[list[float]], float]] = {
    "avg_over_time": lambda values: math.nan if math.isnan(total(values)) else total(values) / len(values),
    "sum_over_time": lambda values: total(values),
    "min_over_time": lambda values: min(numbers(values)),
    "max_over_time": lambda values: max(numbers(values)),
    "count_over_time": len,
    "first_over_time": lambda values: values[0],
    "last_over_time": lambda values: values[-1],
    "present_over_time": lambda values: 1,
    "changes": lambda values: sum(not same(a, b) for a, b in pairwise(values)),
    "resets": lambda values: sum(b < a for a, b in pairwise(values)),
}


def total(values: list[float]) -> float:
    if any(math.isnan(one) for one in values) or {math.inf, -math.inf} <= set(values):
        return math.nan
    return sum(values)


@given(
    st.lists(st.tuples(st.integers(0, 60), NUMBERS), max_size=30, unique_by=lambda one: one[0]),
    st.integers(1, 70),
    st.lists(st.integers(-5, 90), min_size=1, max_size=8, unique=True),
    st.sampled_from([1, 65, 130, 1 << 20]),
)
def test_each_window_is_what_python_makes_of_it(
    samples: list[tuple[int, float]], range_ms: int, steps: list[int], at_once: int
) -> None:
    samples.sort()
    times, values = np.array([at for at, _ in samples], np.int64), np.array([one for _, one in samples], np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "SAMPLES_AT_ONCE", at_once)
        window = Window(times, values, np.array(sorted(steps), np.int64), range_ms)
        found = {name: FUNCTIONS[name](window) for name in NAIVE}
    for number, step in enumerate(sorted(steps)):
        inside = [one for at, one in samples if step - range_ms < at <= step]
        for name, (result, present) in found.items():
            assert present[number] == bool(inside), name
            if inside:
                assert result[number] == pytest.approx(NAIVE[name](inside), nan_ok=True), (name, inside)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_spread_and_quantiles(values: list[float]) -> None:
    window = Window(np.arange(len(values), dtype=np.int64), np.array(values), np.array([100], np.int64), 1000)
    close = {"rel": 1e-6, "abs": 1e-3}
    assert FUNCTIONS["stddev_over_time"](window)[0][0] == pytest.approx(statistics.pstdev(values), **close)
    assert FUNCTIONS["stdvar_over_time"](window)[0][0] == pytest.approx(statistics.pvariance(values), **close)
    middle = statistics.median(values)
    deviation = statistics.median([abs(one - middle) for one in values])
    assert FUNCTIONS["mad_over_time"](window)[0][0] == pytest.approx(deviation, **close)


def test_a_line_is_exact_however_far_away_it_is_followed() -> None:
    """A month: sums of squares of such times have no digits left for what lies 15 s apart."""
    times = np.arange(40, dtype=np.int64) * 15_013
    values = np.array([(number * 7919 % 100) / 7 for number in range(40)])
    now = 30 * 86_400_000 + 77
    window = Window(times, values, np.array([600_000], np.int64), 900_000)
    found, _ = ranges.predict_linear(window, np.array([now], np.int64), np.array([5.0]))
    seconds, exact = [Fraction(int(at) - now, 1000) for at in times], [Fraction(one) for one in values.tolist()]
    middle, mean = sum(seconds) / 40, sum(exact) / 40
    both = sum((x - middle) * (y - mean) for x, y in zip(seconds, exact, strict=True))
    slope = both / sum((x - middle) ** 2 for x in seconds)
    assert found[0] == pytest.approx(float(mean + slope * (5 - middle)), rel=1e-10)


@pytest.mark.parametrize("name", [*FUNCTIONS, "smoothed", "predict_linear", "quantile_over_time"])
def test_long_work_ends_when_the_time_is_over(name: str) -> None:
    """Of every function that does not answer at once: windows overlap, so a series of a thousand samples has a million."""

    def over() -> None:
        raise QueryTimeout("over")

    times = np.arange(2000, dtype=np.int64)
    window = Window(times, np.ones(2000), times, 2000, over)
    more = {"smoothed": 2, "predict_linear": 2, "quantile_over_time": 1}.get(name, 0)
    arguments = [times if name == "predict_linear" and not number else np.full(2000, 0.5) for number in range(more)]
    at_once = ("rate", "increase", "delta", "irate", "idelta", "changes", "resets")
    at_once += ("count_over_time", "first_over_time", "last_over_time", "present_over_time")
    function = (
        getattr(ranges, name, None) if name in ("smoothed", "predict_linear", "quantile_over_time") else FUNCTIONS[name]
    )
    assert function is not None
    if name in at_once:
        assert function(window)[1].any()
    else:
        with pytest.raises(QueryTimeout):
            function(window, *arguments)
