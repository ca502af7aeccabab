"""Generations of a log, each ended by a kill or a power cut at a random call: appends, syncs, compaction, retention,
recycled files and orderly restarts in a random order, on what the last cut has left.

tests/wal/test_power_cut.py and test_compact_power_cut.py cut at every call of one given life; here the lives are random,
and what one leaves is what the next one builds upon. A frame that a start did not find must never be seen again, since
its offset is given out anew; one that a start did find is promised from then on.
"""

from __future__ import annotations

import random

import pytest

from collector.testing.files import CUT, WRITING, FaultyFiles, MemoryFiles, PowerCut, keep_all, lose_all, random_fates
from collector.wal.log import Log
from tests.effort import Effort
from tests.wal.logs import append, open_log, payload
from tests.wal.test_compact import compactor, flat

GENERATIONS = 5
STEPS = 40
CALLS_MAX = 160
SEGMENT_BYTES = 1000
RETENTION_BYTES = 3000
SCALES = (1, 1, 30)
"""With 1 a segment is smaller than a block, with 30 it is of several."""
Frame = tuple[int, int, bytes]


class World:
    """A disk, and what was promised of it."""

    def __init__(self, seed: str, make: type[MemoryFiles] = MemoryFiles) -> None:
        self.cuts = self.promises = self.recycled = self.compacted = 0
        self._chance = random.Random(seed)
        self._memory = make()
        self._make = make
        self._scale = self._chance.choice(SCALES)
        self._written: dict[int, Frame] = {}
        self._promised: set[int] = set()
        self._gone = 0
        """Retention may have removed what lies before."""

    def run(self) -> list[str]:
        """Live and die; what is wrong after the first death that leaves anything wrong."""
        for _ in range(GENERATIONS):
            problems = self._live()
            if problems:
                return problems
            self.cuts += 1
            fates = self._chance.choice((keep_all, lose_all, random_fates(self._chance), random_fates(self._chance)))
            survivor = self._memory.after_power_cut(fates)
            survivor.__class__ = self._make
            self._memory = survivor
        return self._look(self._open(self._memory))

    def _open(self, files: MemoryFiles | FaultyFiles) -> Log:
        sizes = {"segment_bytes": SEGMENT_BYTES * self._scale, "retention_bytes": RETENTION_BYTES * self._scale}
        return open_log(files, **sizes)

    def _live(self) -> list[str]:
        files = FaultyFiles(self._memory, WRITING, self._chance.randint(1, CALLS_MAX), CUT)
        try:
            log = self._open(files)
            problems = self._look(log)
            for _ in range(STEPS):
                if problems:
                    return problems
                self._step(files, log)
                if self._chance.random() < 0.05:
                    log.close()
                    self._promised |= set(self._written)
                    log = self._open(files)
                    problems = self._look(log)
        except PowerCut:
            pass
        return []

    def _step(self, files: FaultyFiles, log: Log) -> None:
        what = self._chance.random()
        if what < 0.6:
            base, count = log.next_offset, self._chance.randint(1, 3)
            size = self._chance.choice((24, 60, 200, 700)) * self._scale
            self._written[base] = (base, count, payload(base, count, size))
            self._append(log, count, size)
        elif what < 0.8:
            log.sync()
            self._promised |= set(self._written)
            self.promises += 1
        elif what < 0.9:
            self.compacted += compactor(files, log).work()
        else:
            sizes = [(one.next_offset, one.size) for one in log.segments]
            while len(sizes) > 1 and sum(size for _, size in sizes) > RETENTION_BYTES * self._scale:
                self._gone = max(self._gone, sizes.pop(0)[0])
            log.enforce_retention()
            self.recycled += log._held.spare is not None

    def _append(self, log: Log, count: int, size: int) -> None:
        at_once = self._chance.random() < 0.3
        append(log, count, size, sync=at_once)
        if at_once:
            log.sync()
            self._promised |= set(self._written)
            self.promises += 1

    def _look(self, log: Log) -> list[str]:
        """What is wrong with the log as it was found; all that was found is promised from now on."""
        found: dict[int, Frame] = {}
        for first, end, data in flat(list(log.frames())):
            at = first
            while at < end:
                frame = self._written.get(at)
                if frame is None or not data.startswith(frame[2]):
                    return [f"{at} is invented, or back from the dead"]
                found[at] = frame
                data = data[len(frame[2]) :]
                at += frame[1]
        lost = sorted(base for base in self._promised - set(found) if base >= self._gone)
        problems = [f"{base} is lost" for base in lost] + log.check()
        self._written, self._promised = found, set(found)
        return problems


def run(seeds: list[str], make: type[MemoryFiles] = MemoryFiles) -> tuple[list[str], dict[str, int]]:
    """Run a world for each seed: (what is wrong, what was done)."""
    done = {"worlds": 0, "cuts": 0, "syncs": 0, "compactions": 0, "files kept to be written over": 0}
    for seed in seeds:
        world = World(seed, make)
        problems = world.run()
        if problems:
            return [f"world {seed!r}: {problem}" for problem in problems], done
        for name, count in zip(done, (1, world.cuts, world.promises, world.compacted, world.recycled), strict=True):
            done[name] += count
    return [], done


def test_every_generation_finds_what_the_ones_before_were_promised(effort: Effort) -> None:
    problems, done = run([f"{effort.seed} {number}" for number in range(effort.times(60, 40_000))])
    assert problems == []
    assert min(done.values()) > 0
    effort.report("R2", model="generations", **done)


class NoFdatasync(MemoryFiles):
    """Canary: a disk that lies."""

    def fdatasync(self, handle: int) -> None:
        """Do nothing."""


class NoDirectorySync(MemoryFiles):
    """Canary: names are never made durable."""

    def fsync_directory(self, path: str) -> None:
        """Do nothing."""


@pytest.mark.parametrize("broken", [NoFdatasync, NoDirectorySync])
def test_a_disk_that_lies_is_caught(broken: type[MemoryFiles]) -> None:
    problems, _ = run([f"canary {number}" for number in range(100)], broken)
    assert problems
