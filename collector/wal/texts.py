"""Which frames of a segment may hold a text: the sets of grams (grams.py) of its frames, as sections of the key index.

A line filter, or a regular expression over a span's attribute, asks for a part of a text, of any length and anywhere in it,
so words would not do. Instead each frame has
the set of all runs of four and of five bytes in the texts of its records, one bit for each of 65,536 hashes, and may hold
a needle if its set has all of the needle's grams. It errs to one side only: grams share bits, and a frame may have all
grams of a needle in other places. It never lacks one.

The sets of up to `FRAMES_MAX` frames that follow each other are one section, turned over: a row has a bit for each frame,
so a lookup reads one row for each gram, and not a set for each frame. Rows lie in pages of some 16 KiB, compressed one by
one. Lines are made of the same words over and over, so most rows are empty or full, and what is left weighs about what it
tells; that allows large sets (few errors) in small files. A Bloom filter for each frame, ten bits a gram, would take three
times as much, err as often, and have to be read whole.

Measured, with frames of 150 to 220 KB. Spans of 432 B with nine attributes, one in eight with a rare value: 0.33 % of the
payload, and 0.4 us of CPU a span on top of the 1.2 that compaction takes; with a random UUID in each, 2.8 %. Lines of a few forms, one in eight with a number of its own: 0.4 % of the payload,
a row errs in one frame of a hundred. Access logs, with random addresses, numbers and durations: 3.7 %, a row of five errs in
one frame of four, and a number of five or six digits that is nowhere names one frame of a hundred. A random UUID in each
line: 3.5 %, all frames dense; a UUID names its frame, a word that is nowhere one in twelve, a number that is nowhere one in
four. A lookup of an absent word takes 70 us a segment, one of a word that is there 1 to 2 ms.

The table of a section, numbers of 4 bytes: the first frame, the number of frames, the rows in a page, 0; then for each of
DOCUMENTS, OPAQUE_BODIES, OPAQUE_ATTRIBUTES and DENSE a bit for each frame, in a whole number of 8 bytes; then for each page
where it ends, counted from the section's position, and its CRC32C. A page as long as its rows is as it is, any other as
compression.py says.

What queries see of a body that is no string (a number, a list, a map) is not in the payload as it is shown. In a frame
with such documents only grams inside of the needle's words are looked for, and of no word that a number or a truth value
may be; where something is opaque (bytes, or what JSON escapes), anything may be there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from collector.otlp.signals import METRICS, Signal
from collector.otlp.terms import Sought, Terms, in_doubt, pieces
from collector.otlp.texts import BODY, BODY_NUMBER
from collector.otlp.words import fold
from collector.wal import grams
from collector.wal.compression import Packer, Unpacker
from collector.wal.frame import Damaged

if TYPE_CHECKING:
    from collector.otlp.block import Block

KIND: Final = 2
"""The kind of a section of grams."""
NAME: Final = "text"
FRAMES_MAX: Final = 512
"""Frames of one section; while they are collected they take 16 KiB each."""
PAGE_BYTES: Final = 16 * 1024
"""Bytes of a page before compression, unless its rows are longer."""
NEEDLES_MAX: Final = 256
"""Needles of a term that are looked for; a term of more is taken to be met."""
NEEDLE_ROWS_MAX: Final = 16
"""Rows of each kind that are asked for one needle."""
LONG_ENOUGH: Final = 6
"""Rows of grams of five that make those of four superfluous: what has the ones has the others, but for shared bits."""

_HEAD: Final = struct.Struct("<IIII")
_FLAGS: Final = (grams.DOCUMENTS, grams.OPAQUE_BODIES, grams.OPAQUE_ATTRIBUTES, grams.DENSE)


def has_texts(signal: Signal) -> bool:
    """Whether frames of the signal have sets of grams: lines and the fields of spans are searched for texts."""
    return signal is not METRICS


class Rows(NamedTuple):
    """Of grams that a frame must have."""

    long: tuple[int, ...]
    short: tuple[int, ...]


class Needle(NamedTuple):
    """A text that is looked for, as rows that a frame then has."""

    rows: Rows
    in_documents: Rows
    """The same where bodies are documents."""
    in_body: bool
    """Whether it is a part of a body, or of an attribute's value."""


Needles = tuple[tuple[Needle, ...], ...]
"""What a record must have: one needle of each."""


def needles(terms: Terms) -> Needles:
    """Return what to look for.

    A term with a text too short to have a gram tells nothing and is left out, and so is one with too many texts.
    """
    found = [tuple({_needle(sought): None for sought in term}) for term in terms if len(term) <= NEEDLES_MAX]
    return tuple(sorted((term for term in found if all(needle.rows.short for needle in term)), key=len))


def _needle(sought: Sought) -> Needle:
    words = [piece.text for piece in pieces(sought) if not in_doubt(piece) & BODY_NUMBER]
    return Needle(_rows_of([fold(sought.text)]), _rows_of(words), sought.kind == BODY)


