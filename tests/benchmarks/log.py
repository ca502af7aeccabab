"""The log's own figures: `make bench-log`.

In this process, with the parts that the daemon is made of: what it costs to append and to read, to find an offset, to
read one record from a large log and a trace from among millions, and how small a log becomes. Then, with daemons, what
the compactor does to acknowledgements (`ack.py`).

A log of spans is 406 B for each, in frames of 512, with trace ids that come once, and its times go on: 10 million spans
are a log of 4 GB. Warm: what is read has been read before. The ring is left out by one that is empty and begins where
the log ends. Costs for each record are CPU time; latencies are wall time, as somebody who waits has them.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from operator import attrgetter
from pathlib import Path

import numpy as np

from collector.otlp.records import record_bytes
from collector.otlp.scan import scan
from collector.otlp.signals import SIGNALS, TRACES
from collector.wal.index import OffsetIndex
from collector.wal.log import Log
from collector.wal.segment import Segment
from tests.benchmarks.ack import acknowledgements
from tests.benchmarks.fresh import TEMPLATES, Request, Source
from tests.benchmarks.goals import Verdict, number, parser, publish, say, table, verdicts
from tests.benchmarks.logfiles import append, compact, cpu_and_wall_ns, fill, opened_log
from tests.benchmarks.machine import describe
from tests.benchmarks.measure import Incorrect
from tests.benchmarks.traces import TraceReads, over_http, traces
from tests.benchmarks.workload import RECORDS

APPEND_NS, READ_NS = 300, 150
LOOKUP_NS, LOOKUP_INSIDE_NS = 1000, 100
RANDOM_US = 50
TRACE_MS = 20
FLAT_MAX = 1.5
"""How many times longer a trace may take in the largest log than in the smallest, for a fixed time range."""
COMPACTED_SHARE = 25
"""Percent of the raw bytes that compacted data and indexes may take."""
SHARE_SEGMENT = 16 * 2**20
"""Segments of the logs that are compacted for their size; what is not sealed does not count."""
ONE_SEGMENT = 2 * 2**30
"""A segment of which no measurement reaches the end, where it would be synced."""

_base_offset = attrgetter("base_offset")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    passes: int
    """Repetitions of the costs for each record, of which the median counts."""
    frames: int
    """Frames of a repetition."""
    lookups: int
    """Random reads, and traces, of each log."""
    spans: Sequence[int]
    """Sizes of the logs in which traces are looked for; records are read from the last."""
    signal_records: int
    """Records of each signal's log that is compacted."""
    rounds: int
    """Repetitions of the acknowledgements, each with and without the compactor."""
    seconds: float
    """How long one of these is."""


FULL = Extent(
    passes=5,
    frames=1000,
    lookups=2000,
    spans=(1_000_000, 3_000_000, 10_000_000),
    signal_records=1_000_000,
    rounds=4,
    seconds=15.0,
)
SHORT = Extent(
    passes=3,
    frames=300,
    lookups=500,
    spans=(200_000, 500_000, 1_000_000),
    signal_records=400_000,
    rounds=2,
    seconds=4.0,
)


def costs(extent: Extent, scratch: Path) -> list[Verdict]:
    """Append without a sync, in large frames and in small ones, past the page cache as usual and through it."""
    requests = list(islice(Source(TRACES, RECORDS).requests(), TEMPLATES))
    single = next(Source(TRACES, 1, templates=1).requests())
    found = []
    for direct, how in ((True, "wal.sync: always"), (False, "wal.sync: never")):
        with (
            tempfile.TemporaryDirectory(dir=scratch) as directory,
            opened_log(Path(directory), TRACES, direct=direct, segment_bytes=ONE_SEGMENT) as log,
        ):
            cpu, wall = _repeated(extent.passes, partial(_append, log, requests, extent.frames))
            found.append(
                Verdict.at_most(f"append a record, 512 a frame, as with {how}", cpu, APPEND_NS, "ns", _wall(wall))
            )
            log.sync()
            cpu, wall = _repeated(extent.passes, partial(_append, log, [single], extent.frames))
            found.append(Verdict.at_most(f"append a frame of one record, as with {how}", cpu, None, "ns", _wall(wall)))
            log.sync()
            if direct:
                cpu, wall = _repeated(extent.passes, partial(_append, log, [single], extent.frames, sync=True))
                found.append(Verdict.at_most("append and sync a frame of one record", cpu, None, "ns", _wall(wall)))
    return found


