"""Logs made in this process, as large as a measurement wants them, with the parts that the daemon builds them from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.otlp.signals import Signal
from collector.wal.compactor import Compactor
from collector.wal.files import OperatingSystemFiles
from collector.wal.log import SEGMENT_BYTES, Log
from collector.wal.metrics import LogMetrics
from tests.benchmarks.fresh import Request, Source
from tests.benchmarks.workload import RECORDS

_LOGGER = structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=structlog.make_filtering_bound_logger(50))
"""Says nothing that is not critical."""


@contextmanager
def opened_log(
    directory: Path, signal: Signal, *, direct: bool = True, segment_bytes: int = SEGMENT_BYTES
) -> Iterator[Log]:
    """A log in `directory`, which is closed afterwards; `direct` as with `wal.sync: always`."""
    log = Log.open(
        directory,
        signal,
        files=OperatingSystemFiles(),
        clock=SystemClock(),
        metrics=LogMetrics(CollectorRegistry()),
        logger=_LOGGER,
        segment_bytes=segment_bytes,
        direct=direct,
    )
    try:
        yield log
    finally:
        log.close()


def append(log: Log, request: Request) -> int:
    """Append a request as one frame, without a sync; returns its first offset."""
    return log.append([request.payload], request.records, request.min_time, request.max_time)


def fill(log: Log, records: int) -> list[bytes]:
    """Append about so many records in frames of `RECORDS`; returns the trace ids of each frame, one after the other."""
    traces = []
    for request in islice(Source(log.signal, RECORDS).requests(), max(1, records // RECORDS)):
        append(log, request)
        traces.append(request.trace_ids)
    log.sync()
    return traces


def compact(log: Log) -> float:
    """Compact every sealed segment, without rests; returns the CPU seconds that it took."""
    files, metrics = OperatingSystemFiles(), LogMetrics(CollectorRegistry())
    compactor = Compactor(lambda: [log], files=files, metrics=metrics, pause=lambda seconds: False)
    begin = time.process_time()
    while compactor.work():
        pass
    assert all(one.compacted for one in log.sealed_segments), "a segment was not compacted"
    return time.process_time() - begin


def cpu_and_wall_ns(work: Callable[[], int]) -> tuple[float, float]:
    """Return the CPU and the wall time of some work for each of what it says that it has done, in ns."""
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    done = work()
    return (time.process_time_ns() - cpu) / done, (time.perf_counter_ns() - wall) / done
