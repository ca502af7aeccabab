"""A soak: one daemon under a steady mixture of work, watched for minutes or hours: `make soak MINUTES=10`.

Every signal comes over every transport, queries are asked, the rings turn over every few seconds, segments are small
so that hundreds a minute are sealed, compacted and removed by retention. The daemon's resident memory, open files,
threads, CPU time for each record, slowest acknowledgements and bytes on disk are sampled into `soak.csv`, and drawn as
`soak.png` where matplotlib is installed.

The verdict is on the second half, when rings and logs are full: a line is put through each series (slope.py), and it
must not rise by more than the thresholds below. Every request must have been answered, and every acknowledged record
counted by the log. R11 of the reliability plan asks for less than 1 MiB an hour: only hours can tell that from nothing,
so a shorter run tells its slope with an interval, and judges by its thresholds.
"""

from __future__ import annotations

import csv
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from collector.otlp.signals import SIGNALS
from tests.benchmarks.goals import PAGE, Verdict, number, parser, publish, say, verdicts
from tests.benchmarks.machine import describe
from tests.benchmarks.mixture import LOAD, Mixture
from tests.benchmarks.plot import draw
from tests.benchmarks.process import cpu_time_ns, open_files, resident_bytes, threads
from tests.benchmarks.servers import Ringtail
from tests.benchmarks.slope import Slope, second_half

MINUTES = 10.0
SHORT_MINUTES = 1.0
SAMPLES = 120
"""About so many samples are taken, from `SAMPLE_S` seconds apart up to `SAMPLE_S_MAX`."""
SAMPLE_S = 1.0
SAMPLE_S_MAX = 30.0

RESIDENT_GROWTH_MAX = 0.03
"""Of its level, that resident memory may grow by from the begin of the second half to its end."""
FILES_GROWTH_MAX = 2.0
"""Open file descriptors: one compaction and a query more or less."""
THREADS_GROWTH_MAX = 0.5
COST_GROWTH_MAX = 0.10
"""Of its level, that the CPU time of a record may grow by."""
LONG_HOURS = 8.0
"""From so many hours on the slope of memory is judged as R11 asks."""
SLOPE_MAX_MIB = 1.0
ROLLS_MIN, TURNOVERS_MIN = 10_000, 20
"""Segments sealed, and times that each ring turned over, of the long form."""

SEGMENT_BYTES = 2**20
RETENTION_BYTES = 16 * 2**20
SETTINGS = (
    f"wal.segment_bytes={SEGMENT_BYTES}",
    f"wal.retention.max_bytes={RETENTION_BYTES}",
    "wal.compaction.enabled=true",
)
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Look:
    """The daemon at one time; the columns of the CSV."""

    seconds: float
    """Since the load began."""
    resident_bytes: int
    open_files: int
    threads: int
    records: int
    """Acknowledged by the log since the sample before."""
    cpu_us_per_record: float
    """Queries, compaction and retention included."""
    ack_p99_ms: float
    log_bytes: int
    """Of all logs, up to the last frames."""
    log_bytes_max: int
    """Of the largest log."""
    segments: int
    failures: int
    """Since the begin."""


