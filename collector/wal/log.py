"""The write-ahead log of one signal: frames in segments, appended by one thread, read by any.

`<directory>/<signal>/` holds segments (segment.py) named by base offset, each with its index (index.py) once it is
sealed. The last segment is the active one. Appending is one `pwritev` of header, payload pieces and padding;
nothing of it counts as durable before `sync`.

Owner: the committer's thread calls `append`, `sync`, `enforce_retention` and `close`; the compactor's (compactor.py)
calls `replace`. Everything else may be called from any thread at any time. Readers need no lock because what they see
is replaced, never edited: the tuple of segments, and each segment's (size, next offset), set after a frame is complete.
They open segment files themselves, so removing one cannot pull a file from under them. Two locks keep the two writers
apart: the log's is held for assignments only, never while the system works; a segment's while its file is replaced or
removed, which is never the active one. So an acknowledgement waits for neither.

Failure: a failed write or sync leaves a file in a state that nobody can know (the kernel may drop the pages and
report success the next time), so it is never tried again: the log is *failed*, refuses every later append with
the first cause, and goes on serving reads. The exception is a full disk noticed while writing, before any sync:
then the segment is cut back to the last whole frame, and the next append may find room.

A new segment's name is synced before its first frame, its header with it. Sealing a segment syncs the segment,
whatever the policy of the committer, so all that is not on the disk is in the active one. Sealing also writes the
index, which is derived data: failing at that is a warning.

A removed segment's file is kept to be written over, at most one: its blocks are there already, and a sync then
writes nothing but data. So is the file that a segment had before it was compacted. Not one that a reader holds, and
none while there is no room: what retention removes is what makes some.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Never, Self

from collector.clock import Clock
from collector.errors import NotFound, TooLarge, Unavailable
from collector.otlp.block import Block
from collector.otlp.remains import rest_of
from collector.otlp.signals import Signal
from collector.otlp.terms import Terms
from collector.wal import audit, frame, segment
from collector.wal.cache import BlockCache, Blocks
from collector.wal.compression import Unpacker
from collector.wal.counts import ReadCounts
from collector.wal.deletions import Deletions
from collector.wal.files import Files, make_directories, sync_file
from collector.wal.frame import Frame
from collector.wal.metrics import LogMetrics
from collector.wal.pruning import KEY_INDEX_BYTES, KeyIndexes, asked
from collector.wal.reader import Damage, DamageLedger
from collector.wal.reading import Frames, Item, Making, Range, chosen, overlapping, read_segment
from collector.wal.recovery import Recovered, recover, write_index
from collector.wal.retention import Retention, remove_segment
from collector.wal.segment import OFFSETS_MAX, Predecessor, Segment, SegmentHeader
from collector.wal.share import share
from collector.wal.spare import give_up, link_spare
from collector.wal.writer import SegmentWriter

SEGMENT_BYTES: Final = 64 * 1024 * 1024
SEGMENT_BYTES_MAX: Final = 2 * 1024 * 1024 * 1024
"""With the largest frame on top, positions still fit u32."""
TIME_MAX: Final = 2**64 - 1
RETENTION_RETRY_S: Final = 60.0
"""How long a failed removal rests before it is tried again."""


_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk is full: after a write was cut back, the next one may find room."""
_SHORT: Final = _FULL | {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Creating a file found something to be short that may come back."""


class Log:
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
        self.signal = signal
        self.clock = clock
        self.logger = logger
        self.recovery = recovered.report
        """What opening the log found."""
        self.key_indexes = KeyIndexes(files, signal, logger, key_index_bytes)
        """What is known of the keys in its segments."""
        self.deletions = deletions
        """What was deleted of it."""
        self._cache = cache
        self._directory = directory
        self._files = files
        self._segment_bytes = segment_bytes
        self._retention = retention
        self._retention_rests_until = 0.0
        self._metrics = metrics.of(signal)
        self._entropy = entropy
        self._segments = recovered.segments
        self._next_offset = recovered.next_offset
        self._synced_offset = recovered.next_offset
        self._sealed_bytes = sum(one.size for one in recovered.segments)
        # For every change of `_segments` and `_sealed_bytes`, which two threads make. Held for assignments only.
        self._changing = threading.Lock()
        self._ledger = DamageLedger()
        self._unpack = Unpacker()
        self.failed: BaseException | None = None
        """Why nothing can be appended any more, or None."""
        self._closed = False
        self._short = False
        # The active segment; None when one was sealed and the next could not be created yet.
        self._writer: SegmentWriter | None = None
        self._direct = direct
        self._spare = recovered.spare
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
            active = self._segments[-1]
            self._writer = SegmentWriter.resume(self._files, active, self._segment_bytes, direct=self._direct)
            self._sealed_bytes -= active.size
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
    def first_offset(self) -> int:
        """The oldest offset that the log may still have; equal to `next_offset` when it is empty."""
        segments = self._segments
        return segments[0].base_offset if segments else self._next_offset

    @property
    def next_offset(self) -> int:
        """The offset that the next record will get."""
        return self._next_offset

    @property
    def synced_offset(self) -> int:
        """Records before this offset are on the disk. Who ships records elsewhere must not read beyond it."""
        return self._synced_offset

    @property
    def sealed_segments(self) -> tuple[Segment, ...]:
        """The segments that are not written to any more and have a successor, oldest first."""
        return self._segments[:-1]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments, oldest first."""
        return self._segments

    def holds(self, one: Segment) -> bool:
        """Whether the segment is one of the log's, and neither removed nor replaced; certain under its lock."""
        return any(held is one for held in self._segments)

    @property
    def segment_count(self) -> int:
        """Segment files, the active one included."""
        return len(self._segments)

    @property
    def byte_size(self) -> int:
        """Bytes of all segments up to their last frames. Allocated space and indexes come on top."""
        writer = self._writer
        return self._sealed_bytes + (writer.segment.size if writer else 0)

    @property
    def record_count(self) -> int:
        """Records in all readable frames, as far as their damage is known."""
        return sum(one.records for one in self._segments)

    @property
    def short(self) -> bool:
        """Whether the last write found no room on the disk; the next one tries again."""
        return self._short

    @property
    def damaged(self) -> tuple[Damage, ...]:
        """Ranges of offsets found unreadable since the log was opened, in order."""
        return self._ledger.ranges()

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
        if self._short:
            self._short = False
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
            self._segments, self.byte_size, now
        ):
            oldest = self._segments[0]
            with oldest.lock:
                if oldest.successor is not None:
                    continue
                keep_file = self._recyclable(oldest) and not oldest.readers
                try:
                    spare = remove_segment(self._files, oldest, keep_file=keep_file)
                except OSError as error:
                    self._retention_rests_until = self.clock.monotonic() + RETENTION_RETRY_S
                    self.logger.warning("segment not removed", path=oldest.path, error=str(error))
                    break
                with self._changing:
                    self._segments = self._segments[1:]
                    self._sealed_bytes -= oldest.size
            self._keep_spare(spare)
            self.key_indexes.forget(oldest)
            if self._cache is not None and oldest.nonce is not None:
                self._cache.forget(oldest.nonce)
            self._ledger.forget(self.first_offset)
            removed += 1
            self.logger.info("segment removed", signal=self.signal.name, path=oldest.path, bytes=oldest.size)
        return removed

    def replace(self, old: Segment, made: Segment, temporary: str) -> bool:
        """Put `made`, the compacted form of `old` in the file `temporary`, in its place, in one step for readers and
        for a start after a crash. For the compactor's thread. All of `made` must be on the disk.

        False, and nothing is changed, when retention has removed the segment meanwhile. Raises OSError; then nothing
        is changed either. The name lasts once the directory has been synced; until then a power cut may bring back
        the old file.
        """
        with old.lock:
            if not self.holds(old):
                return False
            second_name = link_spare(self._files, old) if self._recyclable(old) else None
            try:
                self._files.rename(temporary, old.path)
            except OSError:
                give_up(self._files, second_name)
                raise
            with self._changing:
                self._segments = tuple(made if one is old else one for one in self._segments)
                self._sealed_bytes += made.size - old.size
            old.successor = made
            old.second_name = second_name
        self.key_indexes.forget(old)
        return True

    def recycle(self, old: Segment, *, durable: bool) -> None:
        """Keep the file that a compacted segment had before, to be written over, or give it up. For the compactor.

        `durable` tells that the directory was synced after `replace`: until then a power cut may bring it back.
        """
        with old.lock:
            idle = not old.readers  # And nobody can begin: who asks for it gets its successor.
        if durable and idle:
            self._keep_spare(old.second_name)
        else:
            give_up(self._files, old.second_name)

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

    # Reading: any thread

    def settled_offset(self) -> int:
        """Have all that was appended before this call on the disk, whatever the policy of the committer, and return the
        offset behind it. For who ships records elsewhere, and cannot wait for `synced_offset`. Raises Unavailable.
        """
        segments, end = self._segments, self._next_offset
        if self._synced_offset >= end or not segments:
            return self._synced_offset
        try:
            sync_file(self._files, segments[-1].path)
        except FileNotFoundError:
            return self._synced_offset  # Sealed, which syncs it, and removed meanwhile.
        except OSError as error:
            raise Unavailable(f"the log of {self.signal.name} cannot be synced: {error}") from error
        return end

    def frames(
        self,
        start_offset: int = 0,
        end_offset: int = TIME_MAX,
        start_ns: int = 0,
        end_ns: int = TIME_MAX,
        newest_first: bool = False,
        index: str | None = None,
        any_of: Sequence[int | bytes] = (),
        terms: Terms = (),
        wanted: Callable[[int, int], bool] | None = None,
    ) -> Iterator[Frame]:
        """Frames that have offsets in [start_offset, end_offset) and times in [start_ns, end_ns], both inclusive
        for times, in order of offset or with the newest first.

        With `index`, a key column of the signal, frames may be left out that have no record with one of the keys
        `any_of` there: bytes for a string or a trace id, else a number. None is left out that has one.

        With `terms` (otlp/terms.py), frames may be left out that have no record which fulfils them. None is left out that
        has one.

        `wanted` is asked, when it is their turn, about the times of the oldest and newest record of a segment and of a
        frame: those that it does not want are passed by, too. It may want less as the caller finds more.

        A frame that overlaps comes whole, also with records that were deleted. Segments and frames outside are passed by their index and header. The
        log is seen as it is when the first frame is asked for: frames appended later may be missing, and those
        that retention removes meanwhile. Damage on the way is stepped over, logged, counted, and listed in
        `damaged`. Raises Unavailable when the system refuses to open or read a file.
        """
        within = Range(start_offset, end_offset, start_ns, end_ns, newest_first, wanted)
        return self._read(Frames(), within, index, any_of, terms)

    def blocks(
        self,
        start_offset: int = 0,
        end_offset: int = TIME_MAX,
        start_ns: int = 0,
        end_ns: int = TIME_MAX,
        newest_first: bool = False,
        index: str | None = None,
        any_of: Sequence[int | bytes] = (),
        terms: Terms = (),
        wanted: Callable[[int, int], bool] | None = None,
        *,
        cached: bool = True,
        counts: ReadCounts | None = None,
        deleted: bool = False,
    ) -> Iterator[Block]:
        """The same as scanned blocks, those of compacted segments from the cache and into it, unless `cached` is false.
        Records that were deleted are among them with `deleted` only.

        A frame with the right checksum whose payload is no valid request, as a program with other rules has written it, is
        told as damaged and left out: it costs its own records.
        """
        within = Range(start_offset, end_offset, start_ns, end_ns, newest_first, wanted, counts)
        make = Blocks(self._cache if cached else None, self.signal, self.tell_damaged)
        found = self._read(make, within, index, any_of, terms)
        return found if deleted else rest_of(found, self.deletions.hidden, backwards=newest_first)

    def share(self, terms: Terms, end_offset: int = TIME_MAX, start_ns: int = 0, end_ns: int = TIME_MAX) -> float:
        """About which share of the records before an offset, with times in [start_ns, end_ns], `blocks` reads for these
        terms, between 0 and 1: what a few segments tell (share.py).
        """
        within = Range(0, end_offset, start_ns, end_ns)
        wanted = asked(within, None, (), terms)
        if wanted is None:
            return 1.0
        segments = [known.latest for known in overlapping(self._segments, within)]
        return share(self.key_indexes, [one for one in segments if chosen(one, within)], wanted)

    def _read(
        self,
        make: Making[Item],
        within: Range,
        index: str | None,
        any_of: Sequence[int | bytes],
        terms: Terms,
    ) -> Iterator[Item]:
        """See `frames`."""
        segments = overlapping(self._segments, within)
        what = asked(within, index, any_of, terms)
        try:
            for known in reversed(segments) if within.newest_first else segments:
                one = known.latest
                if not chosen(one, within):
                    continue
                only = self.key_indexes.stretches(one, what) if what is not None else None
                if within.counts is not None:
                    within.counts.narrowed(only)
                if only is None or only:
                    yield from read_segment(self._files, one, within, self._note_damage, make, only, self._unpack)
        except OSError as error:
            raise Unavailable(f"the log of {self.signal.name} cannot be read: {error}") from error

    def read(self, offset: int) -> Frame:
        """The frame that holds `offset`. Raises NotFound when it was removed, is damaged, or does not exist yet."""
        for found in self.frames(offset, offset + 1):
            return found
        held = f"which has {self.first_offset} to before {self.next_offset}"
        raise NotFound(f"offset {offset} is not in the log of {self.signal.name}, {held}")

    def tell_damaged(self, frame: Frame, reason: str) -> None:
        """Log and count a frame that was read, and is of no use to its reader, as damaged; once."""
        self._note_damage(Damage(frame.base_offset, frame.end_offset, reason))

    def check(self) -> list[str]:
        """Read every frame and compare with what the log believes, damage included; returns the differences, one
        line each.

        For tests: it reads the whole log, and no one must append meanwhile.
        """
        end = (self.byte_size, self.next_offset)
        return audit.disagreements(self._files, self.signal, self._segments, end, self.damaged)

    def dump(self) -> str:
        """The log as text: its range, then one line per segment, frame and damaged range."""
        range_line = f"{self.signal.name} offsets {self.first_offset}..{self.next_offset} bytes {self.byte_size}"
        active = self._writer.segment if self._writer else None
        return "\n".join([range_line, *audit.describe(self._files, self._segments, active)])

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
        with self._changing:
            spare, self._spare = self._spare, None
        give_up(self._files, spare)
        if not self._short:
            self._short = True
            self.logger.warning(event, signal=self.signal.name, directory=self._directory, error=str(error))

    def _create(self) -> SegmentWriter:
        """Start the next segment; its name is on the disk when this returns.

        Raises OSError when it may be tried again, else Unavailable.
        """
        before = self._segments[-1] if self._segments else None
        header = SegmentHeader(
            self.signal.code,
            self._next_offset,
            int.from_bytes(self._entropy(8), "little") or 1,
            self._now(),
            Predecessor(before.base_offset, before.size, before.next_offset) if before else None,
        )
        with self._changing:
            spare, self._spare = self._spare, None
        writer = SegmentWriter.create(
            self._files, self._directory, header, self._segment_bytes, direct=self._direct, spare=spare
        )
        try:
            self._files.fsync_directory(self._directory)
        except OSError as error:
            writer.close()
            self._fail(error, "sync the directory")
        self._writer = writer
        with self._changing:
            self._segments = (*self._segments, writer.segment)
        return writer

    def _seal(self, writer: SegmentWriter) -> None:
        """End the active segment: its bytes are on the disk, its file has its size, its index lies beside it."""
        self._settle(writer)
        writer.close()
        self._writer = None
        with self._changing:
            self._sealed_bytes += writer.segment.size
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

    def _recyclable(self, one: Segment) -> bool:
        """Whether a segment's file is wanted for the next one, and as large as that may become; not while room is short."""
        return self._spare is None and not self._short and one.size >= self._segment_bytes // 2

    def _keep_spare(self, name: str | None) -> None:
        """Keep a file for the next segment, unless there is one."""
        with self._changing:
            surplus = name if self._spare is not None else None
            self._spare = self._spare or name
        give_up(self._files, surplus)

    def _note_damage(self, damage: Damage) -> None:
        """Called by readers in their threads."""
        if damage.end_offset <= self.first_offset:
            return  # Its segment was removed, and the file perhaps written over, under the reader.
        new = self._ledger.add(damage)
        if new:
            self._metrics.damaged_records.inc(new)
            self.logger.warning(
                "records damaged",
                signal=self.signal.name,
                first_offset=damage.first_offset,
                end_offset=damage.end_offset,
                reason=damage.reason,
            )

    def _fail(self, error: OSError, action: str) -> Never:
        """Give up writing for good."""
        self.failed = error
        self._metrics.failed.set(1)
        self.logger.error(
            "log failed", signal=self.signal.name, directory=self._directory, action=action, error=str(error)
        )
        raise Unavailable(f"the log of {self.signal.name} has failed: cannot {action}: {error}") from error
