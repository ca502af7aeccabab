"""Looking at logs from outside: what `ringtail wal inspect`, `verify` and `cat` print.

Everything here only reads, takes no lock, and works beside a running daemon. Such a daemon may be in the middle of
a write or of a removal: bytes at the very end of the last segment may be a frame that is being written, so they are
told, and are no problem by themselves; a segment that disappears is left out. A segment may also be compacted while
it is being looked at, so that what its header has told does not fit its frames: then it is looked at once more, and
that is enough, for it happens to a segment once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from collector.errors import Malformed, NotFound, Unavailable
from collector.otlp.remains import remains
from collector.otlp.scan import scan as scan_payload
from collector.otlp.signals import BY_NAME, SIGNALS, Signal
from collector.otlp.tombstones import Tombstones
from collector.wal.deletions import hidden_of
from collector.wal.files import Files
from collector.wal.frame import Damaged, Frame
from collector.wal.index import Summary
from collector.wal.pruning import key_index_reason, key_index_state
from collector.wal.reader import Damage, Unfit
from collector.wal.reading import Frames, Range, read_segment
from collector.wal.recovery import (
    OTHER_SEGMENT,
    FoundSegment,
    find_segment,
    find_segments,
    index_path,
    keys_path,
    read_index,
    scan,
    torn_bytes,
)
from collector.wal.segment import Segment, SegmentHeader, indexed_segment

OFFSET_MAX: Final = 2**64 - 1
TIME_MAX: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """One segment file, in sizes of bytes, times of ns since the Unix epoch, offsets of records."""

    signal: str
    path: str
    active: bool
    """The last of its log: may be written to."""
    base_offset: int
    next_offset: int
    records: int
    """Readable records."""
    file_size: int
    size: int
    """Up to the end of the last frame; the rest of the file is space allocated ahead, or a torn tail."""
    created: int | None
    """None when the header is damaged."""
    min_time: int | None
    max_time: int | None
    """Record times; None when there is no frame."""
    last_append: int | None
    index: str
    """`good`, `none` (as of an active segment), or why it is not believed."""
    original_size: int | None = None
    """Of a compacted segment, what `size` was before; else None."""
    keys: str = "none"
    """The same as `index` of the key index beside a compacted segment."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be. `offsets` (first, end) when records are lost by it."""

    path: str
    text: str
    offsets: tuple[int, int] | None = None


@dataclass(slots=True)
class Report:
    """What `verify` has read: all is well when there are no problems."""

    segments: int = 0
    bytes: int = 0
    records: int = 0
    notes: list[str] = field(default_factory=list)
    """What is no loss: an index that the next start or the compactor makes anew, a torn tail that a start cuts."""
    problems: list[Problem] = field(default_factory=list)

    def add(self, part: Report) -> None:
        """Take in what was found in a part of what this is about."""
        self.segments += part.segments
        self.bytes += part.bytes
        self.records += part.records
        self.notes += part.notes
        self.problems += part.problems


def inspect(directory: str | os.PathLike[str], files: Files) -> list[SegmentFacts]:
    """The facts of every segment of every log under `directory`, by signal and offset.

    Sealed segments are told by their indexes where these are good; the others are read through. Raises
    UnsupportedFormat for a newer version's file, NotFound when there is no log, and Unavailable.
    """
    facts: list[SegmentFacts] = []
    for signal, found in _logs(files, directory).items():
        for one, end_offset in _with_ends(found, signal):
            for now in _until_it_stays(files, one):
                summary = _index(files, now, end_offset)
                read = _read(files, now, end_offset, summary)
                seen = None if read is None else _facts(files, signal, now, read[0], end_offset is None, summary)
            if seen is not None:
                facts.append(seen)
    return facts


