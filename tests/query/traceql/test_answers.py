"""What each kind of query answers over one small set of traces, checked by hand.

    shop: trace 1                                    batch: trace 2          lost: trace 3
    A GET /cart   web   0..100  server               G job   cron  200..290   J orphan  web  300..310
    ├ B load      web  10..40   internal x=1         └ H step cron 210..240     (its parent is not held)
    │ └ C SELECT  db   15..35   client x=1 error     K other  cron 250..260
    └ D charge    pay  50..90   client x=2              (a second root)
      └ E retry   pay  60..80   internal x=2 error

C has two events (an exception after 5 ms, "done" after 10 ms) and a link to G. Times are in ms.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from collector.clock import SystemClock
from collector.otlp.signals import TRACES
from collector.query.deadline import Deadline
from collector.query.traceql import metrics
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import plan
from collector.query.traceql.search import Search, describe, find
from collector.query.traceql.series import Steps
from collector.ring.ring import Ring
from collector.store import Store

MS = 10**6
# letter: trace, parent, name, service, start, end, kind, status, x
SPANS: dict[str, tuple[int, str, str, str, int, int, int, int, int | None]] = {
    "A": (1, "", "GET /cart", "web", 0, 100, 2, 0, None),
    "B": (1, "A", "load", "web", 10, 40, 1, 0, 1),
    "C": (1, "B", "SELECT", "db", 15, 35, 3, 2, 1),
    "D": (1, "A", "charge", "pay", 50, 90, 3, 1, 2),
    "E": (1, "D", "retry", "pay", 60, 80, 1, 2, 2),
    "G": (2, "", "job", "cron", 200, 290, 1, 0, None),
    "H": (2, "G", "step", "cron", 210, 240, 1, 0, None),
    "K": (2, "", "other", "cron", 250, 260, 1, 0, None),
    "J": (3, "Z", "orphan", "web", 300, 310, 5, 0, None),
}
ZERO = 1_000_000 * MS


def request(letters: str) -> bytes:
    """An export of some of the spans."""
    made = TRACES.request_type()
    for letter in letters:
        trace, parent, name, service, start, end, kind, status, x = SPANS[letter]
        envelope = made.resource_spans.add()
        envelope.resource.attributes.add(key="service.name").value.string_value = service
        inner = envelope.scope_spans.add()
        inner.scope.name, inner.scope.version = f"lib.{service}", "1.2"
        inner.scope.attributes.add(key="language").value.string_value = "python" if service == "web" else "go"
        span = inner.spans.add(
            trace_id=trace.to_bytes(16, "big"),
            span_id=letter.encode() * 8,
            parent_span_id=parent.encode() * 8,
            name=name,
            start_time_unix_nano=ZERO + start * MS,
            end_time_unix_nano=ZERO + end * MS,
            kind=kind,
        )
        span.status.code = status
        if x is not None:
            span.attributes.add(key="x").value.int_value = x
        if letter == "B":
            span.attributes.add(key="a b").value.string_value = "quoted"
            span.attributes.add(key="hit").value.bool_value = True
            for text in ("red", "blue"):
                tags = next((one for one in span.attributes if one.key == "tags"), None) or span.attributes.add(
                    key="tags"
                )
                tags.value.array_value.values.add().string_value = text
        if letter == "C":
            span.status.message = "deadlock"
            failed = span.events.add(name="exception", time_unix_nano=ZERO + 20 * MS)
            failed.attributes.add(key="exception.message").value.string_value = "lock timeout"
            span.events.add(name="done", time_unix_nano=ZERO + 25 * MS)
            link = span.links.add(trace_id=(2).to_bytes(16, "big"), span_id=b"G" * 8)
            link.attributes.add(key="why").value.string_value = "caused"
    return bytes(made.SerializeToString())


@pytest.fixture(scope="module")
def store() -> Store:
    loop = asyncio.new_event_loop()
    made = Store(TRACES, Ring(TRACES, 100, 1 << 20), None, loop)
    for letters in ("EJA", "BKC", "HGD"):
        loop.run_until_complete(made.append(request(letters)))
    loop.close()
    return made


def search(store: Store, text: str, **options: Any) -> list[Any]:
    wanted = Search(parse(text), options.pop("limit", 20), 100, **options)
    deadline = Deadline(60, SystemClock())
    with store.view(*(plan(wanted.query).key or ())) as view, store.view() as everything:
        found, _ = find(deadline, view, everything, wanted)
        return describe(deadline, everything, found, wanted)


def letters(store: Store, text: str) -> str:
    """The spans in the answer; those of different spansets of a trace apart, and of different traces further."""
    traces = []
    for one in search(store, text):
        sets = ["".join(sorted(chr(span.span_id[0]) for span in each.spans)) for each in one.spansets]
        traces.append("|".join(sets))
    return " ".join(traces)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # fields of one span
        ("{ }", "J GHK ABCDE"),
        ('{ name = "load" }', "B"),
        ("{ status = error }", "CE"),
        ("{ kind = client && span.x = 2 }", "D"),
        ("{ kind = consumer }", "J"),
        ('{ statusMessage = "deadlock" }', "C"),
        ("{ duration >= 90ms }", "G A"),
        ('{ span:id = "4242424242424242" }', "B"),
        ('{ span:parentID = "4444444444444444" }', "E"),
        ('{ trace:id = "2" }', "GHK"),
        ('{ resource.service.name =~ "we.|db" }', "J ABC"),
        ('{ resource.service.name !~ "we.*|cron" }', "CDE"),
        ('{ instrumentation:name = "lib.db" && instrumentation:version = "1.2" }', "C"),
        ('{ instrumentation.language = "python" }', "J AB"),
        ('{ span."a b" = "quoted" }', "B"),
        ("{ .x = nil }", "J GHK A"),
        ("{ span.x != nil && span.x != 2 }", "BC"),
        ("{ span.hit }", "B"),
        ("{ !span.hit }", ""),
        ("{ !(span.x = 1) }", "J GHK ADE"),
        ('{ span.tags = "red" }', "B"),
        ('{ span.tags != "green" }', "B"),
        ('{ span.tags != "red" }', ""),
        ('{ span.tags =~ "bl.*" }', "B"),
        ('{ span.tags !~ "bl.*" }', ""),
        ("{ span.x * 2 + 1 = 5 }", "DE"),
        ("{ -span.x = -1 }", "BC"),
        ("{ 2 ^ span.x = 4 && span.x % 2 = 0 }", "DE"),
        ("{ duration / 2 > 40ms }", "G A"),
        ("{ parent = nil }", "GK A"),
        # events and links
        ('{ event:name = "exception" }', "C"),
        ('{ event:name != "exception" }', "C"),
        ('{ event:name !~ "exc.*|done" }', ""),
        ('{ !(event:name = "exception") }', "J GHK ABDE"),
        ('{ event:name = "exception" && event:timeSinceStart = 5ms }', "C"),
        ('{ event:name = "exception" && event:timeSinceStart = 10ms }', ""),
        ('{ (event:name = "exception" && span.x = 1) && event:timeSinceStart = 10ms }', ""),
        ('{ event:name = "exception" && (event:timeSinceStart = 10ms || kind = client) }', "C"),
        ('{ event:name = "exception" && (event:timeSinceStart = 10ms || kind = server) }', ""),
        ('{ event:name = "exception" && !(event:timeSinceStart = 10ms) }', ""),
        ('{ event:name = "done" && event.exception.message = nil }', ""),
        ('{ event:name = "done" && event.exception.message != nil }', ""),
        ('{ (event:name = "x" || span.x = 2) && (event:name = "y" || status = error) }', "E"),
        ('{ event:name = "done" && link.why = "caused" && event:timeSinceStart = 10ms }', "C"),
        ('{ event:name != "other" }', "C"),
        ("{ event:timeSinceStart > 5ms }", "C"),
        ("{ event:timeSinceStart > 10ms }", ""),
        ('{ event.exception.message =~ "lock.*" }', "C"),
        ('{ event.exception.message != nil && link.why = "caused" }', "C"),
        ("{ event.exception.message = nil && span.x = 1 }", "B"),
        ('{ link:traceID = "2" }', "C"),
        ('{ link:spanID = "4747474747474747" }', "C"),
        # other spans of the trace
        ('{ rootName = "GET /cart" && status = error }', "CE"),
        ('{ rootServiceName = "cron" }', "GHK"),
        ("{ traceDuration > 95ms }", "ABCDE"),
        ("{ parent.span.x = 2 }", "E"),
        ('{ parent.resource.service.name = "web" }', "BCD"),
        ("{ childCount = 2 }", "A"),
        ("{ childCount = 0 && span.x != nil }", "CE"),
        ("{ nestedSetParent < 0 }", "GK A"),
        ("{ nestedSetLeft = 1 }", "G A"),
        ("{ nestedSetLeft = 5 }", "K"),
        ("{ nestedSetParent = 2 }", "C"),
        ("{ nestedSetRight = 0 }", "J"),
        # spansets
        ("{ span.x = 1 } && { span.x = 2 }", "BCDE"),
        ("{ span.x = 1 } && { span.x = 3 }", ""),
        ('{ span.x = 1 } || { name = "job" }', "G BC"),
        # && and || bind alike, from the left
        ("{ span.x = 1 || span.x = 2 && status = error }", "CE"),
        ("{ span.x = 1 || (span.x = 2 && status = error) }", "BCE"),
        ("{ status = error && span.x = 2 || span.x = 1 && kind = internal }", "BE"),
        ("{ true || false && false }", ""),
        ('{ span.x = 1 } || { name = "job" } && { kind = client }', "BCD"),
        ('{ span.x = 1 } || ({ name = "job" } && { kind = client })', "BC"),
        ('{ name = "job" } || { span.x = 1 } && { kind = server } || { name = "other" }', "K ABC"),
        ("{ } >> { status = error }", "CE"),
        ('{ name = "load" } >> { }', "C"),
        ('{ name = "GET /cart" } > { }', "BD"),
        ("{ status = error } << { }", "ABD"),
        ("{ status = error } < { }", "BD"),
        ('{ name = "load" } ~ { }', "D"),
        ('{ name = "job" } ~ { }', ""),
        ('{ name = "load" } !>> { }', "J GHK ABDE"),
        ('{ name = "GET /cart" } !> { }', "J GHK ACE"),
        ("{ status = error } !<< { }", "J GHK CE"),
        ("{ } !< { }", "J HK CE"),
        ('{ name = "load" } !~ { span.x != nil }', "BCE"),
        ('{ name = "load" } &>> { }', "BC"),
        ('{ name = "GET /cart" } &> { kind = client }', "AD"),
        ("{ status = error } &<< { kind = server }", "ACE"),
        ("{ status = error } &< { span.x = 1 }", "BC"),
        ('{ name = "load" } &~ { }', "BD"),
        ("({ } >> { status = error }) && { kind = server }", "ACE"),
        # pipelines
        ("{ } | count() > 3", "ABCDE"),
        ("count() = 3", "GHK"),
        ("{ span.x = 1 } | avg(duration) = 25ms", "BC"),
        ("{ } | max(duration) - min(duration) > 60ms", "GHK ABCDE"),
        ("{ } | sum(span.x) = 6", "ABCDE"),
        ("{ } | sum(span.x) > 6", ""),
        ("{ span.x != nil } | by(resource.service.name)", "DE|C|B"),
        ("{ } | by(resource.service.name) | count() > 1", "GHK DE|AB"),
        ("{ } | by(resource.service.name) | count() > 1 | coalesce()", "GHK ABDE"),
        ("{ } | { span.x = 1 } | { status = error }", "C"),
        ("{ span.x != nil } | { kind = internal } >> { }", "C"),
        ("({ status = error } | count() > 1) >> { }", ""),
        ("({ } | count() > 3) > { status = error }", "CE"),
    ],
)
def test_search(store: Store, query: str, expected: str) -> None:
    assert letters(store, query) == expected


def test_what_is_selected_comes_with_the_spans(store: Store) -> None:
    (found,) = search(
        store, "{ status = error } | select(resource.service.name, event:name, parent.span.x, childCount)"
    )
    by_letter = {chr(span.span_id[0]): dict(span.attributes) for span in found.spans}
    assert by_letter["C"] == {
        "status": "error",
        "service.name": "db",
        "event:name": "exception",
        "parent.x": 1,
        "childCount": 0,
    }
    assert by_letter["E"] == {"status": "error", "service.name": "pay", "parent.x": 2, "childCount": 0}


def test_spansets_say_what_makes_them(store: Store) -> None:
    found = search(store, "{ span.x != nil } | by(resource.service.name) | max(duration) > 20ms")
    assert [each.attributes for each in found[0].spansets] == [
        [("by(resource.service.name)", "pay"), ("max(duration)", "40ms")],
        [("by(resource.service.name)", "web"), ("max(duration)", "30ms")],
    ]


def test_a_trace_whose_parts_are_missing_is_told(store: Store) -> None:
    told = {one.trace_id[-1]: (one.looked_at, one.missing, one.has_root) for one in search(store, "{ }")}
    assert told == {1: (5, 0, True), 2: (3, 0, True), 3: (1, 1, False)}


def test_the_time_range_chooses_spans_of_the_answer_and_not_of_the_tree(store: Store) -> None:
    query = '{ name = "GET /cart" } >> { span.x = 2 }'
    found = search(store, query, start_ns=ZERO + 55 * MS, end_ns=ZERO + 70 * MS)
    assert [[chr(span.span_id[0]) for span in one.spans] for one in found] == [["E"]]


# --- metrics ----------------------------------------------------------------------------------------------------


def series(store: Store, text: str, step: int = 100, exemplars: int = 0) -> dict[tuple[Any, ...], list[Any]]:
    """Values by label values; four steps of 100 ms from just before A's start. None for no sample."""
    steps = Steps.over(ZERO - 100 * MS, ZERO + 300 * MS, step * MS)
    query = parse(text)
    with store.view(*(metrics.key_of(query) or ())) as view, store.view() as everything:
        found = metrics.run(Deadline(60, SystemClock()), view, everything, query, steps, exemplars)
    return {
        tuple(value for _, value in one.labels): [None if value != value else value for value in one.samples.tolist()]
        for one in found
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        # the samples at 0, 100, 200 and 300 ms: A | B C D E | G | H J K
        ("{ } | count_over_time()", {("count_over_time",): [1, 4, 1, 3]}),
        ("{ } | rate()", {("rate",): [10, 40, 10, 30]}),
        (
            "{ } | count_over_time() by (resource.service.name)",
            {("web",): [1, 1, 0, 1], ("db",): [0, 1, 0, 0], ("pay",): [0, 2, 0, 0], ("cron",): [0, 0, 1, 2]},
        ),
        ("{ } | count_over_time() by (span.x)", {(None,): [1, 0, 1, 3], (1,): [0, 2, 0, 0], (2,): [0, 2, 0, 0]}),
        (
            "{ span.x = 1 } | count_over_time() by (status, name)",
            {("unset", "load"): [0, 1, 0, 0], ("error", "SELECT"): [0, 1, 0, 0]},
        ),
        ("{ } | min_over_time(duration)", {("min_over_time",): [0.1, 0.02, 0.09, 0.01]}),
        ("{ } | max_over_time(duration)", {("max_over_time",): [0.1, 0.04, 0.09, 0.03]}),
        ("{ } | sum_over_time(span.x)", {("sum_over_time",): [None, 6, None, None]}),
        ("{ } | avg_over_time(span.x)", {("avg_over_time",): [None, 1.5, None, None]}),
        (
            "{ span.x != nil } | quantile_over_time(span.x, 0, 0.5, 1)",
            {(0.0,): [None, 1, None, None], (0.5,): [None, 1.5, None, None], (1.0,): [None, 2, None, None]},
        ),
        (
            "{ span.x != nil } | quantile_over_time(duration, 0.5) by (span.x)",
            {(1, 0.5): [None, 0.025, None, None], (2, 0.5): [None, 0.03, None, None]},
        ),
        ("{ } | histogram_over_time(span.x)", {(1.0,): [0, 2, 0, 0], (2.0,): [0, 2, 0, 0]}),
        ('{ name = "GET /cart" } | histogram_over_time(duration)', {(2**27 / 1e9,): [1, 0, 0, 0]}),
        ('{ name = "GET /cart" } >> { } | count_over_time()', {("count_over_time",): [0, 4, 0, 0]}),
        (
            "{ } | count_over_time() by (rootName)",
            {("GET /cart",): [1, 4, 0, 0], ("job",): [0, 0, 1, 2], (None,): [0, 0, 0, 1]},
        ),
        ("{ } | count() > 3 | count_over_time()", {("count_over_time",): [1, 4, 0, 0]}),
        (
            "{ } | count_over_time() by (resource.service.name) | topk(1)",
            {("web",): [1, None, None, None], ("pay",): [None, 2, None, None], ("cron",): [None, None, 1, 2]},
        ),
        (
            "{ } | count_over_time() by (resource.service.name) | bottomk(1)",
            {("cron",): [0, 0, None, None], ("db",): [None, None, 0, 0]},
        ),
        (
            "{ } | count_over_time() by (resource.service.name) >= 2",
            {("pay",): [None, 2, None, None], ("cron",): [None, None, None, 2]},
        ),
        ("{ } | rate() > 20 < 35", {("rate",): [None, None, None, 30]}),
        ("{ } | max_over_time(duration) > 95ms", {("max_over_time",): [0.1, None, None, None]}),
        ("{ span.x = 9 } | rate()", {}),
        ("({ } | rate()) / ({ } | count_over_time())", {("(rate / count_over_time)",): [10, 10, 10, 10]}),
        ("({ status = error } | rate()) - ({ } | rate()) * 2", {("(rate - rate)",): [-20, -60, -20, -60]}),
        ("100 - ({ } | count_over_time())", {("count_over_time",): [99, 96, 99, 97]}),
        ("({ } | count_over_time()) / (7 / 2)", {("count_over_time",): [1 / 3, 4 / 3, 1 / 3, 1]}),
        ("({ } | count_over_time()) / 0", {}),
        (
            "100 * ({ } | count_over_time() by (resource.service.name)) / ({ } | count_over_time())",
            {
                ("web",): [100, 25, 0, 100 / 3],
                ("db",): [0, 25, 0, 0],
                ("pay",): [0, 50, 0, 0],
                ("cron",): [0, 0, 100, 200 / 3],
            },
        ),
        (
            "({ } | count_over_time()) - ({ } | count_over_time() by (resource.service.name)) >= 3",
            {
                ("web",): [None, 3, None, None],
                ("db",): [None, 3, None, 3],
                ("pay",): [None, None, None, 3],
                ("cron",): [None, 4, None, None],
            },
        ),
        (
            "({ status = error } | rate() by (name)) / ({ } | rate() by (name)) | topk(1)",
            {("SELECT",): [None, 1, None, None]},
        ),
        (
            "({ } | count_over_time() by (span.x)) + ({ } | count_over_time() by (name))",
            {},
        ),
        (
            "(({ } | sum_over_time(span.x) by (name)) + ({ } | sum_over_time(span.x) by (name)) > 2) / 2",
            {("charge",): [None, 2, None, None], ("retry",): [None, 2, None, None]},
        ),
    ],
)
def test_metrics(store: Store, query: str, expected: dict[tuple[Any, ...], list[Any]]) -> None:
    found = series(store, query)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values), key


