"""The measurement of `make bench-query`; see query.py."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

from collector.otlp.signals import LOGS, Signal
from tests.benchmarks.asking import Asker, Refused, Times, forget_pages, target, timed
from tests.benchmarks.connection import HttpConnection
from tests.benchmarks.driver import DriverProcess, Outcome
from tests.benchmarks.fresh import Request
from tests.benchmarks.goals import say
from tests.benchmarks.logfiles import append, compact, opened_log
from tests.benchmarks.measure import Incorrect
from tests.benchmarks.process import resident_bytes
from tests.benchmarks.questions import Facts, Question, Signals
from tests.benchmarks.servers import Ringtail
from tests.benchmarks.shop import RARE, Shop
from tests.benchmarks.workload import CONNECTIONS, RECORDS, Workload

IDS_MAX = 10_000
"""Trace ids that are kept to ask for."""
RARE_LEARNT, RARE_STEP = 500, 7
"""Customers that are kept to ask for, at least; and how many are passed over for one that is."""
BYTES_PER_RECORD = 1500
"""What a ring is given for each record, so that their number is what bounds it."""
PACE = 10
"""Questions a second of a client that is not in a hurry."""
TARGETS = 200
"""Requests of one question that are made ready beforehand."""
MINUTES_AHEAD = 60 * 24 * 30
"""The load driver's clock goes faster than ours: a second each request. So far it is looked for."""
NO_RETENTION = "wal.retention.max_bytes=0"
PATIENCE = "query.timeout=5m"
SETTLE_S = 2.0
IN_MEMORY_BYTES = 4 * 2**30
"""What the log is given room for: the default retention, and compaction."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    records: int
    """In the ring, of each signal."""
    log_records: int
    seconds: float
    """For each question in each setting."""
    least: int
    """How often each is asked at least; in the log a quarter of that."""
    most: int
    """How often at most."""
    cold: int
    """How often each is asked cold."""
    found: int
    """How often a record is looked for that has just been acknowledged."""
    busy_s: float
    """How long records are received while questions are asked, or not, in each of `rounds`."""
    rounds: int
    requests: int
    """Requests of one order of the load driver."""


@dataclass(slots=True)
class Row:
    """What came of one question."""

    question: Question
    first: float | None = None
    """The first answer after a start, in ms."""
    ring: Times | None = None
    busy: Times | None = None
    cold: Times | None = None
    log: Times | None = None
    refused: str = ""


@dataclass(slots=True)
class Found:
    """One signal's figures."""

    signals: Signals
    rows: list[Row]
    record_bytes: float = 0.0
    resident: int = 0
    """Bytes of the process when the ring is full."""
    resident_asked: int = 0
    """The same when all questions have been asked."""
    idle: int = 0
    """Before the first record."""
    total: int = 0
    """`total_bytes` of the ring."""
    until_found: Times | None = None
    missed: int = 0
    rates: dict[str, list[float]] = field(default_factory=dict)
    """Records a second that the driver got rid of, by who asked meanwhile."""


