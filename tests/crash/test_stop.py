"""SIGTERM and Ctrl-C: no new requests, those in flight are finished, exit code 0. A second signal ends it at once."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from collector.otlp.signals import SIGNALS, TRACES
from tests.crash.journal import Journal, Request
from tests.crash.reading import ask, read_log, verify_log
from tests.crash.writers import Fleet, payload
from tests.daemon import Daemon
from tests.effort import Effort

ROUNDS_PER_DIRECTORY = 25
LIFE_S = (0.1, 0.5)
PATIENCE_S = 30.0


class HalfSent:
    """An export request whose head has been accepted, and of whose body one half has been sent."""

    def __init__(self, daemon: Daemon, request: Request) -> None:
        body = payload(request, padding=100_000)
        self._rest = body[len(body) // 2 :]
        self._socket = socket.create_connection(daemon.http.split(":"), PATIENCE_S)  # type: ignore[arg-type]
        head = (
            f"POST {request.signal.http_path} HTTP/1.1\r\nHost: {daemon.http}\r\nExpect: 100-continue\r\n"
            f"Content-Type: application/x-protobuf\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode())
        # the answer to Expect is what tells that the request is in flight
        assert self._socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        self._socket.sendall(body[: len(body) // 2])

    def finish(self) -> int:
        """Send the rest, and return the code of the answer."""
        self._socket.sendall(self._rest)
        response = http.client.HTTPResponse(self._socket)
        response.begin()
        response.read()
        return response.status

    def close(self) -> None:
        self._socket.close()


@contextmanager
def draining(daemon: Daemon, request: Request) -> Iterator[HalfSent]:
    """A daemon that has got SIGTERM while a request is in flight."""
    half = HalfSent(daemon, request)
    try:
        daemon.terminate()
        daemon.wait_for("stopping")
        deadline = time.monotonic() + PATIENCE_S
        while daemon.get("/readyz").code != 503:
            assert time.monotonic() < deadline
        yield half
    finally:
        half.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_stops_at_once_whoever_is_connected(tmp_path: Path, number: signal.Signals) -> None:
    with Daemon(tmp_path) as daemon:
        idle = [socket.create_connection(("127.0.0.1", int(one.split(":")[1]))) for one in (daemon.http, daemon.api)]
        kept = http.client.HTTPConnection(daemon.api)
        kept.request("GET", "/healthz")
        assert kept.getresponse().read()
        channel = grpc.insecure_channel(daemon.grpc)
        grpc.channel_ready_future(channel).result(PATIENCE_S)
        # stop() sees a connection that had to be cut, or waited for too long, as a warning in the log
        daemon.stop(number)
        channel.close()
        kept.close()
        for one in idle:
            one.close()


def stopped_under_load(directory: Path, effort: Effort, first: int, rounds: int) -> int:
    """Stop a daemon so often under load; find all well, and return how many records were acknowledged."""
    chance = effort.chance(first)
    journal = Journal(directory / "journal")
    fleet = Fleet(journal, effort.seed + first)
    try:
        for _ in range(rounds):
            with Daemon(directory, "wal.retention.max_bytes=0") as daemon:
                fleet.write_to(daemon.grpc, daemon.http)
                time.sleep(chance.uniform(*LIFE_S))  # the fault's moment, not a wait for anything
                daemon.stop()
            fleet.rest()
            found = read_log(directory / "data")
            assert journal.judge(found) == []
            for one in SIGNALS:
                acknowledged = {record for request in journal.acknowledged(one) for record in request.ids}
                assert len(acknowledged) > 10
                assert set(found[one]) == acknowledged
    finally:
        fleet.end()
        journal.close()
    verify_log(directory / "data")
    return sum(request.count for one in SIGNALS for request in journal.acknowledged(one))


def test_under_load_what_is_stored_is_what_was_acknowledged(tmp_path: Path, effort: Effort) -> None:
    """Nothing acknowledged is lost; and nothing is stored whose client was cut off, and will send it again."""
    rounds, records = effort.times(4, 500), 0
    for first in range(0, rounds, ROUNDS_PER_DIRECTORY):
        inside = tmp_path / str(first)
        inside.mkdir()
        records += stopped_under_load(inside, effort, first, min(ROUNDS_PER_DIRECTORY, rounds - first))
        shutil.rmtree(inside)
    effort.report("R16", stops=rounds, acknowledged_records=records)


def test_a_request_in_flight_is_finished(tmp_path: Path) -> None:
    request = Request(TRACES, 1, 10)
    with Daemon(tmp_path) as daemon:
        with draining(daemon, request) as half:
            assert half.finish() == 200
        daemon.stopped()
    with Daemon(tmp_path) as daemon:
        assert ask(daemon, request) == list(request.ids)


def test_a_draining_daemon_refuses_what_is_new_and_answers_queries(tmp_path: Path) -> None:
    before, during, refused = (Request(TRACES, number, 3) for number in (1, 2, 3))
    with Daemon(tmp_path) as daemon:
        assert daemon.export(TRACES.http_path, payload(before)).code == 200
        with draining(daemon, during) as half:
            answer = daemon.export(TRACES.http_path, payload(refused))
            assert answer.code == 503
            assert int(answer.headers["retry-after"]) >= 1
            with grpc.insecure_channel(daemon.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/{TRACES.service}/Export")(payload(refused), timeout=PATIENCE_S)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert b"shutting down" in daemon.get("/readyz").body
            assert daemon.get("/healthz").code == 200
            assert ask(daemon, before) == list(before.ids)
            assert half.finish() == 200
        daemon.stopped()
    with Daemon(tmp_path) as daemon:
        assert [ask(daemon, one) for one in (before, during, refused)] == [list(before.ids), list(during.ids), []]


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    before, during = Request(TRACES, 1, 3), Request(TRACES, 2, 3)
    with Daemon(tmp_path) as daemon:
        assert daemon.export(TRACES.http_path, payload(before)).code == 200
        with draining(daemon, during):
            daemon.terminate()
            # an orderly end would wait for the request, and then be 0
            assert daemon.wait() == 128 + signal.SIGTERM
    with Daemon(tmp_path, allow={"torn tail cut"}) as daemon:
        assert ask(daemon, before) == list(before.ids)
        assert ask(daemon, during) == []


def test_a_signal_during_the_start_ends_it_in_order(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, wait=False)
    daemon.wait_for("log opened")
    daemon.stop()
    with Daemon(tmp_path):
        pass
