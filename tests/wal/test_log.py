"""The log while nothing goes wrong: offsets, segments, reading, retention, figures."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from collector.errors import NotFound, TooLarge, Unavailable
from collector.otlp.signals import LOGS, SIGNALS
from collector.testing.files import FaultyFiles, MemoryFiles
from collector.wal import frame, index
from collector.wal.files import BLOCK_BYTES
from collector.wal.log import SEGMENT_BYTES_MAX, Log
from collector.wal.metrics import LogMetrics
from collector.wal.readable import TIME_MAX
from collector.wal.reader import READ_AHEAD
from tests.wal.logs import (
    DIRECTORY,
    FakeClock,
    RecordingLogger,
    append,
    content,
    open_log,
    payload,
    segment_paths,
)


def offsets(log: Log, *arguments: int, newest_first: bool = False) -> list[int]:
    """Base offsets of the frames that `frames` gives."""
    return [found.base_offset for found in log.frames(*arguments, newest_first=newest_first)]


def test_an_empty_log() -> None:
    log = open_log(MemoryFiles())
    assert (log.first_offset, log.next_offset, log.segment_count) == (0, 0, 1)
    assert content(log) == []
    assert log.check() == []
    with pytest.raises(NotFound, match="offset 0 is not in the log of traces, which has 0 to before 0"):
        log.read(0)


def test_offsets_grow_by_the_records_of_each_frame() -> None:
    log = open_log(MemoryFiles())
    assert [append(log, count) for count in (1, 3, 2)] == [0, 1, 4]
    assert log.next_offset == 6
    assert content(log) == [(0, 1, payload(0, 1)), (1, 3, payload(1, 3)), (4, 2, payload(4, 2))]


def test_pieces_of_any_kind_become_one_payload() -> None:
    log = open_log(MemoryFiles())
    log.append([b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3], b""], 1, 0, 0)
    log.append([], 1, 0, 0)
    log.append([b"%d," % n for n in range(3000)], 1, 0, 0)
    assert [found.payload for found in log.frames()] == [
        b"abcdef",
        b"",
        b"".join(b"%d," % n for n in range(3000)),
    ]


def test_any_offset_of_a_frame_finds_it() -> None:
    log = open_log(MemoryFiles())
    for count in (2, 1, 3, 1, 2, 4, 1, 1, 2):
        append(log, count)
    for offset in range(log.next_offset):
        found = log.read(offset)
        assert found.base_offset <= offset < found.end_offset
    for offset in (log.next_offset, 2**63):
        with pytest.raises(NotFound):
            log.read(offset)


def test_segments_roll_before_they_grow_too_large() -> None:
    files = MemoryFiles()
    log = open_log(files)
    for _ in range(13):
        append(log)
    paths = segment_paths(files)
    assert [path[-24:] for path in paths] == [f"{base:020d}.log" for base in (0, 5, 10)]
    assert all(len(files.contents(path)) <= 600 for path in paths[:-1])
    assert len(files.contents(paths[-1])) == BLOCK_BYTES, "the active one is written in blocks"
    assert [path[-26:] for path in segment_paths(files, "index")] == [f"{base:020d}.index" for base in (0, 5)]


def test_a_frame_larger_than_a_segment_gets_one_of_its_own() -> None:
    log = open_log(MemoryFiles())
    for size in (24, 5000, 24, 5000, 5000):
        append(log, size=size)
    assert log.segment_count == 5
    assert [len(found.payload) for found in log.frames()] == [24, 5000, 24, 5000, 5000]


def test_a_segment_never_spans_more_offsets_than_its_index_can_tell() -> None:
    log = open_log(MemoryFiles())
    for _ in range(3):
        log.append([b"x"], 2**31, 0, 0)
    assert log.segment_count == 3
    assert offsets(log) == [0, 2**31, 2**32]


def test_frames_are_chosen_by_offset() -> None:
    log = open_log(MemoryFiles())
    for count in (2, 3, 1, 2, 2, 3, 1):
        append(log, count)
    bases = offsets(log)
    ends = [*bases[1:], log.next_offset]
    for start in range(log.next_offset + 2):
        for end in range(log.next_offset + 2):
            expected = [b for b, e in zip(bases, ends, strict=True) if max(b, start) < min(e, end)]
            assert offsets(log, start, end) == expected
            assert offsets(log, start, end, newest_first=True) == expected[::-1]


def test_frames_are_chosen_by_time_with_both_ends_included() -> None:
    log = open_log(MemoryFiles())
    times = [(5, 9), (0, 2), (7, 7), (3, 20), (20, 21), (8, 10), (1, 1), (0, TIME_MAX)]
    for low, high in times:
        append(log, times=(low, high))
    for start in range(23):
        for end in range(start, 23):
            expected = [n for n, (low, high) in enumerate(times) if low <= end and high >= start]
            assert offsets(log, 0, TIME_MAX, start, end) == expected
            assert offsets(log, 0, TIME_MAX, start, end, newest_first=True) == expected[::-1]


def test_payloads_out_of_range_are_not_read() -> None:
    files = FaultyFiles(MemoryFiles())
    log = open_log(files, segment_bytes=64 * 1024 * 1024)
    for _ in range(20):
        append(log, size=200_000)
    files.bytes_read = 0
    assert offsets(log, 7, 8) == [7]
    assert files.bytes_read < 300_000, "one payload and a few headers"
    files.bytes_read = 0
    assert offsets(log, 0, TIME_MAX, 3, 4, newest_first=True) == [4, 3]
    assert files.bytes_read < 2 * 200_000 + 10_000 + 2 * READ_AHEAD, "two payloads, and headers"
    files.bytes_read = 0
    assert len(offsets(log)) == 20
    assert files.bytes_read < 20 * 200_000 + 10_000 + 2 * READ_AHEAD, "nothing is read twice"
    files.bytes_read = 0
    assert offsets(log, 0, TIME_MAX, 30, 40) == []
    assert files.bytes_read == 0, "the segment is passed by its time range"


def test_small_frames_are_read_many_at_a_time() -> None:
    files = FaultyFiles(MemoryFiles())
    log = open_log(files, segment_bytes=64 * 1024 * 1024)
    for _ in range(1000):
        append(log)
    files.calls.clear()
    assert len(offsets(log)) == 1000
    assert files.calls["pread"] < 10


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_point_read_starts_near_its_offset(monkeypatch: pytest.MonkeyPatch, newest_first: bool) -> None:
    monkeypatch.setattr(index, "STRETCH_BYTES", 300)
    files = FaultyFiles(MemoryFiles())
    log = open_log(files, segment_bytes=1024 * 1024)
    for _ in range(2000):
        append(log)
    files.calls.clear()
    assert offsets(log, 1700, 1703, newest_first=newest_first) == sorted([1700, 1701, 1702], reverse=newest_first)
    assert files.calls["pread"] <= 3
    assert log.check() == []


def test_readers_open_and_close_their_own_files() -> None:
    files = MemoryFiles()
    log = open_log(files)
    for _ in range(12):
        append(log)
    open_before = files.open_handles
    reading = log.frames()
    next(reading)
    assert files.open_handles == open_before + 1
    reading.close()
    assert files.open_handles == open_before
    log.close()
    assert files.open_handles == 0
    assert len(content(log)) == 12, "a closed log can still be read"


def test_a_reader_sees_what_is_appended_while_it_reads_whole_or_not_at_all() -> None:
    log = open_log(MemoryFiles())
    append(log)
    reading = log.frames()
    seen = [next(reading)]
    for _ in range(10):
        append(log)
        seen += [found for found in [next(reading, None)] if found]
    assert [found.base_offset for found in seen] == list(range(len(seen)))


def test_retention_by_bytes_removes_whole_segments_but_never_the_active_one() -> None:
    files = MemoryFiles()
    log = open_log(files, retention_bytes=1300)
    for _ in range(22):
        append(log)
    assert log.segment_count == 5
    assert log.enforce_retention() == 3
    assert (log.first_offset, log.next_offset, log.segment_count) == (15, 22, 2)
    assert log.byte_size <= 1300
    assert len(segment_paths(files)) == 2
    assert len(segment_paths(files, "index")) == 1
    assert offsets(log) == list(range(15, 22))
    with pytest.raises(NotFound):
        log.read(14)
    log.close()
    tiny = open_log(files, retention_bytes=1)
    tiny.enforce_retention()
    assert tiny.segment_count == 1
    assert (tiny.first_offset, tiny.next_offset) == (20, 22)
    assert tiny.check() == []


def test_retention_by_age_counts_from_the_newest_frame_of_a_segment() -> None:
    clock = FakeClock()
    log = open_log(MemoryFiles(), clock=clock, retention_age_s=100)
    for _ in range(5):
        append(log)
        clock.pass_time(20)
    append(log)
    assert log.segment_count == 2
    clock.pass_time(80)
    assert log.enforce_retention() == 0, "the fifth frame is 100 seconds old"
    clock.pass_time(1)
    assert log.enforce_retention() == 1
    clock.pass_time(10_000)
    assert log.enforce_retention() == 0
    assert log.first_offset == 5


@pytest.mark.parametrize("jump_ns", [400 * 86400 * 10**9, -400 * 86400 * 10**9])
def test_a_jump_of_the_wall_clock_expires_nothing_and_keeps_nothing_for_ever(jump_ns: int) -> None:
    clock = FakeClock()
    log = open_log(MemoryFiles(), clock=clock, retention_age_s=100)
    for _ in range(6):
        append(log)
    clock.wall_ns += jump_ns
    assert log.enforce_retention() == 0
    clock.pass_time(101)
    assert log.enforce_retention() == 1


def test_readers_of_a_removed_segment_finish_or_find_it_gone() -> None:
    log = open_log(MemoryFiles(), retention_bytes=1)
    for _ in range(12):
        append(log)
    inside, before = log.frames(), log.frames()
    assert next(inside).base_offset == 0
    next(before)
    assert log.enforce_retention() == 2
    assert [found.base_offset for found in inside] == [1, 2, 3, 4, 10, 11], "the open segment, then what is left"


def test_a_removal_that_fails_is_tried_again_later() -> None:
    clock, logger = FakeClock(), RecordingLogger()
    files = FaultyFiles(MemoryFiles(), {"unlink"}, 1)
    log = open_log(files.inner)
    for _ in range(7):
        append(log)
    log.close()
    log = open_log(files, clock=clock, logger=logger, retention_bytes=1)
    assert log.enforce_retention() == 0
    assert [fields["error"] for fields in logger.named("segment not removed")]
    assert log.enforce_retention() == 0, "not at once"
    assert log.failed is None
    clock.pass_time(61)
    assert log.enforce_retention() == 1


def test_figures() -> None:
    registry = CollectorRegistry()
    log = open_log(MemoryFiles(), metrics=LogMetrics(registry))
    for count in (1, 2, 3, 1, 1, 1, 1):
        append(log, count)
    log.sync()
    log.sync()
    labels = {"signal": "traces"}
    assert log.stats() == {"first_offset": 0, "next_offset": 10, "segments": 2, "bytes": 7 * 88 + 2 * 128}
    assert registry.get_sample_value("ringtail_wal_appended_records_total", labels) == 10
    assert registry.get_sample_value("ringtail_wal_appended_bytes_total", labels) == 7 * 88
    assert registry.get_sample_value("ringtail_wal_fsync_duration_seconds_count", labels) == 1
    assert registry.get_sample_value("ringtail_wal_failed", labels) == 0
    for name in ("truncated_bytes", "damaged_records", "index_rebuilds"):
        assert registry.get_sample_value(f"ringtail_wal_{name}_total", labels) == 0


def test_what_is_synced_is_told() -> None:
    log = open_log(MemoryFiles())
    append(log)
    assert log.synced_offset == 0
    log.sync()
    assert log.synced_offset == 1
    for _ in range(5):
        append(log)
    assert log.synced_offset == 5, "sealing a segment syncs it"
    log.close()
    assert log.synced_offset == 6


def test_a_closed_log_refuses_to_write() -> None:
    files = MemoryFiles()
    log = open_log(files)
    append(log)
    log.close()
    log.close()
    assert len(files.contents(segment_paths(files)[0])) == 128 + 88, "no allocated zeros are left"
    for call in (log.sync, lambda: append(log)):
        with pytest.raises(Unavailable, match="the log of traces is closed"):
            call()


def test_logs_of_all_signals_share_a_directory_and_a_registry() -> None:
    files = MemoryFiles()
    metrics = LogMetrics(CollectorRegistry())
    logs = {signal: open_log(files, signal=signal, metrics=metrics) for signal in SIGNALS}
    for count, log in enumerate(logs.values(), 1):
        append(log, count)
    assert sorted(files.listdir(DIRECTORY)) == ["logs", "metrics", "traces"]
    assert [log.next_offset for log in logs.values()] == [1, 2, 3]
    logs[LOGS].close()
    assert open_log(files, signal=LOGS).next_offset == 2


def test_what_cannot_be_a_frame_is_refused_and_the_log_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(MemoryFiles())
    for count, low, high in ((0, 0, 0), (1, 5, 4), (1, 0, 2**64), (1, -1, 0)):
        with pytest.raises(ValueError, match=r"."):
            log.append([b"x"], count, low, high)
    monkeypatch.setattr(frame, "PAYLOAD_BYTES_MAX", 10)
    with pytest.raises(TooLarge, match="11 bytes of records at once; the log takes 10"):
        log.append([b"x" * 11], 1, 0, 0)
    assert log.next_offset == 0
    append(log, size=10)
    assert log.check() == []


@pytest.mark.parametrize("segment_bytes", [0, 128, SEGMENT_BYTES_MAX + 1])
def test_a_segment_size_that_cannot_work_is_refused(segment_bytes: int) -> None:
    with pytest.raises(ValueError, match=f"segment_bytes is {segment_bytes}"):
        open_log(MemoryFiles(), segment_bytes=segment_bytes)


def test_reopening_continues_the_last_segment() -> None:
    files = MemoryFiles()
    for turn in range(5):
        log = open_log(files)
        assert log.recovery.records == log.next_offset == turn
        append(log)
        if turn % 2:
            log.close()
    assert len(segment_paths(files)) == 1
    assert content(open_log(files)) == [(n, 1, payload(n, 1)) for n in range(5)]


def test_check_finds_a_figure_that_is_wrong() -> None:
    """The canary of `check`."""
    log = open_log(MemoryFiles())
    for _ in range(7):
        append(log)
    assert log.check() == []
    log.segments[0].max_time += 1
    log._next_offset += 1
    assert len(log.check()) == 2
