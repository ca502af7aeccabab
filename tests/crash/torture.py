"""Killing a daemon again and again under load, and looking for every acknowledged record after each start.

One cycle: writers write; after a random time SIGKILL, sometimes with SIGTERM before it, so that it meets the drain;
then, sometimes, a start that is killed before it is ready, so that it meets the recovery; then a start that must succeed.
After it the log is read as a whole and compared with the journal and with what `/api/stats` says of rings, indexes and
log; and the newest requests of each signal, the ones that the kill put at risk, are asked for through the query APIs,
with some older ones.

What this proves: the path from acknowledgement to start-up. What it does not: that data reached the disk, since the
operating system's cache outlives a killed process. tests/wal/test_power_cut.py is about that.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from collector.otlp.signals import SIGNALS, Signal
from tests.crash.journal import Journal, Request
from tests.crash.reading import ask, disagreements, read_ids, read_log
from tests.crash.writers import Fleet
from tests.daemon import COMMAND, Daemon

LIFE_S = (0.005, 0.6)
"""How long a daemon lives under load."""
DRAIN_S = (0.0, 0.1)
"""How long one that was told to stop has for it."""
RECOVERY_S = (0.1, 0.6)
"""How long a start is let alone: from before Python has imported anything to about when it is ready."""
IN_DRAIN, IN_RECOVERY = 0.15, 0.25
"""The part of cycles in which a kill comes there."""

NEWEST, OLDER = 4, 4
"""Requests of each signal that are asked for after each start."""

SETTINGS = (
    "wal.segment_bytes=1MiB",  # small segments: kills meet the making of new ones
    "wal.retention.max_bytes=0",
    "stores.traces.capacity=2000",  # small rings: most of what is asked for is read from the log
    "stores.logs.capacity=2000",
    "stores.metrics.capacity=2000",
)
EXPECTED = frozenset({"torn tail cut", "index rebuilt"})
"""What a start after a kill may warn of."""


class Torture:
    """One data directory and everything that happens to it."""

    def __init__(
        self, directory: Path, seed: int, settings: Sequence[str] = (), command: Sequence[str] = COMMAND
    ) -> None:
        self.seed = seed
        self.kills = 0
        self.starts = 0
        self.torn = 0
        """Torn tails that starts have cut: kills that came in the middle of a write."""
        self.compacted = 0
        """Segments that daemons have compacted before they were killed."""
        self._directory = directory
        self._settings = (*SETTINGS, *settings)
        self._command = command
        self._chance = random.Random(seed)
        self._journal = Journal(directory / "journal")
        self._fleet = Fleet(self._journal, seed)

    def run(self, kills: int) -> list[str]:
        """Kill at least so often; return what is wrong, as soon as anything is. Empty when all is well."""
        daemon = self._start()
        try:
            while self.kills < kills:
                self._one_life(daemon)
                if self._chance.random() < IN_RECOVERY:
                    self._one_recovery()
                daemon = self._start()
                findings = self.findings(daemon)
                if findings:
                    return [*findings, *self._about()]
            daemon.stop()
        finally:
            daemon.kill()
            self._fleet.end()
            self._journal.close()
        return [*self._judge(), *self._about()] if self._judge() else []

    def _about(self) -> list[str]:
        return [f"seed {self.seed}, after kill {self.kills}; data and journal are in {self._directory}"]

    def _start(self, wait: bool = True) -> Daemon:
        self.starts += 1
        return Daemon(self._directory, *self._settings, command=self._command, wait=wait, allow=EXPECTED)

    def _one_life(self, daemon: Daemon) -> None:
        self._fleet.write_to(daemon.grpc, daemon.http)
        time.sleep(self._chance.uniform(*LIFE_S))
        if self._chance.random() < IN_DRAIN:
            daemon.terminate()
            time.sleep(self._chance.uniform(*DRAIN_S))
        self._kill(daemon)
        self._fleet.rest()

    def _one_recovery(self) -> None:
        daemon = self._start(wait=False)
        time.sleep(self._chance.uniform(*RECOVERY_S))
        self._kill(daemon)

    def _kill(self, daemon: Daemon) -> None:
        self.kills += 1
        daemon.kill()
        self.compacted += sum(event["event"] == "segment compacted" for event in daemon.events)

    def findings(self, daemon: Daemon) -> list[str]:
        """Look for everything, in a daemon that has just started, while the writers rest."""
        self.torn += sum(event["event"] == "torn tail cut" for event in daemon.events)
        findings = [f"in the daemon's log: {event}" for event in daemon.troubles()]
        held = read_ids(self._directory / "data")
        findings += self._journal.judge({signal: Counter(ids) for signal, ids in held.items()})
        findings += disagreements(daemon, held)
        for signal in SIGNALS:
            for request in self._sample(signal):
                answered = ask(daemon, request)
                if answered != list(request.ids):
                    findings.append(f"{signal.name}: request {request.number} is answered with {answered}")
        return findings

    def _judge(self) -> list[str]:
        return self._journal.judge(read_log(self._directory / "data"))

    def _sample(self, signal: Signal) -> list[Request]:
        known = self._journal.acknowledged(signal)
        older = known[:-NEWEST]
        return known[-NEWEST:] + self._chance.sample(older, min(OLDER, len(older)))

    def acknowledged(self) -> dict[Signal, int]:
        """Return how many records were acknowledged."""
        return {signal: sum(one.count for one in self._journal.acknowledged(signal)) for signal in SIGNALS}
