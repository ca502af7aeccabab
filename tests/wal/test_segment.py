"""The segment's header and name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import UnsupportedFormat
from collector.wal import frame, segment
from collector.wal.frame import Damaged
from collector.wal.segment import Predecessor, SegmentHeader

u64 = st.integers(0, 2**64 - 1)
predecessors = st.none() | st.builds(Predecessor, st.integers(0, 2**64 - 2), u64, u64)
headers = st.builds(
    SegmentHeader, st.integers(1, 3), u64, st.integers(1, 2**64 - 1), u64, predecessors, u64, st.none() | u64
)
COMPACTED = SegmentHeader(2, 42, 7, 1000, Predecessor(0, 640, 42), 0, 5000)
HEADER = SegmentHeader(2, 42, 7, 1000, Predecessor(0, 640, 42))


@given(headers)
def test_a_header_reads_back(header: SegmentHeader) -> None:
    data = segment.encode_header(header)
    assert len(data) == segment.HEADER_SIZE
    assert segment.decode_header(data + b"frames", "x") == header


@pytest.mark.parametrize("header", [SegmentHeader(2, 42, 7, 1000), COMPACTED], ids=["version 1", "version 2"])
def test_every_prefix_and_every_flipped_bit_is_noticed(header: SegmentHeader) -> None:
    data = segment.encode_header(header)
    for length in range(len(data)):
        assert isinstance(segment.decode_header(data[:length], "x"), Damaged)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert isinstance(segment.decode_header(bytes(flipped), "x"), Damaged), bit


def with_version(version: int) -> bytes:
    """A header as another version would write it: same places, right checksum."""
    data = bytearray(segment.encode_header(HEADER))
    data[8:10] = version.to_bytes(2, "little")
    data[124:] = frame.checksum([bytes(data[:124])]).to_bytes(4, "little")
    return bytes(data)


def test_a_newer_version_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFormat, match=r"^/wal/traces/x\.log has format version 3; .* reads up to 2"):
        segment.decode_header(with_version(3), "/wal/traces/x.log")
    assert isinstance(segment.decode_header(with_version(0), "x"), Damaged)


def test_only_a_compacted_segment_has_a_version_that_the_first_release_refuses() -> None:
    assert segment.encode_header(HEADER)[8] == 1
    assert segment.encode_header(COMPACTED)[8] == 2


@given(st.integers(0, segment.BASE_OFFSET_MAX), st.sampled_from(["log", "index", "torn"]))
def test_names_read_back_and_sort_as_offsets(base: int, suffix: str) -> None:
    name = segment.file_name(base, suffix)
    assert segment.parse_name(name) == (base, suffix)
    assert base == 0 or segment.file_name(base - 1, suffix) < name


@pytest.mark.parametrize(
    "name",
    [
        "LOCK",
        "0.log",
        f"{segment.BASE_OFFSET_MAX + 1:020d}.log",
        "00000000000000000000.log.tmp",
        "0000000000000000000a.log",
        "00000000000000000000.idx",
    ],
)
def test_other_names_are_left_alone(name: str) -> None:
    assert segment.parse_name(name) is None
