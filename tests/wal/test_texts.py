"""Which frames may hold a text: every frame that does is named, whatever the text, the needle and the damage."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from collector.otlp.block import Block
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, TRACES
from collector.otlp.terms import TRACE, Sought, Terms
from collector.otlp.texts import ATTRIBUTE, BODY
from collector.otlp.words import fold
from collector.query.logql.labels import value_text
from collector.testing.files import FaultyFiles, MemoryFiles
from collector.testing.otlp import BUILDERS
from collector.wal import grams, keys, merging, texts
from collector.wal.compression import Unpacker
from collector.wal.frame import Damaged
from collector.wal.log import Log
from tests.effort import Effort
from tests.wal.logs import DIRECTORY, RecordingLogger, open_log, segment_paths
from tests.wal.test_compact import compact_all

LINES = (
    "order 4711 accepted, customer notified",
    "Payment of 12.50 EUR refused: 10.1.2.3",
    "GET /api/cart?id=17 status=500",
    "Zahlung für Größe L abgelehnt",
    "заказ принят",
    "在庫が不足しています",
)


def request(bodies: Sequence[str | AnyValue], **attributes: str) -> bytes:
    """An export request of a record for each body, all with these attributes."""
    made = ExportLogsServiceRequest()
    envelope = made.resource_logs.add()
    envelope.resource.attributes.append(pair("k8s.pod.name", "pod-7f9c"))
    scope = envelope.scope_logs.add()
    scope.scope.name = "shop.orders"
    for body in bodies:
        value = AnyValue(string_value=body) if isinstance(body, str) else body
        scope.log_records.add(body=value, attributes=[pair(key, text) for key, text in attributes.items()])
    return made.SerializeToString()


def spans(names: Sequence[str], **attributes: str) -> bytes:
    """An export request of a span for each name, all with these attributes, an event, a link, and a status."""
    made = ExportTraceServiceRequest()
    envelope = made.resource_spans.add()
    envelope.resource.attributes.append(pair("k8s.pod.name", "pod-7f9c"))
    scope = envelope.scope_spans.add()
    for name in names:
        span = scope.spans.add(name=name, attributes=[pair(key, text) for key, text in attributes.items()])
        span.events.add(name="ok")
        span.links.add(attributes=[pair("why", "why not")])
        span.status.message = "deadlock"
    return made.SerializeToString()


def pair(key: str, text: str) -> KeyValue:
    """An attribute."""
    return KeyValue(key=key, value=AnyValue(string_value=text))


def block(bodies: Sequence[str | AnyValue], **attributes: str) -> Block:
    """A frame's block."""
    return scan(LOGS, request(bodies, **attributes), 0)


def built(frames: Sequence[Block], frames_max: int = texts.FRAMES_MAX) -> texts.TextBuilder:
    """What a segment of these frames has."""
    builder = texts.TextBuilder(frames_max)
    for one in frames:
        builder.add(one)
    return builder


def terms_of(conjunction: Sequence[Sequence[bytes]], kind: int = BODY) -> Terms:
    """Terms of needles that bodies have inside, or attributes' values."""
    return tuple(tuple(Sought(kind, needle, whole=False) for needle in term) for term in conjunction)


def named(builder: texts.TextBuilder, conjunction: Sequence[Sequence[bytes]], kind: int = BODY) -> list[int]:
    """The frames that may hold the needles: in memory, and in sections, which must say the same."""
    what = texts.needles(terms_of(conjunction, kind))
    in_memory = builder.find(what, Unpacker()).tolist()
    found: list[int] = []
    for part in builder.encode():
        section = texts.decode(part.table, 0, len(part.pages))
        assert section is not None
        assert len(part.table) % 8 == 0
        among = np.arange(section.first, section.first + section.count, dtype=np.uint64)
        numbers = section.find(what, among, part.read, Unpacker())
        assert not isinstance(numbers, Damaged)
        found += numbers.tolist()
        for one in numbers[:1]:
            only = section.find(what, np.array([one]), part.read, Unpacker())
            assert not isinstance(only, Damaged)
            assert only.tolist() == [one]
    assert found == in_memory
    return found


