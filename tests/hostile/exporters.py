"""Connections that export: one request at a time over HTTP/1.1, many streams over gRPC. They reconnect when they must.

Nothing here times out by itself: a daemon that leaves a request unanswered shows as missing goodput.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol, cast

from collector.otlp.signals import Signal
from tests.hostile.wire import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LOST,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Reply,
    frame,
    grpc_fields,
    grpc_reply,
    http_head,
    http_reply,
    message,
)

FRAME_BYTES = 16 * 1024
CONNECT_S = 10.0


class Exporter(Protocol):
    """A connection to one of the listeners."""

    async def export(self, signal: Signal, payload: bytes) -> Reply:
        """Send a request, and return what became of it."""
        ...

    def close(self) -> None:
        """End it."""
        ...


def split(address: str) -> tuple[str, int]:
    """Split `host:port`."""
    host, _, port = address.rpartition(":")
    return host, int(port)


class HttpExporter:
    """HTTP/1.1 with keep-alive."""

    def __init__(self, address: str) -> None:
        self._address = split(address)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Connect, if it is not connected."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.wait_for(asyncio.open_connection(*self._address), CONNECT_S)

    async def export(self, signal: Signal, payload: bytes) -> Reply:
        """See `Exporter`. The answer is read while the request is still on its way: it may be refused by its head."""
        try:
            await self.open()
            assert self._writer is not None
            self._writer.write(http_head(signal, len(payload)))
            self._writer.write(payload)
            reply = await self._read()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            reply = Reply(LOST, closing=True)
        if reply.closing:
            self.close()
        return reply

    async def _read(self) -> Reply:
        assert self._reader is not None
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return http_reply(int(head[0].split(" ")[1]), headers, body)

    def close(self) -> None:
        """See `Exporter`."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


class GrpcExporter(asyncio.Protocol):
    """Any number of calls at a time on one HTTP/2 connection, which keeps to the windows that it is given."""

    def __init__(self, address: str) -> None:
        self._address = split(address)
        self._transport: asyncio.Transport | None = None
        self._opening = asyncio.Lock()
        self._blocks: dict[Signal, bytes] = {}
        self._forget()

    def _forget(self) -> None:
        self._pending = b""
        self._next = 1
        self._window = self._stream_window = 65535
        self._answers: dict[int, asyncio.Future[Reply]] = {}
        self._out: dict[int, memoryview] = {}
        self._windows: dict[int, int] = {}
        self._refusing = False

    async def open(self) -> None:
        """Connect, if it is not connected."""
        async with self._opening:
            if self._transport is None:
                self._forget()
                loop = asyncio.get_running_loop()
                await asyncio.wait_for(loop.create_connection(lambda: self, *self._address), CONNECT_S)

    async def export(self, signal: Signal, payload: bytes) -> Reply:
        """See `Exporter`."""
        try:
            await self.open()
        except (OSError, TimeoutError):
            return Reply(LOST)
        transport = self._transport
        if transport is None:
            return Reply(LOST)
        block = self._blocks.get(signal) or self._blocks.setdefault(signal, grpc_fields(signal))
        number, self._next = self._next, self._next + 2
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._windows[number] = self._stream_window
        self._out[number] = memoryview(message(payload))
        transport.write(frame(HEADERS, END_HEADERS, number, block))
        self._flush(number)
        return await answer

    def _flush(self, number: int) -> None:
        data = self._out.get(number)
        if data is None or self._transport is None:
            return
        while data:
            count = min(len(data), FRAME_BYTES, self._window, self._windows[number])
            if count <= 0:
                self._out[number] = data
                return
            last = count == len(data)
            self._transport.write(frame(DATA, END_STREAM if last else 0, number, bytes(data[:count])))
            data = data[count:]
            self._window -= count
            self._windows[number] -= count
        del self._out[number]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from asyncio's
        self._transport.write(PREFACE + frame(SETTINGS, 0, 0))

    def connection_lost(self, error: Exception | None) -> None:
        """Whatever was under way has no answer."""
        self._transport = None
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(Reply(LOST, closing=True))
        self._answers.clear()
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        """Take frames."""
        data = self._pending + data
        at = 0
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            if len(data) - at < 9 + length:
                break
            number = int.from_bytes(data[at + 5 : at + 9], "big")
            self._take(data[at + 3], data[at + 4], number, data[at + 9 : at + 9 + length])
            at += 9 + length
        self._pending = data[at:]

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == HEADERS:
            reply = grpc_reply(payload)
            if reply is not None:
                self._done(number, reply)
        elif kind == RST_STREAM:
            self._done(number, Reply(f"reset {int.from_bytes(payload, 'big')}"))
        elif kind == WINDOW_UPDATE:
            increment = int.from_bytes(payload, "big")
            if number:
                if number in self._windows:
                    self._windows[number] += increment
                    self._flush(number)
            else:
                self._window += increment
                for one in list(self._out):
                    self._flush(one)
        elif kind == SETTINGS and not flags & ACK:
            for begin in range(0, len(payload), 6):
                if int.from_bytes(payload[begin : begin + 2], "big") == INITIAL_WINDOW_SIZE:
                    size = int.from_bytes(payload[begin + 2 : begin + 6], "big")
                    for one in self._windows:
                        self._windows[one] += size - self._stream_window
                    self._stream_window = size
            self._transport.write(frame(SETTINGS, ACK, 0))
            for one in list(self._out):
                self._flush(one)
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self._transport.close()

    def _done(self, number: int, reply: Reply) -> None:
        self._out.pop(number, None)
        self._windows.pop(number, None)
        answer = self._answers.pop(number, None)
        if answer is not None and not answer.done():
            answer.set_result(reply)

    def close(self) -> None:
        """See `Exporter`."""
        if self._transport is not None:
            self._transport.abort()


async def nap(until: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until the end; tell whether that is there."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(until.wait(), seconds)
    return until.is_set()