class Soak:
    """One run: the daemon, its work, and the samples taken."""

    def __init__(self, directory: Path, sample_s: float) -> None:
        """Start a daemon on `directory`, which is empty, and look at it every `sample_s` seconds."""
        self._server = Ringtail(directory, SETTINGS)
        self._sample_s = sample_s
        self._mixture = Mixture(self._server, sample_s, LOAD)
        self.looks: list[Look] = []
        self.facts: dict[str, float] = {}
        """What is told beside the samples: see `_take_stock`."""

    def run(self, seconds: float) -> None:
        """Load the daemon for so long, and take samples."""
        begin = time.monotonic()
        cpu, offset = cpu_time_ns(self._server.pid), 0
        self._mixture.start()
        try:
            for turn in range(1, math.ceil(seconds / self._sample_s) + 1):
                time.sleep(max(0.0, begin + turn * self._sample_s - time.monotonic()))
                now, stats = time.monotonic() - begin, self._server.statistics()
                used, offsets = cpu_time_ns(self._server.pid), _offsets(stats)
                self.looks.append(self._look(now, stats, used - cpu, offsets - offset))
                cpu, offset = used, offsets
                if turn % 12 == 0:
                    last = self.looks[-1]
                    say(
                        f"{now / 60:.1f} min: {last.resident_bytes / _MIB:.0f} MiB, {last.open_files} files, "
                        f"{last.cpu_us_per_record:.2f} µs a record, p99 {last.ack_p99_ms:.1f} ms"
                    )
        finally:
            self._mixture.stop()
        self._take_stock()

    def _look(self, now: float, stats: dict[str, Any], cpu_ns: int, records: int) -> Look:
        logs = [one["log"]["bytes"] for one in stats.values()]
        pid = self._server.pid
        return Look(
            round(now, 3),
            resident_bytes(pid),
            open_files(pid),
            threads(pid),
            records,
            round(cpu_ns / 1000 / max(1, records), 4),
            round(self._mixture.answered().latency_p99_ms, 3),
            sum(logs),
            max(logs),
            sum(one["log"]["segments"] for one in stats.values()),
            len(self._mixture.failures),
        )

    def _take_stock(self) -> None:
        """Compare what was acknowledged with what the logs have counted, and count what went by."""
        stats = self._server.statistics()
        self.facts = {
            "records": _offsets(stats),
            "miscounted": sum(
                abs(stats[signal.name]["log"]["next_offset"] - self._mixture.sent[signal.name]) for signal in SIGNALS
            ),
            "turnovers": min(one["evicted"] / one["capacity"] for one in stats.values()),
            "compactions": _counted(self._server, "ringtail_wal_compaction_runs_total"),
            "rolls": _counted(self._server, "ringtail_wal_appended_bytes_total") / SEGMENT_BYTES,
            "queries": self._mixture.queries,
            "failures": len(self._mixture.failures),
        }
        for failure in self._mixture.failures[:3]:
            say(f"failed: {failure}")

    def stop(self) -> None:
        """Stop the daemon."""
        self._server.stop()


def _offsets(stats: dict[str, Any]) -> int:
    return sum(one["log"]["next_offset"] for one in stats.values())


