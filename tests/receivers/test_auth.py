"""Receivers that ask who sends: at the head of a request, before anything of it is admitted, read or inflated."""

from __future__ import annotations

import asyncio
import gzip
from base64 import b64encode
from pathlib import Path

import bcrypt
import pytest
from prometheus_client import CollectorRegistry

from collector.otlp.signals import TRACES
from collector.receivers import call, connection
from collector.security.credentials import Credential
from collector.security.gate import Authenticator
from collector.security.hosts import HostGuard
from collector.security.rights import READ, WRITE
from collector.testing import otlp
from tests.receivers.doubles import MemoryLogger, Receiving
from tests.receivers.http2.peer import DATA, END_STREAM, RST_STREAM, Peer, frame, message, request_fields
from tests.receivers.wire import JSON, PROTOBUF, Client, chunked, post

TOKEN, READER = "token-token-token-1", "token-token-token-2"
GOOD, WRONG, READ_ONLY = f"Bearer {TOKEN}", "Bearer wrong-wrong-wrong", f"Bearer {READER}"
ANN = f"Basic {b64encode(b'ann:right').decode()}"
NOT_ANN = f"Basic {b64encode(b'ann:wrong').decode()}"
SPANS = otlp.traces(3)
CODES = {None: (401, 16), WRONG: (401, 16), READ_ONLY: (403, 7)}


