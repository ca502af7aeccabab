"""The short forms of `make overload`: every attack for a second or two, and floors that only starvation falls below.

Latency and goodput of two busy cores are no matter for an assertion; `make overload` has the goals.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from collector.otlp.signals import TRACES
from collector.testing import otlp
from tests.accounts import disagreements
from tests.daemon import Daemon
from tests.hostile import http1, http2
from tests.hostile.delivery import deliver
from tests.hostile.measure import Books, Plan, idle_bytes, measure, steady
from tests.hostile.run import ALLOWED, LIMIT, SETTINGS

SECONDS = 1.0
FLOOR = 0.3
"""Of the goodput without an attack: who is starved gets nothing."""

ATTACKS: dict[str, Plan] = {
    "flood": [("flood.flood", {"connections": 200, "sizes": 5})],
    "patience": [
        ("slow.senders", {"count": 400, "interval_s": 0.1}),
        ("slow.readers", {"count": 40}),
        ("slow.vanish", {"count": 40}),
    ],
    "greed": [("flood.greedy", {"streams": 400})],
    "HTTP/1.1": [("http1.heads", {"connections": 4})],
    "HTTP/2": [("http2.frames", {"connections": len(http2.FLOODS)})],
}


@pytest.fixture(scope="module")
def books() -> Books:
    return Books()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, books: Books) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("hostile"), *SETTINGS, allow=ALLOWED) as running:
        yield running
        metrics = running.get("/metrics").body.decode()
        assert disagreements(metrics, books.acknowledged, books.unread) == []


@pytest.fixture(scope="module")
def alone(daemon: Daemon, books: Books) -> dict[str, object]:
    """What the well-behaved do when nobody else is there."""
    return steady(daemon, SECONDS, books)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_well_behaved_get_through(daemon: Daemon, books: Books, alone: dict[str, object], attack: str) -> None:
    found = measure(daemon, LIMIT, attack, ATTACKS[attack], SECONDS, books, alone=alone, goodput_min=FLOOR)
    assert found.problems == []


def test_an_idle_connection_costs_little(daemon: Daemon, books: Books) -> None:
    each, wrong = idle_bytes(daemon, 200, 200, books)
    assert wrong == "", each


def test_what_could_be_read_in_two_ways(daemon: Daemon, books: Books) -> None:
    assert http1.smuggled(daemon.http) == []
    books.acknowledged[TRACES] += len(http1.TAKEN)


def test_a_peak_above_the_limit_is_seen(daemon: Daemon, books: Books, alone: dict[str, object]) -> None:
    """The canary of `measure`."""
    found = measure(daemon, LIMIT // 100, "nothing", [], 0.3, books, alone={**alone, "goodput": 100.0})
    assert [one.split(" ")[0] for one in found.problems] == ["goodput", str(found.peak)]


def test_a_server_that_takes_everything_is_seen() -> None:
    """The canary of `smuggled`."""

    class Naive(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.connection.recv(1 << 20):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                break

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Naive) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        findings = http1.smuggled(f"127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert len(findings) == len(http1.REFUSED) + len(http1.TAKEN) + len(http1.LARGE)


def test_one_connection_too_many_is_told_so(tmp_path: Path) -> None:
    protocols = "receivers.otlp.protocols"
    limits = [f"{protocols}.http.max_connections=1", f"{protocols}.grpc.max_connections=1"]
    with Daemon(tmp_path, *limits) as daemon:
        host, _, port = daemon.http.partition(":")
        with socket.create_connection((host, int(port))) as first:
            first.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert first.recv(4096).startswith(b"HTTP/1.1 200")
            refused = daemon.export(TRACES.http_path, otlp.traces(1))
            assert (refused.code, refused.headers["retry-after"]) == (503, "1")
        with grpc.insecure_channel(daemon.grpc, [("grpc.use_local_subchannel_pool", 1)]) as first_channel:
            path = f"/{TRACES.service}/Export"
            assert first_channel.unary_unary(path)(otlp.traces(1), timeout=20) == b""
            with grpc.insecure_channel(daemon.grpc, [("grpc.use_local_subchannel_pool", 1)]) as second:
                with pytest.raises(grpc.RpcError) as error:
                    second.unary_unary(path)(otlp.traces(1), timeout=20)
                assert error.value.code() is grpc.StatusCode.UNAVAILABLE
                assert "max_connections" in error.value.details()
        assert daemon.stats()["traces"]["records"] == 1


def test_nothing_is_lost_to_exporters_that_retry(tmp_path: Path) -> None:
    found = deliver(tmp_path, 2.0, first_backoff_s=0.5, connections=200, sizes=5)
    assert [one for one in found.problems if "gave up" not in one] == []
    assert len(found.exporters) >= 4