def verify(directory: str | os.PathLike[str], files: Files) -> Report:
    """Read every frame of every log under `directory`, and compare segments with indexes and neighbours.

    Raises UnsupportedFormat for a newer version's file, NotFound when there is no log, and Unavailable.
    """
    report = Report()
    for signal, found in _logs(files, directory).items():
        report.problems += [
            Problem(one.path, "its header belongs to another place") for one in found if one.foreign(signal)
        ]
        for one, end_offset in _with_ends(found, signal):
            for now in _until_it_stays(files, one):
                part = Report()
                read = _read(files, now, end_offset, None)
                if read is not None:
                    _verify_segment(files, now, end_offset, *read, part)
                    if now.compacted and not part.problems:
                        _verify_keys(files, signal, read[0], part)
            report.add(part)
    return report


def cat(
    directory: str | os.PathLike[str], signal: Signal, from_offset: int, limit: int, files: Files
) -> Iterator[Frame]:
    """Up to `limit` frames of one signal's log, in order, from the one that holds `from_offset` on.

    Damaged ranges are passed over; `verify` names them. So are records that were deleted: of a frame that has such, the
    rest comes as frames of their own. Raises UnsupportedFormat, NotFound when there is no such
    log, and Unavailable.
    """
    logs = _logs(files, directory)
    if signal not in logs:
        raise NotFound(f"{os.fspath(directory)} holds no log of {signal.name}")
    try:
        deleted = hidden_of(os.path.join(os.fspath(directory), signal.name), files)
    except OSError as error:
        raise Unavailable(f"{os.fspath(directory)} cannot be read: {error}") from error
    for one, end_offset in _with_ends(logs[signal], signal):
        if end_offset is not None and end_offset <= from_offset:
            continue
        for now in _until_it_stays(files, one):
            read = _read(files, now, end_offset, _index(files, now, end_offset))
            if read is None:
                continue
            try:
                for frame in read_segment(files, read[0], Range(from_offset), _pass_over, Frames()):
                    if limit <= 0:
                        return
                    from_offset = frame.end_offset
                    for left in _left_of(signal, frame, deleted)[:limit]:
                        limit -= 1
                        yield left
            except OSError as error:
                raise Unavailable(f"{one.path} cannot be read: {error}") from error


def _left_of(signal: Signal, frame: Frame, deleted: Tombstones) -> list[Frame]:
    """What was not deleted of a frame. A frame that is no request has nothing that can be told from the rest."""
    if not deleted.touch(frame.base_offset, frame.end_offset):
        return [frame]
    try:
        block = scan_payload(signal, frame.payload, frame.base_offset)
    except Malformed:
        return []
    return [
        Frame(one.base_offset, one.count, one.min_time, one.max_time, frame.append_time, bytes(one.payload))
        for one in remains(block, deleted)
    ]


def _logs(files: Files, directory: str | os.PathLike[str]) -> dict[Signal, list[FoundSegment]]:
    """Every log under the directory with its segments."""
    path = os.fspath(directory)
    try:
        names = set(files.listdir(path))
        logs = {
            signal: find_segments(files, os.path.join(path, signal.name)) for signal in SIGNALS if signal.name in names
        }
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error}") from error
    if not logs:
        raise NotFound(f"{path} holds no log: there is no directory {', '.join(BY_NAME)} in it")
    return logs


def _with_ends(found: list[FoundSegment], signal: Signal) -> Iterator[tuple[FoundSegment, int | None]]:
    """Each of the log's own segments with the offset at which the next one begins, None for the last."""
    ours = [one for one in found if not one.foreign(signal)]
    for one, after in zip(ours, [*ours[1:], None], strict=False):  # a log may have no segment yet
        yield one, after.base_offset if after else None


def _until_it_stays(files: Files, one: FoundSegment) -> Iterator[FoundSegment]:
    """Yield a segment to be looked at, and if it was compacted meanwhile, what it has become."""
    yield one
    try:
        now = find_segment(files, one.path, one.base_offset)
    except OSError as error:
        raise Unavailable(f"{one.path} cannot be read: {error}") from error
    if now is not None and now.nonce != one.nonce:
        yield now


def _index(files: Files, one: FoundSegment, end_offset: int | None) -> Summary | Damaged | None:
    """The index of a sealed segment. One beside the last segment is from before it was continued."""
    return None if end_offset is None else read_index(files, one, end_offset)