def _counted(server: Ringtail, metric: str) -> float:
    lines = server.get("/metrics").decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{metric}{{"))


def judge(looks: Sequence[Look], facts: dict[str, float]) -> list[Verdict]:
    """Return the verdicts of a soak. ValueError when it was too short for a line."""
    seconds = [one.seconds for one in looks]
    resident = second_half(seconds, [one.resident_bytes for one in looks])
    files = second_half(seconds, [one.open_files for one in looks])
    count = second_half(seconds, [one.threads for one in looks])
    cost = second_half(seconds, [one.cpu_us_per_record for one in looks])
    long = seconds[-1] >= LONG_HOURS * 3600
    mib = [figure / _MIB for figure in (resident.an_hour, resident.low, resident.high)]
    return [
        _flat("resident memory", resident, RESIDENT_GROWTH_MAX * resident.level, f"{RESIDENT_GROWTH_MAX:.0%}", _share),
        _flat("open files", files, FILES_GROWTH_MAX, f"{FILES_GROWTH_MAX:g}", _units),
        _flat("threads", count, THREADS_GROWTH_MAX, f"{THREADS_GROWTH_MAX:g}", _units),
        _flat("CPU time of a record", cost, COST_GROWTH_MAX * cost.level, f"{COST_GROWTH_MAX:.0%}", _share),
        Verdict(
            "slope of resident memory, 95 % interval",
            f"below {SLOPE_MAX_MIB:g} MiB an hour, 0 in it, told by {LONG_HOURS:g} hours",
            f"{mib[0]:+.1f} MiB an hour ({mib[1]:+.1f} to {mib[2]:+.1f})",
            mib[0] < SLOPE_MAX_MIB and mib[1] <= 0 <= mib[2] if long else None,
        ),
        _most("the largest log", max(one.log_bytes_max for one in looks) / _MIB),
        Verdict(
            "requests and queries that failed",
            "none",
            f"{facts['failures']:.0f}",
            facts["failures"] == 0,
        ),
        Verdict(
            "acknowledged records that the logs have not counted",
            "none",
            f"{facts['miscounted']:.0f}",
            facts["miscounted"] == 0,
        ),
        _went_by("segments written", facts["rolls"], ROLLS_MIN, long),
        _went_by("turnovers of the slowest ring", facts["turnovers"], TURNOVERS_MIN, long),
    ]


def _flat(what: str, slope: Slope, growth_max: float, threshold: str, told: Any) -> Verdict:
    return Verdict(
        f"{what}, growth in the second half",
        f"at most {threshold}, or none for certain",
        told(slope),
        not slope.leaks(growth_max),
    )


def _share(slope: Slope) -> str:
    return f"{slope.share:+.1%}{'' if slope.low > 0 else ', not certain' if slope.added > 0 else ''}"


def _units(slope: Slope) -> str:
    return f"{slope.added:+.2f} at {slope.level:.1f}"


def _most(what: str, mib: float) -> Verdict:
    most = (RETENTION_BYTES + SEGMENT_BYTES) / _MIB
    return Verdict(what, f"at most {most:g} MiB, its retention and a segment", f"{mib:.1f} MiB", mib <= most)


def _went_by(what: str, count: float, least: int, long: bool) -> Verdict:
    return Verdict(what, f"{least:,} in {LONG_HOURS:g} hours", f"{count:,.0f}", count >= least if long else None)


def report(looks: Sequence[Look], facts: dict[str, float], found: Sequence[Verdict], scratch: Path) -> str:
    """Return the report of a soak."""
    half = len(looks) // 2
    p99 = [statistics.median(one.ack_p99_ms for one in part) for part in (looks[:half], looks[half:])]
    last = looks[-1]
    text = (
        f"{last.seconds / 60:.0f} minutes: {facts['records'] / 1e6:.1f} million records "
        f"({facts['records'] / last.seconds:,.0f} a second), {facts['queries']:.0f} queries, "
        f"{facts['compactions']:.0f} compactions; at the end {last.resident_bytes / _MIB:.0f} MiB resident, "
        f"{last.open_files} open files, {last.threads} threads, {last.cpu_us_per_record:.2f} µs of CPU a record, queries "
        f"and compaction included. p99 of acknowledgements, median over the samples: {number(p99[0])} ms in the first "
        f"half, {number(p99[1])} ms in the second. {describe(scratch).text()}.\n"
    )
    return f"{verdicts(found)}\n{text}"


def write_csv(looks: Sequence[Look], path: Path) -> None:
    """Write the samples, a column for each field of `Look`."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [one.name for one in fields(Look)])
        writer.writeheader()
        writer.writerows(asdict(one) for one in looks)


def soak(minutes: float, output: Path) -> tuple[str, list[Verdict]]:
    """Run a soak, write CSV and PNG to `output`, and return the report and its verdicts."""
    scratch = output / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    sample_s = min(SAMPLE_S_MAX, max(SAMPLE_S, minutes * 60 / SAMPLES))
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        one = Soak(Path(directory), sample_s)
        try:
            one.run(minutes * 60)
        finally:
            one.stop()
    write_csv(one.looks, output / "soak.csv")
    (output / "soak.png").unlink(missing_ok=True)
    if not draw([asdict(look) for look in one.looks], output / "soak.png"):
        say("matplotlib is not installed (pip install -e '.[soak]'): no picture")
    found = judge(one.looks, one.facts)
    return report(one.looks, one.facts, found, scratch), found


def main(arguments: list[str] | None = None) -> int:
    """Soak and publish; return the exit code: 1 when something leaks, failed or was lost."""
    made = parser("soak", __doc__ or "")
    made.add_argument("--minutes", type=float, help=f"how long (default {MINUTES:g})")
    options = made.parse_args(arguments)
    minutes = options.minutes or (SHORT_MINUTES if options.short else MINUTES)
    text, found = soak(minutes, options.output)
    picture = options.output / "soak.png"
    if options.update_docs and picture.exists():
        shutil.copy(picture, PAGE.with_name(picture.name))
    return int(publish("soak", text, found, options) > 0)


if __name__ == "__main__":
    sys.exit(main())
