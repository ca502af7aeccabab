"""What a query reads of one segment: the frames in a range, or what is made of them, in order or the newest first.

`read_segment` goes from stretch to stretch: those that the key index names (pruning.py), or between the marks of the
offset index. Of each frame it asks first whether its block is there from an earlier read (cache.py); a file of which
everything wanted is there is not opened.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from collector.wal.compression import Unpacker
from collector.wal.counts import ReadCounts
from collector.wal.files import Files
from collector.wal.frame import Frame, Header
from collector.wal.reader import READ_AHEAD, Damage, Stretch, Walk, Window, opened_segment
from collector.wal.segment import Segment

_base_offset = attrgetter("base_offset")


class Held(Protocol):
    """What is read of a frame: the frame itself, or its block."""

    @property
    def base_offset(self) -> int:
        """The offset of its first record."""
        ...

    @property
    def end_offset(self) -> int:
        """The offset after its last record."""
        ...

    @property
    def min_time(self) -> int:
        """The oldest record's time, ns."""
        ...

    @property
    def max_time(self) -> int:
        """The newest record's time, ns."""
        ...


Item = TypeVar("Item", bound=Held)
Item_co = TypeVar("Item_co", bound=Held, covariant=True)


class Making(Protocol[Item_co]):
    """Who makes what is read of a frame, or has it already."""

    def held(self, of: Segment, position: int) -> Item_co | None:
        """What was made of a frame before, if it is still there."""
        ...

    def made(self, of: Segment, position: int, one: Frame) -> Item_co | None:
        """Make it of a frame; None when that cannot be."""
        ...


def at_once() -> None:
    """Rest never."""


class Frames:
    """Makes nothing of a frame."""

    def held(self, of: Segment, position: int) -> Frame | None:
        """Nothing."""
        return None

    def made(self, of: Segment, position: int, one: Frame) -> Frame | None:
        """The frame."""
        return one


@dataclass(frozen=True, slots=True)
class Range:
    """What is read: offsets in [start_offset, end_offset), times in [start_ns, end_ns]. `wanted` is asked of each frame's
    times, and `rest` called, as by `ReadableLog.frames` and `blocks`."""

    start_offset: int = 0
    end_offset: int = 2**64 - 1
    start_ns: int = 0
    end_ns: int = 2**64 - 1
    newest_first: bool = False
    wanted: Callable[[int, int], bool] | None = None
    rest: Callable[[], None] = at_once
    counts: ReadCounts | None = None
    """Where what becomes of segments and frames is counted; None: nowhere."""

    def has(self, one: Held) -> bool:
        """Whether a frame overlaps, and is wanted."""
        return (
            one.base_offset < self.end_offset
            and one.end_offset > self.start_offset
            and one.min_time <= self.end_ns
            and one.max_time >= self.start_ns
            and (self.wanted is None or self.wanted(one.min_time, one.max_time))
        )


def overlapping(segments: Sequence[Segment], within: Range) -> Sequence[Segment]:
    """The segments, of all in order, that have offsets in the range."""
    first = bisect_right(segments, within.start_offset, key=_base_offset) - 1
    return segments[max(first, 0) : bisect_left(segments, within.end_offset, key=_base_offset)]


def chosen(segment: Segment, within: Range) -> bool:
    """Whether a segment can have frames that are in the range, and wanted."""
    counts = within.counts
    if counts is not None:
        counts.segments += 1
    if segment.min_time > within.end_ns or segment.max_time < within.start_ns:
        if counts is not None:
            counts.by_time += 1
        return False
    if within.wanted is not None and not within.wanted(segment.min_time, segment.max_time):
        if counts is not None:
            counts.not_wanted += 1
        return False
    return True


def read_segment(
    files: Files,
    segment: Segment,
    within: Range,
    damaged: Callable[[Damage], None],
    make: Making[Item],
    only: Sequence[Stretch] | None = None,
    unpack: Unpacker | None = None,
) -> Iterator[Item]:
    """What is made of the segment's frames in a range; of a frame that overlaps, all.

    `only` says where such frames lie, if that is known, and `unpack` saves making another. Damage met on the way goes to
    `damaged`. A segment that retention has removed gives nothing. The file is opened when something has to be read of it.
    Raises OSError only for failures other than EIO.
    """
    if segment.nonce is None or max(within.start_offset, segment.base_offset) >= min(
        within.end_offset, segment.next_offset
    ):
        return
    reading = _Reading(segment, within, damaged, make)
    with ExitStack() as stack:
        window = None
        if only is None:
            marks = segment.index.marks(within.start_offset, within.end_offset, segment.end)
            stretches = list(pairwise(marks))[::-1] if within.newest_first else [(marks[0], marks[-1])]
        else:
            stretches = list(only[::-1] if within.newest_first else only)
        for stretch in stretches:
            if only is not None:
                known = reading.known(stretch)
                if known is not None:
                    if within.has(known):
                        if within.counts is not None:
                            within.counts.cached += 1
                        yield known
                    elif within.counts is not None:
                        within.counts.passed += 1
                    continue
            if window is None:
                try:
                    handle, now = stack.enter_context(opened_segment(files, segment))
                except FileNotFoundError:
                    return
                if now is not segment:
                    # It was compacted meanwhile: its frames lie elsewhere.
                    (offset, _), (stop_offset, _) = stretch
                    rest = (
                        replace(within, end_offset=min(within.end_offset, stop_offset))
                        if within.newest_first
                        else replace(within, start_offset=max(within.start_offset, offset))
                    )
                    yield from read_segment(files, now, rest, damaged, make, None, unpack)
                    return
                window = Window(files, handle, unpack)
            yield from reading.stretch(window, stretch)


class _Reading(Generic[Item]):
    """One read of one segment."""

    def __init__(self, segment: Segment, within: Range, damaged: Callable[[Damage], None], make: Making[Item]) -> None:
        self._segment = segment
        self._range = within
        self._damaged = damaged
        self._make = make
        # What of the frame at hand was made before.
        self._held: Item | None = None

    def known(self, stretch: Stretch) -> Item | None:
        """What was made before of a stretch that is one frame."""
        (_, position), (stop_offset, _) = stretch
        held = self._make.held(self._segment, position)
        return held if held is not None and held.end_offset == stop_offset else None

    def stretch(self, window: Window, stretch: Stretch) -> Iterator[Item]:
        """What is made of the frames of a stretch that are in the range."""
        (offset, position), (stop_offset, limit) = stretch
        # A stretch this long ends with a large frame, and is mostly that frame alone.
        window.passing(limit - position - READ_AHEAD)
        walk = Walk(
            window,
            self._segment.nonce,
            position=position,
            offset=offset,
            limit=limit,
            end_offset=stop_offset,
            wanted=self._is_read,
        )
        kept: list[Item] = []
        for one in walk:
            if isinstance(one, Damage):
                self._damaged(one)
                continue
            at, header, frame_read = one
            if frame_read is not None:
                made = self._make.made(self._segment, at, frame_read)
            else:
                made, self._held = self._held, None
                if made is None and header.base_offset >= self._range.end_offset:
                    break
            if made is None:
                continue
            if self._range.newest_first:
                kept.append(made)
            else:
                yield made
        yield from reversed(kept)

    def _is_read(self, position: int, header: Header) -> bool:
        """Whether the payload of a frame has to be read."""
        counts = self._range.counts
        if not self._range.has(header):
            if counts is not None:
                counts.passed += 1
            return False
        self._held = self._make.held(self._segment, position)
        if counts is not None:
            counts.read += self._held is None
            counts.cached += self._held is not None
        return self._held is None
