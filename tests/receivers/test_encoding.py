"""Inflating, against the standard library's compressors."""

from __future__ import annotations

import gzip
import zlib
from random import Random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed, Overloaded, TooLarge, Unsupported
from collector.receivers.encoding import MEMBERS_MAX, STEP_BYTES, check_encoding, inflate
from collector.receivers.zstd import BLOCKS_MAX

LIMIT = 4 * STEP_BYTES


def ignore(size: int) -> None:
    """Take no account of what is inflated."""


def raw(body: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(body) + deflater.flush()


def zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(body)


COMPRESSORS = {"gzip": gzip.compress, "zlib": zlib.compress, "raw": raw, "zstd": zstd}
each_form = pytest.mark.parametrize("form", COMPRESSORS)


def name(form: str) -> str:
    return form if form in ("gzip", "zlib", "zstd") else "deflate"


@each_form
@given(seed=st.integers(0, 999), size=st.sampled_from((0, 1, 100, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, LIMIT)))
def test_what_was_compressed_comes_back(form: str, seed: int, size: int) -> None:
    body = (Random(seed).randbytes(size // 2) + bytes(size))[:size]
    grown: list[int] = []
    assert inflate(COMPRESSORS[form](body), name(form), LIMIT, "some.key", grown.append) == body
    assert sum(grown) == size


def test_without_an_encoding_the_body_is_handed_on() -> None:
    body = bytearray(b"x")
    assert inflate(body, "", LIMIT, "some.key", ignore) is body
    assert inflate(body, "identity", LIMIT, "some.key", ignore) is body


@given(pieces=st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_members_are_joined(pieces: list[bytes]) -> None:
    body = b"".join(gzip.compress(piece) for piece in pieces)
    assert inflate(body, "gzip", LIMIT, "some.key", ignore) == b"".join(pieces)


def test_too_many_members() -> None:
    member = gzip.compress(b"")
    assert inflate(member * MEMBERS_MAX, "gzip", LIMIT, "some.key", ignore) == b""
    with pytest.raises(Malformed, match="members"):
        inflate(member * (MEMBERS_MAX + 1), "gzip", LIMIT, "some.key", ignore)


@each_form
def test_a_bomb_is_noticed_one_step_beyond_the_limit(form: str) -> None:
    bomb = COMPRESSORS[form](bytes(50 * LIMIT))
    grown: list[int] = []
    with pytest.raises(TooLarge, match=rf"{LIMIT} bytes after decompression .*some.key"):
        inflate(bomb, name(form), LIMIT, "some.key", grown.append)
    assert sum(grown) <= LIMIT + STEP_BYTES


def test_the_budget_may_stop_it() -> None:
    def refuse(size: int) -> None:
        raise Overloaded("full")

    with pytest.raises(Overloaded):
        inflate(gzip.compress(b"x"), "gzip", LIMIT, "some.key", refuse)


@each_form
def test_every_truncation_is_malformed(form: str) -> None:
    whole = COMPRESSORS[form](b"some body of some length" * 3)
    for end in range(len(whole)):
        with pytest.raises(Malformed):
            inflate(whole[:end], name(form), LIMIT, "some.key", ignore)


@pytest.mark.parametrize("form", ["gzip", "zlib", "zstd"])
def test_a_flipped_bit_never_changes_the_body_unnoticed(form: str) -> None:
    body = b"some body of some length" * 3
    whole = COMPRESSORS[form](body)
    for at in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << bit
            try:
                assert inflate(flipped, name(form), LIMIT, "some.key", ignore) == body
            except (Malformed, TooLarge):
                continue


@each_form
@given(junk=st.binary(min_size=1, max_size=30))
def test_junk_behind_the_end(form: str, junk: bytes) -> None:
    with pytest.raises(Malformed):
        inflate(COMPRESSORS[form](b"x") + junk, name(form), LIMIT, "some.key", ignore)


@given(junk=st.binary(max_size=200), form=st.sampled_from(("gzip", "deflate", "zstd")))
def test_junk_is_malformed_or_small(junk: bytes, form: str) -> None:
    try:
        assert len(inflate(junk, form, LIMIT, "some.key", ignore)) <= LIMIT
    except (Malformed, TooLarge):
        pass


@pytest.mark.parametrize("other", ["br", "gzip, gzip", "x-gzip", "snappy", "zlib"])
def test_other_encodings(other: str) -> None:
    with pytest.raises(Unsupported, match="use one of identity, gzip, zstd"):
        check_encoding(other, ("gzip", "zstd"))
    for known in ("", "identity", "gzip", "zstd"):
        check_encoding(known, ("gzip", "zstd"))


# --- zstd -----------------------------------------------------------------------------------------------------


def block(kind: int, size: int, content: bytes, *, last: bool) -> bytes:
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + content


def frame(*blocks: bytes, window: int = 0x58) -> bytes:
    """A zstd frame without size and checksum; the window's byte stands for 2 MiB."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([window]) + b"".join(blocks)


SKIPPED = b"\x5a\x2a\x4d\x18\x03\0\0\0abc"


@given(pieces=st.lists(st.binary(max_size=300), min_size=1, max_size=8), sized=st.booleans(), checked=st.booleans())
def test_zstd_frames_are_joined(pieces: list[bytes], sized: bool, checked: bool) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=sized, write_checksum=checked)
    body = SKIPPED.join(compressor.compress(piece) for piece in pieces)
    assert inflate(body, "zstd", LIMIT, "some.key", ignore) == b"".join(pieces)
    for end in (*range(min(40, len(body))), len(body) - 1):
        try:
            found = inflate(body[:end], "zstd", LIMIT, "some.key", ignore)
        except Malformed:
            continue
        assert b"".join(pieces).startswith(found), "cut where a frame ends"


def test_zstd_of_a_stream_that_was_flushed() -> None:
    writer = zstandard.ZstdCompressor(level=19).compressobj()
    body = b"".join(writer.compress(b"some") + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for _ in range(50))
    body += writer.flush()
    assert inflate(body, "zstd", LIMIT, "some.key", ignore) == b"some" * 50


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "no frame begins"),
        (b"\x1f\x8b", "no frame begins"),
        (frame(block(0, 2, b"ab", last=True)) + b"junk", "no frame begins"),
        (frame(block(0, 2, b"ab", last=False)), "too early"),
        (frame(block(0, 9, b"ab", last=True)), "too early"),
        (frame(block(3, 2, b"ab", last=True)), "not defined"),
        (frame(block(0, 2, b"ab", last=True), window=0xA8), "does not inflate"),  # a window of 2 GiB
        (SKIPPED[:-1], "too early"),
        (frame(*[block(0, 0, b"", last=False)] * (BLOCKS_MAX + 1), block(0, 0, b"", last=True)), "blocks"),
        (SKIPPED * (BLOCKS_MAX + 1), "blocks"),
    ],
)
def test_zstd_that_is_malformed(body: bytes, complaint: str) -> None:
    with pytest.raises(Malformed, match=complaint):
        inflate(body, "zstd", LIMIT, "some.key", ignore)


def test_a_zstd_bomb_of_runs() -> None:
    """Blocks of four bytes that inflate to 128 KiB each: the library must not be given them all at once."""
    run = block(1, 128 * 1024, b"\0", last=False)
    grown: list[int] = []
    with pytest.raises(TooLarge):
        inflate(frame(*[run] * 60_000, block(0, 0, b"", last=True)), "zstd", LIMIT, "some.key", grown.append)
    assert sum(grown) <= LIMIT + STEP_BYTES
