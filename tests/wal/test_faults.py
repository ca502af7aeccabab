"""Every call that can fail fails once, k = 1, 2, … until there is no k-th: nothing acknowledged is lost, nothing is
acknowledged after a failure, reading goes on, and a healthy start finds everything.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import pytest

from collector.errors import Unavailable
from collector.testing.files import SHORT, FaultyFiles, MemoryFiles, keep_all, lose_all
from collector.wal import log as log_module
from collector.wal.files import BLOCK_BYTES
from collector.wal.log import Log
from tests.wal.logs import RecordingLogger, append, content, open_log, payload, segment_paths

COUNTS = (1, 2, 3, 1, 2, 3, 1, 1)
WRITES = {"pwritev", "fdatasync", "truncate", "fsync_directory", "rename", "unlink", "allocate", "mkdir"}
OPENS = {"open", "close"}
CALLS_MAX = 500
Frame = tuple[int, int, bytes]


class Run:
    """One life of a log on failing files: what was acknowledged, and what was tried."""

    def __init__(self, files: FaultyFiles, open_with: Callable[..., Log] = open_log) -> None:
        self.files = files
        self.acknowledged: list[Frame] = []
        self.tried: list[Frame] = []
        self.refused = 0
        self.log: Log | None = None
        try:
            self.log = open_with(files, logger=RecordingLogger())
        except Unavailable:
            self.refused += 1
            return
        for count in COUNTS:
            self.write(count)
        self.log.enforce_retention()

    def write(self, count: int) -> None:
        """Append and sync one frame, as the committer does, and try again once, as a client does."""
        assert self.log is not None
        for _ in range(2):
            base = self.log.next_offset
            frame = (base, count, payload(base, count))
            if frame not in self.tried:
                self.tried.append(frame)
            failed_before = self.log.failed
            try:
                append(self.log, count)
                self.log.sync()
            except Unavailable:
                self.refused += 1
                continue
            assert failed_before is None, "nothing is acknowledged once the log has failed"
            self.acknowledged.append(frame)
            return

    def problems(self) -> list[str]:
        """What is wrong afterwards: in the log as it is, after a restart, and after a power cut."""
        problems = []
        if self.log is not None:
            self.files.repair()
            problems += self._compare("while running", content(self.log))
            try:
                self.log.close()
            except Unavailable:
                pass
        memory = self.files.inner
        assert isinstance(memory, MemoryFiles)
        for after, fates in (("restart", keep_all), ("power cut", lose_all)):
            found = memory.after_power_cut(fates)
            log = open_log(found)
            problems += self._compare(f"after a {after}", content(log))
            append(log, 2)
            log.close()
            problems += open_log(found).check()
        return problems

    def _compare(self, when: str, found: list[Frame]) -> list[str]:
        lost = [f"{when}: {frame} is lost" for frame in self.acknowledged if frame not in found]
        return lost + [f"{when}: {frame} is invented" for frame in found if frame not in self.tried]


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
@pytest.mark.parametrize("operations", [{name} for name in sorted(WRITES | OPENS)], ids=lambda names: min(names))
def test_the_kth_call_fails(operations: set[str], error: int) -> None:
    refusals = 0
    for at in range(1, CALLS_MAX):
        run = Run(FaultyFiles(MemoryFiles(), operations, at, error))
        assert run.problems() == [], f"call {at}"
        refusals += run.refused
        if not run.files.reached:
            break
    else:
        pytest.fail("the calls never ended")
    assert at > 1, "the operation is used at all"
    if operations & {"pwritev", "fdatasync", "fsync_directory"}:
        assert refusals, "and its failure is noticed"


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_everything_fails_from_the_kth_call_on(error: int) -> None:
    for at in range(1, CALLS_MAX):
        run = Run(FaultyFiles(MemoryFiles(), WRITES, at, error, count=None))
        assert run.problems() == [], f"call {at}"
        if not run.files.reached:
            return
    pytest.fail("the calls never ended")


def test_short_writes_are_no_failure() -> None:
    run = Run(FaultyFiles(MemoryFiles(), {"pwritev", "pread"}, 1, SHORT, count=None))
    assert run.refused == 0
    assert len(run.acknowledged) == len(COUNTS)
    run.files.repair()
    assert run.problems() == []


def test_opening_fails_at_the_kth_call_over_a_log_with_everything_to_repair() -> None:
    """A torn tail, a missing index, a leftover: recovery is interrupted anywhere, and the next one finishes."""
    healthy = MemoryFiles()
    log = open_log(healthy)
    for count in COUNTS * 2:
        append(log, count)
    frames = content(log)
    log.close()
    healthy.unlink(segment_paths(healthy, "index")[0])
    last = segment_paths(healthy)[-1]
    healthy.put(last, healthy.contents(last) + b"torn")
    healthy.put(f"{last}.tmp", b"left over")
    for error in (errno.EIO, errno.ENOSPC, errno.EMFILE):
        for at in range(1, CALLS_MAX):
            memory = healthy.after_power_cut(keep_all)
            files = FaultyFiles(memory, WRITES | OPENS | {"listdir", "size", "pread"}, at, error)
            try:
                log = open_log(files)
            except Unavailable:
                pass
            else:
                # A read that fails while recovering leaves frames unseen, but never takes them away.
                files.repair()
                assert set(content(log)) <= set(frames)
                log.close()
            files.repair()
            assert content(open_log(memory)) == frames, (error, at)
            if not files.reached:
                break
        else:
            pytest.fail("the calls never ended")


def failing(operation: str, error: int, at: int = 1) -> tuple[FaultyFiles, Log]:
    """A log with one synced frame, whose next such call fails."""
    files = FaultyFiles(MemoryFiles())
    log = open_log(files)
    append(log)
    log.sync()
    files._operations, files._at, files._error, files._left = frozenset({operation}), at, error, 1
    return files, log


@pytest.mark.parametrize("operation", ["pwritev", "fdatasync"])
def test_a_failed_log_stays_failed_and_says_why(operation: str) -> None:
    _, log = failing(operation, errno.EIO)
    with pytest.raises(Unavailable, match=f"cannot (write|sync): .*{'Input/output error'}"):
        append(log, 2)
        log.sync()
    assert isinstance(log.failed, OSError)
    for call in (log.sync, lambda: append(log)):
        with pytest.raises(Unavailable, match="the log of traces has failed: .*Input/output error"):
            call()
    assert content(log)[:1] == [(0, 1, payload(0, 1))], "reading goes on"
    assert isinstance(log.logger, RecordingLogger)
    assert [fields["action"] for fields in log.logger.named("log failed")] == [
        "write" if operation == "pwritev" else "sync"
    ]
    log.close()


def test_a_full_disk_is_survived_without_a_restart() -> None:
    files, log = failing("pwritev", errno.ENOSPC)
    files._left = None
    for _ in range(3):
        with pytest.raises(Unavailable, match=r"no room for the log of traces: .*No space left"):
            append(log, 3)
        assert log.failed is None
        assert log.next_offset == 1
        assert content(log) == [(0, 1, payload(0, 1))]
    files.repair()
    assert append(log, 2) == 1
    assert isinstance(log.logger, RecordingLogger)
    assert [len(log.logger.named(event)) for event in ("disk full", "room again")] == [1, 1], "told once"
    log.sync()
    assert log.check() == []
    assert isinstance(files.inner, MemoryFiles)
    assert content(open_log(files.inner.after_power_cut(lose_all))) == [
        (0, 1, payload(0, 1)),
        (1, 2, payload(1, 2)),
    ]


class NearlyFull(MemoryFiles):
    """Files on a disk that is full after one more block: the write is short, and the next one finds no room."""

    blocks = 1 << 30

    def pwritev(self, handle: int, pieces: Sequence[bytes | memoryview], position: int, *, sync: bool = False) -> int:
        """See `Files.pwritev`."""
        if self.blocks == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        data = b"".join(pieces)[: self.blocks * BLOCK_BYTES]
        self.blocks -= -(-len(data) // BLOCK_BYTES)
        return super().pwritev(handle, [data], position, sync=sync)


def test_a_write_that_was_short_before_the_disk_was_full_is_survived() -> None:
    """Its error, which clients may still be told of, holds a view of the writer's memory while the segment is sealed."""
    files = NearlyFull()
    log = open_log(files, segment_bytes=20_000)
    append(log)
    files.blocks = 1
    with pytest.raises(Unavailable, match="no room") as caught:
        append(log, size=9000)
    files.blocks = 1 << 30
    while log.segment_count < 3:
        append(log, size=9000)
    assert caught.value
    assert log.check() == []


