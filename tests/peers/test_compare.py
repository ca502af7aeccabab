"""The comparison tells what differs, and nothing when nothing does; drawn trees are what they are drawn as."""

from __future__ import annotations

import math
from collections import Counter

from tests.peers.compare_traceql import Names, found_differences, series_differences
from tests.peers.questions import METRICS, MISTAKES, SEARCHES
from tests.peers.woods import TREES, requests, woods

AT = 1_790_000_040


def test_a_drawing_is_the_tree() -> None:
    trace = next(one for one in woods(AT) if one.title == "a full tree")
    names = {span.span_id: span.name for span in trace.spans}
    edges = sorted(names.get(span.parent_span_id, "-") + names[span.span_id] for span in trace.spans)
    assert TREES["a full tree"] == "a(b(a(b a) b(c c)) c(a(b b) b(a a)))"
    assert edges == sorted(["-a", "ab", "ba", "ab", "aa", "bb", "bc", "bc", "ac", "ca", "ab", "ab", "cb", "ba", "ba"])


def test_orphans_and_cycles_are_drawn_too() -> None:
    by_title = {one.title: list(one.spans) for one in woods(AT)}
    orphan = by_title["an orphan"][0]
    assert orphan.parent_span_id not in {b"", orphan.span_id}
    one, other = by_title["a cycle of two"]
    assert (one.parent_span_id, other.parent_span_id) == (other.span_id, one.span_id)


def test_the_same_minute_makes_the_same_bytes() -> None:
    assert list(requests(woods(AT))) == list(requests(woods(AT)))
    ids = [trace.trace_id for at in (AT, AT + 60) for trace in woods(at)]
    assert len(set(ids)) == len(ids)


def test_no_question_is_asked_twice() -> None:
    for questions in (*SEARCHES.values(), MISTAKES, METRICS):
        assert [query for query, times in Counter(questions).items() if times > 1] == []


def test_a_span_too_few_is_told() -> None:
    names = Names(woods(AT))
    trace = next(one for one in woods(AT) if one.title == "siblings")
    spans = [{"spanID": span.span_id.hex()} for span in trace.spans]

    def answer(matched: list[dict[str, str]]) -> list[dict[str, object]]:
        return [{"traceID": trace.trace_id, "spanSets": [{"spans": matched}]}]

    whole, part = names.found(answer(spans)), names.found(answer(spans[:2]))
    assert found_differences(whole, whole) == []
    assert found_differences(whole, part) == ["siblings: ours {a#2 b#3 c#1} theirs {a#2 c#1}"]
    assert found_differences({}, part) == ["siblings: ours - theirs {a#2 c#1}"]


def test_a_point_that_is_off_is_told() -> None:
    assert series_differences({"k=v": {60: 1.0}}, {"k=v": {60: 1.0 + 1e-9}}) == []
    assert series_differences({"k=v": {60: 1.0}}, {"k=v": {60: 1.5}}, factor=2) == []
    assert series_differences({"k=v": {60: 1.0}}, {"k=v": {60: 1.5}}) == ["{k=v} at 60: ours 1 theirs 1.5"]
    assert series_differences({"k=v": {60: 1.0}}, {"k=w": {60: 1.0}}) == [
        "{k=v}: not in theirs: {60: 1.0}",
        "{k=w}: not in ours: {60: 1.0}",
    ]
    assert series_differences({"k=v": {60: 1.0}}, {"k=v": {60: math.inf}}) != []
