"""The frame: how one block lies in a segment. Pure functions from bytes to values; no file is read here.

A frame starts at a multiple of 8 bytes, so that its first fields never straddle a disk sector, and is followed
by zeros up to the next multiple. Little-endian:

```
 at  size  field
  0     4  magic             "RTFR"; four zero bytes instead: nothing has been written from here on
  4     2  header size       64
  6     2  flags             1: the payload is compressed (compression.py); a reader refuses frames with other flags
  8     8  nonce             the segment's random number
 16     4  payload length    bytes
 20     4  record count      at least 1
 24     8  base offset       offset of the first record
 32     8  min time          smallest main time of the records, ns since the Unix epoch
 40     8  max time          largest
 48     8  append time       when the log took the frame, ns since the Unix epoch
 56     4  payload checksum  CRC32C of the payload
 60     4  header checksum   CRC32C of: the frame's position in its file (8 bytes), then header bytes 0 to 59
 64        payload
```

Two checksums, because a header must be trusted without its payload: a query walks from header to header and
reads only the payloads in its range, and a damaged payload costs its own records, not the way to the next frame.
The header's checksum covers the payload's, so nothing in a frame is outside it but the padding.

In a compressed frame, payload length and checksum are those of the bytes in the file. What readers get is always the
payload as it was appended.

A frame is accepted only in its own file at its own place. The nonce keeps out what a recycled file held before,
and frames that someone smuggled into a payload; the position keeps out copies of good frames that a disk wrote
to the wrong place.

Decoding costs about 1.5 us a frame plus the checksum of the payload (about 0.03 us per KiB), and of a compressed one
8 us and 0.15 us per KiB of what it becomes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import google_crc32c

from collector.wal.compression import Unpacker

MAGIC: Final = 0x52465452  # "RTFR" read as a little-endian u32
HEADER_SIZE: Final = 64
ALIGNMENT: Final = 8
PAYLOAD_BYTES_MAX: Final = 1 << 30
"""The largest payload of one frame, compressed or not. Extents inside a payload are u32, and segments must stay below 4 GiB."""

FLAG_COMPRESSED: Final = 1

TERMINATOR_BYTES: Final = 8
"""Zeros that follow the last frame at least: where a magic should be, they say that nothing does."""
NONCE_AT: Final = 8
MAGIC_BYTES: Final = MAGIC.to_bytes(4, "little")

_FIELDS: Final = struct.Struct("<IHHQIIQQQQI")
_CHECKSUM: Final = struct.Struct("<I")
_POSITION: Final = struct.Struct("<Q")
_CHECKED: Final = _FIELDS.size
_PADDING: Final = tuple(bytes(n) for n in range(ALIGNMENT))

assert _CHECKED + _CHECKSUM.size == HEADER_SIZE


@dataclass(frozen=True, slots=True)
class Header:
    """A frame's header whose checksum was right."""

    base_offset: int
    count: int
    min_time: int
    max_time: int
    append_time: int
    payload_length: int
    payload_checksum: int
    nonce: int
    compressed: bool = False

    @property
    def end_offset(self) -> int:
        """The offset after the last record."""
        return self.base_offset + self.count

    @property
    def size(self) -> int:
        """Bytes that the frame takes in its file: header, payload and padding."""
        return frame_size(self.payload_length)


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame, checked: `count` records with offsets from `base_offset`, as `payload`, not compressed."""

    base_offset: int
    count: int
    min_time: int
    max_time: int
    append_time: int
    payload: bytes

    @property
    def end_offset(self) -> int:
        """The offset after the last record."""
        return self.base_offset + self.count


@dataclass(frozen=True, slots=True)
class Incomplete:
    """The bytes end before a verdict is possible. `needed`: bytes from the frame's start that would allow one."""

    needed: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes that are not a frame of this place. `reason` names the first check that failed."""

    reason: str


class End(Enum):
    """The written part of the file ends here."""

    END = "end"


END: Final = End.END


def frame_size(payload_length: int) -> int:
    """Bytes that a frame with a payload of this length takes: header, payload and padding."""
    return HEADER_SIZE + payload_length + -payload_length % ALIGNMENT


def checksum(pieces: Sequence[bytes]) -> int:
    """CRC32C of the pieces one after the other."""
    value: int = 0
    for piece in pieces:
        value = google_crc32c.extend(value, piece)
    return value


def padding(payload_length: int) -> bytes:
    """The zeros behind a payload of this length."""
    return _PADDING[-payload_length % ALIGNMENT]


def encode_header(header: Header, position: int) -> bytes:
    """The 64 header bytes of a frame that will lie at byte `position` of its segment.

    Raises ValueError for values that no reader would accept.
    """
    if not 0 <= header.payload_length <= PAYLOAD_BYTES_MAX:
        raise ValueError(f"payload of {header.payload_length} bytes; a frame holds at most {PAYLOAD_BYTES_MAX}")
    if header.count < 1 or header.min_time > header.max_time:
        raise ValueError(f"{header.count} records with times {header.min_time} to {header.max_time}")
    try:
        fields = _FIELDS.pack(
            MAGIC,
            HEADER_SIZE,
            FLAG_COMPRESSED if header.compressed else 0,
            header.nonce,
            header.payload_length,
            header.count,
            header.base_offset,
            header.min_time,
            header.max_time,
            header.append_time,
            header.payload_checksum,
        )
    except struct.error as error:
        raise ValueError(f"a field is out of range: {error}") from error
    return fields + _CHECKSUM.pack(google_crc32c.value(_POSITION.pack(position) + fields))


def decode_header(
    view: bytes | memoryview, at: int = 0, *, position: int, nonce: int | None = None
) -> Header | Incomplete | Damaged | End:
    """Judge the header at `view[at:]`, which comes from byte `position` of a segment.

    With `nonce`, a header of any other segment is Damaged; without it any nonce is accepted. The payload is not
    looked at and need not be in `view`.
    """
    if len(view) - at < HEADER_SIZE:
        return Incomplete(HEADER_SIZE)
    magic, size, flags, own_nonce, length, count, base, min_time, max_time, append_time, payload_checksum = (
        _FIELDS.unpack_from(view, at)
    )
    if magic != MAGIC:
        return Damaged("no frame starts here") if magic else END
    if nonce is not None and own_nonce != nonce:
        return Damaged("a frame of another segment")
    checked = _POSITION.pack(position) + bytes(view[at : at + _CHECKED])
    if google_crc32c.value(checked) != _CHECKSUM.unpack_from(view, at + _CHECKED)[0]:
        return Damaged("header checksum mismatch")
    if size != HEADER_SIZE or flags & ~FLAG_COMPRESSED or length > PAYLOAD_BYTES_MAX or not count:
        return Damaged("header fields that this version does not know")
    compressed = bool(flags)
    return Header(base, count, min_time, max_time, append_time, length, payload_checksum, own_nonce, compressed)


def with_payload(header: Header, payload: bytes, unpack: Unpacker) -> Frame | Damaged:
    """Join a header and the bytes that follow it, if their checksum is the header's."""
    if len(payload) != header.payload_length or google_crc32c.value(payload) != header.payload_checksum:
        return Damaged("payload checksum mismatch")
    if header.compressed:
        raw = unpack(payload, PAYLOAD_BYTES_MAX)
        if isinstance(raw, str):
            return Damaged(raw)
        payload = raw
    return Frame(header.base_offset, header.count, header.min_time, header.max_time, header.append_time, payload)


def decode(
    view: bytes | memoryview, at: int = 0, *, position: int | None = None, nonce: int | None = None
) -> Frame | Incomplete | Damaged | End:
    """Judge the whole frame at `view[at:]`; `position` is `at` unless given, for a view of a whole file."""
    header = decode_header(view, at, position=at if position is None else position, nonce=nonce)
    if not isinstance(header, Header):
        return header
    start = at + HEADER_SIZE
    if len(view) < start + header.payload_length:
        return Incomplete(header.size)
    return with_payload(header, bytes(view[start : start + header.payload_length]), Unpacker())
