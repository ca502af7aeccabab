"""Which frames a query has to read: key indexes (keys.py) as files, opened when they are needed and held within bounds.

A lookup in one segment costs about 10 us when the head of its key index is in memory, and reads one page of 4 KiB; so
a trace is found in a log of a hundred segments in a millisecond, and the frames that hold it are all that is read. One for
a text reads a page for each gram of it, of some KiB, until no frame is left. Heads are kept, the least recently used ones
going first, half of `KEY_INDEX_BYTES` for each log; no file is held open.

Segments that are not compacted have no key index; what queries learn of the newest of them is kept in memory
(recent.py), in the other half.

A key index is derived data: one that is missing, damaged or of another segment is told once and then not asked again,
and the segment is read whole. The compactor makes it anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from collector.otlp.signals import Signal
from collector.otlp.terms import TRACE, Term, Terms, of_texts
from collector.wal import keys, texts
from collector.wal.compression import Unpacker
from collector.wal.files import Files, read_file, read_fully
from collector.wal.frame import Damaged
from collector.wal.keys import KeyBuilder, KeyIndex, Wanted
from collector.wal.reader import Stretch, intact_frames, opened_segment
from collector.wal.reading import Range
from collector.wal.recent import RecentKeys
from collector.wal.recovery import keys_path
from collector.wal.segment import Segment
from collector.wal.texts import FRAMES_MAX, Needles

KEY_INDEX_BYTES: Final = 32 * 1024 * 1024
"""Memory for one log's key indexes: half for heads, those of some 100 GB of payload, half for the keys of segments that
are not compacted, those of some 4 GB, the newest."""
HEAD_OVERHEAD: Final = 2048
"""Bytes of the objects around a head."""
KEYS_BYTES_MAX: Final = 1 << 30
FIRST_READ: Final = 16 * 1024
"""What is read of a key index at first: most heads are smaller."""
TRACE_ID: Final = "trace_id"
"""The key column that terms with ids of traces ask."""
_OFFSET_MAX: Final = 2**32
"""Behind every offset that is relative to its segment."""


def asked(within: Range, index: str | None, any_of: Sequence[int | bytes], terms: Terms) -> Wanted | None:
    """What key indexes are asked for records in a range with one of some keys, which fulfil some terms; None: nothing."""
    keyed = [(index, [keys.token(key, index) for key in any_of])] if index is not None else []
    of_traces = [term for term in terms if all(sought.kind == TRACE for sought in term)]
    keyed += [(TRACE_ID, [keys.token(sought.text, TRACE_ID) for sought in term]) for term in of_traces]
    needles = texts.needles(of_texts(terms))
    either = tuple(filter(None, map(_either, terms)))
    if not keyed and not needles and not either:
        return None
    return Wanted(keyed, needles, either, (within.start_offset, within.end_offset), (within.start_ns, within.end_ns))


def _either(term: Term) -> tuple[str, list[int], Needles] | None:
    """What is asked of a term that an id of a trace may fulfil, or a text; None of any other, or for texts of no use."""
    ids = [keys.token(sought.text, TRACE_ID) for sought in term if sought.kind == TRACE]
    others = tuple(sought for sought in term if sought.kind != TRACE)
    needles = texts.needles((others,)) if ids and others else ()
    return (TRACE_ID, ids, needles) if needles else None


class KeyIndexes:
    """The key indexes of one log's segments. For any thread."""

    def __init__(self, files: Files, signal: Signal, logger: Any, bytes_max: int = KEY_INDEX_BYTES) -> None:
        self._half = bytes_max // 2
        self._files = files
        self._signal = signal
        self._logger = logger
        self._unpack = Unpacker()
        # Held for the dictionaries, not while files are read.
        self._lock = threading.Lock()
        # By the segment's nonce, the most recently used last.
        self._heads: OrderedDict[int, KeyIndex] = OrderedDict()
        self._held = 0
        # By the segment's base offset.
        self._recent: dict[int, RecentKeys] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of memory that key indexes take."""
        with self._lock:
            return self._held + sum(one.nbytes for one in self._recent.values())

    def stretches(self, of: Segment, wanted: Wanted, rest: Callable[[], None]) -> list[Stretch] | None:
        """Where the segment's frames lie that may hold what is wanted, in order.

        None when that is not known and the segment has to be read. `rest` is called between steps of longer work, and may
        sleep, or raise.
        """
        if not of.compacted:
            return self._recent_stretches(of, wanted, rest)
        if of.keyed is False:
            return None
        try:
            handle = self._files.open(keys_path(of.path))
        except FileNotFoundError:
            if not self._removed(of):
                self._refuse(of, "it is missing")
            return None
        except OSError as error:
            self._refuse(of, f"it cannot be opened: {error}")
            return None
        try:
            head = self._head(of, handle)
            numbers = self._numbers(of, head, wanted, handle) if head is not None else None
        except OSError as error:
            self._refuse(of, f"it cannot be read: {error}")
            return None
        finally:
            self._files.close(handle)
        if isinstance(numbers, Damaged):
            self._refuse(of, numbers.reason)
            return None
        if head is None or numbers is None:
            return None
        return _stretches(of, head, numbers)

    def _numbers(self, of: Segment, head: KeyIndex, wanted: Wanted, handle: int) -> NDArray[np.uint64] | Damaged | None:
        """The numbers of the frames that may hold what is wanted, rising; None when the key index does not tell.

        Raises OSError.
        """

        def read(position: int, length: int) -> bytes:
            return read_fully(self._files, handle, length, position)

        known = [(head.sections[index], tokens) for index, tokens in wanted.keys if index in head.sections]
        texts = head.texts if wanted.needles else ()
        either = [one for one in wanted.either if head.texts and one[0] in head.sections]
        if not known and not texts and not either:
            return None
        numbers = _in_range(of, head, wanted)
        for section, tokens in known:
            if not numbers.size:
                break
            with_key = section.find(tokens, read)
            if isinstance(with_key, Damaged):
                return with_key
            numbers = np.intersect1d(numbers, with_key)
        for index, tokens, needles in either:
            with_key = head.sections[index].find(tokens, read)
            if isinstance(with_key, Damaged):
                return with_key
            with_text = _joined([text.find(needles, numbers, read, self._unpack) for text in head.texts])
            if isinstance(with_text, Damaged):
                return with_text
            numbers = np.union1d(np.intersect1d(numbers, with_key), with_text)
        if texts and numbers.size:
            return _joined([text.find(wanted.needles, numbers, read, self._unpack) for text in texts])
        return numbers

    def usable(self, of: Segment) -> bool:
        """Whether a compacted segment has a key index that can be used, as far as its head tells."""
        if of.keyed is None:
            try:
                handle = self._files.open(keys_path(of.path))
                try:
                    self._head(of, handle)
                finally:
                    self._files.close(handle)
            except OSError as error:
                self._refuse(of, f"it cannot be read: {error}")
        return bool(of.keyed)

    def forget(self, of: Segment) -> None:
        """Drop what is known of a segment that is gone, was compacted, or got a new key index."""
        with self._lock:
            self._recent.pop(of.base_offset, None)
            head = self._heads.pop(of.nonce or 0, None)
            self._held -= head.nbytes + HEAD_OVERHEAD if head else 0

    def _recent_stretches(self, of: Segment, wanted: Wanted, rest: Callable[[], None]) -> list[Stretch] | None:
        """See `stretches`, of a segment that is not compacted."""
        with self._lock:
            held = self._recent.get(of.base_offset)
            if held is None:
                if self._full() and of.base_offset < min(self._recent):
                    return None
                held = self._recent[of.base_offset] = RecentKeys(self._signal, of)
        try:
            found = held.stretches(self._files, of, wanted, rest)
        except OSError:
            self.forget(of)
            return None
        with self._lock:
            while self._full():
                del self._recent[min(self._recent)]
        return found

    def _full(self) -> bool:
        return sum(one.nbytes for one in self._recent.values()) > self._half

    def _head(self, of: Segment, handle: int) -> KeyIndex | None:
        """The head of the segment's key index, from memory or from the open file; None when it cannot be used."""
        nonce = of.nonce or 0
        with self._lock:
            known = self._heads.get(nonce)
            if known is not None:
                self._heads.move_to_end(nonce)
                return known
        head = _read_head(self._files, handle, of)
        if isinstance(head, Damaged):
            self._refuse(of, head.reason)
            return None
        of.keyed = True
        with self._lock:
            if nonce not in self._heads:
                self._heads[nonce] = head
                self._held += head.nbytes + HEAD_OVERHEAD
            while self._held > self._half and len(self._heads) > 1:
                _, oldest = self._heads.popitem(last=False)
                self._held -= oldest.nbytes + HEAD_OVERHEAD
        return head

    def _removed(self, of: Segment) -> bool:
        """Whether retention has removed the segment, and its key index with it."""
        try:
            self._files.close(self._files.open(of.path))
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False

    def _refuse(self, of: Segment, reason: str) -> None:
        """Do without this key index from now on, and say so."""
        self.forget(of)
        if of.keyed is not False:
            of.keyed = False
            self._logger.warning("key index not used", path=keys_path(of.path), reason=reason)


