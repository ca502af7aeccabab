"""Connections of the query API on real sockets: what a client may make the daemon wait for, and how large a head may be.

Time is what `sweep` is told, so nothing here waits for it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from collector.api import connection as module
from collector.api.connection import BODY_S, HEAD_S, HEADER_BYTES_MAX, IDLE_S, LINGER_S, UNREAD_BYTES_MIN, UNREAD_S
from collector.api.server import ApiServer

LARGE = 32 << 20
"""Bytes of an answer that no socket's buffers hold."""
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /form HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"


class Served:
    """A listener, and what its application saw."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.bodies: list[bytes] = []
        self.gone = 0
        routes = [
            Route("/", self.index),
            Route("/large", self.large),
            Route("/slow", self.slow),
            Route("/form", self.form, methods=["POST"]),
            Route("/refused", self.index, methods=["POST"]),
        ]
        self.api = ApiServer(Starlette(routes=routes))
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def index(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def large(self, request: Request) -> Response:
        return Response(bytes(LARGE))

    async def slow(self, request: Request) -> Response:
        await self.waiting.wait()
        return PlainTextResponse("at last")

    async def form(self, request: Request) -> Response:
        try:
            self.bodies.append(await request.body())
        except ClientDisconnect:
            self.gone += 1
        return PlainTextResponse("taken")

    async def connect(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16)
        self.writers.append(writer)
        writer.write(data)
        await writer.drain()
        return reader, writer

    async def later(self, seconds: float) -> None:
        """Let so much time have passed, and everybody hear of it."""
        self.api.sweep(asyncio.get_running_loop().time() + seconds)
        await heard(self)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    made.port = await made.api.start("127.0.0.1", 0)
    yield made
    made.waiting.set()
    for writer in made.writers:
        writer.close()
    await made.api.stop()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[16:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
    return int(head.split(b" ")[1]), await reader.readexactly(length)


async def code(reader: asyncio.StreamReader) -> int:
    return (await answer(reader))[0]


async def heard(served: Served) -> None:
    """Until the server has read what was sent before: it answers what came after."""
    reader, _ = await served.connect(GET)
    assert await code(reader) == 200


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server has closed the connection, or cut it."""
    try:
        while await reader.read(1 << 16):
            pass
    except ConnectionError:
        pass
    return reader.at_eof()


async def test_a_head_has_a_deadline_from_its_first_byte(served: Served) -> None:
    slow, writer = await served.connect(b"GET / HT")
    await heard(served)
    await served.later(HEAD_S - 1)
    writer.write(b"TP/1.1\r\nHost: loc")
    await heard(served)
    assert not slow.at_eof()
    await served.later(HEAD_S + 1)
    assert await answer(slow) == (408, b"the request took too long to arrive\n")
    assert await ended(slow)


async def test_who_has_sent_nothing_is_idle(served: Served) -> None:
    silent, _ = await served.connect()
    await heard(served)
    await served.later(HEAD_S + 1)
    assert not silent.at_eof()
    await served.later(IDLE_S + 1)
    assert await ended(silent)


async def test_between_requests_the_same(served: Served) -> None:
    reader, writer = await served.connect(GET)
    assert await code(reader) == 200
    await served.later(IDLE_S - 1)
    writer.write(GET)
    assert await code(reader) == 200
    writer.write(GET[:5])
    await heard(served)
    await served.later(HEAD_S + 1)
    assert await code(reader) == 408
    assert await ended(reader)


async def test_a_body_has_a_deadline(served: Served) -> None:
    reader, writer = await served.connect(POST + b"abc")
    await heard(served)
    await served.later(BODY_S - 1)
    assert not reader.at_eof()
    writer.write(b"de")
    assert await code(reader) == 200
    assert served.bodies == [b"abcde"]
    writer.write(POST + b"abc")
    await heard(served)
    await served.later(BODY_S + 1)
    assert await code(reader) == 408
    assert await ended(reader)
    assert served.gone == 1


async def test_a_body_that_nobody_waits_for_has_one_too(served: Served) -> None:
    """It was answered before it came."""
    reader, _ = await served.connect(POST.replace(b"/form", b"/nothing") + b"abc")
    assert await code(reader) == 404
    await served.later(BODY_S + 1)
    assert await ended(reader)
    reader, _ = await served.connect(POST.replace(b"/form", b"/nothing") + b"abcde")
    assert await code(reader) == 404
    await served.later(BODY_S + 1)
    assert not reader.at_eof(), "its body is whole"
    await served.later(IDLE_S + 1)
    assert await ended(reader)


