"""The committer: acknowledged after the sync, in order, together where they came together, and never forgotten."""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from collector.clock import SystemClock
from collector.errors import Overloaded, Unavailable
from collector.testing.files import FaultyFiles, MemoryFiles, keep_all, lose_all
from collector.wal import commit
from collector.wal.commit import Committer, SyncPolicy
from collector.wal.files import OperatingSystemFiles
from collector.wal.log import Log
from tests.wal.logs import FakeClock, RecordingLogger, content, open_log

PATIENCE_S = 30.0
"""How long a test waits for another thread before it fails; nothing takes that long."""


@dataclass(frozen=True)
class OneBatch:
    """See `commit.Batch`."""

    payloads: Sequence[bytes]
    count: int = 1
    min_time: int = 0
    max_time: int = 0


def batch(number: int, count: int = 1) -> OneBatch:
    """A batch that can be told from others."""
    return OneBatch([b"batch ", b"%d" % number], count)


class GatedFiles(FaultyFiles):
    """Files whose fdatasync waits at a gate."""

    def __init__(self, inner: MemoryFiles) -> None:
        super().__init__(inner)
        self.gate = threading.Event()
        self.gate.set()
        self.at_gate = threading.Event()
        self.synced = threading.Event()

    def fdatasync(self, handle: int) -> None:
        """See `Files.fdatasync`."""
        self.at_gate.set()
        assert self.gate.wait(PATIENCE_S)
        super().fdatasync(handle)
        self.synced.set()


class Outcomes:
    """What `done` was called with."""

    def __init__(self, expected: int) -> None:
        self.results: list[tuple[OneBatch, int | Exception]] = []
        self._expected = expected
        self._all = threading.Event()

    def __call__(self, batch: OneBatch, result: int | Exception) -> None:
        """See `Committer`."""
        self.results.append((batch, result))
        if len(self.results) == self._expected:
            self._all.set()

    def wait(self) -> list[int | Exception]:
        """The results, once as many as expected have come."""
        assert self._all.wait(PATIENCE_S)
        return [result for _, result in self.results]


def closing(log: Log, committer: Committer[OneBatch]) -> None:
    committer.close()
    log.close()


@pytest.mark.parametrize("policy", ["always", "interval", "never"])
def test_batches_are_written_in_order_and_answered_with_their_offsets(policy: SyncPolicy) -> None:
    files = MemoryFiles()
    log = open_log(files)
    outcomes = Outcomes(50)
    committer = Committer(log, policy, 1.0, outcomes)
    batches = [batch(number, 1 + number % 3) for number in range(50)]
    for one in batches:
        committer.submit(one)
    results = outcomes.wait()
    closing(log, committer)
    assert [one for one, _ in outcomes.results] == batches
    assert results == [sum(one.count for one in batches[:n]) for n in range(50)]
    expected = [(offset, one.count, b"".join(one.payloads)) for one, offset in zip(batches, results, strict=True)]
    for fates in (keep_all, lose_all):
        assert content(open_log(files.after_power_cut(fates))) == expected, "closing syncs under every policy"


def test_refused_batches_are_not_kept() -> None:
    """On a full disk each batch comes back with an error; the error must not hold the batch for longer."""
    files = FaultyFiles(MemoryFiles())
    log = open_log(files)
    answered = threading.Event()
    committer: Committer[OneBatch] = Committer(log, "always", 0.0, lambda batch, result: answered.set())
    files._operations, files._at, files._error, files._left = frozenset({"pwritev"}), 1, errno.ENOSPC, None
    refused = []
    gc.disable()
    try:
        for number in range(5):
            one = batch(number)
            refused.append(weakref.ref(one))
            committer.submit(one)
            del one
            assert answered.wait(PATIENCE_S)
            answered.clear()
        committer.close()
        assert [one() for one in refused] == [None] * 5
    finally:
        gc.enable()


def test_always_answers_after_the_sync() -> None:
    files = GatedFiles(MemoryFiles())
    log = open_log(files)
    outcomes = Outcomes(1)
    committer = Committer(log, "always", 0.0, outcomes)
    files.gate.clear()
    files.at_gate.clear()
    committer.submit(batch(0))
    assert files.at_gate.wait(PATIENCE_S)
    assert outcomes.results == []
    assert isinstance(files.inner, MemoryFiles)
    assert content(open_log(files.inner.after_power_cut(lose_all))) == []
    files.gate.set()
    assert outcomes.wait() == [0]
    assert len(content(open_log(files.inner.after_power_cut(lose_all)))) == 1
    closing(log, committer)