def _read_head(files: Files, handle: int, of: Segment) -> KeyIndex | Damaged:
    """Read and judge the head of the segment's key index, whose file is open. Raises OSError."""
    data = read_fully(files, handle, FIRST_READ, 0)
    size = keys.head_size(data)
    if isinstance(size, Damaged):
        return size
    if size > len(data):
        data += read_fully(files, handle, size - len(data), len(data))
    return keys.decode(data[:size], of)


def key_index_state(files: Files, of: Segment) -> str:
    """`good`, `none`, or why the key index beside a compacted segment is not believed, as far as its head tells."""
    try:
        handle = files.open(keys_path(of.path))
    except FileNotFoundError:
        return "none"
    except OSError as error:
        return f"the key index cannot be read: {error}"
    try:
        head = _read_head(files, handle, of)
    except OSError as error:
        return f"the key index cannot be read: {error}"
    finally:
        files.close(handle)
    return head.reason if isinstance(head, Damaged) else "good"


def _joined(found: Sequence[NDArray[np.uint64] | Damaged]) -> NDArray[np.uint64] | Damaged:
    """All numbers, one after the other, or the first damage."""
    numbers = [np.empty(0, np.uint64)]
    for some in found:
        if isinstance(some, Damaged):
            return some
        numbers.append(some)
    return np.concatenate(numbers)


