"""The backend `clickhouse` under load while the server, Ringtail or both are killed: what was acknowledged is there, once.
Row R20. `make torture-exporters` is the long form.

The server is chdb, the real engine, behind an HTTP server of the tests.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES
from tests.crash.journal import Journal
from tests.crash.torture import EXPECTED
from tests.crash.writers import Fleet
from tests.daemon import Daemon
from tests.effort import Effort
from tests.exporters.clickhouse.served import Served
from tests.exporters.clickhouse.server import need_engine

LIFE_S = (0.2, 1.5)
"""How long both live under load before a kill."""
SHORT_LIFE_S = (0.2, 0.4)
"""The same in the short form, which kills the server once, and Ringtail at the end."""
DOWN_S = (0.0, 0.5)
"""How long the killed one is away."""
VICTIMS = (("server",), ("server",), ("ringtail",), ("server", "ringtail"), ("ringtail", "server"))
PATIENCE_S = 120.0
MENDED = "the server knew an insert without having its rows"
ALLOWED = EXPECTED | {"export fails", "exporter not started", MENDED}
QUICK = (
    "retry_on_failure.initial_interval=50ms",
    "retry_on_failure.max_interval=200ms",
    "timeout=5s",
    "sending_queue.num_consumers=2",
    "sending_queue.batch.flush_timeout=100ms",
)
IDS = {
    TRACES: "SELECT reinterpretAsUInt64(reverse(unhex(SpanId))), count() FROM otel_traces GROUP BY 1",
    LOGS: "SELECT reinterpretAsUInt64(reverse(unhex(SpanId))), count() FROM otel_logs GROUP BY 1",
    METRICS: "SELECT toUInt64(Value), count() FROM otel_metrics_gauge GROUP BY 1",
}


class Storing:
    """A daemon that stores to a server."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.kills: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._journal = Journal(directory / "journal")
        self._fleet = Fleet(self._journal, seed)
        self._place = directory / "daemon"
        self._place.mkdir()
        self._server = Served(directory / "server")
        self._daemon: Daemon | None = None

    def _start(self, victim: str, *, load: bool = True) -> None:
        if victim == "server":
            self._server.start()
            return
        settings = ["wal.segment_bytes=1MiB", "stores.traces.capacity=2000", "stores.logs.capacity=2000"]
        settings += [f"exporters.clickhouse.{key}" for key in (f"endpoint={self._server.url}", *QUICK)]
        self._daemon = Daemon(self._place, *settings, allow=ALLOWED)
        if load:
            self._fleet.write_to(self._daemon.grpc, self._daemon.http)

    def _kill(self, victim: str) -> None:
        self.kills[victim] += 1
        if victim == "server":
            self._server.kill()
        else:
            assert self._daemon is not None
            self._daemon.kill()
            self._fleet.rest()

    def run(self, kills: int, life_s: tuple[float, float] = LIFE_S) -> list[str]:
        """Kill so often; return what is wrong."""
        try:
            self._start("ringtail")
            for number in range(kills):
                time.sleep(self._chance.uniform(*life_s))
                victims = self._chance.choice(VICTIMS) if number else VICTIMS[0]
                for victim in victims:
                    self._kill(victim)
                    time.sleep(self._chance.uniform(*DOWN_S))
                for victim in victims:
                    self._start(victim)
            time.sleep(self._chance.uniform(*life_s))
            self._kill("ringtail")
            self._start("ringtail", load=False)
            self._rest_of_it()
        finally:
            if self._daemon is not None:
                self._daemon.kill()
            self._fleet.end()
            self._journal.close()
            self._server.kill()
        return self._journal.judge(self.found)

    def _rest_of_it(self) -> None:
        assert self._daemon is not None
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            signals = self._daemon.get("/api/stats").json()["exporters"]["clickhouse"]["signals"].values()
            if len(signals) == len(SIGNALS) and not any(one["lag_records"] for one in signals):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"not stored: {signals}")
        self._daemon.stop()
        self.found = {
            signal: Counter({int(one): int(times) for one, times in self._server.rows(IDS[signal])})
            for signal in SIGNALS
        }

    def acknowledged(self) -> int:
        """How many records were at stake."""
        return sum(one.count for signal in SIGNALS for one in self._journal.acknowledged(signal))


@pytest.mark.slow
def test_what_was_acknowledged_is_stored_once_whoever_is_killed(tmp_path: Path, effort: Effort) -> None:
    need_engine()
    storing = Storing(tmp_path, effort.seed)
    assert storing.run(effort.times(1, 30), LIFE_S if effort.long else SHORT_LIFE_S) == []
    assert storing.acknowledged() > 500
    effort.report("R20", kills=dict(storing.kills), acknowledged_records=storing.acknowledged())
