"""What backends cost, and how fast they answer: `make bench-backends`.

write   batches as deliveries hand them over, made of requests of 512 records or of one, through `Backend.export`; beside it
        the floor, which is the bare bulk insert of the same rows: what the driver was given is recorded once, and given to
        it again on an empty place. CPU time is that of this process and of the engine, wherever it runs; wall time is from
        the first batch until the last one is taken. Medians of rounds, ours and the floor in turn; how many times the floor is
        the median of these pairs, because a shared machine's speed drifts.
ask     a million spans, and questions by `Backend.read`, one after the other: wall time until the last block, or the first one
        where the newest are asked for.

Shared machines differ by the hour, so what counts are the ratios. A backend is a `Subject` in a module of its own.
"""

from __future__ import annotations

import asyncio
import gc
import random
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from collector.exporters.base import Backend, Batch, Source, Wanted
from collector.otlp.block import Block
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.testing import otlp
from tests.benchmarks import fresh
from tests.benchmarks.goals import Verdict, number, parser, publish, say, table, verdicts
from tests.benchmarks.machine import describe
from tests.benchmarks.subject import Missing, Subject

SUBJECTS = {
    "clickhouse": "tests.benchmarks.backend_clickhouse:ClickHouse",
    "postgres": "tests.benchmarks.backend_postgres:Postgres",
    "sqlite": "tests.benchmarks.backend_sqlite:Sqlite",
}
"""Where they are, by the backend's name."""
TIMES_MAX = 2.0
"""How many times the floor's CPU time writing may take."""
LARGE = 512
"""Records of a request, as an SDK sends them; the other size is one."""
BATCH_RECORDS = 8192
TIME_NS = 1_790_000_000_000_000_000
SPAN_NS = fresh.STEP_NS // LARGE
"""From one span to the next, about, where questions are asked."""
MAKE: dict[Signal, Callable[..., bytes]] = {TRACES: otlp.traces, LOGS: otlp.logs, METRICS: otlp.metrics}


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    records: int
    """Of each signal, in large requests."""
    small_records: int
    """The same, in requests of one."""
    rounds: int
    spans: int
    """How many there are when questions are asked."""
    asked: int
    """How often, of each question."""


FULL = Extent(49_152, 16_384, 5, 1_000_000, 200)
SHORT = Extent(8_192, 1_024, 2, 20_000, 10)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one record, in µs."""

    cpu: float
    wall: float


@dataclass(slots=True)
class Written:
    """What writing took."""

    backend: str
    signal: Signal
    request: int
    payload: float
    """Bytes of a record, as protobuf."""
    stored: float | None = None
    """Bytes of a record, there."""
    ours: list[Cost] = field(default_factory=list)
    bare: list[Cost] = field(default_factory=list)

    @property
    def times(self) -> float:
        """How many times the floor's CPU time it takes: the median of pairs that were measured one after the other."""
        return statistics.median(ours.cpu / bare.cpu for ours, bare in zip(self.ours, self.bare, strict=True))

    @property
    def wall_times(self) -> float:
        """The same for wall time."""
        return statistics.median(ours.wall / bare.wall for ours, bare in zip(self.ours, self.bare, strict=True))


@dataclass(frozen=True, slots=True)
class Answered:
    """What one question took, each time, in ms."""

    backend: str
    question: str
    took: list[float]


def middle(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(one.cpu for one in costs), statistics.median(one.wall for one in costs))


def batches_of(signal: Signal, records: int, request: int) -> list[Batch]:
    """Return batches of `BATCH_RECORDS` records in requests of so many, each a block, as they are while little comes in."""
    blocks: list[Block] = []
    end = 0
    while end < records:
        blocks.append(scan(signal, MAKE[signal](request, seed=end, time_ns=TIME_NS + end * 1_000_000), end))
        end = blocks[-1].end_offset
    return grouped(signal, blocks)