# What the compiled pass makes


def grams_of(text: bytes) -> set[int]:
    """The rows of a text, as the format says."""
    folded = fold(text)
    fours = (int.from_bytes(folded[at : at + 4], "little") for at in range(len(folded) - 3))
    return long_grams_of(folded) | {gram * 0x9E3779B1 % 2**32 >> 16 for gram in fours}


def long_grams_of(folded: bytes) -> set[int]:
    """The rows of its grams of five bytes."""
    fives = (int.from_bytes(folded[at : at + 5], "little") for at in range(len(folded) - 4))
    return {65536 + (gram * 0x9E3779B97F4A7C15 % 2**64 >> 48) for gram in fives}


def test_a_set_has_the_grams_of_all_texts_and_no_others() -> None:
    held = bytearray(grams.SET_BYTES)
    assert grams.add(held, block([*LINES, "abc", ""], thread="Worker-11")) == 0
    expected = set().union(*map(grams_of, [line.encode() for line in (*LINES, "pod-7f9c", "shop.orders", "worker-11")]))
    assert set(np.flatnonzero(np.unpackbits(np.frombuffer(held, "u1"), bitorder="little")).tolist()) == expected


def test_a_set_has_the_grams_of_spans() -> None:
    payload = spans(["GET /cart", "GET /cart", "get /cart"], customer="Größe 417", route="/cart")
    held = bytearray(grams.SET_BYTES)
    assert grams.add(held, scan(TRACES, payload, 0)) == 0
    expected = set().union(
        *map(grams_of, (b"get /cart", "größe 417".encode(), b"/cart", b"pod-7f9c", b"why not", b"deadlock"))
    )
    assert set(np.flatnonzero(np.unpackbits(np.frombuffer(held, "u1"), bitorder="little")).tolist()) == expected


def test_texts_that_come_again_and_again_are_in_the_set() -> None:
    """Of those that were added before, the newest are known."""
    bodies = [f"{chr(97 + number % 26) * 4}{number:04}" for number in [*range(600), *range(600)]]
    held = bytearray(grams.SET_BYTES)
    grams.add(held, block(bodies))
    expected = set().union(*map(grams_of, [body.encode() for body in (*bodies, "pod-7f9c", "shop.orders")]))
    assert set(np.flatnonzero(np.unpackbits(np.frombuffer(held, "u1"), bitorder="little")).tolist()) == expected


@given(st.text(max_size=40))
def test_the_rows_of_a_needle_are_those_of_a_text(text: str) -> None:
    needle = fold(text.encode())
    assert {*grams.rows_of(needle), *grams.long_rows_of(needle)} == grams_of(needle)
    assert set(grams.long_rows_of(needle)) == long_grams_of(needle)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_rows_are_sets_turned_over(count: int) -> None:
    sets = bytearray(Random(count).randbytes(count * grams.SET_BYTES))
    rows = np.frombuffer(grams.transposed(sets, count), np.uint8).reshape(grams.ROWS, -1)
    bits = np.unpackbits(np.frombuffer(sets, np.uint8).reshape(count, -1), axis=1, bitorder="little")
    assert np.array_equal(np.unpackbits(rows, axis=1, count=count, bitorder="little"), bits.T)


def test_what_is_no_set_and_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match="a set of 5 bytes"):
        grams.add(bytearray(5), block(["x"]))
    for count in (0, 2):
        with pytest.raises(ValueError, match="are not"):
            grams.transposed(bytearray(grams.SET_BYTES), count)
    lying = block(["x" * 200])
    lying.payload = lying.payload[:100]
    with pytest.raises(ValueError, match="outside"):
        grams.add(bytearray(grams.SET_BYTES), lying)


