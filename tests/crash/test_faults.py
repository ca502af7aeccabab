"""A daemon whose disk fails while it works: each fault has an outcome, and it is this one.

tests/wal/test_faults.py lets every single call of a log fail; here a running daemon meets faults, and what counts is what
its clients, its metrics, `/readyz` and its log say. The outcomes:

FAILS: what could not be made durable is not acknowledged, nor is anything later, also when the disk is well again;
`/readyz`, a metric and the log say so, and the other signals go on. WAITS: refused as retryable while it lasts, and
accepted afterwards, without a restart. UNNOTICED: everything is acknowledged. Always: what was acknowledged can be read,
then and after the next start, and clients are told to try again.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections import Counter
from enum import Enum
from pathlib import Path

import grpc
import pytest

from collector.otlp.signals import SIGNALS, TRACES, Signal
from collector.testing.files import SHORT
from tests.accounts import accounts
from tests.crash.journal import Journal, Request
from tests.crash.orders import HOLD, Orders
from tests.crash.reading import ask, read_log
from tests.crash.writers import payload
from tests.daemon import COMMAND, Answer, Daemon
from tests.e2e.requirements import require
from tests.effort import Effort

PADDING = 30_000
SETTINGS = ("wal.segment_bytes=64KiB", "wal.retention.max_bytes=0", "wal.compaction.enabled=false")
PATIENCE_S = 30.0
TRIES = 8
"""Requests of so many bytes that segments are sealed and created meanwhile."""
EXPECTED = frozenset(
    {"log failed", "disk full", "segment not created", "index not written", "index rebuilt", "torn tail cut"}
)


class Outcome(Enum):
    """What clients see of a fault."""

    FAILS = "fails"
    WAITS = "waits"
    UNNOTICED = "unnoticed"


# A sync that finds no room is not here: it FAILS, but WAITS when it was part of the one write that it is about, which can
# be undone. tests/wal/test_faults.py has both.
FAULTS = {
    ("fdatasync", errno.EIO): Outcome.FAILS,
    ("pwritev", errno.EIO): Outcome.FAILS,
    ("pwritev", errno.ENOSPC): Outcome.WAITS,
    ("pwritev", errno.EDQUOT): Outcome.WAITS,
    ("pwritev", SHORT): Outcome.UNNOTICED,
    ("allocate", errno.EIO): Outcome.UNNOTICED,
    ("allocate", errno.ENOSPC): Outcome.UNNOTICED,
    ("truncate", errno.EIO): Outcome.FAILS,
    ("open", errno.EIO): Outcome.FAILS,
    ("open", errno.ENOSPC): Outcome.WAITS,
    ("open", errno.EMFILE): Outcome.WAITS,
    ("rename", errno.EIO): Outcome.UNNOTICED,
    ("fsync_directory", errno.EIO): Outcome.FAILS,
    ("fsync_directory", errno.ENOSPC): Outcome.FAILS,
}
Fault = tuple[str, int]


def command(variant: str = "faulty") -> tuple[str, ...]:
    """What starts a daemon that takes orders."""
    return (sys.executable, "-m", "tests.crash.variants", variant)


class Case:
    """One daemon, its journal, and the faults that it has met."""

    def __init__(self, directory: Path, variant: str = "faulty") -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.orders = Orders(directory)
        self.journal = Journal(directory / "journal")
        self.daemon = Daemon(directory, *SETTINGS, command=command(variant), allow=EXPECTED)

    def send(self, signal: Signal) -> Answer:
        """Send one request, and journal what is acknowledged."""
        request = self.journal.send(signal, 4)
        answer = self.daemon.export(signal.http_path, payload(request, PADDING))
        if answer.code == 200:
            self.journal.acknowledge(request)
        else:
            assert answer.code == 503, answer
            assert int(answer.headers["retry-after"]) >= 1
        return answer

    def meet(self, fault: Fault, signal: Signal) -> None:
        """Let a disk fault come over one signal's log and go again, and find the outcome to be what it should."""
        outcome = FAULTS[fault]
        others = [one for one in SIGNALS if one is not signal and not self.failed(one)]
        for _ in range(3):
            assert self.send(signal).code == 200
        self.orders.fail(*fault, f"/{signal.name}/")
        codes = []
        for _ in range(TRIES):
            codes.append(self.send(signal).code)
            assert [self.send(one).code for one in others] == [200] * len(others), "the others go on"
        if outcome is Outcome.UNNOTICED:
            assert codes == [200] * TRIES
        else:
            refused = codes.index(503)
            assert codes[refused:] == [503] * (TRIES - refused), "what fails goes on failing"
        assert self.failed(signal) == (outcome is Outcome.FAILS)
        self.orders.clear()
        after = [self.send(signal).code for _ in range(2)]
        assert after == [503 if outcome is Outcome.FAILS else 200] * 2, "and then it is as it should be"
        if outcome is Outcome.FAILS:
            assert self.refused_by_grpc(signal)

    def refused_by_grpc(self, signal: Signal) -> bool:
        """Whether gRPC says UNAVAILABLE too, with RetryInfo."""
        request = self.journal.send(signal, 1)
        channel = grpc.insecure_channel(self.daemon.grpc, [("grpc.enable_retries", 0)])
        with channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{signal.service}/Export")(payload(request), timeout=PATIENCE_S)
        names = {name for name, _ in caught.value.trailing_metadata()}
        return caught.value.code() is grpc.StatusCode.UNAVAILABLE and "google.rpc.retryinfo-bin" in names

    def failed(self, signal: Signal) -> bool:
        """Whether the signal's log has failed; metric, `/readyz` and log must say the same."""
        metric = f'ringtail_wal_failed{{signal="{signal.name}"}} 1.0' in self.daemon.get("/metrics").body.decode()
        ready = self.daemon.get("/readyz")
        told = f"the log of {signal.name} has failed" in ready.body.decode()
        logged = any(one["event"] == "log failed" and one["signal"] == signal.name for one in self.daemon.events)
        assert metric == told == logged, signal
        assert ready.code == 503 if told else True
        return metric

    def problems(self) -> list[str]:
        """What is wrong now, and after a restart with a disk that is well."""
        failed = {signal for signal in SIGNALS if self.failed(signal)}
        problems = self.unread() + self.disagreements(failed)
        self.daemon.stop()
        self.daemon = Daemon(self.directory, *SETTINGS, command=command(), allow=EXPECTED)
        assert not any(self.failed(signal) for signal in SIGNALS)
        assert [self.send(signal).code for signal in SIGNALS] == [200] * 3, "it goes on"
        problems += self.unread()
        self.daemon.stop()
        self.journal.close()
        return problems + self.journal.judge(read_log(self.daemon.data))

    def unread(self) -> list[str]:
        """What was acknowledged and is not answered by queries."""
        return [
            f"{request} is not answered"
            for signal in SIGNALS
            for request in self.journal.acknowledged(signal)
            if ask(self.daemon, request) != list(request.ids)
        ]

    def disagreements(self, failed: set[Signal]) -> list[str]:
        """Where the daemon's accounts are not the clients'. A failed log may have written what it did not promise."""
        found = []
        for signal, counts in accounts(self.daemon.get("/metrics").body.decode()).items():
            due = sum(request.count for request in self.journal.acknowledged(signal))
            same = {"accepted": counts["accepted"], "in the ring": counts["in_ring"] + counts["evicted"]}
            if signal not in failed:
                same |= {"appended": counts["appended"], "next offset": counts["next_offset"]}
            found += [f"{signal.name}: {is_} {what}, {due} acknowledged" for what, is_ in same.items() if is_ != due]
        return found

    def close(self) -> None:
        self.daemon.kill()