def test_what_comes_while_a_sync_runs_is_synced_together() -> None:
    files = GatedFiles(MemoryFiles())
    log = open_log(files, segment_bytes=1024 * 1024)
    outcomes = Outcomes(101)
    committer = Committer(log, "always", 0.0, outcomes)
    files.gate.clear()
    files.at_gate.clear()
    committer.submit(batch(0))
    assert files.at_gate.wait(PATIENCE_S)
    before = files.calls["fdatasync"]
    for number in range(1, 101):
        committer.submit(batch(number))
    files.gate.set()
    assert outcomes.wait() == list(range(101))
    assert files.calls["fdatasync"] - before == 2, "the one that was held up, and one for a hundred batches"
    closing(log, committer)


def test_interval_answers_before_the_sync_and_syncs_when_it_is_due() -> None:
    files = GatedFiles(MemoryFiles())
    log = open_log(files, clock=SystemClock())
    outcomes = Outcomes(1)
    committer = Committer(log, "interval", 0.02, outcomes)
    files.gate.clear()
    files.synced.clear()
    files.at_gate.clear()
    committer.submit(batch(0))
    assert outcomes.wait() == [0]
    assert files.at_gate.wait(PATIENCE_S), "nothing else is submitted, and yet it syncs"
    assert log.synced_offset == 0
    files.gate.set()
    assert files.synced.wait(PATIENCE_S)
    closing(log, committer)
    assert log.synced_offset == 1


def test_interval_and_never_do_not_sync_before_they_must() -> None:
    for policy in ("interval", "never"):
        clock = FakeClock()
        files = FaultyFiles(MemoryFiles())
        log = open_log(files, clock=clock, segment_bytes=1024 * 1024)
        outcomes = Outcomes(20)
        before = files.calls["fdatasync"]
        committer = Committer(log, policy, 3600.0, outcomes)
        for number in range(20):
            committer.submit(batch(number))
        outcomes.wait()
        assert files.calls["fdatasync"] == before
        committer.close()
        assert files.calls["fdatasync"] == before + 1
        assert log.synced_offset == 20
        log.close()


def test_a_failed_sync_answers_the_whole_group_and_all_that_follow() -> None:
    files = GatedFiles(MemoryFiles())
    log = open_log(files, segment_bytes=1024 * 1024)
    outcomes = Outcomes(6)
    committer = Committer(log, "always", 0.0, outcomes)
    files.gate.clear()
    files.at_gate.clear()
    committer.submit(batch(0))
    assert files.at_gate.wait(PATIENCE_S)
    for number in range(1, 4):
        committer.submit(batch(number))
    files._operations, files._at, files._error, files._left = frozenset({"fdatasync"}), 2, errno.EIO, 1
    files.gate.set()
    committer.submit(batch(4))
    committer.submit(batch(5))
    first, *rest = outcomes.wait()
    closing(log, committer)
    assert first == 0
    assert all(isinstance(result, Unavailable) for result in rest)
    assert isinstance(log.failed, OSError)
    assert isinstance(files.inner, MemoryFiles)
    assert content(open_log(files.inner.after_power_cut(lose_all))) == [(0, 1, b"batch 0")]


def test_a_full_disk_refuses_some_and_not_those_behind_them() -> None:
    files = FaultyFiles(MemoryFiles())
    log = open_log(files)
    first, second = Outcomes(1), Outcomes(2)
    outcomes: list[Outcomes] = [first]
    committer: Committer[OneBatch] = Committer(log, "always", 0.0, lambda one, result: outcomes[-1](one, result))
    files._operations, files._at, files._error, files._left = frozenset({"pwritev"}), 1, errno.ENOSPC, 1
    committer.submit(batch(0))
    (refusal,) = first.wait()
    assert isinstance(refusal, Unavailable)
    outcomes.append(second)
    committer.submit(batch(1))
    committer.submit(batch(2))
    assert second.wait() == [0, 1]
    closing(log, committer)


def test_a_batch_that_makes_no_sense_costs_no_other() -> None:
    log = open_log(MemoryFiles())
    outcomes = Outcomes(3)
    committer = Committer(log, "always", 0.0, outcomes)
    for one in (batch(0), OneBatch([b"x"], count=0), batch(1)):
        committer.submit(one)
    first, second, third = outcomes.wait()
    assert (first, third) == (0, 1)
    assert isinstance(second, ValueError)
    closing(log, committer)