def grouped(signal: Signal, blocks: Sequence[Block]) -> list[Batch]:
    each = max(1, BATCH_RECORDS // blocks[0].count)
    shares = [blocks[at : at + each] for at in range(0, len(blocks), each)]
    return [Batch(Source("0" * 32, "", signal), tuple(one), one[0].base_offset, one[-1].end_offset) for one in shares]


async def cost_of(subject: Subject, work: Callable[[], Awaitable[None]], records: int) -> Cost:
    cpu, wall = time.process_time() + subject.engine_cpu_s(), time.perf_counter()
    await work()
    wall = time.perf_counter() - wall
    cpu = time.process_time() + subject.engine_cpu_s() - cpu
    return Cost(cpu / records * 1e6, wall / records * 1e6)


async def write(subject: Subject, signal: Signal, request: int, extent: Extent) -> Written:
    batches = batches_of(signal, extent.records if request > 1 else extent.small_records, request)
    records = sum(one.records for one in batches)
    found = Written(subject.name, signal, request, sum(one.payload_bytes for one in batches) / records)
    recorded = await subject.recorded(batches)
    gc.collect()
    gc.freeze()  # So that collections while we measure do not walk what was recorded.
    try:
        for _ in range(extent.rounds):
            backend = await subject.fresh()

            async def everything(backend: Backend = backend) -> None:
                for batch in batches:
                    assert await backend.export(batch) is None

            found.ours.append(await cost_of(subject, everything, records))
            size = await subject.stored(backend)
            found.stored = size / records if size is not None else None
            await backend.stop()
            found.bare.append(await cost_of(subject, await subject.floor(recorded), records))
    finally:
        gc.unfreeze()
    return found


async def ask(subject: Subject, extent: Extent) -> list[Answered]:
    backend = await subject.fresh()
    source = fresh.Source(TRACES, LARGE, templates=min(fresh.TEMPLATES, extent.asked)).requests()
    ids: list[bytes] = []
    blocks: list[Block] = []
    end = first_ns = 0
    while end < extent.spans:
        blocks.append(scan(TRACES, next(source).payload, end))
        first_ns = first_ns or blocks[0].min_time
        end = blocks[-1].end_offset
        ids.append(blocks[-1].column("trace_id")[0].tobytes())
        if len(blocks) * LARGE >= BATCH_RECORDS or end >= extent.spans:
            for batch in grouped(TRACES, blocks):
                await backend.export(batch)
            blocks = []
    say(f"{subject.name}: {end} spans are there")
    chance = random.Random(1)
    middle_ns = first_ns + end // 2 * SPAN_NS
    few = max(3, extent.asked // 10)
    questions: list[tuple[str, list[Wanted], bool]] = [
        ("a trace", [Wanted(TRACES, trace_ids=(chance.choice(ids),)) for _ in range(extent.asked)], False),
        ("a trace that is not there", [Wanted(TRACES, trace_ids=(chance.randbytes(16),))] * extent.asked, False),
        ("the newest block", [Wanted(TRACES)] * few, True),
        ("the newest block of a service", [Wanted(TRACES, services=("checkout",))] * few, True),
        ("a second of 512 spans", [Wanted(TRACES, start_ns=middle_ns, end_ns=middle_ns + fresh.STEP_NS)] * few, False),
        ("a name that is nowhere", [Wanted(TRACES, names=("nowhere",))] * 3, False),
    ]
    found = []
    for name, asked, first in questions:
        took = []
        for wanted in asked:
            began = time.perf_counter()
            async with aclosing(backend.read(wanted)) as blocks_of:
                async for _ in blocks_of:
                    if first:
                        break
            took.append((time.perf_counter() - began) * 1e3)
        found.append(Answered(subject.name, name, took))
    await backend.stop()
    return found


async def measure(
    names: Sequence[str], extent: Extent, scratch: Path, parts: Sequence[str]
) -> tuple[list[Written], list[Answered], list[str]]:
    """Measure these backends; those whose engine is missing are left out. Also return what made each floor."""
    written: list[Written] = []
    answered: list[Answered] = []
    drivers = []
    for name in names:
        directory = scratch / f"backend-{name}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        module, _, attribute = SUBJECTS[name].partition(":")
        try:
            with ThreadPoolExecutor(2) as threads:
                subject: Subject = getattr(import_module(module), attribute)(directory, threads)
                try:
                    await subject.start()
                    drivers.append(f"{name}: {subject.driver}")
                    for request in (LARGE, 1) if "write" in parts else ():
                        for signal in SIGNALS:
                            say(f"{name}: {signal.name}, {request} a request")
                            written.append(await write(subject, signal, request, extent))
                    if "ask" in parts:
                        answered += await ask(subject, extent)
                finally:
                    await subject.stop()
        except (Missing, ImportError) as error:
            say(f"without {name}: {error}")
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    return written, answered, drivers


def report(
    written: Sequence[Written], answered: Sequence[Answered], drivers: Sequence[str], extent: Extent, scratch: Path
) -> tuple[str, list[Verdict]]:
    rows = []
    for one in written:
        ours, bare = middle(one.ours), middle(one.bare)
        noun = "one" if one.request == 1 else str(one.request)
        rows.append(
            [
                f"{one.backend}: {one.signal.noun}, {noun} a request",
                *(number(figure) for figure in (ours.cpu, bare.cpu, one.times)),
                *(number(figure) for figure in (ours.wall, bare.wall, one.wall_times)),
                number(one.payload),
                "?" if one.stored is None else number(one.stored),
            ]
        )
    heads = ("CPU, µs a record", "floor", "times", "wall, µs a record", "floor", "times", "B of OTLP", "B there")
    text = ""
    if rows:
        text += f"{table(('write', *heads), rows)}\n"
    if answered:
        asked = [
            [
                f"{one.backend}: {one.question}",
                *(number(figure) for figure in (statistics.median(one.took), *np.percentile(one.took, (99,)))),
                str(len(one.took)),
            ]
            for one in answered
        ]
        text += table((f"ask, of {extent.spans:,} spans", "median, ms", "p99, ms", "asked"), asked) + "\n"
    judged = [
        Verdict.at_most(f"{one.backend}: {one.signal.name}, {one.request} a request", one.times, TIMES_MAX, "times")
        for one in written
    ]
    if judged:
        text += f"{verdicts(judged)}\n"
    text += (
        f"Medians of {extent.rounds} rounds, times those of pairs; batches of {BATCH_RECORDS} records. Floors: {'; '.join(drivers)}. "
        f"{describe(scratch).text()}.\n"
    )
    return text, judged


def main() -> int:
    options = parser("backends", "What backends cost, and how fast they answer.")
    options.add_argument("--only", action="append", choices=SUBJECTS, help="this backend; may be repeated")
    options.add_argument("--part", action="append", choices=("write", "ask"), help="this part; may be repeated")
    options.add_argument("--spans", type=int, help="how many spans questions are asked of")
    chosen = options.parse_args()
    extent = SHORT if chosen.short else FULL
    if chosen.spans:
        extent = Extent(extent.records, extent.small_records, extent.rounds, chosen.spans, extent.asked)
    scratch = chosen.output / "scratch"
    found = asyncio.run(measure(chosen.only or list(SUBJECTS), extent, scratch, chosen.part or ("write", "ask")))
    text, judged = report(*found, extent, scratch)
    return 1 if publish("backends", text, judged, chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
