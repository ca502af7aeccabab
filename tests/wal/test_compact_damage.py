"""A compacted segment and its key index, cut at every byte and with every bit flipped: no wrong record, what is lost is
named, what is intact is read, and an answer by key is the answer without it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from collector.wal import keys, merging
from collector.wal.log import Log
from tests.wal.logs import CountingNonces, RecordingLogger, open_log
from tests.wal.test_compact import compact_all
from tests.wal.test_format import request
from tests.wal.test_recovery import Image, files_of, flips, lost_offsets, name, reopen

COUNTS = (2, 1)
"""Records of the frames that compaction leaves in the first segment."""


@pytest.fixture(scope="module")
def image() -> Image:
    """A log with a small compacted segment of several frames, and the active one behind it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FRAME_RECORDS", 1)
        log = open_log(files := files_of({}), entropy=CountingNonces(0x0102030405060708), segment_bytes=700)
        for count in (*COUNTS, 20):
            offset = log.next_offset
            log.append([request(offset, count)], count, offset, offset + count - 1)
        compact_all(files, log, entropy=CountingNonces(77))
        assert [one.compacted for one in log.segments] == [True, False]
        assert [frame.count for frame in log.frames()] == [*COUNTS, 20]
        log.close()
    return {one: files.contents(f"/data/traces/{one}") for one in files.listdir("/data/traces")}


def read(log: Log, key: int | None = None) -> list[tuple[int, int, bytes]]:
    """What the log gives, of one trace if `key` names it by its first offset."""
    chosen = {} if key is None else {"index": "trace_id", "any_of": [key.to_bytes(16, "big")]}
    return [(frame.base_offset, frame.count, frame.payload) for frame in log.frames(**chosen)]


def holds_the_rule(log: Log, whole: list[tuple[int, int, bytes]]) -> None:
    """Everything read was written so; everything else is named; a key finds its frame unless that is lost."""
    found = read(log)
    assert [frame for frame in found if frame not in whole] == []
    lost = lost_offsets(log)
    missing = [frame for frame in whole if frame not in found]
    assert {offset for base, count, _ in missing for offset in range(base, base + count)} <= lost
    for frame in found:
        assert frame in read(log, frame[0])


def test_every_prefix_of_a_compacted_segment(image: Image) -> None:
    whole = read(reopen(image))
    data = image[name(0)]
    served = 0
    for length in range(len(data)):
        log = reopen({**image, name(0): data[:length]}, logger=RecordingLogger())
        holds_the_rule(log, whole)
        served += len(read(log)) - 1
    assert served > len(data) // 4, "the frames before the cut are there"


def test_every_flipped_bit_of_a_compacted_segment(image: Image) -> None:
    whole = read(reopen(image))
    for bit, flipped in flips(image[name(0)]):
        log = reopen({**image, name(0): flipped}, logger=RecordingLogger())
        holds_the_rule(log, whole)
        assert len(read(log)) >= len(whole) - 1, bit


@pytest.mark.parametrize("damaged", [lambda data: flips(data), lambda data: ((n, data[:n]) for n in range(len(data)))])
def test_every_flipped_bit_and_every_prefix_of_a_key_index(image: Image, damaged: Callable[[bytes], object]) -> None:
    whole = read(reopen(image))
    found = 0
    for _, wrong in damaged(image[name(0, "keys")]):  # type: ignore[attr-defined]
        log = reopen({**image, name(0, "keys"): wrong}, logger=RecordingLogger())
        for frame in whole:
            assert frame in read(log, frame[0])
        assert log.damaged == ()
        found += log.sealed_segments[0].keyed is False
    size = keys.head_size(image[name(0, "keys")])
    assert isinstance(size, int)
    assert found >= size, "whatever is wrong with the head; pages are judged when they are read"