def test_a_callback_that_raises_stops_nothing() -> None:
    logger = RecordingLogger()
    log = open_log(MemoryFiles(), logger=logger)
    outcomes = Outcomes(2)

    def done(one: OneBatch, result: int | Exception) -> None:
        outcomes(one, result)
        raise RuntimeError("the loop is closed")

    committer = Committer(log, "always", 0.0, done)
    committer.submit(batch(0))
    committer.submit(batch(1))
    assert outcomes.wait() == [0, 1]
    closing(log, committer)
    assert len(logger.named("commit not delivered")) == 2


def test_retention_is_enforced_between_commits() -> None:
    log = open_log(MemoryFiles(), retention_bytes=1000)
    outcomes = Outcomes(60)
    committer = Committer(log, "always", 0.0, outcomes)
    for number in range(60):
        committer.submit(batch(number))
    outcomes.wait()
    closing(log, committer)
    assert log.byte_size <= 1000
    assert log.first_offset > 40


def test_retention_is_enforced_on_an_idle_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "IDLE_S", 0.005)
    clock = FakeClock()
    log = open_log(MemoryFiles(), clock=clock, retention_age_s=100)
    outcomes = Outcomes(10)
    committer = Committer(log, "always", 0.0, outcomes)
    for number in range(10):
        committer.submit(batch(number))
    outcomes.wait()
    removed = threading.Event()
    monkeypatch.setattr(log.logger, "info", lambda event, **_: removed.set(), raising=False)
    clock.pass_time(1000)
    assert removed.wait(PATIENCE_S)
    closing(log, committer)
    assert log.segment_count == 1


def test_a_defect_in_retention_stops_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = RecordingLogger()
    log = open_log(MemoryFiles(), logger=logger)

    def defect() -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(log, "enforce_retention", defect)
    outcomes = Outcomes(1)
    committer = Committer(log, "always", 0.0, outcomes)
    committer.submit(batch(0))
    assert outcomes.wait() == [0]
    closing(log, committer)
    assert logger.named("retention failed")


def test_closing_drains_then_refuses() -> None:
    files = GatedFiles(MemoryFiles())
    log = open_log(files)
    outcomes = Outcomes(30)
    committer = Committer(log, "always", 0.0, outcomes)
    files.gate.clear()
    for number in range(30):
        committer.submit(batch(number))
    closer = threading.Thread(target=committer.close)
    closer.start()
    files.gate.set()
    closer.join(PATIENCE_S)
    assert outcomes.wait() == list(range(30))
    committer.close()
    with pytest.raises(Unavailable, match="the log is being closed"):
        committer.submit(batch(31))
    log.close()


def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "QUEUE_BATCHES_MAX", 3)
    files = GatedFiles(MemoryFiles())
    log = open_log(files)
    outcomes = Outcomes(4)
    committer = Committer(log, "always", 0.0, outcomes)
    files.gate.clear()
    files.at_gate.clear()
    committer.submit(batch(0))
    assert files.at_gate.wait(PATIENCE_S)
    for number in range(1, 4):
        committer.submit(batch(number))
    with pytest.raises(Overloaded, match="3 batches wait for the log of traces"):
        committer.submit(batch(4))
    files.gate.set()
    assert outcomes.wait() == [0, 1, 2, 3]
    closing(log, committer)


@pytest.mark.parametrize("newest_first", [False, True])
def test_readers_run_beside_the_committer_and_retention(tmp_path: Path, newest_first: bool) -> None:
    """Real files, a thread that writes and removes, and one that reads all the time: whole frames, in order."""
    log = open_log(OperatingSystemFiles(), directory=str(tmp_path), segment_bytes=20_000, retention_bytes=100_000)
    outcomes = Outcomes(1500)
    committer = Committer(log, "never", 0.0, outcomes)
    problems: list[str] = []
    ended = threading.Event()

    def read(check: Callable[[list[int]], bool]) -> None:
        while not ended.is_set():
            offsets = []
            for found in log.frames(newest_first=newest_first):
                offsets.append(found.base_offset)
                if found.payload != b"batch %d" % found.base_offset:
                    problems.append(f"{found}")
            if not check(offsets):
                problems.append(f"out of order: {offsets}")

    reader = threading.Thread(target=read, args=(lambda found: found == sorted(found, reverse=newest_first),))
    reader.start()
    for number in range(1500):
        while True:
            try:
                committer.submit(batch(number))
            except Overloaded:
                continue
            break
    outcomes.wait()
    ended.set()
    reader.join(PATIENCE_S)
    closing(log, committer)
    assert problems == []
    assert log.damaged == ()
    assert log.first_offset > 0
    assert log.check() == []
