"""A disk without room, under a daemon that runs and under one that starts.

tests/wal/test_faults.py has ENOSPC at every call. Here the file system says it: one in memory in the short form, and by
turns ext4 in the long one. Needs root.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from collector.otlp.signals import SIGNALS, TRACES, Signal
from collector.wal.files import OperatingSystemFiles
from collector.wal.inspect import cat
from collector.wal.reserve import RESERVE_BYTES, RESERVE_NAME
from tests.crash.disks import Disk, memory_disk
from tests.crash.journal import Journal
from tests.crash.reading import NO_LIMIT, ask, ids_of
from tests.crash.test_start import contents, refused
from tests.crash.writers import payload
from tests.daemon import Daemon
from tests.e2e.test_overload import resident
from tests.effort import Effort

SETTINGS = (
    "wal.segment_bytes=1MiB",
    "stores.traces.max_bytes=4MiB",
    "stores.logs.max_bytes=4MiB",
    "stores.metrics.max_bytes=4MiB",
)
KEEP_ALL = "wal.retention.max_bytes=0"
DISK_BYTES = 24 * 1024 * 1024
PADDING = 300_000
REFUSALS = 100
RESIDENT_GROWTH_MAX = 48 * 1024 * 1024
"""While requests are refused; the rings are full by then. What is in flight, and what allocators hold back."""
PATIENCE_S = 60.0
EXPECTED = frozenset(
    {"disk full", "segment not created", "index not written", "index rebuilt", "torn tail cut", "torn tail not kept"}
    | {"segment not compacted", "key index not used"}
)


class Case:
    """A data directory on a small disk, and what clients were promised."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = Journal(directory / "journal")
        self.filler = directory / "data" / "filler"
        self.reserve = directory / "data" / RESERVE_NAME

    def start(self, *settings: str) -> Daemon:
        return Daemon(self.directory, *SETTINGS, *settings, allow=EXPECTED)

    def fill(self) -> None:
        """Take all room that is left."""
        with self.filler.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(65536)):
                pass
        with self.filler.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(512)):
                pass

    def send(self, daemon: Daemon, signal: Signal) -> int:
        """Send one request, journal what is acknowledged, and return the code."""
        request = self.journal.send(signal, 4)
        padding = random.Random(request.number).randbytes(PADDING // 2).hex()  # Compaction makes half of it.
        answer = daemon.export(signal.http_path, payload(request, padding))
        if answer.code == 200:
            self.journal.acknowledge(request)
        else:
            assert answer.code == 503, answer
            assert int(answer.headers["retry-after"]) >= 1
        return answer.code

    def send_until(self, daemon: Daemon, code: int) -> float:
        """Send requests of all signals until each was answered with this code; returns seconds."""
        started = time.monotonic()
        for signal in SIGNALS:
            while self.send(daemon, signal) != code:
                assert time.monotonic() < started + PATIENCE_S, signal
        return time.monotonic() - started

    def judge(self, daemon: Daemon, *, full: bool = False) -> None:
        """Find everything acknowledged, but what retention has removed: that is the oldest, and only that."""
        ready = daemon.get("/readyz")
        assert ready.code == (503 if full else 200), ready
        assert (b"has no room on the disk" in ready.body) == full
        for signal in SIGNALS:
            frames = list(cat(daemon.data, signal, 0, NO_LIMIT, OperatingSystemFiles()))
            found = [one for frame in frames for one in ids_of(signal, frame.payload)]
            assert sorted(set(found)) == found, "in order, and once"
            oldest = found[0] if daemon.stats()[signal.name]["log"]["first_offset"] else 0
            due = [request for request in self.journal.acknowledged(signal) if request.ids[0] >= oldest]
            assert {one for request in due for one in request.ids} <= set(found)
            for request in (*due[:2], *due[-2:]):
                assert ask(daemon, request) == list(request.ids)


@contextmanager
def small_disk(directory: Path, number: int) -> Iterator[None]:
    """A disk at `directory`/data; every other one is ext4."""
    if number % 2 == 0:
        with memory_disk(directory / "data", DISK_BYTES):
            yield
    else:
        with Disk(directory / "image", directory / "data", 2 * DISK_BYTES):
            yield


def endure(case: Case) -> dict[str, float]:
    """Fill the disk under a daemon, and make room again; then let others start on it."""
    with case.start(KEEP_ALL) as daemon:
        assert [case.send(daemon, signal) for signal in SIGNALS] == [200] * 3
        case.fill()
        case.send_until(daemon, 503)
        before = resident(daemon.process.pid)
        for number in range(REFUSALS):
            case.send(daemon, SIGNALS[number % 3])
        grown = resident(daemon.process.pid) - before
        assert grown < RESIDENT_GROWTH_MAX
        case.judge(daemon, full=True)
        case.filler.unlink()
        assert daemon.get("/readyz").code == 200, "nobody has to send for that"
        recovered = case.send_until(daemon, 200)
        case.judge(daemon)
        case.fill()
        case.send_until(daemon, 503)
        daemon.kill()
    case.fill()
    assert case.reserve.stat().st_size == RESERVE_BYTES
    (case.reserve.parent / TRACES.name / f"{0:020}.index").unlink()
    case.fill()
    with case.start(KEEP_ALL) as daemon:
        assert "index rebuilt" in {event["event"] for event in daemon.events}
        assert "index not written" not in {event["event"] for event in daemon.events}, "there was a reserve"
        case.judge(daemon)
        case.send_until(daemon, 503)
    case.fill()
    with case.start("wal.retention.max_bytes=1MiB") as daemon:
        case.send_until(daemon, 200)  # Retention makes room.
        case.judge(daemon)
        removed = daemon.stats()[TRACES.name]["log"]["first_offset"]
    assert removed > 0
    assert list(case.filler.parent.rglob("*.tmp")) == []
    return {"resident_growth": grown, "recovered_s": round(recovered, 2), "traces_removed_by_retention": removed}


def test_a_full_disk_is_endured(tmp_path: Path, effort: Effort) -> None:
    for number in range(effort.times(1, 10)):
        inside = tmp_path / str(number)
        inside.mkdir()
        with small_disk(inside, number):
            case = Case(inside)
            figures = endure(case)
            case.journal.close()
        effort.report("R6", disks=1, file_system=["tmpfs", "ext4"][number % 2], **figures)


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    with Disk(tmp_path / "image", tmp_path / "mounted", DISK_BYTES) as disk:
        (disk.at / "data").mkdir()
        disk.remount("ro")
        before = contents(disk.at)
        line = refused(disk.at / "data")
        assert str(disk.at / "data") in line
        assert "Read-only file system" in line
        assert contents(disk.at) == before


def test_a_log_that_was_lost_is_seen(tmp_path: Path) -> None:
    """The canary: a log of which the newest segment is gone does not pass for one that retention has thinned out."""
    (tmp_path / "data").mkdir()
    case = Case(tmp_path)
    with case.start(KEEP_ALL) as daemon:
        for _ in range(8):
            case.send_until(daemon, 200)
    newest = max((tmp_path / "data" / "traces").glob("*.log"))
    newest.unlink()
    with case.start(KEEP_ALL) as daemon, pytest.raises(AssertionError):
        case.judge(daemon)
    case.journal.close()
