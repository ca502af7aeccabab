"""Looking at logs from outside. What is printed is in tests/scripts/wal/inspect.txt; here is what a script cannot say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.errors import NotFound, Unavailable, UnsupportedFormat
from collector.otlp.signals import LOGS, METRICS, TRACES
from collector.testing.files import FaultyFiles, MemoryFiles
from collector.wal import inspect
from collector.wal.files import OperatingSystemFiles
from collector.wal.frame import checksum
from collector.wal.log import Log
from collector.wal.segment import SegmentHeader, encode_header
from tests.wal.logs import DIRECTORY, append, open_log, payload, segment_paths
from tests.wal.test_compact import a_log, compact_all, flat

CHANGING = {
    "pwritev",
    "fdatasync",
    "allocate",
    "truncate",
    "mkdir",
    "rename",
    "unlink",
    "fsync_directory",
    "lock",
}


def test_all_signals_are_told_and_nothing_is_touched() -> None:
    memory = MemoryFiles()
    for signal in (METRICS, TRACES):
        log = open_log(memory, signal=signal)
        for _ in range(7):
            append(log)
    files = FaultyFiles(memory)
    before = memory.open_handles
    facts = inspect.inspect(DIRECTORY, files)
    assert [(one.signal, one.base_offset, one.next_offset) for one in facts] == [
        ("traces", 0, 5),
        ("traces", 5, 7),
        ("metrics", 0, 5),
        ("metrics", 5, 7),
    ]
    assert inspect.verify(DIRECTORY, files) == inspect.Report(segments=4, bytes=14 * 88 + 4 * 128, records=14)
    assert [found.payload for found in inspect.cat(DIRECTORY, METRICS, 4, 2, files)] == [
        payload(4, 1),
        payload(5, 1),
    ]
    assert list(inspect.cat(DIRECTORY, METRICS, 0, 0, files)) == []
    assert set(files.calls) & CHANGING == set()
    assert memory.open_handles == before


def test_a_log_that_is_not_there() -> None:
    files = MemoryFiles()
    files.mkdir(DIRECTORY)
    with pytest.raises(NotFound, match="/data holds no log"):
        inspect.inspect(DIRECTORY, files)
    with pytest.raises(Unavailable, match="/nowhere cannot be read"):
        inspect.verify("/nowhere", files)
    open_log(files)
    with pytest.raises(NotFound, match="/data holds no log of logs"):
        list(inspect.cat(DIRECTORY, LOGS, 0, 1, files))


def test_a_newer_version_is_refused_by_name() -> None:
    files = MemoryFiles()
    open_log(files).close()
    path = segment_paths(files)[0]
    data = bytearray(encode_header(SegmentHeader(1, 0, 5, 0)))
    data[8] = 9
    data[124:] = checksum([bytes(data[:124])]).to_bytes(4, "little")
    files.put(path, bytes(data))
    for call in (inspect.inspect, inspect.verify):
        with pytest.raises(UnsupportedFormat, match=f"{path} has format version 9"):
            call(DIRECTORY, files)


def test_every_kind_of_problem_is_named() -> None:
    files = MemoryFiles()
    log = open_log(files)
    for _ in range(22):
        append(log)
    log.close()
    first, second, third, fourth, _ = segment_paths(files)
    indexes = segment_paths(files, "index")
    files.put(first, b"\0" * 128 + files.contents(first)[128:])
    files.unlink(second)
    files.put(indexes[2], files.contents(indexes[2])[:-1])
    files.put(f"{DIRECTORY}/traces/{77:020d}.log", files.contents(fourth))
    assert files.contents(indexes[3]).startswith(b"RINGTIDX")
    files.put(fourth, files.contents(fourth)[:-4])
    report = inspect.verify(DIRECTORY, files)
    assert [(problem.path.rpartition("/")[2], problem.text, problem.offsets) for problem in report.problems] == [
        (f"{77:020d}.log", "its header belongs to another place", None),
        (f"{0:020d}.log", "offsets 5..10 damaged at byte 568: the file ends", (5, 10)),
        (f"{0:020d}.log", "the segment header has no magic", None),
        (f"{10:020d}.index", "7 bytes of entries where 1 entries are announced", None),
        (f"{15:020d}.log", "offsets 19..20 damaged at byte 480: the file ends inside a frame", (19, 20)),
        (f"{15:020d}.index", "the index is of a file of 568 bytes, not 564", None),
    ]
    assert third.endswith(f"{10:020d}.log")


def test_a_segment_that_disappears_meanwhile_is_left_out() -> None:
    class Vanishing(MemoryFiles):
        vanish = False

        def listdir(self, path: str) -> list[str]:
            names = super().listdir(path)
            if self.vanish and path.endswith("traces"):
                return [*names, f"{1:020d}.log"]
            return names

    files = Vanishing()
    log = open_log(files)
    for _ in range(7):
        append(log)
    files.vanish = True
    assert len(inspect.inspect(DIRECTORY, files)) == 2
    assert inspect.verify(DIRECTORY, files).problems == []


def test_beside_a_log_that_is_being_written_nothing_is_a_problem(tmp_path: Path) -> None:
    """Between any two steps of the writer, retention included, a look from outside finds all well."""
    files = OperatingSystemFiles()
    log = open_log(files, directory=str(tmp_path), retention_bytes=1500)
    for number in range(60):
        append(log, 1 + number % 3, size=20 + number)
        log.enforce_retention()
        assert inspect.verify(tmp_path, files).problems == []
        facts = inspect.inspect(tmp_path, files)
        assert (facts[0].base_offset, facts[-1].next_offset) == (log.first_offset, log.next_offset)
        assert sum(one.records for one in facts) == log.record_count
        assert sum(one.size for one in facts) == log.byte_size


def test_a_compacted_segment_is_told_with_what_it_was() -> None:
    files = MemoryFiles()
    log = a_log(files)
    expected = flat(list(log.frames()))
    before = [one.size for one in log.sealed_segments]
    compact_all(files, log)
    facts = inspect.inspect(DIRECTORY, files)
    assert [one.original_size for one in facts] == [*before, None]
    assert [(one.index, one.keys) for one in facts] == [*[("good", "good")] * len(before), ("none", "none")]
    assert sum(one.size for one in facts) == log.byte_size
    assert flat(list(inspect.cat(DIRECTORY, TRACES, 0, 99, files))) == expected
    report = inspect.verify(DIRECTORY, files)
    assert (report.problems, report.notes, report.records) == ([], [], log.record_count)


def test_what_is_wrong_beside_a_compacted_segment_is_named() -> None:
    files = MemoryFiles()
    log = a_log(files, 30)
    stale = [files.contents(path) for path in segment_paths(files, "index")]
    compact_all(files, log)
    key_indexes, indexes = segment_paths(files, "keys"), segment_paths(files, "index")
    files.unlink(key_indexes[0])
    files.put(key_indexes[1], files.contents(key_indexes[2]))
    files.put(key_indexes[3], files.contents(key_indexes[3])[:-1] + b"x")
    files.put(indexes[2], stale[2])
    report = inspect.verify(DIRECTORY, files)
    assert [(problem.path, problem.text) for problem in report.problems] == [
        (key_indexes[1], "the key index is of another segment"),
        (key_indexes[3], "key index checksum mismatch"),
    ]
    assert report.notes == [
        f"{key_indexes[0]} is missing",
        f"{indexes[2]} is from before the segment was compacted",
    ]
    states = [one.keys for one in inspect.inspect(DIRECTORY, files)]
    assert states[:3] == ["none", "the key index is of another segment", "good"]


class Watched(MemoryFiles):
    """Files that call somebody before every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.watcher: Callable[[], None] | None = None

    def __getattribute__(self, name: str) -> Any:
        if name in CHANGING | {"open", "pread", "size", "listdir"}:
            watcher = self.watcher
            if watcher is not None:
                self.watcher = None
                watcher()
                self.watcher = watcher
        return super().__getattribute__(name)


