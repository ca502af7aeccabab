"""Attacks by HTTP/1.1 that two readers could read in two ways, and by heads without an end.

Each case is sent with a whole export behind it, which must not be answered as a request of its own unless the case is
one that has a single meaning. `SMUGGLED` asks what a proxy in front would not have seen.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from typing import Any

from collector.otlp.signals import TRACES
from collector.testing import otlp
from tests.hostile.actor import Target, ready
from tests.hostile.exporters import nap, split
from tests.hostile.slow import connect
from tests.hostile.wire import http_head

POST = b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
PATIENCE_S = 20.0

REFUSED: dict[str, bytes] = {
    "CL+TE": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE+CL": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "two equal lengths": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": POST + b"Content-Length: 0, 5\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a signed length": POST + b"Content-Length: +0\r\n\r\n",
    "a hexadecimal length": POST + b"Content-Length: 0x0\r\n\r\n",
    "a length beyond 64 bits": POST + b"Content-Length: 18446744073709551616\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 0\r\n\r\n",
    "obs-fold": POST + b"X-One: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "obs-fold of the length": POST + b"Content-Length:\r\n 0\r\n\r\n",
    "bare LF in the head": b"POST /v1/traces HTTP/1.1\nHost: localhost\nContent-Length: 0\n\r\n\r\n",
    "bare LF behind a field": POST + b"X-One: a\nContent-Length: 0\r\n\r\n",
    "bare CR in a field": POST + b"X-One: a\rContent-Length: 0\r\n\r\n",
    "NUL in a field": POST + b"X-One: a\0b\r\nContent-Length: 0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked behind identity": POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "chunked with a tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk's size with a sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
    "a chunk's size with 0x": POST + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "a chunk's size that overflows": POST + b"Transfer-Encoding: chunked\r\n\r\n100000000\r\n\r\n",
    "a chunk that ends with LF": POST + b"Transfer-Encoding: chunked\r\n\r\n0\n\r\n",
    "a chunk longer than it says": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "a chunk extension without an end": POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 4096 + b"\r\n",
    "trailers without an end": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 4096,
    "no such version": b"POST /v1/traces HTTP/3.7\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    "a method of no letters": b"P(ST /v1/traces HTTP/1.1\r\nHost: localhost\r\n\r\n",
}
"""Refused with 400, and the connection ends."""

TAKEN: dict[str, bytes] = {
    "a chunk extension": POST + b"Transfer-Encoding: chunked\r\n\r\n0;name=value\r\n\r\n",
    "a trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 7\r\n\r\n",
    "no length": POST + b"\r\n",
    "an empty line first": b"\r\n" + POST + b"Content-Length: 0\r\n\r\n",
}
"""One meaning only: answered, and so is the request behind it."""

LARGE: dict[str, bytes] = {
    "a head of 64 KiB": POST + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 100) for i in range(640)) + b"\r\n",
    "a field of 64 KiB": POST + b"X-One: " + b"a" * 65536 + b"\r\n\r\n",
    "a target of 64 KiB": b"POST /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
}
"""Refused with 431."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


def ask(address: str, data: bytes) -> list[int]:
    """Send bytes and an export behind them, and return the codes of all answers until the connection ends."""
    behind = otlp.traces(1)
    last = http_head(TRACES, len(behind), "Connection: close\r\n") + behind
    came = b""
    with socket.create_connection(split(address), PATIENCE_S) as connection:
        try:
            connection.sendall(data + last)
            while piece := connection.recv(65536):
                came += piece
        except ConnectionError:
            pass
    return [int(code) for code in _STATUS.findall(came)]


def smuggled(address: str) -> list[str]:
    """Send all cases; return what was answered otherwise than it should be."""
    wanted = {name: (data, [400]) for name, data in REFUSED.items()}
    wanted |= {name: (data, [200, 200]) for name, data in TAKEN.items()}
    wanted |= {name: (data, [431]) for name, data in LARGE.items()}
    findings = []
    for name, (data, codes) in wanted.items():
        found = ask(address, data)
        if found != codes:
            findings.append(f"{name}: {found}, not {codes}")
    return findings


async def heads(target: Target, connections: int = 20) -> dict[str, Any]:
    """Ambiguous and oversized heads, one after the other, on connections that come again."""
    cases = [*REFUSED.values(), *LARGE.values()]
    codes: Counter[str] = Counter()
    ready()

    async def run(index: int) -> None:
        turn = index
        while not target.until.is_set():
            try:
                raw = await connect(target.http)
            except OSError:
                await nap(target.until, 0.01)
                continue
            await raw.send(cases[turn % len(cases)])
            turn += 1
            ended = asyncio.create_task(target.until.wait())
            gone = asyncio.create_task(raw.closed.wait())
            await asyncio.wait((ended, gone), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            gone.cancel()
            if not target.until.is_set():
                codes[raw.begin[9:12].decode("latin-1") or "closed"] += 1
            raw.abort()

    await asyncio.gather(*(run(index) for index in range(connections)))
    return {"codes": dict(codes)}
