"""What a log does when it is opened: make sense of whatever is in its directory.

1. Look at every segment's header, without changing anything. A newer format version ends here, untouched.
2. Sealed segments (all but the last) are believed if their index agrees with file, header and neighbour, and are
   otherwise scanned, and their index made anew. Offsets missing between neighbours are damage.
3. The last segment may have been written to when the process or the machine stopped. It is scanned frame by
   frame. What follows its last good frame is a torn tail: cut off, the cut synced, and the bytes kept beside it if
   they are few. A segment that had to be cut, has damage inside or was compacted is sealed; otherwise it is continued.
4. Leftovers of interrupted work (temporary files, an index without a segment, a key index beside a segment that is
   not compacted) are removed, and the directory synced. Key indexes are not read here: a query reads them when it
   needs them, and the compactor replaces those that are missing or wrong. One spare file is kept, for the next segment
   to be written over.

Damage never keeps a log from opening, and no offset is given out twice: the next offset lies behind every frame,
every file name and every unreadable byte. Unreadable is not damaged: a segment whose sectors the device refuses
(EIO) is neither cut nor continued nor indexed, so that a later start may read more of it.

Good frames behind a hole in the last segment are kept, although after a power cut such a hole may be a write that
nobody was promised: a log without causality between frames loses nothing by keeping them, and cannot tell the
case from a sector gone bad under acknowledged frames.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from collector.otlp.signals import SIGNALS, Signal
from collector.wal import frame, index, segment
from collector.wal.files import BLOCK_BYTES, Files, read_file, read_fully, replace_file
from collector.wal.frame import Damaged
from collector.wal.index import Summary
from collector.wal.reader import SEARCH_BYTES, Damage, DamageLedger, Walk, Window
from collector.wal.segment import Segment, SegmentHeader

INDEX_BYTES_MAX: Final = index.HEADER_SIZE + index.ENTRY_SIZE * ((1 << 32) // index.STRETCH_BYTES)
OTHER_SEGMENT: Final = "the index belongs to another segment"
TORN_BYTES_MAX: Final = 1024 * 1024
"""A torn tail is kept in a file beside the segment when it has at most this many bytes."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening a log found."""

    records: int = 0
    """Records that can be read, unless a sealed segment has been damaged since its index was made."""
    segments: int = 0
    truncated_bytes: int = 0
    """Bytes cut off behind the last good frame, without the zeros of space allocated ahead."""
    damaged: tuple[Damage, ...] = ()
    rebuilt_indexes: int = 0


@dataclass(frozen=True, slots=True)
class Recovered:
    """A log's segments after recovery, oldest first."""

    segments: tuple[Segment, ...]
    next_offset: int
    """Behind every offset that may have been given out."""
    continues: bool
    """Whether the last segment may be appended to; all others are sealed."""
    report: Recovery
    spare: str | None
    """A file to write the next segment over."""

    @property
    def first_offset(self) -> int:
        """The oldest offset that may still be there."""
        return self.segments[0].base_offset if self.segments else self.next_offset


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """One `.log` file as it was found."""

    path: str
    base_offset: int
    size: int
    header: SegmentHeader | Damaged

    @property
    def nonce(self) -> int | None:
        """The nonce that the header names, if it can be believed."""
        return self.header.nonce if isinstance(self.header, SegmentHeader) else None

    @property
    def compacted(self) -> bool:
        """Whether the header says that the segment was compacted."""
        return isinstance(self.header, SegmentHeader) and self.header.compacted

    def foreign(self, signal: Signal) -> bool:
        """Whether the header is good but belongs elsewhere: a file copied, renamed or moved here by hand."""
        header = self.header
        return isinstance(header, SegmentHeader) and (
            header.base_offset != self.base_offset or header.signal_code != signal.code
        )


def find_segments(files: Files, directory: str) -> list[FoundSegment]:
    """Every segment file of a log's directory in order of offset, with its header judged. Changes nothing.

    Files that retention removes meanwhile are left out. Raises UnsupportedFormat, and OSError.
    """
    found: list[FoundSegment] = []
    for name in sorted(files.listdir(directory)):
        parsed = segment.parse_name(name)
        if parsed is None or parsed[1] != segment.LOG_SUFFIX:
            continue
        one = find_segment(files, os.path.join(directory, name), parsed[0])
        if one is not None:
            found.append(one)
    return found


