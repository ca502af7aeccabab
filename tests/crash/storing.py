"""A daemon that stores to a server, under load, while the server, the daemon or both are killed at random. Row R20."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from collector.otlp.signals import SIGNALS, Signal
from tests.crash.journal import Journal
from tests.crash.torture import EXPECTED
from tests.crash.writers import Fleet
from tests.daemon import COMMAND, Daemon
from tests.effort import Effort

LIFE_S = (0.2, 1.5)
"""How long both live under load before a kill."""
SHORT_LIFE_S = (0.2, 0.4)
"""The same in the short form, which kills the server once, and Ringtail at the end."""
DOWN_S = (0.0, 0.5)
"""How long the killed one is away."""
VICTIMS = (("server",), ("server",), ("ringtail",), ("server", "ringtail"), ("ringtail", "server"))
AT_STAKE = 500
"""Records that were acknowledged before the first kill, at least."""
PATIENCE_S = 120.0
ALLOWED = EXPECTED | {"export fails", "exporter not started"}
QUICK = (
    "retry_on_failure.initial_interval=50ms",
    "retry_on_failure.max_interval=200ms",
    "timeout=5s",
    "sending_queue.num_consumers=2",
)


CARELESS = (sys.executable, "-m", "tests.crash.variants", "careless")


class Killable(Protocol):
    """A server of the tests, which is running."""

    def start(self) -> None:
        """Start it again."""

    def kill(self) -> None:
        """Kill it."""


class Storing:
    """A daemon with one exporter of a `kind`."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        server: Killable,
        kind: str,
        keys: Sequence[str],
        allowed: frozenset[str],
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`keys` are settings of the exporter, beside `QUICK`; the daemon may log what is `allowed`, beside `ALLOWED`; `command`
        runs it, or a broken variant."""
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
        self._command = command
        self._daemon: Daemon | None = None

    def _start(self, victim: str, *, load: bool = True) -> None:
        if victim == "server":
            self._server.start()
            return
        self._daemon = Daemon(self._place, *self._settings, allow=self._allowed, command=self._command)
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

    def run(
        self, found: Callable[[], Mapping[Signal, Counter[int]]], kills: int, life_s: tuple[float, float] = SHORT_LIFE_S
    ) -> list[str]:
        """Kill so often, and Ringtail in the end; compare what is `found` in the server, by its numbers, with the journal, and
        return what is wrong."""
        try:
            self._start("ringtail")
            self._journal.wait_for(AT_STAKE)
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
            stored = found()
        finally:
            if self._daemon is not None:
                self._daemon.kill()
            self._fleet.end()
            self._journal.close()
            self._server.kill()
        return self._journal.judge(stored)

    def runs_well(self, found: Callable[[], Mapping[Signal, Counter[int]]], effort: Effort) -> None:
        """Kill as often as there is time for, and find nothing wrong."""
        assert self.run(found, effort.times(1, 30), LIFE_S if effort.long else SHORT_LIFE_S) == []
        effort.report("R20", kills=dict(self.kills), acknowledged_records=self._journal.records)

    def is_caught(self, found: Callable[[], Mapping[Signal, Counter[int]]]) -> None:
        """Find what the variant `careless` does to spans and to log records, and nothing wrong with data points."""
        wrong = self.run(found, 0)
        assert any(one.startswith("traces:") and "acknowledged and lost" in one for one in wrong), wrong
        assert any(one.startswith("logs:") and "found twice" in one for one in wrong), wrong
        assert not [one for one in wrong if one.startswith("metrics:")], wrong

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
