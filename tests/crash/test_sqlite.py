"""The backend `sqlite` under load while Ringtail, or its writer alone, is killed, and others lock the file: what was
acknowledged is there, once. Row R20. `make torture-exporters` is the long form.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES
from tests.crash.journal import Journal
from tests.crash.torture import EXPECTED
from tests.crash.writers import Fleet
from tests.daemon import Daemon, environment
from tests.effort import Effort

LIFE_S = (0.1, 1.0)
"""How long it lives under load before a kill."""
SHORT_LIFE_S = (0.3, 0.6)
"""The same in the short form, which kills once, and ends in order."""
LOCK_S = (0.05, 0.5)
"""How long another process holds the file."""
AT_STAKE = 500
"""Records that were acknowledged before the first kill, at least."""
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

    def run(self, kills: int, life_s: tuple[float, float] = LIFE_S) -> list[str]:
        """Kill so often; return what is wrong."""
        try:
            daemon = self._start()
            self._journal.wait_for(AT_STAKE)
            for _ in range(kills):
                time.sleep(self._chance.uniform(*life_s))
                if self._chance.random() < 0.5:
                    self._lock()
                daemon.kill()
                self.kills += 1
                self._fleet.rest()
                daemon = self._start(load=self.kills < kills)
            self._rest_of_it(daemon)
        finally:
            if self._daemon is not None:
                self._daemon.kill()
            self._fleet.end()
            self._journal.close()
        return [*self._journal.judge(self.found), *self._problems()]

    def _rest_of_it(self, daemon: Daemon) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            stats = daemon.get("/api/stats").json()["exporters"]["sqlite"]
            lags = [one["lag_records"] for one in stats["signals"].values()]
            if len(lags) == len(SIGNALS) and not any(lags) and not stats["failing"] and stats["bytes"]:
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"not stored: {stats}")
        metrics = daemon.get("/metrics").body.decode()
        assert 'ringtail_backend_bytes{exporter="sqlite"}' in metrics
        assert 'ringtail_exporter_duration_seconds_bucket{exporter="sqlite",le="+Inf",signal="traces"}' in metrics
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
        return self._journal.records


@pytest.mark.slow
def test_what_was_acknowledged_is_stored_once(tmp_path: Path, effort: Effort) -> None:
    storing = Storing(tmp_path, effort.seed)
    assert storing.run(effort.times(1, 30), LIFE_S if effort.long else SHORT_LIFE_S) == []
    effort.report("R20", kills=storing.kills, locks=storing.locks, acknowledged_records=storing.acknowledged())


def killed_writers(directory: Path, seed: int, kills: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Run killed_sqlite.py, which forks, and so wants a process of its own."""
    command = [sys.executable, "-m", "tests.crash.killed_sqlite", str(directory), str(seed), str(kills), *options]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_writer_is_killed_at_any_moment(tmp_path: Path, effort: Effort) -> None:
    run = killed_writers(tmp_path, effort.seed, effort.times(20, 600))
    assert run.returncode == 0, run.stderr
    done = json.loads(run.stdout)
    assert done["acknowledged_records"] > 1000
    effort.report("R20", **done)


def test_a_writer_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    """The canary."""
    run = killed_writers(tmp_path, 7, 60, "early")
    assert run.returncode == 1
    assert "AssertionError" in run.stderr
    assert " acknowledged, " in run.stderr
