"""Exemplars of matching series: which series each belongs to, when it counts, and which are kept of many."""

from __future__ import annotations

import asyncio
import math
from random import Random
from typing import Any

import pytest

from collector.clock import SystemClock
from collector.otlp.records import tagged
from collector.otlp.signals import METRICS
from collector.query.deadline import Deadline
from collector.query.promql import exemplars
from collector.query.promql.ast import selectors
from collector.query.promql.exemplars import exemplar_labels, select
from collector.query.promql.parser import parse
from collector.ring.ring import Ring
from collector.store import Store

S = 10**9
DELTA, CUMULATIVE = 1, 2
TRACE, SPAN = bytes(range(16)), bytes(range(8))
IDS = {"trace_id": "000102030405060708090a0b0c0d0e0f", "span_id": "0001020304050607"}


def store_of(*requests: Any) -> Store:
    loop = asyncio.new_event_loop()
    store = Store(METRICS, Ring(METRICS, 1_000_000, 1 << 28), None, loop)
    for one in requests:
        payload = one if isinstance(one, bytes) else one.SerializeToString()
        assert loop.run_until_complete(store.append(payload)).rejected == 0
    loop.close()
    return store


def metric_of(made: Any, name: str, service: str = "") -> Any:
    envelope = made.resource_metrics.add()
    if service:
        envelope.resource.attributes.add(key="service.name").value.string_value = service
    return envelope.scope_metrics.add().metrics.add(name=name)


def counter(made: Any, name: str, second: float, service: str = "", **attributes: str) -> Any:
    """A point of a counter."""
    data = metric_of(made, name, service).sum
    data.is_monotonic, data.aggregation_temporality = True, CUMULATIVE
    point = data.data_points.add(time_unix_nano=round(second * S), as_int=1)
    for key, text in attributes.items():
        point.attributes.add(key=key).value.string_value = text
    return point


def histogram(made: Any, name: str, second: float, bounds: tuple[float, ...], temporality: int = CUMULATIVE) -> Any:
    data = metric_of(made, name).histogram
    data.aggregation_temporality = temporality
    return data.data_points.add(
        time_unix_nano=round(second * S), count=1, bucket_counts=[0] * len(bounds) + [1], explicit_bounds=bounds
    )


def exponential(made: Any, name: str, second: float, scale: int) -> Any:
    """A point with the buckets (1, base], (base, base²], the same below zero, and one of zero, up to 0.25."""
    data = metric_of(made, name).exponential_histogram
    data.aggregation_temporality = CUMULATIVE
    point = data.data_points.add(
        time_unix_nano=round(second * S), count=5, scale=scale, zero_count=1, zero_threshold=0.25
    )
    point.positive.bucket_counts.extend((1, 1))
    point.negative.bucket_counts.extend((1, 1))
    return point


def add(point: Any, second: float, value: float, trace_id: bytes = TRACE, **attributes: str) -> None:
    one = point.exemplars.add(time_unix_nano=round(second * S), as_double=value, trace_id=trace_id)
    for key, text in attributes.items():
        one.filtered_attributes.add(key=key).value.string_value = text


def run(store: Store, query: str, start: float = 0, end: float = 10_000) -> exemplars.Found:
    wanted = [one.matchers for one in selectors(parse(query))]
    return select(Deadline(60, SystemClock()), store.view(), wanted, math.floor(start * 1000), math.floor(end * 1000))


def found(store: Store, query: str, start: float = 0, end: float = 10_000) -> list[tuple[str, list[tuple[int, str]]]]:
    """The series by names and `le`, with times (ms) and values of their exemplars."""
    return [
        (
            dict(labels)["__name__"] + (f"<={dict(labels)['le']}" if "le" in dict(labels) else ""),
            [(one.time, one.value) for one in held],
        )
        for labels, held in run(store, query, start, end).series
    ]


def test_exemplars_of_numbers_are_of_their_own_series() -> None:
    made = METRICS.request_type()
    point = counter(made, "orders", 20, "shop", kind="web")
    one = point.exemplars.add(time_unix_nano=19_999_999_999, as_int=6, trace_id=TRACE, span_id=SPAN)
    one.filtered_attributes.add(key="user.id").value.int_value = 7
    one.filtered_attributes.add(key="user_id").value.string_value = "x"
    one.filtered_attributes.add(key="empty").value.string_value = ""
    counter(made, "orders", 20, "shop", kind="none")
    gauge = metric_of(made, "temperature").gauge.data_points.add(time_unix_nano=20 * S, as_int=1)
    gauge.exemplars.add(time_unix_nano=18 * S, as_double=0.5)
    assert run(store_of(made), '{__name__=~".+"}') == (
        [
            (
                (("__name__", "orders_total"), ("job", "shop"), ("kind", "web")),
                [(19_999, tuple(sorted({**IDS, "user_id": "7;x"}.items())), "6")],
            ),
            ((("__name__", "temperature"),), [(18_000, (), "0.5")]),
        ],
        False,
    )


