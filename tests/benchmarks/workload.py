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
RECORDS = 512
"""Records of a usual request: what a batch processor sends."""
CONNECTIONS = 8
MANY_CONNECTIONS = 64
STEADY_RATE = 20.0
"""Requests a second of a service that is used, and not a load test."""
SERVICES = ("checkout", "cart", "catalogue", "payment", "shipping", "search", "accounts", "frontend")


_PEERS = {("traces", "http"): "rotel limit", ("logs", "grpc"): "rotel unindexed", ("logs", "http"): "rotel unindexed"}


@dataclass(frozen=True, slots=True)
class Workload:
    """One way of sending; equal workloads send the same bytes."""

    signal: str
    """`traces`, `logs` or `metrics`."""
    transport: str
    """`grpc`, `http` for OTLP/HTTP with protobuf, or `json` for the same with JSON."""
    records: int
    """Records in each request."""
    connections: int
    """Connections, each with one request under way at a time."""
    payloads: int
    """Distinct requests, sent in turn."""
    rate: float = 0.0
    """Requests a second; 0: as many as the server takes."""
    share: float = 1.0
    """Requests of a sample, as a share of what the extent says."""
    peers: str = "rotel"
    """Names of the servers that it is measured on beside Ringtail, with blanks between."""
    fresh: bool = False
    """Whether no trace id is sent twice, and times go on; see fresh.py. Costs the driver 0.1 ms a request."""

    @property
    def name(self) -> str:
        """Signal, transport and what is not usual in a word, as `--only` takes it."""
        size = "" if self.records == RECORDS else f"/{self.records}x{self.connections}"
        return f"{self.signal}/{self.transport}{size}{f'/{self.rate:g}ps' if self.rate else ''}"

    @property
    def otlp(self) -> Signal:
        """The signal's names and message types."""
        return BY_NAME[self.signal]

    def requests(self, usual: int) -> int:
        """Return the requests of a sample."""
        return max(2, int(usual * self.share))

    def as_json(self) -> dict[str, Any]:
        """Return what `Workload(**…)` takes."""
        return asdict(self)


def workloads(payloads: int) -> list[Workload]:
    """Return what is measured: batches of every signal over every transport, then what else people send."""
    batches = [
        Workload(
            signal.name,
            transport,
            RECORDS,
            CONNECTIONS,
            payloads,
            peers=_PEERS.get((signal.name, transport), "rotel"),
        )
        for signal in SIGNALS
        for transport in TRANSPORTS
    ]
    singles = [
        Workload("traces", transport, 1, MANY_CONNECTIONS, 16 * payloads, share=10.0) for transport in TRANSPORTS
    ]
    steady = [
        Workload(
            "traces",
            transport,
            RECORDS,
            CONNECTIONS,
            payloads,
            rate=STEADY_RATE,
            share=0.1,
            peers="rotel limit" if transport == "http" else "rotel",
        )
        for transport in TRANSPORTS
    ]
    return [
        *batches,
        Workload("traces", "json", RECORDS, CONNECTIONS, payloads, share=0.5, peers=""),
        *singles,
        *steady,
    ]


def build_payloads(signal: Signal, records: int, payloads: int) -> list[bytes]:
    """Return distinct requests of a signal, one second apart, the services in turn."""
    return [
        BUILDERS[signal](records, seed=i, service=SERVICES[i % len(SERVICES)], time_ns=TIME_NS + i * 1_000_000_000)
        for i in range(payloads)
    ]
