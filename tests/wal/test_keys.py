"""Key indexes: they name every frame that has a key, and whatever is wrong with them costs time and not answers."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from collector.otlp.block import Block
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.otlp.wire import hash_key
from collector.testing.files import FaultyFiles, MemoryFiles
from collector.testing.otlp import BUILDERS
from collector.wal import keys, merging, pruning
from collector.wal.frame import Damaged
from collector.wal.log import Log
from collector.wal.pruning import asked
from collector.wal.reading import Range
from collector.wal.segment import Segment
from tests.effort import Effort
from tests.wal.logs import DIRECTORY, RecordingLogger, append, open_log, segment_paths
from tests.wal.test_compact import compact_all, compactor

SERVICES = ("checkout", "cart", "payment")
WORD = 2**64 - 1


def otlp_log(files: Any, signal: Signal = TRACES, requests: int = 12, records: int = 24, **options: Any) -> Log:
    """A log of export requests of three services in turn, in about three segments; times are seconds."""
    log = open_log(files, signal=signal, **{"segment_bytes": 40_000, **options})
    for seed in range(requests):
        log.append([BUILDERS[signal](records, seed=seed, service=SERVICES[seed % 3])], records, seed, seed)
    log.sync()
    return log


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction leaves several frames in a segment."""
    monkeypatch.setattr(merging, "FRAME_RECORDS", 24)


def column_keys(block: Block, index: str) -> list[int | bytes]:
    """The keys of a column as queries give them."""
    column = block.column(index)
    return [row.tobytes() for row in column] if column.ndim == 2 else [int(key) for key in column]


def places(log: Log, **selection: Any) -> list[int]:
    """The base offsets of the frames that the log gives."""
    return [frame.base_offset for frame in log.frames(**selection)]


@given(st.integers(0, WORD))
def test_tokens_of_numbers_are_the_same_one_by_one_and_together(key: int) -> None:
    assert keys.tokens(np.array([key, 0], "u8")).tolist() == [keys.token(key, "service"), 0]


@given(st.binary(min_size=16, max_size=16))
def test_tokens_of_ids_are_the_same_one_by_one_and_together(key: bytes) -> None:
    assert keys.tokens(np.frombuffer(key, "u8").reshape(1, 2)).tolist() == [keys.token(key, "trace_id")]


def test_tokens_are_as_the_format_says() -> None:
    assert keys.token(1, "severity") == 0x9E3779B9
    assert keys.token(b"cart", "service") == (hash_key(b"cart") * 0x9E3779B97F4A7C15 & WORD) >> 32
    assert keys.token(bytes(16), "trace_id") == 0
    assert len({keys.token(number.to_bytes(16, "big"), "trace_id") for number in range(5000)}) == 5000
    assert len({keys.token(number, "severity") for number in range(256)}) == 256


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
@pytest.mark.usefixtures("small_frames")
def test_every_frame_with_a_key_is_named(signal: Signal) -> None:
    log = otlp_log(files := MemoryFiles(), signal, requests=24)
    compact_all(files, log)
    assert len(log.sealed_segments) > 1
    blocks = [scan(signal, frame.payload, frame.base_offset) for frame in log.frames()]
    active = log.segments[-1].base_offset
    for index in signal.indexes:
        holders: dict[int | bytes, list[int]] = {}
        for block in blocks:
            for key in set(column_keys(block, index)):
                holders.setdefault(key, []).append(block.base_offset)
        for key, expected in holders.items():
            kept = [offset for offset in expected if offset < active]
            found = places(log, index=index, any_of=[key], end_offset=active)
            assert found == kept, "exactly those: no two tokens are the same here"
            assert places(log, index=index, any_of=[key], end_offset=active, newest_first=True) == kept[::-1]
    assert places(log, index=signal.indexes[1], any_of=[12345], end_offset=active) == []
    assert log.check() == []


@pytest.mark.usefixtures("small_frames")
def test_a_query_reads_only_what_it_needs() -> None:
    memory = MemoryFiles()
    otlp_log(memory, requests=60).close()
    files = FaultyFiles(memory)
    log = open_log(files, segment_bytes=40_000)
    compact_all(memory, log)
    sealed = log.sealed_segments
    frame = next(log.frames(sealed[2].base_offset))
    trace = column_keys(scan(TRACES, frame.payload, frame.base_offset), "trace_id")[0]
    assert places(log, index="trace_id", any_of=[trace], end_offset=sealed[-1].next_offset) == [frame.base_offset]
    files.bytes_read = 0
    files.calls.clear()
    places(log, index="trace_id", any_of=[trace], end_offset=sealed[-1].next_offset)
    assert files.calls["open"] == len(sealed) + 1, "each key index, and the one segment"
    assert files.bytes_read < len(sealed) * keys.PAGE_ENTRIES * 8 + 2 * len(frame.payload)


