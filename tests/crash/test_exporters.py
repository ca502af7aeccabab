"""Forwarding under load while either side is killed: what the first acknowledged, the second has. Row R20.

One Ringtail receives and forwards to another, spans by gRPC, log records and data points by HTTP. OTLP knows no keys, so
records may arrive twice; how many is reported. `make torture-exporters` is the long form.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from collector.otlp.signals import SIGNALS
from tests.crash.journal import Journal
from tests.crash.reading import read_log
from tests.crash.torture import EXPECTED
from tests.crash.writers import Fleet
from tests.daemon import COMMAND, Daemon
from tests.effort import Effort

LIFE_S = (0.1, 1.0)
"""How long both live under load before a kill."""
DOWN_S = (0.0, 0.5)
"""How long the killed one is away."""
VICTIMS = (("first",), ("second",), ("first", "second"), ("second", "first"))
PATIENCE_S = 120.0
ALLOWED = EXPECTED | {"export fails", "exporter not started"}
QUICK = ("retry_on_failure.initial_interval=50ms", "retry_on_failure.max_interval=200ms", "timeout=2s")


class Forwarding:
    """Two daemons, of which one forwards to the other."""

    def __init__(self, directory: Path, seed: int, command: Sequence[str] = COMMAND) -> None:
        self.kills: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._journal = Journal(directory / "journal")
        self._fleet = Fleet(self._journal, seed)
        self._places = {name: directory / name for name in ("first", "second")}
        for place in self._places.values():
            place.mkdir()
        self._command = command
        self._running: dict[str, Daemon] = {}
        self._addresses: dict[str, str] = {}

    def _start(self, name: str, *, load: bool = True) -> None:
        settings = ["wal.segment_bytes=1MiB", "stores.traces.capacity=2000", "stores.logs.capacity=2000"]
        at = self._addresses
        if name == "first":
            settings += [
                f"exporters.otlp.endpoint={at['grpc']}",
                "exporters.otlp.tls.insecure=true",
                "exporters.otlp.signals=traces",
                "exporters.otlp.sending_queue.num_consumers=2",
                f"exporters.otlphttp.endpoint=http://{at['http']}",
                "exporters.otlphttp.signals=[logs, metrics]",
                *(f"exporters.{exporter}.{one}" for exporter in ("otlp", "otlphttp") for one in QUICK),
            ]
        elif at:
            settings += [f"receivers.otlp.protocols.{protocol}.endpoint={at[protocol]}" for protocol in at]
        command = self._command if name == "first" else COMMAND
        self._running[name] = daemon = Daemon(self._places[name], *settings, allow=ALLOWED, command=command)
        if name == "second":
            self._addresses = {"grpc": daemon.grpc, "http": daemon.http}
        elif load:
            self._fleet.write_to(daemon.grpc, daemon.http)

    def _kill(self, name: str) -> None:
        self._running[name].kill()
        self.kills[name] += 1
        if name == "first":
            self._fleet.rest()

    def run(self, kills: int, choices: Sequence[Sequence[str]] = VICTIMS) -> list[str]:
        """Kill so often; return what is wrong."""
        try:
            self._start("second")
            self._start("first")
            for _ in range(kills):
                time.sleep(self._chance.uniform(*LIFE_S))
                victims = self._chance.choice(choices)
                for victim in victims:
                    self._kill(victim)
                    time.sleep(self._chance.uniform(*DOWN_S))
                for victim in sorted(victims, reverse=True):
                    self._start(victim)
            self._kill("first")
            self._rest_of_it()
        finally:
            for daemon in self._running.values():
                daemon.kill()
            self._fleet.end()
            self._journal.close()
        return [one for one in self._journal.judge(self.found) if "found twice" not in one]

    def _rest_of_it(self) -> None:
        """Nobody writes any more: wait until everything has been forwarded, and end both in order."""
        self._start("first", load=False)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            exporters = self._running["first"].get("/api/stats").json()["exporters"]
            lag = [one["lag_records"] for exporter in exporters.values() for one in exporter["signals"].values()]
            if len(lag) == len(SIGNALS) and not any(lag):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"not forwarded: {exporters}")
        self.lost = sum(one["lost_records"] for e in exporters.values() for one in e["signals"].values())
        for name in ("first", "second"):
            self._running[name].stop()
        self.found = read_log(self._places["second"] / "data")

    def counts(self) -> dict[str, int]:
        """What was at stake."""
        acknowledged = sum(one.count for signal in SIGNALS for one in self._journal.acknowledged(signal))
        twice = sum(times - 1 for ids in self.found.values() for times in ids.values())
        return {"acknowledged_records": acknowledged, "arrived_twice": twice, "lost_records": self.lost}


@pytest.mark.slow
def test_what_was_acknowledged_is_forwarded_whoever_is_killed(tmp_path: Path, effort: Effort) -> None:
    forwarding = Forwarding(tmp_path, effort.seed)
    assert forwarding.run(effort.times(4, 30)) == []
    counts = forwarding.counts()
    assert counts["acknowledged_records"] > 1000
    assert counts["lost_records"] == 0
    effort.report("R20", kills=dict(forwarding.kills), **counts)


def test_a_cursor_that_moves_too_early_is_caught(tmp_path: Path) -> None:
    """The canary."""
    command = (sys.executable, "-m", "tests.crash.variants", "hasty")
    forwarding = Forwarding(tmp_path, 11, command)
    assert any("acknowledged and lost" in one for one in forwarding.run(2, [("second", "first")]))
