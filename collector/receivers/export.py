"""One export request, whatever brought it: all of OTLP's meaning, and no transport.

A transport gives protobuf bytes to the store of the request's destination, which calls it back with what became of
them. It brings that here, once, also when the client has gone before the answer: here it is counted, and made the
response. Responses are bytes; nearly all of them are empty.

Metrics count records where the number is known. Of a request that is refused whole it is not: it was not read
to the end. Those are counted as requests. Counts are plain numbers of the event loop's thread, which the registry
asks for: a counter with a lock costs more than all else about a small request here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from prometheus_client.metrics_core import CounterMetricFamily, Metric

from collector.otlp.signals import LOGS, SIGNALS, Signal
from collector.otlp.status import OUTCOMES, Answer, answer, shortened
from collector.otlp.validate import Accepted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry

    from collector.receivers.admission import Share

SOURCES: Final = (
    *((signal, "otlp", transport) for signal in SIGNALS for transport in ("grpc", "http")),
    (LOGS, "loki", "http"),
)
"""What is counted apart: a signal that comes in one protocol over one transport."""

Outcome = Accepted | Exception
"""What became of a request that the store has taken."""


class Submitter(Protocol):
    """What a receiver needs of a store."""

    def submit(self, payload: bytes | bytearray, done: Callable[[Outcome], None]) -> None:
        """Take a request, which nobody changes any more; call `done` once what was accepted is durable, or why it is
        not: Overloaded or Unavailable. That may be before this returns.

        Raises Malformed, Overloaded or Unavailable, and then `done` is not called.
        """
        ...


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a tenant's requests go."""

    store: Submitter
    share: Share | None = None
    """What the tenant holds of the in-flight budget, where tenants are kept apart."""


class Counts:
    """What one receiver has counted."""

    __slots__ = ("accepted", "outcomes", "refused")

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.outcomes = dict.fromkeys(OUTCOMES, 0)


class ReceiverMetrics:
    """The Collector's receiver metrics, and ours for whole requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counts = {source: Counts() for source in SOURCES}
        registry.register(self)

    def of(self, signal: Signal, transport: str, protocol: str = "otlp") -> Counts:
        """Return the counts of a receiver."""
        return self._counts[signal, protocol, transport]

    def collect(self) -> Iterable[Metric]:
        """Return everything, as a scrape asks for it."""
        labels = ("receiver", "transport")
        for signal in SIGNALS:
            noun = signal.records
            accepted = CounterMetricFamily(
                f"otelcol_receiver_accepted_{noun}", f"Number of {signal.noun} acknowledged.", labels=labels
            )
            refused = CounterMetricFamily(
                f"otelcol_receiver_refused_{noun}",
                f"Number of {signal.noun} rejected by partial success.",
                labels=labels,
            )
            for (of, protocol, transport), counts in self._counts.items():
                if of is signal:
                    accepted.add_metric((protocol, transport), counts.accepted)
                    refused.add_metric((protocol, transport), counts.refused)
            yield accepted
            yield refused
        requests = CounterMetricFamily(
            "ringtail_receiver_requests",
            f"Number of export requests, by outcome: {', '.join(OUTCOMES)}.",
            labels=("signal", "transport", "outcome"),
        )
        for (signal, protocol, transport), counts in self._counts.items():
            for outcome, count in counts.outcomes.items():
                source = transport if protocol == "otlp" else protocol
                requests.add_metric((signal.name, source, outcome), count)
        yield requests


class Receiver:
    """The export endpoint of one signal on one transport."""

    def __init__(
        self,
        signal: Signal,
        transport: str,
        find: Callable[[str], Destination],
        metrics: ReceiverMetrics,
        protocol: str = "otlp",
    ) -> None:
        """Take what finds a tenant's destination, and the metrics of the whole daemon.

        `find` gets what the request's X-Scope-OrgID says, empty if it has none, and raises a cause when that leads
        nowhere; a daemon without tenants has one destination for all.
        """
        self.signal = signal
        self.find: Final = find
        self._counts = metrics.of(signal, transport, protocol)
        field = signal.response_type.DESCRIPTOR.fields_by_name["partial_success"].message_type.fields_by_name
        self._rejected_key = field[signal.rejected_field].json_name

    def refused(self, error: BaseException) -> Answer:
        """Count a request that is not stored, and return how it is answered."""
        found = answer(error)
        self._counts.outcomes[found.outcome] += 1
        return found

    def stored(self, accepted: Accepted, *, is_json: bool = False) -> bytes | None:
        """Count a request that is stored, and return its response in protobuf or JSON; None for an empty one, which
        has no `partial_success` because there is nothing to say."""
        counts = self._counts
        counts.accepted += accepted.records
        if not accepted.rejected and not accepted.message:
            counts.outcomes["success"] += 1
            return None
        counts.refused += accepted.rejected
        counts.outcomes["partial" if accepted.rejected else "success"] += 1
        return self._partial_json(accepted) if is_json else self._partial(accepted)

    def _partial(self, accepted: Accepted) -> bytes:
        response: Any = self.signal.response_type()
        setattr(response.partial_success, self.signal.rejected_field, accepted.rejected)
        response.partial_success.error_message = shortened(accepted.message)
        return bytes(response.SerializeToString())

    def _partial_json(self, accepted: Accepted) -> bytes:
        partial: dict[str, str] = {}
        if accepted.rejected:
            partial[self._rejected_key] = str(accepted.rejected)
        if accepted.message:
            partial["errorMessage"] = shortened(accepted.message)
        return msgspec.json.encode({"partialSuccess": partial})
