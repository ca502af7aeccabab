"""The key index of a compacted segment: which of its frames hold a key, or a text. Pure functions from values to bytes
and back.

A query by trace id, service, name, severity or type, or for a part of a line, reads only the frames that this file names.
It may name one too many (two keys may share a token) and never one too few, so the answer is the same without it.
Little-endian:

```
 at  size  field
  0     8  magic           "RINGTKEY"
  8     2  format version  1
 10     2  header size     64
 12     4  head size       bytes of all that lies before the first page
 16     8  base offset     of the segment
 24     8  nonce           of the segment
 32     8  size            bytes up to the end of the segment's last frame
 40     8  next offset     after the segment's last record
 48     4  frame count     n
 52     4  section count   s
 56     4  reserved        zeros
 60     4  head checksum   CRC32C of bytes 0 to 59 and of the head behind the header
 64        frames          n min times u64, n max times u64, n offsets relative to the base u32, n positions u32
           sections        s times: name 24 bytes, kind u32, table length u32, position u64, length u64 (bytes)
           tables          one for each section, of the table length
```

A section of kind 1 is named after its key column (`trace_id`, `service`, …) and is a sorted array of u64 entries: a token
in the upper half, the number of a frame that holds a key with that token in the lower. It is cut into pages of 512
entries; its table has each page's first entry (u64) and then each page's CRC32C (u32), padded to a multiple of 8. A lookup
searches the table in memory and reads one page. Sections of kind 2, for log records and spans, are all named `text`: see texts.py.
Readers pass over kinds and names that they do not know: there is room for a denser form.

A token is (key x 0x9e3779b97f4a7c15 mod 2^64) >> 32. The key of a string is `wire.hash_key`, of a number the number,
of a 16-byte id, seen as two words u64, first + second x 0xc2b2ae3d27d4eb4f mod 2^64.

Size: 8 bytes for each distinct key in a frame, and 24 bytes a frame. With traces of eight spans of 400 bytes that is a
quarter of a percent of the payload, and two percent if no id came twice. Filters (Bloom, binary fuse) would take a
third of it, for random ids cannot be compressed, but one would have to be asked for each frame, not for each segment.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from collector.errors import Malformed
from collector.otlp.scan import scan
from collector.otlp.signals import Signal
from collector.otlp.wire import hash_key
from collector.wal import texts
from collector.wal.compression import Unpacker
from collector.wal.frame import Damaged, Frame, checksum
from collector.wal.segment import Segment
from collector.wal.texts import Flags, Needles, TextBuilder

MAGIC: Final = b"RINGTKEY"
VERSION: Final = 1
HEADER_SIZE: Final = 64
SORTED: Final = 1
"""The kind of a section of sorted entries; `texts.KIND` is the other."""
PAGE_ENTRIES: Final = 512
GAP_PAGES: Final = 2
"""Pages that nobody asks for and that are read all the same, because two reads would take longer."""
ENTRIES_MAX: Final = 1 << 21
"""Entries of one section (16 MiB). A segment with more has no such section, and is read whole."""
HEAD_BYTES_MAX: Final = 1 << 26

_HEADER: Final = struct.Struct("<8sHHIQQQQII4x")
_CHECKSUM: Final = struct.Struct("<I")
_SECTION: Final = struct.Struct("<24sIIQQ")
_FRAME_BYTES: Final = 24
_ENTRY_BYTES: Final = 8
_PAGE_BYTES: Final = PAGE_ENTRIES * _ENTRY_BYTES
_SPREAD: Final = 0x9E3779B97F4A7C15
_SECOND: Final = 0xC2B2AE3D27D4EB4F
_WORD: Final = (1 << 64) - 1
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)

assert _HEADER.size + _CHECKSUM.size == HEADER_SIZE
assert (array("I").itemsize, array("Q").itemsize) == (4, 8)

Entries = NDArray[np.uint64]


def token(key: int | bytes, index: str) -> int:
    """The token of a key in the section `index`: bytes for a string or an id (16 bytes of trace id), or a number."""
    if not isinstance(key, bytes):
        number = key
    elif index == "trace_id":
        first, second = struct.unpack("<QQ", key)
        number = first + second * _SECOND
    else:
        number = hash_key(key)
    return (number * _SPREAD & _WORD) >> 32


def tokens(column: NDArray[Any]) -> Entries:
    """The tokens of a block's key column: numbers, or pairs of words."""
    if column.ndim == 2:
        words = column.view("<u8").astype(np.uint64, copy=False)
        keys = words[:, 0] + words[:, 1] * np.uint64(_SECOND)
    else:
        keys = column.astype(np.uint64)
    spread: Entries = keys * np.uint64(_SPREAD) >> np.uint64(32)
    return spread


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which frames are looked for: those with one of some tokens in each of some key columns, the needles, and of each of
    `either` a token or the needles, in records with an offset and a time in the ranges."""

    keys: Sequence[tuple[str, Sequence[int]]]
    needles: Needles
    either: Sequence[tuple[str, Sequence[int], Needles]]
    """What may stand in a key column or, as a text, elsewhere."""
    offsets: tuple[int, int]
    """The first, and the one behind the last."""
    times: tuple[int, int]
    """The first and the last."""


class KeyBuilder:
    """Takes in the frames of a segment in order, answers lookups in memory, and makes the bytes of a key index.

    Used by one thread at a time. A lookup compares with every entry, 30 us for the 20,000 traces of a segment.
    """

    def __init__(self, signal: Signal, *, text_frames: int = texts.FRAMES_MAX) -> None:
        """Take in texts in sections of `text_frames` frames, if the signal has texts; 0: none."""
        self._signal = signal
        # None also when nobody knows all of them.
        self._texts = TextBuilder(text_frames) if text_frames and texts.has_texts(signal) else None
        self._min_times = array("Q")
        self._max_times = array("Q")
        self._offsets = array("Q")
        self._positions = array("Q")
        # Of each section: the tokens and, in step with them, the numbers of the frames; None when there are too many.
        self._sections: dict[str, tuple[array[int], array[int]] | None] = {
            name: (array("I"), array("I")) for name in signal.indexes
        }

    @property
    def nbytes(self) -> int:
        """Bytes that the entries take."""
        entries = sum(8 * len(section[0]) for section in self._sections.values() if section)
        return 32 * len(self._offsets) + entries + (self._texts.nbytes if self._texts is not None else 0)

    def add(self, position: int, one: Frame) -> None:
        """Take in the frame at `position`, the newest one."""
        number = len(self._offsets)
        self._min_times.append(one.min_time)
        self._max_times.append(one.max_time)
        self._offsets.append(one.base_offset)
        self._positions.append(position)
        try:
            block = scan(self._signal, one.payload, one.base_offset)
        except Malformed:
            block = None
        if block is None or block.count != one.count:
            block = self._texts = None  # Nobody knows what this frame holds, so it must always be read.
        elif self._texts is not None:
            self._texts.add(block)
        for name, section in self._sections.items():
            if section is None:
                continue
            if block is None:
                self._sections[name] = None
                continue
            # Neighbours often share a key: most duplicates go before the sort does.
            distinct = _runs(tokens(block.column(name)))
            distinct.sort()
            distinct = _runs(distinct)
            section[0].frombytes(distinct.astype(np.uint32).tobytes())
            section[1].frombytes(np.full(len(distinct), number, np.uint32).tobytes())
            if len(section[0]) > ENTRIES_MAX:
                self._sections[name] = None

    def find(self, index: str, wanted: Sequence[int]) -> list[int] | None:
        """The numbers of the frames that may hold a key with one of the tokens, rising; None when nobody knows."""
        section = self._sections.get(index)
        if section is None:
            return None
        known = np.frombuffer(section[0], np.uint32)
        numbers = np.frombuffer(section[1], np.uint32)
        found = np.flatnonzero(np.isin(known, np.array(wanted, np.uint32)) if len(wanted) != 1 else known == wanted[0])
        distinct: list[int] = np.unique(numbers[found]).tolist()
        return distinct

    def find_text(self, needles: Needles, unpack: Unpacker) -> list[int] | None:
        """The numbers of the frames that may hold a text, rising; None when nobody knows."""
        if self._texts is None:
            return None
        numbers: list[int] = self._texts.find(needles, unpack).tolist()
        return numbers

    def frame(self, number: int) -> tuple[int, int, int, int]:
        """(first offset, position, min time, max time) of a frame."""
        return self._offsets[number], self._positions[number], self._min_times[number], self._max_times[number]

    def encode(self, of: Segment) -> bytes:
        """The bytes of the key index of this segment, whose frames have all been added."""
        if of.nonce is None:
            raise ValueError(f"{of.path} cannot be read, so there is nothing to index")
        sections: list[tuple[str, int, bytes, bytes]] = []
        for name, section in self._sections.items():
            if section:
                entries = _entries(*section)
                sections.append((name, SORTED, _table(entries), entries.tobytes()))
        parts = self._texts.encode() if self._texts is not None else ()
        sections += [(texts.NAME, texts.KIND, part.table, part.pages) for part in parts]
        tables = [table for _, _, table, _ in sections]
        size = HEADER_SIZE + _FRAME_BYTES * len(self._offsets) + _SECTION.size * len(sections) + sum(map(len, tables))
        directory = b""
        position = size
        for name, kind, table, pages in sections:
            directory += _SECTION.pack(name.encode(), kind, len(table), position, len(pages))
            position += len(pages)
        relative = np.frombuffer(self._offsets, np.uint64) - np.uint64(of.base_offset)
        columns = (
            (np.frombuffer(self._min_times, np.uint64), "<u8"),
            (np.frombuffer(self._max_times, np.uint64), "<u8"),
            (relative, "<u4"),
            (np.frombuffer(self._positions, np.uint64), "<u4"),
        )
        rest = b"".join((*(column.astype(kind).tobytes() for column, kind in columns), directory, *tables))
        fields = _HEADER.pack(
            MAGIC,
            VERSION,
            HEADER_SIZE,
            size,
            of.base_offset,
            of.nonce,
            of.size,
            of.next_offset,
            len(self._offsets),
            len(sections),
        )
        head = fields + _CHECKSUM.pack(checksum([fields, rest])) + rest
        return b"".join((head, *(pages for _, _, _, pages in sections)))


def _runs(values: Entries) -> Entries:
    """The first of every run of equal values."""
    begins = np.empty(len(values), np.bool_)
    begins[:1] = True
    np.not_equal(values[1:], values[:-1], out=begins[1:])
    return values[begins]


def _entries(known: array[int], numbers: array[int]) -> Entries:
    """The sorted entries of a section."""
    joined = np.frombuffer(known, np.uint32).astype(np.uint64) << np.uint64(32) | np.frombuffer(numbers, np.uint32)
    joined.sort()
    entries: Entries = joined.astype("<u8", copy=False)
    return entries


def _table(entries: Entries) -> bytes:
    """The table of a section: first entry and checksum of every page."""
    data = entries.tobytes()
    sums = [google_crc32c.value(data[at : at + _PAGE_BYTES]) for at in range(0, len(data), _PAGE_BYTES)]
    table = entries[::PAGE_ENTRIES].tobytes() + np.array(sums, "<u4").tobytes()
    return table + bytes(-len(table) % 8)


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """Where the entries of one key column lie."""

    position: int
    length: int
    first: Entries
    """The first entry of every page."""
    checksums: NDArray[np.uint32]

    def find(self, wanted: Sequence[int], read: Callable[[int, int], bytes]) -> Entries | Damaged:
        """The numbers of the frames that hold a key with one of the tokens, in no order, perhaps several times.

        `read(position, length)` gives bytes of the file, fewer at its end.
        """
        low = np.array(wanted, np.uint64) << _HALF
        high = low | _LOW
        begins, ends = self.first.searchsorted(low, "right"), self.first.searchsorted(high, "right")
        found = []
        for begin, end in _joint(begins.tolist(), ends.tolist()):
            at = begin * _PAGE_BYTES
            length = min(end * _PAGE_BYTES, self.length) - at
            data = read(self.position + at, length)
            if len(data) < length:
                return Damaged("the key index is cut short")
            for page in range(begin, end):
                place = (page - begin) * _PAGE_BYTES
                if google_crc32c.value(data[place : place + _PAGE_BYTES]) != self.checksums[page]:
                    return Damaged("key index page checksum mismatch")
            entries = np.frombuffer(data, "<u8")
            firsts, lasts = entries.searchsorted(low), entries.searchsorted(high, "right")
            found += [
                entries[first:last] for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True) if first < last
            ]
        if not found:
            return np.empty(0, np.uint64)
        numbers: Entries = (np.concatenate(found) if len(found) > 1 else found[0]) & _LOW
        return numbers


def _joint(begins: Sequence[int], ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Join ranges of pages, from the one before `begins` to before `ends`, that touch, or nearly do; rising."""
    begin = end = 0
    for first, last in sorted((max(first, 1) - 1, last) for first, last in zip(begins, ends, strict=True)):
        if first >= last:
            continue
        if begin < end and first <= end + GAP_PAGES:
            end = max(end, last)
            continue
        if begin < end:
            yield begin, end
        begin, end = first, last
    if begin < end:
        yield begin, end