def waits(log: Log) -> bool:
    """Whether another thread would have to wait for a lock now, which a test in one thread would do for ever."""
    return any(one.lock.locked() for one in log.segments)


def test_between_any_two_steps_of_a_compaction_nothing_is_a_problem() -> None:
    files = Watched()
    log = a_log(files, 20)
    expected = flat(list(log.frames()))
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        report = inspect.verify(DIRECTORY, files)
        assert (report.problems, report.records) == ([], log.record_count)
        assert flat(list(inspect.cat(DIRECTORY, TRACES, 0, 99, files))) == expected
        if not waits(log):
            assert flat(list(log.frames())) == expected

    files.watcher = look
    compact_all(files, log)
    assert looks > 50


@pytest.mark.parametrize("what", ["verify", "cat", "inspect", "frames"])
def test_a_compaction_between_any_two_steps_of_a_look_is_no_problem(what: str) -> None:
    for at in range(1, 500):
        files = Watched()
        log = a_log(files)
        expected = flat(list(log.frames()))
        left = at

        def compact() -> None:
            nonlocal left
            if waits(log):  # noqa: B023
                return
            left -= 1
            if not left:
                compact_all(files, log)  # noqa: B023

        files.watcher = compact
        if what == "verify":
            report = inspect.verify(DIRECTORY, files)
            assert (report.problems, report.records) == ([], log.record_count)
        elif what == "inspect":
            facts = inspect.inspect(DIRECTORY, files)
            assert sum(one.records for one in facts) == log.record_count
        elif what == "cat":
            assert flat(list(inspect.cat(DIRECTORY, TRACES, 0, 99, files))) == expected
        else:
            assert flat(list(log.frames())) == expected
            assert log.damaged == ()
        if left > 0:
            break
    assert at > 5