@pytest.mark.usefixtures("small_frames")
def test_times_and_offsets_prune_as_well() -> None:
    log = otlp_log(files := MemoryFiles())
    compact_all(files, log)
    end = log.sealed_segments[-1].next_offset
    carts = places(log, index="service", any_of=[b"cart"], end_offset=end)
    assert len(carts) > 2
    assert places(log, index="service", any_of=[b"cart"], end_offset=end, start_ns=4, end_ns=4) == carts[1:2]
    assert places(log, index="service", any_of=[b"cart"], start_offset=carts[1], end_offset=carts[1] + 1) == carts[1:2]
    both = places(log, index="service", any_of=[b"cart", b"payment", b"cart"], end_offset=end)
    assert both == sorted(carts + places(log, index="service", any_of=[b"payment"], end_offset=end))
    assert places(log, index="service", any_of=[], end_offset=end) == []


def test_a_column_without_a_section_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment with too many keys, and a column that nobody has indexed."""
    monkeypatch.setattr(keys, "ENTRIES_MAX", 5)
    log = otlp_log(files := MemoryFiles())
    compact_all(files, log)
    everything = places(log)
    assert places(log, index="trace_id", any_of=[bytes(16)]) == everything
    assert places(log, index="span_id", any_of=[5]) == everything
    assert places(log, index="service", any_of=[b"nobody"]) == []
    assert log.check() == []


def test_payloads_that_do_not_scan_are_always_read() -> None:
    log = open_log(files := MemoryFiles())
    for _ in range(20):
        append(log)
    compact_all(files, log)
    assert all(one.keyed for one in log.sealed_segments)
    assert places(log, index="service", any_of=[b"cart"]) == places(log)
    assert log.check() == []


@pytest.mark.parametrize("page_entries", [1, 2, 3, 512])
@given(
    entries=st.sets(st.tuples(st.integers(0, 6) | st.sampled_from([2**32 - 2, 2**32 - 1]), st.integers(0, 9))),
    wanted=st.lists(st.integers(0, 7) | st.sampled_from([2**32 - 2, 2**32 - 1]), max_size=5),
)
def test_a_section_finds_what_a_scan_finds(page_entries: int, entries: set[tuple[int, int]], wanted: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "PAGE_ENTRIES", page_entries)
        patch.setattr(keys, "_PAGE_BYTES", page_entries * 8)
        data = np.array(sorted(token << 32 | frame for token, frame in entries), "<u8")
        table = keys._table(data)
        pages = -(-len(data) // page_entries)
        section = keys.Section(
            100, data.nbytes, np.frombuffer(table, "<u8", pages), np.frombuffer(table, "<u4", pages, pages * 8)
        )
        content = bytes(100) + data.tobytes()
        found = section.find(wanted, lambda at, length: content[at : at + length])
        assert not isinstance(found, Damaged)
        assert set(found.tolist()) == {frame for token, frame in entries if token in wanted}


# What is wrong with them


def keyed_log() -> tuple[MemoryFiles, Log, list[int], str]:
    """A compacted log, the frames that hold a key, and the key index of its first segment."""
    files = MemoryFiles()
    log = otlp_log(files, logger=RecordingLogger())
    compact_all(files, log)
    expected = places(log, index="service", any_of=[b"cart"])
    for one in log.sealed_segments:
        log.key_indexes.forget(one)
        one.keyed = None
    return files, log, expected, segment_paths(files, "keys")[0]


def wrong_bytes(data: bytes, other: bytes, bits: Sequence[int]) -> list[tuple[str, bytes]]:
    """What may be found in place of a key index: some damage, and one with each of these bits flipped."""
    found = [("of another segment", other), ("empty", b""), ("not one", b"x" * len(data)), ("longer", data + b"x" * 99)]
    for length in (1, 63, 64, 65, len(data) // 2, len(data) - 1):
        found.append((f"cut to {length}", data[:length]))
    for bit in bits:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        found.append((f"bit {bit}", bytes(flipped)))
    return found


def texts_at(data: bytes, of: Segment) -> int:
    """Where the pages of a key index begin that tell of texts, behind all others; test_texts.py is about those."""
    index = keys.decode(data, of)
    assert isinstance(index, keys.KeyIndex)
    return index.texts[0].position


@pytest.mark.usefixtures("small_frames")
def test_a_wrong_key_index_costs_no_answer(effort: Effort) -> None:
    files, log, expected, path = keyed_log()
    data = files.contents(path)
    first = log.sealed_segments[0]
    bits = effort.some(range(texts_at(data, first) * 8), 150)
    noticed = 0
    for what, found in wrong_bytes(data, files.contents(segment_paths(files, "keys")[1]), bits):
        files.put(path, found)
        first.keyed = None
        log.key_indexes.forget(first)
        for service in SERVICES:
            got = places(log, index="service", any_of=[service.encode()])
            if service == "cart":
                assert set(expected) <= set(got), what
                assert set(got) - set(expected) <= set(places(log, end_offset=first.next_offset)), what
        if first.keyed is False:
            noticed += 1
            told = log.logger.named("key index not used")[-1]  # type: ignore[attr-defined]
            assert told["path"] == path
            assert told["reason"]
    assert noticed > 20
    assert len(log.logger.named("key index not used")) == noticed, "told once each"  # type: ignore[attr-defined]
    effort.report("R4", damage="flip", segment="key index", logs=len(bits), of=len(data) * 8, bytes=len(data))


@pytest.mark.parametrize("change", ["missing", "wrong"])
def test_a_lost_key_index_is_made_anew(change: str) -> None:
    files, log, expected, path = keyed_log()
    data = files.contents(path)
    if change == "missing":
        files.unlink(path)
    else:
        files.put(path, b"RINGTKEY")
    log = open_log(files, segment_bytes=40_000, logger=log.logger)
    assert set(expected) <= set(places(log, index="service", any_of=[b"cart"]))
    assert compact_all(files, log) == 1
    assert files.contents(path) == data
    assert places(log, index="service", any_of=[b"cart"]) == expected
    assert log.check() == []
    assert compact_all(files, log) == 0


@pytest.mark.usefixtures("small_frames")
def test_a_wrong_page_is_made_anew_once_it_was_met() -> None:
    files, log, expected, path = keyed_log()
    data = files.contents(path)
    at = texts_at(data, log.sealed_segments[0])
    files.put(path, data[: at - 9] + b"x" * 9 + data[at:])
    assert compact_all(files, log) == 0, "the head is well"
    assert set(expected) <= set(places(log, index="service", any_of=[b"cart"]))
    for name in (b"POST /api/cart", b"GET /health", b"SELECT shop"):
        places(log, index="name", any_of=[name])
    assert log.sealed_segments[0].keyed is False
    assert compact_all(files, log) == 1
    assert files.contents(path) == data


def test_a_key_index_is_not_made_of_half_a_segment() -> None:
    """What cannot be read now may be readable later, and must not be missing from the index then."""
    files, log, _, path = keyed_log()
    files.unlink(path)
    segment_path = log.sealed_segments[0].path
    whole = files.contents(segment_path)
    files.put(segment_path, whole[:200] + b"x" + whole[201:])
    assert compact_all(files, log) == 1
    assert path not in segment_paths(files, "keys")
    files.put(segment_path, whole)
    assert places(log, index="service", any_of=[b"checkout"])[0] == 0


def test_retention_while_a_key_index_is_made_leaves_nothing() -> None:
    files, log, _, path = keyed_log()
    files.unlink(path)
    log._retention = pruning_retention()

    def retain(_: float) -> bool:
        log.enforce_retention()
        return False

    compactor(files, log, pause=retain).work()
    names = files.listdir(f"{DIRECTORY}/traces")
    assert [name for name in names if not name.endswith((".log", ".spare"))] == []
    assert log.segment_count == 1


def pruning_retention() -> Any:
    from collector.wal.retention import Retention

    return Retention(1)


def test_memory_of_heads_is_bounded() -> None:
    log = otlp_log(files := MemoryFiles(), requests=40)
    compact_all(files, log)
    places(log, index="service", any_of=[b"cart"])
    held = log.key_indexes.nbytes
    assert held > 5 * pruning.HEAD_OVERHEAD
    log.key_indexes._half = held // 2
    for one in log.segments:
        log.key_indexes.forget(one)
    assert log.key_indexes.nbytes == 0
    expected = places(log, index="service", any_of=[b"payment"])
    assert 0 < log.key_indexes.nbytes <= held // 2
    assert places(log, index="service", any_of=[b"payment"]) == expected


# Segments that are not compacted


def test_recent_segments_are_pruned_by_what_queries_have_learned() -> None:
    memory = MemoryFiles()
    log = otlp_log(memory, requests=21, segment_bytes=1 << 20)
    files = FaultyFiles(memory)
    log.key_indexes._files = files
    carts = [offset for offset in places(log) if offset // 24 % 3 == 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FRAME_RECORDS", 24)
        assert places(log, index="service", any_of=[b"cart"]) == carts
        files.bytes_read = 0
        assert places(log, index="service", any_of=[b"cart"], newest_first=True) == carts[::-1]
        assert files.bytes_read == 0, "nothing was appended since"
        appended = log.next_offset
        for seed in (21, 22):
            log.append([BUILDERS[TRACES](24, seed=seed, service=SERVICES[seed % 3])], 24, seed, seed)
        assert places(log, index="service", any_of=[b"cart"]) == [*carts, appended + 24]
        assert 0 < files.bytes_read < 100_000 < log.byte_size
    assert places(log, index="service", any_of=[b"cart"], start_ns=2) == [*carts[1:], appended + 24]
    assert places(log, index="service", any_of=[b"cart"], end_offset=carts[1]) == carts[:1]


class GivesUp(Exception):
    """A reader's time is over."""