def test_a_full_disk_while_starting_a_segment_is_survived() -> None:
    files, log = failing("open", errno.ENOSPC)
    for _ in range(4):
        append(log)
    # Sealing writes the index first: that open fails as well, and is only a warning.
    files._at, files._left = 1, None
    for _ in range(2):
        with pytest.raises(Unavailable, match="no room for a segment of traces"):
            append(log)
    assert (log.failed, log.segment_count, log.next_offset) == (None, 1, 5)
    log.sync()
    files.repair()
    assert append(log) == 5
    assert log.check() == []
    assert log.segment_count == 2


def test_a_log_is_opened_on_a_full_disk_and_goes_on_when_there_is_room() -> None:
    """With a torn tail, so that the last segment is not continued: reading and retention need no room."""
    memory = MemoryFiles()
    log = open_log(memory)
    for _ in range(16):
        append(log, 2)
    frames = content(log)
    log.close()
    last = segment_paths(memory)[-1]
    memory.put(last, memory.contents(last) + b"torn")
    files = FaultyFiles(memory, {"allocate", "pwritev"}, 1, errno.ENOSPC, None)
    log = open_log(files, retention_bytes=1500)
    assert (log.failed, content(log), log.next_offset) == (None, frames, 32)
    with pytest.raises(Unavailable, match="no room for a segment of traces"):
        append(log)
    before = log.segment_count
    assert log.enforce_retention() > 0
    assert log.segment_count < before
    assert content(log) == [frame for frame in frames if frame[0] >= log.first_offset]
    files.repair()
    assert append(log) == 32
    log.sync()
    assert log.check() == []
    log.close()
    assert content(open_log(memory))[-1] == (32, 1, payload(32, 1))


