"""What clients sent and what was acknowledged to them: the oracle of the crash tests, kept outside the daemon.

Every record has an id of its own, in 64 bits: the number of its request, and its place in it. A span and a log
record carry it as their span id, a data point as its value. A request is sent once and never again, so a record
that is found twice was stored twice.

The journal is a file beside the data directory, for looking at after a failure, and sets in memory, for judging.
A line is one `write`, so it survives whatever ends the test but a power cut.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from collector.otlp.signals import SIGNALS, Signal

PLACES = 4096
"""Records that a request may have."""
PATIENCE_S = 120.0
SHOWN = 10
"""Ids that a finding names."""


@dataclass(frozen=True, slots=True)
class Request:
    """One export request: `count` records of a signal."""

    signal: Signal
    number: int
    """From 1, over all signals."""
    count: int

    @property
    def ids(self) -> range:
        """The ids of its records, in their order."""
        first = self.number * PLACES + 1
        return range(first, first + self.count)


@dataclass(slots=True)
class _Kept:
    sent: dict[int, Request] = field(default_factory=dict)
    acknowledged: dict[int, Request] = field(default_factory=dict)


class Journal:
    """Written by the writers' threads; judged when they rest."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        self._lock = threading.Condition()
        self._records = 0
        self._kept = {signal: _Kept() for signal in SIGNALS}
        self._number = 0

    def send(self, signal: Signal, count: int) -> Request:
        """Note a request that is about to be sent, and return it."""
        with self._lock:
            self._number += 1
            request = Request(signal, self._number, count)
            self._kept[signal].sent[request.number] = request
        self._write("sent", request)
        return request

    def acknowledge(self, request: Request) -> None:
        """Note that the daemon has answered with full success."""
        self._write("acknowledged", request)
        with self._lock:
            self._kept[request.signal].acknowledged[request.number] = request
            self._records += request.count
            self._lock.notify_all()

    @property
    def records(self) -> int:
        """How many records were acknowledged."""
        return self._records

    def wait_for(self, records: int) -> None:
        """Wait until so many records were acknowledged: on a busy machine a time alone says nothing."""
        with self._lock:
            assert self._lock.wait_for(lambda: self._records >= records, PATIENCE_S), f"{self._records} acknowledged"

    def _write(self, what: str, request: Request) -> None:
        os.write(self._file, f"{what} {request.signal.name} {request.number} {request.count}\n".encode())

    def acknowledged(self, signal: Signal) -> list[Request]:
        """Return the acknowledged requests, oldest first."""
        with self._lock:
            return list(self._kept[signal].acknowledged.values())

    def judge(self, found: Mapping[Signal, Counter[int]]) -> list[str]:
        """Compare with the ids that were read back; return what is wrong, a line for each kind. Empty is well."""
        findings = []
        for signal, ids in found.items():
            kept = self._kept[signal]
            lost = [one for request in kept.acknowledged.values() for one in request.ids if one not in ids]
            twice = [one for one, times in ids.items() if times > 1]
            invented = [one for one in ids if (one - 1) // PLACES not in kept.sent]
            invented += [
                one
                for one in ids
                if (request := kept.sent.get((one - 1) // PLACES)) is not None and one not in request.ids
            ]
            torn = [
                request.number
                for request in kept.sent.values()
                if 0 < sum(one in ids for one in request.ids) < request.count
            ]
            for what, some in (
                ("acknowledged and lost", lost),
                ("found twice", twice),
                ("found and never sent", invented),
                ("found in part: requests", torn),
            ):
                if some:
                    shown = ", ".join(map(str, some[:SHOWN]))
                    findings.append(f"{signal.name}: {len(some)} {what}: {shown}{', …' if len(some) > SHOWN else ''}")
        return findings

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
