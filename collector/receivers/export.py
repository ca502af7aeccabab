"""One export request, whatever brought it: all of OTLP's meaning, and no transport.

A transport hands over protobuf bytes and gets a future of the response's message. The common answers are bytes
made once: success is an empty message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import Counter

from collector.otlp.signals import SIGNALS, Signal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from collector.otlp.validate import Accepted

TRANSPORTS = ("grpc", "http")


class Appender(Protocol):
    """What a receiver needs of a store."""

    def append(self, payload: bytes | bytearray) -> asyncio.Future[Accepted]:
        """Take a request; see `collector.store.Store.append`."""
        ...


class ReceiverMetrics:
    """The Collector's receiver metrics, and ours for whole requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, text, labels, registry=registry)

        labels = ("receiver", "transport")
        self.accepted: dict[tuple[str, str], Counter] = {}
        self.refused: dict[tuple[str, str], Counter] = {}
        for signal in SIGNALS:
            noun = signal.records
            accepted = counter(f"otelcol_receiver_accepted_{noun}", f"Number of {signal.noun} acknowledged.", labels)
            refused = counter(
                f"otelcol_receiver_refused_{noun}", f"Number of {signal.noun} rejected by partial success.", labels
            )
            for transport in TRANSPORTS:
                self.accepted[signal.name, transport] = accepted.labels("otlp", transport)
                self.refused[signal.name, transport] = refused.labels("otlp", transport)
        requests = counter(
            "ringtail_receiver_requests",
            "Number of export requests answered, by outcome: success, partial, invalid, refused or failed.",
            ("signal", "transport", "outcome"),
        )
        self.requests: dict[tuple[str, str, str], Counter] = {
            (signal.name, transport, outcome): requests.labels(signal.name, transport, outcome)
            for signal in SIGNALS
            for transport in TRANSPORTS
            for outcome in ("success", "partial", "invalid", "refused", "failed")
        }


class Receiver:
    """The export endpoint of one signal on one transport."""

    def __init__(self, signal: Signal, transport: str, store: Appender, metrics: ReceiverMetrics) -> None:
        self.signal = signal
        self._store = store
        self._accepted = metrics.accepted[signal.name, transport]
        self._refused = metrics.refused[signal.name, transport]
        self._outcomes: Mapping[str, Counter] = {
            outcome: counter
            for (name, where, outcome), counter in metrics.requests.items()
            if name == signal.name and where == transport
        }

    def export(self, payload: bytes | bytearray) -> asyncio.Future[Accepted]:
        """Give a request to the store; raises what `Store.append` raises. Follow with `respond` or `failed`."""
        return self._store.append(payload)

    def respond(self, accepted: Accepted) -> Any:
        """Count an answered request, and return its response message; None for full success.

        `partial_success` stays unset when nothing was rejected, as OTLP demands.
        """
        if accepted.records:
            self._accepted.inc(accepted.records)
        if not accepted.rejected:
            self._outcomes["success"].inc()
            return None
        self._refused.inc(accepted.rejected)
        self._outcomes["partial"].inc()
        response = self.signal.response_type()
        setattr(response.partial_success, self.signal.rejected_field, accepted.rejected)
        response.partial_success.error_message = accepted.message
        return response

    def failed(self, http_code: int) -> None:
        """Count a request that was answered with an error."""
        outcome = "refused" if http_code in (413, 503) else "failed" if http_code >= 500 else "invalid"
        self._outcomes[outcome].inc()