@pytest.fixture
def receiving(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Receiving:
    path = tmp_path / "htpasswd"
    path.write_text(f"ann:{bcrypt.hashpw(b'right', bcrypt.gensalt(4)).decode()}\n")
    credentials = [
        Credential("writers", WRITE, tokens=(TOKEN,)),
        Credential("readers", READ, tokens=(READER,)),
        Credential("people", WRITE, htpasswd_file=str(path)),
    ]
    gate = Authenticator(credentials, MemoryLogger(), CollectorRegistry()).gate("otlp")
    return Receiving(loop, gate=gate)


def header(authorization: str | None) -> dict[str, str]:
    return {} if authorization is None else {"authorization": authorization}


def settle(receiving: Receiving, done: object) -> None:
    """Let the loop run until a condition holds, as when a thread has checked a password."""

    holds = receiving.loop.create_future()

    def look() -> None:
        if done():  # type: ignore[operator]  # a callable
            holds.set_result(None)
        else:
            receiving.loop.call_later(0.001, look)

    look()
    receiving.loop.run_until_complete(asyncio.wait_for(holds, 30))


def arrive(client: Client | Peer, data: bytes, step: int = 1 << 30) -> None:
    """Let bytes arrive while the loop runs, as the check of a password wants it."""

    async def send() -> None:
        client.send(data, step)

    client.receiving.loop.run_until_complete(send())


def opened(peer: Peer, number: int, **fields: str) -> bytes:
    """Return the HEADERS of a call."""
    return peer.headers(number, fields=request_fields(**fields))


@pytest.fixture
def nothing_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    def inflate(body: bytes, encoding: str, *_: object) -> bytes:
        assert not encoding, "inflated a stranger's bytes"
        return body

    monkeypatch.setattr(connection, "inflate", inflate)
    monkeypatch.setattr(call, "inflate", inflate)


# HTTP


@pytest.mark.usefixtures("nothing_is_inflated")
@pytest.mark.parametrize("authorization", [None, WRONG, READ_ONLY])
@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
def test_http_refuses_at_the_head(receiving: Receiving, authorization: str | None, media_type: str) -> None:
    client = Client(receiving)
    body = gzip.compress(SPANS * 100)
    whole = post(body, media_type=media_type, content_encoding="gzip", **header(authorization))
    client.send(whole[: -len(body)])
    (response,) = client.responses
    code, grpc_code = CODES[authorization]
    assert (response.code, response.status.code) == (code, grpc_code)
    assert response.headers["content-type"] == media_type
    assert ("www-authenticate" in response.headers) == (code == 401)
    assert "retry-after" not in response.headers
    assert receiving.admission.in_flight_requests == 0
    client.send(body + post(SPANS, authorization=GOOD))
    assert [one.code for one in client.responses] == [code, 200]
    assert receiving.stores["traces"].payloads == [SPANS]
    outcome = "unauthenticated" if code == 401 else "forbidden"
    assert receiving.sample("ringtail_receiver_requests_total", signal="traces", transport="http", outcome=outcome) == 1


def test_http_does_not_tell_strangers_to_go_on(receiving: Receiving) -> None:
    client = Client(receiving)
    client.send(post(SPANS, expect="100-continue")[: -len(SPANS)])
    assert [one.code for one in client.responses] == [401]
    assert client.transport.ended


@pytest.mark.parametrize("path", ["/", "/v1/traces", "/v1/nothing", "/v1development/profiles"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "OPTIONS"])
def test_http_asks_on_every_path_and_method(receiving: Receiving, method: str, path: str) -> None:
    client = Client(receiving)
    client.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    assert client.transport.written.startswith(b"HTTP/1.1 401 Unauthorized\r\n")


def test_http_refuses_two_credentials(receiving: Receiving) -> None:
    client = Client(receiving)
    client.send(post(SPANS, authorization=f"{GOOD}\r\nAuthorization: {WRONG}"))
    assert [one.code for one in client.responses] == [401]


def test_http_lets_the_good_pass_by_remembered_heads(receiving: Receiving) -> None:
    client = Client(receiving)
    for _ in range(3):
        client.send(post(SPANS, authorization=GOOD))
        client.send(post(SPANS, authorization=WRONG))
    assert [one.code for one in client.responses] == [200, 401] * 3


@pytest.mark.parametrize("step", [1, 50, 1 << 20])
def test_http_waits_while_a_password_is_checked(receiving: Receiving, step: int) -> None:
    client = Client(receiving)
    requests = [
        post(SPANS, authorization=ANN),
        post(SPANS, authorization=NOT_ANN),
        chunked(SPANS).replace(b"Host: h", f"Host: h\r\nAuthorization: {ANN}".encode()),
        post(otlp.traces(2000 if step > 1 else 20), authorization=ANN),
        post(SPANS, authorization=GOOD),
    ]
    arrive(client, b"".join(requests), step)

    def done() -> bool:
        client.send(b"", step)
        return len(client.transport.written) > 0 and len(client.responses) == len(requests)

    settle(receiving, done)
    assert [one.code for one in client.responses] == [200, 401, 200, 200, 200]
    assert receiving.admission.in_flight_requests == 0


def test_http_clients_may_leave_while_their_password_is_checked(receiving: Receiving) -> None:
    client = Client(receiving)
    arrive(client, post(SPANS, authorization=ANN))
    assert client.transport.written == b""
    client.close()
    other = Client(receiving)
    arrive(other, post(SPANS, authorization=ANN))
    settle(receiving, lambda: other.transport.written)
    assert client.transport.written == b""
    assert len(receiving.stores["traces"].payloads) == 1
    assert receiving.admission.in_flight_requests == 0


def test_http_ends_a_connection_whose_client_sent_no_more(receiving: Receiving) -> None:
    client = Client(receiving)
    arrive(client, post(SPANS, authorization=ANN)[:-1])
    assert client.connection.eof_received()
    settle(receiving, lambda: client.transport.closed)
    assert receiving.admission.in_flight_requests == 1
    client.close()
    assert receiving.admission.in_flight_requests == 0


# gRPC


@pytest.mark.usefixtures("nothing_is_inflated")
@pytest.mark.parametrize("authorization", [None, WRONG, READ_ONLY])
def test_grpc_refuses_at_the_headers(receiving: Receiving, authorization: str | None) -> None:
    peer = Peer(receiving)
    peer.send(opened(peer, 1, grpc_encoding="gzip", **header(authorization)))
    answered = peer.streams[1]
    code = CODES[authorization][1]
    assert (answered.grpc_status, answered.status.code, answered.ended) == (code, code, True)
    assert ("www-authenticate" in dict(answered.headers)) == (code == 16)
    assert receiving.admission.in_flight_requests == 0
    peer.send(frame(DATA, END_STREAM, 1, message(gzip.compress(SPANS), 1)))
    peer.send(peer.export(3, SPANS, authorization=GOOD))
    assert peer.streams[3].grpc_status == 0
    outcome = "unauthenticated" if code == 16 else "forbidden"
    assert receiving.sample("ringtail_receiver_requests_total", signal="traces", transport="grpc", outcome=outcome) == 1


def test_grpc_asks_for_methods_that_are_not_there_and_not_for_health(receiving: Receiving) -> None:
    peer = Peer(receiving)
    peer.send(peer.export(1, b"", _path="/x.Y/Z"))
    peer.send(peer.export(3, b"", _path="/x.Y/Z", authorization=GOOD))
    peer.send(peer.export(5, b"", _path="/grpc.health.v1.Health/Check"))
    assert [peer.streams[number].grpc_status for number in (1, 3, 5)] == [16, 12, 0]


@pytest.mark.parametrize("step", [1, 50, 1 << 20])
def test_grpc_waits_while_a_password_is_checked(receiving: Receiving, step: int) -> None:
    peer = Peer(receiving)
    large = otlp.traces(2000 if step > 1 else 20)
    calls = ((1, ANN, SPANS), (3, NOT_ANN, SPANS), (5, GOOD, SPANS), (7, ANN, large))
    sent = b"".join(peer.export(number, payload, authorization=who) for number, who, payload in calls)
    arrive(peer, sent, step)

    def done() -> bool:
        peer.send(b"", step)
        return len(peer.streams) == 4 and all(one.ended for one in peer.streams.values())

    settle(receiving, done)
    assert [peer.streams[number].grpc_status for number in (1, 3, 5, 7)] == [0, 16, 0, 0]
    assert len(receiving.stores["traces"].payloads) == 3
    assert large in receiving.stores["traces"].payloads
    assert receiving.admission.in_flight_requests == 0


def test_grpc_calls_may_be_cancelled_while_their_password_is_checked(receiving: Receiving) -> None:
    peer = Peer(receiving)
    cancelled = peer.export(1, SPANS, authorization=ANN) + frame(RST_STREAM, 0, 1, (8).to_bytes(4, "big"))
    arrive(peer, cancelled + peer.export(3, SPANS, authorization=ANN))
    assert peer.transport.paused

    def done() -> bool:
        peer.read()
        return 3 in peer.streams and peer.streams[3].ended

    settle(receiving, done)
    assert not peer.transport.paused
    assert len(receiving.stores["traces"].payloads) == 1
    assert receiving.admission.in_flight_requests == 0


# Browsers


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("LocalHost:4318", 200),
        ("127.0.0.1:4318", 200),
        ("127.9.9.9", 200),
        ("[::1]:4318", 200),
        ("ringtail.localhost", 200),
        ("allowed.example:4318", 200),
        ("", 200),
        ("attacker.example", 421),
        ("attacker.example:4318", 421),
        ("localhost.attacker.example", 421),
        ("allowed.example.attacker.example", 421),
        ("10.0.0.1", 421),
        ("localhost, attacker.example", 421),
        ("\xff", 421),
    ],
)
def test_a_local_port_answers_to_local_names(loop: asyncio.AbstractEventLoop, host: str, code: int) -> None:
    guard = HostGuard(["allowed.example"], "receivers.otlp.protocols.http.allowed_hosts", is_local=True)
    client = Client(Receiving(loop, hosts=guard))
    request = post(SPANS).replace(b"Host: localhost", b"Host: " + host.encode("latin-1"))
    for _ in range(2):
        client.send(request)
    responses = client.responses
    assert [one.code for one in responses] == [code, code]
    if code == 421:
        assert "receivers.otlp.protocols.http.allowed_hosts" in responses[0].status.message
        assert responses[0].status.message.isascii()


