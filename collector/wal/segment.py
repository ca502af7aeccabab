"""The segment: one file of frames, named after the offset of its first record.

```
 at  size  field
  0     8  magic             "RINGTAIL"
  8     2  format version    1, or 2 for a segment that was compacted
 10     2  header size       128
 12     4  signal code       1 traces, 2 logs, 3 metrics
 16     8  base offset       offset of the first record; also the file's name
 24     8  nonce             random, never 0; every frame of the file carries it
 32     8  created           ns since the Unix epoch
 40     8  predecessor       base offset of the segment before, all ones for none
 48     8                    its size in bytes, as far as frames were written
 56     8                    its next offset
 64     8  original size     of a compacted segment: its size in bytes before; else zeros
 72     8  recycled          size of the file that this one was written over; 0: the file was new
 80    44  reserved          zeros
124     4  checksum          CRC32C of bytes 0 to 123
128        frames, see frame.py; after the last one zeros or the end of the file
```

The zeros behind the last frame are at least 8 bytes. In a recycled file, up to its former size, leftovers of another
segment may follow them; in a new one zeros follow, of space allocated ahead.

A segment is written with version 1, and takes version 2 when it is compacted (compact.py): its frames may then be
compressed, which version 1 did not know. It keeps its name, offsets, time of creation and predecessor, and gets a new
nonce, so that an index or a frame of its former self cannot be taken for its own.

Every later version keeps magic, version and checksum where they are, so that a reader can tell a newer file
(refused, untouched) from a damaged one (read as far as it goes). The predecessor makes a missing or shortened
file visible; it is a record of the past, so it may name a segment that retention has removed.

A damaged segment header loses nothing: the nonce is also in the index and in every frame, the base offset in
the file's name.
"""

from __future__ import annotations

import re
import struct
import threading
from dataclasses import dataclass, field
from typing import Final

import google_crc32c

from collector.errors import UnsupportedFormat
from collector.wal.frame import Damaged, Header
from collector.wal.index import OffsetIndex, Summary

MAGIC: Final = b"RINGTAIL"
VERSION: Final = 1
VERSION_COMPACTED: Final = 2
HEADER_SIZE: Final = 128
OFFSETS_MAX: Final = 1 << 32
"""Offsets of one segment: its index tells them relative to the first, in 32 bits."""
BASE_OFFSET_MAX: Final = (1 << 63) - 1
LOG_SUFFIX: Final = "log"
INDEX_SUFFIX: Final = "index"
KEYS_SUFFIX: Final = "keys"
TORN_SUFFIX: Final = "torn"
SPARE_SUFFIX: Final = "spare"

_FIELDS: Final = struct.Struct("<8sHHIQQQQQQQQ44x")
_CHECKSUM: Final = struct.Struct("<I")
_NO_PREDECESSOR: Final = 2**64 - 1
_SUFFIXES: Final = (LOG_SUFFIX, INDEX_SUFFIX, KEYS_SUFFIX, TORN_SUFFIX, SPARE_SUFFIX)
_NAME: Final = re.compile(rf"([0-9]{{20}})\.({'|'.join(_SUFFIXES)})")

assert _FIELDS.size + _CHECKSUM.size == HEADER_SIZE


def file_name(base_offset: int, suffix: str = LOG_SUFFIX) -> str:
    """The name of a segment's file: 20 digits, so that names sort as offsets do."""
    return f"{base_offset:020d}.{suffix}"


def parse_name(name: str) -> tuple[int, str] | None:
    """(base offset, suffix) of a file name that `file_name` made, or None."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), match[2]) if match and int(match[1]) <= BASE_OFFSET_MAX else None


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The segment before, as it was when this one was started."""

    base_offset: int
    size: int
    """Bytes up to the end of its last frame."""
    next_offset: int


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The first 128 bytes of a segment."""

    signal_code: int
    base_offset: int
    nonce: int
    created: int
    """Nanoseconds since the Unix epoch."""
    predecessor: Predecessor | None = None
    recycled: int = 0
    """Bytes of the file, from its begin, that may be another segment's; see the layout."""
    original_size: int | None = None
    """Of a compacted segment, the bytes it had before, up to the end of its last frame; else None."""

    @property
    def compacted(self) -> bool:
        """Whether the segment's frames were merged and compressed."""
        return self.original_size is not None


def encode_header(header: SegmentHeader) -> bytes:
    """The 128 bytes of a segment header."""
    before = header.predecessor or Predecessor(_NO_PREDECESSOR, 0, 0)
    fields = _FIELDS.pack(
        MAGIC,
        VERSION_COMPACTED if header.compacted else VERSION,
        HEADER_SIZE,
        header.signal_code,
        header.base_offset,
        header.nonce,
        header.created,
        before.base_offset,
        before.size,
        before.next_offset,
        header.original_size or 0,
        header.recycled,
    )
    return fields + _CHECKSUM.pack(google_crc32c.value(fields))


