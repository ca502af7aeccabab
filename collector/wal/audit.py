"""A log's segments against what is known of them, and as text. For tests, golden scripts and people."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from collector.otlp.signals import Signal
from collector.wal.files import Files
from collector.wal.pruning import key_index_reason
from collector.wal.reader import Damage
from collector.wal.reading import Frames, Range, read_segment
from collector.wal.recovery import scan
from collector.wal.segment import Segment

_FACTS = ("end", "min_time", "max_time", "last_append", "records")
_MAX = 2**64 - 1


def disagreements(
    files: Files, signal: Signal, segments: Sequence[Segment], end: tuple[int, int], known: Sequence[Damage]
) -> list[str]:
    """Read every frame and recount; returns one line per difference, so an empty list when all is well.

    Key indexes that are not used, because they are missing or wrong, are no difference. `segments` should follow each other and together have `end` = (bytes, next offset), with no damage but `known`.
    """
    problems: list[str] = []
    total = 0
    expected = segments[0].base_offset if segments else end[1]
    for one in segments:
        size, next_offset = one.end
        seen, damaged, _ = scan(files, one.path, one.base_offset, one.nonce, size, next_offset)
        name = os.path.basename(one.path)
        if one.base_offset > expected:
            damaged.insert(0, Damage(expected, one.base_offset, "between segments"))
        elif one.base_offset < expected:
            problems.append(f"{name} begins before offset {expected}, where the one before ends")
        problems += [f"{name}: {damage}" for damage in damaged if not _covered(damage, known)]
        for fact in _FACTS:
            if getattr(seen, fact) != getattr(one, fact):
                problems.append(f"{name}: {fact} is {getattr(seen, fact)}, not {getattr(one, fact)}")
        if seen.index.entries != one.index.entries:
            problems.append(f"{name}: the index is {one.index.entries}, not {seen.index.entries}")
        if one.compacted and one.keyed and not damaged:
            try:
                reason = key_index_reason(files, signal, one)
            except OSError as error:
                reason = str(error)
            problems += [f"{name}: {reason}"] if reason else []
        expected = next_offset
        total += size
    if expected > end[1] or not _covered(Damage(expected, end[1], ""), known):
        problems.append(f"the last segment ends at offset {expected}, not {end[1]}")
    if total != end[0]:
        problems.append(f"the segments have {total} bytes, not {end[0]}")
    return problems


def _covered(damage: Damage, known: Sequence[Damage]) -> bool:
    """Whether a range lies within disjoint known ones, given in order."""
    at = damage.first_offset
    for one in known:
        if one.first_offset <= at:
            at = max(at, one.end_offset)
    return at >= damage.end_offset


def describe(files: Files, segments: Sequence[Segment], active: Segment | None) -> Iterable[str]:
    """One line per segment, and under it one per frame or damaged range."""
    for one in segments:
        state = "active" if one is active else "sealed"
        yield f"{os.path.basename(one.path)} {state} bytes {one.size} offsets {one.base_offset}..{one.next_offset}"
        damaged: list[Damage] = []
        for frame in read_segment(files, one, Range(), damaged.append, Frames()):
            yield from _lines(damaged)
            times = f"times {frame.min_time}..{frame.max_time}"
            yield f"  {frame.base_offset}..{frame.end_offset} {times} payload {len(frame.payload)}"
        yield from _lines(damaged)


def _lines(damaged: list[Damage]) -> Iterable[str]:
    for damage in damaged:
        yield f"  {damage.first_offset}..{damage.end_offset} damaged {damage.reason}"
    damaged.clear()
