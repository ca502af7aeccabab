"""Sparklines, short numbers, and the times of the command line: what there is of it without I/O."""

from __future__ import annotations

import math

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.cli.sparkline import ASCII, UNICODE, Scale, cells, scale, short, sparkline
from collector.cli.times import milliseconds, seconds


def test_a_sign_is_as_high_as_its_value() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], Scale(0, 7), UNICODE) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], Scale(0, 7), ASCII) == ".:-=+*#@"
    assert sparkline([-10, -1, math.nan, 10], Scale(-10, 10), UNICODE) == "▁▄ █", "of the eight, -1 is in the fourth"
    assert sparkline([5, math.inf, -math.inf], Scale(0, 40), UNICODE) == "▂█▁"
    assert sparkline([3, math.nan, 3], Scale(3, 3), UNICODE) == "▄ ▄", "neither low nor high"
    assert sparkline([5e-324, 0], Scale(0, 5e-324), UNICODE) == "▄▄", "no room between them"


def test_the_scale_is_of_what_is_finite() -> None:
    assert scale([3, math.nan, -2, math.inf, -math.inf]) == (-2, 3)
    assert scale([math.nan, math.inf]) == scale([]) == (0, 0)


@given(st.lists(st.floats(), min_size=1, max_size=50))
def test_every_number_has_a_sign_and_none_but_nan_is_a_gap(values: list[float]) -> None:
    drawn = sparkline(values, scale(values), UNICODE)
    assert [sign == " " for sign in drawn] == [math.isnan(value) for value in values]
    assert set(drawn) <= {" ", *UNICODE}
    ordered = [sign for _, sign in sorted((v, s) for v, s in zip(values, drawn, strict=True) if not math.isnan(v))]
    assert ordered == sorted(ordered), "higher values are no lower"


def test_a_cell_shows_the_highest_of_its_places() -> None:
    points = [(0, 1.0), (1, 3.0), (2, 2.0), (3, math.nan), (6, -1.0)]
    assert str(cells(points, 4, 2)) == str([3.0, 2.0, math.nan, -1.0])
    assert str(cells(points, 7, 1)) == str([1.0, 3.0, 2.0, math.nan, math.nan, math.nan, -1.0])
    for place in (-1, 8):
        with pytest.raises(IndexError):
            cells([(place, 1.0)], 4, 2)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (-3, "-3"),
        (1234, "1234"),
        (9999, "9999"),
        (9999.6, "10k"),
        (12346, "12.35k"),
        (-1e6, "-1M"),
        (999_960, "1M"),
        (2.5e9, "2.5G"),
        (123.4e12, "123.4T"),
        (1e15, "1e+15"),
        (1.7976931348623157e308, "1.798e+308"),
        (0.012345678, "0.01235"),
        (1.5e-7, "1.5e-07"),
        (1 / 3, "0.3333"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_in_short(value: float, written: str) -> None:
    assert short(value) == written


@given(st.floats(-1e308, 1e308))
def test_short_numbers_are_short_and_right_to_four_digits(value: float) -> None:
    text = short(value)
    assert len(text) <= 11
    power = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1], 1.0)
    assert float(text.rstrip("kMGT")) * power == pytest.approx(value, rel=6e-4, abs=0)


def test_times_are_read_in_every_form() -> None:
    for text in ("1700000000.25", "1700000000250000000", "2023-11-14T22:13:20.25Z", "2023-11-14T23:13:20.250+01:00"):
        assert milliseconds(text) == 1_700_000_000_250, text
    assert milliseconds("2023-11-14T22:13:20") == milliseconds("1700000000") == 1_700_000_000_000
    assert milliseconds("now-3d") == pytest.approx(milliseconds("now") - 3 * 86_400_000, abs=60_000)
    assert milliseconds("now-99999d") == milliseconds("1960-01-01T00:00:00Z") == 0
    for wrong in ("", "yesterday", "-1", "now+1h", "1e9", "2023-13-01", "٣"):
        with pytest.raises(click.BadParameter, match="is not a time like"):
            milliseconds(wrong)


def test_durations_have_units() -> None:
    assert seconds("1m30s") == 90
    for wrong in ("90", "", "-1m", "1w"):
        with pytest.raises(click.BadParameter, match="is not a duration like 15m"):
            seconds(wrong)
