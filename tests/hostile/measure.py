"""Well-behaved clients without and with an attack beside them, and what the daemon holds meanwhile."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from collector.otlp.signals import SIGNALS, Signal
from tests.daemon import Daemon
from tests.hostile.actor import Actor, cpu_s

MIB = 1024 * 1024
SAMPLE_S = 0.02
DESCRIPTORS_EACH = 25
"""Samples of memory for one of descriptors, of which there may be thousands."""
FREED_PATIENCE_S = 20.0
"""How long after an attack its file descriptors may be held: a connection that is cut may linger two seconds."""
GOODPUT_MIN = 0.9
"""What well-behaved clients must get during an attack, of what they get without."""
PEAK_MAX = 1.1
"""What the daemon may hold, in times of memory.limit."""
IDLE_BYTES_MAX = 64 * 1024

Plan = Sequence[tuple[str, Mapping[str, Any]]]
"""Names and options of actors."""


def resident(pid: int) -> int:
    """Bytes that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """Open sockets of a process. Its files come and go with the log's segments."""
    found = 0
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found += os.readlink(entry.path).startswith("socket:")
    return found


class Watch:
    """The most that a daemon held while the block ran, and what it used."""

    def __init__(self, daemon: Daemon) -> None:
        self._pid = daemon.process.pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.peak_bytes = 0
        self.peak_descriptors = 0
        self.cpu_share = 0.0

    def _sample(self) -> None:
        turn = 0
        while not self._stop.wait(SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, resident(self._pid))
            turn += 1
            if turn % DESCRIPTORS_EACH == 0:
                self.peak_descriptors = max(self.peak_descriptors, descriptors(self._pid))

    def begin(self) -> None:
        """Count CPU from here."""
        self._begun, self._cpu = time.monotonic(), cpu_s(self._pid)

    def __enter__(self) -> Self:
        self.begin()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            self.cpu_share = (cpu_s(self._pid) - self._cpu) / (time.monotonic() - self._begun)


class Books:
    """What all actors count as acknowledged, and what of theirs has no answer."""

    def __init__(self) -> None:
        self.acknowledged: Counter[Signal] = Counter()
        self.unread: Counter[Signal] = Counter()

    def enter(self, counted: Mapping[str, Any]) -> None:
        """Take what one actor has counted."""
        for signal in SIGNALS:
            self.acknowledged[signal] += counted.get("records", {}).get(signal.name, 0)
            self.unread[signal] += counted.get("unread", {}).get(signal.name, 0)


@dataclass(slots=True)
class Finding:
    """What one attack did."""

    attack: str
    alone: dict[str, Any]
    """What the well-behaved counted before it."""
    beside: dict[str, Any]
    """The same during it."""
    attackers: list[dict[str, Any]]
    peak: float
    """What the daemon held at most, in times of its limit."""
    cpu_share: float
    descriptors: tuple[int, int, int]
    """Before, at most, and after."""
    problems: list[str] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """What the well-behaved got, of what they get without the attack."""
        return round(self.beside["goodput"] / max(self.alone["goodput"], 1e-9), 3)


def measure(
    daemon: Daemon,
    limit: int,
    attack: str,
    plan: Plan,
    seconds: float,
    books: Books,
    *,
    alone: dict[str, Any] | None = None,
    settle: bool = True,
    goodput_min: float = GOODPUT_MIN,
    **good: Any,
) -> Finding:
    """Run an attack for so many seconds beside well-behaved clients, who are told `good`.

    `alone` is what they counted without one, if that is known already.
    """
    pid = daemon.process.pid
    if alone is None:
        alone = steady(daemon, seconds, books, **good)
    before = settled(pid, descriptors(pid)) if settle else descriptors(pid)
    actors: list[Actor] = []
    with Watch(daemon) as watch:
        try:
            for name, options in plan:
                actors.append(Actor(name, daemon, **options))
            watch.begin()
            beside = steady(daemon, seconds, books, **good)
            attackers = [one.end() for one in actors]
        finally:
            for one in actors:
                one.kill()
    for counted in attackers:
        books.enter(counted)
    after = settled(pid, before)
    finding = Finding(
        attack,
        alone,
        beside,
        attackers,
        round(watch.peak_bytes / limit, 3),
        round(watch.cpu_share, 2),
        (before, watch.peak_descriptors, after),
    )
    problems = finding.problems
    if finding.goodput < goodput_min:
        problems.append(f"goodput {finding.goodput} of what it is without")
    if finding.peak > PEAK_MAX:
        problems.append(f"{finding.peak} of memory.limit")
    if after > before:
        problems.append(f"{after - before} file descriptors are not freed")
    for counted in (alone, beside, *attackers):
        problems += [f"{count} times: {what}" for what, count in counted.get("wrong", {}).items()]
    return finding


def steady(daemon: Daemon, seconds: float, books: Books, **good: Any) -> dict[str, Any]:
    """Let well-behaved clients send for so long."""
    actor = Actor("steady.steady", daemon, nice=0, **good)
    try:
        time.sleep(seconds)
        counted = actor.end()
    finally:
        actor.kill()
    books.enter(counted)
    return counted


def settled(pid: int, wanted: int) -> int:
    """Wait until a process holds no more file descriptors than wanted, but not for ever; return what it holds."""
    until = time.monotonic() + FREED_PATIENCE_S
    while (found := descriptors(pid)) > wanted and time.monotonic() < until:
        time.sleep(0.05)
    return found


def idle_bytes(daemon: Daemon, http: int, grpc: int, books: Books) -> tuple[float, str]:
    """Return what an idle connection costs the daemon in bytes, and what is wrong with it, if anything."""
    pid = daemon.process.pid
    before = resident(pid)
    actor = Actor("slow.idle", daemon, http=http, grpc=grpc)
    try:
        held = resident(pid) - before
        there = descriptors(pid)
        counted = actor.end()
    finally:
        actor.kill()
    books.enter(counted)
    each = held / (http + grpc)
    wrong = "" if set(counted["codes"]) <= {"200", "grpc 0"} else f"answers: {counted['codes']}"
    if each > IDLE_BYTES_MAX:
        wrong = f"{each:.0f} bytes an idle connection"
    if there < http + grpc:
        wrong = f"only {there} descriptors are open"
    return each, wrong
