"""Segments written over the files of removed ones: what was there before is never seen again."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from collector.errors import Unavailable
from collector.testing.files import FaultyFiles, MemoryFiles, keep_all
from collector.wal import segment
from collector.wal.files import BLOCK_BYTES, Files, OperatingSystemFiles
from collector.wal.frame import TERMINATOR_BYTES
from collector.wal.inspect import verify
from collector.wal.log import Log
from collector.wal.retention import Retention
from collector.wal.writer import STAGE_BYTES, SegmentWriter
from tests.wal.logs import DIRECTORY, append, content, intact, open_log, payload, segment_paths
from tests.wal.test_compact import compactor, flat

SEGMENT_BYTES = 40_000
RETENTION = 100_000
SIZES = (24, 300, 4000, BLOCK_BYTES - 64, 9000)


def turn_over(log: Log, chance: random.Random, frames: int = 60) -> None:
    """Append so much that segments are removed and their files written over."""
    for _ in range(frames):
        append(log, chance.randint(1, 4), size=chance.choice(SIZES))
        log.sync()
        log.enforce_retention()


def recycled(files: Files, path: str) -> int:
    """What a segment's header says of its file's former size."""
    handle = files.open(path)
    try:
        header = segment.decode_header(files.pread(handle, segment.HEADER_SIZE, 0), path)
    finally:
        files.close(handle)
    assert isinstance(header, segment.SegmentHeader)
    return header.recycled


def open_recycling(files: Files, directory: str = DIRECTORY) -> Log:
    return open_log(files, directory=directory, segment_bytes=SEGMENT_BYTES, retention_bytes=RETENTION)


@pytest.mark.parametrize("seed", range(5))
def test_a_removed_segments_file_becomes_the_next_segment(seed: int) -> None:
    files = FaultyFiles(MemoryFiles())
    log = open_recycling(files)
    turn_over(log, random.Random(seed), 200)
    assert log.check() == []
    assert all(intact(found) for found in log.frames())
    created = files.calls["rename"]
    assert created > 4
    assert any(recycled(files, path) for path in segment_paths(files))
    assert len(segment_paths(files, "spare")) <= 1


@pytest.mark.parametrize("seed", range(20))
def test_a_killed_process_leaves_a_segment_that_goes_on(seed: int) -> None:
    """Everything survives; the leftovers behind the last frame are taken neither for frames nor for a torn tail."""
    files = MemoryFiles()
    chance = random.Random(seed)
    log = open_recycling(files)
    for _ in range(4):
        turn_over(log, chance, chance.randint(20, 60))
        kept = content(log)
        files = files.after_power_cut(keep_all)
        log = open_recycling(files)
        assert content(log) == kept
        assert log.recovery.truncated_bytes == 0
        assert log.recovery.damaged == ()
        assert log.check() == []


@pytest.mark.parametrize("seed", range(20))
def test_a_torn_frame_in_a_recycled_file_is_cut_and_counted(seed: int) -> None:
    files = MemoryFiles()
    log = open_recycling(files)
    chance = random.Random(seed)
    turn_over(log, chance, 50)
    while not recycled(files, segment_paths(files)[-1]):
        turn_over(log, chance, 1)
    kept, before = content(log), log.byte_size
    path = segment_paths(files)[-1]
    append(log, 2, size=9000)
    if segment_paths(files)[-1] != path:
        return  # It went into the next segment.
    size = log.byte_size - before
    whole = bytearray(files.contents(path))
    end = whole.find(payload(log.next_offset - 2, 2, 9000)) + 9000
    whole[end - 100] ^= 0xFF
    files.put(path, bytes(whole))
    report = verify(DIRECTORY, files)
    assert not report.problems
    assert any(f"{size} bytes behind the last frame" in note for note in report.notes)
    again = open_recycling(files)
    assert content(again) == kept
    assert again.recovery.truncated_bytes == size
    base = append(again, 1)
    assert content(open_recycling(files))[-1] == (base, 1, payload(base, 1))


def test_a_reader_of_a_file_that_is_written_over_finds_its_records_gone_not_damaged(tmp_path: Path) -> None:
    files = OperatingSystemFiles()
    log = open_recycling(files, str(tmp_path))
    while log.segment_count < 4:
        append(log, 3, size=3000)
    reader = log.frames()
    first = next(reader)
    chance = random.Random(1)
    turn_over(log, chance, 100)
    assert log.first_offset > first.end_offset
    for found in reader:
        assert intact(found)
    assert log.damaged == ()
    assert log.check() == []


def test_a_write_ends_in_zeros_also_where_a_block_does() -> None:
    files = MemoryFiles()
    log = open_log(files, segment_bytes=1 << 20)
    size = BLOCK_BYTES - segment.HEADER_SIZE - 64
    for less in (0, TERMINATOR_BYTES // 2, TERMINATOR_BYTES, 2 * TERMINATOR_BYTES):
        append(log, 1, size=size - less)
        data = files.contents(segment_paths(files)[-1])
        assert data[log.byte_size : log.byte_size + TERMINATOR_BYTES] == bytes(TERMINATOR_BYTES)
        size = -log.byte_size % BLOCK_BYTES + BLOCK_BYTES - 64
    assert log.check() == []


@pytest.mark.parametrize("size", [STAGE_BYTES - 200, STAGE_BYTES - 192, STAGE_BYTES, 3 * STAGE_BYTES + 5])
def test_frames_larger_than_the_stage(tmp_path: Path, size: int) -> None:
    files = OperatingSystemFiles()
    log = open_log(files, directory=str(tmp_path), segment_bytes=64 << 20)
    for _ in range(3):
        append(log, 1, size=size)
        append(log, 1, size=10)
        log.sync()
    assert all(intact(found) for found in log.frames())
    assert log.check() == []
    log.close()
    again = open_log(files, directory=str(tmp_path), segment_bytes=64 << 20)
    append(again, 1, size=size)
    assert len(content(again)) == 7
    assert again.check() == []


def test_the_harness_catches_leftovers_that_are_not_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Canary: without zeros behind the last frame, what follows in a recycled file looks like a torn tail."""
    genuine = SegmentWriter._write

    def without_terminator(self: SegmentWriter, position: int, pieces: list[bytes], *, sync: bool = False) -> None:
        genuine(self, position, pieces, sync=sync)
        end = position + sum(map(len, pieces))
        last = end - end % BLOCK_BYTES
        block = bytes(self._stage[: end - last])
        self._files.pwritev(self._handle, [block + b"\xee" * (BLOCK_BYTES - len(block))], last)

    monkeypatch.setattr(SegmentWriter, "_write", without_terminator)
    with pytest.raises(AssertionError):
        test_a_killed_process_leaves_a_segment_that_goes_on(1)


