"""OTLP/gRPC over a real channel."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from collector.errors import Malformed, Overloaded, Unavailable
from collector.otlp.signals import LOGS, SIGNALS, TRACES, Signal
from collector.testing import otlp
from tests.receivers.serving import MESSAGE_BYTES_MAX, Serving

SPANS = otlp.traces(3)


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    made = Serving()
    made.serve_grpc()
    yield made
    made.close()


@pytest.fixture(scope="module")
def channel(serving: Serving) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{serving.grpc_port}") as made:
        yield made


def export(channel: grpc.Channel, payload: bytes, signal: Signal = TRACES, **options: Any) -> Any:
    call = channel.unary_unary(f"/{signal.service}/Export", None, signal.response_type.FromString)
    return call(payload, timeout=30, **options)


def begun(channel: grpc.Channel) -> Any:
    """Begin an export without waiting for its end."""
    return channel.unary_unary(f"/{TRACES.service}/Export").future(SPANS, timeout=30)


def refused(channel: grpc.Channel, payload: bytes = SPANS, **options: Any) -> tuple[Any, dict[str, bytes]]:
    with pytest.raises(grpc.RpcError) as caught:
        export(channel, payload, **options)
    error: Any = caught.value
    return error, dict(error.trailing_metadata())


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_success_has_no_partial_success(serving: Serving, channel: grpc.Channel, signal: Signal) -> None:
    store = serving.store(signal.name)
    payloads = [otlp.BUILDERS[signal](count) for count in (0, 1, 500)]
    for payload in payloads:
        response = export(channel, payload, signal)
        assert not response.HasField("partial_success")
    assert [bytes(one) for one in store.payloads] == payloads


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compression(serving: Serving, channel: grpc.Channel, compression: grpc.Compression) -> None:
    store = serving.store()
    payload = otlp.traces(500)
    export(channel, payload, compression=compression)
    assert [bytes(one) for one in store.payloads] == [payload]


def test_partial_success(serving: Serving, channel: grpc.Channel) -> None:
    store = serving.store("logs")
    serving.call(lambda: (setattr(store, "rejected", 2), setattr(store, "message", "two are too old")))
    response = export(channel, otlp.logs(5), LOGS)
    assert response.partial_success.rejected_log_records == 2
    assert response.partial_success.error_message == "two are too old"


def test_malformed_is_invalid_argument(serving: Serving, channel: grpc.Channel) -> None:
    serving.store()
    error, trailers = refused(channel, b"\x0a\xff")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (3, error.details())
    assert status.details[0].Is(error_details_pb2.BadRequest.DESCRIPTOR)
    assert "google.rpc.retryinfo-bin" not in trailers


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("cause", [Overloaded("full", 1.5), Unavailable("the log has failed", 1.5)])
def test_retryable_causes_are_unavailable_with_retry_info(
    serving: Serving, channel: grpc.Channel, cause: Exception, late: bool
) -> None:
    store = serving.store()
    serving.call(lambda: setattr(store, *(("holds", True) if late else ("error", cause))))
    call = begun(channel)
    if late:
        serving.until(lambda: store.waiting)
        serving.call(lambda: store.settle(cause))
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert call.details() == str(cause)
    trailers = dict(call.trailing_metadata())
    retry = error_details_pb2.RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"])
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 500_000_000)
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    unpacked = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(unpacked)
    assert unpacked == retry
    assert serving.receiving.admission.in_flight_bytes == 0


@pytest.mark.parametrize("message", ["é∑" * 3000, "x" * 100_000, 'line\nbreak "quoted" %41'])
def test_any_message_travels(serving: Serving, channel: grpc.Channel, message: str) -> None:
    store = serving.store()
    serving.call(lambda: setattr(store, "error", Malformed(message)))
    error, _ = refused(channel)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details()[:20] == message[:20]


def test_a_defect_is_unavailable_logged_and_not_explained(serving: Serving, channel: grpc.Channel) -> None:
    store = serving.store()
    serving.call(lambda: setattr(store, "error", KeyError("secret")))
    error, _ = refused(channel)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "secret" not in error.details()
    assert "request failed" in [event for event, _ in serving.receiving.logger.events]


def test_over_the_budget(serving: Serving, channel: grpc.Channel) -> None:
    store, admission = serving.store(), serving.receiving.admission
    limit = admission.bytes_max
    serving.call(lambda: (setattr(store, "holds", True), setattr(admission, "bytes_max", len(SPANS) + 1)))
    first = begun(channel)
    serving.until(lambda: store.waiting)
    error, _ = refused(channel)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "max_in_flight_bytes" in error.details()
    serving.call(store.settle)
    assert first.result() == b""
    serving.call(lambda: setattr(admission, "bytes_max", limit))
    assert admission.in_flight_bytes == 0


def test_a_cancelled_call_is_still_counted_when_it_is_stored(serving: Serving, channel: grpc.Channel) -> None:
    store, receiving = serving.store(), serving.receiving
    labels = {"receiver": "otlp", "transport": "grpc"}
    before = receiving.sample("otelcol_receiver_accepted_spans_total", **labels)
    serving.call(lambda: setattr(store, "holds", True))
    call = begun(channel)
    serving.until(lambda: store.waiting)
    call.cancel()
    serving.store("logs")
    export(channel, otlp.logs(1), LOGS)  # when this is answered, the server has seen the cancellation
    assert receiving.admission.in_flight_bytes == len(SPANS), "the store still holds the payload"
    serving.call(store.settle)
    serving.until(lambda: not receiving.admission.in_flight_bytes)
    assert receiving.sample("otelcol_receiver_accepted_spans_total", **labels) == before + 3


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_a_message_over_the_limit(
    serving: Serving, channel: grpc.Channel, compression: grpc.Compression | None
) -> None:
    serving.store()
    payload = bytes(MESSAGE_BYTES_MAX + 1)
    assert len(gzip.compress(payload)) < MESSAGE_BYTES_MAX
    error, trailers = refused(channel, payload, compression=compression)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "google.rpc.retryinfo-bin" not in trailers


@pytest.mark.parametrize(
    "method",
    [
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        f"/{TRACES.service}/Other",
        "/nothing",
    ],
)
def test_other_methods_are_unimplemented(channel: grpc.Channel, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(b"", timeout=30)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", *(signal.service for signal in SIGNALS)):
        response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_an_address_in_use_is_named(serving: Serving) -> None:
    other = Serving()
    try:
        with pytest.raises(Unavailable, match=f"{serving.grpc_port}.*in use"):
            other.serve_grpc(serving.grpc_port)
    finally:
        other.close()


def test_stopping_answers_what_is_in_flight(serving: Serving, channel: grpc.Channel) -> None:
    """The last test of this module: the server is stopped by it."""
    store, receiver = serving.store(), serving.grpc
    assert receiver is not None
    serving.call(lambda: setattr(store, "holds", True))
    call = begun(channel)
    serving.until(lambda: store.waiting)

    async def stop() -> None:
        stopped = asyncio.ensure_future(receiver.stop(30))
        await asyncio.sleep(0)
        assert not stopped.done()
        store.settle()
        await stopped

    serving.wait(stop)
    assert call.result() == b""
    error, _ = refused(channel)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
