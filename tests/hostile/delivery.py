"""Exporters that retry, through an overload: what they were told is exported is there, and nothing is lost to them.

Nothing is lost means: no exporter gave a batch up, although each has its own patience (ten seconds for the Python ones,
five minutes for the Collector's).
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.accounts import disagreements
from tests.daemon import Daemon
from tests.hostile.actor import Actor
from tests.hostile.measure import MIB, PEAK_MAX, Books, Watch

LIMIT = 256 * MIB
SETTINGS = (
    f"memory.limit={LIMIT}",
    "wal.retention.max_bytes=0",
    "query.timeout=10m",
)
ALLOWED = ("rings are smaller than configured", "memory limit reached", "connections were cut")
NODE = Path(__file__).parents[1] / "e2e" / "node"
NEVER_RETRIES = ("node-grpc",)
"""The exporter for Node over gRPC treats every error as final (otlp-grpc-exporter-base, `GrpcExporterTransport.send`)."""
LINES_MAX = 5000
"""What one query may return; no exporter sends more."""


@dataclass(slots=True)
class Delivered:
    """What became of what was sent."""

    exporters: list[dict[str, Any]]
    flood: dict[str, Any]
    peak: float
    problems: list[str] = field(default_factory=list)

    def report(self) -> str:
        """Return lines for people."""
        lines = ["| exporter | sent | exported | found | lost | tries |", "| --- | --- | --- | --- | --- | --- |"]
        for one in self.exporters:
            lines.append(
                f"| {one['service']} | {one['sent']} | {one['exported']} | {one['found']} | {one['lost']} "
                f"| {one.get('tries', '')} |"
            )
        flood = {name: self.flood[name] for name in ("offered_mb_s", "taken_mb_s", "codes")}
        lines.append(f"overload: {flood}; peak {self.peak:.2f} of the limit; {'; '.join(self.problems) or 'ok'}")
        return "\n".join(lines)


def node_is_here() -> bool:
    """Tell whether the SDK for Node can run: its packages come with `make test`."""
    return shutil.which("node") is not None and (NODE / "node_modules" / ".package-lock.json").exists()


def deliver(
    directory: Path, seconds: float, *, first_backoff_s: float = 5.0, budget: str = "16MiB", **flooding: Any
) -> Delivered:
    """Run the overload for so long, with all exporters beside it. `budget` is for all requests in flight."""
    books = Books()
    with (
        Daemon(directory, *SETTINGS, f"receivers.otlp.max_in_flight_bytes={budget}", allow=ALLOWED) as daemon,
        Watch(daemon) as watch,
    ):
        actors: list[Actor] = []
        try:
            flood = Actor("flood.flood", daemon, **flooding)
            actors.append(flood)
            for protocol in ("http", "grpc"):
                actors.append(
                    Actor("retrying.python_sdk", daemon, nice=0, protocol=protocol, service=f"python-{protocol}")
                )
                actors.append(
                    Actor(
                        "retrying.go_style",
                        daemon,
                        nice=0,
                        protocol=protocol,
                        service=f"go-{protocol}",
                        first_backoff_s=first_backoff_s,
                    )
                )
                if node_is_here():
                    of_node = "http/protobuf" if protocol == "http" else "grpc"
                    address = daemon.http if protocol == "http" else daemon.grpc
                    script = str(NODE / "retry.mjs")
                    command = ["node", script, of_node, f"http://{address}", f"node-{protocol}"]
                    actors.append(Actor(f"node {protocol}", daemon, nice=0, command=command))
            time.sleep(seconds)
            flooded = flood.end()
            books.enter(flooded)
            results = [one.end() for one in actors[1:]]
        finally:
            for one in actors:
                one.kill()
        found = Delivered(results, flooded, 0.0)
        for one in results:
            books.enter(one)
            _compare(daemon, one, found.problems)
        lines = disagreements(daemon.get("/metrics").body.decode(), books.acknowledged, books.unread)
        found.problems += lines
    found.peak = round(watch.peak_bytes / LIMIT, 3)
    if found.peak > PEAK_MAX:
        found.problems.append(f"{found.peak} of memory.limit")
    refused = sum(count for code, count in flooded["codes"].items() if code not in ("200", "grpc 0"))
    if not refused:
        found.problems.append("it was no overload")
    return found


def _compare(daemon: Daemon, one: dict[str, Any], problems: list[str]) -> None:
    """Look for every record that an exporter was told is exported."""
    service = one["service"]
    query = urlencode(
        {"query": f'{{service_name="{service}"}}', "limit": LINES_MAX, "start": time.time_ns() - 3600 * 10**9}
    )
    answer = daemon.get(f"/loki/api/v1/query_range?{query}").json()
    there = {int(value[1]) for stream in answer["data"]["result"] for value in stream["values"]}
    exported = set(one["exported"])
    missing = exported - there
    one["found"] = len(there)
    one["exported"] = len(exported)
    one["lost"] = one["sent"] - len(there | exported) if not missing else len(missing)
    if missing:
        problems.append(f"{service}: {len(missing)} records were acknowledged and are not there")
    if one["given_up_after_s"] and service not in NEVER_RETRIES:
        problems.append(f"{service}: gave up {json.dumps(one['given_up_after_s'][:5])}")
    if not exported:
        problems.append(f"{service}: nothing was exported")
