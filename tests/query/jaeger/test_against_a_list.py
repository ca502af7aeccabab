"""Search, catalogue, dependencies, traces and what is missing from them: against brute force over a list of spans."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from collector.clock import SystemClock
from collector.query.completeness import completeness, hex_of
from collector.query.deadline import Deadline
from collector.query.dependencies import Dependency, dependencies
from collector.query.jaeger.model import KINDS, NO_SERVICE
from collector.query.jaeger.operations import Operation, Operations
from collector.query.jaeger.search import Search, find
from collector.query.slices import END_OF_TIME
from collector.query.trace import spans_of, traces_of, within
from tests.query.jaeger.held import NAMES, SERVICES, Held, random_span

HELD = st.builds(Held, st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 40), logged=st.booleans())


def deadline() -> Deadline:
    return Deadline(60.0, SystemClock())


@given(
    HELD,
    st.builds(
        Search,
        service=st.sampled_from([*SERVICES, NO_SERVICE]),
        operation=st.sampled_from(["", *NAMES]),
        tags=st.lists(st.sampled_from([("code", "500"), ("error", "true"), ("span.kind", "client")]), max_size=2).map(
            tuple
        ),
        start_ns=st.integers(0, 1200),
        end_ns=st.integers(1000, 1300) | st.just(END_OF_TIME),
        min_duration_ns=st.integers(0, 30),
        max_duration_ns=st.integers(20, 60) | st.just(END_OF_TIME),
        limit=st.integers(1, 8),
    ),
)
def test_search(held: Held, search: Search) -> None:
    best: dict[bytes, tuple[int, int]] = {}
    for offset, span in held.readable:
        tags = {("code", str(span.code)), ("error", str(span.status == 2).lower()), ("span.kind", KINDS.get(span.kind))}
        if (
            search.service in ("", span.service or NO_SERVICE)
            and search.operation in ("", span.name)
            and search.start_ns <= span.start <= search.end_ns
            and search.min_duration_ns <= max(0, span.end - span.start) <= search.max_duration_ns
            and set(search.tags) <= tags
        ):
            best[span.trace] = max(best.get(span.trace, (-1, -1)), (span.start, offset))
    expected = sorted(((trace, *place) for trace, place in best.items()), key=lambda one: one[1:], reverse=True)
    key = ("service", search.service.encode()) if search.service not in ("", NO_SERVICE) else ()
    with held.store.view(*key) as view:
        assert find(deadline(), view, search) == expected[: search.limit]


@given(HELD, st.integers(0, 2**32), st.integers(0, 10))
def test_the_catalogue_is_what_can_be_read(held: Held, seed: int, more: int) -> None:
    operations, chance = Operations(), Random(seed)
    for _ in range(more + 1):
        expected = {
            Operation(span.service or NO_SERVICE, span.name, KINDS.get(span.kind, "")) for _, span in held.readable
        }
        with held.store.view() as view:
            assert operations.known(deadline(), view) == sorted(expected)
        held.append([random_span(chance) for _ in range(chance.randint(1, 4))])


@given(HELD, st.integers(0, 1200), st.integers(1000, 1300))
def test_dependencies(held: Held, start: int, end: int) -> None:
    inside = [span for _, span in held.readable if start <= span.start <= end]
    first: dict[tuple[bytes, bytes], str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    candidates: dict[tuple[bytes, bytes], set[str]] = {}
    for span in inside:
        candidates.setdefault((span.trace, span.id), set()).add(span.service)
        first.setdefault((span.trace, span.id), span.service)
    ambiguous = any(len(services) > 1 for services in candidates.values())
    for span in inside:
        caller = first.get((span.trace, span.parent)) if span.parent else None
        if caller is not None and caller != span.service:
            counts[caller, span.service] += 1
    with held.store.view() as view:
        found = dependencies(deadline(), view, start, end)
    if not ambiguous:  # else any of the spans with one id may be the parent
        assert found == sorted(Dependency(*pair, count) for pair, count in counts.items())
    assert all(one.calls > 0 and one.parent != one.child for one in found)


@given(HELD, st.sampled_from([1, 3, 1000]))
def test_traces_and_what_is_missing_from_them(held: Held, limit: int) -> None:
    readable = held.readable
    ids = sorted({span.trace for _, span in readable})[:4]
    with held.store.view() as everything:
        views = [held.store.view("trace_id", trace, ring_only=True) for trace in ids]
        several = traces_of(deadline(), views, everything, 0, END_OF_TIME, 10**6)
        assert list(several) == ids
        few = traces_of(deadline(), views, everything, 0, END_OF_TIME, limit)
    assert sum(len(one.refs) for one in few.values()) == min(
        limit, sum(len(one.refs) + one.left_out for one in few.values())
    )
    for trace in ids:
        own = [(offset, span) for offset, span in readable if span.trace == trace]
        with held.store.view("trace_id", trace) as view:
            one = spans_of(deadline(), view, limit)
            whole = spans_of(deadline(), view)
        assert (len(one.refs), one.left_out) == (min(limit, len(own)), max(0, len(own) - limit))
        assert few[trace].left_out + len(few[trace].refs) == len(own)
        for refs in (whole.refs, several[trace].refs):
            assert [(ref.offset, ref.time) for ref in refs] == [(offset, span.start) for offset, span in own]
        overlapping = [offset for offset, span in own if span.start <= 1100 and max(span.start, span.end) >= 1050]
        assert [ref.offset for ref in within(whole.refs, 1050, 1100)] == overlapping
        held_ids = {span.id for _, span in own}
        absent = sorted({span.parent.hex() for _, span in own if span.parent and span.parent not in held_ids})
        known = completeness(whole.refs, view_first(held))
        assert sorted(map(hex_of, known.parents.tolist())) == absent
        assert known.missing == bool(absent)
        assert all(text in known.message for text in absent) or len(absent) > 5


def view_first(held: Held) -> int:
    with held.store.view() as view:
        return view.first_offset


@settings(max_examples=5)
@given(st.integers(0, 2**32))
def test_the_cause_is_told_as_far_as_it_is_known(seed: int) -> None:
    for capacity, words in ((1000, "not received, so far"), (1, "oldest spans, which are not kept any more")):
        held = Held(seed, 40, capacity, logged=False)
        for trace, _ in groupby(held.readable, key=lambda one: one[1].trace):
            with held.store.view("trace_id", trace) as view:
                known = completeness(spans_of(deadline(), view).refs, view.first_offset, 2)
            assert known.message.endswith("2 spans were left out, which the limit on one answer does not allow")
            assert words in known.cause
