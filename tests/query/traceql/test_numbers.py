"""Integers of 64 bits stay what they are: in arithmetic, in aggregates and in answers."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.api.tempo import any_value
from collector.clock import SystemClock
from collector.otlp.signals import TRACES
from collector.query.deadline import Deadline
from collector.query.traceql import tags, values
from collector.query.traceql.arithmetic import combined
from collector.query.traceql.ast import Type, duration_text
from collector.query.traceql.lexer import tokenize
from collector.query.traceql.parser import parse
from collector.query.traceql.search import Search, describe, find
from collector.ring.ring import Ring
from collector.store import Store

MOST = 2**63 - 1


@pytest.fixture(scope="module")
def store() -> Store:
    """One trace of three spans: n is maxInt, 7 and lacking; size is 100 on all; f is 2.5 on the second."""
    request = TRACES.request_type()
    spans = request.resource_spans.add().scope_spans.add().spans
    for letter, n, f in (("A", MOST, None), ("B", 7, 2.5), ("C", None, None)):
        span = spans.add(
            trace_id=b"t" * 16,
            span_id=letter.encode() * 8,
            name=letter,
            kind=2,
            start_time_unix_nano=10**15,
            end_time_unix_nano=10**15 + 86_000_001 * (ord(letter) - 64),
        )
        span.attributes.add(key="size").value.int_value = 100
        if n is not None:
            span.attributes.add(key="n").value.int_value = n
        if f is not None:
            span.attributes.add(key="f").value.double_value = f
        if letter == "A":
            span.attributes.add(key="text").value.string_value = "one\ntwo"
        if letter == "C":
            span.attributes.add(key="texts").value.array_value.values.add().string_value = "one\ntwo"
        if letter == "B":
            found = span.attributes.add(key="list").value.array_value.values
            found.add().string_value = "x"
            found.add().int_value = 5
            found.add().array_value.values.add().bool_value = True
    loop = asyncio.new_event_loop()
    made = Store(TRACES, Ring(TRACES, 100, 1 << 20), None, loop)
    loop.run_until_complete(made.append(request.SerializeToString()))
    loop.close()
    return made


def search(store: Store, text: str) -> Any:
    wanted = Search(parse(text), 20, 100)
    deadline = Deadline(60, SystemClock())
    with store.view() as view:
        found, _ = find(deadline, view, view, wanted)
        return describe(deadline, view, found, wanted)


def names(store: Store, text: str) -> str:
    return "".join(sorted(span.name for one in search(store, text) for span in one.spans))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("7 / 2 = 3", "ABC"),
        ("-7 / 2 = -3", "ABC"),
        ("-7 % 2 = -1", "ABC"),
        ("7.0 / 2 = 3.5", "ABC"),
        ("2 ^ -1 = 0.5", "ABC"),
        ("2 ^ 3 ^ 2 = 512", "ABC"),
        ("span.n + 0 = 9223372036854775806", ""),
        ("span.n + 0 = 9223372036854775807", "A"),
        ("span.n * 1 > 9223372036854775806", "A"),
        ("span.n + 1 = -9223372036854775808", "A"),
        ("-span.n - 1 = minInt", "A"),
        ("span.n + 1 < span.n", "A"),
        ("span.size / 3 = 33", "ABC"),
        ("span.size / 3 > 33", ""),
        ("span.size / 3.0 > 33", "ABC"),
        ("span.n + span.f = 9.5", "B"),
        ("span.size / 0 > 1", ""),
        ("span.size / 0.0 > 1", ""),
        ("span.size % 0 = 0", ""),
        ("span.size / 0 = nil", "ABC"),
        ("duration / 2 = 43000000.5", "A"),
        ("duration / 172000002ns > 0.4", "ABC"),
        ("minInt / -1 = minInt", "ABC"),
    ],
)
def test_arithmetic(store: Store, condition: str, expected: str) -> None:
    assert names(store, f"{{ {condition} }}") == expected


_int64 = st.integers(-(2**63), MOST) | st.integers(-9, 9) | st.sampled_from([-(2**63), MOST])


@given(op=st.sampled_from("+-*/%"), left=_int64, right=_int64)
def test_integers_are_those_of_64_bits(op: str, left: int, right: int) -> None:
    columns = [values.of_integers(np.array([one], np.int64)) for one in (left, right)]
    found = combined(op, columns[0], columns[1], (Type.ATTRIBUTE, Type.INT)).value(0)
    if op in "/%" and right == 0:
        assert found is None
        return
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1) if right else 0
    exact = {
        "+": left + right,
        "-": left - right,
        "*": left * right,
        "/": quotient,
        "%": left - quotient * right,
    }[op]
    assert found == (exact + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ("max(span.n) > 1", {"max(span.n)": MOST}),
        ("max(span.n) > 9223372036854775806", {"max(span.n)": MOST}),
        ("max(span.n) = 9223372036854775806", None),
        ("min(span.n) = 7", {"min(span.n)": 7}),
        ("sum(span.n) < 0", {"sum(span.n)": -(2**63) + 6}),
        ("avg(span.size) >= 100", {"avg(span.size)": 100.0}),
        ("sum(span.f) > 2", {"sum(span.f)": 2.5}),
        ("max(span.none) > 0", None),
        ("count() / 2 = 1", {"count()": 3}),
        ("max(duration) > 200ms", {"max(duration)": "258.000003ms"}),
        ("avg(duration) > 0s", {"avg(duration)": "172.000002ms"}),
        ("sum(duration) / count() > 0s", {"sum(duration)": "516.000006ms", "count()": 3}),
        ("max(duration) / min(duration) = 3", {"max(duration)": "258.000003ms", "min(duration)": "86.000001ms"}),
    ],
)
def test_aggregates(store: Store, stages: str, expected: dict[str, Any] | None) -> None:
    found = [dict(each.attributes) for one in search(store, f"{{ }} | {stages}") for each in one.spansets]
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("status", {"unset"}),
        ("kind", {"server"}),
        ("duration", {"86.000001ms", "172.000002ms", "258.000003ms"}),
        ("span.n + 0", {MOST, 7, "nil"}),
        ("span.n + (span.size * 2)", {207, -(2**63) + 199, "nil"}),
        ("duration > 100ms", {True, False}),
        ("-span.size", {-100}),
        ("name", {"A", "B", "C"}),
        ("span.list", {"nil"}),
    ],
)
def test_groups_are_named_as_they_are_written(store: Store, expression: str, expected: set[Any]) -> None:
    (found,) = search(store, f"{{ }} | by({expression})")
    assert {name for each in found.spansets for name, _ in each.attributes} == {f"by({expression})"}
    assert {value for each in found.spansets for _, value in each.attributes} == expected


@given(st.integers(0, MOST) | st.integers(0, 10**11).map(lambda us: us * 1000) | st.integers(0, 10**4))
def test_durations_are_written_so_that_they_are_read_again(nanoseconds: int) -> None:
    (token, _) = tokenize(duration_text(nanoseconds))
    assert token.value == nanoseconds


def test_durations_are_written_as_go_does() -> None:
    written = [duration_text(n) for n in (0, 1, 1500, 86 * 10**6, -5 * 10**6, 6_022_000_001, 3600 * 10**9, 90 * 10**9)]
    assert written == ["0s", "1ns", "1.5µs", "86ms", "-5ms", "6.022000001s", "1h0m0s", "1m30s"]


def test_arrays_are_returned_whole(store: Store) -> None:
    (found,) = search(store, "{ } | select(span.list)")
    assert {span.name: span.attributes for span in found.spans} == {"A": [], "B": [("list", ["x", 5, None])], "C": []}
    assert any_value(["x", 5, None]) == {"arrayValue": {"values": [{"stringValue": "x"}, {"intValue": "5"}, {}]}}


def test_elements_of_arrays_are_values_of_their_tag(store: Store) -> None:
    with store.view() as view:
        found = tags.values(Deadline(60, SystemClock()), view, tags.field_of("span.list"), None, 0, MOST)
    assert found.values == [("int", "5"), ("string", "x")]


def test_a_dot_matches_the_end_of_a_line(store: Store) -> None:
    assert names(store, '{ span.text =~ "one.two" }') == "A"
    assert names(store, '{ span.text !~ "one.*" }') == ""
    assert names(store, '{ span.text =~ "(?-s)one.two" }') == ""
    assert names(store, '{ span.texts =~ "one.two" }') == "C"
