"""OTLP/HTTP over real sockets, with clients that are not ours, on both event loops."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import socket
from collections.abc import Iterator

import pytest
import uvloop

from collector.errors import Unavailable
from collector.otlp.signals import SIGNALS, TRACES, Signal
from collector.testing import otlp
from tests.receivers.doubles import Receiving
from tests.receivers.serving import Serving
from tests.receivers.wire import JSON, PROTOBUF, chunked, post, read


@pytest.fixture(scope="module", params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def serving(request: pytest.FixtureRequest) -> Iterator[Serving]:
    made = Serving(request.param)
    yield made
    made.close()


@pytest.fixture
def client(serving: Serving) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection("127.0.0.1", serving.http_port, timeout=30)
    yield made
    made.close()


def connected(serving: Serving) -> socket.socket:
    return socket.create_connection(("127.0.0.1", serving.http_port), timeout=30)


def drained(connection: socket.socket) -> bytes:
    """Read to the end of the stream; a reset would raise."""
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_many_requests_of_many_sizes_on_one_connection(
    serving: Serving, client: http.client.HTTPConnection, signal: Signal
) -> None:
    store = serving.store(signal.name)
    payloads = [otlp.BUILDERS[signal](count, seed=count) for count in (0, 1, 39, 40, 41, 600, 2000, 5)]
    for payload in payloads:
        client.request("POST", signal.http_path, payload, {"Content-Type": PROTOBUF})
        response = client.getresponse()
        assert (response.status, response.read()) == (200, b"")
        assert response.headers["Content-Type"] == PROTOBUF
        assert response.headers["Date"].endswith("GMT")
    assert [bytes(one) for one in store.payloads] == payloads


def test_json_gzip_and_chunks(serving: Serving, client: http.client.HTTPConnection) -> None:
    store = serving.store()
    payload = otlp.traces(500)
    body = gzip.compress(otlp.to_json(TRACES, payload))
    pieces = iter([body[:10], body[10:5000], body[5000:]])
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    client.request("POST", "/v1/traces", pieces, headers, encode_chunked=True)
    response = client.getresponse()
    assert (response.status, response.read(), response.headers["Content-Type"]) == (200, b"{}", JSON)
    parse = TRACES.request_type.FromString
    assert [parse(bytes(one)) for one in store.payloads] == [parse(payload)]


def test_the_greeting(client: http.client.HTTPConnection) -> None:
    client.request("GET", "/")
    response = client.getresponse()
    assert response.status == 200
    assert b"/v1/traces" in response.read()


def test_pipelined_requests(serving: Serving) -> None:
    store = serving.store()
    payload = otlp.traces(100)
    with connected(serving) as connection:
        connection.sendall((post(payload) + chunked(payload)) * 20 + post(payload, Connection="close"))
        responses = read(drained(connection))
    assert [one.code for one in responses] == [200] * 41
    assert len(store.payloads) == 41


def test_an_answer_can_be_read_although_the_body_was_not(serving: Serving) -> None:
    """Closing a socket with unread bytes would reset the connection and lose the answer."""
    serving.store()
    limit = serving.receiving.http.body_bytes_max
    with connected(serving) as connection:
        head = f"POST /v1/traces HTTP/1.1\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {limit * 9}\r\n\r\n"
        connection.sendall(head.encode() + bytes(limit))
        (response,) = read(drained(connection))
    assert response.code == 413


def test_an_answer_that_waits_for_the_store(serving: Serving) -> None:
    store = serving.store()
    serving.call(lambda: setattr(store, "holds", True))
    payload = otlp.traces(10)
    with connected(serving) as first, connected(serving) as second:
        first.sendall(post(payload, Connection="close"))
        second.sendall(post(payload, Connection="close"))
        serving.until(lambda: len(store.waiting) == 2)
        serving.call(store.settle)
        assert [one.code for one in read(drained(first) + drained(second))] == [200, 200]


@pytest.mark.parametrize("sent", [10, 120, 20_000])
def test_a_client_that_vanishes(serving: Serving, sent: int) -> None:
    serving.store()
    with connected(serving) as connection:
        connection.sendall(post(otlp.traces(1000))[:sent])
    admission = serving.receiving.admission
    serving.until(lambda: not admission.in_flight_requests and not admission.in_flight_bytes)


def test_a_half_closed_connection_gets_its_answers(serving: Serving) -> None:
    store = serving.store()
    serving.call(lambda: setattr(store, "holds", True))
    with connected(serving) as connection:
        connection.sendall(post(otlp.traces(3)) + post(otlp.traces(4)))
        connection.shutdown(socket.SHUT_WR)
        for _ in range(2):
            serving.until(lambda: store.waiting)
            serving.call(store.settle)
        assert [one.code for one in read(drained(connection))] == [200, 200]


def test_an_address_in_use_is_named(serving: Serving) -> None:
    async def start() -> None:
        other = Receiving(asyncio.get_running_loop())
        with pytest.raises(Unavailable, match=f"127.0.0.1:{serving.http_port}.*in use"):
            await other.http.start("127.0.0.1", serving.http_port)

    serving.wait(start)


def test_stopping_lets_requests_end() -> None:
    serving = Serving()
    store = serving.store()
    serving.call(lambda: setattr(store, "holds", True))
    busy, idle = connected(serving), connected(serving)
    busy.sendall(post(otlp.traces(3)))
    idle.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert idle.recv(4096)
    serving.until(lambda: store.waiting)
    stopped = asyncio.run_coroutine_threadsafe(serving.receiving.http.stop(), serving.loop)
    assert drained(idle) == b""
    with pytest.raises(ConnectionRefusedError):
        connected(serving)
    serving.call(store.settle)
    (response,) = read(drained(busy))
    assert (response.code, response.headers["connection"]) == (200, "close")
    busy.close()
    idle.close()
    stopped.result(30)
    serving.close()