def _in_range(of: Segment, head: KeyIndex, wanted: Wanted) -> NDArray[np.uint64]:
    """The numbers of the frames that have offsets and times in the ranges wanted."""
    first, end = (min(max(0, offset - of.base_offset), _OFFSET_MAX) for offset in wanted.offsets)
    inside = (head.min_times <= wanted.times[1]) & (head.max_times >= wanted.times[0]) & (head.offsets < end)
    inside[:-1] &= head.offsets[1:] > first
    inside[-1:] &= of.next_offset - of.base_offset > first
    numbers: NDArray[np.uint64] = np.flatnonzero(inside).astype(np.uint64)
    return numbers


def _stretches(of: Segment, head: KeyIndex, numbers: NDArray[np.uint64]) -> list[Stretch]:
    """Where some frames lie."""
    starts = [*head.offsets.tolist(), of.next_offset - of.base_offset]
    positions = [*head.positions.tolist(), of.size]
    return [
        ((of.base_offset + starts[at], positions[at]), (of.base_offset + starts[at + 1], positions[at + 1]))
        for at in numbers.tolist()
    ]


def key_index_of(
    files: Files, signal: Signal, handle: int, of: Segment, *, text_frames: int = FRAMES_MAX
) -> Generator[None, None, bytes]:
    """Make the bytes of a key index from its segment, whose file is open, yielding after every frame.

    Raises Unfit for a segment that cannot be read whole: what it would leave out may be readable later. Raises
    OSError.
    """
    builder = KeyBuilder(signal, text_frames=text_frames)
    for position, one in intact_frames(files, handle, of):
        builder.add(position, one)
        yield
    return builder.encode(of)


def key_index_reason(files: Files, signal: Signal, of: Segment) -> str:
    """Why the key index beside a compacted segment does not tell what its frames make, empty when it does: reads all of
    both. One that an earlier version has written may tell nothing of texts.

    Raises OSError, also for a key index that is missing, and Unfit when the segment cannot be read whole.
    """
    data = read_file(files, keys_path(of.path), KEYS_BYTES_MAX)
    found = keys.content(data, of, Unpacker())
    if isinstance(found, Damaged):
        return found.reason
    with opened_segment(files, of) as (handle, now):
        steps = key_index_of(files, signal, handle, now, text_frames=FRAMES_MAX if found.texts else 0)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                made = keys.content(end.value, now, Unpacker())
                return "" if found == made else "the key index tells other than the segment"
