"""Bodies in Zstandard (RFC 8878), inflated in steps of bounded size.

The library inflates in steps, but says nothing when its input ends inside a frame. So the frames are walked first, by
their block heads: that finds every truncation and whatever follows the last frame, and costs a few operations for each
block of up to 128 KiB.

Windows are bounded, because a frame's head may ask for gigabytes; so are blocks, because an empty one is three bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import zstandard

from collector.errors import Malformed

WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
"""What RFC 8878 (3.1.1.1.2) asks every decoder to support, and no more."""
BLOCKS_MAX: Final = 65536
"""Blocks and frames of one body."""

_FRAME: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x2a\x4d\x18"
"""What follows the first byte, 0x50 to 0x5f, of a skippable frame."""
_DICTIONARY_BYTES: Final = (0, 1, 2, 4)
_SIZE_BYTES: Final = (0, 2, 4, 8)
_RLE, _RESERVED = 1, 3


def inflated(body: bytes | bytearray, step: int) -> Iterator[bytes]:
    """Yield what the body inflates to, in pieces of at most `step` bytes; raises Malformed."""
    _check_frames(body)
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    try:
        with decompressor.stream_reader(body, read_size=step, read_across_frames=True) as reader:
            while piece := reader.read(step):
                yield piece
    except zstandard.ZstdError as error:
        raise Malformed(f"the zstd body does not inflate: {error}") from error


def _check_frames(body: bytes | bytearray) -> None:
    """Raise Malformed unless the body is whole frames, one at least."""
    at, blocks = 0, 0
    while not at or at < len(body):
        blocks += 1
        if body[at + 1 : at + 4] == _SKIPPABLE and body[at] >> 4 == 5:
            at += 8 + int.from_bytes(body[at + 4 : at + 8], "little")
        elif body[at : at + 4] == _FRAME:
            at, count = _frame_end(body, at + 4, BLOCKS_MAX - blocks)
            blocks += count
        else:
            raise Malformed(f"at byte {at} of the zstd body no frame begins")
        if at > len(body):
            raise Malformed("the zstd body ends too early")
        if blocks > BLOCKS_MAX:
            raise Malformed(f"the zstd body has more than {BLOCKS_MAX} blocks")


def _frame_end(body: bytes | bytearray, at: int, blocks_max: int) -> tuple[int, int]:
    """Return where the frame ends whose head begins at `at`, behind its magic number, and how many blocks it has."""
    descriptor = body[at] if at < len(body) else 0
    is_single = descriptor >> 5 & 1
    size_bytes = _SIZE_BYTES[descriptor >> 6] or is_single
    at += 1 + (1 - is_single) + _DICTIONARY_BYTES[descriptor & 3] + size_bytes
    for count in range(1, blocks_max + 2):
        head = int.from_bytes(body[at : at + 3], "little")
        at += 3
        if at > len(body):
            raise Malformed("the zstd body ends too early")
        kind, size = head >> 1 & 3, head >> 3
        if kind == _RESERVED:
            raise Malformed("a block of the zstd body has a type that is not defined")
        at += 1 if kind == _RLE else size
        if head & 1:
            return at + (4 if descriptor & 4 else 0), count
    return at, blocks_max + 1
