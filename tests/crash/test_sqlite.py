"""The backend `sqlite` under load while Ringtail is killed and others lock the file: what was acknowledged is there, once.
Row R20. `make torture-exporters` is the long form.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES
from tests.crash.journal import Journal
from tests.crash.torture import EXPECTED
from tests.crash.writers import Fleet
from tests.daemon import Daemon
from tests.effort import Effort

LIFE_S = (0.1, 1.0)
"""How long it lives under load before a kill."""
LOCK_S = (0.05, 0.5)
"""How long another process holds the file."""
PATIENCE_S = 60.0
ALLOWED = EXPECTED | {"export fails", "exporter not started"}
QUICK = ("retry_on_failure.initial_interval=50ms", "retry_on_failure.max_interval=200ms", "busy_timeout=20ms")
IDS = {
    TRACES: "SELECT span_id FROM otlp_spans",
    LOGS: "SELECT span_id FROM otlp_logs",
    METRICS: "SELECT value FROM otlp_points",
}


class Storing:
    """A daemon that stores to SQLite."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.kills = self.locks = 0
        self._chance = random.Random(seed)
        self._journal = Journal(directory / "journal")
        self._fleet = Fleet(self._journal, seed)
        self._place = directory / "daemon"
        self._place.mkdir()
        self._path = directory / "stored.sqlite"
        self._daemon: Daemon | None = None

    def _start(self, *, load: bool = True) -> Daemon:
        settings = ["wal.segment_bytes=1MiB", "stores.traces.capacity=2000", "stores.logs.capacity=2000"]
        settings += [f"exporters.sqlite.path={self._path}", *(f"exporters.sqlite.{one}" for one in QUICK)]
        self._daemon = daemon = Daemon(self._place, *settings, allow=ALLOWED)
        address = daemon.grpc, daemon.http
        if load:
            self._fleet.write_to(*address)
        return daemon

    def _lock(self) -> None:
        """Hold the file for a while, as a backup or somebody's shell might."""
        if self._path.exists():
            with closing(sqlite3.connect(self._path, isolation_level=None, timeout=5)) as other:
                other.execute("BEGIN IMMEDIATE")
                time.sleep(self._chance.uniform(*LOCK_S))
            self.locks += 1

    def run(self, kills: int) -> list[str]:
        """Kill so often; return what is wrong."""
        try:
            daemon = self._start()
            for _ in range(kills):
                time.sleep(self._chance.uniform(*LIFE_S))
                if self._chance.random() < 0.5:
                    self._lock()
                daemon.kill()
                self.kills += 1
                self._fleet.rest()
                daemon = self._start()
            time.sleep(self._chance.uniform(*LIFE_S))
            daemon.kill()
            self._fleet.rest()
            self._rest_of_it(self._start(load=False))
        finally:
            if self._daemon is not None:
                self._daemon.kill()
            self._fleet.end()
            self._journal.close()
        return [*self._journal.judge(self.found), *self._problems()]

    def _rest_of_it(self, daemon: Daemon) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            signals = daemon.get("/api/stats").json()["exporters"]["sqlite"]["signals"].values()
            if len(signals) == len(SIGNALS) and not any(one["lag_records"] for one in signals):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"not stored: {signals}")
        daemon.stop()
        with closing(sqlite3.connect(self._path)) as connection:
            self.found = {
                signal: Counter(
                    one if isinstance(one, int) else int.from_bytes(one, "big")
                    for (one,) in connection.execute(IDS[signal])
                )
                for signal in SIGNALS
            }

    def _problems(self) -> list[str]:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("INSERT INTO otlp_log_text (otlp_log_text) VALUES ('integrity-check')")
            return [one for (one,) in connection.execute("PRAGMA integrity_check") if one != "ok"]

    def acknowledged(self) -> int:
        """How many records were at stake."""
        return sum(one.count for signal in SIGNALS for one in self._journal.acknowledged(signal))


@pytest.mark.slow
def test_what_was_acknowledged_is_stored_once(tmp_path: Path, effort: Effort) -> None:
    storing = Storing(tmp_path, effort.seed)
    assert storing.run(effort.times(2, 30)) == []
    assert storing.acknowledged() > 1000
    effort.report("R20", kills=storing.kills, locks=storing.locks, acknowledged_records=storing.acknowledged())