def test_what_a_full_disk_left_of_a_new_segment_is_replaced() -> None:
    files, log = failing("pwritev", errno.ENOSPC)
    for _ in range(4):
        files.repair()
        append(log)
    # The segment's header finds no room, and the half that was written cannot be removed either.
    files._operations, files._at, files._left, files._matching = frozenset({"pwritev", "unlink"}), 4, None, 0
    with pytest.raises(Unavailable, match="no room for a segment of traces"):
        append(log)
    files.repair()
    assert len(segment_paths(files)) == 2
    assert append(log) == 5
    assert log.check() == []


def test_a_device_that_fails_while_a_segment_is_started_fails_the_log() -> None:
    files, log = failing("pwritev", errno.EIO)
    for _ in range(4):
        files.repair()
        append(log)
    files._operations, files._at, files._left, files._matching = frozenset({"pwritev"}), 2, 1, 0
    with pytest.raises(Unavailable, match="cannot create a segment"):
        append(log)
    assert log.failed is not None


def test_a_full_disk_that_cannot_be_undone_fails_the_log() -> None:
    files, log = failing("pwritev", errno.ENOSPC)
    files._operations, files._left = frozenset({"pwritev", "truncate"}), None
    with pytest.raises(Unavailable, match="cannot undo a write that found the disk full"):
        append(log)
    assert log.failed is not None


def test_a_full_disk_noticed_by_the_sync_fails_the_log() -> None:
    _, log = failing("fdatasync", errno.ENOSPC)
    append(log)
    with pytest.raises(Unavailable):
        log.sync()
    assert log.failed is not None


def test_a_synced_write_that_finds_no_room_is_undone() -> None:
    """The sync was about this write alone, which is cut off again: all before it was on the disk."""
    files, log = failing("fdatasync", errno.ENOSPC, at=2)
    append(log, sync=True)
    with pytest.raises(Unavailable, match="no room"):
        append(log, 3, sync=True)
    assert log.failed is None
    assert append(log, 2, sync=True) == 2
    log.sync()
    assert isinstance(files.inner, MemoryFiles)
    expected = [(0, 1, payload(0, 1)), (1, 1, payload(1, 1)), (2, 2, payload(2, 2))]
    assert content(open_log(files.inner.after_power_cut(lose_all))) == expected


def test_after_a_failed_sync_a_restart_builds_on_bytes_that_may_vanish() -> None:
    """The kernel forgets to write what a failed sync was about, and a restart reads it all the same from the page
    cache. What is acknowledged afterwards must not need it."""
    for at in range(1, CALLS_MAX):
        run = Run(FaultyFiles(MemoryFiles(), {"fdatasync"}, at, errno.EIO))
        memory = run.files.inner
        assert isinstance(memory, MemoryFiles)
        log = open_log(memory)
        for _ in range(at % 4):
            base = append(log)
            log.sync()
            run.acknowledged.append((base, 1, payload(base, 1)))
        found = content(open_log(memory.after_power_cut(lose_all)))
        assert [frame for frame in run.acknowledged if frame not in found] == [], at
        if not run.files.reached:
            return
    pytest.fail("the calls never ended")


class RetriesSync(Log):
    """The canary: a log that takes the second fsync for the truth."""

    def sync(self) -> None:
        """Sync, and if that fails, forget it and sync again."""
        try:
            super().sync()
        except Unavailable:
            self.failed = None
            super().sync()


def test_the_harness_catches_a_log_that_retries_a_failed_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "Log", RetriesSync)

    def open_broken(files: FaultyFiles, **options: object) -> Log:
        log = open_log(files, **options)
        log.__class__ = RetriesSync
        return log

    caught = [
        Run(FaultyFiles(MemoryFiles(), {"fdatasync"}, at, errno.EIO), open_broken).problems() for at in range(1, 8)
    ]
    assert any(any("after a power cut" in problem for problem in problems) for problems in caught)
