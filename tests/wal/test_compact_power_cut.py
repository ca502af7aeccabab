"""The power goes at every call of a log that is written, compacted and thinned out by retention, and whatever was not
synced is kept, lost or torn. What was acknowledged is there afterwards, once, and as it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from collector.otlp.scan import scan
from collector.otlp.signals import TRACES
from collector.otlp.wire import hash_key
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
from collector.wal import compact, frame, merging
from collector.wal.log import Log
from collector.wal.segment import Segment
from tests.wal.logs import append, exchange_files, open_log, payload
from tests.wal.test_compact import compactor, flat
from tests.wal.test_keys import SERVICES, otlp_log

CALLS_MAX = 800
SEEDS = 3
RETENTION = 1500
Frame = tuple[int, int, bytes]


class Life:
    """A log that is compacted beside its appends, until the power goes: what it had promised by then.

    `baseline` is what an undisturbed life had as first offset after each step: retention may have removed what lies
    before.
    """

    def __init__(self, files: FaultyFiles, baseline: list[int] | None = None) -> None:
        self.promised: list[Frame] = []
        self.written: dict[int, Frame] = {}
        self.first_offsets: list[int] = []
        self.compacted = 0
        waiting: list[Frame] = []
        try:
            log = open_log(files, retention_bytes=RETENTION, segment_bytes=1000)
            one = compactor(files, log)
            for step in range(18):
                base, count = log.next_offset, 1 + step % 3
                frame = (base, count, payload(base, count, 200))
                self.written[base] = frame
                append(log, count, size=200)
                waiting.append(frame)
                if step % 2:
                    log.sync()
                    self.promised += waiting
                    waiting = []
                if step % 4 == 3:
                    self.compacted += one.work()
                log.enforce_retention()
                self.first_offsets.append(log.first_offset)
            log.close()
            self.promised += waiting
        except PowerCut:
            pass
        if baseline is not None:
            gone = baseline[min(len(self.first_offsets), len(baseline) - 1)]
            self.promised = [frame for frame in self.promised if frame[0] >= gone]

    def problems(self, log: Log, later: Frame | None = None) -> list[str]:
        """What is wrong with the log that was found, to which a frame may have been appended since."""
        written = self.written | ({later[0]: later} if later else {})
        found: list[int] = []
        problems: list[str] = []
        for first, end, data in flat(list(log.frames())):
            at = first
            while at < end:
                frame = written.get(at)
                if frame is None or not data.startswith(frame[2]):
                    problems.append(f"{at} is invented")
                    break
                found.append(at)
                data = data[len(frame[2]) :]
                at += frame[1]
        problems += [] if found == sorted(set(found)) else [f"out of order: {found}"]
        problems += log.check()  # after reading, which finds what was never synced
        return problems + [f"{frame} is lost" for frame in self.promised if frame[0] not in found]


def after(memory: MemoryFiles, turn: int, seed: int) -> MemoryFiles:
    """The file system after the power cut, in one of several ways."""
    return memory.after_power_cut((lose_all, keep_all, random_fates(random.Random(seed)))[min(turn, 2)])


def torture(seeds: int = SEEDS, make: Callable[[], MemoryFiles] = MemoryFiles) -> list[str]:
    """Cut the power everywhere; returns what was wrong, with how to repeat it."""
    problems: list[str] = []
    undisturbed = Life(FaultyFiles(make()))
    assert undisturbed.compacted >= 3
    assert undisturbed.first_offsets[-1] > 0
    for at in range(1, CALLS_MAX):
        memory = make()
        files = FaultyFiles(memory, WRITING, at, CUT)
        life = Life(files, undisturbed.first_offsets)
        for turn in range(2 + seeds):
            found = after(memory, turn, at * 1000 + turn)
            log = open_log(found, segment_bytes=1000)
            wrong = life.problems(log)
            names = found.listdir("/data/traces")
            wrong += [f"{name} is left" for name in names if name.endswith(".tmp")]
            if not wrong:
                wrong = goes_on(life, found, log)
            problems += [f"call {at}, turn {turn}: {text}" for text in wrong]
        if not files.reached:
            return problems
    raise AssertionError("the calls never ended")


def goes_on(life: Life, files: MemoryFiles, log: Log) -> list[str]:
    """What is wrong once the log that was found has been compacted whole, appended to and opened again."""
    one = compactor(files, log)
    while one.work():
        pass
    base = append(log, 2, 200)
    later = (base, 2, payload(base, 2, 200))
    wrong = life.problems(log, later)
    log.close()
    wrong += life.problems(open_log(files, segment_bytes=1000), later)
    return [f"going on: {text}" for text in wrong]


def test_the_power_goes_at_the_kth_call() -> None:
    assert torture() == []


def test_the_power_goes_again_while_a_half_compacted_log_is_opened() -> None:
    """The rename of the compacted file has happened, all that follows it has not, or in part; then recovery is cut."""
    baseline = Life(FaultyFiles(MemoryFiles())).first_offsets
    renames = [at for at in range(1, 40) if Life(FaultyFiles(MemoryFiles(), {"rename"}, at, CUT)).compacted < 3]
    for cut in renames:
        for seed in range(SEEDS):
            memory = MemoryFiles()
            life = Life(FaultyFiles(memory, {"rename"}, cut, CUT), baseline)
            for at in range(1, CALLS_MAX):
                found = after(memory, 2, seed)
                files = FaultyFiles(found, WRITING, at, CUT)
                try:
                    open_log(files, segment_bytes=1000)
                except PowerCut:
                    found = after(found, 2, at)
                assert life.problems(open_log(found, segment_bytes=1000)) == [], (cut, seed, at)
                if not files.reached:
                    break
            else:
                pytest.fail("the calls never ended")


class NoSync(compact._Target):
    """Canary: the new file takes the old one's place before it is on the disk."""

    def sync(self) -> None:
        """Do nothing."""


