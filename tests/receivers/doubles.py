"""Stand-ins for what the receivers stand between: the store, the clock, the logger, the transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError
from prometheus_client import CollectorRegistry

from collector.errors import Malformed
from collector.otlp.signals import SIGNALS, Signal
from collector.otlp.validate import Accepted
from collector.receivers.admission import Admission
from collector.receivers.export import Destination, Outcome, Receiver, ReceiverMetrics
from collector.receivers.grpc import GrpcReceiver
from collector.receivers.http import HttpReceiver


class FakeStore:
    """A store of one signal that checks with the protobuf library and keeps what it accepts."""

    def __init__(self, signal: Signal, loop: asyncio.AbstractEventLoop) -> None:
        self.signal = signal
        self.payloads: list[bytes | bytearray] = []
        self.waiting: list[tuple[Callable[[Outcome], None], Accepted]] = []
        self.holds = False
        self.rejected = 0
        self.message = ""
        self.error: Exception | None = None
        self._loop = loop

    def submit(self, payload: bytes | bytearray, done: Callable[[Outcome], None]) -> None:
        if self.error is not None:
            raise self.error
        try:
            request = self.signal.request_type.FromString(bytes(payload))
        except DecodeError as error:
            raise Malformed(f"not a valid request: {error}") from error
        self.payloads.append(payload)
        accepted = Accepted(count(self.signal, request) - self.rejected, self.rejected, self.message)
        if self.holds:
            self.waiting.append((done, accepted))
        else:
            done(accepted)

    def settle(self, error: Exception | None = None) -> None:
        """Answer everything that is held."""
        waiting, self.waiting = self.waiting, []
        for done, accepted in waiting:
            done(error or accepted)


def count(signal: Signal, request: Any) -> int:
    """Count the records of a parsed request."""
    if signal.name == "traces":
        return sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
    if signal.name == "logs":
        return sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
    metrics = [m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics]
    return sum(len(getattr(m, m.WhichOneof("data")).data_points) for m in metrics if m.WhichOneof("data"))


class FakeClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now_ns(self) -> int:
        return 1_790_000_000_000_000_000 + int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds


class MemoryLogger:
    """A logger that keeps its events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    warning = error = info


class FakeTransport(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.paused = self.closed = self.aborted = self.ended = False

    def write(self, data: Any) -> None:
        assert not self.closed, "written after close"
        assert not self.ended, "written after the end of the stream"
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = self.aborted = True


class Receiving:
    """Stores, budget and metrics of one process, with listeners that need not listen."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, bytes_max: int = 1 << 30, gate: Any = None, **limits: Any
    ) -> None:
        self.loop = loop
        self.registry = CollectorRegistry()
        self.metrics = ReceiverMetrics(self.registry)
        self.admission = Admission(bytes_max, self.registry)
        self.stores = {signal.name: FakeStore(signal, loop) for signal in SIGNALS}
        self.clock = FakeClock()
        self.logger = MemoryLogger()
        settings = {"body_bytes_max": 1 << 20, "read_header_timeout_s": 10.0, "idle_timeout_s": 30.0}
        self.http = HttpReceiver(
            self.receivers("http"), self.admission, self.clock, self.logger, gate=gate, **{**settings, **limits}
        )

        self.grpc = GrpcReceiver(
            self.receivers("grpc"),
            self.admission,
            self.clock,
            self.logger,
            message_bytes_max=1 << 20,
            first_bytes_timeout_s=5.0,
            idle_timeout_s=10.0,
            gate=gate,
        )

    def receivers(self, transport: str) -> list[Receiver]:
        return [Receiver(signal, transport, partial(self.find, signal), self.metrics) for signal in SIGNALS]

    def find(self, signal: Signal, tenant: str) -> Destination:
        """What a daemon without tenants finds."""
        return Destination(self.stores[signal.name])

    def sample(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        value = self.registry.get_sample_value(name, labels)
        assert value is not None, f"no metric {name} {labels}"
        return value
