"""`make conformance`: the kit against Ringtail and rotel, and docs/conformance.md made of what came of it."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from collector import __version__
from collector.clock import SystemClock
from collector.conformance import kit, report
from collector.conformance.check import Level, Result, Verdict
from collector.conformance.target import Target
from tests.benchmarks.servers import Rotel

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"

_HEAD = """# Conformance

<!-- Made by `make conformance`. -->

`ringtail conformance` checks an OTLP server against the specification (opentelemetry-proto 1.11.0 and the comments of
its .proto files). It speaks only the wire - gRPC, HTTP/protobuf, HTTP/JSON - and knows only an endpoint, so it can be
pointed at any server:

    ringtail conformance --grpc 127.0.0.1:4317 --http http://127.0.0.1:4318
    ringtail conformance --http https://otlp.example --header authorization='Bearer ...' --only 27,28 --json
    ringtail conformance                  # starts a Ringtail of its own, and makes the intrusive checks, too

A line a check: its number, how much the specification demands (MUST, SHOULD, MAY), `pass`, `FAIL`, `no` (an option that
the server does not take) or `skip`, the rule, and what was seen. A failure also tells what was sent and expected. The
exit status is 1 when a MUST is failed. `--json` prints the same for machines, `--list` only the rules.

What was stored is looked at through Tempo's, Loki's and Prometheus' APIs when `--query URL` says where they are.
Checks that want a server with settings of its own (a small size limit, no room, a shutdown, a kill) are made of a
Ringtail that the kit starts, and skipped for an endpoint that is given, as are those about storage without a query API;
the size limit of such an endpoint is 64 MiB unless `--limit` says otherwise, and requests of that size are sent.

`make conformance` runs the kit against Ringtail and rotel (a collector in Rust, from PyPI, into its blackhole exporter)
and writes this page.
"""

_DEFINED = """
## What the specification leaves open

| line | Ringtail |
| --- | --- |
| 44 | Of attributes with one key in a record the first is read by queries; all are kept. |
| 46 | `string_value_strindex` and `key_strindex` are kept and read as absent; the sender is warned by `partial_success` with nothing rejected. |
| 11, 31 | A message of `partial_success` or of a Status has at most 1 KiB, so no response comes near 4 MiB and there is nothing to configure. |
| 43, 47 | Records that break a rule are left out and counted, with the reasons and the first one's place in `error_message`; log records never are. A data point with an exemplar without a value is left out with it. |
| 52 | An acknowledgement means that the records are in the write-ahead log, and with `wal.sync: always` on the disk. |
| 53 | `max_concurrent_streams` calls of a connection (256), one request of an HTTP connection at a time, and `receivers.otlp.max_in_flight_bytes` in all, of which each connection has a fair share. |
| 54 | 401 and UNAUTHENTICATED for who is not known, 403 and PERMISSION_DENIED for who may not, both with a Status and never to be retried. Without credentials configured nobody is asked for any. |
| 55 | Profiles, and services that do not exist, are UNIMPLEMENTED over gRPC and 404 over HTTP, with a Status. |
| 56 | On SIGTERM requests under way are read and answered, new ones get UNAVAILABLE or 503, HTTP/2 connections GOAWAY; ten seconds at most. |
| 57 | Preflight requests are answered when `cors.allowed_origins` says whose. |
| 58 | No ratio is judged: a body is inflated step by step, within the size limit and the budget of bytes in flight. |
| 59 | A request is answered when its commit is durable, a few milliseconds. |
"""


def run(target: Target) -> list[Result]:
    """Make all checks."""
    with target:
        return [result for section in kit.SECTIONS for result in kit.run(target, section.checks)]


def table(columns: dict[str, list[Result]]) -> str:
    """Return the score and every check as tables."""
    scores = {name: report.score(results) for name, results in columns.items()}
    lines = ["", "## Score", "", f"| level | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for level in Level:
        cells = [report.score_line(level, scores[name][level]).split("  ", 1)[1].strip() for name in columns]
        lines.append(f"| {level.value} | {' | '.join(cells)} |")
    rows = iter(zip(*columns.values(), strict=True))
    for section in kit.SECTIONS:
        heads = f"| line | level | a server … | {' | '.join(columns)} |"
        lines += ["", f"## {section.title}", "", heads, f"| --- | --- | --- |{' --- |' * len(columns)}"]
        for check in section.checks:
            words = " | ".join(_shown(one) for one in next(rows))
            lines.append(f"| {check.number} | {check.level.value} | {_cell(check.title)} | {words} |")
    return "\n".join(lines) + "\n"


def failures(name: str, results: Sequence[Result]) -> str:
    """Return what was seen where a server failed."""
    failed = [one for one in results if one.verdict is Verdict.FAIL and one.check.level is not Level.MAY]
    if not failed:
        return ""
    lines = ["", f"## What {name} was seen to do instead", "", "| line | sent | seen |", "| --- | --- | --- |"]
    lines += [f"| {one.check.number} | {_cell(one.check.sent)} | {_cell(one.seen)} |" for one in failed]
    return "\n".join(lines) + "\n"


def _shown(result: Result) -> str:
    word = report.word(result)
    return f"**{word}**" if word == "FAIL" else word


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("{}", "`{}`")


def main() -> int:
    """Run everything; the exit status is Ringtail's."""
    clock = SystemClock()
    columns = {"Ringtail": run(Target.start(clock))}
    version = Rotel.version()
    if version is not None:
        with tempfile.TemporaryDirectory() as directory:
            peer = Rotel(Path(directory))
            try:
                found = peer.addresses
                columns["rotel"] = run(Target(clock=clock, grpc=found["grpc"], http=found["http"]))
            finally:
                peer.stop()
    for name, results in columns.items():
        print(name)
        for level, counts in report.score(results).items():
            print(f"  {report.score_line(level, counts)}")
        for one in results:
            if report.word(one) == "FAIL":
                print(report.line(one))
    if version is None:
        print("rotel is not installed (the extra `bench`): docs/conformance.md stays as it is")
    else:
        day = datetime.fromtimestamp(clock.now_ns() / 1e9, UTC).date()
        made = f"\n{day}, Ringtail {__version__}, rotel {version}, Python {platform.python_version()}.\n"
        seen = "".join(failures(name, results) for name, results in columns.items())
        PAGE.write_text(_HEAD + made + table(columns) + seen + _DEFINED)
    return int(report.failed(columns["Ringtail"]))


if __name__ == "__main__":
    sys.exit(main())
