"""The file of the active segment, open for writing.

Knows how bytes get into it and nothing of policy: every failure is an OSError, and the log decides what it means.
Used by the log's writer thread only.

Bytes are written in whole blocks from aligned memory, past the page cache where the log asks for that and the file
system can (`Files.open`): a commit of 200 KB then costs half the CPU and half the time (measured: 87 to 48 µs of
CPU, 460 to 170 µs until it is on the disk), and the log does not fill the memory of a container. The last block of
one write is the first of the next, written again with what it had: a disk that tears it leaves what both have in
common, which is what page caches rely on, too. Behind the last frame a write ends in at least 8 zeros, so that a
reader finds the end also in a recycled file, whose rest is frames of another segment.

A recycled file has its blocks already, so that a sync need not write anything but data: half again of the CPU.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Self

from collector.wal import frame, segment
from collector.wal.files import BLOCK_BYTES, Files, read_fully, write_fully
from collector.wal.frame import Header
from collector.wal.segment import Segment, SegmentHeader

ALLOCATE_BYTES: Final = 4 * 1024 * 1024
"""Space is reserved this far ahead, so that most syncs need not change the file's size. After a crash, at most so
many zeros have to be looked at."""

STAGE_BYTES: Final = 1024 * 1024
"""What is written at once; larger frames take several writes."""

RELEASE_BYTES: Final = 64 * 1024
"""Synced bytes are given up by the page cache, if they are there, in portions of at least this size: the ring is the
cache of what is new, and fresh pages cost more than all else about a write."""

_NEVER: Final = 2**64
"""An allocated size that no file reaches: the file system does not allocate, so do not ask again."""


class SegmentWriter:
    """Appends frames to one segment. Made by `create` or `resume`."""

    def __init__(self, files: Files, made: Segment, nonce: int, handle: int, allocated: int, size_max: int) -> None:
        """Not for callers: see `create` and `resume`."""
        self.segment = made
        self._files = files
        self._nonce = nonce
        self._handle = handle
        self._allocated = allocated
        self._size_max = size_max
        self._released = 0
        self.dirty = True
        """Whether something was written that is not synced, as the header of a new segment."""
        # Anonymous memory is aligned to pages. It begins with what the segment's last block holds.
        self._stage = mmap.mmap(-1, STAGE_BYTES + BLOCK_BYTES)

    @classmethod
    def create(
        cls, files: Files, directory: str, header: SegmentHeader, size_max: int, *, direct: bool, spare: str | None
    ) -> Self:
        """Start a segment. Nothing of its name is on the disk yet: the caller syncs that, the first frame's sync the
        header. `spare` is a file to write over, which becomes the segment, unless it has another name: in a backup.

        Space is never allocated beyond `size_max`. Raises OSError; what may be left then is an empty segment
        whose name nobody else uses, and the next attempt replaces it.
        """
        path = os.path.join(directory, segment.file_name(header.base_offset))
        try:
            files.unlink(path)
        except FileNotFoundError:
            pass
        if spare is not None and _is_shared(files, spare):
            files.unlink(spare)
            spare = None
        made = segment.empty_segment(path, header.base_offset, header.nonce)
        handle = files.open(path if spare is None else spare, write=True, create=spare is None, direct=direct)
        writer = cls(files, made, header.nonce, handle, 0, size_max)
        try:
            if spare is None:
                writer._allocate(segment.HEADER_SIZE)
                writer._write(0, [segment.encode_header(header)])
            else:
                writer._allocated = files.size(handle)
                recycled = replace(header, recycled=writer._allocated)
                writer._write(0, [segment.encode_header(recycled)])
                # Under its new name the file must never be seen with its old header.
                files.fdatasync(handle)
                files.rename(spare, path)
        except OSError:
            writer.close()
            try:
                files.unlink(path if spare is None else spare)
            except OSError:
                pass  # The first error is the one to tell.
            raise
        return writer

    @classmethod
    def resume(cls, files: Files, made: Segment, size_max: int, *, direct: bool) -> Self:
        """Go on with a segment that recovery found whole. Raises OSError."""
        if made.nonce is None:
            raise ValueError(f"{made.path} is not whole")
        handle = files.open(made.path, write=True, direct=direct)
        try:
            # What a killed process left in the page cache must not be built upon before it is on the disk.
            files.fdatasync(handle)
            size = files.size(handle)
            writer = cls(files, made, made.nonce, handle, size, size_max)
            writer._load_last_block()
        except OSError:
            files.close(handle)
            raise
        return writer

    def append(
        self,
        pieces: Sequence[bytes],
        length: int,
        count: int,
        min_time: int,
        max_time: int,
        append_time: int,
        *,
        sync: bool = False,
    ) -> int:
        """Write a frame of `length` payload bytes behind the last one; returns its base offset.

        With `sync`, which says that `sync` will be called next, it is synced at once if that saves a call.

        Raises ValueError before anything is written, and OSError when the file now holds any part of the frame
        behind its last whole one.
        """
        position, offset = self.segment.end
        header = Header(offset, count, min_time, max_time, append_time, length, frame.checksum(pieces), self._nonce)
        whole = [frame.encode_header(header, position), *pieces, frame.padding(length)]
        self._allocate(position + header.size + frame.TERMINATOR_BYTES)
        # A sync of its own covers older writes, too; a synced write only itself.
        at_once = sync and not self.dirty and position % BLOCK_BYTES + header.size < STAGE_BYTES
        self._write(position, whole, sync=at_once)
        self.dirty = not at_once
        self.segment.add(position, header)
        return offset

    def _write(self, position: int, pieces: Sequence[bytes], *, sync: bool = False) -> None:
        """Write the pieces one after the other at `position`, where the last write ended, and zeros behind them."""
        stage = self._stage
        at = position % BLOCK_BYTES
        start = position - at
        with memoryview(stage) as room:
            for piece in pieces:
                taken = 0
                while taken < len(piece):
                    count = min(len(piece) - taken, STAGE_BYTES - at)
                    room[at : at + count] = piece if count == len(piece) else piece[taken : taken + count]
                    taken += count
                    at += count
                    if at == STAGE_BYTES:
                        self._write_blocks(room, at, start)
                        start += at
                        at = 0
            end = (at + frame.TERMINATOR_BYTES + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES
            room[at:end] = bytes(end - at)
            self._write_blocks(room, end, start, sync=sync)
            begin = at // BLOCK_BYTES * BLOCK_BYTES
            if begin:
                room[: at - begin] = bytes(room[begin:at])

    def _write_blocks(self, room: memoryview, length: int, position: int, *, sync: bool = False) -> None:
        with room[:length] as blocks:
            write_fully(self._files, self._handle, [blocks], position, sync=sync)

    def _load_last_block(self) -> None:
        """Read what the block has in which the next frame begins."""
        size = self.segment.size
        length = size % BLOCK_BYTES
        if length:
            reading = self._files.open(self.segment.path)
            try:
                last = read_fully(self._files, reading, length, size - length)
            finally:
                self._files.close(reading)
            if len(last) != length:
                raise OSError(errno.EIO, "the segment is shorter than its frames")
            self._stage[:length] = last

    def undo(self) -> None:
        """Cut off what a failed `append` has left. Raises OSError."""
        self._files.truncate(self._handle, self.segment.size)
        self._allocated = self.segment.size
        self._load_last_block()

    def sync(self) -> None:
        """Return when all frames are on the disk. Raises OSError, and then must not be called again."""
        if self.dirty:
            self._files.fdatasync(self._handle)
            self.dirty = False
        fresh = self.segment.size - self._released
        if fresh >= RELEASE_BYTES:
            try:
                self._files.release(self._handle, self._released, fresh)
            except OSError:
                pass  # It was advice.
            self._released += fresh

    def settle(self) -> None:
        """Give the file the size of its frames, and sync. Raises OSError."""
        self._files.truncate(self._handle, self.segment.size)
        self._allocated = self.segment.size
        self._files.fdatasync(self._handle)

    def close(self) -> None:
        """Give up the file. Nothing is synced."""
        try:
            self._stage.close()
        except BufferError:
            pass  # The error of a failed write still has views of it, in its traceback; it goes with the last one.
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


def _is_shared(files: Files, path: str) -> bool:
    """Whether a file has another name. Who gives it one does so while it is a segment, by that name: not later."""
    handle = files.open(path)
    try:
        return files.names(handle) > 1
    finally:
        files.close(handle)
