"""One export request, whatever brought it: all of OTLP's meaning, and no transport.

A transport hands over protobuf bytes and gets the store's future; what comes of it is counted here, once, also
when the client has gone before the answer. Responses are bytes: nearly all of them are made once.

Metrics count records where the number is known. Of a request that is refused whole it is not: it was not read
to the end. Those are counted as requests.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from prometheus_client import Counter

from collector.otlp.signals import SIGNALS, Signal
from collector.otlp.status import OUTCOMES, Answer, answer, shortened

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from collector.otlp.validate import Accepted

TRANSPORTS: Final = ("grpc", "http")


class Appender(Protocol):
    """What a receiver needs of a store."""

    def append(self, payload: bytes | bytearray) -> asyncio.Future[Accepted]:
        """Take a request, which nobody changes any more; the future tells what was accepted, once it is durable.

        The future may be done already. Raises, or fails with, Malformed, Overloaded or Unavailable.
        """
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
            f"Number of export requests, by outcome: {', '.join(OUTCOMES)}.",
            ("signal", "transport", "outcome"),
        )
        self.requests: dict[tuple[str, str, str], Counter] = {
            (signal.name, transport, outcome): requests.labels(signal.name, transport, outcome)
            for signal in SIGNALS
            for transport in TRANSPORTS
            for outcome in OUTCOMES
        }


class Receiver:
    """The export endpoint of one signal on one transport."""

    def __init__(self, signal: Signal, transport: str, store: Appender, metrics: ReceiverMetrics) -> None:
        """Take the store that requests go to, and the metrics of the whole daemon."""
        self.signal = signal
        self._store = store
        self._accepted = metrics.accepted[signal.name, transport]
        self._refused = metrics.refused[signal.name, transport]
        self._outcomes = {outcome: metrics.requests[signal.name, transport, outcome] for outcome in OUTCOMES}
        field = signal.response_type.DESCRIPTOR.fields_by_name["partial_success"].message_type.fields_by_name
        self._rejected_key = field[signal.rejected_field].json_name

    def export(self, payload: bytes | bytearray) -> asyncio.Future[Accepted]:
        """Give a request to the store, and count what comes of the future.

        Raises what `Appender.append` raises; `refused` counts that. Do not cancel the future: the store holds the
        payload until it is done, whether or not the client still waits.
        """
        future = self._store.append(payload)
        if future.done():
            self._count(future)
        else:
            future.add_done_callback(self._count)
        return future

    def refused(self, error: BaseException) -> Answer:
        """Count a request that the store has not taken, and return how it is answered."""
        found = answer(error)
        self._outcomes[found.outcome].inc()
        return found

    def _count(self, future: asyncio.Future[Accepted]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is not None:
            self.refused(error)
            return
        records, rejected, _ = future.result()
        if records:
            self._accepted.inc(records)
        if rejected:
            self._refused.inc(rejected)
        self._outcomes["partial" if rejected else "success"].inc()

    def response(self, accepted: Accepted) -> bytes:
        """Return the protobuf response. `partial_success` stays unset unless there is something to say."""
        if not accepted.rejected and not accepted.message:
            return b""
        response: Any = self.signal.response_type()
        setattr(response.partial_success, self.signal.rejected_field, accepted.rejected)
        response.partial_success.error_message = shortened(accepted.message)
        return bytes(response.SerializeToString())

    def response_json(self, accepted: Accepted) -> bytes:
        """Return the same response in OTLP's JSON form."""
        if not accepted.rejected and not accepted.message:
            return b"{}"
        partial: dict[str, str] = {}
        if accepted.rejected:
            partial[self._rejected_key] = str(accepted.rejected)
        if accepted.message:
            partial["errorMessage"] = shortened(accepted.message)
        return msgspec.json.encode({"partialSuccess": partial})
