"""An HTTP/1.1 connection: any bytes, cut in any way, get one answer, leave no account open and no wait without end.

The chunked coding by itself: what it decodes to, and where it ends, does not depend on how it is cut either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

from collector.errors import Malformed
from collector.receivers.chunked import ChunkDecoder
from tests.fuzz.target import Target
from tests.receivers.test_fuzz import PIECES, answers
from tests.receivers.wire import chunked

_LOOP = asyncio.new_event_loop()
_WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"POST /v1/traces HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"Content-Length: ", b"chunked"),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
    ),
    *(b"Content-Type: application/json\r\n", b"Connection: close\r\n", b"X-Scope-OrgID: ", b"0\r\n\r\n", b"OPTIONS * "),
)


def _connection(data: bytes) -> None:
    if not data:
        return
    whole, pieces = (answers(_LOOP, data, Random(step), step) for step in (1 << 20, 7))
    # Whether a client is asked to go on, or refused and cut, depends on how much of its body is here already.
    assert whole == pieces or b"expect" in data.lower()


def _connection_seeds() -> Iterator[bytes]:
    small = [piece for piece in PIECES if len(piece) < 2000]
    yield from small
    yield b"".join(small)
    for number, piece in enumerate(small):
        yield piece + small[(number + 3) % len(small)]
    yield b"POST /v1/logs HTTP/1.1\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def _chunks(data: bytes) -> None:
    whole = _decoded(data, len(data) or 1)
    for step in (1, 17):
        assert _decoded(data, step) == whole


def _decoded(data: bytes, step: int) -> tuple[bytes, int] | None:
    """The body and where it ends, or -1 when it goes on; None when it is refused."""
    decoder = ChunkDecoder()
    for begin in range(0, len(data), step):
        piece = data[begin : begin + step]
        try:
            at = decoder.feed(piece, 0)
        except Malformed:
            return None
        assert len(decoder.body) <= begin + len(piece)
        if decoder.complete:
            return bytes(decoder.body), begin + at
        assert at == len(piece)
    return bytes(decoder.body), -1


def _chunk_seeds() -> Iterator[bytes]:
    for step in (1, 5, 100):
        yield chunked(bytes(range(200)), step).partition(b"\r\n\r\n")[2]
    yield b"5;name=value\r\nabcde\r\n000\r\nTrailer: x\r\n\r\nnext"
    yield b"FFFFFFFF\r\nabc"


TARGETS = [
    Target("http1", _connection, _connection_seeds, _WORDS, length_max=1024),
    Target("chunked", _chunks, _chunk_seeds, (b"\r\n", b"0\r\n\r\n", b";a=b", b"ffffffff", b"\n"), length_max=512),
]
