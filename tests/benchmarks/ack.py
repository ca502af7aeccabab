"""What the compactor does to acknowledgements: two daemons, one that compacts and one that does not, loaded in turns.

While one is loaded the other is stopped (SIGSTOP), so that its compactor neither takes its machine nor gets ahead. Both
have a backlog of segments to compact from the start, and what is sent adds to it: one compacts all the time, and that it
has is checked. Nothing falls to retention meanwhile.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.benchmarks.driver import DriverProcess
from tests.benchmarks.goals import Verdict, number, table
from tests.benchmarks.measure import Incorrect, Sample, check_answered, take_sample
from tests.benchmarks.servers import Ringtail
from tests.benchmarks.workload import CONNECTIONS, RECORDS, Workload

RATE = 60.0
"""Requests a second of the steady load: 30,000 spans, 12 MB. The compactor keeps up with some 20 MB/s."""
DELAY_MAX = 1.25
"""How many times longer the slowest hundredth of acknowledgements may take while segments are compacted."""
BACKLOG_BYTES = 512 * 2**20
SEGMENT = "wal.segment_bytes=16MiB"
SETTLE_S = 0.3
PAYLOADS = 32

_COMPACTED = re.compile(r'^ringtail_wal_compaction_bytes_in_total\{signal="traces"\} (\S+)', re.MULTILINE)


def acknowledgements(rounds: int, seconds: float, scratch: Path) -> tuple[str, list[Verdict]]:
    """Return the table and the verdicts. Raises Incorrect, also when nothing was compacted meanwhile."""
    loads = {
        f"{RATE:g} requests a second": Workload(
            "traces", "http", RECORDS, CONNECTIONS, PAYLOADS, rate=RATE, peers="", fresh=True
        ),
        "as many as it takes": Workload("traces", "http", RECORDS, CONNECTIONS, PAYLOADS, peers="", fresh=True),
    }
    samples: dict[tuple[str, bool], list[Sample]] = {(load, on): [] for load in loads for on in (False, True)}
    with _daemons(scratch) as (servers, driver):
        for server in servers.values():
            with _running(server):
                _fill(server, driver, loads["as many as it takes"])
        with _running(servers[True]):
            before = _compacted_bytes(servers[True])
        for turn in range(rounds):
            for load, workload in loads.items():
                for on in (False, True) if turn % 2 == 0 else (True, False):
                    with _running(servers[on]):
                        sample = take_sample(servers[on], workload, int(RATE * seconds), driver, turn, SETTLE_S)
                    samples[load, on].append(sample)
        with _running(servers[True]):
            compacted = _compacted_bytes(servers[True]) - before
    if not compacted:
        raise Incorrect("nothing was compacted while acknowledgements were measured")
    rows, found = [], []
    for load in loads:
        without, compacting = (_medians(samples[load, on]) for on in (False, True))
        rows.append([load, *(number(figure) for pair in zip(without, compacting, strict=True) for figure in pair)])
        what = f"p99 of acknowledgements while compacting, to without, {load}"
        found.append(
            Verdict.at_most(
                what,
                compacting[1] / without[1],
                DELAY_MAX,
                "times",
                f"{number(without[1])} to {number(compacting[1])} ms",
            )
        )
    heads = ["512 spans a request, 8 connections, HTTP"]
    for figure in ("p50 in ms", "p99 in ms", "µs of CPU a span"):
        heads += [figure, "while compacting"]
    text = f"{table(heads, rows)}\n{compacted / 1e6:,.0f} MB of segments were compacted meanwhile.\n"
    return text, found


def _medians(samples: list[Sample]) -> tuple[float, float, float]:
    """Return the medians of p50 and p99 in ms, and of µs of CPU time for each record."""
    return (
        statistics.median(one.outcome.latency_p50_ms for one in samples),
        statistics.median(one.outcome.latency_p99_ms for one in samples),
        statistics.median(one.cpu_us_per_record for one in samples),
    )


@contextmanager
def _daemons(scratch: Path) -> Iterator[tuple[dict[bool, Ringtail], DriverProcess]]:
    """The two daemons, stopped, by whether they compact; and a driver."""
    with ExitStack() as stack:
        servers = {}
        for compacting in (False, True):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch)))
            switch = f"wal.compaction.enabled={str(compacting).lower()}"
            server = Ringtail(directory, ("wal.retention.max_bytes=0", SEGMENT, switch))
            stack.callback(server.stop)
            stack.callback(os.kill, server.pid, signal.SIGCONT)
            os.kill(server.pid, signal.SIGSTOP)
            servers[compacting] = server
        driver = DriverProcess()
        stack.callback(driver.close)
        yield servers, driver


@contextmanager
def _running(server: Ringtail) -> Iterator[None]:
    """Let a stopped daemon run for a while."""
    os.kill(server.pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGSTOP)


def _fill(server: Ringtail, driver: DriverProcess, workload: Workload) -> None:
    """Give the daemon segments that it has not come to, and fill its ring."""
    requests = BACKLOG_BYTES // 208_000
    check_answered(server, workload, driver.run(workload, server.addresses["http"], requests), requests)


def _compacted_bytes(server: Ringtail) -> float:
    found = _COMPACTED.search(server.get("/metrics").decode())
    return float(found[1]) if found else 0.0