def test_ids_count_before_attributes_and_zeros_are_none() -> None:
    made = METRICS.request_type()
    point = counter(made, "orders", 20)
    one = point.exemplars.add(as_int=1, trace_id=bytes(16), span_id=SPAN)
    one.filtered_attributes.add(key="span_id").value.string_value = "mine"
    assert exemplar_labels(one) == (("span_id", IDS["span_id"]),)


@pytest.mark.parametrize(("length", "kept"), [(64, True), (65, False)])
def test_attributes_that_openmetrics_has_no_room_for_are_left_out(length: int, kept: bool) -> None:
    """trace_id and span_id are 8 + 32 + 7 + 16 = 63 characters of 128."""
    made = METRICS.request_type()
    one = counter(made, "orders", 20).exemplars.add(as_int=1, trace_id=TRACE, span_id=SPAN)
    one.filtered_attributes.add(key="x").value.string_value = "ü" * length
    assert dict(exemplar_labels(one)) == ({**IDS, "x": "ü" * 64} if kept else IDS)


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
def test_exemplars_of_histograms_are_of_the_bucket_that_they_were_counted_in(temporality: int) -> None:
    made = METRICS.request_type()
    point = histogram(made, "duration", 20, (0.5, 2), temporality)
    for second, value in enumerate((-1, 0.5, 0.75, 2, 2.5, math.inf, math.nan)):
        add(point, 10 + second, value)
    store = store_of(made)
    assert found(store, '{__name__=~"duration.*"}') == [
        ("duration_bucket<=+Inf", [(14_000, "2.5"), (15_000, "+Inf")]),
        ("duration_bucket<=0.5", [(10_000, "-1"), (11_000, "0.5")]),
        ("duration_bucket<=2", [(12_000, "0.75"), (13_000, "2")]),
    ]
    assert found(store, 'duration_bucket{le="2"}') == [("duration_bucket<=2", [(12_000, "0.75"), (13_000, "2")])]
    assert [name for name, _ in found(store, 'duration_bucket{le!~"2|[+]Inf"}')] == ["duration_bucket<=0.5"]
    for query in ("duration_count", "duration_sum", "duration", 'duration_bucket{le="1"}', "duration_bucket{x='1'}"):
        assert found(store, query) == []


def test_a_histogram_without_buckets_has_one() -> None:
    made = METRICS.request_type()
    point = histogram(made, "duration", 20, ())
    add(point, 10, 3)
    assert found(store_of(made), "duration_bucket") == [("duration_bucket<=+Inf", [(10_000, "3")])]


def test_exemplars_of_exponential_histograms() -> None:
    made = METRICS.request_type()
    point = exponential(made, "size", 20, 0)  # buckets (1, 2], (2, 4], [-2, -1), [-4, -2), [-0.25, 0.25]
    for second, value in enumerate((-3, -1.5, 0, 1.5, 2, 3, 5)):
        add(point, 10 + second, value)
    assert found(store_of(made), "size_bucket") == [
        ("size_bucket<=+Inf", [(16_000, "5")]),
        ("size_bucket<=-1", [(11_000, "-1.5")]),
        ("size_bucket<=-2", [(10_000, "-3")]),
        ("size_bucket<=0.25", [(12_000, "0")]),
        ("size_bucket<=2", [(13_000, "1.5"), (14_000, "2")]),
        ("size_bucket<=4", [(15_000, "3")]),
    ]


def test_what_later_points_repeat_counts_once() -> None:
    """Of a histogram whose buckets have grown since, in the bucket of its newest point, wherever that stands."""
    requests = []
    for second, scale in ((40, -1), (20, 0), (30, 0)):
        made = METRICS.request_type()
        point = counter(made, "orders", second)
        add(point, 15, 1)
        add(point, 15, 1, trace_id=b"o" * 16)
        add(point, 15.5, 1)
        add(exponential(made, "size", second, scale), 15, 1.5)
        requests.append(made)
    store = store_of(*requests)
    assert found(store, "orders_total") == [("orders_total", [(15_000, "1"), (15_000, "1"), (15_500, "1")])]
    assert found(store, "size_bucket") == [("size_bucket<=4", [(15_000, "1.5")])]
    assert found(store, "size_bucket", end=35) == [("size_bucket<=4", [(15_000, "1.5")])]


