"""Opening a log over whatever a crash, a disk or an operator has left.

The rule of every test: what is read was written exactly so; what is missing is named by its offsets or was a torn
tail; the log opens, goes on, and opens again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from collector.errors import NotFound, Unavailable, UnsupportedFormat
from collector.otlp.signals import LOGS
from collector.testing.files import FaultyFiles, MemoryFiles
from collector.wal import frame, index, recovery, segment
from collector.wal.files import make_directories
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from collector.wal.segment import SegmentHeader
from tests.wal.logs import (
    CountingNonces,
    RecordingLogger,
    append,
    content,
    intact,
    open_log,
    payload,
    segment_paths,
)

DATA = "/data/traces"
Image = dict[str, bytes]


def image_of(frames: int, **options: int) -> tuple[Image, list[tuple[int, int, bytes]]]:
    """(files by name, frames) of a closed log with `frames` frames of 1, 2, 3, 1, 2, 3 … records."""
    files = MemoryFiles()
    log = open_log(files, entropy=CountingNonces(0x0102030405060708), **options)
    for number in range(frames):
        append(log, 1 + number % 3)
    log.close()
    return {name: files.contents(f"{DATA}/{name}") for name in files.listdir(DATA)}, content(log)


def files_of(image: Image) -> MemoryFiles:
    """A file system that holds a log's files."""
    files = MemoryFiles()
    make_directories(files, DATA)
    for name, data in image.items():
        files.put(f"{DATA}/{name}", data)
    return files


def reopen(image: Image, **options: object) -> Log:
    """Open the log of an image."""
    return open_log(files_of(image), **options)


