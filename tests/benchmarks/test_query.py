"""The benchmark of queries runs in its shortest form, and leaves its tables and verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from collector.otlp.records import record
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, TRACES
from tests.benchmarks.answers import Found
from tests.benchmarks.asking import Times
from tests.benchmarks.query import PARTS, SHORT, judge, measure, report
from tests.benchmarks.questions import TABLES
from tests.benchmarks.shop import RARE, Shop

TINY = dataclasses.replace(
    SHORT,
    records=10_240,
    log_records=10_240,
    seconds=0.0,
    least=4,
    most=4,
    cold=1,
    found=5,
    busy_s=0.0,
    rounds=1,
    requests=4,
)


@pytest.mark.parametrize(("name", "parts"), [("traces", ("ring", "log")), ("logs", PARTS)])
def test_it_measures_and_judges(name: str, parts: Sequence[str], tmp_path: Path) -> None:
    measured = measure(TINY, tmp_path / "scratch", [name], parts)
    text, judged = report(measured, TINY, tmp_path)
    (found,) = measured
    answered = [row for row in found.rows if not row.refused]
    assert len(answered) > len(found.rows) / 2
    for row in answered:
        assert None not in (row.first, row.ring, row.cold, row.log), row.question.what
        assert (row.busy is None) == ("busy" not in parts)
        assert f"| {row.question.what} |" in text
    assert {one.what for one in judged if one.met is False and "did not have the record" in one.what} == set()
    assert any("memory of a million" in one.what for one in judged)
    assert set(found.rates) == ({"nobody", "10 a second", "without a pause"} if "busy" in parts else set())
    assert list((tmp_path / "scratch").iterdir()) == [], "nothing is left on the disk"


def test_what_misses_a_goal_is_told() -> None:
    """The canary: an answer without an acknowledged record, too much memory, and records received too slowly."""
    for met in (True, False):
        found = Found(TABLES[0], [])
        found.total, found.resident = 1, TINY.records * (100 if met else 1000)
        found.until_found, found.missed = Times(0.5, 1, 9), 0 if met else 1
        found.rates = {"nobody": [100.0], "10 a second": [99.0 if met else 10.0]}
        assert [one.met for one in judge(found, TINY)] == [met, met, met]


def test_the_shops_spans_are_trees_with_rare_and_common_values() -> None:
    request = next(islice(Shop(TRACES, 64).requests(), 40, None))
    block = scan(TRACES, request.payload, 0)
    spans = [record(block, row) for row in range(block.count)]
    by_trace: dict[bytes, list[object]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    assert {request.trace_ids[at : at + 16] for at in range(0, len(request.trace_ids), 16)} == set(by_trace)
    for members in by_trace.values():
        ids = {one.span_id for one in members}  # type: ignore[attr-defined]
        roots = [one for one in members if not one.parent_span_id]  # type: ignore[attr-defined]
        assert (len(members), len(ids), len(roots)) == (8, 8, 1)
        assert {one.parent_span_id for one in members} - {b""} <= ids  # type: ignore[attr-defined]
    customers = RARE.findall(request.payload)
    assert len(customers) == len(by_trace)
    assert len(set(customers)) > 1


def test_the_shops_lines_have_words_that_few_have() -> None:
    first, second = islice(Shop(LOGS, 64).requests(), 2)
    kinds = [kind for kind, _ in RARE.findall(first.payload)]
    assert (kinds.count(b"ticket"), kinds.count(b"customer")) == (8, 8)
    assert set(RARE.findall(first.payload)) != set(RARE.findall(second.payload))
