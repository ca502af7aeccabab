"""What the rings say that they hold, beside what the process holds: `make bench-memory`.

A daemon with room for a million records of each signal, as users run it but for `wal.sync`, is filled over OTLP/HTTP,
one ring after the other. `/api/stats` has `total_bytes`; the kernel has RssAnon, which is VmRSS without pages of
files. Between the two lies what the interpreter and its allocator need beside. Then each ring turns over, with
requests of other sizes, and all of them at once with requests of any size, while queries are asked.

Trace ids are distinct as in life: a trace has eight spans, and its id is sent once. Exit code 1 when memory differs
from `total_bytes` by more than a tenth.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from collector.otlp.signals import SIGNALS, Signal
from tests.benchmarks.connection import HttpConnection
from tests.benchmarks.fresh import Source
from tests.benchmarks.machine import ROOT, describe
from tests.benchmarks.process import anonymous_bytes, resident_bytes
from tests.benchmarks.report import update
from tests.benchmarks.servers import Ringtail

MARKERS = "<!-- memory:begin -->", "<!-- memory:end -->"
PAGE = ROOT / "docs" / "operations.md"
SETTLE_S = 2.5
"""How long memory may take to come back after the last answer."""
SIZES = (1, 1, 5, 20, 128, 512, 512, 2000)
"""Records of a request where sizes are mixed."""
QUERIES = (
    "/api/search?q={status=error}&limit=100",
    '/loki/api/v1/query?query=sum by (detected_level) (count_over_time({service_name=~".%2B"}[1h]))',
    '/api/v1/query?query=count({__name__=~".%2B"})',
)
TOLERANCE = 0.10
"""How far memory may be from what the rings say, as a share of that."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Look:
    """One signal's ring at one time, and the memory of the whole process."""

    what: str
    signal: Signal
    records: str
    """Records of a request."""
    stats: dict[str, Any]
    """The signal's part of `/api/stats`."""
    expected_bytes: int
    """By how much the process should have grown: by what the rings say that they have come to hold."""
    grown_bytes: int
    """By how much it has, less pages of files."""
    resident_bytes: int
    """All of its resident memory."""

    @property
    def error(self) -> float:
        """How far the growth is from what was expected, as a share of that."""
        return self.grown_bytes / self.expected_bytes - 1