def require_known_formats(files: Files, directory: str) -> None:
    """Raise UnsupportedFormat if any signal's log in a data directory has a segment of a newer version.

    For before the first log is opened, which may change things. What cannot be read is left to that.
    """
    for signal in SIGNALS:
        try:
            find_segments(files, os.path.join(directory, signal.name))
        except OSError:
            continue


def find_segment(files: Files, path: str, base_offset: int) -> FoundSegment | None:
    """One segment file with its header judged; None when it is gone. Raises UnsupportedFormat, and OSError."""
    try:
        handle = files.open(path)
    except FileNotFoundError:
        return None
    try:
        data = Window(files, handle).read(0, segment.HEADER_SIZE)
        return FoundSegment(path, base_offset, files.size(handle), segment.decode_header(data, path))
    finally:
        files.close(handle)


def read_index(files: Files, found: FoundSegment, end_offset: int) -> Summary | Damaged | None:
    """The index beside a sealed segment if all of it agrees; None when there is no index file.

    `end_offset` is where the next segment begins.
    """
    try:
        data = read_file(files, index_path(found.path), INDEX_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Damaged(f"the index cannot be read: {error}")
    summary = index.decode(data, found.base_offset, segment.HEADER_SIZE)
    if isinstance(summary, Damaged):
        return summary
    if summary.nonce != (found.nonce or summary.nonce):
        return Damaged(OTHER_SEGMENT)
    if summary.file_size != found.size:
        return Damaged(f"the index is of a file of {summary.file_size} bytes, not {found.size}")
    if summary.next_offset > end_offset:
        return Damaged("the index reaches into the next segment")
    return summary


def scan(
    files: Files, path: str, base_offset: int, nonce: int | None, size: int, end_offset: int | None
) -> tuple[Segment, list[Damage], int]:
    """Read the first `size` bytes of a segment: (segment with its index, damage, unreadable bytes).

    With `nonce` None the first good frame decides it. With `end_offset`, where the next segment begins, what is
    missing before it is damage. Without, damage behind the last good frame is left out: that is a torn tail.
    """
    made = segment.empty_segment(path, base_offset, nonce)
    damaged: list[Damage] = []
    torn = 0
    handle = files.open(path)
    try:
        window = Window(files, handle)
        walk = Walk(window, nonce, position=segment.HEADER_SIZE, offset=base_offset, limit=size, end_offset=end_offset)
        for item in walk:
            if isinstance(item, Damage):
                damaged.append(item)
                torn += 1
            else:
                made.add(item[0], item[1])
                torn = 0
    finally:
        files.close(handle)
    if made.nonce is None:
        made.nonce = walk.nonce
    if end_offset is None and torn:
        del damaged[-torn:]
    return made, damaged, window.unreadable


def torn_bytes(files: Files, found: FoundSegment, size: int, nonce: int | None) -> int:
    """How many bytes behind byte `size` of a segment were written as part of it, not counting the zeros at the end.

    In a recycled file that can only be told of frames whose header is whole, and of the block where the next frame
    would begin; what else is there is another segment's.
    """
    recycled = found.header.recycled if isinstance(found.header, SegmentHeader) else 0
    written = size
    handle = files.open(found.path)
    try:
        window = Window(files, handle)
        if recycled and nonce is not None:
            return min(_torn_end(window, size, found.size, nonce), found.size) - size
        for position in range(size, found.size, SEARCH_BYTES):
            content = window.read(position, min(SEARCH_BYTES, found.size - position)).rstrip(b"\0")
            if content:
                written = position + len(content)
    finally:
        files.close(handle)
    return written - size


def _torn_end(window: Window, size: int, file_size: int, nonce: int) -> int:
    """Where the newest write to a recycled file, whose last good frame ends at byte `size`, may have ended."""
    end = size
    if window.read(size, frame.TERMINATOR_BYTES).rstrip(b"\0"):
        end = (size // BLOCK_BYTES + 1) * BLOCK_BYTES
    needle = nonce.to_bytes(8, "little")
    overlap = frame.HEADER_SIZE
    for position in range(size, file_size, SEARCH_BYTES):
        data = window.read(position, min(SEARCH_BYTES + overlap, file_size - position))
        hit = data.find(needle)
        while hit >= 0:
            at = max(0, hit - frame.NONCE_AT)
            header = frame.decode_header(data, at, position=position + at, nonce=nonce)
            end = max(end, position + at + (header.size if isinstance(header, frame.Header) else overlap))
            hit = data.find(needle, hit + 1)
    return end


def index_path(log_path: str) -> str:
    """The index file that belongs to a segment's file."""
    return f"{log_path.removesuffix(segment.LOG_SUFFIX)}{segment.INDEX_SUFFIX}"


def keys_path(log_path: str) -> str:
    """The key index that belongs to a compacted segment's file."""
    return f"{log_path.removesuffix(segment.LOG_SUFFIX)}{segment.KEYS_SUFFIX}"


def spare_path(log_path: str) -> str:
    """Where a segment's file waits to be written over."""
    return f"{log_path.removesuffix(segment.LOG_SUFFIX)}{segment.SPARE_SUFFIX}"


def torn_path(log_path: str) -> str:
    """Where the torn tail of a segment is kept."""
    return f"{log_path.removesuffix(segment.LOG_SUFFIX)}{segment.TORN_SUFFIX}"


def write_index(files: Files, of: Segment, file_size: int, logger: Any) -> None:
    """Put the index of a sealed segment beside it. A failure is logged and costs a scan at the next start."""
    try:
        replace_file(files, index_path(of.path), index.encode(of.summary(file_size)))
    except OSError as error:
        logger.warning("index not written", path=index_path(of.path), error=str(error))


class _Recovering:
    """The state of one recovery; used once, by `recover`."""

    def __init__(self, files: Files, directory: str, signal: Signal, logger: Any) -> None:
        self.files = files
        self.directory = directory
        self.signal = signal
        self.logger = logger
        self.ledger = DamageLedger()
        self.segments: list[Segment] = []
        self.next_offset = 0
        self.continues = False
        self.truncated_bytes = 0
        self.rebuilt_indexes = 0
        self.spare: str | None = None

    def sweep(self) -> list[FoundSegment]:
        """Set foreign segments aside, remove leftovers, and return the segments of this log."""
        found = find_segments(self.files, self.directory)
        ours = [one for one in found if not one.foreign(self.signal)]
        for one in found:
            if one.foreign(self.signal):
                self.logger.warning("segment of another place set aside", path=f"{one.path}.foreign")
                self.files.rename(one.path, f"{one.path}.foreign")
        bases = {one.base_offset for one in ours}
        compacted = {one.base_offset for one in ours if one.compacted}
        oldest = min(bases, default=0)
        for name in self.files.listdir(self.directory):
            parsed = segment.parse_name(name.removesuffix(".tmp"))
            if parsed is None:
                continue
            if parsed[1] == segment.SPARE_SUFFIX and self.spare is None and parsed[0] not in bases:
                self.spare = os.path.join(self.directory, name)
                continue
            orphan = (
                (parsed[1] == segment.INDEX_SUFFIX and parsed[0] not in bases)
                or (parsed[1] == segment.KEYS_SUFFIX and parsed[0] not in compacted)
                or (parsed[1] == segment.TORN_SUFFIX and parsed[0] < oldest)
                or parsed[1] == segment.SPARE_SUFFIX
            )
            if orphan or name.endswith(".tmp"):
                self.files.unlink(os.path.join(self.directory, name))
        return ours

    def sealed(self, found: FoundSegment, end_offset: int) -> None:
        """Take in a segment that has a successor, which begins at `end_offset`."""
        summary = read_index(self.files, found, end_offset)
        if isinstance(summary, Summary):
            self.segments.append(segment.indexed_segment(found.path, summary, compacted=found.compacted))
            return
        made, damaged, unreadable = scan(self.files, found.path, found.base_offset, found.nonce, found.size, end_offset)
        self.rebuilt_indexes += 1
        reason = summary.reason if summary else "the index is missing"
        self.logger.warning("index rebuilt", path=index_path(found.path), reason=reason)
        for damage in damaged:
            self.damage(found.path, damage)
        if made.nonce is not None and not unreadable:
            write_index(self.files, made, found.size, self.logger)
        made.compacted = found.compacted
        self.segments.append(made)

    def last(self, found: FoundSegment) -> None:
        """Take in the last segment: cut its torn tail, and decide whether it goes on."""
        made, damaged, unreadable = scan(self.files, found.path, found.base_offset, found.nonce, found.size, None)
        for damage in damaged:
            self.damage(found.path, damage)
        self.next_offset = max(self.next_offset, made.next_offset + unreadable)
        if unreadable:
            self.logger.error("segment partly unreadable", path=found.path, unreadable_bytes=unreadable)
            self.segments.append(made)
            return
        broken = isinstance(found.header, Damaged)
        empty = made.next_offset == made.base_offset
        torn = self.cut(found, 0 if broken and empty else made.size, made)
        if empty and (broken or torn):
            # The file was being created, or its first frame written, or nothing of it is left: start it anew.
            self.files.unlink(found.path)
            return
        self.segments.append(made)
        made.compacted = found.compacted
        if torn or damaged or broken or found.compacted:
            self.seal(made)
        else:
            self.continues = True

    def cut(self, found: FoundSegment, size: int, made: Segment) -> int:
        """Account for what lies behind byte `size`, keep a copy if it is small; returns its bytes without zeros."""
        torn = torn_bytes(self.files, found, size, made.nonce)
        if torn:
            self.truncated_bytes += torn
            self.logger.warning(
                "torn tail cut",
                path=found.path,
                position=size,
                truncated_bytes=torn,
                from_offset=made.next_offset,
            )
        if 0 < torn <= TORN_BYTES_MAX:
            try:
                replace_file(self.files, torn_path(found.path), self.tail(found.path, size, torn))
            except OSError as error:
                self.logger.warning("torn tail not kept", path=torn_path(found.path), error=str(error))
        return torn

    def tail(self, path: str, size: int, torn: int) -> bytes:
        """The `torn` bytes behind byte `size`."""
        handle = self.files.open(path)
        try:
            return read_fully(self.files, handle, torn, size)
        finally:
            self.files.close(handle)

    def seal(self, of: Segment) -> None:
        """End a segment's file after its last good frame, for good."""
        handle = self.files.open(of.path, write=True)
        try:
            self.files.truncate(handle, of.size)
            self.files.fdatasync(handle)
        finally:
            self.files.close(handle)
        write_index(self.files, of, of.size, self.logger)

    def neighbours(self, found: list[FoundSegment]) -> None:
        """Report offsets that no segment holds."""
        headers = {one.base_offset: one.header for one in found}
        for before, after in pairwise(self.segments):
            if before.next_offset == after.base_offset:
                continue
            header = headers[after.base_offset]
            predecessor = header.predecessor if isinstance(header, SegmentHeader) else None
            if predecessor is not None and predecessor.base_offset != before.base_offset:
                reason = f"segment {segment.file_name(predecessor.base_offset)} is missing"
            else:
                reason = f"records at the end of {os.path.basename(before.path)} are missing"
            self.damage(after.path, Damage(before.next_offset, after.base_offset, reason))
        if self.segments and self.segments[-1].next_offset < self.next_offset:
            path = self.segments[-1].path
            reason = f"records at the end of {os.path.basename(path)} are missing"
            self.damage(path, Damage(self.segments[-1].next_offset, self.next_offset, reason))

    def damage(self, path: str, damage: Damage) -> None:
        """Log a damaged range once."""
        if self.ledger.add(damage):
            self.logger.warning(
                "records damaged",
                path=path,
                first_offset=damage.first_offset,
                end_offset=damage.end_offset,
                reason=damage.reason,
            )


def recover(files: Files, directory: str, signal: Signal, logger: Any) -> Recovered:
    """Bring the log in `directory` into a state that can be read and continued.

    Raises UnsupportedFormat before anything is changed, and OSError when the file system refuses.
    """
    state = _Recovering(files, directory, signal, logger)
    found = state.sweep()
    for one, after in pairwise(found):
        state.sealed(one, after.base_offset)
    if found:
        state.next_offset = found[-1].base_offset
        state.last(found[-1])
    state.neighbours(found)
    files.fsync_directory(directory)
    return Recovered(
        segments=tuple(state.segments),
        next_offset=state.next_offset,
        continues=state.continues,
        report=Recovery(
            records=sum(one.records for one in state.segments),
            segments=len(state.segments),
            truncated_bytes=state.truncated_bytes,
            damaged=state.ledger.ranges(),
            rebuilt_indexes=state.rebuilt_indexes,
        ),
        spare=state.spare,
    )
