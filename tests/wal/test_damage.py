"""Every cut, every flipped bit, every lost sector of segments of a useful size, and of their indexes.

tests/wal/test_recovery.py has each kind of damage on the smallest segment that shows it, in every run. Here the
segments are those of rows R3, R4 and R18 of docs/reliability.md: 64 KiB to be cut at each byte, 16 KiB of which each bit
is flipped, in each form that a segment takes. That is some hundred thousand logs to open, so the short form takes a
sample. The rule for all of them is `holds_the_rule`; and no record is lost that did not lie in the damaged bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Final

import pytest

from collector.testing.files import MemoryFiles
from collector.wal import frame, index, merging, reader, segment
from collector.wal.frame import Damaged, Frame, Header
from tests.effort import Effort
from tests.wal.logs import CountingNonces, content, open_log
from tests.wal.test_compact import compact_all
from tests.wal.test_recovery import DATA, Image, files_of, holds_the_rule, name

Frames = list[tuple[int, int, bytes]]

FORMS: Final = ("last", "sealed", "sealed without index", "compacted")
STRETCH_BYTES: Final = 700
"""Small, so that indexes have entries."""
FRAME_RECORDS: Final = 20
"""Small, so that compacted segments have frames."""
CHUNK: Final = 256
SECTOR, BLOCK = 512, 4096


@dataclass(frozen=True, slots=True)
class Case:
    """A log, and which of its files is to be damaged."""

    image: Image
    frames: Frames
    extents: list[tuple[int, int]]
    """(first byte, byte behind the last) of each frame of the segment at offset 0."""
    target: str
    last: bool
    """Whether the segment is the last one, of which frames at the end may be taken for a torn tail."""


@cache
def case(form: str, size: int) -> Case:
    """A log whose first segment has about so many bytes, in one of the forms."""
    files = MemoryFiles()
    chance = random.Random(size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "STRETCH_BYTES", STRETCH_BYTES)
        patch.setattr(merging, "FRAME_RECORDS", FRAME_RECORDS)
        log = open_log(files, entropy=CountingNonces(0x0102030405060708), segment_bytes=size)
        while log.segment_count < 2:
            offset, count = log.next_offset, chance.randint(1, 9)
            log.append([chance.randbytes(chance.randint(100, 600))], count, offset, offset + count - 1)
        if form == "compacted":
            assert compact_all(files, log) == 1
            assert log.sealed_segments[0].compacted
        log.close()
        frames = content(log)
    image = {key: files.contents(f"{DATA}/{key}") for key in files.listdir(DATA)}
    image = {key: data for key, data in image.items() if not key.endswith("spare")}
    if form == "last":
        image = {name(0): image[name(0)]}
        frames = frames[:-1]
    elif form == "sealed without index":
        del image[name(0, "index")]
    return Case(image, frames, extents(image[name(0)]), name(0), form == "last")


def extents(data: bytes) -> list[tuple[int, int]]:
    """Where the frames of a good segment lie."""
    found = []
    at = 128
    nonce = int.from_bytes(data[24:32], "little")
    while at < len(data):
        header = frame.decode_header(data, at, position=at, nonce=nonce)
        assert isinstance(header, frame.Header)
        found.append((at, at + header.size))
        at += header.size
    return found


def judge(of: Case, data: bytes, first: int, end: int) -> int:
    """Put `data`, which is damaged in bytes [first, end), in place of the target, and find the rule kept.

    Returns how many records were lost.
    """
    log = holds_the_rule({**of.image, of.target: data}, of.frames, tail=of.last)
    got = {base for base, _, _ in content(log)}
    lost = 0
    for number, (base, count, _) in enumerate(of.frames):
        if base not in got:
            lost += count
            hit = number < len(of.extents) and of.extents[number][0] < end and of.extents[number][1] > first
            assert hit, f"offset {base} is lost, and not in the damaged bytes {first} to {end}"
    return lost


def cut(of: Case, length: int) -> int:
    """Cut the target after `length` bytes."""
    data = of.image[of.target]
    return judge(of, data[:length], length, len(data))


def flip(of: Case, bit: int) -> int:
    """Flip one bit of the target."""
    data = bytearray(of.image[of.target])
    data[bit // 8] ^= 1 << bit % 8
    return judge(of, bytes(data), bit // 8, bit // 8 + 1)


def overwrite(of: Case, change: tuple[int, int, int]) -> int:
    """Write over `length` bytes at `at` what stands at `source`; zeros for -1, noise for -2."""
    at, length, source = change
    good = of.image[of.target]
    part = {-1: bytes(length), -2: random.Random(at).randbytes(length)}.get(source, good[source : source + length])
    data = bytearray(good)
    data[at : at + len(part)] = part
    return judge(of, bytes(data[: len(good)]), at, at + length)


def run_chunk(damage: Callable[[Case, object], int], form: str, size: int, chunk: Sequence[object]) -> int:
    """Do some of the damage, in a process of its own perhaps."""
    of = case(form, size)
    lost = 0
    for one in chunk:
        try:
            lost += damage(of, one)
        except Exception as error:
            raise AssertionError(f"{form}, {damage.__name__} {one}: {error!r}") from error
    return lost


def inflict(
    effort: Effort, damage: Callable[..., int], form: str, size: int, everything: Sequence[object], short: int
) -> None:
    """Do all of the damage, or a sample of it, find the rule kept each time, and report."""
    chosen = effort.some(everything, short)
    chunks = [chosen[at : at + CHUNK] for at in range(0, len(chosen), CHUNK)]
    work = partial(run_chunk, damage, form, size)
    if effort.long:
        # Not forked: pytest's process may have threads.
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            lost = sum(pool.map(work, chunks))
    else:
        lost = sum(map(work, chunks))
    row = {"cut": "R3", "flip": "R4", "overwrite": "R4"}[damage.__name__]
    figures = {"bytes": len(case(form, size).image[name(0)]), "frames": len(case(form, size).extents)}
    effort.report(
        row, damage=damage.__name__, segment=form, logs=len(chosen), of=len(everything), **figures, records_lost=lost
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_segment_is_cut_at_each_byte(form: str, effort: Effort) -> None:
    inflict(effort, cut, form, 64 * 1024, range(len(case(form, 64 * 1024).image[name(0)])), 150)


@pytest.mark.parametrize("form", FORMS)
def test_each_bit_of_a_segment_is_flipped(form: str, effort: Effort) -> None:
    inflict(effort, flip, form, 16 * 1024, range(8 * len(case(form, 16 * 1024).image[name(0)])), 300)


@pytest.mark.parametrize("form", FORMS)
def test_sectors_and_blocks_are_lost_or_written_elsewhere(form: str, effort: Effort) -> None:
    """Zeros, noise, or what belongs to another place."""
    size = 64 * 1024
    length = len(case(form, size).image[name(0)])
    changes = [
        *((at, SECTOR, source) for at in range(0, length, SECTOR) for source in (-1, -2)),
        *(
            (at, BLOCK, source)
            for at in range(0, length, BLOCK)
            for source in (-1, -2, *range(0, length, BLOCK))
            if at != source
        ),
    ]
    inflict(effort, overwrite, form, size, changes, 60)


# Indexes


def index_case() -> tuple[Case, list[Frame]]:
    """A log of three sealed segments, the damage to be done to the first one's index; and every frame by a full scan."""
    files = MemoryFiles()
    chance = random.Random(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "STRETCH_BYTES", STRETCH_BYTES)
        log = open_log(files, entropy=CountingNonces(0x0102030405060708), segment_bytes=16 * 1024)
        while log.segment_count < 4:
            offset, count = log.next_offset, chance.randint(1, 9)
            log.append([chance.randbytes(chance.randint(100, 600))], count, offset, offset + count - 1)
        log.close()
    image = {key: files.contents(f"{DATA}/{key}") for key in files.listdir(DATA)}
    bare = {key: data for key, data in image.items() if not key.endswith("index")}
    frames = list(open_log(files_of(bare)).frames())
    return Case(image, content(open_log(files_of(bare))), [], name(0, "index"), last=False), frames