def compared(store: Store, text: str) -> dict[tuple[str, str], dict[Any, float]]:
    """Spans by value, by group and attribute."""
    steps = Steps.one(ZERO, ZERO + 1000 * MS)
    with store.view() as view:
        found = metrics.run(Deadline(60, SystemClock()), view, view, parse(text), steps, 0)
    made: dict[tuple[str, str], dict[Any, float]] = {}
    for one in found:
        (_, group), (name, value) = one.labels
        made.setdefault((str(group), name), {})[value] = float(one.samples[0])
    return made


def test_compare(store: Store) -> None:
    found = series(store, "{ span.x != nil } | compare({ status = error })")
    assert found["selection", 1] == [0, 1, 0, 0]
    assert found["baseline", "unset"] == [0, 1, 0, 0]
    labels = compared(store, "{ span.x != nil } | compare({ status = error })")
    assert labels["selection_total", "name"] == {None: 2}
    assert labels["baseline", "rootName"] == {"GET /cart": 2}
    assert labels["selection", "rootServiceName"] == {"web": 2}
    assert labels["selection", "instrumentation:name"] == {"lib.db": 1, "lib.pay": 1}
    assert labels["baseline", "instrumentation:version"] == {"1.2": 2}
    assert labels["baseline", "instrumentation.language"] == {"python": 1, "go": 1}
    assert compared(store, "{ } | compare({ status = error })")["baseline", "rootName"] == {"GET /cart": 3, "job": 3}
    top = series(store, "{ span.x != nil } | compare({ status = error }, 1)")
    assert ("__too_many_values__", None) in top
    none = series(store, "{ span.x != nil } | compare({ status = error }, 10, 5, 6)")
    assert not any(key[0] == "selection" for key in none)


