"""The measurement: servers side by side, the same work for each in turn, round after round.

Every server is started once for all workloads and warmed up with each, Ringtail until its rings are full and
evict. A sample is a fixed number of requests to one server and the CPU time that its process used from before the
first until a while after the last answer, so that what a server puts off is counted too. Samples of the servers
alternate within a round, and the order turns with every round: whatever else the machine does meets all alike.
The figure of a workload is the median of its samples.

After every sample Ringtail is asked what it holds: the records sent must be in its log, and its ring must have taken
them in and evicted for them, or the run fails.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.driver import DriverProcess, Outcome
from tests.benchmarks.process import cpu_time_ns, peak_resident_bytes, resident_bytes
from tests.benchmarks.servers import Limit, Ringtail, Rotel, Server, Unindexed
from tests.benchmarks.workload import Workload


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    rounds: int
    requests: int
    """Requests of one sample."""
    starts: int
    """Starts of each server, for its time until ready and its idle memory."""
    settle_s: float
    """How long the CPU time of a sample is counted after its last answer, and idle memory waited for."""
    settings: tuple[str, ...] = ()
    """Ringtail's settings that differ from its defaults."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One server, one workload, one round."""

    server: str
    workload: Workload
    round: int
    cpu_ns: int
    outcome: Outcome

    @property
    def records(self) -> int:
        """Records sent and acknowledged."""
        return self.outcome.requests * self.workload.records

    @property
    def cpu_us_per_record(self) -> float:
        """The figure: µs of CPU time for each record."""
        return self.cpu_ns / 1000 / self.records


@dataclass(frozen=True, slots=True)
class Footprint:
    """A server without work, median of several starts on an empty directory; its peak at the end of all work."""

    server: str
    version: str
    ready_s: float
    idle_resident_bytes: int
    peak_resident_bytes: int


class Incorrect(Exception):
    """A request was not answered as it should be, or records are missing: the figures would mean nothing."""


Kind = type[Ringtail] | type[Unindexed] | type[Rotel] | type[Limit]


def available(workloads: Sequence[Workload] = ()) -> list[Kind]:
    """Return the servers that can be measured here and that one of the workloads names; Ringtail is the first."""
    named = {name for one in workloads for name in one.peers.split()}
    kinds: list[Kind] = [Ringtail]
    if Rotel.version() and (not workloads or Rotel.name in named):
        kinds.append(Rotel)
    if Unindexed.name in named:
        kinds.append(Unindexed)
    if Limit.name in named:
        kinds.append(Limit)
    return kinds