def _append(log: Log, requests: Sequence[Request], frames: int, *, sync: bool = False) -> int:
    for turn in range(frames):
        request = requests[turn % len(requests)]
        if sync:
            log.append([request.payload], request.records, request.min_time, request.max_time, sync=True)
            log.sync()
        else:
            append(log, request)
    return frames * requests[0].records


def _repeated(passes: int, work: Callable[[], int]) -> tuple[float, float]:
    """Return the medians of CPU and wall time for each record, in ns."""
    every = [cpu_and_wall_ns(work) for _ in range(passes)]
    return statistics.median(cpu for cpu, _ in every), statistics.median(wall for _, wall in every)


def _wall(wall_ns: float) -> str:
    return f"{number(wall_ns)} of wall time"


def sequential(log: Log, extent: Extent, what: str) -> Verdict:
    """Read the log's newest frames one after the other."""
    begin = max(log.first_offset, log.next_offset - 2 * extent.frames * RECORDS)

    def read() -> int:
        return sum(one.count for one in log.frames(begin))

    read()
    cpu, wall = _repeated(extent.passes, read)
    return Verdict.at_most(f"read a record, one after the other, {what}", cpu, READ_NS, "ns", _wall(wall))


def lookup(log: Log, extent: Extent) -> list[Verdict]:
    """Find where an offset lies: the segment, and the place in it; then the binary search alone."""
    segments: tuple[Segment, ...] = (*log.sealed_segments,)
    chance = random.Random("offsets")
    wanted = [chance.randrange(log.first_offset, segments[-1].next_offset) for _ in range(20 * extent.lookups)]

    def find() -> int:
        for offset in wanted:
            one = segments[bisect_right(segments, offset, key=_base_offset) - 1]
            one.index.marks(offset, offset + 1, one.end)
        return len(wanted)

    cpu, _ = _repeated(extent.passes, find)
    largest = max(segments, key=lambda one: len(one.index))
    empty = OffsetIndex(largest.base_offset, largest.index.start)
    relative = [chance.randrange(largest.next_offset - largest.base_offset) for _ in wanted]
    begins = [largest.base_offset + one for one in relative]
    ends = [one + 1 for one in begins]
    asked = np.array(relative, np.uint32)
    same = np.array([offset - largest.base_offset for offset, _ in largest.index.entries], np.uint32)

    def search(index: OffsetIndex) -> int:
        deque(map(index.marks, begins, ends, repeat(largest.end)), maxlen=0)  # a loop without an instruction of Python
        return len(relative)

    def search_with_numpy() -> int:
        same.searchsorted(asked, "right")
        return len(asked)

    inside = (
        _repeated(extent.passes, partial(search, largest.index))[0]
        - _repeated(extent.passes, partial(search, empty))[0]
    )
    beside = (
        f"beyond what an index without entries takes; numpy searches the same {len(same)} in "
        f"{number(_repeated(extent.passes, search_with_numpy)[0])}"
    )
    return [
        Verdict.at_most("find an offset, from Python", cpu, LOOKUP_NS, "ns", f"among {len(segments)} segments"),
        Verdict.at_most("find an offset, the search inside", inside, LOOKUP_INSIDE_NS, "ns", beside),
    ]


def random_reads(log: Log, extent: Extent, what: str) -> list[Verdict]:
    """Read single records from anywhere in the log: the frame that holds one, and the record's bytes out of it."""
    chance = random.Random("records")
    wanted = [chance.randrange(log.first_offset, log.next_offset) for _ in range(extent.lookups)]

    def frame(offset: int) -> None:
        log.read(offset)

    def record(offset: int) -> None:
        one = log.read(offset)
        record_bytes(scan(log.signal, one.payload, one.base_offset), offset - one.base_offset)

    for offset in wanted:
        frame(offset)
    name = f"a random record from {log.next_offset:,}, {what}"
    p50, p99 = _latencies_us(frame, wanted)
    whole, whole_p99 = _latencies_us(record, wanted)
    return [
        Verdict.at_most(f"read the frame of {name}", p50, RANDOM_US, "µs", f"p99 {number(p99)}"),
        Verdict.at_most(
            f"the same, and the record's bytes out of it, {what}", whole, None, "µs", f"p99 {number(whole_p99)}"
        ),
    ]


def _latencies_us(work: Callable[[int], None], wanted: Sequence[int]) -> tuple[float, float]:
    taken = []
    for one in wanted:
        begin = time.perf_counter_ns()
        work(one)
        taken.append((time.perf_counter_ns() - begin) / 1000)
    p50, p99 = np.percentile(taken, (50, 99)).tolist()
    return p50, p99