@dataclass(frozen=True, slots=True, eq=False)
class KeyIndex:
    """The head of a key index: what is held in memory of it."""

    nonce: int
    min_times: NDArray[np.uint64]
    max_times: NDArray[np.uint64]
    offsets: NDArray[np.uint32]
    """First offset of every frame, relative to the segment's base offset."""
    positions: NDArray[np.uint32]
    sections: dict[str, Section]
    texts: tuple[texts.Section, ...]
    """Of all frames, in order; none when texts are not told of all."""
    nbytes: int
    """Bytes of the head, and of the tables once more."""


def head_size(data: bytes) -> int | Damaged:
    """How many bytes of a key index have to be read before `decode`; `data` are the first `HEADER_SIZE` of them."""
    if len(data) < HEADER_SIZE:
        return Damaged("the key index is cut short")
    magic, version, header_size, size, *_ = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION or header_size != HEADER_SIZE:
        return Damaged("not a key index of this version")
    if not HEADER_SIZE <= size <= HEAD_BYTES_MAX:
        return Damaged(f"a key index with a head of {size} bytes")
    return int(size)


def decode(head: bytes, of: Segment) -> KeyIndex | Damaged:
    """Judge the head of a key index that lies beside this segment."""
    size = head_size(head)
    if isinstance(size, Damaged):
        return size
    if len(head) < size:
        return Damaged("the key index is cut short")
    *_, base, nonce, segment_size, next_offset, frames, section_count = _HEADER.unpack_from(head)
    if checksum([head[: _HEADER.size], head[HEADER_SIZE:size]]) != _CHECKSUM.unpack_from(head, _HEADER.size)[0]:
        return Damaged("key index checksum mismatch")
    if (base, nonce, segment_size, next_offset) != (of.base_offset, of.nonce, of.size, of.next_offset):
        return Damaged("the key index is of another segment")
    places = [HEADER_SIZE]
    for width in (8, 8, 4, 4):
        places.append(places[-1] + width * frames)
    at = places[-1]
    table_at = at + _SECTION.size * section_count
    sections: dict[str, Section] = {}
    told: list[texts.Section] = []
    held = size
    for _ in range(section_count if table_at <= size else 0):
        raw, kind, table_length, position, length = _SECTION.unpack_from(head, at)
        pages = -(-length // _PAGE_BYTES)
        table = head[table_at : min(table_at + table_length, size)]
        if kind == SORTED:
            if length % _ENTRY_BYTES or len(table) != pages * 12 + -(pages * 12) % 8:
                return Damaged("the key index contradicts itself")
            sections[raw.rstrip(b"\0").decode("ascii", "replace")] = Section(
                position,
                length,
                np.frombuffer(table, "<u8", pages),
                np.frombuffer(table, "<u4", pages, pages * 8),
            )
        elif kind == texts.KIND:
            text = texts.decode(table, position, length)
            if text is None or text.first != (told[-1].frames.stop if told else 0):
                return Damaged("the key index contradicts itself")
            told.append(text)
        held += len(table)
        at += _SECTION.size
        table_at += table_length
    if table_at != size:
        return Damaged("the key index contradicts itself")
    offsets = np.frombuffer(head, "<u4", frames, places[2])
    positions = np.frombuffer(head, "<u4", frames, places[3])
    if not (np.all(offsets[1:] > offsets[:-1]) and np.all(positions[1:] > positions[:-1])):
        return Damaged("the key index contradicts itself")
    return KeyIndex(
        nonce,
        np.frombuffer(head, "<u8", frames, places[0]),
        np.frombuffer(head, "<u8", frames, places[1]),
        offsets,
        positions,
        sections,
        tuple(told) if told and told[-1].frames.stop == frames else (),
        held,
    )


@dataclass(frozen=True, slots=True)
class Content:
    """All that a key index tells, however it is compressed."""

    head: tuple[bytes, ...]
    sections: dict[str, bytes]
    texts: tuple[tuple[int, int, Flags, bytes], ...]


def content(data: bytes, of: Segment, unpack: Unpacker) -> Content | Damaged:
    """Judge all of a key index that lies beside this segment."""
    index = decode(data, of)
    if isinstance(index, Damaged):
        return index

    def read(position: int, length: int) -> bytes:
        return data[position : position + length]

    told = []
    for text in index.texts:
        rows = text.rows(read, unpack)
        if isinstance(rows, Damaged):
            return rows
        told.append((text.first, text.count, text.flags, rows))
    return Content(
        tuple(column.tobytes() for column in (index.min_times, index.max_times, index.offsets, index.positions)),
        {name: read(section.position, section.length) for name, section in index.sections.items()},
        tuple(told),
    )
