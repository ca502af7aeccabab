"""Content encodings: what zlib makes of a body, inside the limit and inside the memory that the limit allows.

The first byte says which: gzip, deflate, zstd, or a compressed payload of the log. zlib and zstandard are the oracles of
what a body holds. They read a few headers that we do not take, and the other way round; where both take a body it is
the same one.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from random import Random

import zstandard

from collector.errors import Malformed, TooLarge
from collector.receivers.encoding import STEP_BYTES, inflate
from collector.testing import otlp
from collector.wal.compression import Packer, Unpacker
from tests.fuzz.target import Target

BYTES_MAX = 300_000
GZIP, DEFLATE, FRAME, ZSTD = range(4)


def _check(data: bytes) -> None:
    if not data:
        return
    kind, body = data[0] % 4, data[1:]
    if kind == FRAME:
        raw = Unpacker()(body, BYTES_MAX)
        assert isinstance(raw, str) or len(raw) <= BYTES_MAX
        return
    told: list[int] = []
    encoding = {GZIP: "gzip", DEFLATE: "deflate", ZSTD: "zstd"}[kind]
    try:
        found = inflate(body, encoding, BYTES_MAX, "key", told.append)
    except TooLarge:
        found = None
    except Malformed:
        return
    assert sum(told) <= BYTES_MAX + STEP_BYTES
    expected = _expected(body, encoding)
    if found is None:
        assert expected is None or len(expected) > BYTES_MAX
    elif expected is not None:
        assert bytes(found) == expected
        assert sum(told) == len(found)


def _expected(body: bytes, encoding: str) -> bytes | None:
    """What zlib makes of it, a little over the limit at most; None when it refuses."""
    made = b""
    if encoding == "zstd":
        return _from_zstd(body)
    while body:
        is_zlib = len(body) >= 2 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
        inflater = zlib.decompressobj(31 if encoding == "gzip" else 15 if is_zlib else -15)
        try:
            made += inflater.decompress(body, BYTES_MAX + 1)
        except zlib.error:
            return None
        if len(made) > BYTES_MAX:
            return made
        if not inflater.eof:
            return None
        body = inflater.unused_data
    return made


def _from_zstd(body: bytes) -> bytes | None:
    reader = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True)
    try:
        return reader.read(BYTES_MAX + 1)
    except zstandard.ZstdError:
        return None


def _seeds() -> Iterator[bytes]:
    spans = otlp.traces(2)
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    for body in (b"", b"a", spans, bytes(BYTES_MAX), bytes(BYTES_MAX + 1), bytes(4 * BYTES_MAX)):
        yield bytes([GZIP]) + gzip.compress(body, mtime=0)
        yield bytes([DEFLATE]) + zlib.compress(body)
        yield bytes([ZSTD]) + zstandard.compress(body)
        yield bytes([FRAME]) + (Packer()(body) or b"")
    yield bytes([GZIP]) + gzip.compress(spans, mtime=0) * 3
    yield bytes([ZSTD]) + zstandard.compress(spans) * 3
    yield bytes([ZSTD]) + b"\x50\x2a\x4d\x18\4\0\0\0skip" + zstandard.compress(spans)
    stream = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True)
    yield bytes([ZSTD]) + stream.compress(spans)
    yield bytes([GZIP]) + gzip.compress(gzip.compress(bytes(BYTES_MAX), mtime=0), mtime=0)
    yield bytes([DEFLATE]) + raw.compress(spans) + raw.flush()
    yield bytes([GZIP]) + gzip.compress(Random(1).randbytes(900), 0, mtime=0)
    named = bytearray(gzip.compress(b"x", mtime=0))
    named[3] |= 0x1C  # extra, name, comment
    named[10:10] = b"\x02\x00ab" + b"name\0" + b"comment\0"
    yield bytes([GZIP]) + bytes(named)


TARGETS = [Target("inflating", _check, _seeds, (b"\x1f\x8b\x08", b"\x78\x9c", b"\x28\xb5\x2f\xfd", bytes(8)))]
