"""A gRPC call by hand: what real clients do not send, and what they must find in the answer."""

from __future__ import annotations

import asyncio
import gzip
from random import Random

import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import Overloaded
from collector.otlp.signals import LOGS
from collector.receivers.call import BODY_STEP_BYTES
from collector.receivers.http2 import frames
from collector.receivers.http2.frames import Code
from collector.testing import otlp
from tests.receivers.doubles import Receiving
from tests.receivers.http2.peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    frame,
    message,
    request_fields,
)

SPANS = otlp.traces(3)


@pytest.fixture
def peer(receiving: Receiving) -> Peer:
    return Peer(receiving)


def test_an_unknown_method(peer: Peer) -> None:
    peer.send(
        peer.export(1, SPANS, _path="/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export")
    )
    answered = peer.streams[1]
    assert (answered.grpc_status, answered.status.code) == (12, 12)
    assert "ProfilesService" in answered.grpc_message
    assert dict(answered.headers)[":status"] == "200"


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto"])
def test_content_types(peer: Peer, content_type: str) -> None:
    peer.send(peer.export(1, SPANS, content_type=content_type))
    assert peer.streams[1].grpc_status == 0


@pytest.mark.parametrize("content_type", ["application/grpc+json", "application/grpc-web", "text/plain", ""])
def test_what_is_no_grpc_is_answered_in_http(peer: Peer, content_type: str) -> None:
    peer.send(peer.export(1, SPANS, content_type=content_type))
    assert dict(peer.streams[1].headers)[":status"] == "415"
    assert peer.streams[1].ended


def test_another_http_method(peer: Peer) -> None:
    peer.send(peer.headers(1, END_HEADERS | END_STREAM, request_fields(_method="GET")))
    assert peer.streams[1].headers == [(":status", "405"), ("allow", "POST")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no message"),
        (b"\0\0", "inside its message"),
        (message(SPANS)[:-1], "inside its message"),
        (message(SPANS) + b"x", "more than one message"),
        (message(SPANS) * 2, "more than one message"),
        (message(SPANS, 2), "begins with 2"),
        (message(SPANS, 1), "does not say how"),
        (message(b"\x0a\xff"), "byte"),
    ],
)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_malformed_calls(peer: Peer, data: bytes, words: str, step: int) -> None:
    peer.send(peer.headers(1) + frame(DATA, END_STREAM, 1, data), step)
    answered = peer.streams[1]
    assert answered.grpc_status == 3
    if words != "byte":
        assert words in answered.grpc_message
    assert not peer.receiving.stores["traces"].payloads
    assert not peer.receiving.admission.in_flight_requests
    labels = {"signal": "traces", "transport": "grpc", "outcome": "malformed"}
    assert peer.receiving.sample("ringtail_receiver_requests_total", **labels) == 1


def test_a_call_of_headers_alone(peer: Peer) -> None:
    peer.send(peer.headers(1, END_HEADERS | END_STREAM))
    assert peer.streams[1].grpc_status == 3


@pytest.mark.parametrize("encoding", ["gzip", "identity", "deflate"])
def test_an_uncompressed_message_of_a_compressing_call(peer: Peer, encoding: str) -> None:
    peer.send(peer.export(1, SPANS, grpc_encoding=encoding))
    assert peer.streams[1].grpc_status == 0


def test_a_compressed_message(peer: Peer) -> None:
    peer.send(peer.headers(1, fields=request_fields(grpc_encoding="gzip")))
    peer.send(frame(DATA, END_STREAM, 1, message(gzip.compress(SPANS), 1)))
    assert peer.streams[1].grpc_status == 0
    assert bytes(peer.receiving.stores["traces"].payloads[0]) == SPANS


def test_an_unknown_encoding_names_the_known_ones(peer: Peer) -> None:
    peer.send(peer.export(1, SPANS, grpc_encoding="snappy"))
    assert peer.streams[1].grpc_status == 12
    assert dict(peer.streams[1].headers)["grpc-accept-encoding"] == "identity,gzip,deflate,zstd"


def test_a_message_over_the_limit_is_refused_by_its_prefix(peer: Peer) -> None:
    limit = peer.receiving.grpc.message_bytes_max
    peer.send(peer.headers(1) + frame(DATA, 0, 1, b"\0" + (limit + 1).to_bytes(4, "big")))
    assert peer.streams[1].grpc_status == 8
    assert "max_recv_msg_size_mib" in peer.streams[1].grpc_message
    assert peer.streams[1].reset == Code.NO_ERROR


def test_a_bomb_is_refused(peer: Peer) -> None:
    bomb = gzip.compress(bytes(100 << 20))
    peer.send(peer.headers(1, fields=request_fields(grpc_encoding="gzip")))
    peer.send(frame(DATA, END_STREAM, 1, message(bomb, 1)))
    assert peer.streams[1].grpc_status == 8
    assert "max_recv_msg_size_mib" in peer.streams[1].grpc_message
    assert not peer.receiving.admission.in_flight_bytes


def test_the_announced_size_is_taken_from_the_budget_before_it_is_held(peer: Peer) -> None:
    peer.send(peer.headers(1) + frame(DATA, 0, 1, message(bytes(1 << 20))[:100]))
    assert peer.receiving.admission.in_flight_bytes == 1 << 20
    body = peer.connection.streams[1].body
    assert body is not None
    with memoryview(body) as room:
        assert len(room) < BODY_STEP_BYTES
    peer.send(frame(RST_STREAM, 0, 1, (8).to_bytes(4, "big")))
    assert peer.receiving.admission.in_flight_bytes == 0