def test_the_range_is_of_exemplars_not_of_points() -> None:
    made = METRICS.request_type()
    point = counter(made, "orders", 100)
    for second in (39.999, 40, 50, 60, 60.001):
        add(point, second, second)
    late = counter(made, "late", 361)
    add(late, 55, 1)
    store = store_of(made)
    assert found(store, "orders_total", 40, 60) == [("orders_total", [(40_000, "40"), (50_000, "50"), (60_000, "60")])]
    assert found(store, "orders_total", 60.5, 70) == []
    assert found(store, "orders_total", 200, 10_000) == []
    assert found(store, "orders_total", -20, -10) == []
    assert found(store, "late_total", 40, 61) == [("late_total", [(55_000, "1")])]
    assert found(store, "late_total", 40, 60) == [], "its point comes more than 300 s later"
    assert found(store, "late_total", 0, 2**62 / 1000) == [("late_total", [(55_000, "1")])]


def test_an_exemplar_without_a_time_has_its_points() -> None:
    made = METRICS.request_type()
    add(counter(made, "orders", 20), 0, 1)
    assert found(store_of(made), "orders_total", 20, 20) == [("orders_total", [(20_000, "1")])]


def test_every_selector_of_an_expression_counts() -> None:
    made = METRICS.request_type()
    for name, kind in (("orders", "web"), ("orders", "shop"), ("returns", "web"), ("views", "web")):
        add(counter(made, name, 20, kind=kind), 10, 1)
    add(histogram(made, "duration", 20, (1.0,)), 10, 0.5)
    store = store_of(made)

    def names(query: str) -> list[str]:
        return [f"{dict(labels)['__name__']} {dict(labels).get('kind', '')}" for labels, _ in run(store, query).series]

    assert names('sum(rate(orders_total{kind="web"}[5m])) / on () returns_total offset 1d') == [
        "orders_total web",
        "returns_total web",
    ]
    assert names('{__name__=~"(orders|ret).*", kind!~"s.+"}') == ["orders_total web", "returns_total web"]
    assert names("histogram_quantile(0.9, sum by (le) (rate(duration_bucket[1m])))") == ["duration_bucket "]
    assert names('orders_total or {kind="shop"}') == ["orders_total shop", "orders_total web"]
    assert names("1 + 1") == names("nothing") == []


def test_of_too_many_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(5)
    requests, times = [], []
    for minute in range(20):
        made = METRICS.request_type()
        for name in ("orders", "returns"):
            point = counter(made, name, 60 * minute + 60)
            for _ in range(5):
                times.append((name, chance.randrange(60_000 * minute, 60_000 * minute + 60_000)))
                add(point, times[-1][1] / 1000, 1)
            add(point, 1, 1)  # one that is repeated in each point, and is old
        requests.append(made)
    store = store_of(*requests)
    whole = run(store, "{__name__=~'.+'}")
    assert not whole.left_out
    assert sum(len(held) for _, held in whole.series) == len({*times, ("orders", 1000), ("returns", 1000)})
    for most in (1, 2, 9, 10, 11, 100):
        monkeypatch.setattr(exemplars, "EXEMPLARS_MAX", most)
        kept = run(store, "{__name__=~'.+'}")
        assert kept.left_out
        assert sorted(one.time for _, held in kept.series for one in held) == sorted(time for _, time in times)[-most:]
    monkeypatch.setattr(exemplars, "EXEMPLARS_MAX", len(times) + 2)
    assert run(store, "{__name__=~'.+'}") == whole


def test_a_tag_may_be_longer_than_it_needs_to_be() -> None:
    """`aa 00` begins field 5 as `2a` does."""
    made = METRICS.request_type()
    point = counter(made, "orders", 20)
    exemplar = made.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points.add().exemplars.add()
    exemplar.time_unix_nano, exemplar.as_double = 10 * S, 3
    content = exemplar.SerializeToString()
    whole = point.SerializeToString() + b"\xaa\x00" + bytes((len(content),)) + content
    assert b"\x2a" not in whole
    cumulative, monotonic = b"\x10\x02", b"\x18\x01"
    metric = tagged(1, b"orders") + tagged(7, tagged(1, whole) + cumulative + monotonic)
    assert found(store_of(tagged(1, tagged(2, tagged(2, metric)))), "orders_total") == [
        ("orders_total", [(10_000, "3")])
    ]
