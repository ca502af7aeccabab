"""Compacting one sealed segment: its frames merged into larger ones, compressed, in a file that takes its place.

1. Read the old file frame by frame, merge neighbours (merging.py), put empty records in the place of those that were
   deleted (deletions.py), take their keys (keys.py) and compress them
   (compression.py). Write the new file beside it as `<name>.log.tmp`, syncing every MiB, so that the one sync that
   acknowledges records never queues behind many megabytes of ours.
2. What leaves the disk in the step after next is the only other copy, so each compressed payload has been decompressed
   and compared, and now all of the new file is read back and compared with what was written.
3. Write the key index beside the segment. Nobody looks for one as long as the segment is not compacted.
4. Rename the new file over the old one (`Log.replace`). This is the step: before it a crash leaves the old segment and
   a `.tmp` that the next start removes, after it the new one. Never both, never neither; and all bytes of the new
   one were synced before.
5. Write the new offset index, and sync the directory. An index of the old segment that a crash leaves beside the new
   one has another nonce and is made anew.
6. Only now can no power cut bring the old file back, and it may be written over: `Log.recycle`.

A segment that is compacted already is compacted again when records of it have been deleted since.

A damaged segment is left alone, for it holds bytes that nobody can read today and somebody may want to.

Memory: the largest frame and its compressed form, and the entries of the key index; of log records and spans also the
sets of grams of up to 512 frames, 8 MiB, and those once more when they are turned over. Every step is well under a
millisecond of CPU unless a frame is large, or makes the key index of log records or spans (20 ms, nearly all without the
GIL), and then yields to its caller, who decides how long to rest (compactor.py).
Files are closed, and leftovers removed, whenever it ends.

Left out: merging segments into larger ones. The name of a segment is its first offset, retention forgets whole ones,
and both would need a journal of their own to stay crash-safe; at 64 MiB before compression there is little to gain.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from collector.errors import Malformed
from collector.otlp.remains import erased
from collector.otlp.scan import scan
from collector.otlp.signals import Signal
from collector.otlp.tombstones import Tombstones
from collector.wal import frame, segment
from collector.wal.compression import Packer, Unpacker
from collector.wal.files import Files, read_fully, replace_file, write_fully
from collector.wal.frame import Damaged, Frame, Header
from collector.wal.keys import KeyBuilder
from collector.wal.log import Log
from collector.wal.merging import merged
from collector.wal.pruning import key_index_of
from collector.wal.reader import Unfit, intact_frames, opened_segment
from collector.wal.recovery import keys_path, write_index
from collector.wal.segment import Segment, SegmentHeader

SYNC_BYTES: Final = 1024 * 1024
"""Bytes of the new file after which they are synced."""
TEMPORARY_SUFFIX: Final = ".tmp"


@dataclass(slots=True)
class Result:
    """What a compaction has done. `replaced` is false when retention was faster."""

    bytes_in: int
    bytes_out: int = 0
    replaced: bool = False


def compact(log: Log, old: Segment, files: Files, nonce: int) -> Generator[None, None, Result]:
    """Compact a sealed segment of the log, yielding after every step.

    `nonce` is a random number that no segment has, not 0. Returns what was done. Raises Unfit for a segment that has
    to stay as it is, and OSError; then the segment is as it was.
    """
    result = Result(old.size)
    deleted = log.deletions.hidden.within(old.base_offset, old.next_offset)
    temporary = f"{old.path}{TEMPORARY_SUFFIX}"
    try:
        with opened_segment(files, old) as (source, _), _created(files, temporary) as target:
            made = yield from _rewrite(files, log.signal, old, source, target, nonce, deleted)
            yield from made.read_back()
            keys = made.keys.encode(made.segment)
            replace_file(files, keys_path(old.path), keys)
            # The old file is still open here, so that its blocks are freed after the rename, not under its lock.
            result.replaced = log.replace(old, made.segment, temporary)
    finally:
        if not result.replaced:
            for path in (temporary, keys_path(old.path), f"{keys_path(old.path)}{TEMPORARY_SUFFIX}"):
                _remove(files, path)
    if result.replaced:
        result.bytes_out = made.segment.size + len(keys)
        write_index(files, made.segment, made.segment.size, log.logger)
        try:
            files.fsync_directory(os.path.dirname(old.path))
        except OSError as error:
            # Either file may be found after a power cut then: both hold the same records.
            log.logger.warning("directory not synced", path=os.path.dirname(old.path), error=str(error))
            log.recycle(old, durable=False)
        else:
            # What was deleted shall not wait in a spare file for being written over.
            log.recycle(old, durable=not deleted)
            if deleted:
                log.deletions.erased(old.base_offset, old.next_offset, deleted, log.first_offset)
    return result


class _Target:
    """The new file while it is written, and the key index that is made on the way."""

    def __init__(self, files: Files, handle: int, signal: Signal, old: Segment, header: SegmentHeader) -> None:
        self.segment = segment.empty_segment(old.path, old.base_offset, header.nonce)
        self.segment.compacted = True
        self.keys = KeyBuilder(signal)
        self._files = files
        self._handle = handle
        self._nonce = header.nonce
        self._pack = Packer()
        self._unpack = Unpacker()
        # (length, checksum) of every piece of the file, in order.
        self._written: list[tuple[int, int]] = []
        self._synced = 0
        self._put([segment.encode_header(header)], 0)

    def write(self, whole: Frame) -> None:
        """Write a frame behind the last one. Raises OSError."""
        packed = self._pack(whole.payload)
        # While all of it is in the processor's caches: the same later would cost twice as much.
        if packed is not None and self._unpack(packed, len(whole.payload)) != whole.payload:
            raise OSError(errno.EIO, f"offset {whole.base_offset} is something else when it is decompressed")
        position = self.segment.size
        self.keys.add(position, whole)
        payload = whole.payload if packed is None else packed
        header = Header(
            whole.base_offset,
            whole.count,
            whole.min_time,
            whole.max_time,
            whole.append_time,
            len(payload),
            frame.checksum([payload]),
            self._nonce,
            compressed=packed is not None,
        )
        self._put([frame.encode_header(header, position), payload, frame.padding(len(payload))], position)
        self.segment.add(position, header)
        if self.segment.size - self._synced >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Have all that was written on the disk, and not in the memory that a container pays for. Raises OSError."""
        self._files.fdatasync(self._handle)
        fresh = self.segment.size - self._synced
        try:
            self._files.release(self._handle, self._synced, fresh)
        except OSError:
            pass  # It was advice.
        self._synced += fresh

    def read_back(self) -> Iterator[None]:
        """Compare the file with what was written, in steps. Raises OSError when it is something else."""
        position = 0
        for length, checksum in self._written:
            if frame.checksum([read_fully(self._files, self._handle, length, position)]) != checksum:
                raise OSError(errno.EIO, f"what was written at byte {position} reads back otherwise")
            position += length
            yield

    def _put(self, pieces: list[bytes], position: int) -> None:
        write_fully(self._files, self._handle, pieces, position)
        self._written.append((sum(map(len, pieces)), frame.checksum(pieces)))


