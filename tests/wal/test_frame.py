"""The frame's bytes: what is written is read, and nothing else is."""

from __future__ import annotations

import dataclasses
import re

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from collector.wal import frame
from collector.wal.compression import Packer, Unpacker
from collector.wal.frame import END, Damaged, Frame, Header, Incomplete

NONCE = 0x1122334455667788
u64 = st.integers(0, 2**64 - 1)


def encode(pieces: list[bytes], *, position: int = 128, nonce: int = NONCE, **fields: int) -> bytes:
    """A whole frame; fields not given are small."""
    header = Header(
        base_offset=fields.get("base_offset", 5),
        count=fields.get("count", 2),
        min_time=fields.get("min_time", 10),
        max_time=fields.get("max_time", 20),
        append_time=fields.get("append_time", 30),
        payload_length=sum(map(len, pieces)),
        payload_checksum=frame.checksum(pieces),
        nonce=nonce,
        compressed=bool(fields.get("compressed")),
    )
    return b"".join([frame.encode_header(header, position), *pieces, frame.padding(header.payload_length)])


@given(
    pieces=st.lists(st.binary(max_size=40), max_size=4),
    base_offset=u64,
    count=st.integers(1, 2**32 - 1),
    times=st.tuples(u64, u64),
    append_time=u64,
    before=st.binary(max_size=20),
    after=st.binary(max_size=20),
)
def test_a_frame_reads_back_from_the_middle_of_other_bytes(
    pieces: list[bytes],
    base_offset: int,
    count: int,
    times: tuple[int, int],
    append_time: int,
    before: bytes,
    after: bytes,
) -> None:
    low, high = sorted(times)
    data = encode(pieces, base_offset=base_offset, count=count, min_time=low, max_time=high, append_time=append_time)
    assert len(data) == frame.frame_size(sum(map(len, pieces)))
    assert len(data) % frame.ALIGNMENT == 0
    for view in (before + data + after, memoryview(before + data + after)):
        got = frame.decode(view, len(before), position=128, nonce=NONCE)
        assert got == Frame(base_offset, count, low, high, append_time, b"".join(pieces))
        assert isinstance(got, Frame)
        assert got.end_offset == base_offset + count


def test_every_prefix_is_incomplete_and_says_how_much_is_needed() -> None:
    data = encode([b"payload"])
    for length in range(len(data)):
        verdict = frame.decode(data[:length], position=128, nonce=NONCE)
        if length >= frame.HEADER_SIZE + len(b"payload"):
            assert isinstance(verdict, Frame), "only padding is missing"
        else:
            assert verdict == Incomplete(frame.HEADER_SIZE if length < frame.HEADER_SIZE else len(data))


def test_every_flipped_bit_is_noticed_or_harmless() -> None:
    data = encode([b"payload"])
    good = frame.decode(data, position=128, nonce=NONCE)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        verdict = frame.decode(flipped, position=128, nonce=NONCE)
        if bit // 8 < frame.HEADER_SIZE + len(b"payload"):
            assert isinstance(verdict, Damaged), bit
        else:
            assert verdict == good, bit


def test_a_frame_of_another_place_or_segment_is_not_accepted() -> None:
    data = encode([b"x"], position=256)
    assert isinstance(frame.decode(data, position=256, nonce=NONCE), Frame)
    assert isinstance(frame.decode(data, position=256), Frame)
    assert frame.decode(data, position=264, nonce=NONCE) == Damaged("header checksum mismatch")
    assert frame.decode(data, position=256, nonce=NONCE + 1) == Damaged("a frame of another segment")


def test_a_header_is_judged_without_its_payload() -> None:
    header = frame.decode_header(encode([b"payload"])[: frame.HEADER_SIZE], position=128, nonce=NONCE)
    assert isinstance(header, Header)
    assert (header.base_offset, header.end_offset, header.size) == (5, 7, 72)
    assert frame.with_payload(header, b"payloae", Unpacker()) == Damaged("payload checksum mismatch")
    assert frame.with_payload(header, b"payloa", Unpacker()) == Damaged("payload checksum mismatch")
    assert isinstance(frame.with_payload(header, b"payload", Unpacker()), Frame)


def test_zeros_are_the_end_and_other_bytes_are_not() -> None:
    assert frame.decode(bytes(64), position=128) is END
    assert frame.decode(b"x" * 64, position=128) == Damaged("no frame starts here")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_never_a_frame(data: bytes) -> None:
    assert not isinstance(frame.decode(data, position=128), Frame)


@pytest.mark.parametrize("change", [{"size": 65}, {"flags": 2}, {"flags": 3}, {"length": 2**31}, {"count": 0}])
def test_a_header_with_a_right_checksum_and_unknown_fields_is_refused(change: dict[str, int]) -> None:
    """A later version may write them; this one must not guess."""
    fields = {"size": 64, "flags": 0, "length": 0, "count": 1} | change
    raw = frame._FIELDS.pack(
        frame.MAGIC, fields["size"], fields["flags"], NONCE, fields["length"], fields["count"], 0, 0, 0, 0, 0
    )
    raw += frame._CHECKSUM.pack(frame.checksum([(128).to_bytes(8, "little"), raw]))
    assert frame.decode(raw, position=128) == Damaged("header fields that this version does not know")


@pytest.mark.parametrize(
    "fields",
    [
        {"count": 0},
        {"min_time": 21},
        {"count": 2**32},
        {"max_time": 2**64},
        {"min_time": -1},
        {"payload_length": frame.PAYLOAD_BYTES_MAX + 1},
    ],
)
def test_values_that_no_reader_accepts_are_not_written(fields: dict[str, int]) -> None:
    good = Header(5, 2, 10, 20, 30, 0, 0, NONCE)
    frame.encode_header(good, 128)
    with pytest.raises(ValueError, match=r"."):
        frame.encode_header(dataclasses.replace(good, **fields), 128)


def test_a_compressed_payload_is_read_as_it_was() -> None:
    raw = b"the same again and again, " * 40
    packed = Packer()(raw)
    assert packed is not None
    assert len(packed) < len(raw)
    data = encode([packed], compressed=True)
    found = frame.decode(data, position=128)
    assert isinstance(found, Frame)
    assert found.payload == raw
    assert Packer()(bytes(range(200))) is None, "what does not get smaller stays as it is"


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"\1\0\0", "the compressed payload is cut short"),
        (b"\0\0\0\0", "the compressed payload would become 0 bytes"),
        (b"\1\0\0\x40", "the compressed payload would become 1073741825 bytes"),
        (b"\7\0\0\0nonsense", "the compressed payload cannot be read: .*"),
        (b"\7\0\0\0" + zstandard.compress(b"7 bytes"), "the compressed payload has a second length"),
        (b"\x08\0\0\0" + Packer()(b"seven" * 30)[4:], "the compressed payload cannot be read: .*"),  # type: ignore[index]
        (b"\xff\0\0\0" + Packer()(b"seven" * 30)[4:], "the compressed payload became 150 bytes, not 255"),  # type: ignore[index]
    ],
)
def test_a_payload_that_cannot_be_decompressed_is_damage(packed: bytes, reason: str) -> None:
    """Its checksum is right: only a defect can have written it so."""
    found = frame.decode(encode([packed], compressed=True), position=128)
    assert isinstance(found, Damaged)
    assert re.fullmatch(reason, found.reason)