def decode_header(data: bytes, path: str) -> SegmentHeader | Damaged:
    """Judge the first bytes of the segment at `path`. Raises UnsupportedFormat for a newer version's file."""
    if len(data) < HEADER_SIZE:
        return Damaged("the segment header is cut short")
    magic, version, size, code, base, nonce, created, before, *figures = _FIELDS.unpack_from(data)
    before_size, before_next, original_size, recycled = figures
    if magic != MAGIC:
        return Damaged("the segment header has no magic")
    if google_crc32c.value(data[: _FIELDS.size]) != _CHECKSUM.unpack_from(data, _FIELDS.size)[0]:
        return Damaged("segment header checksum mismatch")
    if version > VERSION_COMPACTED:
        raise UnsupportedFormat(
            f"{path} has format version {version}; this release reads up to {VERSION_COMPACTED}. "
            "It was written by a newer Ringtail: upgrade, or give wal.directory another path"
        )
    if version < 1 or size != HEADER_SIZE or not nonce:
        return Damaged("segment header fields that no version writes")
    predecessor = None if before == _NO_PREDECESSOR else Predecessor(before, before_size, before_next)
    original = original_size if version == VERSION_COMPACTED else None
    return SegmentHeader(code, base, nonce, created, predecessor, recycled, original)


@dataclass(slots=True, eq=False)
class Segment:
    """What a log knows about one of its segments.

    Owned by the log's writer until it is sealed. Readers in other threads may read it: the index only grows, and
    `end` is one object that is replaced after a frame is complete, so a reader never looks past whole frames. Once
    sealed it only gets a successor, and whoever opens its key index says what it was good for.
    """

    path: str
    base_offset: int
    nonce: int | None
    """None when neither header nor index nor any frame tells: then nothing of the file can be read."""
    end: tuple[int, int]
    """(size, next offset): bytes up to the end of the last frame, and the offset after its last record."""
    index: OffsetIndex
    min_time: int = 2**64 - 1
    """Smallest record time, ns; larger than `max_time` while there is no frame."""
    max_time: int = 0
    last_append: int = 0
    """When the newest frame was appended, ns since the Unix epoch."""
    records: int = 0
    """Records in all readable frames."""
    compacted: bool = False
    """Whether the file's header says so."""
    keyed: bool | None = None
    """Whether the key index beside a compacted segment can be used; None: nobody has looked yet."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Held to open the file by its name, to put another file there, and to remove it: see `opened_segment`."""
    readers: int = 0
    """How often this process has the file open for reading; changed under the lock."""
    successor: Segment | None = None
    """What took this segment's place and its name: the same records, compacted. Set once, under the lock."""
    second_name: str | None = None
    """Under which the file of a segment with a successor can still be found, to be written over."""

    @property
    def latest(self) -> Segment:
        """The segment as its file is now."""
        segment = self
        while segment.successor is not None:
            segment = segment.successor
        return segment

    @property
    def size(self) -> int:
        """Bytes up to the end of the last frame."""
        return self.end[0]

    @property
    def next_offset(self) -> int:
        """The offset after the last record."""
        return self.end[1]

    def add(self, position: int, header: Header) -> None:
        """Take in the frame at `position`, the newest one."""
        self.index.add(header.base_offset, position)
        self.min_time = min(self.min_time, header.min_time)
        self.max_time = max(self.max_time, header.max_time)
        self.last_append = max(self.last_append, header.append_time)
        self.records += header.count
        self.end = (position + header.size, header.end_offset)

    def summary(self, file_size: int) -> Summary:
        """What goes into the index file beside the segment, whose file has `file_size` bytes."""
        if self.nonce is None:
            raise ValueError(f"{self.path} cannot be read, so there is nothing to index")
        return Summary(
            nonce=self.nonce,
            file_size=file_size,
            size=self.size,
            next_offset=self.next_offset,
            min_time=self.min_time,
            max_time=self.max_time,
            last_append=self.last_append,
            records=self.records,
            index=self.index,
        )


def empty_segment(path: str, base_offset: int, nonce: int | None) -> Segment:
    """A segment without frames."""
    return Segment(path, base_offset, nonce, (HEADER_SIZE, base_offset), OffsetIndex(base_offset, HEADER_SIZE))


def indexed_segment(path: str, summary: Summary, *, compacted: bool) -> Segment:
    """A sealed segment as its index tells it, and its header whether it was compacted."""
    return Segment(
        path,
        summary.index.base_offset,
        summary.nonce,
        (summary.size, summary.next_offset),
        summary.index,
        summary.min_time,
        summary.max_time,
        summary.last_append,
        summary.records,
        compacted,
    )
