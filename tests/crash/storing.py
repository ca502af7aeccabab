"""A daemon that stores to a server, under load, while the server, the daemon or both are killed at random. Row R20."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from collector.otlp.signals import SIGNALS, Signal
from tests.crash.journal import Journal
from tests.crash.torture import EXPECTED
from tests.crash.writers import Fleet
from tests.daemon import Daemon
from tests.effort import Effort

LIFE_S = (0.2, 1.5)
"""How long both live under load before a kill."""
SHORT_LIFE_S = (0.2, 0.4)
"""The same in the short form, which kills the server once, and Ringtail at the end."""
DOWN_S = (0.0, 0.5)
"""How long the killed one is away."""
VICTIMS = (("server",), ("server",), ("ringtail",), ("server", "ringtail"), ("ringtail", "server"))
PATIENCE_S = 120.0
ALLOWED = EXPECTED | {"export fails", "exporter not started"}
QUICK = (
    "retry_on_failure.initial_interval=50ms",
    "retry_on_failure.max_interval=200ms",
    "timeout=5s",
    "sending_queue.num_consumers=2",
)


class Killable(Protocol):
    """A server of the tests, which is running."""

    def start(self) -> None:
        """Start it again."""

    def kill(self) -> None:
        """Kill it."""


class Storing:
    """A daemon with one exporter of a `kind`."""

    def __init__(
        self, directory: Path, seed: int, server: Killable, kind: str, keys: Sequence[str], allowed: frozenset[str]
    ) -> None:
        """`keys` are settings of the exporter, beside `QUICK`; the daemon may log what is `allowed`, beside `ALLOWED`."""
        self.kills: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._journal = Journal(directory / "journal")
        self._fleet = Fleet(self._journal, seed)
        self._place = directory / "daemon"
        self._place.mkdir()
        self._server = server
        self._kind = kind
        self._settings = ["wal.segment_bytes=1MiB", "stores.traces.capacity=2000", "stores.logs.capacity=2000"]
        self._settings += [f"exporters.{kind}.{key}" for key in (*QUICK, *keys)]
        self._allowed = ALLOWED | allowed
        self._daemon: Daemon | None = None

    def _start(self, victim: str, *, load: bool = True) -> None:
        if victim == "server":
            self._server.start()
            return
        self._daemon = Daemon(self._place, *self._settings, allow=self._allowed)
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

    def run(self, found: Callable[[], dict[Signal, Counter[int]]], effort: Effort) -> None:
        """Kill as often as there is time for, and compare what is `found` in the server, by its numbers, with the journal."""
        life_s = LIFE_S if effort.long else SHORT_LIFE_S
        try:
            self._start("ringtail")
            for number in range(effort.times(1, 30)):
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
            stored = found()
        finally:
            if self._daemon is not None:
                self._daemon.kill()
            self._fleet.end()
            self._journal.close()
            self._server.kill()
        assert self._journal.judge(stored) == []
        acknowledged = sum(one.count for signal in SIGNALS for one in self._journal.acknowledged(signal))
        assert acknowledged > 500
        effort.report("R20", kills=dict(self.kills), acknowledged_records=acknowledged)

    def _rest_of_it(self) -> None:
        assert self._daemon is not None
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            signals = self._daemon.get("/api/stats").json()["exporters"][self._kind]["signals"].values()
            if len(signals) == len(SIGNALS) and not any(one["lag_records"] for one in signals):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"not stored: {signals}")
        self._daemon.stop()
