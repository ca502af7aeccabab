"""What is sent: a signal, over a transport, in requests of so many records, by so many connections.

Payloads are those of `collector.testing.otlp`, what an SDK's batch processor sends. A workload has many distinct
ones, sent in turn, so that a ring of spans is full of distinct trace ids, and eight services.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from collector.otlp.signals import BY_NAME, SIGNALS, Signal
from collector.testing.otlp import BUILDERS, TIME_NS

TRANSPORTS = ("grpc", "http")
SERVICES = ("checkout", "cart", "catalogue", "payment", "shipping", "search", "accounts", "frontend")


@dataclass(frozen=True, slots=True)
class Workload:
    """One way of sending; equal workloads send the same bytes."""

    signal: str
    """`traces`, `logs` or `metrics`."""
    transport: str
    """`grpc`, or `http` for OTLP/HTTP with protobuf."""
    records: int
    """Records in each request."""
    connections: int
    """Connections, each with one request under way at a time."""
    payloads: int
    """Distinct requests, sent in turn."""

    @property
    def name(self) -> str:
        """Signal and transport in a word, as `--only` takes it."""
        return f"{self.signal}/{self.transport}"

    @property
    def otlp(self) -> Signal:
        """The signal's names and message types."""
        return BY_NAME[self.signal]

    def as_json(self) -> dict[str, Any]:
        """Return what `Workload(**…)` takes."""
        return asdict(self)


def workloads(records: int, connections: int, payloads: int) -> list[Workload]:
    """Return every signal over every transport."""
    return [
        Workload(signal.name, transport, records, connections, payloads)
        for signal in SIGNALS
        for transport in TRANSPORTS
    ]


def build_payloads(signal: Signal, records: int, payloads: int) -> list[bytes]:
    """Return distinct requests of a signal, one second apart, the services in turn."""
    return [
        BUILDERS[signal](records, seed=i, service=SERVICES[i % len(SERVICES)], time_ns=TIME_NS + i * 1_000_000_000)
        for i in range(payloads)
    ]
