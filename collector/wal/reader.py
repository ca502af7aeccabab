"""Reading frames out of one segment, whatever state its bytes are in.

`Walk` goes from header to header. Where the bytes are not the frame that belongs there it searches on for the
next one that is, and reports the offsets between as `Damage`: what is returned was appended exactly so, what is
missing is named, nothing is invented. The search looks for the segment's nonce, 8 random bytes at the same place
in every header, so it runs at the speed of `bytes.find` and cannot be led astray by payloads.

A sector that the device refuses to read (EIO) counts as zeros; then it is damage like any other, and the good
frames around it are still read.

Cost: one `pread` per 64 KiB of small frames, two per large one; payloads outside the wanted range are not read.
Readers open the segment's file themselves and close it: retention may remove a segment at any time, and compaction
put another file in its place. Then a reader finds it gone, or finishes on the file that it holds: `opened_segment` sees
to it that file and `Segment` belong together.
"""

from __future__ import annotations

import errno
import threading
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from collector.wal import frame
from collector.wal.compression import Unpacker
from collector.wal.files import Files, read_fully
from collector.wal.frame import Damaged, Frame, Header
from collector.wal.segment import BASE_OFFSET_MAX, HEADER_SIZE, OFFSETS_MAX, Segment

Stretch = tuple[tuple[int, int], tuple[int, int]]
"""Where to walk: the (offset, position) of a frame, and those of the frame behind the last one."""

READ_AHEAD: Final = 64 * 1024
SEARCH_BYTES: Final = 1024 * 1024
SECTOR_BYTES: Final = 4096
"""The unit in which unreadable bytes are skipped."""

DAMAGES_MAX: Final = 1000
"""Ranges that a ledger remembers. Beyond it damage is still counted, perhaps more than once."""


@dataclass(frozen=True, slots=True, order=True)
class Damage:
    """Records from `first_offset` to before `end_offset` cannot be read; `reason` says where and why."""

    first_offset: int
    end_offset: int
    reason: str