def _rewrite(
    files: Files, signal: Signal, old: Segment, source: int, handle: int, nonce: int, deleted: Tombstones
) -> Generator[None, None, _Target]:
    """Write all of the segment to the new file, with empty records for those that were deleted, and sync it."""
    header = segment.decode_header(read_fully(files, source, segment.HEADER_SIZE, 0), old.path)
    if isinstance(header, Damaged):
        raise Unfit(header.reason)
    size = header.original_size or old.size
    target = _Target(files, handle, signal, old, replace(header, nonce=nonce, recycled=0, original_size=size))
    for item in merged(intact_frames(files, source, old)):
        if item is not None:
            target.write(_erased(signal, item[1], deleted))
        yield
    target.sync()
    yield
    return target


def _erased(signal: Signal, one: Frame, deleted: Tombstones) -> Frame:
    """The frame without what was deleted. Raises Unfit for one that is no request: it cannot be told from the rest."""
    if not deleted.touch(one.base_offset, one.end_offset):
        return one
    try:
        block = scan(signal, one.payload, one.base_offset)
    except Malformed as error:
        raise Unfit(str(error)) from error
    return replace(one, payload=erased(block, deleted))


def rebuild_keys(log: Log, of: Segment, files: Files) -> Generator[None, None, bool]:
    """Make the key index of a compacted segment anew, yielding after every step; false when retention was faster.

    Raises Unfit when a frame cannot be read, which could be read again later and would be missing, and OSError.
    """
    with opened_segment(files, of) as (handle, _):
        keys = yield from key_index_of(files, log.signal, handle, of)
    with of.lock:
        held = log.holds(of)
        if held:
            replace_file(files, keys_path(of.path), keys)
    log.key_indexes.forget(of)
    of.keyed = None
    return held


@contextmanager
def _created(files: Files, path: str) -> Iterator[int]:
    """A new file at `path`, whatever was there. Raises OSError."""
    try:
        files.unlink(path)
    except FileNotFoundError:
        pass
    handle = files.open(path, create=True)
    try:
        yield handle
    finally:
        _close(files, handle)


def _close(files: Files, handle: int) -> None:
    """Give up a file; all that must last has been synced."""
    try:
        files.close(handle)
    except OSError:
        pass  # Close adds no promise.


def _remove(files: Files, path: str) -> None:
    """Remove a leftover, if that is possible; the next attempt and the next start try again."""
    try:
        files.unlink(path)
    except OSError:
        pass
