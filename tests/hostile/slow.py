"""Attacks by patience: clients that send next to nothing, read nothing, go in the middle of a request, or just stay."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from collector.otlp.signals import TRACES
from collector.testing import otlp
from tests.hostile.actor import Target, ready
from tests.hostile.exporters import Exporter, GrpcExporter, HttpExporter, nap, split
from tests.hostile.wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    SETTINGS,
    frame,
    grpc_fields,
    http_head,
    message,
    setting,
)

ANNOUNCED = 256 * 1024
GREETING = PREFACE + frame(SETTINGS, 0, 0)


class Raw(asyncio.Protocol):
    """A connection that sends bytes, and remembers only how much came back, and the begin of it."""

    def __init__(self, *, reads: bool = True) -> None:
        self.transport: asyncio.Transport | None = None
        self.begin = b""
        self.came = 0
        self._reads = reads
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from asyncio's
        if not self._reads:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.came += len(data)
        if len(self.begin) < 4096:
            self.begin += data

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._may_write.set()
        self.closed.set()

    async def send(self, data: bytes) -> bool:
        """Send, when there is room; tell whether the connection is open."""
        await self._may_write.wait()
        if self.transport is None or self.transport.is_closing():
            return False
        self.transport.write(data)
        return True

    def abort(self) -> None:
        """Go, without a word."""
        if self.transport is not None:
            self.transport.abort()


async def connect(address: str, *, reads: bool = True) -> Raw:
    """Open a connection."""
    loop = asyncio.get_running_loop()
    _, raw = await loop.create_connection(lambda: Raw(reads=reads), *split(address))
    return raw


def _slow(kind: int) -> tuple[bytes, Callable[[int], bytes]]:
    """Return what a slow sender begins with, and what it sends each second."""
    if kind == 0:  # in the head
        return b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", lambda _: b"a"
    if kind == 1:  # in the body
        return http_head(TRACES, ANNOUNCED), lambda _: b"\n"
    if kind == 2:  # in a chunked body
        return http_head(TRACES, None), lambda _: b"1\r\n\n\r\n"
    begin = GREETING + frame(HEADERS, END_HEADERS, 1, grpc_fields(TRACES))
    prefix = b"\0" + ANNOUNCED.to_bytes(4, "big")
    return begin + frame(DATA, 0, 1, bytes(ANNOUNCED + 5))[:9] + prefix, lambda _: b"\n"


async def senders(target: Target, count: int = 1000, interval_s: float = 1.0) -> dict[str, Any]:
    """One byte a second: in the head, the body, a chunked body, and a frame of HTTP/2. Who is cut comes again."""
    cut: Counter[str] = Counter()
    lived: dict[str, list[float]] = {}
    names = ("head", "body", "chunked body", "HTTP/2 frame")
    open_now = 0

    async def run(index: int) -> None:
        nonlocal open_now
        kind = index % 4
        begin, more = _slow(kind)
        while not target.until.is_set():
            try:
                raw = await connect(target.grpc if kind == 3 else target.http)
            except OSError:
                cut["not connected"] += 1
                await nap(target.until, 1.0)
                continue
            start = time.monotonic()
            open_now += 1
            await raw.send(begin)
            sent = 0
            while not target.until.is_set() and await raw.send(more(sent)):
                sent += 1
                await nap(target.until, interval_s * random.uniform(0.8, 1.2))
            open_now -= 1
            if raw.transport is None:
                code = raw.begin[9:12].decode("latin-1") if kind < 3 and raw.begin else "closed"
                cut[f"{names[kind]}: {code}"] += 1
                lived.setdefault(names[kind], []).append(time.monotonic() - start)
                # A refused one does not come back at once: a slow attacker is no flood.
                await nap(target.until, interval_s)
            raw.abort()

    tasks = [asyncio.create_task(run(index)) for index in range(count)]
    await asyncio.sleep(min(1.0, count / 500))
    ready()
    await target.until.wait()
    at_the_end = open_now
    await asyncio.gather(*tasks)
    return {
        "open": at_the_end,
        "cut": dict(cut),
        "lived_s": {name: round(max(some), 1) for name, some in lived.items()},
    }


async def readers(target: Target, count: int = 200) -> dict[str, Any]:
    """Pipelined requests over HTTP/1.1 and calls over HTTP/2 with a window of 0, whose answers nobody reads.

    Of the HTTP/2 connections every other one reads its frames, so that only the window holds the answers.
    """
    small = otlp.traces(1)
    pipelined = (http_head(TRACES, len(small)) + small + http_head(TRACES, 3) + b"\xff\xff\xff") * 50
    block = grpc_fields(TRACES)
    sent = [0] * count
    closed = 0

    async def run(index: int) -> None:
        nonlocal closed
        is_http = index % 2 == 0
        try:
            raw = await connect(target.http if is_http else target.grpc, reads=index % 4 == 3)
        except OSError:
            return
        if not is_http:
            await raw.send(PREFACE + frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, 0)))
        stream = 1
        while not target.until.is_set():
            if is_http:
                data, requests = pipelined, 50
            else:
                data, requests = b"", 0
                for _ in range(50):
                    data += frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, message(small))
                    stream += 2
                    requests += 1
            if index % 4 == 3 and stream > 600:
                await nap(target.until, 1.0)  # its streams are all waiting for a window
                if raw.transport is None:
                    break
                continue
            sending = asyncio.create_task(raw.send(data))
            ended = asyncio.create_task(target.until.wait())
            await asyncio.wait((sending, ended), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not sending.done():
                sending.cancel()
                break
            if not sending.result():
                break
            sent[index] += requests
            await asyncio.sleep(0)
        if not target.until.is_set():
            closed += 1
        raw.abort()

    tasks = [asyncio.create_task(run(index)) for index in range(count)]
    ready()
    await asyncio.gather(*tasks)
    return {"sent": sum(sent), "cut": closed, "unread": {TRACES.name: sum(sent)}}


async def vanish(target: Target, count: int = 200) -> dict[str, Any]:
    """Clients that go in the middle of a request, at any byte of it, with a reset or an orderly end."""
    payload = otlp.traces(500)
    whole_http = http_head(TRACES, len(payload)) + payload
    whole_grpc = GREETING + frame(HEADERS, END_HEADERS, 1, grpc_fields(TRACES))
    body = message(payload)
    for begin in range(0, len(body), 16384):
        last = begin + 16384 >= len(body)
        whole_grpc += frame(DATA, END_STREAM if last else 0, 1, body[begin : begin + 16384])
    gone = 0

    async def run(index: int) -> None:
        nonlocal gone
        while not target.until.is_set():
            whole, address = (whole_http, target.http) if index % 2 else (whole_grpc, target.grpc)
            try:
                raw = await connect(address)
            except OSError:
                await nap(target.until, 0.1)
                continue
            await raw.send(whole[: random.randrange(1, len(whole) - 1)])
            await nap(target.until, random.uniform(0.0, 0.2))
            if random.random() < 0.5 and raw.transport is not None:
                raw.transport.close()
            raw.abort()
            gone += 1

    tasks = [asyncio.create_task(run(index)) for index in range(count)]
    ready()
    await asyncio.gather(*tasks)
    return {"gone": gone}


async def idle(target: Target, http: int = 500, grpc: int = 500) -> dict[str, Any]:
    """Connections that have sent one request each, and then stay."""
    payload = otlp.traces(1)
    exporters: list[Exporter] = [HttpExporter(target.http) for _ in range(http)]
    exporters += [GrpcExporter(target.grpc) for _ in range(grpc)]
    codes: Counter[str] = Counter()
    for begin in range(0, len(exporters), 100):
        replies = await asyncio.gather(*(one.export(TRACES, payload) for one in exporters[begin : begin + 100]))
        codes.update(one.code for one in replies)
    ready()
    await target.until.wait()
    done = codes["200"] + codes["grpc 0"]
    return {"codes": dict(codes), "records": {TRACES.name: done}}