class Measurement:
    """One run. Files of the servers lie in a temporary directory under `scratch`, on the disk that is measured."""

    def __init__(self, extent: Extent, scratch: Path, progress: Callable[[str], None]) -> None:
        self.extent = extent
        self._scratch = scratch
        self._progress = progress
        self._peaks: dict[str, int] = {}
        self.held: dict[str, Any] = {}
        """`signals` of Ringtail's `/api/stats` at the end of `run`, by signal."""

    def run(self, workloads: Sequence[Workload]) -> list[Sample]:
        """Return all samples; raises Incorrect."""
        samples: list[Sample] = []
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            driver = DriverProcess()
            servers: list[Server] = []
            try:
                for kind in available(workloads):
                    servers.append(self._start(kind, Path(directory)))
                for server in servers:
                    for workload in workloads:
                        if _meets(server, workload):
                            self._warm_up(server, workload, driver)
                for number in range(self.extent.rounds):
                    self._progress(f"round {number + 1} of {self.extent.rounds}")
                    for workload in workloads:
                        for server in servers if number % 2 == 0 else reversed(servers):
                            if _meets(server, workload):
                                samples.append(self._sample(server, workload, number, driver))
                self.held = next(one for one in servers if isinstance(one, Ringtail)).statistics()
                self._peaks = {server.name: peak_resident_bytes(server.pid) for server in servers}
            finally:
                for server in servers:
                    server.stop()
                driver.close()
        return samples

    def _start(self, kind: Kind, directory: Path) -> Ringtail | Rotel | Limit:
        own = Path(tempfile.mkdtemp(prefix=kind.name, dir=directory))
        return kind(own, self.extent.settings if issubclass(kind, Ringtail) else ())

    def footprints(self) -> list[Footprint]:
        """Return each server's, from starts that alternate; peaks are those of `run`, 0 before it."""
        found: dict[str, list[tuple[float, int]]] = {}
        self._scratch.mkdir(parents=True, exist_ok=True)
        for _ in range(self.extent.starts):
            for kind in available():
                with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
                    server = self._start(kind, Path(directory))
                    time.sleep(self.extent.settle_s)
                    found.setdefault(kind.name, []).append((server.ready_s, resident_bytes(server.pid)))
                    server.stop()
        return [
            Footprint(
                kind.name,
                kind.version() or "",
                statistics.median(ready for ready, _ in found[kind.name]),
                int(statistics.median(resident for _, resident in found[kind.name])),
                self._peaks.get(kind.name, 0),
            )
            for kind in available()
        ]

    def _warm_up(self, server: Server, workload: Workload, driver: DriverProcess) -> None:
        self._progress(f"warming up: {workload.name} of {server.name}")
        wanted = workload.connections if workload.rate else workload.requests(self.extent.requests)
        ring = server.statistics()[workload.signal] if isinstance(server, Ringtail) else {"evicted": 1}
        if not ring["evicted"]:
            wanted = max(wanted, 2 * ring["capacity"] // workload.records)
        check_answered(server, workload, driver.run(workload, server.addresses[workload.transport], wanted), wanted)
        if isinstance(server, Ringtail) and not server.statistics()[workload.signal]["evicted"]:
            raise Incorrect(f"the ring of {workload.signal} does not evict")

    def _sample(self, server: Server, workload: Workload, number: int, driver: DriverProcess) -> Sample:
        requests = workload.requests(self.extent.requests)
        return take_sample(server, workload, requests, driver, number, self.extent.settle_s)


def take_sample(
    server: Server, workload: Workload, requests: int, driver: DriverProcess, number: int, settle_s: float
) -> Sample:
    """Have so many requests sent, and return what they cost the server; its ring must be full. Raises Incorrect."""
    before = server.statistics()[workload.signal] if isinstance(server, Ringtail) else {}
    begin = cpu_time_ns(server.pid)
    outcome = driver.run(workload, server.addresses[workload.transport], requests)
    check_answered(server, workload, outcome, requests)
    time.sleep(settle_s)
    sample = Sample(server.name, workload, number, cpu_time_ns(server.pid) - begin, outcome)
    if isinstance(server, Ringtail):
        _check_kept(sample, before, server.statistics()[workload.signal])
    return sample


def _meets(server: Server, workload: Workload) -> bool:
    return server.name in ("ringtail", *workload.peers.split())


def check_answered(server: Server, workload: Workload, outcome: Outcome, requests: int) -> None:
    """Raise Incorrect unless every request was answered as a success."""
    if outcome.failures or outcome.requests != requests:
        raise Incorrect(
            f"{server.name}, {workload.name}: {outcome.requests} of {requests} requests were answered; "
            f"{outcome.failure}"
        )


def _check_kept(sample: Sample, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Compare what was acknowledged with what log and ring have taken in meanwhile."""
    logged = after["log"]["next_offset"] - before["log"]["next_offset"]
    evicted = after["evicted"] - before["evicted"]
    ringed = evicted + after["records"] - before["records"]
    if logged != sample.records or ringed != sample.records or not evicted:
        raise Incorrect(
            f"{sample.workload.name}: {sample.records} records were acknowledged; the log has {logged} more, "
            f"the ring took in {ringed} and evicted {evicted}"
        )
