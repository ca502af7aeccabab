"""Compaction: the same records in fewer bytes, in one step, and never instead of keeping them."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal
from collector.testing.files import READING, SHORT, WRITING, FaultyFiles, MemoryFiles, keep_all, lose_all
from collector.testing.otlp import BUILDERS
from collector.wal import merging, segment
from collector.wal.compactor import PAUSE_S, RETRY_S, SHARE, Compactor
from collector.wal.files import Files, OperatingSystemFiles
from collector.wal.frame import Frame
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from collector.wal.segment import SegmentHeader
from tests.wal.logs import DIRECTORY, FakeClock, append, exchange_files, open_log, payload, segment_paths

CALLS_MAX = 500
OPERATIONS = (WRITING | READING | {"close"}) - {"mkdir", "listdir", "allocate", "truncate", "size"}


def compactor(files: Files, *logs: Log, **options: Any) -> Compactor:
    """A compactor that rests no time."""
    arguments: dict[str, Any] = {"metrics": LogMetrics(CollectorRegistry()), "pause": lambda seconds: False}
    return Compactor(lambda: logs, files=files, **(arguments | options))


def compact_all(files: Files, *logs: Log, **options: Any) -> int:
    """Compact whatever can be; returns how often something was tried."""
    one = compactor(files, *logs, **options)
    for tried in range(CALLS_MAX):
        if not one.work():
            return tried
    raise AssertionError("the compactor never ends")


def flat(frames: list[Frame]) -> list[tuple[int, int, bytes]]:
    """(first offset, end offset, payload) of every run of frames that follow each other: what merging keeps."""
    runs: list[tuple[int, int, bytes]] = []
    for one in frames:
        if runs and runs[-1][1] == one.base_offset:
            first, _, data = runs.pop()
            runs.append((first, one.end_offset, data + one.payload))
        else:
            runs.append((one.base_offset, one.end_offset, one.payload))
    return runs


def a_log(files: Files, frames: int = 12, **options: Any) -> Log:
    """A log with two or three sealed segments of frames that compress well."""
    log = open_log(files, **{"segment_bytes": 2000, **options})
    for step in range(frames):
        append(log, 1 + step % 3, size=400)
    log.sync()
    return log


@pytest.mark.parametrize("signal", [TRACES, LOGS, METRICS], ids=lambda signal: signal.name)
def test_the_same_records_in_a_fraction_of_the_bytes(signal: Signal) -> None:
    files = MemoryFiles()
    log = open_log(files, signal=signal, segment_bytes=150_000)
    for seed in range(16):
        data = BUILDERS[signal](100, seed=seed)
        log.append([data], 100, seed * 10, seed * 10 + 9)
    before = list(log.frames())
    size = log.byte_size
    facts = (log.first_offset, log.next_offset, log.record_count, log.segment_count)
    assert compact_all(files, log) == log.segment_count - 1
    assert log.check() == []
    after = list(log.frames())
    assert flat(after) == flat(before)
    assert len(after) < len(before)
    assert (log.first_offset, log.next_offset, log.record_count, log.segment_count) == facts
    active = log.segments[-1].size
    assert log.byte_size - active < 0.25 * (size - active)
    for one in after:
        assert scan(signal, one.payload, one.base_offset).count == one.count
    for one in (log, open_log(files, signal=signal)):
        [found] = one.frames(150, 151)
        assert found.base_offset < 100
        assert (found.min_time, found.max_time) == (found.base_offset // 10, found.end_offset // 10 - 1)
        assert flat(list(one.frames())) == flat(before)
        assert one.check() == []
    assert one.recovery.rebuilt_indexes == 0


def test_frames_are_merged_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "FRAME_BYTES", 1000)
    monkeypatch.setattr(merging, "FRAME_RECORDS", 8)
    files = MemoryFiles()
    log = open_log(files, segment_bytes=100_000)
    for count, size in [
        (1, 300),
        (2, 300),
        (1, 400),
        (1, 1),
        (7, 100),
        (1, 100),
        (9, 100),
        (1, 5000),
        (1, 10),
        (3, 10),
    ]:
        append(log, count, size)
    append(log, 1, 100_000)
    compact_all(files, log)
    assert [(frame.base_offset, frame.count) for frame in log.frames()][:-1] == [
        (0, 4),  # 1000 bytes
        (4, 8),  # 8 records
        (12, 1),
        (13, 9),  # larger than any that are merged
        (22, 1),
        (23, 4),
    ]
    assert log.check() == []


def test_what_does_not_get_smaller_is_merged_and_not_compressed() -> None:
    files = MemoryFiles()
    log = open_log(files, segment_bytes=330)
    noise = random.Random(1).randbytes(60)
    log.append([noise[:30]], 1, 0, 0)
    log.append([noise[30:]], 1, 0, 0)
    append(log)
    compact_all(files, log)
    assert [frame.payload for frame in log.frames(0, 2)] == [noise]
    assert log.check() == []


def test_times_of_a_merged_frame_cover_those_of_its_parts() -> None:
    files, clock = MemoryFiles(), FakeClock()
    log = open_log(files, segment_bytes=600, clock=clock, retention_age_s=10.0)
    for low, high in [(50, 60), (10, 90), (20, 30)]:
        append(log, times=(low, high))
        clock.pass_time(5.0)
    append(log, size=600)
    compact_all(files, log)
    [merged] = log.frames(0, 3)
    assert (merged.min_time, merged.max_time) == (10, 90)
    assert merged.append_time == 1_700_000_000_000_000_000 + 10 * 10**9
    assert log.enforce_retention() == 0, "as old as its newest part"
    clock.pass_time(6.0)
    assert log.enforce_retention() == 1


def test_a_compacted_segment_is_told_by_its_header() -> None:
    files = MemoryFiles()
    log = a_log(files)
    path = segment_paths(files)[0]
    before = segment.decode_header(files.contents(path), path)
    size = len(files.contents(path))
    compact_all(files, log)
    after = segment.decode_header(files.contents(path), path)
    assert isinstance(before, SegmentHeader)
    assert isinstance(after, SegmentHeader)
    assert (after.compacted, after.original_size, before.compacted) == (True, size, False)
    assert after.nonce != before.nonce
    assert (after.created, after.predecessor) == (before.created, before.predecessor)
    assert compact_all(files, log) == 0, "once is enough"
    assert compact_all(files, open_log(files)) == 0


def test_retention_counts_what_is_left() -> None:
    files = MemoryFiles()
    log = a_log(files, 20, retention_bytes=6000)
    assert log.byte_size > 6000
    compact_all(files, log)
    assert log.byte_size < 6000
    assert log.byte_size == sum(len(files.contents(path)) for path in segment_paths(files)[:-1]) + (
        log.segments[-1].size
    )
    assert log.enforce_retention() == 0
    for _ in range(8):
        append(log, size=1500)
    assert log.enforce_retention() > 0
    assert log.check() == []
    assert {path.rpartition(".")[0] for path in segment_paths(files, "index")} <= {
        path.rpartition(".")[0] for path in segment_paths(files)
    }


def test_a_reader_finishes_on_the_file_it_began_with() -> None:
    files = MemoryFiles()
    log = a_log(files)
    expected = flat(list(log.frames()))
    reading = log.frames()
    begun = [next(reading)]
    compact_all(files, log)
    assert flat([*begun, *reading]) == expected


def test_a_reader_that_comes_late_reads_the_new_file() -> None:
    """It has the segments of before, and opens the files of after."""
    files = MemoryFiles()
    log = a_log(files)
    expected = flat(list(log.frames()))
    old = log.sealed_segments
    reading = log.frames(newest_first=True)
    begun = [next(reading)]
    compact_all(files, log)
    found = [*begun, *reading]
    assert flat(found[::-1]) == expected
    assert [one.latest for one in old] == list(log.sealed_segments)
    assert log.damaged == ()


def test_retention_may_be_faster() -> None:
    """It removes the segment while it is being compacted: nothing comes back."""
    files = MemoryFiles()
    log = a_log(files, retention_bytes=None)
    newest = log.sealed_segments[-1]

    def retain(_: float) -> bool:
        log._retention = module_retention(1)
        log.enforce_retention()
        return False

    one = compactor(files, log, pause=retain)
    assert one.work()
    assert not one.work()
    assert log.segment_count == 1
    assert newest.path not in segment_paths(files)
    assert [name for name in files.listdir(f"{DIRECTORY}/traces") if not name.endswith(".spare")] == [
        log.segments[-1].path.rpartition("/")[2]
    ]
    assert log.check() == []


def module_retention(max_bytes: int) -> Any:
    from collector.wal.retention import Retention

    return Retention(max_bytes)


def test_it_stops_when_told_and_leaves_nothing() -> None:
    files = MemoryFiles()
    log = a_log(files)
    names = set(files.listdir(f"{DIRECTORY}/traces"))
    for steps in range(CALLS_MAX):
        left = [steps]

        def pause(_: float, left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] < 0

        one = compactor(files, log, pause=pause)
        one.work()
        if left[0] >= 0:
            break
        assert set(files.listdir(f"{DIRECTORY}/traces")) == names
    assert steps > 1
    assert log.sealed_segments[-1].compacted


def test_it_rests_in_proportion_to_its_work() -> None:
    files, clock = MemoryFiles(), FakeClock()
    log = a_log(files, clock=clock)
    rests: list[float] = []

    class Slow(MemoryFiles):
        """Every read takes 10 ms."""

        def pread(self, handle: int, length: int, position: int) -> bytes:
            clock.pass_time(0.01)
            return super().pread(handle, length, position)

    slow = Slow()
    slow._root, slow._open = files._root, files._open
    one = compactor(slow, log, pause=lambda seconds: bool(rests.append(seconds)))
    started = clock.seconds
    one.work()
    assert sum(rests) == pytest.approx((clock.seconds - started) * (1 / SHARE - 1), rel=0.2)
    assert max(rests) <= 1.0


def test_logs_take_turns_and_the_newest_segment_goes_first() -> None:
    files = MemoryFiles()
    logs = [a_log(files, signal=signal) for signal in (TRACES, LOGS)]
    one = compactor(files, *logs)
    newest = [log.sealed_segments[-1] for log in logs]
    assert one.work()
    assert one.work()
    assert [log.sealed_segments[-1].compacted for log in logs] == [True, True]
    assert [one.latest.compacted for one in newest] == [True, True]
    assert not logs[0].sealed_segments[0].compacted


def test_a_damaged_segment_is_left_alone() -> None:
    files = MemoryFiles()
    log = a_log(files, 20)
    sealed = log.sealed_segments
    path = sealed[1].path
    data = bytearray(files.contents(path))
    data[700] ^= 1
    files.put(path, bytes(data))
    metrics = LogMetrics(CollectorRegistry())
    assert compact_all(files, log, metrics=metrics) == len(sealed)
    assert files.contents(path) == bytes(data)
    assert [one.compacted for one in log.sealed_segments] == [one is not sealed[1] for one in sealed]
    assert metrics.of(TRACES).compaction_failures._value.get() == 1
    [told] = log.logger.named("segment not compacted")
    assert told["path"] == path
    assert "damaged" in told["reason"]


def test_a_segment_without_a_good_header_is_left_alone() -> None:
    files = MemoryFiles()
    log = a_log(files)
    path = log.sealed_segments[0].path
    files.put(path, b"x" + files.contents(path)[1:])
    compact_all(files, log)
    assert not log.sealed_segments[0].compacted
    assert compact_all(files, open_log(files, segment_bytes=2000)) == 1, "nor after a restart"


def test_the_thread_compacts_and_ends(tmp_path: Path) -> None:
    files = OperatingSystemFiles()
    log = a_log(files, directory=str(tmp_path))
    expected = flat(list(log.frames()))
    one = Compactor(lambda: [log], files=files, metrics=LogMetrics(CollectorRegistry()))
    one.start()
    while not all(segment.compacted for segment in log.sealed_segments):
        assert one._thread is not None
        one._thread.join(0.01)
        assert one._thread.is_alive()
    one.close()
    assert flat(list(log.frames())) == expected
    assert log.check() == []
    log.close()
    assert flat(list(open_log(files, directory=str(tmp_path)).frames())) == expected


# What fails, and what it may cost: nothing


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("operations", [{name} for name in sorted(OPERATIONS)], ids=min)
def test_the_kth_call_of_a_compaction_fails(operations: set[str], error: int) -> None:
    failed = 0
    for at in range(1, CALLS_MAX):
        files = FaultyFiles(MemoryFiles(), operations, at, error)
        replaced = survives_a_failure(files)
        failed += not replaced
        if not files.reached:
            assert replaced
            break
    else:
        pytest.fail("the calls never ended")
    assert at > 1, "the operation is used at all"
    if operations & {"pwritev", "fdatasync", "rename", "open", "pread"}:
        assert failed, "and its failure is noticed"


def survives_a_failure(files: FaultyFiles) -> bool:
    """Compact one segment while a call fails, and then again; returns whether it was done all the same."""
    memory = files.inner
    assert isinstance(memory, MemoryFiles)
    clock = FakeClock()
    log = a_log(memory, 6, clock=clock)
    assert len(log.sealed_segments) == 1
    expected = flat(list(log.frames()))
    exchange_files(log, files)
    metrics = LogMetrics(CollectorRegistry())
    pauses: list[float] = []
    one = compactor(files, log, metrics=metrics, pause=lambda seconds: bool(pauses.append(seconds)))
    assert one.work()
    failures = metrics.of(TRACES).compaction_failures._value.get()
    replaced = log.sealed_segments[0].compacted
    files._operations = frozenset()
    assert failures == (not replaced), "refused or done, and counted"
    assert (PAUSE_S in pauses) == bool(failures)
    assert flat(list(log.frames())) == expected
    assert log.check() == []
    assert log.failed is None
    assert append(log) == expected[-1][1]
    log.sync()
    expected = flat(list(log.frames()))
    for fates in (keep_all, lose_all):
        found = open_log(memory.after_power_cut(fates), segment_bytes=2000)
        assert flat(list(found.frames())) == expected
        assert found.check() == []
    assert not one.work(), "it rests"
    clock.pass_time(RETRY_S)
    assert one.work() == bool(failures), "and then tries again"
    assert log.sealed_segments[0].compacted
    assert flat(list(log.frames())) == expected
    assert log.check() == []
    return replaced


def test_short_reads_and_writes_are_no_failure() -> None:
    memory = MemoryFiles()
    log = a_log(memory)
    expected = flat(list(log.frames()))
    files = FaultyFiles(memory, {"pwritev", "pread"}, 1, SHORT, count=None)
    exchange_files(log, files)
    assert compact_all(files, log) == len(log.sealed_segments)
    assert all(one.compacted for one in log.sealed_segments)
    assert flat(list(log.frames())) == expected


def test_a_failed_log_is_left_alone() -> None:
    memory = MemoryFiles()
    log = a_log(memory)
    log.failed = OSError(errno.EIO, "failed")
    assert compact_all(memory, log) == 0


def test_what_reads_back_otherwise_takes_nobodys_place() -> None:
    class Forgets(MemoryFiles):
        """Writes of the new file change a bit."""

        def pwritev(self, handle: int, pieces: Any, position: int, *, sync: bool = False) -> int:
            data = bytearray(b"".join(pieces))
            if len(data) != segment.HEADER_SIZE:
                data[70] ^= 1
            return super().pwritev(handle, [bytes(data)], position, sync=sync)

    files = MemoryFiles()
    log = a_log(files)
    expected = flat(list(log.frames()))
    broken = Forgets()
    broken._root, broken._open = files._root, files._open
    compact_all(broken, log)
    assert not any(one.compacted for one in log.sealed_segments)
    assert "reads back otherwise" in log.logger.named("segment not compacted")[0]["reason"]
    assert flat(list(log.frames())) == expected


def test_a_defect_ends_one_compaction_and_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    files = MemoryFiles()
    log = a_log(files, 20)
    sealed = log.sealed_segments
    merge = merging.merge

    def defective(group: Any) -> Frame:
        if group[0].base_offset >= sealed[1].base_offset:
            raise ZeroDivisionError
        return merge(group)

    monkeypatch.setattr(merging, "merge", defective)
    assert compact_all(files, log) == len(sealed)
    assert [one.compacted for one in log.sealed_segments] == [one is sealed[0] for one in sealed]


def test_a_payload_of_the_tests_is_recognised() -> None:
    """`flat` tells a wrong record from a right one."""
    files = MemoryFiles()
    log = a_log(files, 2)
    assert flat(list(log.frames())) == [(0, 3, payload(0, 1, 400) + payload(1, 2, 400))]