async def test_a_query_may_take_its_time(served: Served) -> None:
    reader, writer = await served.connect(GET.replace(b"/ ", b"/slow "))
    await heard(served)
    await served.later(1000)
    # Nor does the beginning of another request behind it count, until it is that one's turn.
    writer.write(GET[:7])
    await heard(served)
    await served.later(1000)
    assert not reader.at_eof()
    served.waiting.set()
    assert await answer(reader) == (200, b"at last")
    await served.later(1000)
    assert await code(reader) == 408


async def test_an_answer_that_is_not_read_ends_the_connection(served: Served) -> None:
    reader, _ = await served.connect(GET.replace(b"/ ", b"/large "))
    await reader.readexactly(1000)
    for turn in range(5):
        await served.later(turn * (UNREAD_S + 1))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(LARGE)


async def test_an_answer_that_is_read_slowly_is_let_be(served: Served) -> None:
    reader, _ = await served.connect(GET.replace(b"/ ", b"/large "))
    at = 0.0
    left = LARGE
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    while left > LARGE // 2:
        await served.later(at)
        for _ in range(64):
            left -= len(await reader.read(1 << 16))
        at += UNREAD_S + 1
    assert at > IDLE_S
    assert LARGE // 2 > UNREAD_BYTES_MIN * UNREAD_S
    assert len(await reader.readexactly(left)) == left


@pytest.mark.parametrize("step", [1 << 20, 1000])
async def test_a_head_has_a_size(served: Served, step: int) -> None:
    for size, expected in ((HEADER_BYTES_MAX - 100, 200), (HEADER_BYTES_MAX + 100, 431)):
        head = GET[:-2] + b"".join(b"x-%04d: %s\r\n" % (i, b"a" * 1000) for i in range(size // 1010)) + b"\r\n"
        if expected == 431:
            head = head[:-2] + b"x-more: " + b"a" * 1200 + b"\r\n\r\n"
        reader, writer = await served.connect()
        for i in range(0, len(head), step):
            writer.write(head[i : i + step])
            await asyncio.sleep(0)
        assert await code(reader) == expected


async def test_one_field_without_an_end_has_a_size(served: Served) -> None:
    reader, writer = await served.connect(GET[:-2] + b"x-long: ")
    for _ in range(16):
        writer.write(b"a" * 65536)
    assert await code(reader) == 431
    await served.later(LINGER_S + 1)
    assert await ended(reader)


async def test_large_forms_are_no_heads(served: Served) -> None:
    body = b"a" * 500_000
    request = POST.replace(b": 5", b": %d" % len(body)) + body
    reader, _ = await served.connect(request)
    assert await code(reader) == 200
    assert served.bodies == [body]


async def test_a_client_that_does_not_go_is_cut(served: Served) -> None:
    reader, _ = await served.connect(b"GET / HT")
    await heard(served)
    await served.later(HEAD_S + 1)
    assert await code(reader) == 408
    await served.later(HEAD_S + 1 + LINGER_S + 1)
    assert await ended(reader)


async def test_idle_connections_make_room(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand that do nothing keep nobody out. Which of them goes is nobody's promise."""
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 12)
    busy, _ = await served.connect(GET.replace(b"/ ", b"/slow "))
    await heard(served)
    idle = [await served.connect(data) for data in [b"", b"GET", b"POST / HTTP/1.1\r\nHost"] * 10]
    await heard(served)
    served.waiting.set()
    assert await answer(busy) == (200, b"at last")
    ends = [asyncio.ensure_future(ended(reader)) for reader, _ in idle]
    for cut in itertools.islice(asyncio.as_completed(ends), len(idle) - 10):
        assert await cut
    await served.later(IDLE_S + 1)
    assert all(await asyncio.gather(*ends))


async def test_nothing_is_left_behind(served: Served) -> None:
    server: Any = served.api._server
    for data in (GET, POST + b"abcde", b"GET / HT", POST + b"a", b"nonsense\r\n\r\n"):
        _, writer = await served.connect(data)
        writer.close()
    await heard(served)
    for writer in served.writers:
        writer.close()
    async with asyncio.timeout(30):
        # One is there that was just heard.
        while len(server.server_state.connections) > 1 or server.server_state.tasks:
            await heard(served)
            served.writers.pop().close()
