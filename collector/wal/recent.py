"""The keys of a segment that is not compacted yet, in memory: what a key index will be, for the newest records.

Nothing is done on the way in. The first query by key reads and scans the segment, which it would have had to do anyway,
and what it learns is kept; the next one takes in only what was appended since. So a trace that the ring has just evicted
is found as fast as an old one, and an append pays nothing for it.

That can be a segment's worth of work, so it is done in steps: between two of them the reader is asked (`rest`), which may
sleep, or give up; what was taken in stays.

Small frames are taken together as compaction would (merging.py), so one entry stands for a stretch of them. Texts are
taken in from the first query for one on: they cost more than keys do, and a segment is read once more then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final

from collector.otlp.signals import Signal
from collector.wal.compression import Unpacker
from collector.wal.files import Files
from collector.wal.frame import Frame
from collector.wal.keys import KeyBuilder, Wanted
from collector.wal.merging import merged
from collector.wal.reader import Damage, Stretch, Unfit, Walk, Window, opened_segment
from collector.wal.segment import HEADER_SIZE, Segment

TEXT_FRAMES: Final = 64
"""Frames of which texts are held as they were taken in, 16 KiB for each; those of older ones are compressed."""
WAIT_S: Final = 0.05
"""How long to wait for another reader before the next `rest`, in seconds."""


class RecentKeys:
    """The keys of one segment's frames, as far as somebody has asked. For any thread."""

    def __init__(self, signal: Signal, of: Segment) -> None:
        # Whoever waits for it wants the same frames to be taken in.
        self._lock = threading.Lock()
        self._signal = signal
        self._unfit = False
        self._unpack = Unpacker()
        self._begin(of, with_texts=False)

    def _begin(self, of: Segment, *, with_texts: bool) -> None:
        self._with_texts = with_texts
        self._keys = KeyBuilder(self._signal, text_frames=TEXT_FRAMES if with_texts else 0)
        self._frames = 0
        # (position, offset) of the first frame that is not taken in, and of the one read last; behind all: the end.
        self._known = self._read = (HEADER_SIZE, of.base_offset)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they take."""
        return self._keys.nbytes

    def stretches(self, files: Files, of: Segment, wanted: Wanted, rest: Callable[[], None]) -> list[Stretch] | None:
        """See `KeyIndexes.stretches`. None also for a segment with damage, which is left to those who step over it.

        Raises OSError; then this must not be asked again. Raises what `rest` raises.
        """
        while not self._lock.acquire(timeout=WAIT_S):
            rest()
        try:
            if (wanted.needles or wanted.either) and not self._with_texts:
                self._begin(of, with_texts=True)
            try:
                self._take_in(files, of, rest)
            except Unfit:
                self._unfit = True
            numbers = None if self._unfit else self._find(wanted)
            if numbers is None:
                return None
            found: list[Stretch] = []
            for number in numbers:
                offset, position, min_time, max_time = self._keys.frame(number)
                end = self._keys.frame(number + 1)[:2] if number + 1 < self._frames else self._known[::-1]
                (first, last), (start, behind) = wanted.times, wanted.offsets
                if min_time <= last and max_time >= first and offset < behind and end[0] > start:
                    found.append(((offset, position), end))
            return found
        finally:
            self._lock.release()

    def _find(self, wanted: Wanted) -> list[int] | None:
        """The numbers of the frames that may hold what is wanted, rising; None when nobody knows."""
        found = [self._keys.find(index, tokens) for index, tokens in wanted.keys]
        if wanted.needles:
            found.append(self._keys.find_text(wanted.needles, self._unpack))
        for index, tokens, needles in wanted.either:
            sides = self._keys.find(index, tokens), self._keys.find_text(needles, self._unpack)
            found.append(None if sides[0] is None or sides[1] is None else sides[0] + sides[1])
        known = [set(numbers) for numbers in found if numbers is not None]
        return sorted(set.intersection(*known)) if known else None

    def _take_in(self, files: Files, of: Segment, rest: Callable[[], None]) -> None:
        """Take in the frames that are new. Raises Unfit, OSError, and what `rest` raises."""
        end = of.end
        if self._unfit or self._known == end:
            return
        with opened_segment(files, of) as (handle, now):
            if now is not of:
                raise Unfit("it has been compacted")
            for item in merged(self._new_frames(Window(files, handle), of, end)):
                if item is not None:
                    position, one = item
                    self._keys.add(position, one)
                    self._frames += 1
                    # One frame more was read, with which the next group begins, or all of them were.
                    self._known = self._read
                rest()

    def _new_frames(self, window: Window, of: Segment, end: tuple[int, int]) -> Iterator[tuple[int, Frame]]:
        position, offset = self._known
        walk = Walk(window, of.nonce, position=position, offset=offset, limit=end[0], end_offset=end[1])
        for item in walk:
            if isinstance(item, Damage) or window.unreadable:
                raise Unfit("it is damaged")
            if item[2] is not None:
                self._read = (item[0], item[1].base_offset)
                yield item[0], item[2]
        if window.unreadable:
            raise Unfit("the device refuses to read")
        self._read = end