class Filling:
    """One daemon, its rings filled one after the other."""

    def __init__(self, directory: Path, capacity: int) -> None:
        settings = ["wal.sync=never", "memory.limit=16GiB"]
        for signal in SIGNALS:
            settings += [f"stores.{signal.name}.capacity={capacity}", f"stores.{signal.name}.max_bytes=4GiB"]
        self._server = Ringtail(directory, tuple(settings))
        self._capacity = capacity
        self._filled: set[str] = set()
        for signal in SIGNALS:
            self._send(signal, 64, 64)  # what is made at the first request, and buffers of the log
        time.sleep(SETTLE_S)
        self._said = self._says()
        self._held = anonymous_bytes(self._server.pid)

    def _says(self) -> int:
        """Return what the rings say. Arrays of an index are there from the start, but in memory once written to."""
        return sum(
            stats["total_bytes"] - (0 if name in self._filled else stats["index_bytes"])
            for name, stats in self._server.statistics().items()
        )

    def _send(self, signal: Signal, records: int, total: int) -> None:
        connection = HttpConnection(self._server.addresses["http"], signal)
        for request in islice(Source(signal, records).requests(), max(1, total // records)):
            connection.export(HttpConnection.prepare(signal, request.payload))
        connection.close()

    def fill(self, what: str, signal: Signal, records: int) -> Look:
        """Send as many records of a signal as its ring has room for, and look."""
        self._send(signal, records, self._capacity)
        self._filled.add(signal.name)
        return self._look(what, signal, str(records))

    def mix(self) -> list[Look]:
        """Turn all rings over with requests of any size in any order, asking queries meanwhile, and look."""
        chance = Random("mixed")
        left = dict.fromkeys(SIGNALS, self._capacity)
        connections = {signal: HttpConnection(self._server.addresses["http"], signal) for signal in SIGNALS}
        sources = {(signal, size): Source(signal, size).requests() for signal in SIGNALS for size in SIZES}
        sent = 0
        while left:
            signal, size = chance.choice(list(left)), chance.choice(SIZES)
            connections[signal].export(HttpConnection.prepare(signal, next(sources[signal, size]).payload))
            left[signal] -= size
            if left[signal] <= 0:
                del left[signal]
            sent += 1
            if sent % 100 == 0:
                self._server.get(QUERIES[sent // 100 % len(QUERIES)])
        for connection in connections.values():
            connection.close()
        return [self._look("mixed", signal, f"{min(SIZES)} to {max(SIZES)}") for signal in SIGNALS]

    def _look(self, what: str, signal: Signal, records: str) -> Look:
        time.sleep(SETTLE_S)
        stats = self._server.statistics()[signal.name]
        held, resident = anonymous_bytes(self._server.pid), resident_bytes(self._server.pid)
        return Look(what, signal, records, stats, self._says() - self._said, held - self._held, resident)

    def stop(self) -> None:
        """Stop the daemon."""
        self._server.stop()


def measure(scratch: Path, total: int, small: int) -> list[Look]:
    """Fill and turn over rings of `total` records with large requests, and of `small` with those of one record."""
    looks = []
    scratch.mkdir(parents=True, exist_ok=True)
    for capacity, records, turned in ((total, 512, (512, 100, 700)), (small, 1, (1, 1, 1))):
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            filling = Filling(Path(directory), capacity)
            try:
                for signal in SIGNALS:
                    looks.append(filling.fill("filled", signal, records))
                    _say(looks[-1])
                for signal, others in zip(SIGNALS, turned, strict=True):
                    looks.append(filling.fill("turned over", signal, others))
                    _say(looks[-1])
                looks += filling.mix()
                _say(looks[-1])
            finally:
                filling.stop()
    return looks


def _say(look: Look) -> None:
    rings, process, resident = (n / _MIB for n in (look.expected_bytes, look.grown_bytes, look.resident_bytes))
    print(
        f"{look.signal.name} {look.what}, {look.records} a request: the rings say {rings:.0f} MiB more, the process "
        f"holds {process:.0f} MiB more ({look.error:+.1%}); VmRSS {resident:.0f} MiB",
        file=sys.stderr,
        flush=True,
    )


def table(looks: Sequence[Look], scratch: Path) -> str:
    """Return what was found, for docs/operations.md."""
    rows = [
        "| ring of | a request has | records | payload | columns | indexes | together | all rings say | the process holds | difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for look in looks:
        stats, count = look.stats, look.stats["records"]
        each = [stats[key] / count for key in ("payload_bytes", "column_bytes", "index_bytes", "total_bytes")]
        cells = [
            f"{look.signal.noun}, {look.what}",
            look.records,
            f"{count:,}",
            *(f"{size:.0f} B" for size in each),
            f"{look.expected_bytes / _MIB:.0f} MiB",
            f"{look.grown_bytes / _MIB:.0f} MiB",
            f"{look.error:+.1%}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    rows += ["", "| index | keys | entries | bytes of an entry |", "| --- | ---: | ---: | ---: |"]
    for look in looks[: len(SIGNALS)]:
        for name, index in look.stats["indexes"].items():
            each_bytes = index["bytes"] / max(1, index["postings"])
            rows.append(
                f"| {look.signal.name}: {name} | {index['keys']:,} | {index['postings']:,} | {each_bytes:.1f} |"
            )
    machine = describe(scratch)
    rows += ["", f"{machine.date[:10]}, commit {machine.commit}, {machine.kernel}, Python {machine.python}.", ""]
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="of each signal (default 1000000)")
    parser.add_argument("--small", type=int, default=100_000, help="of each signal in requests of one (default 100000)")
    parser.add_argument("--update-docs", action="store_true", help="put the tables into docs/operations.md")
    options = parser.parse_args(arguments)
    scratch = ROOT / "build" / "benchmarks" / "scratch"
    looks = measure(scratch, options.records, options.small)
    text = table(looks, scratch)
    sys.stdout.write(text)
    if options.update_docs:
        update([PAGE], text, MARKERS)
    return int(any(abs(look.error) > TOLERANCE for look in looks))


if __name__ == "__main__":
    sys.exit(main())
