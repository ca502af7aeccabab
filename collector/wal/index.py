"""The sparse offset index of a segment: from an offset to a byte near it.

One entry per 64 KiB of log, so a reader lands at most one stretch of frames before what it wants and walks the
rest by headers. In memory two arrays of u32 and a binary search: 1 byte of memory per 8 KiB of log. On disk,
beside a sealed segment, with what the log wants to know of it without reading it; little-endian:

```
 at  size  field
  0     8  magic          "RINGTIDX"
  8     2  format version 1
 10     2  header size    96
 12     4  entry count
 16     8  base offset    of the segment
 24     8  nonce          of the segment
 32     8  file size      of the segment's file when this index was made
 40     8  size           bytes up to the end of the segment's last frame
 48     8  next offset    after the segment's last record
 56     8  min time       smallest record time, ns; larger than max time when there is no frame
 64     8  max time       largest
 72     8  last append    append time of the newest frame, ns since the Unix epoch
 80     8  records        in all readable frames
 88     4  reserved       zeros
 92     4  checksum       CRC32C of bytes 0 to 91 and the entries
 96        entries        8 bytes each: offset relative to the base u32, position u32; both strictly rising
```

The index can always be made again from its segment. So it is believed only when everything about it agrees, and
made anew otherwise; losing one costs a scan of its segment at the next start, never a record.
"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from collector.wal.frame import Damaged, checksum
from collector.wal.search import marks

MAGIC: Final = b"RINGTIDX"
VERSION: Final = 1
HEADER_SIZE: Final = 96
ENTRY_SIZE: Final = 8
STRETCH_BYTES: Final = 64 * 1024
"""An entry is made for the first frame that starts this far or farther behind the last entry's."""

_FIELDS: Final = struct.Struct("<8sHHIQQQQQQQQQ4x")
_CHECKSUM: Final = struct.Struct("<I")

assert _FIELDS.size + _CHECKSUM.size == HEADER_SIZE
assert array("I").itemsize == 4


class OffsetIndex:
    """(offset, position) of some frames of one segment, rising in both.

    Only the log's writer adds. A reader in another thread may call everything else meanwhile: positions are
    added before the offsets that lead to them.
    """

    __slots__ = ("_offsets", "_positions", "base_offset", "start")

    def __init__(self, base_offset: int, start: int) -> None:
        """An empty index of a segment whose frames begin at byte `start` with offset `base_offset`."""
        self.base_offset = base_offset
        self.start = start
        self._offsets = array("I")
        self._positions = array("I")

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def entries(self) -> list[tuple[int, int]]:
        """All (offset, position), in order."""
        return [(self.base_offset + relative, at) for relative, at in zip(self._offsets, self._positions, strict=False)]

    def add(self, offset: int, position: int) -> None:
        """Tell of the next frame; it gets an entry if the last one is far enough behind."""
        if not self._positions or position - self._positions[-1] >= STRETCH_BYTES:
            self._positions.append(position)
            self._offsets.append(offset - self.base_offset)

    def marks(self, start_offset: int, end_offset: int, end: tuple[int, int]) -> list[tuple[int, int]]:
        """Where to walk for the offsets from `start_offset` to before `end_offset`.

        `end` is the segment's (size, next offset) as the caller knows it. Returns (offset, position) pairs in
        order: a place at or before the first frame wanted, every entry between, and a place at or behind the end
        of the last one; nothing if nothing can be wanted. Frames between two pairs are walked by their headers.
        """
        return marks(self._offsets, self._positions, self.base_offset, self.start, (start_offset, end_offset), end)


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """The content of an index file. Fields as in the layout above."""

    nonce: int
    file_size: int
    size: int
    next_offset: int
    min_time: int
    max_time: int
    last_append: int
    records: int
    index: OffsetIndex


def encode(summary: Summary) -> bytes:
    """The bytes of the index file."""
    index = summary.index
    count = len(index)
    pairs = array("I", bytes(ENTRY_SIZE * count))
    pairs[0::2] = index._offsets[:count]
    pairs[1::2] = index._positions[:count]
    if sys.byteorder == "big":
        pairs.byteswap()
    entries = pairs.tobytes()
    fields = _FIELDS.pack(
        MAGIC,
        VERSION,
        HEADER_SIZE,
        count,
        index.base_offset,
        summary.nonce,
        summary.file_size,
        summary.size,
        summary.next_offset,
        summary.min_time,
        summary.max_time,
        summary.last_append,
        summary.records,
    )
    return fields + _CHECKSUM.pack(checksum([fields, entries])) + entries


def decode(data: bytes, base_offset: int, start: int) -> Summary | Damaged:
    """Judge an index file of the segment with this base offset, whose frames begin at byte `start`."""
    if len(data) < HEADER_SIZE:
        return Damaged("the index is cut short")
    magic, version, header_size, count, base, nonce, file_size, size, next_offset, *facts = _FIELDS.unpack_from(data)
    min_time, max_time, last_append, records = facts
    entries = data[HEADER_SIZE:]
    if magic != MAGIC or version != VERSION or header_size != HEADER_SIZE:
        return Damaged("not an index of this version")
    if len(entries) != ENTRY_SIZE * count:
        return Damaged(f"{len(entries)} bytes of entries where {count} entries are announced")
    if checksum([data[: _FIELDS.size], entries]) != _CHECKSUM.unpack_from(data, _FIELDS.size)[0]:
        return Damaged("index checksum mismatch")
    pairs = array("I", entries)
    if sys.byteorder == "big":
        pairs.byteswap()
    index = OffsetIndex(base_offset, start)
    index._offsets, index._positions = pairs[0::2], pairs[1::2]
    ends = [*index._offsets, next_offset - base], [*index._positions, size]
    rising = all(a < b for column in ends for a, b in pairwise(column))
    if base != base_offset or not rising or not start <= size <= file_size or next_offset < base:
        return Damaged("the index contradicts itself or the segment's name")
    return Summary(nonce, file_size, size, next_offset, min_time, max_time, last_append, records, index)
