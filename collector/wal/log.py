"""The write-ahead log of one signal: frames in segments, appended by one thread, read by any.

`<directory>/<signal>/` holds segments (segment.py) named by base offset, each with its index (index.py) once it is
sealed. The last segment is the active one. Appending is one `pwritev` of header, payload pieces and padding;
nothing of it counts as durable before `sync`.

This is the writing side, on top of what readers see (readable.py); which segments there are is kept in segments.py.
Owner: the committer's thread calls `append`, `sync`, `enforce_retention` and `close`; the compactor's (compactor.py)
calls `replace` and `recycle`. Everything else may be called from any thread at any time.

Failure: a failed write or sync leaves a file in a state that nobody can know (the kernel may drop the pages and
report success the next time), so it is never tried again: the log is *failed*, refuses every later append with
the first cause, and goes on serving reads. The exception is a full disk noticed while writing, before any sync:
then the segment is cut back to the last whole frame, and the next append may find room.

A new segment's name is synced before its first frame, its header with it. Sealing a segment syncs the segment,
whatever the policy of the committer, so all that is not on the disk is in the active one. Sealing also writes the
index, which is derived data: failing at that is a warning.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Never, Self

from collector.clock import Clock
from collector.errors import TooLarge, Unavailable
from collector.otlp.signals import Signal
from collector.wal import audit, frame, segment
from collector.wal.cache import BlockCache
from collector.wal.deletions import Deletions
from collector.wal.files import Files, make_directories
from collector.wal.metrics import LogMetrics
from collector.wal.pruning import KEY_INDEX_BYTES
from collector.wal.readable import ReadableLog
from collector.wal.recovery import Recovered, recover, write_index
from collector.wal.retention import Retention
from collector.wal.segment import OFFSETS_MAX, Predecessor, Segment, SegmentHeader
from collector.wal.segments import Segments
from collector.wal.writer import SegmentWriter

SEGMENT_BYTES: Final = 64 * 1024 * 1024
SEGMENT_BYTES_MAX: Final = 2 * 1024 * 1024 * 1024
"""With the largest frame on top, positions still fit u32."""
RETENTION_RETRY_S: Final = 60.0
"""How long a failed removal rests before it is tried again."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk is full: after a write was cut back, the next one may find room."""
_SHORT: Final = _FULL | {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Creating a file found something to be short that may come back."""


class Log(ReadableLog):
    """One signal's log. Made by `Log.open`; the caller holds the directory's lock (lock.py)."""

    def __init__(
        self,
        directory: str,
        signal: Signal,
        *,
        files: Files,
        clock: Clock,
        segment_bytes: int,
        retention: Retention,
        metrics: LogMetrics,
        logger: Any,
        entropy: Callable[[int], bytes],
        direct: bool,
        key_index_bytes: int,
        cache: BlockCache | None,
        recovered: Recovered,
        deletions: Deletions,
    ) -> None:
        """Not for callers: see `open`."""
        super().__init__(
            signal,
            Segments(files, recovered.segments, recovered.spare, segment_bytes, last_is_active=recovered.continues),
            recovered.next_offset,
            files=files,
            metrics=metrics.of(signal),
            logger=logger,
            key_index_bytes=key_index_bytes,
            cache=cache,
            deletions=deletions,
        )
        self.clock = clock
        self.recovery = recovered.report
        """What opening the log found."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._retention = retention
        self._retention_rests_until = 0.0
        self._entropy = entropy
        self.failed: BaseException | None = None
        """Why nothing can be appended any more, or None."""
        self._closed = False
        # The active segment; None when one was sealed and the next could not be created yet.
        self._writer: SegmentWriter | None = None
        self._direct = direct
        # The wall clock at the start, carried on by the monotonic one: see `_now`.
        self._epoch = clock.now_ns() - int(clock.monotonic() * 1e9)

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        signal: Signal,
        *,
        files: Files,
        clock: Clock,
        metrics: LogMetrics,
        logger: Any,
        segment_bytes: int = SEGMENT_BYTES,
        retention_bytes: int | None = None,
        retention_age_s: float | None = None,
        direct: bool = True,
        key_index_bytes: int = KEY_INDEX_BYTES,
        cache: BlockCache | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> Self:
        """Recover the log in `<directory>/<signal>/`, creating it if need be, and make it ready to append.

        `segment_bytes`: a segment is sealed before it would grow beyond. `retention_bytes` and
        `retention_age_s` (None: no limit): see `enforce_retention`. `direct`: write past the page cache, as is best when each write
        is synced. `key_index_bytes`: memory for its key indexes. `cache` keeps blocks that queries have read; several logs
        may share one. `entropy` gives the nonces.

        Raises UnsupportedFormat for a directory written by a newer version, before anything is changed, and
        Unavailable when the file system refuses. Damage is repaired or stepped over, and told in `recovery`.
        """
        if not segment.HEADER_SIZE < segment_bytes <= SEGMENT_BYTES_MAX:
            raise ValueError(f"segment_bytes is {segment_bytes}; it may be at most {SEGMENT_BYTES_MAX}")
        path = os.path.join(os.fspath(directory), signal.name)
        try:
            make_directories(files, path)
            recovered = recover(files, path, signal, logger)
            log = cls(
                path,
                signal,
                files=files,
                clock=clock,
                segment_bytes=segment_bytes,
                retention=Retention(retention_bytes, retention_age_s),
                metrics=metrics,
                logger=logger,
                entropy=entropy,
                direct=direct,
                key_index_bytes=key_index_bytes,
                cache=cache,
                recovered=recovered,
                deletions=Deletions.open(path, files, recovered.first_offset, recovered.next_offset),
            )
            log._start(recovered)
        except OSError as error:
            raise Unavailable(f"the log {path} cannot be opened: {error}") from error
        return log

    def _start(self, recovered: Recovered) -> None:
        report = recovered.report
        for damage in report.damaged:
            self._metrics.damaged_records.inc(self._ledger.add(damage))
        self._metrics.truncated_bytes.inc(report.truncated_bytes)
        self._metrics.index_rebuilds.inc(report.rebuilt_indexes)
        self._metrics.failed.set(0)
        if recovered.continues:
            active = self._held.all[-1]
            self._writer = SegmentWriter.resume(self._files, active, self._segment_bytes, direct=self._direct)
        else:
            try:
                self._create()
            except OSError as error:
                if error.errno not in _SHORT:
                    raise
                # Reading, and removing by retention, need no room; the next append tries again.
                self._note_short("segment not created", error)
        self.logger.info(
            "log opened",
            signal=self.signal.name,
            directory=self._directory,
            first_offset=self.first_offset,
            next_offset=self.next_offset,
            segments=self.segment_count,
            bytes=self.byte_size,
            truncated_bytes=report.truncated_bytes,
            damaged_ranges=len(report.damaged),
        )

    # What is known without reading

    @property
    def byte_size(self) -> int:
        """Bytes of all segments up to their last frames. Allocated space and indexes come on top."""
        writer = self._writer
        return self._held.sealed_bytes + (writer.segment.size if writer else 0)

    @property
    def short(self) -> bool:
        """Whether the last write found no room on the disk; the next one tries again."""
        return self._held.short

    def stats(self) -> dict[str, int]:
        """The figures of `/api/stats`."""
        return {
            "first_offset": self.first_offset,
            "next_offset": self.next_offset,
            "segments": self.segment_count,
            "bytes": self.byte_size,
        }

    # Writing: the committer's thread only

    def append(
        self,
        payloads: Sequence[bytes | bytearray | memoryview],
        count: int,
        min_time: int,
        max_time: int,
        *,
        sync: bool = False,
    ) -> int:
        """Write one frame whose payload is `payloads` one after the other; returns its first record's offset.

        `count` records, with main times from `min_time` to `max_time` (ns). The frame can be read at once and is
        durable after `sync`; the argument `sync` tells that this is called next, which may save half of the work.
        Raises Unavailable when nothing was appended (`failed` tells whether for good),
        TooLarge for a payload beyond `frame.PAYLOAD_BYTES_MAX`, ValueError for a count or times that make no
        sense.
        """
        self._require_writable()
        pieces = [piece if type(piece) is bytes else bytes(piece) for piece in payloads]
        length = sum(map(len, pieces))
        if length > frame.PAYLOAD_BYTES_MAX:
            raise TooLarge(f"{length} bytes of records at once; the log takes {frame.PAYLOAD_BYTES_MAX}")
        size = frame.frame_size(length)
        writer = self._writer_for(size, count)
        started = self.clock.monotonic()
        try:
            offset = writer.append(pieces, length, count, min_time, max_time, self._now(), sync=sync)
        except OSError as error:
            self._undo(writer, error)
        self._next_offset = offset + count
        if self._held.short:
            self._held.short = False
            self.logger.info("room again", signal=self.signal.name, directory=self._directory)
        if not writer.dirty:
            self._synced_offset = self._next_offset
            self._metrics.fsync_duration.observe(self.clock.monotonic() - started)
        self._metrics.appended_bytes.inc(size)
        self._metrics.appended_records.inc(count)
        return offset

    def sync(self) -> None:
        """Make everything appended durable. Raises Unavailable, and the log is failed, if that cannot be known."""
        self._require_writable()
        writer = self._writer
        if self._synced_offset == self._next_offset or writer is None:
            return
        started = self.clock.monotonic()
        try:
            writer.sync()
        except OSError as error:
            self._fail(error, "sync")
        self._metrics.fsync_duration.observe(self.clock.monotonic() - started)
        self._synced_offset = self._next_offset

    def retain(self, max_bytes: int | None, max_age_s: float | None) -> None:
        """Change what `enforce_retention` goes by, from any thread; None is no limit."""
        self._retention = Retention(max_bytes, max_age_s)

    def enforce_retention(self) -> int:
        """Remove oldest segments while the log is larger than `retention_bytes`, and those whose newest frame was
        appended longer than `retention_age_s` ago; never the active one. Returns how many were removed.

        A removal that fails is logged and tried again later: the log only keeps more than it was asked to.
        """
        removed = 0
        now = self._now()
        while self.clock.monotonic() >= self._retention_rests_until and self._retention.expired(
            self._held.all, self.byte_size, now
        ):
            oldest = self._held.all[0]
            try:
                if not self._held.remove(oldest):
                    continue
            except OSError as error:
                self._retention_rests_until = self.clock.monotonic() + RETENTION_RETRY_S
                self.logger.warning("segment not removed", path=oldest.path, error=str(error))
                break
            self.key_indexes.forget(oldest)
            if self._cache is not None and oldest.nonce is not None:
                self._cache.forget(oldest.nonce)
            self._ledger.forget(self.first_offset)
            removed += 1
            self.logger.info("segment removed", signal=self.signal.name, path=oldest.path, bytes=oldest.size)
        return removed

    def replace(self, old: Segment, made: Segment, temporary: str) -> bool:
        """Put a compacted segment in the place of the one that it was made of: see `Segments.replace`."""
        if not self._held.replace(old, made, temporary):
            return False
        self.key_indexes.forget(old)
        return True

    def recycle(self, old: Segment, *, durable: bool) -> None:
        """Keep the file that a compacted segment had before, or give it up: see `Segments.recycle`."""
        self._held.recycle(old, durable=durable)

    def close(self) -> None:
        """Sync, cut the allocated zeros and close; nothing more can be appended. Reading goes on working.

        Raises Unavailable if the last records could not be synced; the log is closed all the same.
        """
        writer, was_closed, self._closed = self._writer, self._closed, True
        if was_closed or writer is None:
            return
        try:
            if self.failed is None:
                self._settle(writer)
        finally:
            writer.close()

    # For tests and people

    def check(self) -> list[str]:
        """Read every frame and compare with what the log believes, damage included; returns the differences, one
        line each.

        For tests: it reads the whole log, and no one must append meanwhile.
        """
        end = (self.byte_size, self.next_offset)
        return audit.disagreements(self._files, self.signal, self._held.all, end, self.damaged)

    def dump(self) -> str:
        """The log as text: its range, then one line per segment, frame and damaged range."""
        range_line = f"{self.signal.name} offsets {self.first_offset}..{self.next_offset} bytes {self.byte_size}"
        active = self._writer.segment if self._writer else None
        return "\n".join([range_line, *audit.describe(self._files, self._held.all, active)])

    # The parts of writing

    def _require_writable(self) -> None:
        if self.failed is not None:
            raise Unavailable(f"the log of {self.signal.name} has failed: {self.failed}") from self.failed
        if self._closed:
            raise Unavailable(f"the log of {self.signal.name} is closed")

    def _now(self) -> int:
        """Nanoseconds since the Unix epoch for append times and ages: the wall clock as it was at the start, carried
        on by the monotonic clock. A wall clock that jumps while the daemon runs expires nothing.
        """
        return self._epoch + int(self.clock.monotonic() * 1e9)

    def _writer_for(self, size: int, count: int) -> SegmentWriter:
        """The active segment's writer, with room for a frame of `size` bytes and `count` records."""
        writer = self._writer
        if writer is not None:
            active = writer.segment
            full = active.size + size > self._segment_bytes and active.size > segment.HEADER_SIZE
            if not full and active.next_offset + count - active.base_offset < OFFSETS_MAX:
                return writer
            self._seal(writer)
        try:
            return self._create()
        except OSError as error:
            if error.errno not in _SHORT:
                self._fail(error, "create a segment")
            self._note_short("segment not created", error)
            raise Unavailable(f"no room for a segment of {self.signal.name}: {error}") from error

    def _note_short(self, event: str, error: OSError) -> None:
        """There is no room: give up the spare file, and say so, but not for every request that finds none."""
        known = self._held.short
        self._held.run_short()
        if not known:
            self.logger.warning(event, signal=self.signal.name, directory=self._directory, error=str(error))

    def _create(self) -> SegmentWriter:
        """Start the next segment; its name is on the disk when this returns.

        Raises OSError when it may be tried again, else Unavailable.
        """
        segments = self._held.all
        before = segments[-1] if segments else None
        header = SegmentHeader(
            self.signal.code,
            self._next_offset,
            int.from_bytes(self._entropy(8), "little") or 1,
            self._now(),
            Predecessor(before.base_offset, before.size, before.next_offset) if before else None,
        )
        spare = self._held.take_spare()
        writer = SegmentWriter.create(
            self._files, self._directory, header, self._segment_bytes, direct=self._direct, spare=spare
        )
        try:
            self._files.fsync_directory(self._directory)
        except OSError as error:
            writer.close()
            self._fail(error, "sync the directory")
        self._writer = writer
        self._held.add(writer.segment)
        return writer

    def _seal(self, writer: SegmentWriter) -> None:
        """End the active segment: its bytes are on the disk, its file has its size, its index lies beside it."""
        self._settle(writer)
        writer.close()
        self._writer = None
        self._held.seal(writer.segment)
        write_index(self._files, writer.segment, writer.segment.size, self.logger)

    def _settle(self, writer: SegmentWriter) -> None:
        try:
            writer.settle()
        except OSError as error:
            self._fail(error, "sync")
        self._synced_offset = self._next_offset

    def _undo(self, writer: SegmentWriter, error: OSError) -> Never:
        """After a failed write: cut the file back if the disk was only full, else the log has failed."""
        if error.errno not in _FULL:
            self._fail(error, "write")
        try:
            writer.undo()
        except OSError as second:
            self._fail(second, "undo a write that found the disk full")
        self._note_short("disk full", error)
        raise Unavailable(f"no room for the log of {self.signal.name}: {error}") from error

    def _fail(self, error: OSError, action: str) -> Never:
        """Give up writing for good."""
        self.failed = error
        self._metrics.failed.set(1)
        self.logger.error(
            "log failed", signal=self.signal.name, directory=self._directory, action=action, error=str(error)
        )
        raise Unavailable(f"the log of {self.signal.name} has failed: cannot {action}: {error}") from error