def meet_all(directory: Path, faults: list[tuple[Fault, Signal]]) -> list[str]:
    """Let a daemon meet these faults one after the other; what is wrong afterwards."""
    case = Case(directory)
    try:
        for fault, signal in faults:
            if not case.failed(signal):
                case.meet(fault, signal)
        return case.problems()
    finally:
        case.close()


def test_every_fault_of_the_disk_has_its_outcome(tmp_path: Path, effort: Effort) -> None:
    """Those that are survived come first, so that each daemon meets as many as it can."""
    chance = effort.chance()
    milder = [fault for fault, outcome in FAULTS.items() if outcome is not Outcome.FAILS]
    fatal = [fault for fault, outcome in FAULTS.items() if outcome is Outcome.FAILS]
    daemons = effort.times(2, 60)
    met: Counter[str] = Counter()
    for number in range(daemons):
        chosen = [*chance.sample(milder, 2), *chance.sample(fatal, 2)]
        if number == 0:
            chosen = [("pwritev", errno.ENOSPC), ("pwritev", SHORT), ("fdatasync", errno.EIO), ("pwritev", errno.EIO)]
        signals = [chance.choice(SIGNALS), chance.choice(SIGNALS), *chance.sample(list(SIGNALS), 2)]
        assert meet_all(tmp_path / str(number), list(zip(chosen, signals, strict=True))) == [], (chosen, signals)
        met.update(FAULTS[fault].value for fault in chosen)
    effort.report("R5", daemons=daemons, faults=dict(met))


