"""What a daemon answers after a restart, and what its rings have evicted: ring and log are one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from collector.otlp.signals import SIGNALS, TRACES, Signal
from collector.wal.files import OperatingSystemFiles
from collector.wal.inspect import inspect
from tests.crash.journal import Request
from tests.crash.reading import ask
from tests.crash.writers import EPOCH, SECOND, SERVICE, payload
from tests.daemon import Daemon
from tests.e2e.answers import assert_everything, search
from tests.e2e.python_sdk import exporters, send

CAPACITY, REQUESTS, RECORDS = 100, 100, 10
WITHOUT_SPAN_METRICS = "metrics_generator.enabled=false"
"""They begin anew with a daemon, as counters do."""
SMALL = (
    f"stores.traces.capacity={CAPACITY}",
    f"stores.logs.capacity={CAPACITY}",
    f"stores.metrics.capacity={CAPACITY}",
    "wal.segment_bytes=64KiB",
)


def requests_of(signal: Signal) -> list[Request]:
    """Return the requests that `fill` sends."""
    first = 1 + SIGNALS.index(signal) * REQUESTS
    return [Request(signal, number, RECORDS) for number in range(first, first + REQUESTS)]


def fill(daemon: Daemon) -> None:
    """Send 1000 records of each signal, one request after the other."""
    for signal in SIGNALS:
        for request in requests_of(signal):
            answer = daemon.export(signal.http_path, payload(request, padding=1000))
            assert (answer.code, answer.body) == (200, b"")


def answers(daemon: Daemon, service: str, time_ns: int) -> dict[str, bytes]:
    """Return the bodies of a few queries of each API, at fixed times."""
    seconds, window = str(time_ns // 10**9), {"start": time_ns - 600 * 10**9, "end": time_ns + 10**9}
    prometheus = {"start": str(time_ns // 10**9 - 60), "end": seconds, "step": "15"}
    paths: dict[str, dict[str, Any]] = {
        "/api/search": {"q": f'{{ resource.service.name = "{service}" }}', "limit": 100, "spss": 100},
        "/api/v2/search/tags": {},
        "/api/v2/search/tag/span.int/values": {},
        "/loki/api/v1/query_range": {"query": f'{{service_name="{service}"}}', "limit": 1000, **window},
        "/loki/api/v1/labels": window,
        "/api/v1/query": {"query": "{__name__=~'.+'}", "time": seconds},
        "/api/v1/query_range": {"query": "sum by (http_route) (http_requests_total)", **prometheus},
        "/api/v1/labels": {},
        "/api/v1/metadata": {},
    }
    found = {}
    for path, parameters in paths.items():
        answer = daemon.get(f"{path}?{urlencode(parameters)}")
        assert answer.code == 200, answer
        found[path] = answer.body
    return found


def held(daemon: Daemon) -> dict[str, Any]:
    """Return what `/api/stats` says that does not begin anew with the process."""
    stats = daemon.stats()
    for signal in stats.values():
        del signal["evicted"]
    return stats


def comparable(found: dict[str, bytes]) -> dict[str, Any]:
    """Return answers without the figures that say how they were found."""
    parsed = {path: json.loads(body) for path, body in found.items()}
    for body in parsed.values():
        body.pop("metrics", None)
        if isinstance(body.get("data"), dict):
            body["data"].pop("stats", None)
    return parsed


def test_the_answers_after_a_restart_are_those_before(tmp_path: Path) -> None:
    with Daemon(tmp_path, WITHOUT_SPAN_METRICS) as daemon:
        sent = send(exporters("http", daemon.grpc, daemon.http, True), "restarted")
        newest = max(int(point["timeUnixNano"]) for metric in sent["metrics"] for point in metric["points"]) + 10**9
        before, stats = answers(daemon, "restarted", newest), held(daemon)
    with Daemon(tmp_path, WITHOUT_SPAN_METRICS) as daemon:
        assert comparable(answers(daemon, "restarted", newest)) == comparable(before)
        assert held(daemon) == stats
        assert_everything(daemon, sent)


def test_what_the_ring_has_evicted_is_read_from_the_log(tmp_path: Path) -> None:
    with Daemon(tmp_path, WITHOUT_SPAN_METRICS, *SMALL) as daemon:
        fill(daemon)
        everything_is_there(daemon)
        # the first one, by its trace id and by search
        first = requests_of(TRACES)[0]
        assert ask(daemon, first) == list(first.ids)
        found = search(daemon, f'{{ resource.service.name = "{SERVICE}" && trace:id = "{first.number:032x}" }}')
        assert sorted(int(span, 16) for span in found) == list(first.ids)
    # and so after a restart, without the indexes too
    with Daemon(tmp_path, WITHOUT_SPAN_METRICS, *SMALL) as daemon:
        everything_is_there(daemon)
        data = daemon.data
    indexes = list(data.rglob("*.index"))
    assert len(indexes) > len(SIGNALS)
    for index in indexes:
        index.unlink()
    with Daemon(tmp_path, WITHOUT_SPAN_METRICS, *SMALL, allow={"index rebuilt"}) as daemon:
        everything_is_there(daemon)
    assert sorted(data.rglob("*.index")) == sorted(indexes)


def test_the_answers_of_a_compacted_log_are_those_before(tmp_path: Path) -> None:
    time_ns = (EPOCH + 3 * REQUESTS) * SECOND
    with Daemon(tmp_path, WITHOUT_SPAN_METRICS, *SMALL, "wal.compaction.enabled=false") as daemon:
        fill(daemon)
        before, size = answers(daemon, SERVICE, time_ns), {name: one["log"] for name, one in daemon.stats().items()}
        assert b"traceID" in before["/api/search"]
        assert b"write 150" in before["/loki/api/v1/query_range"]
        assert b"writes" in before["/api/v1/query"]
    with Daemon(tmp_path, WITHOUT_SPAN_METRICS, *SMALL) as daemon:
        while not all(one.active or one.original_size for one in inspect(daemon.data, OperatingSystemFiles())):
            assert comparable(answers(daemon, SERVICE, time_ns)) == comparable(before)
        everything_is_there(daemon)
        assert comparable(answers(daemon, SERVICE, time_ns)) == comparable(before)
        for name, one in daemon.stats().items():
            assert one["log"]["bytes"] < size[name]["bytes"] // 2
            assert one["log"]["segments"] >= size[name]["segments"]
    with Daemon(tmp_path, WITHOUT_SPAN_METRICS, *SMALL, "wal.compaction.enabled=false") as daemon:
        everything_is_there(daemon)
        assert comparable(answers(daemon, SERVICE, time_ns)) == comparable(before)


def everything_is_there(daemon: Daemon) -> None:
    """Assert that the rings hold the newest records, the logs all, and queries find any."""
    for signal in SIGNALS:
        requests = requests_of(signal)
        stats = daemon.stats()[signal.name]
        assert stats["capacity"] == stats["records"] == CAPACITY
        assert stats["log"]["first_offset"] == 0
        assert stats["log"]["next_offset"] == REQUESTS * RECORDS
        assert stats["log"]["segments"] > 1
        for name, index in stats["indexes"].items():
            assert name == "tokens" or index["postings"] <= CAPACITY
        # the oldest, the newest, and those on both sides of the ring's tail
        tail = REQUESTS - CAPACITY // RECORDS
        for request in (requests[0], requests[1], requests[tail - 1], requests[tail], requests[-1]):
            assert ask(daemon, request) == list(request.ids)
        unsent = Request(signal, requests[-1].number + 1000, RECORDS)
        assert ask(daemon, unsent) == []


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
def test_without_a_log_the_rings_are_all_there_is(tmp_path: Path, signal: Signal) -> None:
    settings = (*SMALL, "wal.enabled=false")
    with Daemon(tmp_path, *settings) as daemon:
        fill(daemon)
        requests = requests_of(signal)
        stats = daemon.stats()[signal.name]
        assert (stats["records"], stats["evicted"]) == (CAPACITY, REQUESTS * RECORDS - CAPACITY)
        tail = REQUESTS - CAPACITY // RECORDS
        assert ask(daemon, requests[tail - 1]) == []
        assert ask(daemon, requests[tail]) == list(requests[tail].ids)
    assert not daemon.data.exists()
    with Daemon(tmp_path, *settings) as daemon:
        assert daemon.stats()[signal.name]["records"] == 0
        assert ask(daemon, requests[-1]) == []