def flips(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(bit, data with that bit flipped) for every bit."""
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(flipped)


def name(base: int, suffix: str = "log") -> str:
    return segment.file_name(base, suffix)


def lost_offsets(log: Log) -> set[int]:
    """Every offset that the log calls damaged."""
    return {offset for d in log.damaged for offset in range(d.first_offset, d.end_offset)}


def holds_the_rule(image: Image, frames: list[tuple[int, int, bytes]], *, tail: bool) -> Log:
    """Open an image made from a log with `frames`, check the rule, and return the log.

    With `tail`, frames may be missing at the end without being named: they may be a torn tail.
    """
    files = files_of(image)
    log = open_log(files)
    got = content(log)
    assert all(found in frames for found in got), "nothing is invented"
    assert got == sorted(got), "and nothing is twice or out of order"
    missing = {base + n for base, count, data in frames if (base, count, data) not in got for n in range(count)}
    named = lost_offsets(log)
    assert named <= missing
    unnamed = missing - named
    if tail:
        # At most the end of the log is missing without a name, and its offsets are free again.
        assert unnamed == set(range(log.next_offset, frames[-1][0] + frames[-1][1]))
    else:
        assert not unnamed
    before = log.next_offset
    append(log, 2, size=40)
    log.close()
    again = open_log(files)
    assert content(again) == [*got, (before, 2, payload(before, 2, 40))]
    return log


# Torn tails


def test_every_prefix_of_the_last_segment() -> None:
    """Exactly the whole frames are recovered, and the bytes cut off are counted."""
    image, frames = image_of(3)
    data = image[name(0)]
    ends = [segment.HEADER_SIZE + 88 * n for n in range(4)]
    for length in range(len(data) + 1):
        log = holds_the_rule({name(0): data[:length]}, frames, tail=True)
        whole = sum(end <= length for end in ends[1:])
        # Only padding may be missing from a frame that counts as whole; these frames have none.
        assert log.recovery.records == sum(count for _, count, _ in frames[:whole]), length
        torn = len(data[:length].rstrip(b"\0")) if length < ends[0] else length - ends[whole]
        assert log.recovery.truncated_bytes <= torn
        assert (log.recovery.truncated_bytes > 0) == (torn > 0)


def test_every_prefix_with_zeros_behind_as_preallocation_leaves_it() -> None:
    image, frames = image_of(2)
    data = image[name(0)]
    for length in range(len(data) + 1):
        holds_the_rule({name(0): data[:length] + bytes(300)}, frames, tail=True)


@pytest.mark.parametrize("rest", [b"\xff" * 33, b"RTFR" * 20, b"\0" * 8 + b"x", b"\0" * 700 + b"\x01"])
def test_garbage_behind_the_last_frame_is_cut_told_and_kept(rest: bytes) -> None:
    image, frames = image_of(2)
    image[name(0)] += rest + bytes(50)
    registry, logger = CollectorRegistry(), RecordingLogger()
    files = files_of(image)
    log = open_log(files, metrics=LogMetrics(registry), logger=logger)
    assert content(log) == frames
    assert log.recovery.truncated_bytes == len(rest)
    assert registry.get_sample_value("ringtail_wal_truncated_bytes_total", {"signal": "traces"}) == len(rest)
    assert logger.named("torn tail cut") == [
        {"path": f"{DATA}/{name(0)}", "position": 128 + 2 * 88, "truncated_bytes": len(rest), "from_offset": 3}
    ]
    assert files.contents(f"{DATA}/{name(0, 'torn')}") == rest
    assert log.segment_count == 2, "a segment that had to be cut is not continued"
    assert log.check() == []


def test_a_large_torn_tail_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "TORN_BYTES_MAX", 10)
    image, _ = image_of(2)
    image[name(0)] += b"x" * 11
    files = files_of(image)
    assert open_log(files).recovery.truncated_bytes == 11
    assert segment_paths(files, "torn") == []


def test_a_torn_tail_goes_with_its_segment() -> None:
    image, _ = image_of(2)
    image[name(0)] += b"x"
    files = files_of(image)
    log = open_log(files, retention_bytes=1)
    assert len(segment_paths(files, "torn")) == 1
    assert log.enforce_retention() == 1
    assert segment_paths(files, "torn") == []


def test_the_last_frame_with_a_torn_payload_is_a_torn_tail() -> None:
    image, frames = image_of(3)
    data = bytearray(image[name(0)])
    data[-10:] = bytes(10)
    log = reopen({name(0): bytes(data)})
    assert content(log) == frames[:2]
    assert log.recovery.damaged == ()
    assert log.recovery.truncated_bytes == 88 - 10
    assert log.next_offset == frames[2][0]


def test_a_segment_that_was_being_created_is_started_anew() -> None:
    image, frames = image_of(5)
    for rest in (b"", bytes(600), b"RING", segment.encode_header(SegmentHeader(1, 9, 5, 0))[:127] + b"x"):
        log = holds_the_rule({**image, name(9): rest}, frames, tail=False)
        assert log.recovery.segments == 1
        assert log.next_offset == 11


def test_a_new_segment_whose_first_frame_is_torn_is_started_anew() -> None:
    image, frames = image_of(6)
    image[name(9)] = image[name(9)][:140]
    log = holds_the_rule(image, frames, tail=True)
    assert log.recovery.truncated_bytes == 12
    assert (log.next_offset, log.segment_count) == (11, 2)


def test_a_write_that_overtook_a_lost_one_is_kept_and_never_mistaken() -> None:
    """After a power cut the second of two unsynced frames may be there without the first."""
    image, frames = image_of(4)
    data = bytearray(image[name(0)])
    data[128 + 88 : 128 + 176] = bytes(88)
    log = holds_the_rule({name(0): bytes(data)}, frames, tail=False)
    assert content(log)[:3] == [frames[0], frames[2], frames[3]]
    assert [(d.first_offset, d.end_offset) for d in log.recovery.damaged] == [(1, 3)]
    assert log.segment_count == 2, "nothing is written where stale frames may follow"


# Damage


@pytest.mark.parametrize("position", ["last", "sealed", "sealed without index"])
def test_every_flipped_bit_of_a_segment(position: str) -> None:
    image, frames = image_of(6)
    assert sorted(image) == [name(0, "index"), name(0), name(9)]
    if position == "last":
        image = {name(0): image[name(0)][: 128 + 2 * 88]}
        frames = frames[:2]
    elif position == "sealed without index":
        del image[name(0, "index")]
    for bit, flipped in flips(image[name(0)][: 128 + 2 * 88]):
        damaged = {**image, name(0): flipped + image[name(0)][128 + 2 * 88 :]}
        log = holds_the_rule(damaged, frames, tail=position == "last")
        if bit < 128 * 8:
            assert content(log)[: len(frames)] == frames, "a damaged segment header loses nothing"


def test_every_flipped_bit_of_an_index() -> None:
    image, frames = image_of(6)
    for _, flipped in flips(image[name(0, "index")]):
        log = reopen({**image, name(0, "index"): flipped})
        assert content(log) == frames
        assert log.recovery.rebuilt_indexes == 1
        assert log.recovery.damaged == ()


def test_every_prefix_of_an_index() -> None:
    image, frames = image_of(6)
    data = image[name(0, "index")]
    for length in range(len(data)):
        files = files_of({**image, name(0, "index"): data[:length]})
        assert content(open_log(files)) == frames
        assert files.contents(f"{DATA}/{name(0, 'index')}") == data, "made anew, byte by byte the same"


def test_an_index_that_is_missing_stale_or_of_another_segment_is_rebuilt_and_told() -> None:
    image, frames = image_of(18)
    index_name = name(9, "index")
    stale = index.encode(index.Summary(1, 300, 216, 12, 0, 9, 1, 3, index.OffsetIndex(9, 128)))
    good = index.decode(image[index_name], 9, 128)
    assert isinstance(good, index.Summary)
    too_far = index.encode(dataclasses.replace(good, next_offset=20))
    for wrong, reason in (
        (None, "the index is missing"),
        (too_far, "the index reaches into the next segment"),
        (image[name(0, "index")], "the index contradicts itself or the segment's name"),
        (stale, "the index belongs to another segment"),
    ):
        registry, logger = CollectorRegistry(), RecordingLogger()
        changed = {key: data for key, data in image.items() if key != index_name}
        if wrong is not None:
            changed[index_name] = wrong
        files = files_of(changed)
        log = open_log(files, logger=logger, metrics=LogMetrics(registry))
        assert content(log) == frames
        assert logger.named("index rebuilt") == [{"path": f"{DATA}/{index_name}", "reason": reason}]
        assert registry.get_sample_value("ringtail_wal_index_rebuilds_total", {"signal": "traces"}) == 1
        assert files.contents(f"{DATA}/{index_name}") == image[index_name]
        assert open_log(files).recovery.rebuilt_indexes == 0


def test_answers_are_the_same_without_any_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "STRETCH_BYTES", 150)
    image, frames = image_of(40)
    bare = {key: data for key, data in image.items() if key.endswith(".log")}
    with_index, without = reopen(image), reopen(bare)
    assert content(with_index) == content(without) == frames
    for offset in range(with_index.next_offset):
        assert with_index.read(offset) == without.read(offset)
    assert [one.index.entries for one in with_index.segments] == [one.index.entries for one in without.segments]


def test_damage_in_a_sealed_segment_is_met_when_it_is_read() -> None:
    """Its index is fine, so opening does not notice; reading does, once, and goes on."""
    image, frames = image_of(6)
    data = bytearray(image[name(0)])
    data[128 + 88 + 70] ^= 1
    registry, logger = CollectorRegistry(), RecordingLogger()
    log = reopen({**image, name(0): bytes(data)}, metrics=LogMetrics(registry), logger=logger)
    assert log.recovery.damaged == ()
    for _ in range(3):
        assert content(log) == [frames[0], *frames[2:]]
        with pytest.raises(NotFound):
            log.read(2)
    assert [str(d) for d in log.damaged] == [
        "Damage(first_offset=1, end_offset=3, reason='at byte 216: payload checksum mismatch')"
    ]
    assert len(logger.named("records damaged")) == 1
    assert registry.get_sample_value("ringtail_wal_damaged_records_total", {"signal": "traces"}) == 2


def test_zeroed_swapped_and_copied_frames_lose_themselves_and_no_others() -> None:
    image, frames = image_of(6)
    good = image[name(0)]
    place = [slice(128 + 88 * n, 128 + 88 * (n + 1)) for n in range(5)]
    zeroed, swapped, copied = bytearray(good), bytearray(good), bytearray(good)
    zeroed[place[1]] = bytes(88)
    swapped[place[1]], swapped[place[3]] = good[place[3]], good[place[1]]
    copied[place[0]] = good[place[4]]
    for data, lost in ((zeroed, [1]), (swapped, [1, 3]), (copied, [0])):
        log = holds_the_rule({**image, name(0): bytes(data)}, frames, tail=False)
        assert content(log)[: 6 - len(lost)] == [f for n, f in enumerate(frames) if n not in lost]


def test_a_good_frame_with_offsets_out_of_order_is_not_served() -> None:
    """No writer makes such frames; a reader that believed them would give offsets twice."""
    image, frames = image_of(6)
    good = image[name(0)]
    for base in (0, 1, 8, 50):
        data = b"out of order at offset !"
        header = frame.Header(base, 2, 0, 0, 0, len(data), frame.checksum([data]), nonce=0x0102030405060708)
        wrong = good[:304] + frame.encode_header(header, 304) + data + good[392:]
        log = holds_the_rule({**image, name(0): wrong}, frames, tail=False)
        assert lost_offsets(log) == {3, 4, 5}
        del image[name(0, "index")]
        log = holds_the_rule({**image, name(0): wrong}, frames, tail=False)
        assert lost_offsets(log) == {3, 4, 5}
        image, _ = image_of(6)


def test_damage_is_forgotten_with_its_segment() -> None:
    image, _ = image_of(6)
    data = bytearray(image[name(0)])
    data[128 + 88 + 70] ^= 1
    log = reopen({**image, name(0): bytes(data)}, retention_bytes=1)
    assert len(content(log)) == 5
    assert len(log.damaged) == 1
    log.enforce_retention()
    assert log.damaged == ()


def test_frames_inside_a_payload_are_never_served() -> None:
    """A client may send the bytes of a log. With its frame damaged, what is inside must not come to light."""
    files = MemoryFiles()
    log = open_log(files)
    inner = b"".join(
        [
            frame.encode_header(frame.Header(1, 1, 0, 0, 0, 8, frame.checksum([b"smuggled"]), nonce=12345), position)
            + b"smuggled"
            for position in range(128 + 64, 128 + 64 + 72 * 4, 72)
        ]
    )
    log.append([inner], 1, 0, 0)
    append(log)
    log.close()
    data = bytearray(files.contents(segment_paths(files)[0]))
    data[128 + 20] ^= 0xFF
    files.put(segment_paths(files)[0], bytes(data))
    log = open_log(files)
    assert content(log) == [(1, 1, payload(1, 1))]
    assert lost_offsets(log) == {0}


def test_a_long_search_finds_the_next_frame_across_the_blocks_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("collector.wal.reader.SEARCH_BYTES", 128)
    image, frames = image_of(6, segment_bytes=4096)
    for first in range(128, 128 + 88 * 4, 8):
        for size in (8, 64, 200):
            data = bytearray(image[name(0)])
            data[first : first + size] = b"\xee" * size
            hit = [n for n in range(6) if 128 + 88 * n < first + size and 128 + 88 * (n + 1) > first]
            log = reopen({name(0): bytes(data[: len(image[name(0)])])})
            survivors = [f for n, f in enumerate(frames) if n not in hit]
            assert content(log) == survivors, (first, size)


def test_a_missing_segment_is_named() -> None:
    image, frames = image_of(18)
    assert sorted(key for key in image if key.endswith("log")) == [name(0), name(9), name(19), name(30)]
    del image[name(9)], image[name(9, "index")]
    log = reopen(image)
    assert content(log) == [f for f in frames if not 9 <= f[0] < 19]
    (damage,) = log.recovery.damaged
    assert (damage.first_offset, damage.end_offset) == (9, 19)
    assert damage.reason == f"segment {name(9)} is missing"
    assert log.recovery.records == frames[-1][0] + frames[-1][1] - 10


def test_a_shortened_sealed_segment_is_named() -> None:
    image, frames = image_of(12)
    image[name(0)] = image[name(0)][: 128 + 88 * 3 + 50]
    log = holds_the_rule(image, frames, tail=False)
    assert [(d.first_offset, d.end_offset) for d in log.recovery.damaged] == [(6, 9)]
    log = reopen({key: data for key, data in image.items() if key != name(9)})
    assert lost_offsets(log) == {6, 7, 8} | set(range(9, 19)), "and so it is when its successor is gone as well"


def test_the_loss_at_the_end_of_a_sealed_segment_is_named_at_every_start() -> None:
    image, _ = image_of(12)
    image[name(0)] = image[name(0)][: 128 + 88 * 3 + 50]
    files = files_of(image)
    for rebuilt in (1, 0, 0):
        log = open_log(files)
        assert log.recovery.rebuilt_indexes == rebuilt
        assert lost_offsets(log) == {6, 7, 8}


def test_a_segment_of_which_nothing_is_left_is_named_and_stays() -> None:
    image, frames = image_of(12)
    image[name(9)] = b"\0" * len(image[name(9)])
    del image[name(9, "index")]
    log = holds_the_rule(image, frames, tail=False)
    assert lost_offsets(log) == set(range(9, 19))
    files = files_of(image)
    log = open_log(files, retention_age_s=1.0)
    assert log.enforce_retention() == 0, "its age is that of the one behind it"


@pytest.mark.parametrize("with_index", [True, False])
def test_without_its_header_a_segment_is_read_by_its_index_or_its_frames(with_index: bool) -> None:
    image, frames = image_of(12)
    image[name(0)] = b"\xff" * 128 + image[name(0)][128:]
    if not with_index:
        del image[name(0, "index")]
        image[name(0)] = image[name(0)][: 128 + 88 * 4]
        frames = frames[:4] + frames[5:]
    log = reopen(image)
    assert content(log) == frames


def test_a_segment_from_elsewhere_is_set_aside_untouched() -> None:
    image, frames = image_of(6)
    copy = image[name(0)]
    other = segment.encode_header(SegmentHeader(LOGS.code, 11, 9, 0)) + b"frames of logs"
    files = files_of({**image, name(11): copy, name(500): other})
    logger = RecordingLogger()
    log = open_log(files, logger=logger)
    assert content(log) == frames
    assert log.next_offset == 12
    assert files.contents(f"{DATA}/{name(11)}.foreign") == copy
    assert files.contents(f"{DATA}/{name(500)}.foreign") == other
    assert len(logger.named("segment of another place set aside")) == 2


def test_leftovers_are_removed_and_strangers_left_alone() -> None:
    image, frames = image_of(12)
    leftovers = {name(9, "index") + ".tmp": b"x", name(7, "index"): b"x", name(0, "torn") + ".tmp": b"x"}
    strangers = {"notes.txt": b"x", "notes.tmp": b"y"}
    files = files_of(image | leftovers | strangers)
    assert content(open_log(files)) == frames
    assert set(files.listdir(DATA)) == set(image) | set(strangers)


def test_a_newer_version_is_refused_and_nothing_is_changed() -> None:
    image, _ = image_of(12)
    header = bytearray(image[name(9)][:128])
    header[8] = 3
    header[124:] = frame.checksum([bytes(header[:124])]).to_bytes(4, "little")
    image[name(9)] = bytes(header) + b"in a format of the future"
    image |= {name(0, "index"): b"damaged", name(3, "index") + ".tmp": b"left over", name(19): b"torn"}
    files = files_of(image)
    with pytest.raises(UnsupportedFormat, match=f"{DATA}/{name(9)} has format version 3"):
        open_log(files)
    assert {key: files.contents(f"{DATA}/{key}") for key in files.listdir(DATA)} == image
    assert files.open_handles == 0


def test_no_offset_is_given_out_twice() -> None:
    """Neither one that a damaged segment's successor proves, nor one that only a file's name tells of."""
    image, _ = image_of(12)
    del image[name(19)]
    image[name(9)] = b"x"
    assert reopen({**image, name(19): b""}).next_offset == 19
    assert reopen({name(77): b""}).next_offset == 77


# Devices that refuse


class BadSectors(MemoryFiles):
    """Reads that touch some bytes of the log's first segment fail."""

    bad = range(0)

    def pread(self, handle: int, length: int, position: int) -> bytes:
        """See `Files.pread`."""
        hit = self.bad and position < self.bad.stop and position + length > self.bad.start
        if hit and self._opened(handle).file is self._file(f"{DATA}/{name(0)}"):
            raise OSError(5, "Input/output error")
        return super().pread(handle, length, position)


def bad_sectors(image: Image) -> BadSectors:
    files = BadSectors()
    make_directories(files, DATA)
    for key, data in image.items():
        files.put(f"{DATA}/{key}", data)
    return files


def test_frames_around_an_unreadable_sector_are_read() -> None:
    """Sealed segment; the sector comes back later, and so do its frames."""
    image, frames = image_of(120, segment_bytes=9000)
    for indexed in (True, False):
        files = bad_sectors(image if indexed else {k: d for k, d in image.items() if k.endswith("log")})
        files.bad = range(4096, 8192)
        log = open_log(files)
        hit = [n for n, f in enumerate(frames) if 128 + 88 * n < 8192 and 128 + 88 * (n + 1) > 4096]
        assert content(log) == [f for n, f in enumerate(frames) if n not in hit]
        assert lost_offsets(log) == set(range(frames[hit[0]][0], frames[hit[-1] + 1][0]))
        log.close()
        files.bad = range(0)
        assert content(open_log(files)) == frames


def test_an_unreadable_last_segment_is_neither_cut_nor_continued() -> None:
    image, frames = image_of(100, segment_bytes=20_000)
    data = image[name(0)]
    files = bad_sectors(image)
    files.bad = range(4096, 1_000_000)
    log = open_log(files)
    readable = [f for n, f in enumerate(frames) if 128 + 88 * (n + 1) <= 4096]
    assert content(log) == readable
    assert log.next_offset > frames[-1][0] + frames[-1][1], "whatever offsets are in there stay theirs"
    base = append(log)
    log.close()
    assert files.contents(f"{DATA}/{name(0)}") == data
    files.bad = range(0)
    log = open_log(files)
    assert content(log) == [*frames, (base, 1, payload(base, 1))]


def test_a_file_system_that_refuses_is_told_as_unavailable() -> None:
    files = FaultyFiles(MemoryFiles(), {"listdir"}, 1, 13)
    with pytest.raises(Unavailable, match=r"the log /data/traces cannot be opened: .*Permission denied"):
        open_log(files)
    files = FaultyFiles(MemoryFiles())
    log = open_log(files)
    append(log)
    files._operations, files._at, files._left, files._error = frozenset({"open"}), 1, 1, 24
    with pytest.raises(Unavailable, match="Too many open files"):
        content(log)
    assert [intact(found) for found in log.frames()] == [True]