class Bench:
    """One run over one signal."""

    def __init__(self, signals: Signals, extent: Extent, scratch: Path, only: str = "") -> None:
        """Files lie under `scratch`. `only` is a part of the names of the questions that are asked."""
        self.signal: Signal = signals.signal
        self.extent = extent
        self._scratch = scratch
        chosen = [one for one in signals.questions if only in one.what]
        self.found = Found(signals, [Row(one) for one in chosen])
        self._chance = Random(f"query {signals.signal.name}")

    # --- the ring -----------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Memory, first answers after a start, and answers when nothing else is to do."""
        settings = (*self._ring_settings(), NO_RETENTION)
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            with self._server(Path(directory), settings) as server:
                self.found.idle = resident_bytes(server.pid)
                facts = self._fill(server)
                time.sleep(SETTLE_S)
                self.found.resident = resident_bytes(server.pid)
                self.found.total = server.statistics()[self.signal.name]["total_bytes"]
            with self._server(Path(directory), settings) as server, Asker(server.api) as asker:
                for row in self.found.rows:
                    row.first = self._once(asker, row, facts)
                for row in self._answered():
                    row.ring = self._asked(server, asker, row, facts, self.extent.least)
                self.found.resident_asked = resident_bytes(server.pid)
                self._until_found(server, asker)

    def _ring_settings(self) -> tuple[str, ...]:
        stores = f"stores.{self.signal.name}"
        return (
            f"{stores}.capacity={self.extent.records}",
            f"{stores}.max_bytes={self.extent.records * BYTES_PER_RECORD + 64 * 2**20}",
            "memory.limit=90%",
            PATIENCE,
        )

    def _fill(self, server: Ringtail) -> Facts:
        """Send as many records as the ring has room for."""
        facts = Facts()
        size = count = 0
        connection = HttpConnection(server.addresses["http"], self.signal)
        for request in islice(Shop(self.signal, RECORDS).requests(), self.extent.records // RECORDS):
            connection.export(HttpConnection.prepare(self.signal, request.payload))
            size, count = size + len(request.payload), count + request.records
            _learn(facts, request, self._chance)
        connection.close()
        self.found.record_bytes = size / count
        return facts

    def _until_found(self, server: Ringtail, asker: Asker) -> None:
        """Send a request, and ask for one of its traces as soon as it is acknowledged, until it is there."""
        taken = []
        connection = HttpConnection(server.addresses["http"], self.signal)
        for request in islice(Shop(self.signal, 64, seed=1).requests(), self.extent.found):
            wire = HttpConnection.prepare(self.signal, request.payload)
            trace = request.trace_ids[:16].hex()
            if self.signal is LOGS:
                wanted = target(
                    "/loki/api/v1/query_range",
                    query=f'{{service_name=~".+"}} | trace_id = "{trace}"',
                    start=request.min_time,
                    end=request.max_time + 1,
                    limit=1,
                )
            else:
                wanted = f"/api/traces/{trace}"
            connection.export(wire)
            begin = time.perf_counter()
            while not self._is_found(asker, wanted):
                self.found.missed += 1
            taken.append((time.perf_counter() - begin) * 1000)
        connection.close()
        self.found.until_found = Times.of(taken)

    @staticmethod
    def _is_found(asker: Asker, wanted: str) -> bool:
        try:
            return b'"result":[]' not in asker.ask(wanted)
        except Refused as error:
            if error.code == 404:
                return False
            raise

    # --- while records come in ----------------------------------------------------------------------------

    def busy(self) -> None:
        """Answers while records are received, and how fast these are with and without questions.

        The order is turned round every time: what a run leaves behind slows the next one, whoever asks.
        """
        with (
            tempfile.TemporaryDirectory(dir=_in_memory() or self._scratch) as directory,
            self._server(Path(directory), self._ring_settings()) as server,
            Asker(server.api) as asker,
        ):
            facts = self._fill(server)
            driver = DriverProcess()
            try:
                self._drive(driver, server, self.extent.requests)
                askers = (("nobody", None), (f"{PACE} a second", 1 / PACE), ("without a pause", 0.0))
                orders = itertools.cycle((askers, askers[::-1]))
                answers: dict[float | None, dict[int, list[float]]] = defaultdict(dict)
                for who, pause in itertools.chain(*itertools.islice(orders, self.extent.rounds)):
                    asked = 0
                    with self._driving(driver, server) as outcomes:
                        end = time.perf_counter() + self.extent.busy_s
                        while time.perf_counter() < end or (pause is not None and not asked):
                            if pause is None:
                                time.sleep(self.extent.busy_s)
                            else:
                                self._round(asker, facts, answers[pause], pause)
                                asked += 1
                    records = sum(one.requests for one in outcomes) * RECORDS
                    self.found.rates.setdefault(who, []).append(records / sum(one.seconds for one in outcomes))
                for place, taken in answers[0.0].items():
                    self.found.rows[place].busy = Times.of(taken)
            finally:
                driver.close()

    def _refresh(self, asker: Asker, facts: Facts) -> None:
        """Learn what is newest now: the ring holds other records every second or two."""
        facts.end_s += MINUTES_AHEAD * 60
        if self.signal is LOGS:
            body = asker.ask(
                target(
                    "/loki/api/v1/query_range",
                    query='{service_name=~".+"}',
                    start=facts.begin_s,
                    end=facts.end_s,
                    limit=1,
                )
            )
            [stream] = json.loads(body)["data"]["result"]
            newest_ns = int(stream["values"][0][0])
        else:
            traces = json.loads(asker.ask(target("/api/search", q="{}", limit=50)))["traces"]
            facts.ids = [bytes.fromhex(one["traceID"].rjust(32, "0")) for one in traces]
            newest_ns = int(traces[0]["startTimeUnixNano"])
        facts.end_s = newest_ns // 10**9 + 1
        facts.begin_s = facts.end_s - self.extent.records // RECORDS

    def _round(self, asker: Asker, facts: Facts, answers: dict[int, list[float]], pause: float) -> None:
        """Ask each question once, each about what is newest then."""
        for place, row in enumerate(self.found.rows):
            if row.refused:
                continue
            self._refresh(asker, facts)
            begin = time.perf_counter()
            try:
                asker.ask(row.question.ask(facts, self._chance), row.question.accept)
            except Refused as error:
                if error.code == 400:
                    row.refused = str(error)
                    continue
                if error.code != 404:  # a trace that is not held any more
                    raise
            answers.setdefault(place, []).append((time.perf_counter() - begin) * 1000)
            time.sleep(max(0.0, begin + pause - time.perf_counter()))

    def _drive(self, driver: DriverProcess, server: Ringtail, requests: int) -> Outcome:
        workload = Workload(self.signal.name, "http", RECORDS, CONNECTIONS, 32, peers="", fresh=True)
        outcome = driver.run(workload, server.addresses["http"], requests)
        if outcome.failures:
            raise Incorrect(f"a request was not answered: {outcome.failure}")
        return outcome

    @contextmanager
    def _driving(self, driver: DriverProcess, server: Ringtail) -> Iterator[list[Outcome]]:
        """The driver at work, in a thread, until the block ends; then the list has what became of its orders."""
        outcomes: list[Outcome] = []
        ending = threading.Event()

        def drive() -> None:
            while not ending.is_set():
                outcomes.append(self._drive(driver, server, self.extent.requests))

        thread = threading.Thread(target=drive, name="driver")
        thread.start()
        try:
            yield outcomes
        finally:
            ending.set()
            thread.join()
        if not outcomes:
            raise Incorrect("the driver had no answer")

    # --- the log ------------------------------------------------------------------------------------------

    def log(self) -> None:
        """Answers from the log alone, cold and warm."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            facts = self._written(Path(directory))
            settings = (f"stores.{self.signal.name}.capacity=1", NO_RETENTION, "memory.limit=90%", PATIENCE)
            with self._server(Path(directory), settings) as server, Asker(server.api) as asker:
                for row in self._answered():
                    taken = []
                    for _ in range(self.extent.cold):
                        if sum(taken) > 3000 * self.extent.seconds > 0:
                            break
                        forget_pages(Path(directory) / "data" / self.signal.name)
                        took = self._once(asker, row, facts)
                        if took is not None:
                            taken.append(took)
                    if row.refused:
                        continue
                    row.cold = Times.of(taken)
                    row.log = self._asked(server, asker, row, facts, self.extent.least // 4)

    def _written(self, directory: Path) -> Facts:
        facts = Facts()
        with opened_log(directory / "data", self.signal) as log:
            for request in islice(Shop(self.signal, RECORDS).requests(), self.extent.log_records // RECORDS):
                append(log, request)
                _learn(facts, request, self._chance)
            log.sync()
            compact(log)
        return facts

    # --- asking -------------------------------------------------------------------------------------------

    def _answered(self) -> list[Row]:
        return [row for row in self.found.rows if not row.refused]

    def _once(self, asker: Asker, row: Row, facts: Facts) -> float | None:
        """Return how long one answer takes, in ms; None if the question is not supported."""
        question = row.question
        wanted = question.ask(facts, self._chance)
        begin = time.perf_counter()
        try:
            body = asker.ask(wanted, question.accept)
        except Refused as error:
            if error.code in (400, 404) and "/api/traces/" not in wanted:
                row.refused = str(error)
                say(f"not supported: {question.what}: {error}")
                return None
            raise Incorrect(f"{question.what}: {error}") from error
        took = (time.perf_counter() - begin) * 1000
        self._judge(question, body, wanted)
        return took

    def _asked(self, server: Ringtail, asker: Asker, row: Row, facts: Facts, least: int) -> Times:
        """Ask one question for a while."""
        question = row.question
        targets = itertools.cycle([question.ask(facts, self._chance) for _ in range(TARGETS)])
        last = ("", b"")

        def ask() -> None:
            nonlocal last
            wanted = next(targets)
            last = (wanted, asker.ask(wanted, question.accept))

        times = timed(ask, server.pid, self.extent.seconds, least, self.extent.most)
        self._judge(question, last[1], last[0])
        say(
            f"{question.what}: p50 {times.p50:.2f}, p99 {times.p99:.2f} ms, CPU {times.cpu:.2f} ms, {times.count} times"
        )
        return times

    @staticmethod
    def _judge(question: Question, body: bytes, wanted: str) -> None:
        if not question.check(body):
            raise Incorrect(f"{question.what}: {wanted} is answered with {body[:500]!r}")

    @contextmanager
    def _server(self, directory: Path, settings: tuple[str, ...]) -> Iterator[Ringtail]:
        server = Ringtail(directory, settings)
        try:
            yield server
        finally:
            server.stop()


def _in_memory() -> Path | None:
    """Return where files lie in memory, if there is room: a disk that takes all that is received at full speed one minute,
    and half of it the next, hides what questions cost."""
    path = Path("/dev/shm")
    return path if path.is_dir() and shutil.disk_usage(path).free > IN_MEMORY_BYTES else None


def _learn(facts: Facts, request: Request, chance: Random) -> None:
    """Remember when a request's records are, and some of its traces."""
    begin, end = request.min_time // 10**9, request.max_time // 10**9 + 1
    facts.begin_s = min(facts.begin_s or begin, begin)
    facts.end_s = max(facts.end_s, end)
    ids = request.trace_ids
    facts.ids += [ids[at : at + 16] for at in range(0, len(ids), 16 * 8)]
    if len(facts.ids) > IDS_MAX:
        facts.ids = chance.sample(facts.ids, IDS_MAX // 2)
    if len(facts.rare.get("customer", ())) < RARE_LEARNT:
        for found in islice(RARE.finditer(request.payload), 0, None, RARE_STEP):
            facts.rare.setdefault(found[1].decode(), []).append(found[0].decode())
