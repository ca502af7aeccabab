"""The soak runs for a few seconds, leaves its samples and a picture, and sees a leak."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import soak
from tests.benchmarks.plot import PANELS, draw
from tests.benchmarks.soak import Look, judge

FACTS = {"records": 1e6, "miscounted": 0, "turnovers": 30, "compactions": 9, "rolls": 99, "queries": 9, "failures": 0}
STEADY = [
    Look(5.0 * turn, 10**8 + turn % 3 * 10**5, 40 + turn % 2, 12, 10**5, 2.0 + turn % 4 / 50, 5.0, 10**7, 10**7, 30, 0)
    for turn in range(1, 121)
]


def missed(looks: list[Look], **facts: float) -> list[str]:
    return [one.what for one in judge(looks, FACTS | facts) if one.met is False]


def test_what_is_steady_passes() -> None:
    assert missed(STEADY) == []


@pytest.mark.parametrize(
    ("field", "a_turn", "what"),
    [
        ("resident_bytes", 10**5, "resident memory"),
        ("open_files", 0.1, "open files"),
        ("threads", 0.05, "threads"),
        ("cpu_us_per_record", 0.01, "CPU time of a record"),
    ],
)
def test_each_leak_is_seen(field: str, a_turn: float, what: str) -> None:
    """Canaries: a series that rises is called by its name, and no other is."""
    leaking = [replace(one, **{field: getattr(one, field) + a_turn * turn}) for turn, one in enumerate(STEADY)]
    assert missed(leaking) == [f"{what}, growth in the second half"]


def test_what_is_lost_or_too_large_is_seen() -> None:
    assert missed(STEADY, miscounted=1) == ["acknowledged records that the logs have not counted"]
    assert missed(STEADY, failures=1) == ["requests and queries that failed"]
    large = [*STEADY[:-1], replace(STEADY[-1], log_bytes_max=soak.RETENTION_BYTES + soak.SEGMENT_BYTES + 1)]
    assert missed(large) == ["the largest log"]


def test_a_long_run_is_judged_as_r11_asks() -> None:
    long = [replace(one, seconds=one.seconds * 60, resident_bytes=one.resident_bytes + turn * 10**5 // 4)
            for turn, one in enumerate(STEADY)]  # fmt: skip
    assert "slope of resident memory, 95 % interval" in missed(long, rolls=10**5)
    assert missed([replace(one, seconds=one.seconds * 60) for one in STEADY], rolls=10**5) == []


def test_a_few_seconds_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SAMPLE_S", 0.35)
    _, found = soak.soak(0.1, tmp_path)
    with (tmp_path / "soak.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert all(float(row["resident_bytes"]) > 0 < float(row["open_files"]) for row in rows)
    judged = {one.what: one for one in found}
    assert judged["requests and queries that failed"].met
    assert judged["acknowledged records that the logs have not counted"].met
    assert "growth in the second half" in found[0].what


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    samples = [{"seconds": 60.0 * turn} | {column: float(turn) for column, _, _ in PANELS} for turn in range(9)]
    assert draw(samples, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