# Every frame that holds a text is named

character = st.sampled_from("abcABC019 _-./:äÄßſKкИ字") | st.characters(codec="utf-8")
text = st.text(character, max_size=12)
frame_of_texts = st.lists(text, min_size=1, max_size=4)


def part_of_a_text(frames: list[list[str]], data: st.DataObject) -> None:
    """Some part of some text names its frame."""
    builder = built([block(bodies[:1] * 2, value=bodies[-1]) for bodies in frames], frames_max=5)
    for _ in range(4):
        number = data.draw(st.integers(0, len(frames) - 1))
        held = data.draw(st.sampled_from([frames[number][0], frames[number][-1]]))
        begin = data.draw(st.integers(0, len(held)))
        needle = held[begin : data.draw(st.integers(begin, len(held)))].encode()
        other = data.draw(st.sampled_from([b"nowhere", b"x", needle]))
        kind = BODY if held is frames[number][0] else ATTRIBUTE
        assert number in named(builder, [[other, fold(needle)], [needle]], kind)


of_texts = given(st.lists(frame_of_texts, min_size=1, max_size=12), st.data())
test_any_part_of_a_text_names_its_frame = of_texts(part_of_a_text)

value = st.recursive(
    st.builds(AnyValue, string_value=text)
    | st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1))
    | st.builds(AnyValue, double_value=st.floats())
    | st.builds(AnyValue, bool_value=st.booleans())
    | st.builds(AnyValue, bytes_value=st.binary(max_size=9))
    | st.just(AnyValue()),
    lambda inner: (
        st.builds(lambda values: AnyValue(array_value=ArrayValue(values=values)), st.lists(inner, max_size=3))
        | st.builds(
            lambda pairs: AnyValue(
                kvlist_value=KeyValueList(values=[KeyValue(key=key, value=held) for key, held in pairs])
            ),
            st.lists(st.tuples(text, inner), max_size=3),
        )
    ),
    max_leaves=6,
)


def part_of_a_line(bodies: list[AnyValue], data: st.DataObject) -> None:
    """Some part of a body that is shown as JSON, or as a number, names its frame."""
    builder = built([block([body, LINES[0]]) for body in bodies])
    number = data.draw(st.integers(0, len(bodies) - 1))
    line = value_text(bodies[number])
    begin = data.draw(st.integers(0, len(line)))
    needle = line[begin : data.draw(st.integers(begin, len(line)))].encode()
    assert number in named(builder, [[needle]])


of_bodies = given(st.lists(value, min_size=1, max_size=6), st.data())
test_any_part_of_a_line_names_its_frame = of_bodies(part_of_a_line)


def test_a_part_of_a_document_prunes_by_its_words() -> None:
    def document(**members: AnyValue) -> AnyValue:
        held = [KeyValue(key=key, value=one) for key, one in members.items()]
        return AnyValue(kvlist_value=KeyValueList(values=held))

    builder = built(
        [
            block([document(event=AnyValue(string_value="order accepted"), total=AnyValue(int_value=471100))]),
            block([document(event=AnyValue(string_value="order refused"))]),
            block([document(event=AnyValue(string_value='a "quoted" word'))]),
            block(["order accepted"]),
        ]
    )
    assert named(builder, [[b'"event":"order accep']]) == [0, 2]
    assert named(builder, [[b"refused"]]) == [1, 2]
    assert named(builder, [[b"total"]]) == [0, 2]
    assert named(builder, [[b"471100"]]) == [0, 1, 2], "a number may be anywhere among documents"
    assert named(builder, [[b"alse,"], [b"r acc"]]) == [0, 1, 2]
    assert named(builder, [[b"r acc"]]) == [0, 1, 2, 3], "no whole gram in a word"