def test_a_disk_that_cannot_be_read_costs_answers_and_nothing_else(tmp_path: Path) -> None:
    """Rings too small for what is asked: queries read the log, and say when they cannot."""
    orders = Orders(tmp_path)
    requests = [Request(TRACES, number, 4) for number in range(1, 9)]
    small, allowed = "stores.traces.capacity=4", {"records damaged"}
    with Daemon(tmp_path, *SETTINGS, small, command=command(), allow=allowed) as daemon:
        for request in requests:
            assert daemon.export(TRACES.http_path, payload(request, PADDING)).code == 200
        orders.fail("pread", SHORT)
        assert ask(daemon, requests[0]) == list(requests[0].ids), "a short read is read on"
        orders.clear()
        orders.fail("pread", errno.EIO, "/traces/")
        path = f"/api/traces/{requests[0].number:032x}"
        assert daemon.get(path).code == 404
        told = next(event for event in daemon.events if event["event"] == "records damaged")
        assert told["first_offset"] == 0
        assert "the device refused to read" in told["reason"]
        later = Request(TRACES, 100, 4)
        assert daemon.export(TRACES.http_path, payload(later, PADDING)).code == 200
        assert daemon.get("/readyz").code == 200
        orders.clear()
        for request in [*requests, later]:
            assert ask(daemon, request) == list(request.ids)


def test_a_disk_that_takes_its_time_holds_up_its_own_signal_only(tmp_path: Path, effort: Effort) -> None:
    """R9. A sync that does not return: requests of that signal wait, within the limit on what is in flight; everything
    else is answered meanwhile."""
    orders = Orders(tmp_path)
    limit = 1024 * 1024
    waiting: list[int] = []

    def export(request: Request) -> None:
        waiting.append(daemon.export(request.signal.http_path, payload(request, 300_000)).code)

    with Daemon(tmp_path, f"receivers.otlp.max_in_flight_bytes={limit}", command=command()) as daemon:
        first = Request(TRACES, 1, 4)
        assert daemon.export(TRACES.http_path, payload(first)).code == 200
        orders.fail("fdatasync", HOLD, "/traces/")
        threads = [threading.Thread(target=export, args=(Request(TRACES, 10 + one, 4),)) for one in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: 503 in waiting)  # As many as may wait do, and the others are told to come again.
        refused = len(waiting)
        assert set(waiting) == {503}
        for number, signal in enumerate(SIGNALS[1:], 100):
            request = Request(signal, number, 4)
            assert daemon.export(signal.http_path, payload(request)).code == 200
            assert ask(daemon, request) == list(request.ids)
        assert ask(daemon, first) == list(first.ids)
        assert daemon.get("/healthz").code == 200
        assert in_flight(daemon) <= limit
        orders.clear()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert sorted(waiting) == [200] * (8 - len([one for one in waiting if one == 503])) + [503] * waiting.count(503)
        assert 200 in waiting
        figures = pace_of_a_slow_disk(daemon, orders, effort) if effort.long else {}
    effort.report("R9", held=len(waiting) - refused, refused=refused, **figures)


