"""How the cost of a record grows: `make bench-growth`.

Server CPU time (user and system) for each span, `wal.sync: always`, all indexes, rings full and evicting, in four
series: records of a request, connections, capacity of the ring, size of the log. All steps of a series are measured in
turns, round after round, the order turning with every round, so that whatever else the machine does meets all alike;
for rings and logs that takes one daemon for each step, all there at once. A figure is the median of its rounds.

Rings are filled with trace ids that never come again, so that a large one has as many keys as in life. Logs are grown
with large requests, uncompacted and without retention, so that a log of 20 GB has 20 GB of frames and 300 segments.

What was promised: from the smallest ring and log to the largest, the cost stays within `GROWTH_MAX` times.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.driver import DriverProcess
from tests.benchmarks.goals import Verdict, number, parser, publish, say, table, verdicts
from tests.benchmarks.machine import describe
from tests.benchmarks.measure import Incorrect, Sample, check_answered, take_sample
from tests.benchmarks.servers import Ringtail
from tests.benchmarks.workload import CONNECTIONS, RECORDS, TRANSPORTS, Workload

GROWTH_MAX = 1.5
"""How many times the cheapest step of rings or logs the dearest one may cost."""
GB = 10**9
SPAN_BYTES = 406
"""Payload of a span."""
RING_SPAN_BYTES = 800
"""What a ring is given for each span: payload, columns, index, and room for what is not evicted yet."""
LARGE = 4096
"""Records of the requests that logs are grown with."""
SPARE_BYTES = 8 * GB
"""What stays free on the disk when logs are grown."""
NO_RETENTION = "wal.retention.max_bytes=0"


@dataclass(frozen=True, slots=True)
class Extent:
    """What is measured: the steps of each series, and how often."""

    rounds: int
    records: Sequence[int]
    connections: Sequence[int]
    rings: Sequence[int]
    """Capacities in spans."""
    logs: Sequence[int]
    """Bytes of payload in the log when it is measured first; each round adds some."""
    sample: int
    """Records of one sample, about."""
    requests_max: int
    """Requests of one sample, at most."""
    settle_s: float = 0.3
    distinct: int = 65_536
    """Records of the distinct requests of each way of sending, about."""


FULL = Extent(
    rounds=5,
    records=(1, 8, 64, 512, 4096),
    connections=(1, 8, 64, 512),
    rings=(10_000, 100_000, 1_000_000, 4_000_000),
    logs=(0, 1 * GB, 5 * GB, 20 * GB),
    sample=250_000,
    requests_max=3000,
)
SHORT = Extent(
    rounds=2,
    records=(1, 64, 512, 4096),
    connections=(1, 8, 64),
    rings=(10_000, 100_000, 1_000_000),
    logs=(0, GB // 2, 2 * GB),
    sample=100_000,
    requests_max=1000,
    settle_s=0.1,
)


@dataclass(slots=True)
class Step:
    """One step of a series: what is sent, to whom, and what it cost."""

    label: str
    server: Ringtail
    workload: Workload
    requests: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def cost_us(self) -> float:
        """µs of CPU time for each record: the median."""
        return statistics.median(one.cpu_us_per_record for one in self.samples)

    @property
    def latency_p99_ms(self) -> float:
        """The median of the rounds' p99, of a server that is kept as busy as it can be."""
        return statistics.median(one.outcome.latency_p99_ms for one in self.samples)