# The file that a segment had before it was compacted


def fill_a_segment(log: Log) -> None:
    """Append until the next segment has begun."""
    segments = log.segment_count
    while log.segment_count == segments:
        append(log, 2, size=9000)
    log.sync()


def test_a_compacted_segments_file_becomes_the_next_segment() -> None:
    files = MemoryFiles()
    log = open_log(files, segment_bytes=SEGMENT_BYTES)
    one = compactor(files, log)
    for turn in range(6):
        fill_a_segment(log)
        assert bool(recycled(files, log.segments[-1].path)) == (turn > 0)
        assert one.work()
        assert len(segment_paths(files, "spare")) == 1
    expected = flat(list(log.frames()))
    assert expected[0][1] == log.next_offset
    assert log.check() == []
    assert verify(DIRECTORY, files).problems == []
    log = open_log(files.after_power_cut(keep_all), segment_bytes=SEGMENT_BYTES)
    assert flat(list(log.frames())) == expected


def test_a_file_that_a_reader_holds_is_not_written_over() -> None:
    for newest_first in (False, True):
        files = MemoryFiles()
        log = open_log(files, segment_bytes=SEGMENT_BYTES)
        fill_a_segment(log)
        fill_a_segment(log)
        expected = list(log.frames(newest_first=newest_first))
        reading = log.frames(newest_first=newest_first)
        found = [next(reading) for _ in range(3)]
        one = compactor(files, log)
        while one.work():
            fill_a_segment(log)
            if log.segment_count > 8:
                break
        found += reading
        if newest_first:
            assert flat(found[::-1]) == flat(expected[::-1])
        else:
            assert flat(found)[0][2].startswith(flat(expected)[0][2])
        assert log.damaged == ()
        assert all(one.readers == 0 for one in log.segments)