@pytest.mark.parametrize("call", ["pwritev2", "fdatasync", "fsync", "ftruncate", "fallocate"])
def test_the_kernel_says_that_a_call_failed(tmp_path: Path, call: str, effort: Effort) -> None:
    """The same without a layer of ours in between: strace answers system calls of the real daemon, from the k-th on, in
    all three logs. Nothing is acknowledged that the next start does not find."""
    effort.only_long()
    require("strace")
    codes: Counter[int | str] = Counter()
    for number in range(effort.times(2, 20)):
        chance = effort.chance(number)
        error = chance.choice(["EIO", "ENOSPC", "EDQUOT", "EINTR"])
        # The k-th call of a thread. A call that is interrupted again and again is called again for ever.
        which = f"{chance.randint(1, 16)}{chance.choice(['', '+']) if error != 'EINTR' else ''}"
        inject = f"{call}:error={error}:when={which}"
        inside = tmp_path / str(number)
        inside.mkdir()
        journal = Journal(inside / "journal")
        strace = ("strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={inject}")
        daemon = Daemon(inside, *SETTINGS, command=(*strace, *COMMAND), wait=False, allow=EXPECTED)
        try:
            daemon.ready()
        except AssertionError:
            codes["refused starts"] += 1
        else:
            for turn in range(60):
                request = journal.send(SIGNALS[turn % 3], 4)
                code = daemon.export(request.signal.http_path, payload(request, PADDING)).code
                codes[code] += 1
                if code == 200:
                    journal.acknowledge(request)
        daemon.kill()
        with Daemon(inside, *SETTINGS, allow=EXPECTED) as daemon:
            assert daemon.get("/readyz").code == 200
            later = journal.send(TRACES, 4)
            assert daemon.export(TRACES.http_path, payload(later)).code == 200
            journal.acknowledge(later)
        journal.close()
        assert journal.judge(read_log(inside / "data")) == [], inject
    effort.report("R5", call=call, answers={str(code): count for code, count in codes.items()})


def in_flight(daemon: Daemon) -> float:
    """Bytes of requests that the daemon holds."""
    for line in daemon.get("/metrics").body.decode().splitlines():
        if line.startswith("ringtail_receiver_in_flight_bytes "):
            return float(line.split()[1])
    raise AssertionError("no metric")


def until(done: object) -> None:
    """Wait for something that comes by itself."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def pace_of_a_slow_disk(daemon: Daemon, orders: Orders, effort: Effort) -> dict[str, float]:
    """How long answers take, in ms, while every sync takes half a second and clients send: reported, not judged."""
    orders.slow_down(0.5)
    stop = threading.Event()

    def send(signal: Signal, number: int) -> None:
        while not stop.is_set():
            number += 1
            daemon.export(signal.http_path, payload(Request(signal, number, 10)))

    threads = [threading.Thread(target=send, args=(signal, 10**6 * (1 + at))) for at, signal in enumerate(SIGNALS * 4)]
    for thread in threads:
        thread.start()
    took: dict[str, list[float]] = {"/healthz": [], "/api/stats": [], f"/api/traces/{1:032x}": []}
    end = time.monotonic() + effort.times(5, 60)
    while time.monotonic() < end:
        for path, times in took.items():
            started = time.monotonic()
            assert daemon.get(path).code == 200
            times.append(1000 * (time.monotonic() - started))
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    orders.slow_down(0.0)
    return {f"p99_ms {path}": round(sorted(times)[int(0.99 * len(times))], 1) for path, times in took.items()}


@pytest.mark.parametrize("signal", SIGNALS[:1])
def test_a_daemon_that_does_not_hear_a_failed_sync_is_caught(tmp_path: Path, signal: Signal) -> None:
    """The canary."""
    case = Case(tmp_path, "retrying")
    try:
        with pytest.raises((AssertionError, ValueError)):
            case.meet(("fdatasync", errno.EIO), signal)
    finally:
        case.close()