def _rows_of(parts: Sequence[bytes]) -> Rows:
    """Return the rows of a record that has all these."""
    long = dict.fromkeys(row for part in parts for row in grams.long_rows_of(part))
    short = dict.fromkeys(row for part in parts for row in grams.rows_of(part))
    return Rows(_some(tuple(long)), _some(tuple(short)))


def _some(rows: tuple[int, ...]) -> tuple[int, ...]:
    """Return at most `NEEDLE_ROWS_MAX` of the rows, from all parts of the needle."""
    count = len(rows)
    if count <= NEEDLE_ROWS_MAX:
        return rows
    return tuple(rows[at * (count - 1) // (NEEDLE_ROWS_MAX - 1)] for at in range(NEEDLE_ROWS_MAX))


class Flags(NamedTuple):
    """What sets of grams do not tell, a bit for each frame."""

    documents: int = 0
    opaque_bodies: int = 0
    opaque_attributes: int = 0
    dense: int = 0

    def holding(self, among: int, sought: Needles, row: Callable[[int], int]) -> int:
        """Return which of some frames may hold what is sought; `row` tells which frames have a gram."""
        for term in sought:
            held = 0
            for needle in term:
                left = among & ~held
                opaque = left & (self.opaque_bodies if needle.in_body else self.opaque_attributes)
                documents = left & self.documents & ~opaque if needle.in_body else 0
                held |= opaque | self._with_all(documents, needle.in_documents, row)
                held |= self._with_all(left & ~opaque & ~documents, needle.rows, row)
            among = held
            if not among:
                break
        return among

    def _with_all(self, frames: int, rows: Rows, row: Callable[[int], int]) -> int:
        for number in rows.long:
            if not frames & ~self.dense:
                break
            frames &= row(number) | self.dense
        asked = frames if len(rows.long) < LONG_ENOUGH else frames & self.dense
        rest = frames & ~asked
        for number in rows.short:
            if not asked:
                break
            asked &= row(number)
        return rest | asked


def _bits(numbers: NDArray[np.uint64], frames: range) -> int:
    """Return a bit for each of the frames, set for those among the numbers."""
    held = np.zeros(len(frames), np.bool_)
    begin, end = np.searchsorted(numbers, (frames.start, frames.stop))
    held[numbers[begin:end].astype(np.intp) - frames.start] = True
    return int.from_bytes(np.packbits(held, bitorder="little").tobytes(), "little")


def _numbers(bits: int, frames: range) -> NDArray[np.uint64]:
    """Return the numbers of those frames whose bits are set."""
    data = np.frombuffer(bits.to_bytes(-(-len(frames) // 8), "little"), np.uint8)
    places = np.flatnonzero(np.unpackbits(data, count=len(frames), bitorder="little"))
    numbers: NDArray[np.uint64] = (places + frames.start).astype(np.uint64)
    return numbers


class _WrongError(Exception):
    """A page is not what it should be."""


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """Where the sets of some frames lie."""

    position: int
    first: int
    """The number of the first frame."""
    count: int
    page_rows: int
    flags: Flags
    ends: NDArray[np.uint32]
    """Where each page ends, from the position."""
    checksums: NDArray[np.uint32]

    @property
    def frames(self) -> range:
        """The numbers of its frames."""
        return range(self.first, self.first + self.count)

    def find(
        self, sought: Needles, among: NDArray[np.uint64], read: Callable[[int, int], bytes], unpack: Unpacker
    ) -> NDArray[np.uint64] | Damaged:
        """The numbers of the section's frames among some that may hold what is sought, rising.

        `read(position, length)` gives bytes of the file, fewer at its end.
        """
        pages: dict[int, bytes] = {}
        stride = -(-self.count // 8)

        def row(number: int) -> int:
            page, place = divmod(number, self.page_rows)
            if page not in pages:
                pages[page] = self._page(page, read, unpack)
            return int.from_bytes(pages[page][place * stride : (place + 1) * stride], "little")

        try:
            found = self.flags.holding(_bits(among, self.frames), sought, row)
        except _WrongError as wrong:
            return Damaged(str(wrong))
        return _numbers(found, self.frames)

    def rows(self, read: Callable[[int, int], bytes], unpack: Unpacker) -> bytes | Damaged:
        """All rows, one after the other."""
        try:
            return b"".join(self._page(page, read, unpack) for page in range(len(self.ends)))
        except _WrongError as wrong:
            return Damaged(str(wrong))

    def _page(self, page: int, read: Callable[[int, int], bytes], unpack: Unpacker) -> bytes:
        begin = int(self.ends[page - 1]) if page else 0
        data = read(self.position + begin, int(self.ends[page]) - begin)
        if google_crc32c.value(data) != self.checksums[page]:
            raise _WrongError("key index page checksum mismatch")
        size = self.page_rows * -(-self.count // 8)
        raw = data if len(data) == size else unpack(data, size)
        if isinstance(raw, str) or len(raw) != size:
            raise _WrongError("a key index page of another size")
        return raw


def decode(table: bytes, position: int, length: int) -> Section | None:
    """Judge the table of a section of grams; None for one that contradicts itself."""
    if len(table) < _HEAD.size:
        return None
    first, count, page_rows, _ = _HEAD.unpack_from(table)
    if not 0 < count <= FRAMES_MAX or not 0 < page_rows <= grams.ROWS or grams.ROWS % page_rows:
        return None
    pages = grams.ROWS // page_rows
    bits = -(-count // 64) * 8
    flags_at = _HEAD.size
    pages_at = flags_at + len(_FLAGS) * bits
    if len(table) != pages_at + 8 * pages:
        return None
    flags = Flags(*(int.from_bytes(table[at : at + bits], "little") for at in range(flags_at, pages_at, bits)))
    places = np.frombuffer(table, "<u4", 2 * pages, pages_at).reshape(pages, 2)
    ends = places[:, 0]
    if np.any(ends[1:] <= ends[:-1]) or ends[0] == 0 or ends[-1] != length or any(flag >> count for flag in flags):
        return None
    return Section(position, first, count, page_rows, flags, ends, places[:, 1])


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A section that is made: its table, and its pages one after the other."""

    table: bytes
    pages: bytes

    def read(self, position: int, length: int) -> bytes:
        """Some of the pages."""
        return self.pages[position : position + length]


class TextBuilder:
    """Takes in the texts of a segment's frames in order, answers lookups, and makes sections of their grams.

    Used by one thread at a time.
    """

    def __init__(self, frames_max: int = FRAMES_MAX) -> None:
        """Have so many frames in a section; fewer take less memory, and more time to look up."""
        self._frames_max = frames_max
        self._first = 0
        self._count = 0
        self._sets = bytearray()
        self._flags = Flags()
        self._parts: list[Part] = []
        self._pack = Packer()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the sets take, those of sections that are made included."""
        return len(self._sets) + sum(len(part.table) + len(part.pages) for part in self._parts)

    def add(self, block: Block) -> None:
        """Take in the newest frame's records."""
        if self._count == self._frames_max:
            self._parts.append(self._part())
            self._first += self._count
            self._count = 0
            self._sets = bytearray()
            self._flags = Flags()
        held = bytearray(grams.SET_BYTES)
        told = grams.add(held, block)
        self._sets += held
        flags = zip(self._flags, _FLAGS, strict=True)
        self._flags = Flags(*(known | bool(told & flag) << self._count for known, flag in flags))
        self._count += 1

    def find(self, sought: Needles, unpack: Unpacker) -> NDArray[np.uint64]:
        """The numbers of the frames that may hold what is sought, rising."""
        found = []
        for part in self._parts:
            section = decode(part.table, 0, len(part.pages))
            assert section is not None, "it was just made"
            everything = np.arange(section.frames.start, section.frames.stop, dtype=np.uint64)
            numbers = section.find(sought, everything, part.read, unpack)
            assert not isinstance(numbers, Damaged)
            found.append(numbers)
        return np.concatenate((*found, self._find(sought)))

    def _find(self, sought: Needles) -> NDArray[np.uint64]:
        def row(number: int) -> int:
            column: NDArray[Any] = np.frombuffer(self._sets[number >> 3 :: grams.SET_BYTES], np.uint8)
            bits = np.packbits(column >> np.uint8(number & 7) & np.uint8(1), bitorder="little")
            return int.from_bytes(bits.tobytes(), "little")

        found = self._flags.holding((1 << self._count) - 1, sought, row)
        return _numbers(found, range(self._first, self._first + self._count))

    def encode(self) -> list[Part]:
        """The sections of all frames that were added."""
        return [*self._parts, self._part()] if self._count else list(self._parts)

    def _part(self) -> Part:
        rows = grams.transposed(self._sets, self._count)
        stride = -(-self._count // 8)
        page_rows = grams.ROWS
        while page_rows * stride > PAGE_BYTES:
            page_rows //= 2
        size = page_rows * stride
        pages = []
        for at in range(0, len(rows), size):
            raw = rows[at : at + size]
            pages.append(self._pack(raw) or raw)
        bits = -(-self._count // 64) * 8
        ends = np.cumsum([len(page) for page in pages])
        places = np.array([ends, [google_crc32c.value(page) for page in pages]], "<u4").T
        table = b"".join(
            (
                _HEAD.pack(self._first, self._count, page_rows, 0),
                *(flag.to_bytes(bits, "little") for flag in self._flags),
                np.ascontiguousarray(places).tobytes(),
            )
        )
        return Part(table, b"".join(pages))