def test_an_instant_query_has_both_ends_of_its_range(store: Store) -> None:
    steps = Steps.one(ZERO, ZERO + 200 * MS)
    query = parse("{ } | rate() by (resource.service.name)")
    with store.view() as view:
        found = metrics.run(Deadline(60, SystemClock()), view, view, query, steps, 0)
    assert {one.labels[0][1]: one.samples.tolist() for one in found} == {
        "web": [10],
        "db": [5],
        "pay": [10],
        "cron": [5],
    }


def test_exemplars_are_spans_of_their_series(store: Store) -> None:
    steps = Steps.over(ZERO - 100 * MS, ZERO + 300 * MS, 100 * MS)
    with store.view() as view:
        query = parse("{ } | max_over_time(duration) by (resource.service.name)")
        found = metrics.run(Deadline(60, SystemClock()), view, view, query, steps, 100)
    noted = {chr(each.span_id[0]): (one.labels[0][1], each) for one in found for each in one.exemplars}
    assert len(noted) >= 7
    for letter, (service, each) in noted.items():
        trace, _, _, expected, start, end, *_ = SPANS[letter]
        assert (service, each.trace_id[-1]) == (expected, trace)
        assert each.time == ZERO + start * MS
        assert each.value == pytest.approx((end - start) / 1000)
    with store.view() as view:
        halves = parse("{ } | quantile_over_time(duration, 1, .5)")
        split = {
            one.labels[0][1]: one for one in metrics.run(Deadline(60, SystemClock()), view, view, halves, steps, 100)
        }
        assert split[0.5].exemplars
        assert split[1.0].exemplars
        for each in split[0.5].exemplars:
            assert each.value <= split[0.5].samples[each.step]
        few = metrics.run(Deadline(60, SystemClock()), view, view, query, steps, 2)
    assert 1 <= sum(len(one.exemplars) for one in few) <= 2
