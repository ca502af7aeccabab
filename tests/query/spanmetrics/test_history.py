"""The history against a list of everything that was ever counted, with budgets small enough to forget most of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.clock import SystemClock
from collector.errors import QueryLimit
from collector.query.deadline import Deadline
from collector.query.promql.ast import Matcher
from collector.query.spanmetrics import generator, series
from collector.query.spanmetrics.generator import Generator
from tests.query.spanmetrics.test_tally import Stopped, of_spans

CALLS = (Matcher("__name__", "=", "traces_spanmetrics_calls_total"),)
STEP_MS = 15_000


def deadline() -> Deadline:
    return Deadline(60.0, SystemClock())


def selected(made: Generator, start: int, end: int, *matchers: Matcher) -> dict[str, list[tuple[int, float]]]:
    """Samples by span name, without the name's label when it was folded."""
    found = made.series().select(deadline(), [*CALLS, *matchers], start, end)
    return {
        dict(one.labels).get("span_name", "?"): list(zip(one.times.tolist(), one.values.tolist(), strict=True))
        for one in found
    }


@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=4), min_size=1, max_size=20),
    st.integers(1, 20_000),
    st.sampled_from([2 * STEP_MS, 5 * STEP_MS, 10**9]),
    st.data(),
)
def test_values_at_every_tick(intervals: list[list[str]], max_bytes: int, stale_ms: int, data: st.DataObject) -> None:
    clock = Stopped()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "STALE_MS", stale_ms)
        patch.setattr(generator, "CALLS_MAX", 128)  # four names in all their lives
        made = Generator(clock, max_bytes)
    start = now = clock.now // 10**6
    totals: dict[str, int] = {}
    seen: dict[str, int] = {}
    expected: dict[str, list[tuple[int, float]]] = {}
    ticks = [now]
    ends: set[tuple[str, int]] = set()
    for names in intervals:
        for name in names:
            made.add(of_spans({"name": name}))
            if name not in totals:  # it begins at the tick before
                totals[name] = 0
                pieces = expected.setdefault(name, [])
                if not pieces or pieces[-1][0] < now:
                    pieces.append((now, 0.0))
                else:  # it ended at that tick, and begins again
                    pieces[-1] = (now, 0.0)
                    ends.discard((name, now))
            totals[name] += 1
            seen[name] = now + STEP_MS
        now += STEP_MS
        clock.now = now * 10**6
        made.tick()
        made.check()
        ticks.append(now)
        for name, total in list(totals.items()):
            expected[name].append((now, float(total)))
            if seen[name] < now - stale_ms:
                del totals[name]
                ends.add((name, now))
    oldest = made._calls._base_time
    first, last = sorted(data.draw(st.tuples(*[st.sampled_from([0, *ticks])] * 2)))
    wanted = {
        name: kept
        for name, samples in expected.items()
        if (
            kept := [
                sample
                for sample in samples
                if max(oldest - 1, first) < sample[0] <= last and (sample[0] > oldest or (name, oldest) not in ends)
            ]
        )
    }
    assert selected(made, first, last) == wanted
    now += 1
    clock.now = now * 10**6
    alive = {name: [(now, float(total))] for name, total in totals.items()}
    assert selected(made, now - 1, now) == alive, "the moment itself counts"
    assert oldest == start or made._calls._interval_bytes + 1000 > max_bytes // 2


def test_a_clock_that_goes_back_ends_nothing() -> None:
    clock = Stopped()
    made = Generator(clock, 1 << 20)
    made.add(of_spans({}))
    clock.now += 15 * 10**9
    made.tick()
    clock.now -= 10 * 10**9
    made.add(of_spans({}))
    made.tick()
    made.check()
    assert [value for _, value in selected(made, 0, 2**62)["n"]] == [0, 1, 2]


def test_matching_is_by_labels() -> None:
    clock = Stopped()
    made = Generator(clock, 1 << 20)
    made.add(of_spans({"name": "a", "kind": 2}, {"name": "b", "kind": 3, "span_id": b"12345678"}))
    clock.now += 10**9
    assert set(selected(made, 0, 2**62, Matcher("span_kind", "=~", ".*SERVER"))) == {"a"}
    assert set(selected(made, 0, 2**62, Matcher("service", "!=", "a"))) == set()
    latency = [Matcher("__name__", "=~", "traces_spanmetrics_latency_.*"), Matcher("span_name", "=", "b")]
    names = [dict(one.labels) for one in made.series().select(deadline(), latency, 0, 2**62)]
    assert [one.get("le") for one in names if "le" in one][:3] == ["0.002", "0.004", "0.008"]
    assert len(names) == 17


def test_samples_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Generator(Stopped(), 1 << 20)
    made.add(of_spans({}))
    monkeypatch.setattr(series, "SAMPLES_MAX", 1)
    with pytest.raises(QueryLimit, match="more than 1 samples"):
        made.series().select(deadline(), CALLS, 0, 2**62)
    monkeypatch.setattr(series, "SERIES_MAX", 0)
    monkeypatch.setattr(series, "SAMPLES_MAX", 10**6)
    with pytest.raises(QueryLimit, match="more than 0 series"):
        made.series().select(deadline(), CALLS, 0, 2**62)


def test_the_catalogue_knows_what_has_values() -> None:
    clock = Stopped()
    made = Generator(clock, 1 << 20)
    made.add(of_spans({"kind": 2}))
    clock.now += 15 * 10**9
    made.tick()
    now = clock.now // 10**6

    def names(start: int, end: int) -> set[Any]:
        return {name for name, _, _ in made.series().known(start, end)}

    assert names(now, now) == {
        "traces_spanmetrics_calls_total",
        "traces_spanmetrics_latency",
        "traces_service_graph_request_total",
        "traces_service_graph_request_failed_total",
        "traces_service_graph_request_server_seconds",
        "traces_service_graph_request_client_seconds",
    }
    assert names(0, now - 15_001) == set()
    assert names(now + 10, now + 20) == set()