def test_a_removed_segments_file_that_a_reader_holds_is_not_written_over() -> None:
    files = MemoryFiles()
    log = open_recycling(files)
    fill_a_segment(log)
    reading = log.frames()
    first = next(reading)
    before = list(log.frames(0, log.sealed_segments[0].next_offset))
    turn_over(log, random.Random(3), 200)
    assert log.first_offset > before[-1].base_offset
    rest = [frame for frame in reading if frame.base_offset <= before[-1].base_offset]
    assert [first, *rest] == before


def test_there_is_one_spare_file_whoever_offers_it() -> None:
    files = MemoryFiles()
    log = open_log(files, segment_bytes=SEGMENT_BYTES)
    for _ in range(4):
        fill_a_segment(log)
    one = compactor(files, log)
    while one.work():
        assert len(segment_paths(files, "spare")) == 1
    log._retention = Retention(1)
    log.enforce_retention()
    assert segment_paths(files, "spare") == [log._held.spare]


def test_a_full_disk_takes_the_spare_file() -> None:
    """The active segment has no use for it until it is full; what is kept must not be what is missing."""
    memory = MemoryFiles()
    files = FaultyFiles(memory)
    log = open_recycling(files)
    while not segment_paths(memory, "spare"):
        turn_over(log, random.Random(1), 1)
    kept = content(log)
    files._operations, files._at, files._error, files._left = frozenset({"pwritev"}), 1, errno.ENOSPC, None
    with pytest.raises(Unavailable, match="no room"):
        append(log, 1)
    assert segment_paths(memory, "spare") == []
    log._retention = Retention(1)
    assert log.enforce_retention() > 0
    assert segment_paths(memory, "spare") == [], "nor is another one kept"
    files.repair()
    append(log, 1)
    assert content(log)[:-1] == [frame for frame in kept if frame[0] >= log.first_offset]
    assert log.check() == []


def test_a_file_system_without_links_compacts_all_the_same() -> None:
    files = FaultyFiles(MemoryFiles(), {"link"}, 1, errno.EPERM, None)
    log = open_log(files, segment_bytes=SEGMENT_BYTES)
    fill_a_segment(log)
    assert compactor(files, log).work()
    assert log.sealed_segments[0].compacted
    assert segment_paths(files, "spare") == []
    fill_a_segment(log)
    assert log.check() == []


def test_a_directory_that_was_not_synced_gives_no_spare_file() -> None:
    """A power cut would bring the old name back, with what was written over it."""
    memory = MemoryFiles()
    log = open_log(memory, segment_bytes=SEGMENT_BYTES)
    fill_a_segment(log)
    files = FaultyFiles(memory, {"fsync_directory"}, 1, errno.EIO, None)
    assert compactor(files, log).work()
    assert log.sealed_segments[0].compacted
    assert segment_paths(memory, "spare") == []
    assert log._held.spare is None


def test_a_start_removes_a_second_name_of_a_live_segment() -> None:
    """The power went between the link and the rename: written over as a spare file, the segment would be lost."""
    files = MemoryFiles()
    log = open_log(files, segment_bytes=SEGMENT_BYTES)
    fill_a_segment(log)
    path = log.sealed_segments[0].path
    expected = flat(list(log.frames()))
    files.link(path, path.replace(".log", ".spare"))
    log = open_log(files.after_power_cut(keep_all), segment_bytes=SEGMENT_BYTES)
    assert log._held.spare is None
    fill_a_segment(log)
    assert flat(list(log.frames()))[0][2].startswith(expected[0][2])
    assert log.check() == []