def test_overload_is_told_at_once_in_both_forms(peer: Peer) -> None:
    peer.receiving.stores["traces"].error = Overloaded("full", 1.5)
    peer.send(peer.export(1, SPANS))
    answered = peer.streams[1]
    assert answered.grpc_status == 14
    info = error_details_pb2.RetryInfo()
    assert answered.status.details[0].Unpack(info)
    assert info.retry_delay.ToMilliseconds() == 1500
    assert "google.rpc.retryinfo-bin" in dict(answered.headers)


def test_a_vanished_client_gives_its_budget_back(peer: Peer) -> None:
    store = peer.receiving.stores["traces"]
    store.holds = True
    peer.send(peer.headers(1) + frame(DATA, 0, 1, message(SPANS)[:50]) + peer.export(3, SPANS))
    peer.close()
    assert peer.receiving.admission.in_flight_bytes == len(SPANS), "the store holds one"
    store.settle()
    peer.turn()
    assert peer.receiving.admission.in_flight_bytes == 0


def health(peer: Peer, number: int, method: str, service: str) -> None:
    payload = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    peer.send(peer.export(number, payload, _path=f"/grpc.health.v1.Health/{method}"))


def statuses(data: bytes) -> list[int]:
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append(health_pb2.HealthCheckResponse.FromString(data[5 : 5 + size]).status)
        data = data[5 + size :]
    return found


def test_health_check(peer: Peer) -> None:
    for number, service in ((1, ""), (3, LOGS.service), (5, "nothing")):
        health(peer, number, "Check", service)
    assert statuses(peer.streams[1].data) == statuses(peer.streams[3].data) == [1]
    assert peer.streams[5].grpc_status == 5


def test_health_watch_tells_when_the_daemon_stops(peer: Peer) -> None:
    health(peer, 1, "Watch", "")
    health(peer, 3, "Watch", "nothing")
    health(peer, 5, "Watch", "")
    peer.send(frame(RST_STREAM, 0, 5, (8).to_bytes(4, "big")))
    assert [statuses(peer.streams[number].data) for number in (1, 3, 5)] == [[1], [3], [1]]
    assert not peer.streams[1].ended
    peer.connection.stop()
    peer.read()
    assert statuses(peer.streams[1].data) == [1, 2]
    assert peer.streams[1].grpc_status == 14
    assert peer.transport.closed


# --- any bytes ------------------------------------------------------------------------------------------------


def conversation(chance: Random) -> bytes:
    """Return a client's bytes: some calls, some other frames, some damage."""
    peer = Peer(Receiving(asyncio.new_event_loop()), greet=False)
    data = frames.PREFACE + frame(SETTINGS, 0, 0)
    number = 1
    for _ in range(chance.randint(1, 6)):
        choice = chance.randrange(8)
        if choice < 4:
            data += peer.export(number, otlp.traces(chance.choice((0, 1, 40))))
        elif choice == 4:
            data += peer.headers(number) + frame(DATA, 0, number, message(SPANS)[: chance.randrange(200)])
        elif choice == 5:
            data += peer.headers(number) + frame(RST_STREAM, 0, number, bytes(4))
        elif choice == 6:
            data += frame(PING, 0, 0, bytes(8)) + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")
        else:
            data += frame(chance.randrange(12), chance.randrange(256), chance.randrange(8), chance.randbytes(9))
        number += 2
    peer.receiving.loop.close()
    damaged = bytearray(data)
    for _ in range(chance.choice((0, 0, 1, 4))):
        at = chance.randrange(24, len(damaged)) if len(damaged) > 24 else 0
        choice = chance.randrange(3)
        if choice == 0:
            damaged[at] = chance.randrange(256)
        elif choice == 1:
            damaged[at:at] = chance.randbytes(chance.randint(1, 12))
        else:
            del damaged[at : at + chance.randint(1, 12)]
    return bytes(damaged)


def answers(data: bytes, step: int) -> tuple[bytes, bool]:
    loop = asyncio.new_event_loop()
    try:
        peer = Peer(Receiving(loop), greet=False)
        peer.send(data, step)
        written, closed = bytes(peer.transport.written), peer.transport.closed
        for _ in range(5):
            peer.receiving.clock.seconds += 8000
            peer.receiving.grpc.sweep()
        peer.read()
        assert peer.transport.closed, "every wait has an end"
        peer.close()
        assert peer.receiving.admission.in_flight_bytes == 0
        assert peer.receiving.admission.in_flight_requests == 0
        assert "request failed" not in [event for event, _ in peer.receiving.logger.events]
        return written, closed
    finally:
        loop.close()


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32))
def test_answers_do_not_depend_on_how_bytes_are_cut(seed: int) -> None:
    data = conversation(Random(seed))
    whole = answers(data, 1 << 20)
    assert answers(data, 3) == whole
    assert answers(data, 100) == whole


def test_headers_are_read_by_the_oracle(peer: Peer) -> None:
    """The canary of the harness: a wrong answer would be seen."""
    peer.send(peer.export(1, SPANS))
    assert any(kind == HEADERS for kind, _, _, _ in peer.frames)
    with pytest.raises(AssertionError, match="behind END_STREAM"):
        peer._take(HEADERS, END_HEADERS, 1, b"\x88")
