"""The sparse offset index against a list, and its file against damage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.wal import index
from collector.wal.frame import Damaged
from collector.wal.index import OffsetIndex, Summary

START = 128
BASE = 1000


def build(frames: list[tuple[int, int]]) -> tuple[OffsetIndex, list[tuple[int, int]], tuple[int, int]]:
    """(index, every frame's (offset, position), end) of a segment whose frames are (records, bytes)."""
    made = OffsetIndex(BASE, START)
    offset, position = BASE, START
    places = []
    for count, size in frames:
        made.add(offset, position)
        places.append((offset, position))
        offset, position = offset + count, position + size
    return made, places, (position, offset)


sizes = st.integers(1, 30_000).map(lambda size: size * 8)
frames = st.lists(st.tuples(st.integers(1, 50), sizes), max_size=40)


@given(frames, st.integers(0, 2500), st.integers(0, 2500))
def test_marks_enclose_the_frames_wanted_and_little_more(frames: list[tuple[int, int]], start: int, end: int) -> None:
    made, places, (size, next_offset) = build(frames)
    marks = made.marks(start, end, (size, next_offset))
    known = dict(places) | {next_offset: size, BASE: START}
    assert all(known[offset] == position for offset, position in marks), "a mark is where a frame begins or ends"
    assert marks == sorted(set(marks))
    wanted = [
        (offset, position)
        for (offset, position), (after, _) in zip(places, [*places[1:], (next_offset, size)], strict=False)
        if offset < end and after > start
    ]
    if wanted:
        assert marks[0] <= wanted[0]
        assert marks[-1] > wanted[-1]
        entries_between = [entry for entry in made.entries if marks[0] < entry < wanted[0]]
        assert entries_between == [], "the walk begins at the last entry before what is wanted"


@given(frames)
def test_entries_lie_a_stretch_apart(frames: list[tuple[int, int]]) -> None:
    made, places, _ = build(frames)
    assert made.entries[:1] == places[:1]
    last = START
    for offset, position in places[1:]:
        assert ((offset, position) in made.entries) == (position - last >= index.STRETCH_BYTES)
        if position - last >= index.STRETCH_BYTES:
            last = position


def test_a_reader_does_not_see_past_the_end_that_it_knows() -> None:
    """The writer may add entries while a reader works with an older end."""
    made, places, _ = build([(1, index.STRETCH_BYTES)] * 4)
    (third_offset, third_position) = places[2]
    assert made.marks(0, 2**64, (third_position, third_offset)) == places[:3]


def summary(frames: list[tuple[int, int]]) -> Summary:
    made, _, (size, next_offset) = build(frames)
    return Summary(77, size + 40, size, next_offset, 5, 6, 7, 8, made)


@given(frames)
def test_an_index_file_reads_back(frames: list[tuple[int, int]]) -> None:
    wrote = summary(frames)
    data = index.encode(wrote)
    got = index.decode(data, BASE, START)
    assert isinstance(got, Summary)
    assert got.index.entries == wrote.index.entries
    assert (got.nonce, got.file_size, got.size, got.next_offset) == (
        77,
        wrote.size + 40,
        wrote.size,
        wrote.next_offset,
    )
    assert (got.min_time, got.max_time, got.last_append, got.records) == (5, 6, 7, 8)


def test_every_prefix_and_every_flipped_bit_is_noticed() -> None:
    data = index.encode(summary([(2, index.STRETCH_BYTES)] * 3))
    for length in range(len(data)):
        assert isinstance(index.decode(data[:length], BASE, START), Damaged)
    assert isinstance(index.decode(data + b"\0" * 8, BASE, START), Damaged)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert isinstance(index.decode(bytes(flipped), BASE, START), Damaged), bit


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.index.__init__(BASE + 1, START),
        lambda s: s.index._positions.append(START) or s.index._offsets.append(9),
        lambda s: s.index._positions.append(s.size) or s.index._offsets.append(5),
        lambda s: s.index._positions.append(s.size - 8) or s.index._offsets.append(6),
    ],
)
def test_an_index_that_contradicts_itself_is_refused_though_its_checksum_is_right(change) -> None:
    wrong = summary([(2, index.STRETCH_BYTES)] * 3)
    change(wrong)
    assert isinstance(index.decode(index.encode(wrong), BASE, START), Damaged)
