"""Compacting one sealed segment: its frames merged into larger ones, compressed, in a file that takes its place.

1. Read the old file frame by frame, merge neighbours (merging.py) and compress them (compression.py). Write the new
   file beside it as `<name>.log.tmp`, syncing every MiB, so that the one sync that acknowledges records never queues
   behind many megabytes of ours.
2. Read all of the new file back and compare: what leaves the disk in the step after next is the only other copy. The
   key index (keys.py) is made on the way.
3. Write the key index beside the segment. Nobody looks for one as long as the segment is not compacted.
4. Rename the new file over the old one (`Log.replace`). This is the step: before it a crash leaves the old segment and
   a `.tmp` that the next start removes, after it the new one. Never both, never neither; and all bytes of the new
   one were synced before.
5. Write the new offset index, and sync the directory. An index of the old segment that a crash leaves beside the new
   one has another nonce and is made anew.

A damaged segment is left alone, for it holds bytes that nobody can read today and somebody may want to.

Memory: the largest frame and its compressed form, and the entries of the key index. Every step is well under a
millisecond of CPU unless a frame is large, and then yields to its caller, who decides how long to rest (compactor.py).
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

from collector.otlp.signals import Signal
from collector.wal import frame, segment
from collector.wal.compression import Packer
from collector.wal.files import Files, read_fully, replace_file, write_fully
from collector.wal.frame import Damaged, Frame, Header
from collector.wal.keys import KeyBuilder
from collector.wal.log import Log
from collector.wal.merging import merged
from collector.wal.pruning import key_index_of
from collector.wal.reader import Unfit, intact_frames, open_segment
from collector.wal.recovery import keys_path, write_index
from collector.wal.segment import Segment

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
    temporary = f"{old.path}{TEMPORARY_SUFFIX}"
    try:
        with _opened(files, old) as source, _created(files, temporary) as target:
            made = yield from _rewrite(files, old, source, target, nonce)
            keys = yield from _read_back(log.signal, files, made, target)
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
    return result


class _Target:
    """The new file while it is written."""

    def __init__(self, files: Files, handle: int, old: Segment, nonce: int) -> None:
        self.segment = segment.empty_segment(old.path, old.base_offset, nonce)
        self.segment.compacted = True
        self.written: list[tuple[Header, int]] = []
        """Each frame's header, and the checksum of its payload before compression."""
        self._files = files
        self._handle = handle
        self._nonce = nonce
        self._pack = Packer()
        self._synced = 0

    def write(self, whole: Frame) -> None:
        """Write a frame behind the last one. Raises OSError."""
        packed = self._pack(whole.payload)
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
        position = self.segment.size
        pieces = [frame.encode_header(header, position), payload, frame.padding(len(payload))]
        write_fully(self._files, self._handle, pieces, position)
        self.segment.add(position, header)
        self.written.append((header, frame.checksum([whole.payload])))
        if self.segment.size - self._synced >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Have all that was written on the disk, and not in the memory that a container pays for. Raises OSError."""
        self._files.fdatasync(self._handle)
        self._synced = self.segment.size
        try:
            self._files.release(self._handle, 0, self._synced)
        except OSError:
            pass  # It was advice.


def _rewrite(files: Files, old: Segment, source: int, handle: int, nonce: int) -> Generator[None, None, _Target]:
    """Write all of the segment to the new file, and sync it."""
    header = segment.decode_header(read_fully(files, source, segment.HEADER_SIZE, 0), old.path)
    if isinstance(header, Damaged) or old.nonce is None:
        raise Unfit(header.reason if isinstance(header, Damaged) else "no frame can be read")
    header = replace(header, nonce=nonce, original_size=old.size, recycled=0)
    write_fully(files, handle, [segment.encode_header(header)], 0)
    target = _Target(files, handle, old, nonce)
    for item in merged(intact_frames(files, source, old)):
        if item is not None:
            target.write(item[1])
        yield
    target.sync()
    yield
    return target


def _read_back(signal: Signal, files: Files, target: _Target, handle: int) -> Generator[None, None, bytes]:
    """Compare the new file with what was meant, and make its key index. Raises OSError when it is something else."""
    keys = KeyBuilder(signal)
    expected = iter(target.written)
    try:
        for position, found in intact_frames(files, handle, target.segment):
            header, checksum = next(expected)
            if not _same(found, header) or frame.checksum([found.payload]) != checksum:
                raise Unfit(f"offset {header.base_offset} is something else")
            keys.add(position, found)
            yield
    except Unfit as error:
        raise OSError(errno.EIO, f"what was written reads back otherwise: {error}") from error
    return keys.encode(target.segment)


def _same(found: Frame, header: Header) -> bool:
    """Whether a frame has what its header was meant to say."""
    return (found.base_offset, found.count, found.min_time, found.max_time, found.append_time) == (
        header.base_offset,
        header.count,
        header.min_time,
        header.max_time,
        header.append_time,
    )


def rebuild_keys(log: Log, of: Segment, files: Files) -> Generator[None, None, bool]:
    """Make the key index of a compacted segment anew, yielding after every step; false when retention was faster.

    Raises Unfit when a frame cannot be read, which could be read again later and would be missing, and OSError.
    """
    with _opened(files, of) as handle:
        keys = yield from key_index_of(files, log.signal, handle, of)
    with of.lock:
        held = log.holds(of)
        if held:
            replace_file(files, keys_path(of.path), keys)
    log.key_indexes.forget(of)
    of.keyed = None
    return held


@contextmanager
def _opened(files: Files, old: Segment) -> Iterator[int]:
    """The segment's file, open for reading. Raises OSError."""
    handle, _ = open_segment(files, old)
    try:
        yield handle
    finally:
        _close(files, handle)


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