def test_the_target_says_which_host_when_it_does(loop: asyncio.AbstractEventLoop) -> None:
    client = Client(Receiving(loop, hosts=HostGuard([], "key", is_local=True)))
    client.send(post(SPANS, path="http://attacker.example/v1/traces"))
    client.send(post(SPANS, path="http://localhost:4318/v1/traces").replace(b"Host: localhost", b"Host: other"))
    assert [one.code for one in client.responses] == [421, 200]


@pytest.mark.parametrize(("allowed", "is_local"), [([], False), (["*"], True)])
def test_any_host_will_do_where_there_is_no_guard(
    loop: asyncio.AbstractEventLoop, allowed: list[str], is_local: bool
) -> None:
    client = Client(Receiving(loop, hosts=HostGuard(allowed, "key", is_local=is_local)))
    client.send(post(SPANS).replace(b"Host: localhost", b"Host: other.example"))
    assert [one.code for one in client.responses] == [200]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_page_may_send_without_asking_is_refused(receiving: Receiving, media_type: str) -> None:
    """A browser sends these three anywhere; others it must ask about first."""
    client = Client(receiving)
    client.send(post(SPANS, media_type=media_type, authorization=GOOD, origin="https://attacker.example"))
    (response,) = client.responses
    assert response.code == 415
    assert not [name for name in response.headers if name.startswith("access-control-")]


def test_the_path_of_the_test(receiving: Receiving) -> None:
    """The paths above are the receivers' own."""
    assert TRACES.http_path.encode() in receiving.http.routes.receivers
