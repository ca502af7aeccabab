"""A log's writer killed again and again, with nothing around it.

    python -m tests.crash.killed_writer DIRECTORY SEED KILLS [early]

Thousands of kills where tests/crash/torture.py has hundreds. The writer is a process of its own, forked from this one,
which stays single-threaded for that: it opens the log, appends, syncs, compacts, forgets by retention and recycles
files, and tells through a pipe what it would acknowledge. It is killed a random time after a random
number of commits, one in five while it opens the log. After each kill the files are read by `wal verify` and `wal cat`, which change nothing, and the next writer
must find just that.

Prints what was done as JSON; what is wrong is an AssertionError. `early` is the canary: it acknowledges, then appends.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from collector.errors import NotFound
from collector.otlp.signals import TRACES
from collector.wal import inspect
from collector.wal.files import OperatingSystemFiles
from tests.wal.logs import open_log
from tests.wal.test_compact import compactor

KILLS_PER_DIRECTORY: Final = 50
COMMITS_MAX: Final = 40
"""How often a writer commits before its last moments, at most: on a busy machine a time alone says nothing."""
LAST_S: Final = (0.0, 0.004)
"""How long those are."""
OPENING_S: Final = (0.0, 0.004)
IN_OPENING: Final = 0.2
PATIENCE_S: Final = 60.0
SEGMENT_BYTES: Final = 40_000
RETENTION_BYTES: Final = 150_000
SIZES: Final = (30, 200, 1000, 4096 - 64, 9000)
NO_LIMIT: Final = 2**62


def payload(offset: int, count: int, size: int) -> bytes:
    """A payload of `size` bytes that says what it is."""
    text = b"%d %d %d\n" % (offset, count, size)
    return text + random.Random(offset).randbytes(size - len(text))


def told(data: bytes) -> list[tuple[int, int]]:
    """(offset, count) of every payload in what compaction has put together. ValueError when it is none of ours."""
    found = []
    while data:
        offset, count, size = map(int, data[: data.index(b"\n")].split())
        if data[:size] != payload(offset, count, size):
            raise ValueError(f"what stands at offset {offset} was never written")
        found.append((offset, count))
        data = data[size:]
    return found


@dataclass(frozen=True, slots=True)
class Writer:
    """One writer's orders."""

    directory: str
    seed: str
    expected: int | None
    """The next offset that the log must have when it is opened; None: nothing is known."""
    retention: int | None
    early: bool


def write(orders: Writer, pipe: int) -> None:
    """Write until killed, and tell through the pipe before which offset all is durable."""
    chance = random.Random(orders.seed)
    files = OperatingSystemFiles()
    log = open_log(files, directory=orders.directory, segment_bytes=SEGMENT_BYTES, retention_bytes=orders.retention)
    if log.recovery.damaged or log.next_offset != (orders.expected or log.next_offset):
        raise AssertionError(f"opened at offset {log.next_offset}, not {orders.expected}: {log.recovery}")
    one = compactor(files, log)
    os.write(pipe, log.next_offset.to_bytes(8, "big"))
    while True:
        counts = [chance.randint(1, 9) for _ in range(chance.choice((1, 1, 2, 5)))]
        if orders.early:
            os.write(pipe, (log.next_offset + sum(counts)).to_bytes(8, "big"))
        for count in counts:
            offset = log.next_offset
            data = payload(offset, count, chance.choice(SIZES))
            log.append([data], count, offset, offset + count - 1, sync=len(counts) == 1)
        log.sync()
        os.write(pipe, log.next_offset.to_bytes(8, "big"))
        if chance.random() < 0.1:
            one.work()
        log.enforce_retention()


def fork_writer(orders: Writer) -> tuple[int, int]:
    """Start a writer: its process id, and the pipe to read from."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    try:
        write(orders, writing)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(1)


def kill_one(orders: Writer) -> tuple[int, bool]:
    """Let a writer live for a while: the offset before which it has acknowledged all, and whether it had begun to."""
    chance = random.Random(f"kill {orders.seed}")
    child, pipe = fork_writer(orders)
    acknowledged = b""
    try:
        if chance.random() < IN_OPENING:
            time.sleep(chance.uniform(*OPENING_S))
        else:
            told_bytes = 8 * chance.randint(1, 1 + COMMITS_MAX)
            while len(acknowledged) < told_bytes and select.select([pipe], [], [], PATIENCE_S)[0]:
                if not (part := os.read(pipe, 65536)):
                    break
                acknowledged += part
            time.sleep(chance.uniform(*LAST_S))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise AssertionError("the writer ended by itself")
        while part := os.read(pipe, 65536):
            acknowledged += part
    finally:
        os.close(pipe)
    return int.from_bytes(acknowledged[-8:], "big"), bool(acknowledged)


def read(directory: str) -> tuple[int, int]:
    """(first offset, next offset) of what is in the files; AssertionError when anything is wrong with it."""
    files = OperatingSystemFiles()
    try:
        problems = inspect.verify(directory, files).problems
        frames = list(inspect.cat(directory, TRACES, 0, NO_LIMIT, files))
    except NotFound:
        return 0, 0
    if problems:
        raise AssertionError(f"wal verify: {problems}")
    if not frames:
        return 0, 0
    at = first = frames[0].base_offset
    for one in frames:
        for offset, count in told(one.payload):
            if offset != at:
                raise AssertionError(f"offset {offset} follows {at}")
            at += count
        if at != one.end_offset:
            raise AssertionError(f"a frame ends at offset {one.end_offset}, its records at {at}")
    return first, at


def torture(directory: str, seed: int, kills: int, early: bool = False) -> Counter[str]:
    """Kill so many writers; returns what happened how often. AssertionError when anything is wrong."""
    done: Counter[str] = Counter(kills=0)
    while done["kills"] < kills:
        number = done["kills"] // KILLS_PER_DIRECTORY
        inside = os.path.join(directory, str(number))
        os.makedirs(inside)
        # Every other log forgets, so that files are recycled; the others must still have all.
        retention = RETENTION_BYTES if number % 2 else None
        first = acknowledged = 0
        expected: int | None = None
        for turn in range(min(KILLS_PER_DIRECTORY, kills - done["kills"])):
            orders = Writer(inside, f"{seed} {number} {turn}", expected, retention, early)
            promised, begun = kill_one(orders)
            acknowledged = max(acknowledged, promised)
            first, after = read(inside)
            if after < acknowledged or (first > 0 and retention is None):
                raise AssertionError(f"{orders}: {acknowledged} acknowledged, found {first} to {after}")
            expected = after or None
            done.update(kills=1, in_opening=not begun)
        names = Counter(name.rpartition(".")[2] for name in os.listdir(os.path.join(inside, TRACES.name)))
        done.update(acknowledged_records=acknowledged, segments=names["log"], compacted=names["keys"])
        done.update(forgotten_records=first)
        shutil.rmtree(inside)
    return done


if __name__ == "__main__":
    where, number, often = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(torture(where, number, often, early="early" in sys.argv[4:])))
