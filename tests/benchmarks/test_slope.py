"""A line through a series: what rises for certain and by much is a leak, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.slope import PARTS_MIN, fit, second_half

MIB = 2**20
SECONDS = [5.0 * turn for turn in range(120)]
GROWTH_MAX = 3 * MIB


def noise(size: int = len(SECONDS)) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A series that goes up and down by a MiB, neighbours alike, and stays where it is."""
    steps = np.random.default_rng(7).normal(0, MIB, size + 9)
    return 100 * MIB + np.convolve(steps, np.ones(10) / 10, "valid")


def test_what_stays_does_not_leak() -> None:
    slope = second_half(SECONDS, noise().tolist())
    assert not slope.leaks(GROWTH_MAX)
    assert slope.low < slope.an_hour < slope.high


def test_what_rises_leaks() -> None:
    """The canary: 10 MiB in five minutes, under the same noise, must be seen."""
    leaking = noise() + np.array(SECONDS) / 300 * 10 * MIB
    slope = second_half(SECONDS, leaking.tolist())
    assert slope.leaks(GROWTH_MAX)
    assert slope.added == pytest.approx(10 * MIB, rel=0.2)
    assert slope.an_hour == pytest.approx(120 * MIB, rel=0.2)


def test_a_leak_of_one_file_a_minute_is_seen() -> None:
    files = [40 + second // 60 for second in SECONDS]
    assert second_half(SECONDS, files).leaks(2.0)


def test_what_falls_or_rises_by_little_does_not_leak() -> None:
    falling = noise() - np.array(SECONDS) / 300 * 10 * MIB
    little = noise() + np.array(SECONDS) / 300 * MIB
    assert not second_half(SECONDS, falling.tolist()).leaks(GROWTH_MAX)
    assert not second_half(SECONDS, little.tolist()).leaks(GROWTH_MAX)


def test_the_first_half_does_not_count() -> None:
    filling = np.minimum(np.array(SECONDS), 200.0) * MIB
    assert second_half(SECONDS, filling.tolist()).added == pytest.approx(0.0, abs=1e-3)


def test_the_interval_has_the_slope_as_often_as_it_says() -> None:
    chance = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        slope = fit(SECONDS, (chance.normal(0, 1, 120) + np.array(SECONDS) / 3600 * 2).tolist())
        hits += slope.low <= 2 <= slope.high
    assert hits / 400 == pytest.approx(0.95, abs=0.04)


def test_too_short_a_series_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        fit(SECONDS[: 2 * PARTS_MIN - 1], SECONDS[: 2 * PARTS_MIN - 1])
