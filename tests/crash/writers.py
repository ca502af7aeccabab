"""Clients that send without pause, and journal what is acknowledged: one thread for each signal and transport.

When the daemon dies under it, a writer rests until there is a new one. `Fleet.rest` waits for that, so that nothing
is on its way while the journal is judged.

All records of request number N lie in second N after EPOCH, so that a query for that second finds exactly them.
"""

from __future__ import annotations

import http.client
import random
import threading
from typing import Any

import grpc

from collector.otlp.signals import LOGS, SIGNALS, TRACES, Signal
from tests.crash.journal import Journal, Request

EPOCH = 1_700_000_000
"""In Unix seconds; nothing depends on it but that it is in the past."""
SECOND = 10**9
SERVICE = "writer"

RECORDS_MAX = 20
PADDED = 0.03
"""The part of requests that are large, so that kills meet writes half-way."""
PADDING_BYTES_MAX = 512 * 1024
PATIENCE_S = 20.0


def trace_id(number: int) -> bytes:
    """Return the trace id of a request's spans and logs."""
    return number.to_bytes(16, "big")


def payload(request: Request, padding: int | str = 0) -> bytes:
    """Return a request's bytes; a text, or one of so many bytes that is easily compressed, is added to its first record."""
    message = request.signal.request_type()
    if request.signal is TRACES:
        outer = message.resource_spans.add()
        inner = outer.scope_spans.add().spans
    elif request.signal is LOGS:
        outer = message.resource_logs.add()
        inner = outer.scope_logs.add().log_records
    else:
        outer = message.resource_metrics.add()
        metric = outer.scope_metrics.add().metrics.add(name="writes")
        inner = metric.gauge.data_points
    service = outer.resource.attributes.add(key="service.name")
    service.value.string_value = SERVICE
    start = (EPOCH + request.number) * SECOND
    for place, one in enumerate(request.ids):
        record = inner.add()
        if request.signal is TRACES:
            record.name = "write"
            record.start_time_unix_nano = record.end_time_unix_nano = start + place
        else:
            record.time_unix_nano = start + place
        if request.signal in (TRACES, LOGS):
            record.trace_id = trace_id(request.number)
            record.span_id = one.to_bytes(8, "big")
        else:
            record.as_int = one
            record.attributes.add(key="place").value.string_value = str(place)
    if request.signal is LOGS:
        for record in inner:
            record.body.string_value = f"write {request.number}"
    if padding:
        inner[0].attributes.add(key="padding").value.string_value = (
            "x" * padding if isinstance(padding, int) else padding
        )
    return bytes(message.SerializeToString())


class _Grpc:
    """A connection by gRPC."""

    transport = "grpc"

    def __init__(self, address: str, signal: Signal) -> None:
        self._channel = grpc.insecure_channel(address, [("grpc.enable_retries", 0)])
        self._export = self._channel.unary_unary(f"/{signal.service}/Export")

    def export(self, body: bytes) -> bool:
        """Return whether the request was acknowledged in full."""
        try:
            return bool(self._export(body, timeout=PATIENCE_S) == b"")
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
            return False

    def close(self) -> None:
        self._channel.close()


class _Http:
    """A connection by HTTP."""

    transport = "http"

    def __init__(self, address: str, signal: Signal) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
        self._path = signal.http_path

    def export(self, body: bytes) -> bool:
        """Return whether the request was acknowledged in full."""
        try:
            self._connection.request("POST", self._path, body, {"Content-Type": "application/x-protobuf"})
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            return False
        if response.status == 503:
            return False
        assert response.status == 200, (response.status, answer)
        return answer == b""

    def close(self) -> None:
        self._connection.close()


class Fleet:
    """The writers, and the daemon that they write to."""

    def __init__(self, journal: Journal, seed: int) -> None:
        self.journal = journal
        self.unanswered: list[Request] = []
        """Requests that were sent and not acknowledged: refused, or cut off."""
        self._changed = threading.Condition()
        self._generation = 0
        self._addresses: dict[str, str] | None = None
        self._ended = False
        self._failure: BaseException | None = None
        self._resting = 0
        self._threads = [
            threading.Thread(target=self._write, args=(kind, signal, random.Random(f"{seed} {kind} {signal.name}")))
            for signal in SIGNALS
            for kind in (_Grpc, _Http)
        ]
        for thread in self._threads:
            thread.start()

    def write_to(self, grpc_address: str, http_address: str) -> None:
        """Send to this daemon from now on."""
        with self._changed:
            self._generation += 1
            self._addresses = {"grpc": grpc_address, "http": http_address}
            self._changed.notify_all()

    def rest(self) -> None:
        """Wait until every writer has noticed that the daemon is gone; raise what went wrong in one of them."""
        with self._changed:
            self._addresses = None
            done = self._changed.wait_for(
                lambda: self._failure is not None or self._resting == len(self._threads), 2 * PATIENCE_S
            )
            if self._failure is not None:
                raise self._failure
            assert done, "a writer has neither an answer nor an error"

    def end(self) -> None:
        """End the threads, which must rest or be about to."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive()

    def _write(self, kind: Any, signal: Signal, chance: random.Random) -> None:
        generation = 0
        try:
            while (found := self._next(generation, kind.transport)) is not None:
                generation, address = found
                connection = kind(address, signal)
                try:
                    while self._send_one(connection, signal, chance):
                        pass
                finally:
                    connection.close()
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _next(self, generation: int, transport: str) -> tuple[int, str] | None:
        """Rest until there is a daemon newer than `generation`; None when all is done."""
        with self._changed:
            self._resting += 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._ended or (self._addresses is not None and self._generation > generation)
            )
            self._resting -= 1
            if self._ended or self._addresses is None:
                return None
            return self._generation, self._addresses[transport]

    def _send_one(self, connection: Any, signal: Signal, chance: random.Random) -> bool:
        request = self.journal.send(signal, chance.randint(1, RECORDS_MAX))
        padding = chance.randint(1, PADDING_BYTES_MAX) if chance.random() < PADDED else 0
        if connection.export(payload(request, padding)):
            self.journal.acknowledge(request)
            return True
        with self._changed:
            self.unanswered.append(request)
        return False
