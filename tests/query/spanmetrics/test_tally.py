"""The compiled tally against the oracle, and what it does when it is full."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.clock import SystemClock
from collector.otlp.scan import scan
from collector.otlp.signals import TRACES
from collector.query.spanmetrics import generator
from collector.query.spanmetrics.generator import Generator
from collector.query.spanmetrics.labelsets import LabelSets
from collector.query.spanmetrics.tally import bucket_of
from tests.query.spanmetrics.oracle import Oracle, bucket, random_request


class Stopped(SystemClock):
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 10**15

    def now_ns(self) -> int:
        return self.now


def counted(made: Generator) -> tuple[Counter[Any], Counter[Any], Counter[Any]]:
    """What a generator has counted, in the oracle's form."""
    calls: Counter[Any] = Counter()
    edges: Counter[Any] = Counter()
    seconds: Counter[Any] = Counter()
    for _, values in made.series().newest():
        for labels, value in values:
            of = dict(labels)
            name = of["__name__"]
            if "calls" in name or "latency" in name:
                kind = [*generator._KINDS].index(of["span_kind"])
                status = [*generator._STATUSES].index(of["status_code"])
                key: Any = (of.get("service", ""), of.get("span_name", ""), kind, status)
            else:
                key = (of["client"], of["server"], of.get("connection_type", ""))
            if name == "traces_spanmetrics_latency_sum":
                seconds[key] += round(value * 10**9)
            elif name.endswith("_bucket") and "latency" in name:
                calls[*key, of["le"]] = int(value)
            elif name == "traces_service_graph_request_total":
                edges[*key, "total"] = int(value)
            elif name == "traces_service_graph_request_failed_total":
                edges[*key, "failed"] = int(value)
            elif name.endswith("seconds_bucket"):
                edges[*key, "server" if "server" in name else "client", of["le"]] = int(value)
            elif name.endswith("seconds_sum"):
                seconds[*key, "server" if "server" in name else "client"] = round(value * 10**9)
            elif "spanmetrics" in name:
                calls[*key, name] = int(value)
            else:
                edges[*key, "server" if "server" in name else "client", "count"] = int(value)
    return calls, edges, seconds


def expected(oracle: Oracle) -> tuple[Counter[Any], Counter[Any], Counter[Any]]:
    """The oracle's counts as running sums by `le`."""
    calls: Counter[Any] = Counter()
    edges: Counter[Any] = Counter()
    bounds = [f"{0.002 * 2**i:.3f}".rstrip("0").rstrip(".") for i in range(14)] + ["+Inf"]
    for *key, place in oracle.calls:
        for at, bound in enumerate(bounds):
            if at >= place:
                calls[*key, bound] += oracle.calls[*key, place]
        calls[*key, "traces_spanmetrics_calls_total"] += oracle.calls[*key, place]
        calls[*key, "traces_spanmetrics_latency_count"] += oracle.calls[*key, place]
    bounds = [f"{0.1 * 2**i:.1f}" for i in range(8)] + ["+Inf"]
    for key, count in oracle.edges.items():
        if len(key) == 4:
            edges[key] = count
            continue
        *who, side, place = key
        for at, bound in enumerate(bounds):
            if at >= place:
                edges[*who, side, bound] += count
        edges[*who, side, "count"] += count
    return calls, edges, oracle.seconds


@given(st.integers(0, 2**32), st.lists(st.integers(0, 30), max_size=6), st.booleans())
def test_counts_and_pairs_are_the_oracles(seed: int, sizes: list[int], ticks: bool) -> None:
    clock, chance, oracle = Stopped(), Random(seed), Oracle()
    made = Generator(clock, 1 << 20)
    for size in sizes:
        request = random_request(chance, size)
        made.add(scan(TRACES, request.SerializeToString(), 0))
        oracle.add(request)
        if ticks and chance.random() < 0.5:
            clock.now += 11 * 10**9
            made.tick()
            oracle.turn()
        made.check()
    found, wanted = counted(made), expected(oracle)
    for one, other in zip(found, wanted, strict=True):
        clean = {key: count for key, count in other.items() if count}
        close = {key: count for key, count in one.items() if count}
        assert close.keys() == clean.keys()
        assert all(abs(close[key] - clean[key]) <= 1 + clean[key] * 1e-9 for key in clean)
    assert made.stats()["expired"] == oracle.expired
    assert made.stats()["folded"] == {"calls": 0, "edges": 0}


