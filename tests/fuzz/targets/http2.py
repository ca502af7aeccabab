"""An HTTP/2 connection and HPACK: any frames, cut in any way, get one answer; any block is judged as `hpack` judges it.

The connection's input stands behind the preface and the client's SETTINGS; its first byte says whether stores answer
at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import hpack

from collector.receivers.http2 import frames
from collector.receivers.http2.hpack import CompressionError, Decoder
from collector.receivers.http2.keepalive import Keepalive
from collector.testing import otlp
from tests.fuzz.target import Target
from tests.receivers.doubles import Receiving
from tests.receivers.http2.peer import DATA, END_STREAM, SETTINGS, Peer, frame, message, request_fields
from tests.receivers.http2.test_connection import BAD_FIELDS, BROKEN

_LOOP = asyncio.new_event_loop()
_HEAD = 9


def check(data: bytes) -> None:
    if data:
        holds, data = data[0] % 2 == 1, data[1:]
        assert _answers(data, holds, 1 << 20) == _answers(data, holds, 37)


def _answers(data: bytes, holds: bool, step: int) -> tuple[bytes, bool]:
    """Feed a connection, let the stores answer, then let time run out, and check its accounts."""
    receiving = Receiving(_LOOP)
    store = receiving.stores["traces"]
    store.holds = holds
    peer = Peer(receiving)
    peer.send(data, step)
    while store.waiting:
        store.settle()
        peer.turn()
    written, closed = bytes(peer.transport.written), peer.transport.closed
    for _ in range(8):
        receiving.clock.seconds += 2 * Keepalive().time_s
        receiving.grpc.sweep()
        peer.read()
    assert peer.transport.closed, "every wait has an end"
    peer.close()
    assert receiving.admission.in_flight_requests == 0
    assert receiving.admission.in_flight_bytes == 0
    assert not receiving.logger.events or all("failed" not in event for event, _ in receiving.logger.events)
    return written, closed


def mutate(data: bytes, length_max: int, seed: int) -> bytes:
    """Change, repeat, move or drop whole frames, or one field of a frame's head; lengths stay right."""
    chance = Random(seed)
    found: list[bytes] = []
    at = 1
    while at < len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        found.append(data[at : at + _HEAD + length])
        at += _HEAD + length
    if not found:
        found = [frame(SETTINGS, 0, 0)]
    number = chance.randrange(len(found))
    one = found[number]
    kind, flags, stream, payload = one[3:4], one[4:5], one[5:_HEAD], one[_HEAD:]
    match chance.randrange(8):
        case 0:
            del found[number]
        case 1:
            found.insert(chance.randrange(len(found) + 1), one)
        case 2:
            found[number] = frame(chance.randrange(12), *(flags or b"\0"), int.from_bytes(stream, "big"), payload)
        case 3:
            found[number] = frame(
                *(kind or b"\0"), chance.choice((0, 1, 4, 5, 8, 0x20, 0x2D)), _stream(chance), payload
            )
        case 4:
            changed = bytearray(payload or b"\0")
            changed[chance.randrange(len(changed))] = chance.randrange(256)
            found[number] = frame(*(kind or b"\0"), *(flags or b"\0"), int.from_bytes(stream, "big"), bytes(changed))
        case 5:
            cut = chance.randrange(len(payload) + 1)
            head = (*(kind or b"\0"), *(flags or b"\0"), int.from_bytes(stream, "big"))
            found[number : number + 1] = [frame(*head, payload[:cut]), frame(*head, payload[cut:])]
        case 6:
            chance.shuffle(found)
        case _:
            found.insert(
                number, frame(chance.randrange(10), chance.randrange(256), _stream(chance), chance.randbytes(4))
            )
    return (data[:1] + b"".join(found))[:length_max]


def _stream(chance: Random) -> int:
    return chance.choice((0, 1, 1, 2, 3, 5, 2**31 - 1))


def _connection_seeds() -> Iterator[bytes]:
    encoder = hpack.Encoder()
    block = encoder.encode(request_fields())
    spans = otlp.traces(1)
    export = frame(1, 4, 1, block) + frame(DATA, END_STREAM, 1, message(spans))
    for first in (b"\0", b"\1"):
        yield first + export
    yield b"\0" + export + frame(6, 0, 0, bytes(8)) + frame(8, 0, 0, b"\0\0\1\0")
    yield b"\0" + frame(1, 0, 1, block[:10]) + frame(9, 4, 1, block[10:]) + frame(DATA, 1, 1, message(spans))
    for data, _ in BROKEN.values():
        if len(data) < 1000:
            yield b"\1" + export + data
    for fields in BAD_FIELDS.values():
        yield b"\0" + frame(1, 4, 1, hpack.Encoder().encode(fields)) + frame(DATA, 1, 1, message(spans))


def _hpack(data: bytes) -> None:
    """Blocks of one connection; the first byte of each is its length."""
    decoder, oracle = Decoder(4096, 1 << 20), hpack.Decoder(1 << 20)
    at = 0
    while at < len(data):
        block = data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
        try:
            expected = [tuple(field) for field in oracle.decode(block, raw=True)]
        except (hpack.HPACKError, IndexError):
            expected = None
        try:
            found = decoder.decode(block)
        except CompressionError as error:
            # The oracle has no limit on the integers that sizes and lengths are, and lets a size change stand anywhere.
            limits = ("too large", "inside a block", "larger than")
            assert expected is None or any(word in str(error) for word in limits), error
            return
        assert found == expected
        assert decoder.table_bytes <= 4096


def _hpack_seeds() -> Iterator[bytes]:
    encoder = hpack.Encoder()
    for huffman in (True, False):
        blocks = [encoder.encode(request_fields(x_name=name), huffman=huffman) for name in ("a", "b" * 30, "a")]
        yield b"".join(bytes([len(block)]) + block for block in blocks if len(block) < 256)
    encoder.header_table_size = 100
    block = encoder.encode([("a", "b"), ("c", "d" * 50)])
    yield bytes([len(block)]) + block


_WORDS = (frames.PREFACE, b"\x82\x86\x84", b"application/grpc", b":path", b"\x3f\xe1\x1f", b"te", b"trailers")
TARGETS = [
    Target("http2", check, _connection_seeds, _WORDS, length_max=2048, mutate=mutate),
    Target("hpack", _hpack, _hpack_seeds, _WORDS, length_max=1024),
]
