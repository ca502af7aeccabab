"""Volumes against counting line by line, and Loki's rules for what they are counted by."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import QueryLimit
from collector.otlp.signals import LOGS
from collector.query.logql import ast, volumes
from collector.query.logql.parser import parse_selector
from collector.query.logql.volumes import Volume, intervals
from collector.store import View
from tests.query.logql import oracle
from tests.query.logql.logs import DENSE_REQUESTS, REQUESTS, SECOND, deadline, view_of
from tests.query.logql.trees import some

NAMES = st.sampled_from(["service_name", "k8s_pod_name", "no"])
MATCHERS = st.builds(
    ast.Matcher, NAMES, st.sampled_from(["=", "!=", "=~", "!~"]), st.sampled_from(["", "a", "a|b", ".+"])
)


@given(
    requests=st.lists(DENSE_REQUESTS | REQUESTS, max_size=4),
    matchers=some(MATCHERS, 0, 2),
    start=st.integers(0, 30),
    length=st.integers(1, 60),
    step=st.sampled_from([0, 1, 7, 100]),
    targets=some(NAMES, 0, 2),
    by_labels=st.booleans(),
)
def test_volumes_are_what_counting_line_by_line_finds(
    requests: list, matchers: tuple, start: int, length: int, step: int, targets: tuple, by_labels: bool
) -> None:
    view = view_of([request.SerializeToString() for request in requests])
    selector = ast.Selector(matchers)
    low, high = start * SECOND, (start + length) * SECOND
    answer = volumes.volumes(
        deadline(), view, selector, low, high, step * SECOND, targets, by_labels=by_labels, limit=1000
    )
    assert [dict(volume.labels) for volume in answer] == [dict(volume.labels) for volume in dict.fromkeys(answer)]
    actual = {(volume.labels, time): size for volume in answer for time, size in volume.samples}
    cuts = intervals(low, high, step * SECOND)
    assert cuts[0][0] == low
    assert cuts[-1][1] == high
    expected: dict = defaultdict(int)
    named = {matcher.label for matcher in matchers}
    wanted = set(targets) or (set() if by_labels else named)
    for entry in oracle.run(ast.LogQuery(selector), oracle.entries(view)):
        if not all(entry.stream.get(name) for name in set(targets) - named) or not low <= entry.time <= high:
            continue
        [end] = [end for begin, end in cuts if begin <= entry.time < end] or [high]
        labels = tuple(sorted(pair for pair in entry.stream.items() if not wanted or pair[0] in wanted))
        time = end if end == high else end - 1_000_000
        for key in [((name, ""),) for name, _ in labels] if by_labels else [labels]:
            expected[key, time] += len(entry.line.encode())
    assert actual == {key: size for key, size in expected.items() if size}


def view_of_streams(*streams: tuple[str, str, int, int]) -> View:
    """Return a view of lines: service, pod, second and bytes of each."""
    return view_of(
        [
            LOGS.request_type(
                resource_logs=[
                    {
                        "resource": {
                            "attributes": [
                                {"key": "service.name", "value": {"string_value": service}},
                                {"key": "k8s.pod.name", "value": {"string_value": pod}},
                            ]
                        },
                        "scope_logs": [
                            {"log_records": [{"time_unix_nano": second * SECOND, "body": {"string_value": "x" * size}}]}
                        ],
                    }
                ]
            ).SerializeToString()
            for service, pod, second, size in streams
        ]
    )


def asked(view: View, text: str, step: int = 0, *targets: str, by_labels: bool = False, limit: int = 9) -> list[Volume]:
    """Return volumes from 0 s to 100 s."""
    return volumes.volumes(
        deadline(),
        view,
        parse_selector(text),
        0,
        100 * SECOND,
        step * SECOND,
        targets,
        by_labels=by_labels,
        limit=limit,
    )


def test_what_volumes_are_counted_by() -> None:
    view = view_of_streams(("a", "p", 1, 5), ("a", "q", 2, 6), ("b", "p", 3, 20))
    end = 100 * SECOND
    service_a, service_b = ("service_name", "a"), ("service_name", "b")
    pod_p, pod_q = ("k8s_pod_name", "p"), ("k8s_pod_name", "q")
    assert asked(view, "{}") == [
        Volume((pod_p, service_b), ((end, 20),)),
        Volume((pod_q, service_a), ((end, 6),)),
        Volume((pod_p, service_a), ((end, 5),)),
    ]
    assert asked(view, '{service_name=~".+"}') == [
        Volume((service_b,), ((end, 20),)),
        Volume((service_a,), ((end, 11),)),
    ]
    assert asked(view, '{service_name=~".+"}', 0, "k8s_pod_name") == [
        Volume((pod_p,), ((end, 25),)),
        Volume((pod_q,), ((end, 6),)),
    ]
    assert asked(view, '{service_name="a"}', by_labels=True) == [
        Volume((("k8s_pod_name", ""),), ((end, 11),)),
        Volume((("service_name", ""),), ((end, 11),)),
    ]
    assert asked(view, "{}", 0, "nothing") == []


def test_each_interval_has_its_largest() -> None:
    view = view_of_streams(("a", "p", 1, 5), ("b", "p", 1, 6), ("a", "p", 50, 9), ("b", "p", 50, 3), ("c", "p", 99, 1))
    gap = 1_000_000
    assert asked(view, '{service_name=~".+"}', 40, limit=1) == [
        Volume((("service_name", "a"),), ((80 * SECOND - gap, 9),)),
        Volume((("service_name", "b"),), ((40 * SECOND - gap, 6),)),
        Volume((("service_name", "c"),), ((100 * SECOND, 1),)),
    ]


def test_volumes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of_streams(*((f"s{number}", "p", 1, 1) for number in range(4)))
    monkeypatch.setattr(volumes, "SERIES_MAX", 3)
    with pytest.raises(QueryLimit, match="limit: 3 series"):
        asked(view, "{}")
    with pytest.raises(QueryLimit, match="intervals"):
        intervals(0, 10**18, SECOND)
