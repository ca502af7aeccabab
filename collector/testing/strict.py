"""OTLP's receivers, listening to what goes wrong: every export that was not accepted whole is noted as a violation.

They are the daemon's own receivers and answer as they do; nothing is refused here that would not be refused there. What
a daemon counts and a client's SDK at most logs, a test is to fail for: a body that is no request, records that the data
model does not allow, a path or a method that does not exist, HTTP spoken to the gRPC port, a connection broken for an
error of HTTP/2. Health checks and the greeting are no violations.

Owner: the server's thread. `Violations` may be read from any.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from collector.otlp.validate import Accepted
from collector.receivers.export import Receiver
from collector.receivers.grpc import GrpcReceiver
from collector.receivers.http import HttpReceiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.otlp.signals import Signal
    from collector.otlp.status import Answer
    from collector.receivers.export import Destination, ReceiverMetrics

VIOLATIONS_MAX: Final = 1000
"""Violations that are kept; more are only counted."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that a client did wrong, or that went wrong here."""

    transport: str
    """`grpc`, `http` or `ringtail`."""
    signal: str
    """`traces`, `logs` or `metrics`; empty when it is not known."""
    outcome: str
    """What became of the request: `partial`, `malformed`, `unsupported` and so on, in the words of the metrics."""
    message: str
    """What the client was told."""

    def __str__(self) -> str:
        where = {"grpc": "OTLP/gRPC", "http": "OTLP/HTTP"}.get(self.transport, "Ringtail")
        return f"{where}{f', {self.signal}' if self.signal else ''}: {self.outcome}: {self.message}"


class Violations:
    """What has been noted, and what there was to note: any thread may ask, and wait for more to arrive."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        """Held while anything here changes, and told when a request has been answered."""
        self.requests: dict[str, int] = {}
        """Requests accepted, by signal."""
        self._found: list[Violation] = []
        self._left_out = 0

    def accepted(self, signal: Signal) -> None:
        """Count a request, and wake up who waits for one."""
        with self.changed:
            self.requests[signal.name] = self.requests.get(signal.name, 0) + 1
            self.changed.notify_all()

    def note(self, violation: Violation) -> None:
        """Keep a violation."""
        with self.changed:
            if len(self._found) < VIOLATIONS_MAX:
                self._found.append(violation)
            else:
                self._left_out += 1
            self.changed.notify_all()

    @property
    def found(self) -> tuple[Violation, ...]:
        """Return what has been noted."""
        with self.changed:
            return tuple(self._found)

    def take(self) -> tuple[Violation, ...]:
        """Return what has been noted, and begin anew."""
        with self.changed:
            found = tuple(self._found)
            if self._left_out:
                found += (Violation("ringtail", "", "more", f"{self._left_out} further violations were not kept"),)
            self._found, self._left_out, self.requests = [], 0, {}
        return found


class StrictReceiver(Receiver):
    """A signal's export endpoint."""

    def __init__(
        self,
        signal: Signal,
        transport: str,
        find: Callable[[str], Destination],
        metrics: ReceiverMetrics,
        violations: Violations,
    ) -> None:
        """As a receiver; `violations` are told."""
        super().__init__(signal, transport, find, metrics)
        self._transport = transport
        self._violations = violations

    def stored(self, accepted: Accepted, *, is_json: bool = False) -> bytes | None:
        """As a receiver."""
        if accepted.message:
            self._note("partial" if accepted.rejected else "warning", accepted.message)
        response = super().stored(accepted, is_json=is_json)
        self._violations.accepted(self.signal)
        return response

    def refused(self, error: BaseException) -> Answer:
        """As a receiver."""
        found = super().refused(error)
        self._note(found.outcome, found.message if found.outcome != "failed" else repr(error))
        return found

    def _note(self, outcome: str, message: str) -> None:
        self._violations.note(Violation(self._transport, self.signal.name, outcome, message))


class StrictHttpReceiver(HttpReceiver):
    """OTLP/HTTP's listener."""

    violations: Violations

    def refused(self, error: Exception) -> Answer:
        """Note what led to no receiver."""
        found = super().refused(error)
        self.violations.note(Violation("http", "", found.outcome, found.message))
        return found


class StrictGrpcReceiver(GrpcReceiver):
    """OTLP/gRPC's listener."""

    violations: Violations

    def refused(self, error: Exception) -> Answer:
        """Note what led to no receiver."""
        found = super().refused(error)
        self.violations.note(Violation("grpc", "", found.outcome, found.message))
        return found

    def greet(self, data: bytes) -> bytes:
        """Note that somebody speaks HTTP/1 here."""
        greeting = super().greet(data)
        if greeting:
            line = data.split(b"\r\n", 1)[0][:200].decode("latin-1")
            self.violations.note(Violation("grpc", "", "unsupported", f"OTLP/HTTP was sent to this port: {line}"))
        return greeting

    def tell(self, event: str, **fields: Any) -> None:
        """Note that a connection was broken for what a client did."""
        super().tell(event, **fields)
        words = ", ".join(f"{key} {value}" for key, value in fields.items())
        self.violations.note(Violation("grpc", "", "malformed", f"{event}: {words}"))


class Notes:
    """A logger for whom warnings and errors of the server are violations: a test's server has none."""

    def __init__(self, violations: Violations) -> None:
        self._violations = violations

    def info(self, event: str, **fields: Any) -> None:
        """Nothing: who listens hears it anyway."""

    debug = info

    def warning(self, event: str, **fields: Any) -> None:
        """Note it."""
        words = ", ".join(f"{key} {value}" for key, value in fields.items())
        self._violations.note(Violation("ringtail", "", "failed", f"{event}: {words}"))

    error = warning
