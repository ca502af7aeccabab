"""What deliveries and backends take: the histograms, and who fills them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collector.exporters.base import Backend, Context, Exporter, Wanted
from collector.exporters.figures import DURATION_BUCKETS_S, WRITE, Counts, Durations, ExporterMetrics, Figures, Reported
from collector.exporters.measured import Measured
from collector.otlp.block import Block
from collector.otlp.signals import LOGS, TRACES
from collector.testing.corpus import corpus
from collector.testing.exporters import batch_of
from tests.exporters.memory_backend import MemoryBackend, MemorySettings
from tests.wal.logs import FakeClock

BLOCK_S = 2.0
"""What the slow backend takes for each block."""


@given(st.lists(st.floats(0, 100, allow_subnormal=False), min_size=1, max_size=60))
def test_a_histogram_is_what_a_list_would_be(taken: list[float]) -> None:
    durations = Durations()
    for one in taken:
        durations.observe(one)
    assert durations.count == len(taken)
    assert durations.longest_s == max(taken)
    for bound, count in durations.cumulative():
        assert count == sum(one <= float(bound) for one in taken)
    for share in (0.5, 0.99, 1.0):
        exact = sorted(taken)[math.ceil(share * len(taken)) - 1]
        bound = next((one for one in DURATION_BUCKETS_S if exact <= one), math.inf)
        assert exact <= durations.quantile_s(share) <= bound


class Slow(MemoryBackend):
    """Takes its time for each block."""

    clock: FakeClock

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        async for block in super().read(wanted):
            self.clock.pass_time(BLOCK_S)
            yield block


async def test_what_a_backend_takes_is_counted() -> None:
    """Without what who reads does meanwhile, also of reads that end early; and sizes, as long as they are known."""
    registry, clock = CollectorRegistry(), FakeClock()
    reported = Reported("slow", "", TRACES, Counts(), Figures(0, 0, 0, 0.0), "")
    metrics = ExporterMetrics(registry, lambda: [reported], tenants=False)
    with ThreadPoolExecutor(1) as threads:
        context = Context("slow", clock, structlog.get_logger(), registry, threads, None)
        slow = Slow(MemorySettings(name="slow"), context)
    slow.clock = clock
    backend = Measured("slow", slow, metrics, clock)
    payloads = [corpus(LOGS, 5000)]
    await backend.export(batch_of(LOGS, payloads))
    assert await backend.count(LOGS, "", 0, 2**63) == 5000
    for whole in (True, False):
        async with aclosing(backend.read(Wanted(LOGS))) as blocks:
            async for _ in blocks:
                clock.pass_time(60)
                if not whole:
                    break
    metrics.duration("slow", WRITE, LOGS).observe(0.3)
    metrics.note_size("slow", 4096)
    told = metrics.durations("slow")
    assert told["read"]["logs"] == {"count": 2, "mean_ms": 3000.0, "p50_ms": 2500.0, "p99_ms": 4000.0, "max_ms": 4000.0}
    assert told["count"]["logs"]["count"] == 1
    assert metrics.durations("other") == {}
    of_reads = {"exporter": "slow", "signal": "logs", "operation": "read"}
    assert registry.get_sample_value("ringtail_backend_duration_seconds_sum", of_reads) == 6.0
    assert registry.get_sample_value("ringtail_backend_duration_seconds_bucket", {**of_reads, "le": "2.5"}) == 1
    of_writes = {"exporter": "slow", "signal": "logs"}
    assert registry.get_sample_value("ringtail_exporter_duration_seconds_count", of_writes) == 1
    assert registry.get_sample_value("ringtail_backend_bytes", {"exporter": "slow"}) == 4096
    metrics.note_size("slow", None)
    assert registry.get_sample_value("ringtail_backend_bytes", {"exporter": "slow"}) is None


def test_all_of_a_backend_goes_through() -> None:
    """What has a default in base.py would be answered by that."""
    public = {
        name for one in (Exporter, Backend) for name, what in vars(one).items() if callable(what) and name[0] != "_"
    }
    assert public - set(vars(Measured)) == {"start", "stop"}
