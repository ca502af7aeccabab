"""How long queries take: `make bench-query`.

Each signal in turn, spans and log records, with the data of `shop.py` and the questions of `questions.py`, one after
the other over HTTP/1.1 with keep-alive (`answers.py`):

ring   a daemon whose ring holds all records, as does its log. Memory when it is full; then it is started anew, which
       refills the ring, and the first answer to each question is what it takes cold; then each is asked for a while.
found  one request, and at once the question for it: how long it takes from the acknowledgement until the answer has it.
busy   the same ring with the daemon's own retention, so that the log adds nothing, while the load driver sends as fast
       as the daemon takes it: what that does to answers, and answers to it. One client asks, `PACE` questions a second,
       and then without a pause. The log lies in memory then, if there is room: nothing waits for a disk, so the
       processors are all that questions and receiving can take from each other.
log    a log of ten times as many records, compacted, and a daemon whose ring has room for one of them. Cold: what the
       kernel has cached of the files is dropped before each question, and of these files only.

A latency is wall time as the client has it; beside it stands the server's CPU time for one answer. A question that is
refused as not supported has no figures; an answer that is wrong ends the run.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.answers import PACE, Bench, Extent, Found
from tests.benchmarks.asking import Times
from tests.benchmarks.goals import Verdict, number, parser, publish, say, table, verdicts
from tests.benchmarks.machine import describe
from tests.benchmarks.measure import Incorrect
from tests.benchmarks.questions import TABLES

FULL = Extent(1_000_000, 10_000_000, 4.0, 20, 2000, 5, 200, 4.0, 6, 300)
SHORT = Extent(100_000, 300_000, 0.5, 10, 200, 2, 30, 2.0, 1, 200)
SLOWDOWN_MAX = 20.0
"""How much slower records may be received while questions are asked, in %."""
FOUND_MS = 0.0
"""When a record may be found that is acknowledged: the first question has it."""
PARTS = ("ring", "busy", "log")


def measure(extent: Extent, scratch: Path, signals: Sequence[str], parts: Sequence[str], only: str = "") -> list[Found]:
    """Measure these parts of these signals. Raises Incorrect."""
    scratch.mkdir(parents=True, exist_ok=True)
    measured = []
    for one in TABLES:
        if one.signal.name in signals:
            bench = Bench(one, extent, scratch, only)
            for part in parts:
                say(f"{one.signal.name}: {part}")
                getattr(bench, part)()
            measured.append(bench.found)
    return measured


def judge(found: Found, extent: Extent) -> list[Verdict]:
    """Compare figures with goals."""
    judged = []
    noun = found.signals.signal.noun
    for row in found.rows:
        for where, times, goal in (
            (f"{extent.records:,} {noun} in the ring", row.ring, row.question.goal),
            (f"{extent.log_records:,} {noun} in the log", row.log, row.question.log_goal),
        ):
            if goal is not None and times is not None:
                judged.append(Verdict.at_most(f"{row.question.what}, {where}, p50", times.p50, goal, "ms"))
            elif goal is not None and row.refused:
                judged.append(Verdict(f"{row.question.what}, {where}, p50", f"at most {number(goal)} ms", "400", None))
        times = row.ring
        if row.question.worst is not None and times is not None:
            judged.append(
                Verdict.at_most(
                    f"{row.question.what}, {extent.records:,} {noun} in the ring, the slowest answer",
                    max(times.worst, row.first or 0.0),
                    row.question.worst,
                    "ms",
                    f"p50 {number(times.p50)}, p95 {number(times.p95)}, the first {number(row.first or 0.0)}",
                )
            )
    if found.total:
        judged.append(
            Verdict.at_most(
                f"memory of a million {noun}, the process",
                (found.resident - found.idle) / extent.records,
                found.signals.memory_mb,
                "MB",
                f"total_bytes {number(found.total / extent.records)}, {found.record_bytes:.0f} B each, "
                f"{number(found.resident_asked / 1e6)} MB resident after all questions"
                + (f"; {found.signals.memory_peers}" if found.signals.memory_peers else ""),
            )
        )
    if found.until_found is not None:
        times = found.until_found
        judged.append(
            Verdict(
                f"{noun}: answers after an acknowledgement that did not have the record",
                "none",
                f"{found.missed} of {times.count} (the first answer took {times.p50:.2f} ms, p99 {times.p99:.2f})",
                found.missed == 0,
            )
        )
    alone = found.rates.get("nobody", [])
    for who, rates in found.rates.items():
        if who != "nobody":
            # What else the machine does changes from minute to minute, and is much the same in runs that follow each other.
            slower = 100 * (
                1 - statistics.median(with_it / without for with_it, without in zip(rates, alone, strict=True))
            )
            goal = SLOWDOWN_MAX if who.startswith(str(PACE)) else None
            judged.append(
                Verdict.at_most(
                    f"{noun} are received slower while one client asks, {who}",
                    slower,
                    goal,
                    "%",
                    f"{number(statistics.median(alone) / 1000)} to {number(statistics.median(rates) / 1000)} thousand a second; "
                    f"the median of {len(rates)} pairs of runs, each beside the one without questions before it",
                )
            )
    return judged


def questions_table(found: Found, extent: Extent) -> str:
    """Return the latencies of one signal."""
    heads = [
        f"{found.signals.signal.noun}, ms",
        *(f"{one}: p50" for one in found.signals.peers),
        "goal",
        f"ring of {extent.records:,}: p50, p99",
        "CPU",
        "the first",
        "while receiving",
        "goal",
        f"log of {extent.log_records:,}: p50, p99",
        "CPU",
        "cold",
    ]
    rows = []
    for row in found.rows:
        question = row.question
        peers = [*question.peers, *[None] * len(found.signals.peers)][: len(found.signals.peers)]
        rows.append(
            [
                question.what,
                *map(_figure, peers),
                _figure(question.goal),
                *((_both(row.ring), _cpu(row.ring)) if not row.refused else ("not supported", "")),
                _figure(row.first),
                _both(row.busy),
                _figure(question.log_goal),
                _both(row.log),
                _cpu(row.log),
                _figure(row.cold.p50 if row.cold is not None else None),
            ]
        )
    return table(heads, rows)


def _figure(value: float | None) -> str:
    return "" if value is None else number(value)


def _both(times: Times | None) -> str:
    return "" if times is None else f"{number(times.p50)}, {number(times.p99)}"


def _cpu(times: Times | None) -> str:
    return "" if times is None else number(times.cpu)


def report(measured: Sequence[Found], extent: Extent, scratch: Path) -> tuple[str, list[Verdict]]:
    """Return the page's part, and the verdicts in it."""
    judged = [verdict for found in measured for verdict in judge(found, extent)]
    parts = [questions_table(found, extent) for found in measured]
    parts.append(verdicts(judged))
    parts.append(
        f"Latencies in ms of wall time, one client, HTTP with keep-alive; CPU is the server's for one answer; each question "
        f"{extent.seconds:g} s or {extent.most} times; cold: medians of {extent.cold}. Peers: p50 on such a machine, "
        f"1,024,000 records in memory. {describe(scratch).text()}.\n"
    )
    return "\n".join(parts), judged


def main(arguments: list[str] | None = None) -> int:
    """Measure and publish; return the exit code: 1 when the figures would mean nothing."""
    made = parser("query", __doc__ or "")
    names = [one.signal.name for one in TABLES]
    made.add_argument("--signal", action="append", choices=names, help="of this signal only; repeatable")
    made.add_argument("--part", action="append", choices=PARTS, help="this part only; repeatable")
    made.add_argument("--only", default="", metavar="TEXT", help="questions that have this in their names")
    made.add_argument("--records", type=int, help=f"records in the ring (default {FULL.records:,})")
    made.add_argument("--log-records", type=int, help=f"records in the log (default {FULL.log_records:,})")
    options = made.parse_args(arguments)
    extent = SHORT if options.short else FULL
    extent = replace(
        extent,
        records=options.records or extent.records,
        log_records=options.log_records or extent.log_records,
    )
    scratch = options.output / "scratch"
    try:
        measured = measure(extent, scratch, options.signal or names, options.part or PARTS, options.only)
    except Incorrect as error:
        say(f"no figures: {error}")
        return 1
    text, judged = report(measured, extent, scratch)
    publish("query", text, judged, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