@given(st.integers(0, 2**63), st.integers(1, 10**9), st.integers(0, 20))
def test_bucket(took: int, first: int, bounds: int) -> None:
    assert bucket_of(took, first, bounds) == sum(took > first * 2**i for i in range(bounds))


def test_the_oracles_bucket_is_prometheus() -> None:
    assert [bucket(one, [0.1, 0.2]) for one in (0, 10**8, 10**8 + 1, 2 * 10**8, 10**9)] == [0, 0, 1, 1, 2]


def of_spans(*spans: dict[str, Any], service: str = "a") -> Any:
    made = TRACES.request_type()
    envelope = made.resource_spans.add()
    envelope.resource.attributes.add(key="service.name").value.string_value = service
    for span in spans:
        envelope.scope_spans.add().spans.add(**({"trace_id": b"t" * 16, "span_id": b"s" * 8, "name": "n"} | span))
    return scan(TRACES, made.SerializeToString(), 0)


def test_label_sets_beyond_the_limit_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "CALLS_MAX", 4)
    made = Generator(Stopped(), 1 << 20)
    for i in range(10):
        made.add(of_spans({"name": f"name {i}"}, {"name": f"name {i}"}))
        made.check()
    values = {dict(labels).get("span_name", "?"): value for labels, value in made.series().newest()[0].values}
    assert values == {"name 0": 2, "name 1": 2, "name 2": 2, "?": 14}
    overflow = [labels for labels, _ in made.series().newest()[0].values if ("metric_overflow", "true") in labels]
    assert overflow == [(("__name__", "traces_spanmetrics_calls_total"), ("metric_overflow", "true"))]
    assert made.stats()["folded"] == {"calls": 14, "edges": 0}
    assert made.stats()["series"]["calls"] == 3


def test_long_names_are_folded() -> None:
    made = Generator(Stopped(), 1 << 20)
    made.add(of_spans({"name": "x" * 513}, {"name": "x" * 512}))
    made.add(of_spans({"kind": 2}, service="y" * 513))
    assert made.stats()["folded"] == {"calls": 2, "edges": 1}
    assert made.stats()["series"] == {"calls": 1, "edges": 0}


def test_a_span_waits_for_a_bounded_number_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "WAITING_MAX", 10)
    made = Generator(Stopped(), 1 << 20)
    size = made.nbytes
    for i in range(1, 101):
        made.add(of_spans({"kind": 3, "span_id": i.to_bytes(8, "big")}))
        assert made.stats()["waiting"] <= 20
    assert made.stats()["expired"] >= 80
    for i in range(1, 101):  # the newest ten are still there
        made.add(of_spans({"kind": 2, "span_id": b"other123", "parent_span_id": i.to_bytes(8, "big")}, service="b"))
    assert made.stats()["expired"] < 200
    assert made.nbytes - size < 5000
    made.check()


def test_names_are_forgotten_and_learned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "NAMES_MAX", 8)
    clock = Stopped()
    made = Generator(clock, 1 << 20)
    for i in range(30):
        made.add(of_spans({"kind": 2}, service=f"service {i}"))
        clock.now += 15 * 10**9
        made.tick()
    servers = {dict(labels)["server"] for labels, _ in made.series().newest()[2].values}
    assert servers == {f"service {i}" for i in range(30)}
    assert made.stats()["folded"]["edges"] == 0
    for i in range(30):
        made.add(of_spans({"kind": 2}, service=f"other {i}"))
    assert made.stats()["folded"]["edges"] > 0, "without ticks there is no room for so many"
    made.check()


def test_label_sets() -> None:
    sets = LabelSets(3, 2, 1)
    assert (sets.free, sets.capacity, sets.counts.shape) == (2, 3, (3, 2))
    with pytest.raises(ValueError, match="too few"):
        LabelSets(1, 1, 1)
    sets.retire([])
    assert np.array_equal(sets.sums, np.zeros((3, 1)))
