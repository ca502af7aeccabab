"""A start over a log that is many times what the daemon may hold: R19.

The log is written here, without a daemon. While the start refills the rings, resident memory is sampled, queries are
answered, and `/readyz` says what is under way; in between it is killed, and started again.
"""

from __future__ import annotations

import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.otlp.signals import LOGS, TRACES, Signal
from collector.testing import otlp
from collector.wal.files import OperatingSystemFiles
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from collector.wal.readable import TIME_MAX
from tests.crash.journal import Request
from tests.crash.reading import ask
from tests.crash.writers import payload
from tests.daemon import Daemon
from tests.effort import Effort
from tests.wal.logs import RecordingLogger

LIMIT = 160 * 1024 * 1024
MIB = 1024 * 1024
RECORDS = 2000
SETTINGS = (
    f"memory.limit={LIMIT}",
    "stores.traces.capacity=400000",
    "stores.logs.capacity=400000",
    "stores.traces.max_bytes=1GiB",
    "stores.logs.max_bytes=1GiB",
    "wal.retention.max_bytes=0",
    "wal.compaction.enabled=false",
)
ALLOWED = frozenset({"rings are smaller than configured", "memory limit reached", "index rebuilt"})


def written(data: Path, signal: Signal, body: bytes, size: int) -> int:
    """Write a log of so many bytes, with one record to be found at its beginning; returns its next offset."""
    log = Log.open(
        data,
        signal,
        files=OperatingSystemFiles(),
        clock=SystemClock(),
        metrics=LogMetrics(CollectorRegistry()),
        logger=RecordingLogger(),
        direct=False,
    )
    log.append([payload(first(signal))], 3, 1, TIME_MAX)
    while log.byte_size < size:
        log.append([body], RECORDS, 1, TIME_MAX)
    log.close()
    return log.next_offset


def first(signal: Signal) -> Request:
    """The oldest request of a log."""
    return Request(signal, 1 + (signal is LOGS), 3)


class Watched(Daemon):
    """A daemon whose memory is looked at while it starts."""

    peak = 0
    replaying_seen = 0
    answered = 0

    def watch(self) -> float:
        """Look until it is ready; returns the seconds that took."""
        began = time.monotonic()
        self.wait_for("listening")
        while not any(event["event"] == "ready" for event in self.events[-3:]):
            told = self.get("/readyz")
            if told.code == 503:
                self.replaying_seen += b"is being filled from the log" in told.body
                self.answered += ask(self, first(TRACES)) == list(first(TRACES).ids)
            self.peak = max(self.peak, self.high_water())
        self.peak = max(self.peak, self.high_water())
        return time.monotonic() - began

    def high_water(self) -> int:
        """The most that it has ever held, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_a_log_larger_than_memory_is_replayed_within_it(tmp_path: Path, effort: Effort) -> None:
    size = (1600 if effort.long else 120) * MIB // 2  # Of each log; ten times the limit, or less than it.
    ends = {
        TRACES: written(tmp_path / "data", TRACES, otlp.traces(RECORDS), size),
        LOGS: written(tmp_path / "data", LOGS, otlp.logs(RECORDS), size),
    }
    figures: dict[str, float] = {}
    for how in ("killed", "with indexes", "without indexes"):
        if how == "without indexes":
            for path in (tmp_path / "data").rglob("*.index"):
                path.unlink()
        daemon = Watched(tmp_path, *SETTINGS, wait=False, allow=ALLOWED)
        if how == "killed":
            daemon.wait_for("listening")
            time.sleep(effort.chance().uniform(0, 0.2))  # the moment of the fault
            daemon.kill()
            continue
        with daemon:
            took = daemon.watch()
            assert daemon.peak <= 1.1 * LIMIT
            assert daemon.answered == daemon.replaying_seen, "queries were answered meanwhile"
            for signal, end in ends.items():
                assert daemon.stats()[signal.name]["log"]["next_offset"] == end
                assert daemon.stats()[signal.name]["records"] > 5_000
                assert ask(daemon, first(signal)) == list(first(signal).ids)
        figures |= {f"peak, {how}": daemon.peak, f"s_per_GiB, {how}": round(took / (2 * size / 2**30), 2)}
        figures[f"asked meanwhile, {how}"] = daemon.replaying_seen
    assert figures["asked meanwhile, with indexes"] > 0 or not effort.long, "it was no replay"
    effort.report("R19", limit=LIMIT, log_bytes=2 * size, **figures)