def shares(extent: Extent, scratch: Path) -> list[Verdict]:
    """Compact a log of each signal, and compare bytes: segments with their offset and key indexes, to what was before."""
    found = []
    for signal in SIGNALS:
        with (
            tempfile.TemporaryDirectory(dir=scratch) as directory,
            opened_log(Path(directory), signal, segment_bytes=SHARE_SEGMENT) as log,
        ):
            fill(log, extent.signal_records)
            sealed = log.sealed_segments
            before = sum(one.size for one in sealed)
            names = [Path(one.path) for one in sealed]
            seconds = compact(log)
            data = sum(path.stat().st_size for path in names)
            indexes = sum(path.with_suffix(kind).stat().st_size for path in names for kind in (".index", ".keys"))
        found.append(
            Verdict.at_most(
                f"compacted {signal.name} with indexes, of the raw bytes",
                100 * (data + indexes) / before,
                COMPACTED_SHARE,
                "%",
                f"indexes {100 * indexes / before:.1f} %; compacting takes {seconds / before * 2**30:.1f} s of CPU a GiB",
            )
        )
    return found


def _spans(extent: Extent, directory: Path, spans: int, reads: list[TraceReads]) -> list[Verdict]:
    """Measure a log of so many spans in `directory`: traces, which go to `reads`; of the largest, all else."""
    found = []
    largest = spans == extent.spans[-1]
    with opened_log(directory / "data", TRACES) as log:
        ids = fill(log, spans)
        if largest:
            found += [sequential(log, extent, "as written"), *lookup(log, extent)]
            found += random_reads(log, extent, "as written")
        compact(log)
        reads.append(traces(log, ids, extent.lookups))
        if largest:
            found += [sequential(log, extent, "compacted"), *random_reads(log, extent, "compacted")]
    if largest:
        p50, p99 = reads[-1].whole_p50, reads[-1].whole_p99
        beside, beside_p99 = over_http(directory, ids, extent.lookups // 2)
        what = f"trace by id among {reads[-1].spans:,} spans"
        by_http = "from a daemon, as JSON by HTTP"
        found += [
            Verdict.at_most(f"{what}, p50", p50, TRACE_MS, "ms", f"{by_http}: {number(beside)}"),
            Verdict.at_most(f"{what}, p99", p99, TRACE_MS, "ms", f"{by_http}: {number(beside_p99)}"),
        ]
    return found


def measure(extent: Extent, scratch: Path) -> tuple[str, list[Verdict]]:
    """Measure everything; return the report and its verdicts. Raises Incorrect."""
    scratch.mkdir(parents=True, exist_ok=True)
    say("appending")
    found = costs(extent, scratch)
    reads: list[TraceReads] = []
    for spans in extent.spans:
        say(f"a log of {spans:,} spans")
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            found += _spans(extent, Path(directory), spans, reads)
    last = reads[-1]
    what = f"the same within a fixed time range, {last.spans:,} to {reads[0].spans:,} spans"
    found.append(Verdict.at_most(what, last.range_p50 / reads[0].range_p50, FLAT_MAX, "times"))
    say("compacting each signal")
    found += shares(extent, scratch)
    say("acknowledgements with and without the compactor")
    acks, judged = acknowledgements(extent.rounds, extent.seconds, scratch)
    found += judged
    parts = [
        verdicts(found),
        table(
            (
                "spans in the log",
                "compacted",
                "segments",
                "trace by id: p50, p99",
                "within the newest minute: p50, p99",
            ),
            [
                [
                    f"{one.spans:,}",
                    f"{one.bytes / 1e6:,.0f} MB",
                    str(one.segments),
                    f"{one.whole_p50:.2f}, {one.whole_p99:.2f} ms",
                    f"{one.range_p50:.2f}, {one.range_p99:.2f} ms",
                ]
                for one in reads
            ],
        ),
        acks,
        _conditions(extent, scratch),
    ]
    return "\n".join(parts), found


def _conditions(extent: Extent, scratch: Path) -> str:
    return (
        f"Costs of a record are CPU time, medians of {extent.passes} passes; latencies are wall time, medians (p50) of "
        f"{extent.lookups} reads. {describe(scratch).text()}.\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure and publish; return the exit code: 1 when the figures would mean nothing."""
    options = parser("log", __doc__ or "").parse_args(arguments)
    try:
        text, found = measure(SHORT if options.short else FULL, options.output / "scratch")
    except Incorrect as error:
        say(f"no figures: {error}")
        return 1
    publish("log", text, found, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