class Growth:
    """One run: makes the steps of each series, and measures them."""

    def __init__(self, extent: Extent, scratch: Path) -> None:
        """Files of the servers lie under `scratch`, on the disk that is measured."""
        self.extent = extent
        self._scratch = scratch
        self.notes: list[str] = []
        """What is not as it was asked for, in words."""

    def records(self) -> list[Step]:
        """Measure requests of one record to many, by each transport."""
        with self._servers([()]) as (server,), self._driver() as driver:
            return self._measured(
                [
                    self._step(str(records), server, self._workload(transport, records, CONNECTIONS))
                    for records in self.extent.records
                    for transport in TRANSPORTS
                ],
                driver,
            )

    def connections(self) -> list[Step]:
        """Measure one connection to many, each with one request under way, by each transport."""
        # Room for one request of each connection at once.
        settings = ("memory.limit=4GiB", "receivers.otlp.max_in_flight_bytes=512MiB")
        with self._servers([settings]) as (server,), self._driver() as driver:
            return self._measured(
                [
                    self._step(str(connections), server, self._workload(transport, RECORDS, connections))
                    for connections in self.extent.connections
                    for transport in TRANSPORTS
                ],
                driver,
            )

    def rings(self) -> list[Step]:
        """Measure rings of a few records to many, full of traces that differ."""
        settings = [
            (
                f"stores.traces.capacity={capacity}",
                f"stores.traces.max_bytes={capacity * RING_SPAN_BYTES + 64 * 2**20}",
                "memory.limit=90%",
            )
            for capacity in self.extent.rings
        ]
        workload = self._workload("http", RECORDS, CONNECTIONS, fresh=True)
        with self._servers(settings) as servers, self._driver() as driver:
            steps = []
            for capacity, server in zip(self.extent.rings, servers, strict=True):
                say(f"filling a ring of {capacity:,} spans")
                self._send(server, workload, capacity // RECORDS + CONNECTIONS, driver)
                steps.append(self._step(f"{capacity:,}", server, workload))
            return self._measured(steps, driver)

    def logs(self) -> list[Step]:
        """Measure logs of nothing to many bytes."""
        sizes = self._sizes_that_fit()
        growing = self._workload("http", LARGE, CONNECTIONS)
        workload = self._workload("http", RECORDS, CONNECTIONS)
        with self._servers([(NO_RETENTION,)] * len(sizes)) as servers, self._driver() as driver:
            steps = []
            for size, server in zip(sizes, servers, strict=True):
                if size:
                    say(f"growing a log to {size / GB:g} GB")
                    self._send(server, growing, size // (LARGE * SPAN_BYTES) + 1, driver)
                log = server.statistics()["traces"]["log"]
                label = f"{log['bytes'] / GB:.1f} GB, {log['segments']} segments" if size else "empty"
                steps.append(self._step(label, server, workload))
            return self._measured(steps, driver)

    def _sizes_that_fit(self) -> list[int]:
        """Return the logs' sizes, scaled down to what the disk has room for."""
        sizes = list(self.extent.logs)
        self._scratch.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._scratch).free - SPARE_BYTES
        if sum(sizes) <= free:
            return sizes
        share = max(0.0, free / sum(sizes))
        self.notes.append(f"The disk has room for logs of {share:.0%} of these sizes only.")
        return [int(size * share) for size in sizes]

    def _workload(self, transport: str, records: int, connections: int, *, fresh: bool = False) -> Workload:
        payloads = max(4, min(1024, self.extent.distinct // records))
        return Workload("traces", transport, records, connections, payloads, peers="", fresh=fresh)

    def _step(self, label: str, server: Ringtail, workload: Workload) -> Step:
        usual = self.extent.sample // workload.records
        requests = max(2 * workload.connections, 8, min(usual, self.extent.requests_max))
        return Step(label, server, workload, requests)

    def _measured(self, steps: list[Step], driver: DriverProcess) -> list[Step]:
        for step in steps:
            say(f"warming up: {step.workload.transport}, {step.label}")
            self._send(step.server, step.workload, max(step.workload.connections, step.requests // 4), driver)
            ring = step.server.statistics()["traces"]
            if not ring["evicted"]:
                missing = ring["capacity"] - ring["records"]
                self._send(step.server, step.workload, missing // step.workload.records + 2, driver)
        for turn in range(self.extent.rounds):
            for step in steps if turn % 2 == 0 else reversed(steps):
                sample = take_sample(step.server, step.workload, step.requests, driver, turn, self.extent.settle_s)
                step.samples.append(sample)
            say(f"round {turn + 1} of {self.extent.rounds}")
        return steps

    @staticmethod
    def _send(server: Ringtail, workload: Workload, requests: int, driver: DriverProcess) -> None:
        outcome = driver.run(workload, server.addresses[workload.transport], requests)
        check_answered(server, workload, outcome, requests)

    @contextmanager
    def _servers(self, settings: Sequence[tuple[str, ...]]) -> Iterator[list[Ringtail]]:
        """Daemons, one for each of some settings, on directories of their own, which are removed afterwards."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            servers = []
            for own in settings:
                directory = stack.enter_context(tempfile.TemporaryDirectory(dir=self._scratch))
                server = Ringtail(Path(directory), own)
                stack.callback(server.stop)
                servers.append(server)
            yield servers

    @staticmethod
    @contextmanager
    def _driver() -> Iterator[DriverProcess]:
        driver = DriverProcess()
        try:
            yield driver
        finally:
            driver.close()


def by_transport(steps: Sequence[Step], head: str, *, each_request: bool) -> str:
    """Return the table of a series that was measured by each transport."""
    rows: dict[str, list[str]] = {}
    for step in steps:
        last = step.cost_us * step.workload.records if each_request else step.latency_p99_ms
        rows.setdefault(step.label, [step.label]).extend([f"{step.cost_us:.2f}", number(last)])
    beside = "a request" if each_request else "p99 in ms"
    heads = [head]
    for transport in ("gRPC", "HTTP"):
        heads += [f"{transport}: µs a span", beside]
    return table(heads, list(rows.values()))


def by_size(steps: Sequence[Step], head: str) -> str:
    """Return the table of rings or logs."""
    first = steps[0].cost_us
    rows = [[step.label, f"{step.cost_us:.3f}", f"{step.cost_us / first:.2f}"] for step in steps]
    return table((head, "µs a span", "to the first"), rows)


def flat(what: str, steps: Sequence[Step]) -> Verdict:
    """Judge a series of rings or logs."""
    costs = [step.cost_us for step in steps]
    return Verdict.at_most(what, max(costs) / min(costs), GROWTH_MAX, "times")


def measure(extent: Extent, scratch: Path) -> tuple[str, list[Verdict]]:
    """Measure all series; return the report and its verdicts. Raises Incorrect."""
    growth = Growth(extent, scratch)
    records = growth.records()
    connections = growth.connections()
    rings = growth.rings()
    logs = growth.logs()
    found = [
        flat(f"dearest to cheapest ring, {rings[0].label} to {rings[-1].label} spans", rings),
        flat(f"dearest to cheapest log, {logs[0].label} to {logs[-1].label}", logs),
    ]
    parts = [
        by_transport(records, "records a request", each_request=True),
        by_transport(connections, "connections", each_request=False),
        by_size(rings, "spans in the ring"),
        by_size(logs, "log"),
        verdicts(found),
        f"µs of the server's CPU time for each span of {SPAN_BYTES} B; {CONNECTIONS} connections and {RECORDS} spans a "
        f"request unless told, rings and logs by HTTP; medians of {extent.rounds} rounds. "
        f"{describe(scratch).text()}. {' '.join(growth.notes)}".rstrip()
        + "\n",
    ]
    return "\n".join(parts), found


def main(arguments: list[str] | None = None) -> int:
    """Measure and publish; return the exit code: 1 when the figures would mean nothing."""
    options = parser("growth", __doc__ or "").parse_args(arguments)
    try:
        text, found = measure(SHORT if options.short else FULL, options.output / "scratch")
    except Incorrect as error:
        say(f"no figures: {error}")
        return 1
    publish("growth", text, found, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
