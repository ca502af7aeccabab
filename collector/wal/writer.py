"""The file of the active segment, open for writing.

Knows how bytes get into it and nothing of policy: every failure is an OSError, and the log decides what it means.
Used by the log's writer thread only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Self

from collector.wal import frame, segment
from collector.wal.files import Files, write_fully
from collector.wal.frame import Header
from collector.wal.segment import Segment, SegmentHeader

ALLOCATE_BYTES: Final = 4 * 1024 * 1024
"""Space is reserved this far ahead, so that most syncs need not change the file's size. After a crash, at most so
many zeros have to be looked at."""

RELEASE_BYTES: Final = 64 * 1024
"""Synced bytes are given up by the page cache in portions of at least this size. The ring is the cache of what is
new; without this each commit takes fresh pages, which cost more than all else about a write (measured: 0.4 of
1.0 µs a span), and the log fills the memory of a container."""

_NEVER: Final = 2**64
"""An allocated size that no file reaches: the file system does not allocate, so do not ask again."""


class SegmentWriter:
    """Appends frames to one segment. Made by `create` or `resume`."""

    def __init__(self, files: Files, made: Segment, nonce: int, handle: int, allocated: int, size_max: int) -> None:
        self.segment = made
        self._files = files
        self._nonce = nonce
        self._handle = handle
        self._allocated = allocated
        self._size_max = size_max
        self._released = 0

    @classmethod
    def create(cls, files: Files, directory: str, header: SegmentHeader, size_max: int) -> Self:
        """Start a segment. Nothing is on the disk yet: the caller syncs the name, the first frame's sync the header.

        Space is never allocated beyond `size_max`. Raises OSError; what may be left then is an empty segment
        whose name nobody else uses, and the next attempt replaces it.
        """
        path = os.path.join(directory, segment.file_name(header.base_offset))
        try:
            files.unlink(path)
        except FileNotFoundError:
            pass
        handle = files.open(path, create=True)
        made = segment.empty_segment(path, header.base_offset, header.nonce)
        writer = cls(files, made, header.nonce, handle, 0, size_max)
        try:
            writer._allocate(segment.HEADER_SIZE)
            write_fully(files, handle, [segment.encode_header(header)], 0)
        except OSError:
            writer.close()
            try:
                files.unlink(path)
            except OSError:
                pass  # The first error is the one to tell.
            raise
        return writer

    @classmethod
    def resume(cls, files: Files, made: Segment, size_max: int) -> Self:
        """Go on with a segment that recovery found whole. Raises OSError."""
        if made.nonce is None:
            raise ValueError(f"{made.path} is not whole")
        handle = files.open(made.path, write=True)
        try:
            # What a killed process left in the page cache must not be built upon before it is on the disk.
            files.fdatasync(handle)
            return cls(files, made, made.nonce, handle, files.size(handle), size_max)
        except OSError:
            files.close(handle)
            raise

    def append(
        self, pieces: Sequence[bytes], length: int, count: int, min_time: int, max_time: int, append_time: int
    ) -> int:
        """Write a frame of `length` payload bytes behind the last one; returns its base offset.

        Raises ValueError before anything is written, and OSError when the file now holds any part of the frame
        behind its last whole one.
        """
        position, offset = self.segment.end
        header = Header(offset, count, min_time, max_time, append_time, length, frame.checksum(pieces), self._nonce)
        whole = [frame.encode_header(header, position), *pieces, frame.padding(length)]
        self._allocate(position + header.size)
        write_fully(self._files, self._handle, whole, position)
        self.segment.add(position, header)
        return offset

    def undo(self) -> None:
        """Cut off what a failed `append` has left. Raises OSError."""
        self._files.truncate(self._handle, self.segment.size)
        self._allocated = self.segment.size

    def sync(self) -> None:
        """Return when all frames are on the disk. Raises OSError, and then must not be called again."""
        self._files.fdatasync(self._handle)
        if self.segment.size - self._released >= RELEASE_BYTES:
            self._released = self.segment.size
            try:
                self._files.release(self._handle, self._released)
            except OSError:
                pass  # It was advice.

    def settle(self) -> None:
        """Give the file the size of its frames, and sync. Raises OSError."""
        self._files.truncate(self._handle, self.segment.size)
        self._allocated = self.segment.size
        self._files.fdatasync(self._handle)

    def close(self) -> None:
        """Give up the file. Nothing is synced."""
        try:
            self._files.close(self._handle)
        except OSError:
            pass  # All that must last has been synced; close adds no promise.

    def _allocate(self, needed: int) -> None:
        """Reserve space up to byte `needed` and some more."""
        if needed <= self._allocated:
            return
        ahead = max(needed, min(self._allocated + ALLOCATE_BYTES, self._size_max))
        try:
            self._files.allocate(self._handle, self._allocated, ahead - self._allocated)
            self._allocated = ahead
        except OSError:
            # No room for so much, or not a thing of this file system: writing decides what is possible.
            self._allocated = _NEVER
