"""Frames that follow each other put together: what compaction writes, and what a key index counts as one.

A frame on the way in is one commit, which may be one span. Neighbours are merged up to 256 KiB of payload (protobuf
concatenates), large enough for zstd to find what repeats and for a key to be worth an entry, small enough that reading
one record costs little: 256 KiB are decompressed in about 40 us. A larger frame stays alone; it is never split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from collector.wal.frame import Frame

FRAME_BYTES: Final = 256 * 1024
"""Payload bytes, before compression, up to which frames are merged."""
FRAME_RECORDS: Final = 4096
"""Records up to which frames are merged."""
STEP_FRAMES: Final = 32
"""Frames that are taken in before the next word to the caller."""


def merge(group: Sequence[Frame]) -> Frame:
    """One frame with the records of several that follow each other."""
    if len(group) == 1:
        return group[0]
    return Frame(
        group[0].base_offset,
        sum(one.count for one in group),
        min(one.min_time for one in group),
        max(one.max_time for one in group),
        max(one.append_time for one in group),
        b"".join(one.payload for one in group),
    )


def merged(frames: Iterable[tuple[int, Frame]]) -> Iterator[tuple[int, Frame] | None]:
    """(position of the first, merged frame) for frames given with their positions, none of which may be missing.

    None between them is a place to rest: some frames have been taken in.
    """
    start = 0
    group: list[Frame] = []
    size = records = 0
    for position, one in frames:
        size += len(one.payload)
        records += one.count
        if group and (size > FRAME_BYTES or records > FRAME_RECORDS):
            yield start, merge(group)
            group, size, records = [], len(one.payload), one.count
        if not group:
            start = position
        group.append(one)
        if len(group) % STEP_FRAMES == 0:
            yield None
    if group:
        yield start, merge(group)
