"""The benchmark of the log runs in its shortest form; requests that are made anew are what they say."""

from __future__ import annotations

import dataclasses
from itertools import islice, pairwise
from pathlib import Path

import pytest

from collector.otlp.scan import scan
from collector.otlp.signals import SIGNALS, Signal
from tests.benchmarks import ack, log
from tests.benchmarks.fresh import STEP_NS, Source
from tests.benchmarks.goals import Verdict, number
from tests.benchmarks.log import SHORT, measure

TINY = dataclasses.replace(
    SHORT, passes=1, frames=10, lookups=20, spans=(10_000, 200_000), signal_records=40_000, rounds=1, seconds=1.5
)


def test_it_measures_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ack, "BACKLOG_BYTES", 20_000_000)
    monkeypatch.setattr(ack, "SEGMENT", "wal.segment_bytes=1MiB")
    monkeypatch.setattr(log, "SHARE_SEGMENT", 2 * 2**20)
    text, found = measure(TINY, tmp_path)
    judged = {one.what: one for one in found if one.met is not None}
    assert len(judged) == 16
    assert all(one.met for what, one in judged.items() if what.startswith("compacted ")), "sizes are no matter of speed"
    assert "| spans in the log |" in text
    assert "MB of segments were compacted meanwhile" in text
    assert list(tmp_path.iterdir()) == [], "nothing is left on the disk"


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
def test_requests_made_anew_have_ids_and_times_of_their_own(signal: Signal) -> None:
    seen: set[bytes] = set()
    requests = list(islice(Source(signal, 40, templates=3).requests(), 7))
    for request in requests:
        block = scan(signal, request.payload, 0)
        assert (block.count, block.min_time, block.max_time) == (request.records, request.min_time, request.max_time)
        if "trace_id" in signal.indexes:
            ids = {one.tobytes() for one in block.column("trace_id")}
            assert ids == {request.trace_ids[at : at + 16] for at in range(0, len(request.trace_ids), 16)}
            assert not ids & seen
            seen |= ids
    times = [request.max_time for request in requests]
    assert [later - earlier for earlier, later in pairwise(times)] == [STEP_NS] * 6


def test_a_verdict_says_what_it_is_about() -> None:
    assert Verdict.at_most("x", 40.0, 50, "µs").word == "met"
    assert Verdict.at_most("x", 70.0, 50, "µs").word == "**missed**"
    assert Verdict.at_most("x", 70.0, None, "µs", "p99 80").measured == "70.0 µs (p99 80)"
    assert [number(value) for value in (1234.5, 123.4, 12.34, 1.234, 0.1234, 0)] == [
        "1,234", "123", "12.3", "1.23", "0.123", "0",
    ]  # fmt: skip
