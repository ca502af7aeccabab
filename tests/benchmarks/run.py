"""The command line of the benchmark: `make bench`, or `python -m tests.benchmarks.run`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.benchmarks.machine import ROOT, describe
from tests.benchmarks.measure import Extent, Incorrect, Measurement
from tests.benchmarks.report import PAGES, Report, update
from tests.benchmarks.servers import Rotel
from tests.benchmarks.workload import workloads

FULL = Extent(rounds=9, requests=1000, starts=5, settle_s=0.5)
QUICK = Extent(
    rounds=2,
    requests=6,
    starts=1,
    settle_s=0.05,
    settings=("stores.traces.capacity=1000", "stores.logs.capacity=1000", "stores.metrics.capacity=1000"),
)
"""A run of seconds that shows that the benchmark works; its figures mean nothing."""
PAYLOADS, QUICK_PAYLOADS = 128, 3


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; return the exit code: 1 when a figure would mean nothing."""
    options = _parser().parse_args(arguments)
    planned = workloads(QUICK_PAYLOADS if options.quick else PAYLOADS)
    chosen = [one for one in planned if not options.only or one.name in options.only]
    default = QUICK if options.quick else FULL
    extent = Extent(
        options.rounds or default.rounds,
        options.requests or default.requests,
        default.starts,
        default.settle_s,
        default.settings,
    )
    unknown = set(options.only or ()) - {one.name for one in planned}
    if unknown:
        _say(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in planned)}")
        return 2
    if not Rotel.version():
        _say("rotel is not installed (pip install -e '.[bench]'): measuring Ringtail alone")
    scratch = options.output / "scratch"
    measurement = Measurement(extent, scratch, _say)
    try:
        samples = measurement.run(chosen)
    except Incorrect as error:
        _say(f"no figures: {error}")
        return 1
    _say("idle memory and start")
    report = Report(describe(scratch), extent, samples, measurement.footprints(), measurement.held)
    sys.stdout.write(report.markdown())
    written = report.write(options.output)
    if options.update_docs:
        written += update(PAGES, report.markdown())
    for path in written:
        _say(f"written: {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: only shows that it works")
    parser.add_argument("--rounds", type=int, help=f"samples of each figure (default {FULL.rounds})")
    parser.add_argument("--requests", type=int, help=f"requests of a sample (default {FULL.requests})")
    parser.add_argument("--only", action="append", metavar="NAME", help="such as traces/grpc; repeatable")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "build" / "benchmarks",
        help="directory for results (default build/benchmarks)",
    )
    parser.add_argument("--update-docs", action="store_true", help="put the table into docs/benchmarks.md and README")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
