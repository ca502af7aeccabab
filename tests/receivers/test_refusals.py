"""What the log says of requests whose clients give them up: many clients say nothing of it themselves."""

from __future__ import annotations

from typing import Any

from collector.errors import Overloaded
from collector.receivers.listener import LOST_EVERY_S
from tests.receivers.doubles import Receiving
from tests.receivers.http2.peer import Peer
from tests.receivers.wire import Client, post


def told(receiving: Receiving) -> list[dict[str, Any]]:
    return [fields for event, fields in receiving.logger.events if event == "request refused"]


def test_a_kind_of_refusal_is_logged_once_a_minute(receiving: Receiving) -> None:
    client = Client(receiving)
    for _ in range(5):
        client.send(post(b"{}", media_type="text/plain"))
    client.send(post(b"\xff" * 3))
    unsupported, malformed = told(receiving)
    assert unsupported["outcome"] == "unsupported"
    assert "'text/plain' is not supported" in unsupported["reason"]
    assert (malformed["outcome"], malformed["reason"]) == ("malformed", "the client was told"), "no payload in the log"

    receiving.clock.seconds += LOST_EVERY_S
    client.send(post(b"{}", media_type="text/plain"))
    assert [one["more_before"] for one in told(receiving)] == [0, 0, 4]


def test_what_is_sent_again_is_not_logged(receiving: Receiving) -> None:
    receiving.stores["traces"].error = Overloaded("too much", 1.0)
    Client(receiving).send(post(b""))
    assert not told(receiving)


def test_calls_by_grpc(receiving: Receiving) -> None:
    peer = Peer(receiving)
    peer.send(peer.export(1, b"", _path="/no.such/Method"))
    peer.send(peer.export(3, b"\xff\xff\xff"))
    assert [one["outcome"] for one in told(receiving)] == ["unsupported", "malformed"]


def test_http_1_on_the_port_of_grpc(receiving: Receiving) -> None:
    Peer(receiving, greet=False).connection._guarded(memoryview(b"POST /v1/traces HTTP/1.1\r\n\r\n"))
    assert told(receiving)[0]["reason"] == "HTTP/1 was spoken, to a port of gRPC"


def test_other_protocols_on_the_port_of_http(receiving: Receiving) -> None:
    Client(receiving).send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    receiving.clock.seconds += LOST_EVERY_S
    Client(receiving).send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    http_2, tls = told(receiving)
    assert "OTLP/gRPC has its own port, usually 4317" in http_2["reason"]
    assert "this is TLS, which is not spoken here" in tls["reason"]


def test_tls_on_the_port_of_grpc(receiving: Receiving) -> None:
    Peer(receiving, greet=False).send(b"\x16\x03\x01\x02\x00\x01\x00")
    assert told(receiving)[0]["reason"] == "TLS was spoken, to a port without it"