def test_what_is_not_there_is_not_named() -> None:
    builder = built([block([line]) for line in LINES])
    assert named(builder, [[b"order 4711"]]) == [0]
    assert named(builder, [[b"10.1.2.3"]]) == [1]
    assert named(builder, [[b"status=500"], [b"get /api"]]) == [2]
    assert named(builder, [[b"status=500", b"refused: 1"]]) == [1, 2]
    assert named(builder, [["GRÖSSE".encode()]]) == []
    assert named(builder, [["GRÖßE".encode()]]) == [3]
    assert named(builder, [["ЗАКАЗ".encode()]]) == [4]
    assert named(builder, [["不足".encode()]]) == [5]
    assert named(builder, [[b"pod-7f9c"]]) == [0, 1, 2, 3, 4, 5]
    assert named(builder, [[b"nowhere417"]]) == []
    assert named(builder, [[b"x" * 500]]) == []


def test_a_dense_frame_has_grams_of_four_only() -> None:
    ids = [Random(number).randbytes(200).hex() for number in range(80)]
    held = bytearray(grams.SET_BYTES)
    assert grams.add(held, block(ids)) == grams.DENSE
    assert not any(held[grams.SET_BYTES // 2 :])
    builder = built([block(ids), block(["x47110 ticket-004711"]), block(["order 4711, item 0047, 0471"])])
    assert named(builder, [[ids[3][100:150].encode()]]) == [0]
    assert named(builder, [[b"ticket-004711"]]) == [1]
    assert 2 not in named(builder, [[b"004711"]]), "0047, 0471 and 4711 are not enough"
    assert named(builder, [[b"g004711"]]) == []


def test_needles_that_tell_nothing() -> None:
    builder = built([block([line]) for line in LINES])
    everything = list(range(len(LINES)))
    assert not texts.needles(())
    for term in ([b"zzz"], [b""], [b"nowhere", b"zz"], [b"nowhere%d" % number for number in range(300)]):
        assert not texts.needles(terms_of([term]))
        assert named(builder, [term]) == everything
    assert named(builder, [[b"zzz"], [b"order 4711"]]) == [0]
    assert named(builder, [[]]) == [], "nothing is one of no needles"


@pytest.mark.parametrize("broken", ["no attributes", "no documents"])
def test_a_broken_builder_is_caught(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary of the tests above."""
    add = grams.add
    if broken == "no attributes":
        monkeypatch.setattr(grams, "add", lambda held, one: add(held, scan(LOGS, without_attributes(one), 0)))
        check = of_texts(part_of_a_text)
    else:
        monkeypatch.setattr(grams, "add", lambda held, one: add(held, one) & 0)
        check = of_bodies(part_of_a_line)
    with pytest.raises(AssertionError):
        settings(max_examples=500, phases=[Phase.generate], database=None)(check)()


def without_attributes(one: Block) -> bytes:
    """The request of a block, its records' attributes left out."""
    made = ExportLogsServiceRequest.FromString(bytes(one.payload))
    for record in made.resource_logs[0].scope_logs[0].log_records:
        record.ClearField("attributes")
    return made.SerializeToString()


@given(st.binary(max_size=60), st.integers(0, 2**32))
def test_any_table_is_judged(table: bytes, length: int) -> None:
    assert texts.decode(table, 0, length) is None


def test_whatever_a_table_says_nothing_is_raised(effort: Effort) -> None:
    """Its checksum was right, and still it may say anything."""
    [part] = built([block([line]) for line in LINES]).encode()
    what = texts.needles(terms_of([[b"order 4711"]]))
    judged = 0
    for bit in effort.some(range(len(part.table) * 8), 200) + list(range(16 * 8)):
        wrong = bytearray(part.table)
        wrong[bit // 8] ^= 1 << bit % 8
        section = texts.decode(bytes(wrong), 0, len(part.pages))
        if section is None:
            continue
        judged += 1
        among = np.arange(section.first, section.first + section.count, dtype=np.uint64)
        found = section.find(what, among, part.read, Unpacker())
        if isinstance(found, Damaged):
            assert found.reason
        else:
            assert set(found.tolist()) <= set(among.tolist())
        section.rows(part.read, Unpacker())
    assert judged > 50


# In a log


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction leaves several frames in a segment."""
    monkeypatch.setattr(merging, "FRAME_RECORDS", 24)


def a_log(files: Any, **options: Any) -> Log:
    """A log of requests in several segments; each has a ticket and an attribute of its own, and one of six lines."""
    log = open_log(files, signal=LOGS, **{"segment_bytes": 12_000, **options})
    for seed in range(24):
        bodies = [f"{LINES[seed % 6]}, ticket-{own(seed, 'ticket')}", *LINES[seed % 6 : seed % 6 + 1] * 23]
        log.append([request(bodies, customer=own(seed, "customer"))], 24, seed, seed)
    log.sync()
    return log


def own(seed: int, what: str) -> str:
    """A text that only one request has."""
    return Random(f"{what} {seed}").randbytes(6).hex()


def places(log: Log, *needles: str, kind: int = BODY, **selection: Any) -> list[int]:
    """The base offsets of the frames that the log gives for a conjunction of needles."""
    terms = terms_of([[needle.encode()] for needle in needles], kind)
    return [one.base_offset for one in log.frames(terms=terms, **selection)]


def paths(files: MemoryFiles, suffix: str) -> list[str]:
    """The log's files with this suffix."""
    return segment_paths(files, suffix, f"{DIRECTORY}/logs")


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize("compacted", [True, False])
def test_only_frames_that_hold_a_text_are_read(compacted: bool) -> None:
    log = a_log(files := MemoryFiles())
    if compacted:
        compact_all(files, log)
    for seed in range(24):
        assert places(log, f"ticket-{own(seed, 'ticket')}") == [seed * 24]
        assert places(log, own(seed, "customer"), newest_first=True, kind=ATTRIBUTE) == [seed * 24]
    assert places(log, "10.1.2.3") == [offset * 24 for offset in range(1, 24, 6)]
    assert places(log, "10.1.2.3", newest_first=True, end_offset=200) == [168, 24]
    assert places(log, "10.1.2.3", start_ns=7, end_ns=13) == [168, 312]
    assert places(log, "10.1.2.3", "status") == []
    assert places(log, "not in any line") == []
    assert places(log, "10.1.2.3", index="service", any_of=[b"checkout"]) == []
    assert places(log, "10.1.2.3", index="severity", any_of=[0]) == [offset * 24 for offset in range(1, 24, 6)]
    assert places(log, "10.1.2.3", index="span_id", any_of=[0]) == [offset * 24 for offset in range(1, 24, 6)]
    assert log.check() == []


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize("compacted", [True, False])
def test_only_frames_are_read_that_hold_a_span_s_text(compacted: bool) -> None:
    log = open_log(files := MemoryFiles(), segment_bytes=12_000)
    for seed in range(24):
        log.append([spans(["GET /cart"] * 24, customer=own(seed, "customer"))], 24, seed, seed)
    log.sync()
    if compacted:
        compact_all(files, log)
        assert len(log.sealed_segments) > 1
    for seed in range(24):
        assert places(log, own(seed, "customer"), kind=ATTRIBUTE) == [seed * 24]
    assert places(log, own(3, "customer"), own(4, "customer"), kind=ATTRIBUTE) == []
    assert len(places(log, "why not", "deadlock", "pod-7f9c", kind=ATTRIBUTE)) == 24
    assert log.check() == []


@pytest.mark.usefixtures("small_frames")
def test_the_share_of_a_text() -> None:
    log = a_log(files := MemoryFiles())
    asked = terms_of([[b"10.1.2.3"]])
    assert log.share(asked) == 1, "nobody knows"
    compact_all(files, log)
    assert log.share(asked) == pytest.approx(1 / 6, rel=0.3)
    assert log.share(terms_of([[b"pod-7f9c"]])) == pytest.approx(1, abs=0.1)
    assert log.share(terms_of([[b"nowhere"]])) == 0
    assert log.share(()) == 1
    assert log.share(terms_of([[b"nowhere"]]), 0) == 1, "there is nothing to read"
    assert log.share(asked, log.next_offset, 2, 6) == 0


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize("compacted", [True, False])
def test_terms_with_ids_of_traces(compacted: bool) -> None:
    log = open_log(files := MemoryFiles(), signal=LOGS, segment_bytes=12_000)
    ids = []
    for seed in range(12):
        payload = BUILDERS[LOGS](24, seed=seed)
        ids.append(scan(LOGS, payload, 0).column("trace_id")[0].tobytes())
        payload += request([f"the trace {ids[3].hex()} again"]) if seed == 8 else b""
        log.append([payload], 24 + (seed == 8), seed, seed)
    if compacted:
        compact_all(files, log)

    def found(*conjunction: tuple[Sought, ...]) -> list[int]:
        return [one.base_offset for one in log.frames(terms=conjunction)]

    def trace(seed: int) -> Sought:
        return Sought(TRACE, ids[seed], whole=True)

    no_text = Sought(BODY, b"nowhere", whole=False)
    assert found((trace(3),)) == [72]
    assert found((trace(5), trace(3))) == [72, 120]
    assert found((trace(5), trace(3)), (trace(5),)) == [120]
    assert found((trace(5),), (trace(3),)) == []
    assert found((trace(3),), (no_text,)) == []
    assert found((trace(3), no_text)) == [72], "of either kind"
    in_text = Sought(BODY, ids[3].hex().encode(), whole=False)
    assert found((trace(3), in_text)) == [72, 192]
    assert found((trace(3), in_text), (trace(8), no_text)) == [192]
    assert found((trace(3), in_text), (trace(5),)) == []
    assert found((trace(3), in_text, trace(5))) == [72, 120, 192]
    assert found((trace(3), in_text), (no_text,)) == []
    assert len(found((trace(3), Sought(BODY, b"x", whole=False)))) == 12, "too short a text"
    assert found((trace(3), Sought(BODY, b"x", whole=False)), (trace(5), no_text)) == [120]


@pytest.mark.usefixtures("small_frames")
def test_a_lookup_reads_little() -> None:
    memory = MemoryFiles()
    a_log(memory).close()
    files = FaultyFiles(memory)
    log = open_log(files, signal=LOGS, segment_bytes=12_000)
    compact_all(memory, log)
    sealed = log.sealed_segments
    assert len(sealed) > 1
    assert places(log, "nowhere at all", end_offset=sealed[-1].next_offset) == []
    files.bytes_read = 0
    files.calls.clear()
    assert places(log, "nowhere at all", end_offset=sealed[-1].next_offset) == []
    assert files.calls["open"] == len(sealed)
    assert files.bytes_read < len(sealed) * 4096


def test_a_key_index_of_an_earlier_version_tells_nothing_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    log = a_log(files := MemoryFiles())
    with monkeypatch.context() as patch:
        patch.setattr(texts, "has_texts", lambda signal: False)
        compact_all(files, log)
        older = {path: files.contents(path) for path in paths(files, "keys")}
    log = open_log(files, signal=LOGS, segment_bytes=12_000)
    end = log.sealed_segments[-1].next_offset
    everything = places(log, end_offset=end)
    assert places(log, "nowhere at all", end_offset=end) == everything
    assert places(log, "nowhere at all", end_offset=end, index="service", any_of=[b"nobody"]) == []
    assert compact_all(files, log) == 0, "they are well"
    assert {path: files.contents(path) for path in paths(files, "keys")} == older
    assert log.check() == []
    for path in older:
        files.unlink(path)
    log = open_log(files, signal=LOGS, segment_bytes=12_000)
    assert compact_all(files, log) == len(older)
    assert places(log, "nowhere at all", end_offset=end) == []


def test_data_points_have_no_texts() -> None:
    log = open_log(files := MemoryFiles(), signal=METRICS, segment_bytes=12_000)
    for seed in range(12):
        log.append([BUILDERS[METRICS](24, seed=seed)], 24, seed, seed)
    compact_all(files, log)
    assert len(log.sealed_segments) > 0
    everything = [one.base_offset for one in log.frames()]
    assert [one.base_offset for one in log.frames(terms=terms_of([[b"nowhere"]]))] == everything


def test_payloads_that_do_not_scan_are_always_read() -> None:
    log = open_log(files := MemoryFiles(), signal=LOGS, segment_bytes=12_000)
    for seed in range(24):
        log.append([request(LINES * 20) if seed % 2 else b"no request" * 50], 120 if seed % 2 else 1, seed, seed)
    compact_all(files, log)
    end = log.sealed_segments[-1].next_offset
    assert end > 0
    assert places(log, "nowhere at all", end_offset=end) == places(log, end_offset=end)


@pytest.mark.usefixtures("small_frames")
def test_a_wrong_section_costs_no_answer_and_is_told_once(effort: Effort) -> None:
    files = MemoryFiles()
    log = a_log(files, logger=RecordingLogger())
    compact_all(files, log)
    path = paths(files, "keys")[0]
    data = files.contents(path)
    first = log.sealed_segments[0]
    judged = keys.decode(data, first)
    assert not isinstance(judged, Damaged)
    [section] = judged.texts
    ticket = f"ticket-{own(3, 'ticket')}"
    rows = grams.long_rows_of(ticket.encode())
    pages = {row // section.page_rows for row in rows}
    places_of = [(int(section.ends[page - 1]) if page else 0, int(section.ends[page])) for page in sorted(pages)]
    at = [section.position + byte for begin, end in places_of for byte in range(begin, end)]
    bits = effort.some([byte * 8 + bit for byte in at for bit in range(8)], 60)
    told = log.logger.named("key index not used")
    for bit in bits:
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        files.put(path, bytes(wrong))
        first.keyed = None
        log.key_indexes.forget(first)
        for _ in range(2):
            assert 72 in places(log, ticket)
        assert first.keyed is False
        assert len(log.logger.named("key index not used")) - len(told) == 1, "told once"
        assert log.logger.named("key index not used")[-1]["reason"] == "key index page checksum mismatch"
        told = log.logger.named("key index not used")
    assert compact_all(files, log) == 1
    assert files.contents(path) == data
    assert places(log, ticket) == [72]


@pytest.mark.usefixtures("small_frames")
def test_recent_segments_learn_texts_when_somebody_asks() -> None:
    memory = MemoryFiles()
    log = a_log(memory, segment_bytes=1 << 20)
    assert places(log, index="severity", any_of=[5]) == []
    without = log.key_indexes.nbytes
    files = FaultyFiles(memory)
    log.key_indexes._files = files
    assert places(log, own(7, "ticket")) == [168]
    assert log.key_indexes.nbytes >= without + 24 * grams.SET_BYTES
    files.bytes_read = 0
    assert places(log, own(8, "ticket")) == [192]
    assert places(log, index="severity", any_of=[5]) == []
    assert files.bytes_read == 0, "nothing was appended since"
    log.append([request([f"{own(7, 'ticket')} again"])], 1, 30, 30)
    assert places(log, own(7, "ticket")) == [168, 576]


def test_several_sections_tell_of_all_frames() -> None:
    builder = built([block([own(number, "frame")]) for number in range(20)], frames_max=8)
    assert len(builder.encode()) == 3
    assert builder.nbytes < 20 * grams.SET_BYTES
    for number in range(20):
        assert named(builder, [[own(number, "frame").encode()]]) == [number]