def test_the_harness_catches_a_compaction_that_does_not_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "_Target", NoSync)
    assert any("is lost" in problem for problem in torture(seeds=1))


def test_the_harness_catches_a_compaction_in_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Canary: the old file is removed, then the new one gets its name."""
    replace = Log.replace

    def in_two_steps(log: Log, old: Segment, made: Segment, temporary: str) -> bool:
        log._files.unlink(old.path)
        return replace(log, old, made, temporary)

    monkeypatch.setattr(Log, "replace", in_two_steps)
    assert any("is lost" in problem for problem in torture(seeds=1))


def lost_while_a_file_is_recycled() -> int:
    """Cut the power while a segment is compacted and its old file becomes the next one; in how many ways any was lost."""
    lost = 0
    for at in range(1, CALLS_MAX):
        memory = MemoryFiles()
        log = open_log(memory, segment_bytes=1000)
        while log.segment_count < 2:
            append(log, 1, 200)
        log.sync()
        promised = log.next_offset
        files = FaultyFiles(memory, WRITING, at, CUT)
        exchange_files(log, files)
        try:
            compactor(files, log).work()
            while log.segment_count < 3:
                append(log, 1, 200)
        except PowerCut:
            pass
        for turn in range(2 + SEEDS):
            found = flat(list(open_log(after(memory, turn, at), segment_bytes=1000).frames()))
            lost += not found or found[0][0] > 0 or found[0][1] < promised
        if not files.reached:
            return lost
    raise AssertionError("the calls never ended")


def test_the_power_goes_while_a_file_is_recycled() -> None:
    assert lost_while_a_file_is_recycled() == 0


def test_the_harness_catches_a_file_written_over_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Canary: the old file is written over before the directory is synced."""
    replace, recycle = Log.replace, Log.recycle

    def too_early(log: Log, old: Segment, made: Segment, temporary: str) -> bool:
        replaced = replace(log, old, made, temporary)
        old.readers = 0
        recycle(log, old, durable=True)
        while log.segment_count < 3:
            append(log, 1, 200)
        return replaced

    monkeypatch.setattr(Log, "replace", too_early)
    monkeypatch.setattr(Log, "recycle", lambda log, old, durable: None)
    assert lost_while_a_file_is_recycled() > 0


def test_the_harness_catches_records_that_are_there_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Canary: a merged frame that has one of its parts twice."""
    merge = merging.merge

    def twice(group: list[frame.Frame]) -> frame.Frame:
        return merge([*group[:-1], group[0], group[-1]] if len(group) > 1 else group)

    monkeypatch.setattr(merging, "merge", twice)
    assert any("is invented" in problem or "other than" in problem for problem in torture(seeds=0))


def test_key_indexes_found_after_a_power_cut_name_every_frame() -> None:
    """Old, new, torn or of the segment's former self: no record is left out because of one."""
    for at in range(1, CALLS_MAX):
        memory = MemoryFiles()
        log = otlp_log(memory)
        expected = service_rows(log, pruned=False)
        files = FaultyFiles(memory, WRITING, at, CUT)
        exchange_files(log, files)
        try:
            while compactor(files, log).work():
                pass
        except PowerCut:
            pass
        for turn in range(2 + SEEDS):
            found = after(memory, turn, at * 1000 + turn)
            again = open_log(found, segment_bytes=40_000)
            assert service_rows(again, pruned=True) == expected, (at, turn)
            one = compactor(found, again)
            while one.work():
                pass
            assert all(segment.keyed for segment in again.sealed_segments)
            assert service_rows(again, pruned=True) == expected, (at, turn)
            assert again.check() == []
        if not files.reached:
            return
    pytest.fail("the calls never ended")


def service_rows(log: Log, *, pruned: bool) -> dict[str, list[int]]:
    """The offsets of every service's spans."""
    rows: dict[str, list[int]] = {}
    for service in SERVICES:
        key = service.encode()
        chosen = {"index": "service", "any_of": [key]} if pruned else {}
        for one in log.frames(**chosen):
            block = scan(TRACES, one.payload, one.base_offset)
            matching = np.flatnonzero(block.column("service") == hash_key(key))
            rows.setdefault(service, []).extend((matching + one.base_offset).tolist())
    return rows
