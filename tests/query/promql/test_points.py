"""Which points a selector means, against series that are made of each point alone."""

from __future__ import annotations

import asyncio
import math
from random import Random

import numpy as np
import pytest

from collector.clock import SystemClock
from collector.errors import InvalidQuery
from collector.otlp.signals import METRICS
from collector.query.deadline import Deadline
from collector.query.promql.parser import parse_selector
from collector.query.promql.points import points
from collector.query.promql.series import Collector
from collector.query.slices import slices
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing import otlp

DEADLINE = Deadline(math.inf, SystemClock())


@pytest.fixture(scope="module")
def store() -> Store:
    loop = asyncio.new_event_loop()
    made = Store(METRICS, Ring(METRICS, 10_000, 1 << 28), None, loop)
    for seed in range(4):
        payload = b"".join(otlp.metrics(1 + 13 * seed, seed=seed, service=one) for one in ("cart", "checkout"))
        loop.run_until_complete(made.append(payload))
    loop.close()
    return made


def found(store: Store, query: str) -> set[int]:
    """The offsets of what a selector means, among some of the rows of each block."""
    matcher, _ = points(query)
    view = store.view()
    return {
        piece.block.base_offset + int(row)
        for piece in slices(view, deadline=DEADLINE)
        for row in matcher(piece._replace(rows=chosen(piece.rows)), view, DEADLINE)
    }


def chosen(rows: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return rows[[Random(int(row)).random() < 0.8 for row in rows.tolist()]]


@pytest.mark.parametrize(
    "query",
    [
        '{job=~"(.+/)?cart"}',
        '{job=~".*c.*", instance!~"shop-[12]"}',
        '{__name__=~".+_count"}',
        '{__name__=~"(rpc|http).*", http_request_method="GET"}',
        '{job!="", nowhere=""}',
        '{http_route=~"/api.+"}',
        '{__name__="absent"}',
    ],
)
def test_points_of_series(store: Store, query: str) -> None:
    expected = set()
    for block, rows in slices(store.view(), deadline=DEADLINE):
        for row in chosen(rows):
            alone = Collector(parse_selector(query).matchers)
            alone.add(block, np.array([row]))
            if any(dict(series.labels)["__name__"] != "target_info" for series in alone.series(0)):
                expected.add(block.base_offset + int(row))
    assert found(store, query) == expected
    assert bool(expected) == ("absent" not in query)


def test_a_distribution_is_meant_by_each_of_its_names(store: Store) -> None:
    names = ("http_server_request_duration_milliseconds", "http_server_request_duration_milliseconds_bucket")
    whole = found(store, f'{{__name__=~"{names[0]}(_.*)?"}}')
    assert whole
    assert found(store, names[0]) == found(store, names[1]) == found(store, f"{names[0]}_count") == whole


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("up[5m]", "expected a series selector"),
        ("rate(up[5m])", "expected a series selector"),
        ('x_bucket{le="5"}', "points are whole"),
        ("{}", "matcher"),
        ("up{", "parse error"),
    ],
)
def test_what_is_no_selector_is_refused(query: str, said: str) -> None:
    with pytest.raises(InvalidQuery, match=said):
        points(query)
