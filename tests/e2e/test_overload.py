"""More than the machine can take, into a small limit: memory holds, nothing acknowledged is lost, clients may retry.

And the accounts agree: what the clients count, what the daemon's metrics count, and what its log holds.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from pathlib import Path

from collector.otlp.signals import LOGS, TRACES, Signal
from collector.testing import otlp
from tests.accounts import disagreements
from tests.daemon import Daemon
from tests.effort import Effort

SHORT_S, LONG_S = 3, 60
LIMIT = 160 * 1024 * 1024
CONNECTIONS = 48
RECORDS = 2000


class Client(threading.Thread):
    """A client that never waits longer than for the answer, and counts what was acknowledged."""

    def __init__(self, address: str, signal: Signal, body: bytes, until: float) -> None:
        super().__init__()
        self._address, self._until = address, until
        self._request = (
            f"POST {signal.http_path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.signal = signal
        self.acknowledged = self.refused = self.unread = 0
        self.wrong: list[bytes] = []

    def run(self) -> None:
        host, _, port = self._address.rpartition(":")
        while time.monotonic() < self._until:
            with socket.create_connection((host, int(port)), 60) as connection:
                while time.monotonic() < self._until:
                    try:
                        connection.sendall(self._request)
                        answer = connection.recv(65536)
                    except OSError:
                        self.unread += 1
                        break  # refused by its head, and the rest was not wanted
                    if answer.startswith(b"HTTP/1.1 200"):
                        self.acknowledged += 1
                    elif answer.startswith(b"HTTP/1.1 503") and b"Retry-After" in answer:
                        self.refused += 1
                        break
                    elif answer:
                        self.wrong.append(answer)
                        return
                    else:
                        self.unread += 1
                        break


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_inside_its_limit_under_overload(tmp_path: Path, effort: Effort) -> None:
    settings = [
        f"memory.limit={LIMIT}",
        "stores.traces.capacity=200000",
        "stores.logs.capacity=200000",
        "stores.traces.max_bytes=1GiB",
        "stores.logs.max_bytes=1GiB",
    ]
    seconds = effort.times(SHORT_S, LONG_S)
    with Daemon(tmp_path, *settings, allow=["rings are smaller than configured", "memory limit reached"]) as daemon:
        until = time.monotonic() + seconds
        bodies = {TRACES: otlp.traces(RECORDS), LOGS: otlp.logs(RECORDS)}
        clients = [
            Client(daemon.http, signal, bodies[signal], until) for signal in bodies for _ in range(CONNECTIONS // 2)
        ]
        for client in clients:
            client.start()
        peak = 0
        while any(client.is_alive() for client in clients):
            peak = max(peak, resident(daemon.process.pid))
            time.sleep(0.02)
        for client in clients:
            client.join()
        assert [answer for client in clients for answer in client.wrong] == []
        refused = sum(client.refused for client in clients)
        assert refused > 0, "it was no overload"
        assert peak <= 1.1 * LIMIT, f"{peak} bytes were resident"
        acknowledged: Counter[Signal] = Counter()
        unread: Counter[Signal] = Counter()
        for client in clients:
            acknowledged[client.signal] += client.acknowledged * RECORDS
            unread[client.signal] += client.unread * RECORDS
        assert min(acknowledged.values()) > 0
        metrics = daemon.get("/metrics").body.decode()
        assert disagreements(metrics, acknowledged, unread) == []
    found = {one.name: count for one, count in acknowledged.items()}
    effort.report("R10", load_seconds=seconds, limit=LIMIT, peak=peak, refused_requests=refused, acknowledged=found)


def test_accounts_that_do_not_agree_are_seen() -> None:
    """The canary."""
    exposition = """otelcol_receiver_accepted_spans_total{receiver="otlp",transport="grpc"} 5.0
otelcol_receiver_accepted_spans_total{receiver="otlp",transport="http"} 2.0
ringtail_wal_appended_records_total{signal="traces"} 7.0
ringtail_wal_next_offset{signal="traces"} 7.0
ringtail_ring_records{signal="traces"} 4.0
ringtail_ring_evicted_records_total{signal="traces"} 3.0
"""
    assert disagreements(exposition, {TRACES: 7}) == []
    assert disagreements(exposition, {TRACES: 6}, {TRACES: 1}) == []
    assert disagreements(exposition, {TRACES: 8}) == ["traces: 7 accepted, 8 to 8 acknowledged to clients"]
    assert disagreements(exposition.replace('traces"} 3', 'traces"} 2'), {TRACES: 7}) == [
        "traces: 7 accepted, 6 in the ring and evicted"
    ]
    assert disagreements(
        exposition.replace('records_total{signal="traces"} 7', 'records_total{signal="traces"} 9'), {TRACES: 7}
    ) == ["traces: 7 accepted, 9 appended to the log"]
