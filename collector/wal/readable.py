"""A log as its readers see it: which offsets there are, and the frames and blocks in a range of offsets and times.

Any thread may ask anything here at any time, and no lock is taken: what readers see is replaced, never edited (the tuple
of segments, and each segment's size and next offset, set after a frame is complete). They open segment files themselves,
so removing one cannot pull a file from under them. What one segment gives is in reading.py, what is passed by unread in
pruning.py. The writing side is log.py, which adds to this class.

Damage on the way costs its own records: it is stepped over, logged, and counted once (`DamageLedger`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from collector.errors import NotFound, Unavailable
from collector.otlp.block import Block
from collector.otlp.remains import rest_of
from collector.otlp.signals import Signal
from collector.otlp.terms import Terms
from collector.wal.cache import BlockCache, Blocks
from collector.wal.compression import Unpacker
from collector.wal.counts import ReadCounts
from collector.wal.deletions import Deletions
from collector.wal.files import Files, sync_file
from collector.wal.frame import Frame
from collector.wal.metrics import SignalMetrics
from collector.wal.pruning import KeyIndexes, asked
from collector.wal.reader import Damage, DamageLedger
from collector.wal.reading import Frames, Item, Making, Range, at_once, chosen, overlapping, read_segment
from collector.wal.segment import Segment
from collector.wal.segments import Segments
from collector.wal.share import share

TIME_MAX: Final = 2**64 - 1


class ReadableLog:
    """The reading side of one log. Its offsets are moved on by who writes to it, when a frame is complete."""

    def __init__(
        self,
        signal: Signal,
        segments: Segments,
        next_offset: int,
        *,
        files: Files,
        metrics: SignalMetrics,
        logger: Any,
        key_index_bytes: int,
        cache: BlockCache | None,
        deletions: Deletions,
    ) -> None:
        """Read `segments`, which have all offsets before `next_offset`, all of them on the disk."""
        self.signal = signal
        self.logger = logger
        self.key_indexes = KeyIndexes(files, signal, logger, key_index_bytes)
        """What is known of the keys in its segments."""
        self.deletions = deletions
        """What was deleted of it."""
        self._files = files
        self._held = segments
        self._next_offset = next_offset
        self._synced_offset = next_offset
        self._cache = cache
        self._metrics = metrics
        self._ledger = DamageLedger()
        self._unpack = Unpacker()

    @property
    def first_offset(self) -> int:
        """The oldest offset that the log may still have; equal to `next_offset` when it is empty."""
        segments = self._held.all
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
        return self._held.all[:-1]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments, oldest first."""
        return self._held.all

    def holds(self, one: Segment) -> bool:
        """Whether the segment is one of the log's, and neither removed nor replaced; certain under its lock."""
        return self._held.has(one)

    @property
    def segment_count(self) -> int:
        """Segment files, the active one included."""
        return len(self._held.all)

    @property
    def record_count(self) -> int:
        """Records in all readable frames, as far as their damage is known."""
        return sum(one.records for one in self._held.all)

    @property
    def damaged(self) -> tuple[Damage, ...]:
        """Ranges of offsets found unreadable since the log was opened, in order."""
        return self._ledger.ranges()

    def settled_offset(self) -> int:
        """Have all that was appended before this call on the disk, whatever the policy of the committer, and return the
        offset behind it. For who ships records elsewhere, and cannot wait for `synced_offset`. Raises Unavailable.
        """
        segments, end = self._held.all, self._next_offset
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
        rest: Callable[[], None] = at_once,
        cached: bool = True,
        counts: ReadCounts | None = None,
        deleted: bool = False,
    ) -> Iterator[Block]:
        """The same as scanned blocks, those of compacted segments from the cache and into it, unless `cached` is false.
        Records that were deleted are among them with `deleted` only. `rest` is called between steps of work that gives
        nothing yet: it may sleep, or raise, which ends the reading.

        A frame with the right checksum whose payload is no valid request, as a program with other rules has written it, is
        told as damaged and left out: it costs its own records.
        """
        within = Range(start_offset, end_offset, start_ns, end_ns, newest_first, wanted, rest, counts)
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
        segments = [known.latest for known in overlapping(self._held.all, within)]
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
        segments = overlapping(self._held.all, within)
        what = asked(within, index, any_of, terms)
        try:
            for known in reversed(segments) if within.newest_first else segments:
                one = known.latest
                if not chosen(one, within):
                    continue
                within.rest()
                only = self.key_indexes.stretches(one, what, within.rest) if what is not None else None
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
