"""The HTTP connection under arbitrary bytes: what it answers does not depend on how they are cut."""

from __future__ import annotations

import asyncio
import gzip
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from collector.testing import otlp
from tests.receivers.doubles import Receiving
from tests.receivers.wire import JSON, Client, chunked, post

SPANS = otlp.traces(2)
PIECES = (
    post(SPANS),
    post(b"{}", media_type=JSON),
    post(gzip.compress(SPANS), Content_Encoding="gzip"),
    chunked(SPANS, 50),
    post(b"x" * 300, "/nothing"),
    post(SPANS, media_type="text/plain"),
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD / HTTP/1.1\r\n\r\n",
    b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /v1/traces HTTP/1.1\r\nContent-Length: 70000000\r\n\r\n",
    b"POST /v1/logs HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
)
JUNK = (b"\r\n", b"\n", b" ", b":", b"\x00", b"\xff", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"0")


def stream(chance: Random) -> bytes:
    """Return a few requests, some of them damaged."""
    data = bytearray(b"".join(chance.choice(PIECES) for _ in range(chance.randint(1, 4))))
    for _ in range(chance.choice((0, 0, 1, 3))):
        at = chance.randrange(len(data))
        choice = chance.randrange(4)
        if choice == 0:
            data[at] = chance.randrange(256)
        elif choice == 1:
            data[at:at] = chance.choice(JUNK)
        elif choice == 2:
            del data[at : at + chance.randint(1, 20)]
        else:
            del data[at:]
        data = data or bytearray(b"x")
    return bytes(data)


def answers(loop: asyncio.AbstractEventLoop, data: bytes, chance: Random, step: int) -> tuple[bytes, int, bool]:
    """Feed a connection in pieces of random size up to `step`, let time run out, and check its accounts."""
    receiving = Receiving(loop)
    store = receiving.stores["traces"]
    store.holds = chance.random() < 0.5
    client = Client(receiving)
    at = 0
    while at < len(data) and not client.transport.closed:
        size = chance.randint(1, step)
        client.send(data[at : at + size])
        at += size
        if store.waiting and chance.random() < 0.7:
            store.settle()
            client.turn()
    while store.waiting:
        store.settle()
        client.turn()
    written, state, ended = bytes(client.transport.written), client.connection.state, client.transport.ended
    for _ in range(3):
        receiving.clock.seconds += 100
        receiving.http.sweep()
    assert client.transport.closed, "every wait has an end"
    assert bytes(client.transport.written).startswith(written)
    client.close()
    assert receiving.admission.in_flight_requests == 0
    assert receiving.admission.in_flight_bytes == 0
    assert "request failed" not in [event for event, _ in receiving.logger.events]
    return written, state, ended


@settings(max_examples=300)
@given(seed=st.integers(0, 2**32))
def test_answers_do_not_depend_on_how_bytes_are_cut(seed: int) -> None:
    chance = Random(seed)
    data = stream(chance)
    loop = asyncio.new_event_loop()
    try:
        whole = answers(loop, data, chance, 1 << 20)
        assert answers(loop, data, chance, 5) == whole
        assert answers(loop, data, chance, 500) == whole
    finally:
        loop.close()
