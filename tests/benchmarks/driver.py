"""The load driver: a process of its own, so that its CPU time is not the server's, nor the measurement's.

`python -m tests.benchmarks.driver` takes orders on standard input, one JSON object a line, and answers each with
a line of JSON: how many requests were answered, what went wrong, how long it took. An order names a workload, an
address and a number of requests. Payloads are built at a workload's first order, which should be a warm-up;
connections are opened at the first order for their address, and stay open, so that a round finds them as the round
before left them.

One thread for each connection: both transports block outside the interpreter's lock.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from google.protobuf.message import DecodeError

from collector.otlp.signals import Signal
from tests.benchmarks.connection import CONNECTIONS, Connection, Failed
from tests.benchmarks.fresh import Request, Source
from tests.benchmarks.workload import Workload, build_payloads


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order."""

    requests: int
    """Requests answered as complete successes."""
    failures: int
    failure: str
    """The first failure in words; empty if there was none."""
    payload_bytes: int
    """Bytes of the payloads sent."""
    seconds: float
    latency_p50_ms: float
    latency_p99_ms: float
    driver_cpu_s: float


class Driver:
    """Payloads and connections, kept from order to order."""

    def __init__(self) -> None:
        self._prepared: dict[Workload, Callable[[int], bytes]] = {}
        self._sizes: dict[Workload, list[int]] = {}
        self._connections: dict[tuple[str, Workload], list[Connection]] = {}

    def run(self, workload: Workload, address: str, requests: int) -> Outcome:
        """Send so many requests, over all connections as each gets free, and wait for every answer."""
        request = self._requests(workload)
        connections = self._connected(workload, address)
        turn = itertools.count()
        latencies: list[int] = []
        answers: list[bytes] = []
        failures: list[str] = []

        started = time.perf_counter()

        def work(connection: Connection) -> None:
            while (number := next(turn)) < requests and not failures:
                if workload.rate:
                    time.sleep(max(0.0, started + number / workload.rate - time.perf_counter()))
                wanted = request(number)
                begin = time.perf_counter_ns()
                try:
                    answers.append(connection.export(wanted))
                except Failed as error:
                    failures.append(str(error))
                latencies.append(time.perf_counter_ns() - begin)

        threads = [threading.Thread(target=work, args=(connection,)) for connection in connections]
        cpu, begin = time.process_time(), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        failures += _imperfect(workload.otlp, answers)
        sizes = self._sizes[workload]
        latencies.sort()
        return Outcome(
            len(answers),
            len(failures),
            failures[0] if failures else "",
            sum(sizes[i % len(sizes)] for i in range(len(answers))),
            seconds,
            _quantile_ms(latencies, 0.5),
            _quantile_ms(latencies, 0.99),
            cpu,
        )

    def close(self) -> None:
        """Close all connections."""
        for connections in self._connections.values():
            for connection in connections:
                connection.close()
        self._connections.clear()

    def _requests(self, workload: Workload) -> Callable[[int], bytes]:
        """Return what gives the request of a number, ready to be sent."""
        if workload not in self._prepared:
            prepare = CONNECTIONS[workload.transport].prepare
            if workload.fresh:
                source = Source(workload.otlp, workload.records, templates=workload.payloads)
                self._sizes[workload] = source.sizes
                self._prepared[workload] = _each_other(source, lambda one: prepare(workload.otlp, one.payload))
            else:
                payloads = build_payloads(workload.otlp, workload.records, workload.payloads)
                prepared = [prepare(workload.otlp, payload) for payload in payloads]
                self._sizes[workload] = [len(payload) for payload in payloads]
                self._prepared[workload] = lambda number: prepared[number % len(prepared)]
        return self._prepared[workload]

    def _connected(self, workload: Workload, address: str) -> list[Connection]:
        key = (address, workload)
        connect = CONNECTIONS[workload.transport]
        if key not in self._connections:
            self._connections[key] = [connect(address, workload.otlp) for _ in range(workload.connections)]
        connections = self._connections[key]
        for number, one in enumerate(connections):
            if one.ended:
                one.close()
                connections[number] = connect(address, workload.otlp)
        return connections


def _each_other(source: Source, prepare: Callable[[Request], bytes]) -> Callable[[int], bytes]:
    """Return what gives another request each time, whatever the number, to any thread."""
    requests = source.requests()
    lock = threading.Lock()

    def request(number: int) -> bytes:
        with lock:
            return prepare(next(requests))

    return request


def _imperfect(signal: Signal, answers: list[bytes]) -> list[str]:
    """Return what is wrong with responses: they must be of the signal's type and reject nothing."""
    wrong = []
    for answer in set(answers):
        try:
            partial = signal.response_type.FromString(answer).partial_success
        except DecodeError as error:
            wrong.append(f"the response is no {signal.response_type.DESCRIPTOR.name}: {error}")
            continue
        if getattr(partial, signal.rejected_field):
            wrong.append(f"rejected: {partial.error_message}")
    return wrong


def _quantile_ms(latencies: list[int], share: float) -> float:
    return latencies[min(len(latencies) - 1, int(len(latencies) * share))] / 1e6


class DriverProcess:
    """The driver as the measurement sees it: orders in, outcomes out."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, workload: Workload, address: str, requests: int) -> Outcome:
        """Have an order carried out; see `Driver.run`. RuntimeError when the driver is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"workload": workload.as_json(), "address": address, "requests": requests}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the load driver has ended")
        return Outcome(**json.loads(answer))

    def close(self) -> None:
        """End the driver and wait for it."""
        self._process.communicate(timeout=60)


def main() -> None:
    """Carry out orders until standard input ends."""
    driver = Driver()
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        outcome = driver.run(Workload(**order["workload"]), order["address"], order["requests"])
        print(json.dumps(asdict(outcome)), flush=True)
    driver.close()


if __name__ == "__main__":
    main()
