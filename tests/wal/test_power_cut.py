"""The power goes at every call, k = 1, 2, … until there is no k-th, and whatever was not synced is kept, lost or
torn. What was acknowledged is there afterwards; what is there was written; the log goes on.

A killed process is the easy case (everything survives in the page cache). Only this shows that the right things
are synced in the right order, names in directories included.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from collector.testing.files import (
    CUT,
    WRITING,
    FaultyFiles,
    MemoryFiles,
    PowerCut,
    keep_all,
    lose_all,
    random_fates,
)
from collector.wal.log import Log
from tests.wal.logs import SEGMENT_BYTES, append, content, open_log, payload

CALLS_MAX = 500
SEEDS = 3
RETENTION = 1000
Frame = tuple[int, int, bytes]


class Life:
    """A log written until the power goes: what it had promised by then.

    `group` frames are appended before each sync; with 0 nothing is synced on purpose. With `scale` 1 a segment is
    smaller than a block, with more it is of several, and leftovers stay in those that are recycled. `baseline` is what an
    undisturbed life had as first offset after each step: retention may have removed what lies before.
    """

    def __init__(self, files: FaultyFiles, group: int, baseline: list[int] | None = None, scale: int = 1) -> None:
        self.promised: list[Frame] = []
        self.written: list[Frame] = []
        self.first_offsets: list[int] = []
        waiting: list[Frame] = []
        try:
            log = open_log(files, retention_bytes=RETENTION * scale, segment_bytes=SEGMENT_BYTES * scale)
            for step in range(14):
                base, count = log.next_offset, 1 + step % 3
                frame = (base, count, payload(base, count, (24 + 200 * (step % 4 == 1)) * scale))
                self.written.append(frame)
                append(log, count, size=len(frame[2]), sync=group == 1)
                waiting.append(frame)
                if group and len(waiting) == group:
                    log.sync()
                    self.promised += waiting
                    waiting = []
                log.enforce_retention()
                self.first_offsets.append(log.first_offset)
            log.close()
            self.promised += waiting
        except PowerCut:
            pass
        if baseline is not None:
            gone = baseline[min(len(self.first_offsets), len(baseline) - 1)]
            self.promised = [frame for frame in self.promised if frame[0] >= gone]

    def problems(self, log: Log) -> list[str]:
        """What is wrong with the log that was found."""
        found = content(log)
        lost = [f"{frame} is lost" for frame in self.promised if frame not in found]
        invented = [f"{frame} is invented" for frame in found if frame not in self.written]
        twice = [] if found == sorted(set(found)) else [f"out of order: {found}"]
        reused = [f"offset {log.next_offset} again"] if found and log.next_offset < found[-1][0] + found[-1][1] else []
        return lost + invented + twice + reused + log.check()


def after(memory: MemoryFiles, turn: int, seed: int) -> MemoryFiles:
    """The file system after the power cut, in one of several ways."""
    return memory.after_power_cut((lose_all, keep_all, random_fates(random.Random(seed)))[min(turn, 2)])


def torture(group: int, make: Callable[[], MemoryFiles] = MemoryFiles, seeds: int = SEEDS, scale: int = 1) -> list[str]:
    """Cut the power everywhere; returns what was wrong, with how to repeat it."""
    problems: list[str] = []
    baseline = Life(FaultyFiles(make()), group, scale=scale).first_offsets
    for at in range(1, CALLS_MAX):
        memory = make()
        files = FaultyFiles(memory, WRITING, at, CUT)
        life = Life(files, group, baseline, scale)
        for turn in range(2 + seeds):
            found = after(memory, turn, at * 1000 + turn)
            log = open_log(found, segment_bytes=SEGMENT_BYTES * scale)
            wrong = life.problems(log)
            if not wrong:
                base = append(log, 2)
                log.close()
                again = open_log(found)
                wrong = [] if (base, 2, payload(base, 2)) in content(again) and not again.check() else ["not reopened"]
            problems += [f"group {group}, call {at}, turn {turn}: {text}" for text in wrong]
        if not files.reached:
            return problems
    raise AssertionError("the calls never ended")


@pytest.mark.parametrize("scale", [1, 30])
@pytest.mark.parametrize("group", [1, 3, 0])
def test_the_power_goes_at_the_kth_call(group: int, scale: int) -> None:
    assert torture(group, scale=scale) == []


def test_the_power_goes_again_while_the_log_is_opened() -> None:
    """Recovery is itself cut at every call, and what it had done by then kept, lost or torn."""
    memory = MemoryFiles()
    baseline = Life(FaultyFiles(MemoryFiles()), 3).first_offsets
    life = Life(FaultyFiles(memory, {"fdatasync"}, 14, CUT), 3, baseline)
    assert life.promised
    for seed in range(8):
        for at in range(1, CALLS_MAX):
            found = after(memory, 2, seed)
            files = FaultyFiles(found, WRITING, at, CUT)
            try:
                open_log(files)
            except PowerCut:
                found = after(found, 2, at)
            assert life.problems(open_log(found)) == [], (seed, at)
            if not files.reached:
                break
        else:
            pytest.fail("the calls never ended")


def test_the_power_goes_after_a_killed_process_was_followed_by_another() -> None:
    """The first process dies at every call and leaves its writes and names unsynced in the page cache; the second
    opens over them and promises more; then the power goes."""
    baseline = Life(FaultyFiles(MemoryFiles()), 3).first_offsets
    for at in range(1, CALLS_MAX):
        memory = MemoryFiles()
        files = FaultyFiles(memory, WRITING, at, CUT)
        life = Life(files, 3, baseline)
        log = open_log(memory)
        promised = [*life.promised, *content(log)]
        # So few that no new segment is started, whose name would be synced with all others.
        for _ in range(at % 3):
            base = append(log)
            log.sync()
            promised.append((base, 1, payload(base, 1)))
        for turn in range(2 + SEEDS):
            found = content(open_log(after(memory, turn, at * 1000 + turn)))
            assert [frame for frame in promised if frame not in found] == [], (at, turn)
        if not files.reached:
            return
    pytest.fail("the calls never ended")


class NoFdatasync(MemoryFiles):
    """Canary: the disk lies, or somebody has removed the sync."""

    def fdatasync(self, handle: int) -> None:
        """Do nothing."""


class NoDirectorySync(MemoryFiles):
    """Canary: names are never made durable."""

    def fsync_directory(self, path: str) -> None:
        """Do nothing."""


@pytest.mark.parametrize("broken", [NoFdatasync, NoDirectorySync])
def test_the_harness_catches_a_missing_sync(broken: type[MemoryFiles]) -> None:
    assert any("is lost" in problem for problem in torture(1, broken, seeds=0))


def test_the_harness_catches_an_early_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Log, "sync", lambda self: None)
    assert any("is lost" in problem for problem in torture(1, seeds=0))