def _read(
    files: Files, one: FoundSegment, end_offset: int | None, summary: Summary | Damaged | None
) -> tuple[Segment, list[Damage], int] | None:
    """A segment by its index, or read through: see `scan`. None when it has been removed meanwhile."""
    if isinstance(summary, Summary):
        return indexed_segment(one.path, summary, compacted=one.compacted), [], 0
    try:
        seen, damaged, unreadable = scan(files, one.path, one.base_offset, one.nonce, one.size, end_offset)
        seen.compacted = one.compacted
        return seen, damaged, unreadable
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{one.path} cannot be read: {error}") from error


def _facts(
    files: Files, signal: Signal, one: FoundSegment, seen: Segment, active: bool, summary: Summary | Damaged | None
) -> SegmentFacts:
    index = summary.reason if isinstance(summary, Damaged) else "good" if summary else "none"
    return SegmentFacts(
        signal=signal.name,
        path=one.path,
        active=active,
        base_offset=seen.base_offset,
        next_offset=seen.next_offset,
        records=seen.records,
        file_size=one.size,
        size=seen.size,
        created=None if isinstance(one.header, Damaged) else one.header.created,
        min_time=seen.min_time if seen.records else None,
        max_time=seen.max_time if seen.records else None,
        last_append=seen.last_append if seen.records else None,
        index=index,
        original_size=one.header.original_size if isinstance(one.header, SegmentHeader) else None,
        keys=key_index_state(files, seen) if one.compacted else "none",
    )


def _verify_segment(
    files: Files,
    one: FoundSegment,
    end_offset: int | None,
    seen: Segment,
    damaged: list[Damage],
    unreadable: int,
    report: Report,
) -> None:
    """Add one segment, as it was read, to the report."""
    report.segments += 1
    report.bytes += seen.size
    report.records += seen.records
    for damage in damaged:
        lost = (damage.first_offset, damage.end_offset)
        report.problems.append(Problem(one.path, f"offsets {lost[0]}..{lost[1]} damaged {damage.reason}", lost))
    if unreadable:
        report.problems.append(Problem(one.path, f"the device refuses to read {unreadable} bytes"))
    if isinstance(one.header, Damaged) and (seen.records or end_offset is not None):
        report.problems.append(Problem(one.path, one.header.reason))
    if end_offset is None:
        try:
            torn = torn_bytes(files, one, seen.size, seen.nonce)
        except OSError:
            torn = 0  # Sealed, cut or removed by the daemon meanwhile.
        if torn:
            report.notes.append(f"{one.path}: {torn} bytes behind the last frame: being written, or a torn tail")
        return
    summary = _index(files, one, end_offset)
    if summary is None:
        report.notes.append(f"{index_path(one.path)} is missing")
    elif one.compacted and isinstance(summary, Damaged) and summary.reason == OTHER_SEGMENT:
        report.notes.append(f"{index_path(one.path)} is from before the segment was compacted")
    elif isinstance(summary, Damaged):
        report.problems.append(Problem(index_path(one.path), summary.reason))
    elif not damaged and _told(indexed_segment(one.path, summary, compacted=one.compacted)) != _told(seen):
        report.problems.append(Problem(index_path(one.path), "the index tells other than the segment"))


def _verify_keys(files: Files, signal: Signal, seen: Segment, report: Report) -> None:
    """Add the key index of an undamaged compacted segment to the report."""
    path = keys_path(seen.path)
    try:
        reason = key_index_reason(files, signal, seen)
    except FileNotFoundError:
        report.notes.append(f"{path} is missing")
    except (OSError, Unfit) as error:
        report.problems.append(Problem(path, f"the key index cannot be compared: {error}"))
    else:
        report.problems += [Problem(path, reason)] if reason else []


def _told(segment: Segment) -> tuple[object, ...]:
    """What an index tells of a segment."""
    return (
        segment.end,
        segment.min_time,
        segment.max_time,
        segment.last_append,
        segment.records,
        segment.index.entries,
    )


def _pass_over(_: Damage) -> None:
    """Damage is not what `cat` is for."""
