"""Patterns: what lines have in common, and that a pattern finds its lines again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.query.logql import mining
from collector.query.logql.mining import CLUSTERS_MAX, PIECES_MAX, WILDCARD, Miner
from collector.query.logql.patterns import filter_pattern

WORDS = st.sampled_from(["GET", "POST", "user", "took", "ann", "bob", "7", "10.0.0.1", "a1", "é", "<b>", '"x"'])
LINES = st.lists(WORDS, min_size=1, max_size=6).flatmap(
    lambda words: st.sampled_from([" ", "=", ", ", "  "]).map(lambda between: between.join(words))
)


def mined(lines: list[str]) -> Miner:
    miner = Miner()
    for line in lines:
        miner.add(line, "info", 0)
    return miner


@given(st.lists(LINES, max_size=30))
def test_every_line_is_in_one_pattern_that_finds_it(lines: list[str]) -> None:
    miner = mined(lines)
    patterns = miner.patterns()
    assert sum(one.lines for one in patterns) == len(lines)
    for line in lines:
        assert any(matches(one.text, line) for one in patterns), line
    for cluster in miner._clusters.values():
        assert all(matches(cluster.text(lambda: None), line) for line in cluster.lines)


def matches(pattern: str, line: str) -> bool:
    """Whether a pattern finds a line."""
    return filter_pattern(pattern).fits(line.encode())


@pytest.mark.parametrize(
    ("lines", "patterns"),
    [
        (["order 1 placed", "order 22 placed"], ["order <_> placed"]),
        (["order 1 placed", "order 1 placed"], ["order 1 placed"]),
        (["GET /a 200", "POST /b 500"], ["GET /a 200", "POST /b 500"]),
        (["user=ann ok=yes", "user=bob ok=yes"], ["user=<_> ok=yes"]),
        (["took 5 ms now", "took 5  ms now"], ["took 5<_>ms now"]),
        (["a <b> c", "a <d> c"], ["a <_>> c"]),
        (["", ""], [""]),
        # The filter would find these literals before their places.
        (["a1 7", "7  7"], ["<_>"]),
        (["GET a1 7", "GET 7  7"], ["GET <_>"]),
        (["GET a1 7 x", "GET 7  7 x"], ["GET <_>7 x"]),
        (["x" * 5000], ["x" * 3000 + "<_>"]),
    ],
)
def test_patterns(lines: list[str], patterns: list[str]) -> None:
    assert [one.text for one in mined(lines).patterns()] == patterns


def test_long_lines_end_in_a_wildcard() -> None:
    [one] = mined([" ".join(["word"] * 500)]).patterns()
    assert one.text.endswith(WILDCARD)
    assert one.text.count("word") == (PIECES_MAX - 1 + 1) // 2


def test_clusters_are_bounded_and_what_goes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "KNOWN_MAX", 50)
    letters = "abcdefghijklmnopqrstuvwxyz"
    lines = [f"{one}{two} is here" for one in letters for two in letters]
    miner = mined(lines)
    assert len(miner.patterns()) == CLUSTERS_MAX
    assert miner.left_out == len(lines) - CLUSTERS_MAX
    assert len(miner._keys) == CLUSTERS_MAX
    assert sum(map(len, miner._groups.values())) == CLUSTERS_MAX