class DamageLedger:
    """The damage known so far as disjoint ranges, so that each lost record is counted once.

    Readers in any thread add to it, hence the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: list[Damage] = []

    def add(self, damage: Damage) -> int:
        """Take in a range; returns how many of its records were not known to be damaged."""
        new = 0
        with self._lock:
            at = damage.first_offset
            for known in [k for k in self._known if k.first_offset < damage.end_offset and k.end_offset > at]:
                new += self._keep(at, known.first_offset, damage.reason)
                at = max(at, known.end_offset)
            return new + self._keep(at, damage.end_offset, damage.reason)

    def _keep(self, first_offset: int, end_offset: int, reason: str) -> int:
        if end_offset <= first_offset:
            return 0
        if len(self._known) < DAMAGES_MAX:
            insort(self._known, Damage(first_offset, end_offset, reason))
        return end_offset - first_offset

    def forget(self, first_offset: int) -> None:
        """Drop what lies before `first_offset`, the oldest offset that the log still has."""
        with self._lock:
            self._known = [known for known in self._known if known.end_offset > first_offset]

    def ranges(self) -> tuple[Damage, ...]:
        """All known ranges in order of offset."""
        with self._lock:
            return tuple(self._known)


class Window:
    """Positional reads of one open file with a little read-ahead. Used by one thread."""

    def __init__(self, files: Files, handle: int, unpack: Unpacker | None = None) -> None:
        """Read the open file; `unpack` saves making another."""
        self._files = files
        self._handle = handle
        self._data = b""
        self._start = 0
        self._ahead = READ_AHEAD
        self.unpack: Final = unpack or Unpacker()
        self.unreadable = 0
        """Bytes that the device would not give, and that were read as zeros."""

    def header(self, position: int) -> bytes:
        """The bytes of a frame header; fewer at the end of the file."""
        return self._take(position, frame.HEADER_SIZE, self._ahead)

    def payload(self, position: int, length: int) -> bytes:
        """`length` bytes at `position`; fewer at the end of the file."""
        return self._take(position, length, length)

    def passing(self, length: int) -> None:
        """Tell the length of a payload, as a guess at the next one: reading ahead pays only between small ones."""
        self._ahead = READ_AHEAD if length < READ_AHEAD else frame.HEADER_SIZE

    def _take(self, position: int, length: int, ahead: int) -> bytes:
        at = position - self._start
        if at >= 0 and at + length <= len(self._data):
            return self._data[at : at + length]
        data = self.read(position, ahead)
        if ahead > length:
            self._data, self._start = data, position
            return data[:length]
        return data

    def read(self, position: int, length: int) -> bytes:
        """`length` bytes at `position`, fewer at the end of the file; past unreadable sectors as zeros."""
        try:
            return read_fully(self._files, self._handle, length, position)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        length = max(0, min(length, self._files.size(self._handle) - position))
        parts: list[bytes] = []
        end = position + length
        while position < end:
            size = min(end, (position // SECTOR_BYTES + 1) * SECTOR_BYTES) - position
            try:
                parts.append(read_fully(self._files, self._handle, size, position))
            except OSError:
                parts.append(bytes(size))
                self.unreadable += size
            position += size
        return b"".join(parts)


def every(_: int, __: Header) -> bool:
    """Want the payload of every frame."""
    return True


class Walk:
    """One pass over the frames of a stretch of a segment, in order; iterate it once.

    Yields (position, header, frame), with None for the frame where `wanted` did not want its payload, and Damage
    for offsets that cannot be read. Afterwards `position` and `offset` say how far it came and `reason`, unless
    None, why not to the limit.
    """

    def __init__(
        self,
        window: Window,
        nonce: int | None,
        *,
        position: int,
        offset: int,
        limit: int,
        end_offset: int | None,
        wanted: Callable[[int, Header], bool] = every,
    ) -> None:
        """Walk from `position`, where the frame of `offset` should start, up to byte `limit`.

        With `nonce` None the first good frame found decides it. With `end_offset`, frames must end there, and what
        is missing at the end is damage too. `wanted` is asked about each frame, by position and header.
        """
        self.position = position
        self.offset = offset
        self.nonce = nonce
        self.reason: str | None = None
        self._window = window
        self._limit = limit
        self._end_offset = end_offset
        self._offset_limit = min(offset + OFFSETS_MAX, BASE_OFFSET_MAX if end_offset is None else end_offset)
        self._wanted = wanted

    def __iter__(self) -> Iterator[tuple[int, Header, Frame | None] | Damage]:
        window = self._window
        while self.position < self._limit and self.offset != self._end_offset:
            header = self._judge(window.header(self.position), 0, self.position)
            if not isinstance(header, Header):
                reason = self._told(self.position, header.reason)
                found = self._search(self.position + frame.ALIGNMENT)
                if found is None:
                    self.reason = reason
                    break
                self.position, header = found
                if header.base_offset > self.offset:
                    yield Damage(self.offset, header.base_offset, reason)
            elif header.base_offset > self.offset:
                yield Damage(self.offset, header.base_offset, f"at byte {self.position}: frames are missing before")
            self.nonce = header.nonce
            position = self.position
            self.position += header.size
            self.offset = header.end_offset
            window.passing(header.payload_length)
            if not self._wanted(position, header):
                yield position, header, None
                continue
            payload = window.payload(position + frame.HEADER_SIZE, header.payload_length)
            whole = frame.with_payload(header, payload, window.unpack)
            if isinstance(whole, Damaged):
                yield Damage(header.base_offset, header.end_offset, self._told(position, whole.reason))
            else:
                yield position, header, whole
        if self._end_offset is not None and self.offset < self._end_offset:
            yield Damage(self.offset, self._end_offset, self.reason or f"at byte {self.position}: the file ends")

    def _told(self, position: int, reason: str) -> str:
        refused = self._window.unreadable
        sectors = f", after the device refused to read {refused} bytes, which were taken for zeros" if refused else ""
        return f"at byte {position}: {reason}{sectors}"

    def _judge(self, data: bytes, at: int, position: int) -> Header | Damaged:
        """The header at `data[at:]` if it is the one of a frame that may stand at `position` of the segment."""
        header = frame.decode_header(data, at, position=position, nonce=self.nonce)
        if header is frame.END:
            return Damaged("zeros where a frame should start")
        if isinstance(header, frame.Incomplete):
            return Damaged("the file ends inside a frame")
        if isinstance(header, Damaged):
            return header
        if position + header.size > self._limit:
            return Damaged("the file ends inside a frame")
        if header.base_offset < self.offset or header.end_offset > self._offset_limit:
            return Damaged(f"a frame of offset {header.base_offset}, out of order")
        return header

    def _search(self, position: int) -> tuple[int, Header] | None:
        """The next place from `position` on where a frame of this segment starts."""
        lead = 0 if self.nonce is None else frame.NONCE_AT
        needle = frame.MAGIC_BYTES if self.nonce is None else self.nonce.to_bytes(8, "little")
        while position < self._limit:
            data = self._window.read(position, min(SEARCH_BYTES, self._limit - position))
            hit = data.find(needle, lead)
            while hit >= 0:
                at = hit - lead
                if at % frame.ALIGNMENT == 0 and at + frame.HEADER_SIZE <= len(data):
                    header = self._judge(data, at, position + at)
                    if isinstance(header, Header):
                        return position + at, header
                hit = data.find(needle, hit + 1)
            if len(data) <= frame.HEADER_SIZE:
                return None
            # A header may straddle the end of what was read: look at the last bytes again, with what follows.
            position += (len(data) - frame.HEADER_SIZE) // frame.ALIGNMENT * frame.ALIGNMENT + frame.ALIGNMENT
        return None


@contextmanager
def opened_segment(files: Files, segment: Segment) -> Iterator[tuple[int, Segment]]:
    """A segment's file, open for reading: (handle, the segment that it belongs to).

    That is another than `segment` when compaction has taken its place since. The lock keeps the file from being
    replaced between asking and opening. Meanwhile nobody writes over the file. Raises OSError.
    """
    while True:
        with segment.lock:
            if segment.successor is None:
                handle = files.open(segment.path)
                segment.readers += 1
                break
        segment = segment.successor
    try:
        yield handle, segment
    finally:
        try:
            files.close(handle)
        except OSError:
            pass  # Nothing was written.
        with segment.lock:
            segment.readers -= 1


class Unfit(Exception):
    """A segment of which something cannot be read, so that it cannot be read whole."""


def intact_frames(files: Files, handle: int, of: Segment) -> Iterator[tuple[int, Frame]]:
    """(position, frame) of every frame of a sealed segment, whose file is open.

    Raises Unfit when one is missing or damaged, and OSError when the device refuses to read.
    """
    if of.nonce is None:
        raise Unfit("no frame can be read")
    window = Window(files, handle)
    walk = Walk(window, of.nonce, position=HEADER_SIZE, offset=of.base_offset, limit=of.size, end_offset=of.next_offset)
    for item in walk:
        if window.unreadable:
            raise OSError(errno.EIO, f"{of.path}: the device refuses to read {window.unreadable} bytes")
        if isinstance(item, Damage):
            raise Unfit(f"offsets {item.first_offset}..{item.end_offset} damaged {item.reason}")
        if item[2] is not None:
            yield item[0], item[2]
