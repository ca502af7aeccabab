"""`python -m tests.hostile.run`: all attacks, one after the other, and a report; `--seconds` for each of them.

It fails when a goal is missed: the well-behaved keep 90 % of their goodput, the daemon 1.1 times its memory limit, every
refusal is retryable and says so properly, all file descriptors are freed, accounts agree.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from collector.otlp.signals import TRACES
from tests.accounts import disagreements
from tests.daemon import Daemon
from tests.hostile import http1, http2
from tests.hostile.actor import Actor
from tests.hostile.delivery import deliver
from tests.hostile.measure import MIB, Books, Finding, Plan, Watch, idle_bytes, measure, steady

LIMIT = 256 * MIB
SETTINGS = (
    f"memory.limit={LIMIT}",
    "receivers.otlp.max_in_flight_bytes=24MiB",
    "stores.traces.max_bytes=64MiB",
    "stores.logs.max_bytes=64MiB",
    "stores.metrics.max_bytes=64MiB",
    "wal.segment_bytes=16MiB",
    "wal.retention.max_bytes=256MiB",
)
ALLOWED = ("rings are smaller than configured", "memory limit reached", "connections were cut")
FILES = 16_384
P99_MS_MAX = 250.0


def attacks() -> Iterator[tuple[str, Plan]]:
    """Return the attacks, by name."""
    yield "flood, 1,000 connections", [("flood.flood", {"connections": 1000})]
    yield "1,000 slow senders", [("slow.senders", {"count": 1000})]
    yield "200 never-reading readers", [("slow.readers", {"count": 200})]
    yield "vanishing clients", [("slow.vanish", {"count": 200})]
    yield "400 streams on one connection", [("flood.greedy", {"streams": 400})]
    yield "bad heads of HTTP/1.1", [("http1.heads", {})]
    for flood in http2.FLOODS:
        yield f"HTTP/2: {flood}", [("http2.frames", {"flood": flood})]


def line(finding: Finding) -> str:
    """Return a row of the report."""
    alone, beside = finding.alone, finding.beside
    held, most, after = finding.descriptors
    return (
        f"| {finding.attack} | {finding.goodput:.0%} | {alone['p50_ms']} / {alone['p99_ms']} "
        f"| {beside['p50_ms']} / {beside['p99_ms']} | {finding.peak:.2f} | {finding.cpu_share:.0%} "
        f"| {held} / {most} / {after} | {'; '.join(finding.problems) or 'ok'} |"
    )


HEADER = """\
| attack | goodput kept | p50 / p99 ms without | with | peak RSS / limit | CPU | descriptors | |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def crowd(daemon: Daemon, seconds: float, books: Books, http: int, grpc: int) -> tuple[dict[str, Any], list[str]]:
    """R14: many active connections at half of what they reach flat out."""
    fast = Actor("steady.flat_out", daemon, nice=0, http=http, grpc=grpc)
    time.sleep(max(2.0, seconds / 4))
    reached = fast.end()
    books.enter(reached)
    rate = reached["rate"] / 2 / (http + grpc)
    found = steady(daemon, seconds, books, http=http, grpc=grpc, rate=rate, signal="traces")
    problems = [f"{count} answers {code}" for code, count in found["codes"].items() if code not in ("200", "grpc 0")]
    if found["p99_ms"] >= P99_MS_MAX:
        problems.append(f"p99 {found['p99_ms']} ms")
    return {"requests_s_flat_out": round(reached["rate"]), **found}, problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.run", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each attack")
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    parser.add_argument("--details", action="store_true", help="print all that was counted")
    options = parser.parse_args(arguments)
    files = min(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    failed = False
    books = Books()
    with tempfile.TemporaryDirectory() as directory, Daemon(Path(directory), *SETTINGS, allow=ALLOWED) as daemon:
        if options.only in "idle connections":
            each, wrong = idle_bytes(daemon, 2500, 2500, books)
            failed |= bool(wrong)
            print(f"5,000 idle connections: {each / 1024:.1f} KiB each; {wrong or 'ok'}", flush=True)
        if options.only in "active connections":
            with Watch(daemon) as watch:
                found, problems = crowd(daemon, options.seconds, books, 1000, 500)
            failed |= bool(problems)
            print(
                f"1,000 HTTP and 500 gRPC connections at half of {found['requests_s_flat_out']} requests/s: "
                f"p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms, {found['codes']}, "
                f"peak {watch.peak_bytes / LIMIT:.2f} of the limit; {'; '.join(problems) or 'ok'}",
                flush=True,
            )
        print(HEADER)
        for name, plan in attacks():
            if options.only in name:
                finding = measure(daemon, LIMIT, name, plan, options.seconds, books)
                failed |= bool(finding.problems)
                print(line(finding), flush=True)
                if options.details:
                    print(json.dumps({"beside": finding.beside, "attackers": finding.attackers}), flush=True)
        if options.only in "smuggling":
            findings = http1.smuggled(daemon.http)
            books.acknowledged[TRACES] += len(http1.TAKEN)
            count = len(http1.REFUSED) + len(http1.TAKEN) + len(http1.LARGE)
            failed |= bool(findings)
            print(f"{count} smuggling cases: {'; '.join(findings) or 'ok'}", flush=True)
        metrics = daemon.get("/metrics").body.decode()
        lines = disagreements(metrics, books.acknowledged, books.unread)
        print(f"accounts: {'; '.join(lines) or 'agree'}")
        failed |= bool(lines)
    if options.only in "delivery":
        for budget in ("16MiB", "1MiB"):
            with tempfile.TemporaryDirectory() as directory:
                found = deliver(Path(directory), options.seconds, budget=budget)
            failed |= bool(found.problems)
            print(f"delivery, with {budget} for requests in flight\n\n{found.report()}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