@pytest.mark.usefixtures("small_frames")
def test_who_gives_up_leaves_to_the_next_one_what_was_taken_in() -> None:
    memory = MemoryFiles()
    log = otlp_log(memory, requests=21, segment_bytes=1 << 20)
    files = FaultyFiles(memory)
    log.key_indexes._files = files
    steps = iter(range(1, 1000))

    def impatient() -> None:
        if next(steps) % 4 == 0:
            raise GivesUp

    carts = asked(Range(), "service", [b"cart"], ())
    assert carts is not None
    found = None
    readers = 0
    while found is None:
        readers += 1
        try:
            found = log.key_indexes.stretches(log.segments[0], carts, impatient)
        except GivesUp:
            pass
    assert [offset for (offset, _), _ in found] == [offset for offset in places(log) if offset // 24 % 3 == 1]
    assert readers == 21 // 4 + 1, "each took in four frames more"
    assert files.bytes_read < 3 * log.byte_size


def test_who_waits_for_another_reader_may_give_up() -> None:
    log = otlp_log(MemoryFiles(), requests=6, segment_bytes=1 << 20)
    assert places(log, index="service", any_of=[b"cart"])
    [recent] = log.key_indexes._recent.values()

    def impatient() -> None:
        raise GivesUp

    carts = asked(Range(), "service", [b"cart"], ())
    assert carts is not None
    with recent._lock, pytest.raises(GivesUp):
        log.key_indexes.stretches(log.segments[0], carts, impatient)
    assert log.key_indexes.stretches(log.segments[0], carts, impatient), "nothing is to be taken in"


def test_small_frames_are_taken_together() -> None:
    log = otlp_log(MemoryFiles(), requests=6, segment_bytes=1 << 20)
    assert places(log, index="service", any_of=[b"cart"]) == places(log)
    assert places(log, index="service", any_of=[b"nobody"]) == []


def test_a_damaged_recent_segment_is_read_by_those_who_report_damage() -> None:
    files = MemoryFiles()
    log = otlp_log(files, requests=6, segment_bytes=1 << 20)
    path = segment_paths(files)[0]
    data = bytearray(files.contents(path))
    data[20_000] ^= 1
    files.put(path, bytes(data))
    found = places(log, index="service", any_of=[b"cart"])
    assert found == places(log)
    assert len(found) == 5
    assert len(log.damaged) == 1


@pytest.mark.usefixtures("small_frames")
def test_a_segment_compacted_after_its_frames_were_chosen_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames lie elsewhere by then."""
    files = MemoryFiles()
    log = otlp_log(files, requests=20)
    expected = places(log, index="service", any_of=[b"cart"])
    stretches = log.key_indexes.stretches

    def chosen_too_early(*arguments: Any) -> Any:
        found = stretches(*arguments)
        compact_all(files, log)
        return found

    monkeypatch.setattr(log.key_indexes, "stretches", chosen_too_early)
    found = list(log.frames(index="service", any_of=[b"cart"]))
    assert found[0].base_offset == expected[0]
    assert len(found) > len(expected)
    held = {offset for frame in found for offset in range(frame.base_offset, frame.end_offset)}
    assert held >= set(expected)
    assert log.damaged == ()


def test_a_device_that_refuses_costs_no_answer() -> None:
    memory = MemoryFiles()
    log = otlp_log(memory, requests=6, segment_bytes=1 << 20)
    for at in range(1, 20):
        for one in log.segments:
            log.key_indexes.forget(one)
        files = FaultyFiles(memory, {"open", "pread", "size", "close"}, at, errno.EIO)
        log.key_indexes._files = files
        assert 24 in places(log, index="service", any_of=[b"cart"])
        if not files.reached:
            break
    assert at > 2
    assert log.damaged == ()


def test_memory_of_recent_keys_goes_to_the_newest() -> None:
    log = otlp_log(MemoryFiles(), requests=60)
    places(log, index="trace_id", any_of=[b"x" * 16])
    held = log.key_indexes.nbytes
    everything = len(log.key_indexes._recent)
    log.key_indexes._half = held // 3
    for newest_first in (True, False, True):
        assert places(log, index="trace_id", any_of=[b"x" * 16], newest_first=newest_first) is not None
        assert log.key_indexes.nbytes <= held // 3
        newest = sorted(one.base_offset for one in log.segments)[-len(log.key_indexes._recent) :]
        assert sorted(log.key_indexes._recent) == newest
    assert 1 < len(log.key_indexes._recent) < everything
    assert log.enforce_retention() == 0
    compact_all(log._files, log)
    assert len(log.key_indexes._recent) <= 1, "a compacted segment has its file"


def test_a_start_removes_key_indexes_of_nothing() -> None:
    """One without a segment, and one beside a segment that is not compacted: compaction was cut before its rename."""
    log = otlp_log(files := MemoryFiles())
    name = log.sealed_segments[0].path.replace(".log", ".keys")
    files.put(name, b"x")
    files.put(f"{DIRECTORY}/traces/00000000000000000007.keys", b"x")
    log = open_log(files, segment_bytes=40_000)
    assert segment_paths(files, "keys") == []


def answers_the_same(signal: Signal, requests: list[tuple[int, int]], frame_records: int, data: st.DataObject) -> None:
    """Compacted, not compacted and active segments: every record with a key is given, whatever is left out."""
    files = MemoryFiles()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FRAME_RECORDS", frame_records)
        log = open_log(files, signal=signal, segment_bytes=data.draw(st.sampled_from([3000, 10_000, 50_000])))
        one = compactor(files, log)
        for step, (seed, count) in enumerate(requests):
            payload = BUILDERS[signal](count, seed=seed, service=SERVICES[seed % 3])
            log.append([payload], count, step * 10, step * 10 + 9)
            if data.draw(st.booleans()):
                one.work()
    index = data.draw(st.sampled_from(signal.indexes))
    blocks = [scan(signal, frame.payload, frame.base_offset) for frame in log.frames()]
    known = sorted({key for block in blocks for key in column_keys(block, index)})
    wanted = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
    low, high = sorted(data.draw(st.tuples(st.integers(0, 250), st.integers(0, 250))))
    start = data.draw(st.integers(0, log.next_offset))
    newest_first = data.draw(st.booleans())
    found: dict[bool, list[int]] = {}
    for pruned in (False, True):
        chosen = {"index": index, "any_of": wanted} if pruned else {}
        found[pruned] = [
            frame.base_offset + row
            for frame in log.frames(start, log.next_offset, low, high, newest_first, **chosen)
            for row, key in enumerate(column_keys(scan(signal, frame.payload, 0), index))
            if key in wanted
        ]
    assert found[True] == found[False]
    assert log.check() == []


logs = given(
    st.sampled_from([TRACES, LOGS, METRICS]),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12)), min_size=1, max_size=24),
    st.integers(1, 40),
    st.data(),
)
test_any_log_answers_the_same_with_and_without = settings(max_examples=100, deadline=None)(logs(answers_the_same))


def test_the_comparison_catches_an_index_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: a key index that misses the last frame of a key."""
    find = keys.Section.find

    def forgetful(self: keys.Section, wanted: int, read: Any) -> Any:
        found = find(self, wanted, read)
        return found if isinstance(found, Damaged) else found[:-1]

    monkeypatch.setattr(keys.Section, "find", forgetful)
    hurried = settings(max_examples=300, deadline=None, database=None, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        hurried(logs(answers_the_same))()