def looked_up(of: Case, data: bytes | None, frames: list[Frame], chance: random.Random, lookups: int) -> None:
    """Put `data` in place of an index, and find every answer right and the index good again after the start."""
    image = dict(of.image)
    good = image.pop(of.target)
    if data is not None:
        image[of.target] = data
    files = files_of(image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "STRETCH_BYTES", STRETCH_BYTES)
        log = open_log(files)
        for one in chance.sample(frames, lookups):
            offset = chance.randrange(one.base_offset, one.end_offset)
            assert log.read(offset) == one
            assert list(log.frames(start_ns=one.min_time, end_ns=one.min_time)) == [one]
        assert log.recovery.rebuilt_indexes == (data != good)
        assert log.recovery.damaged == ()
    assert files.contents(f"{DATA}/{of.target}") == good


def test_each_bit_of_an_index_is_flipped(effort: Effort) -> None:
    of, frames = index_case()
    good = of.image[of.target]
    assert len(good) > segment.HEADER_SIZE
    bits = effort.some(range(8 * len(good)), 100)
    for bit in bits:
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        looked_up(of, bytes(flipped), frames, effort.chance(bit), 3)
    effort.report("R4", damage="flip", segment="index", logs=len(bits), of=8 * len(good), bytes=len(good))


def test_an_index_that_is_not_its_segments_is_made_anew(effort: Effort) -> None:
    """Missing, cut, longer, with noise in it, of another segment, or of this one when it was shorter."""
    of, frames = index_case()
    good = of.image[of.target]
    others = [data for key, data in of.image.items() if key.endswith("index") and key != of.target]
    rounds = effort.times(60, 1000)
    for number in range(rounds):
        chance = effort.chance(number)
        at, length = chance.randrange(len(good)), chance.randint(1, 64)
        wrong = chance.choice(
            [
                None,
                good[:at],
                good + chance.randbytes(length),
                good[:at] + chance.randbytes(length) + good[at + length :],
                good[:at] + bytes(length) + good[at + length :],
                chance.choice(others),
                stale(good, chance),
            ]
        )
        looked_up(of, wrong, frames, chance, 10)
    effort.report("R18", damaged_indexes=rounds, lookups=20 * rounds)


