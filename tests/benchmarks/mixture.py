"""A steady mixture of work for one daemon: every signal over every transport, large requests and small, and queries.

Each way of sending has a driver process of its own, which a thread here gives one order after the other; another thread
asks queries in turn. All go on until told to stop, and remember what was answered and what was not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from collector.testing.otlp import TIME_NS
from tests.benchmarks.driver import DriverProcess, Outcome
from tests.benchmarks.servers import Ringtail
from tests.benchmarks.workload import Workload

PAYLOADS = 16
LOAD = (
    Workload("traces", "grpc", 512, 2, PAYLOADS, rate=20.0, fresh=True),
    Workload("traces", "http", 64, 2, PAYLOADS, rate=20.0, fresh=True),
    Workload("traces", "http", 1, 8, PAYLOADS, rate=50.0, fresh=True),
    Workload("traces", "json", 100, 2, PAYLOADS, rate=5.0),
    Workload("logs", "http", 512, 2, PAYLOADS, rate=20.0, fresh=True),
    Workload("logs", "grpc", 64, 2, PAYLOADS, rate=20.0, fresh=True),
    Workload("metrics", "grpc", 512, 2, PAYLOADS, rate=20.0, fresh=True),
    Workload("metrics", "http", 64, 2, PAYLOADS, rate=20.0, fresh=True),
)
"""38,000 records a second, about 11 MB."""
QUERY_PAUSE_S = 0.5
_LATER_NS = TIME_NS + 10**18
"""Later than any record, whose times go on by a second with every request."""
_SEARCH = "/api/search?q={status=error}&limit=5"
QUERIES = (
    f'/loki/api/v1/query_range?query={{service_name="checkout"}} |= "payment"&limit=50&start={TIME_NS}&end={_LATER_NS}',
    f"/api/v1/query?query=count({{__name__=~'.%2B'}})&time={TIME_NS // 10**9}",
    "/api/v2/search/tags",
    "/metrics",
)
"""What is asked in turn, between searches for traces and one of the traces found."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What was answered since somebody asked last."""

    records: int
    latency_p99_ms: float
    """That of the way of sending that waited longest; 0 when nothing was answered."""
    queries: int


class Mixture:
    """The work, from `start` to `stop`."""

    def __init__(self, server: Ringtail, order_s: float, load: Sequence[Workload] = LOAD) -> None:
        """`order_s`: how long one order to a driver lasts, which is how often it tells what was answered."""
        self.failures: list[str] = []
        """What was not answered as a success, in words."""
        self.sent: dict[str, int] = {workload.signal: 0 for workload in load}
        """Records acknowledged since the start, of each signal."""
        self.queries = 0
        self._server = server
        self._order_s = order_s
        self._outcomes: list[tuple[Workload, Outcome]] = []
        self._told_queries = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._drivers = [DriverProcess() for _ in load]
        self._threads = [
            threading.Thread(target=self._send, args=(driver, workload))
            for driver, workload in zip(self._drivers, load, strict=True)
        ]
        self._threads.append(threading.Thread(target=self._ask))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the orders that are under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for driver in self._drivers:
            driver.close()

    def answered(self) -> Answered:
        """Return what was answered since this was called last."""
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
            queries, self._told_queries = self.queries - self._told_queries, self.queries
        return Answered(
            sum(outcome.requests * workload.records for workload, outcome in outcomes),
            max((outcome.latency_p99_ms for _, outcome in outcomes), default=0.0),
            queries,
        )

    def _send(self, driver: DriverProcess, workload: Workload) -> None:
        address = self._server.addresses[workload.transport]
        requests = max(1, round(workload.rate * self._order_s))
        while not self._stopping.is_set():
            outcome = driver.run(workload, address, requests)
            with self._lock:
                self._outcomes.append((workload, outcome))
                self.sent[workload.signal] += outcome.requests * workload.records
                if outcome.failures:
                    self.failures.append(f"{workload.name}: {outcome.failure}")
            if outcome.failures:
                time.sleep(self._order_s)

    def _ask(self) -> None:
        turn = 0
        while not self._stopping.wait(QUERY_PAUSE_S):
            found = self._query(_SEARCH)
            traces = msgspec.json.decode(found)["traces"] if found else []
            if traces:
                self._query(f"/api/traces/{traces[0]['traceID']}")
            self._query(QUERIES[turn % len(QUERIES)])
            turn += 1

    def _query(self, path: str) -> bytes:
        """Return the answer, empty when there was none."""
        answer, failure = b"", ""
        try:
            answer = self._server.get(path)
        except OSError as error:
            failure = f"{path}: {error}"
        with self._lock:
            self.queries += 1
            if failure:
                self.failures.append(failure)
        return answer
