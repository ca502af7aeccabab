"""The benchmark of growth runs in its shortest form, and leaves its tables and verdicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.benchmarks import growth
from tests.benchmarks.goals import PAGE, Verdict
from tests.benchmarks.growth import SHORT, Growth, flat, measure

TINY = dataclasses.replace(
    SHORT,
    rounds=1,
    records=(64, 512),
    connections=(1, 4),
    rings=(2000, 4000),
    logs=(0, 4_000_000),
    sample=4000,
    requests_max=16,
    settle_s=0.01,
    distinct=1024,
)


def test_it_measures_and_judges(tmp_path: Path) -> None:
    text, found = measure(TINY, tmp_path)
    for head in ("records a request", "connections", "spans in the ring", "log"):
        assert f"| {head} |" in text
    assert "4,000" in text
    assert [one.goal for one in found] == ["at most 1.50 times"] * 2
    assert list(tmp_path.iterdir()) == [], "nothing is left on the disk"


def test_logs_are_as_large_as_the_disk_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SPARE_BYTES", 10**18)
    one = Growth(TINY, tmp_path)
    assert one._sizes_that_fit() == [0, 0]
    assert "has room for logs of 0%" in one.notes[0]


def test_what_grows_is_told() -> None:
    """The canary: a log in which each record costs twice as much is not flat."""

    class Step(growth.Step):
        def __init__(self, cost: float) -> None:
            self.cost = cost

        @property
        def cost_us(self) -> float:
            return self.cost

    def judged(*costs: float) -> Verdict:
        return flat("log", [Step(cost) for cost in costs])

    assert judged(1.0, 1.2, 1.1).met
    assert not judged(1.0, 1.2, 2.0).met
    assert not judged(2.0, 1.0).met


@pytest.mark.parametrize("name", ["growth", "log", "query", "soak"])
def test_the_page_has_a_place_for_each_report(name: str) -> None:
    text = PAGE.read_text()
    assert f"<!-- {name}:begin -->" in text
    assert f"<!-- {name}:end -->" in text
