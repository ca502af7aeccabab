"""What a run leaves behind: JSON lines with every sample, and the same in a table for people.

The first line (`kind: run`) says what was measured on what; then follow `sample` lines, one `figure` line for each
server and workload (median, quartiles), one `ratio` line for each workload, and one `footprint` line for each server.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from collector.otlp.signals import BY_NAME, LOGS, SIGNALS
from tests.benchmarks.machine import ROOT, Machine
from tests.benchmarks.measure import Extent, Footprint, Sample
from tests.benchmarks.workload import CONNECTIONS, MANY_CONNECTIONS, RECORDS, STEADY_RATE, TRANSPORTS

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
PAGES = (ROOT / "docs" / "benchmarks.md", ROOT / "README.md")
"""Where `--update-docs` writes the table, between the markers."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """One server's CPU time for a record of one workload, over all rounds, in µs."""

    server: str
    workload: str
    median_us: float
    low_us: float
    """The first quartile."""
    high_us: float
    """The third quartile."""
    record_bytes: float
    """Mean size of a record in its payload, containers included."""
    latency_p50_ms: float
    latency_p99_ms: float
    """Medians over the rounds, of a server that is kept as busy as it can be."""


@dataclass(frozen=True, slots=True)
class Report:
    """A run and what came of it."""

    machine: Machine
    extent: Extent
    samples: Sequence[Sample]
    footprints: Sequence[Footprint]
    held: Mapping[str, Any]
    """`signals` of Ringtail's `/api/stats` when all was sent."""

    def figures(self) -> list[Figure]:
        """Return the figure of every server and workload."""
        found: dict[tuple[str, str], list[Sample]] = {}
        for sample in self.samples:
            found.setdefault((sample.workload.name, sample.server), []).append(sample)
        return [_figure(samples) for samples in found.values()]

    def ratios(self, peer: str = "rotel") -> dict[str, float]:
        """Return Ringtail's figure divided by a peer's, by workload; nothing for workloads without it."""
        medians = {(one.workload, one.server): one.median_us for one in self.figures()}
        return {
            workload: median / medians[workload, peer]
            for (workload, server), median in medians.items()
            if server == "ringtail" and (workload, peer) in medians
        }

    def json_lines(self) -> str:
        """Return everything, one JSON object a line."""
        lines: list[dict[str, Any]] = [
            {"kind": "run", **asdict(self.machine), "extent": asdict(self.extent), "servers": self._versions()}
        ]
        for sample in self.samples:
            lines.append({"kind": "sample", "cpu_us_per_record": sample.cpu_us_per_record, **asdict(sample)})
        lines += [{"kind": "figure", **asdict(figure)} for figure in self.figures()]
        lines += [{"kind": "ratio", "workload": name, "ratio": ratio} for name, ratio in self.ratios().items()]
        lines += [{"kind": "footprint", **asdict(footprint)} for footprint in self.footprints]
        return "".join(json.dumps(line) + "\n" for line in lines)

    def markdown(self) -> str:
        """Return the table, and in a few lines what it was measured on."""
        parts = [self._table(), self._other_work(), self._keyword_text()]
        parts += [f"{self._footprint_text()}\n", f"{self._machine_text()}\n"]
        return "\n".join(part for part in parts if part)

    def _keyword_text(self) -> str:
        """Return what the keyword index of log records holds, if any were sent."""
        logs = self.held.get(LOGS.name)
        if logs is None or not logs["records"] or "tokens" not in logs["indexes"]:
            return ""
        own, everything = logs["indexes"]["tokens"]["bytes"], logs["total_bytes"]
        records = logs["records"]
        return (
            f"The keyword index takes {own / records:.0f} of the {everything / records:.0f} B of memory that a log "
            f"record has in a ring of {records:,}.\n"
        )

    def _other_work(self) -> str:
        """Return the table of what is not sent in usual batches, or of another way to compare them."""
        figures = {(one.workload, one.server): one for one in self.figures()}
        rows = []
        for title, workload, other, peer in _OTHER_WORK:
            ours, theirs = figures.get((workload, "ringtail")), figures.get((other, peer))
            if ours is None or theirs is None:
                continue
            what = "Ringtail by HTTP/protobuf" if peer == "ringtail" else _TITLES[peer]
            rows.append(
                f"| {title} | {ours.median_us:.2f} | {what}: {theirs.median_us:.2f} | "
                f"**{ours.median_us / theirs.median_us:.2f}** | {ours.latency_p50_ms:.1f}, {ours.latency_p99_ms:.1f} | "
                f"{theirs.latency_p50_ms:.1f}, {theirs.latency_p99_ms:.1f} |\n"
            )
        if not rows:
            return ""
        head = "| µs of CPU a record | Ringtail | beside | ratio | p50, p99 in ms | the other's |\n"
        return f"{head}| --- | ---: | ---: | ---: | ---: | ---: |\n{''.join(rows)}"

    def _versions(self) -> dict[str, str]:
        return {footprint.server: footprint.version for footprint in self.footprints}

    def _table(self) -> str:
        figures = {(one.workload, one.server): one for one in self.figures()}
        ratios = self.ratios()
        servers = [name for name in ("ringtail", "rotel") if any(server == name for _, server in figures)]
        heads = ["µs of CPU"]
        for transport in TRANSPORTS:
            heads += [f"{_TITLES[transport]}: {_TITLES[server]}" for server in servers]
            heads += ["ratio"] if "rotel" in servers else []
        rows = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
        for signal in SIGNALS:
            row: list[str] = []
            for transport in TRANSPORTS:
                workload = f"{signal.name}/{transport}"
                if (workload, servers[0]) not in figures:
                    row += ["–"] * (len(heads) // 2)
                    continue
                row += [f"{figures[workload, server].median_us:.2f}" for server in servers]
                row += [f"**{ratios[workload]:.2f}**"] if workload in ratios else []
            sizes = [one.record_bytes for (name, _), one in figures.items() if name.startswith(f"{signal.name}/")]
            if sizes:
                rows.append([f"{_NOUNS[signal.name]} of {sizes[0]:.0f} B", *row])
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def _footprint_text(self) -> str:
        texts = [
            f"{_TITLES[one.server]} {one.idle_resident_bytes / _MIB:.0f} MiB idle, "
            f"{one.peak_resident_bytes / _MIB:.0f} MiB at most, ready after {one.ready_s:.2f} s"
            for one in self.footprints
        ]
        return f"Resident memory and start on an empty directory: {'; '.join(texts)}."

    def _machine_text(self) -> str:
        machine, extent = self.machine, self.extent
        packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
        servers = ", ".join(f"{_TITLES[name]} {number}" for name, number in self._versions().items())
        return (
            f"{RECORDS} records a request and {CONNECTIONS} connections unless told; medians of "
            f"{extent.rounds} interleaved rounds of {extent.requests} requests; half of all rounds lie within "
            f"{self.spread():.0%} of theirs. "
            f"{machine.date[:10]}, commit {machine.commit}, {machine.cores} × {machine.processor}, "
            f"{machine.memory_bytes / _MIB / 1024:.0f} GiB, {machine.kernel}, {machine.file_system}; {servers}, "
            f"Python {machine.python}, {packages}."
        )

    def spread(self) -> float:
        """Return how far samples lie from their median, as a share of it: the median over all samples."""
        medians = {(one.workload, one.server): one.median_us for one in self.figures()}
        return statistics.median(
            abs(one.cpu_us_per_record / medians[one.workload.name, one.server] - 1) for one in self.samples
        )

    def write(self, directory: Path) -> list[Path]:
        """Write JSON lines and table, named by date and commit; return the files."""
        directory.mkdir(parents=True, exist_ok=True)
        stem = f"{self.machine.date[:19].replace(':', '')}-{self.machine.commit}"
        written = [directory / f"{stem}.jsonl", directory / f"{stem}.md"]
        for path, text in zip(written, (self.json_lines(), self.markdown()), strict=True):
            path.write_text(text)
        return written


def update(pages: Iterable[Path], table: str, markers: tuple[str, str] = (BEGIN, END)) -> list[Path]:
    """Put the table between the markers of those pages that have them; return which."""
    updated = []
    for page in pages:
        text = page.read_text() if page.exists() else ""
        before, begin, rest = text.partition(markers[0])
        _, end, after = rest.partition(markers[1])
        if begin and end:
            page.write_text(f"{before}{begin}\n{table}{end}{after}")
            updated.append(page)
    return updated


def _figure(samples: Sequence[Sample]) -> Figure:
    values = [sample.cpu_us_per_record for sample in samples]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Figure(
        samples[0].server,
        samples[0].workload.name,
        median,
        low,
        high,
        sum(one.outcome.payload_bytes for one in samples) / sum(one.records for one in samples),
        statistics.median(one.outcome.latency_p50_ms for one in samples),
        statistics.median(one.outcome.latency_p99_ms for one in samples),
    )


_TITLES = {"grpc": "gRPC", "http": "HTTP", "ringtail": "Ringtail", "rotel": "rotel", "limit": "the limit"}
_TITLES["unindexed"] = "without it"

_SINGLE = f"/1x{MANY_CONNECTIONS}"
_STEADY = f"/{STEADY_RATE:g}ps"
_OTHER_WORK = (
    (
        "512 spans by HTTP, to a program that only receives, checksums, writes and syncs",
        "traces/http",
        "traces/http",
        "limit",
    ),
    *(
        (f"512 log records by {title}, with the keyword index", f"logs/{name}", f"logs/{name}", "unindexed")
        for name, title in (("grpc", "gRPC"), ("http", "HTTP"))
    ),
    ("512 spans by HTTP/JSON", "traces/json", "traces/http", "ringtail"),
    (
        f"1 span a request, {MANY_CONNECTIONS} connections, gRPC",
        f"traces/grpc{_SINGLE}",
        f"traces/grpc{_SINGLE}",
        "rotel",
    ),
    (
        f"1 span a request, {MANY_CONNECTIONS} connections, HTTP",
        f"traces/http{_SINGLE}",
        f"traces/http{_SINGLE}",
        "rotel",
    ),
    (f"512 spans, {STEADY_RATE:g} requests a second, gRPC", f"traces/grpc{_STEADY}", f"traces/grpc{_STEADY}", "rotel"),
    (f"512 spans, {STEADY_RATE:g} requests a second, HTTP", f"traces/http{_STEADY}", f"traces/http{_STEADY}", "rotel"),
    (
        f"512 spans, {STEADY_RATE:g} requests a second, HTTP, to that program",
        f"traces/http{_STEADY}",
        f"traces/http{_STEADY}",
        "limit",
    ),
)
"""Rows of the second table: a title, our workload, the other's and who that is."""
_NOUNS = {name: signal.noun.removesuffix("s") for name, signal in BY_NAME.items()}