def stale(good: bytes, chance: random.Random) -> bytes:
    """An index as it would have been when the segment was shorter."""
    summary = index.decode(good, 0, segment.HEADER_SIZE)
    assert not isinstance(summary, Damaged)
    kept = chance.randint(1, len(summary.index) - 1)
    shorter = index.OffsetIndex(0, segment.HEADER_SIZE)
    for offset, position in summary.index.entries[:kept]:
        shorter.add(offset, position)
    offset, position = summary.index.entries[kept]
    return index.encode(replace(summary, index=shorter, size=position, file_size=position, next_offset=offset))


# The canaries


def test_a_reader_that_checks_no_payload_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def believing(header: Header, payload: bytes, unpack: object) -> Frame:
        return Frame(header.base_offset, header.count, header.min_time, header.max_time, header.append_time, payload)

    monkeypatch.setattr(frame, "with_payload", believing)
    of = case("sealed", 16 * 1024)
    with pytest.raises(AssertionError, match="nothing is invented"):
        flip(of, 8 * (of.extents[3][0] + frame.HEADER_SIZE + 5))


def test_a_reader_that_gives_up_behind_damage_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader.Walk, "_search", lambda self, position: None)
    of = case("sealed without index", 16 * 1024)
    with pytest.raises(AssertionError, match="not in the damaged bytes"):
        flip(of, 8 * of.extents[3][0])


def test_an_index_believed_without_its_checksum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    of, frames = index_case()
    flipped = bytearray(of.image[of.target])
    flipped[index.HEADER_SIZE + index.ENTRY_SIZE + 4] ^= 8  # a position that is no frame's
    monkeypatch.setattr(index, "checksum", lambda pieces: int.from_bytes(flipped[92:96], "little"))
    with pytest.raises(AssertionError):
        looked_up(of, bytes(flipped), frames, random.Random(1), 3)
