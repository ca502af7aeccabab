"""The ring: a signal's newest blocks, bounded in records and in bytes, with exact indexes.

Invariants, all of which `check` recounts:

* live records are exactly the offsets [first_offset, next_offset), at most `capacity` of them;
* every index holds exactly the live records that have a key, and a key without live records is gone;
* `total_bytes` is the sum of the buffers held, and at most `max_bytes` after every append, unless that has just become
  less: then each append and each call of `shrink` brings it nearer.

Records leave oldest first. For the capacity they leave one by one; the block at the tail keeps its buffers
until its last record is gone, and they count until then. For the bytes, whole blocks leave, in the extreme
the one just appended: then its records count as evicted, and the log has them. Small blocks are merged
(`blocks.py`), so that neither a block's own cost nor the number of blocks grows with small requests.

Records that were deleted stay where they are, and in the indexes, until it is their turn to leave: but nobody is shown them.
A snapshot has what is left of their blocks, cut out. That takes as many bytes as those blocks once more; they are in
`total_bytes`, and the oldest records leave to make room for them.

A ring of log records has a keyword index, too (`tokens.py`), unless it is made without. It is told of every record that
comes, and how many have gone; capacity and bytes are as above.

Owned by the event loop's thread. A query takes `snapshot()`, a tuple of immutable blocks, and needs no lock.
Cost: amortised under a tenth of a microsecond a record with three indexes, and 2 µs a block; the keyword index about half
a microsecond for a record of 300 B.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from collector.otlp.block import RECORDS
from collector.otlp.remains import remains
from collector.otlp.signals import LOGS
from collector.otlp.texts import ATTRIBUTE, ATTRIBUTE_LONG, BODY_LONG, container_texts, texts
from collector.otlp.tombstones import NONE, Tombstones
from collector.otlp.wire import hash_key
from collector.otlp.words import WORD_BYTES_MAX, words
from collector.ring import tokens
from collector.ring.blocks import Blocks, Limits
from collector.ring.postings import Postings, empty_bytes, key_of_column
from collector.ring.search import Search
from collector.ring.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.otlp.signals import Signal
    from collector.otlp.texts import TextExtents

SHRINK_RECORDS = 4096
"""Records that are evicted at once after `max_bytes` has become less: a millisecond or two."""

_INDEX_WIDTH = {"trace_id": 16, "severity": 1, "type": 1, "service": 8, "name": 8}


def bytes_min(signal: Signal, capacity: int) -> int:
    """Return the least `max_bytes` of a ring of so many records: twice the bytes of its indexes with next to nothing."""
    return 2 * (len(signal.indexes) * empty_bytes(capacity) + (tokens.empty_bytes() if signal is LOGS else 0))


class Reaches(NamedTuple):
    """What some blocks reach over, an entry for each."""

    bases: NDArray[np.int64]
    """The first offset."""
    oldest: NDArray[np.uint64]
    """The time of the oldest record."""
    newest: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ring at one moment: its blocks oldest first, and the live range of offsets."""

    blocks: tuple[Block, ...]
    first_offset: int
    next_offset: int
    _reaches: list[Reaches] = field(default_factory=list, init=False, repr=False, compare=False)

    def reaches(self) -> Reaches:
        """Return where blocks begin and from when to when they are, as arrays. From any thread; made once."""
        if not self._reaches:
            count = len(self.blocks)
            bases = np.fromiter((block.base_offset for block in self.blocks), np.int64, count)
            oldest = np.fromiter((block.min_time for block in self.blocks), np.uint64, count)
            newest = np.fromiter((block.max_time for block in self.blocks), np.uint64, count)
            self._reaches.append(Reaches(bases, oldest, newest))
        return self._reaches[0]


class Lookup:
    """One index of a ring, for queries in other threads: it finds what the ring had at the moment of a snapshot."""

    __slots__ = ("_postings", "_ring")

    def __init__(self, ring: Ring, postings: Postings) -> None:
        self._ring = ring
        self._postings = postings

    def find(self, keys: Iterable[int], snapshot: Snapshot) -> tuple[NDArray[np.int64], int]:
        """Return offsets of the snapshot's records with one of the keys, ascending, and from which offset on.

        What lies before that offset was evicted since, and is not among them. Two ids may share a key: look at them.
        """
        hidden = self._ring.hidden
        found = [hidden.left_of(self._postings.find(key, snapshot.first_offset)) for key in keys]
        complete = max(self._ring.first_offset, snapshot.first_offset)
        offsets = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
        begin, end = np.searchsorted(offsets, (complete, snapshot.next_offset))
        return offsets[begin:end], min(complete, snapshot.next_offset)


class Ring:
    """The newest records of one signal. See the module's docstring for what it promises."""

    def __init__(
        self,
        signal: Signal,
        capacity: int,
        max_bytes: int,
        first_offset: int = 0,
        merging: Limits | None = None,
        keyword_index: bool = True,
    ) -> None:
        """Make an empty ring whose first record will have offset `first_offset`.

        `capacity` is in records and at least 1, `max_bytes` in bytes; `merging` is by default what suits them. Of log
        records there is a keyword index, if it is wanted.
        ValueError when the indexes of so many records would leave no room for records.
        """
        self._check_bytes(max_bytes, signal, capacity)
        self.signal = signal
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.first_offset = first_offset
        self.next_offset = first_offset
        self.evicted = 0
        self._merging = merging
        self._blocks = Blocks(merging or Limits.of(capacity, max_bytes))
        self._ceiling = max_bytes  # what `total_bytes` must not pass now: more than `max_bytes` while the ring shrinks
        self._make_indexes()
        self._tokens = Tokens(first_offset) if keyword_index and signal is LOGS else None
        self._snapshot: Snapshot | None = None
        self.hidden: Tombstones = NONE
        """What was deleted of what it holds."""
        # Of blocks that have such records, what is left.
        self._remains: dict[Block, tuple[Block, ...]] = {}
        self._remains_bytes = 0

    @property
    def keyword_index(self) -> bool:
        """Whether it has one."""
        return self._tokens is not None

    def _make_indexes(self) -> None:
        """Make indexes for `capacity` records that know of none."""
        names = self.signal.indexes
        self._indexes = {name: Postings(self.capacity, _INDEX_WIDTH[name]) for name in names}
        places = RECORDS[self.signal].columns
        self._columns = [(self._indexes[name], places[name][1], _INDEX_WIDTH[name]) for name in names]

    @staticmethod
    def _check_bytes(max_bytes: int, signal: Signal, capacity: int) -> None:
        if max_bytes < bytes_min(signal, capacity):
            raise ValueError(f"a ring of {capacity} records wants at least {bytes_min(signal, capacity)} bytes")

    def __len__(self) -> int:
        return self.next_offset - self.first_offset

    @property
    def index_bytes(self) -> int:
        """The bytes of all indexes."""
        size = sum(index.nbytes for index in self._indexes.values())
        return size if self._tokens is None else size + self._tokens.nbytes

    @property
    def total_bytes(self) -> int:
        """Everything the ring holds: payloads, columns, indexes, and what is left of blocks with deleted records, in bytes."""
        return self._blocks.nbytes + self.index_bytes + self._remains_bytes

    def append(self, block: Block) -> int:
        """Admit a block whose base offset is `next_offset`; return how many records were evicted for it."""
        if block.base_offset != self.next_offset:
            raise AssertionError(f"block at {block.base_offset}, but the ring ends at {self.next_offset}")
        before = self.evicted
        self._snapshot = None
        count, live = block.count, self.next_offset - self.first_offset
        self._evict_records(min(live, live + count - self.capacity))
        skipped = max(0, count - self.capacity)
        self._blocks.append(block)
        self.next_offset = block.end_offset
        if skipped:
            self.first_offset += skipped
            self.evicted += skipped
            if self._tokens is not None:
                self._tokens.evict(skipped)
        self._index(block, skipped)
        if self._tokens is not None:
            self._tokens.append(block, skipped)
        while self._blocks and self.total_bytes > self._ceiling:
            self._evict_records(self._blocks.oldest.end_offset - self.first_offset)
        if self._ceiling > self.max_bytes:
            self.shrink()
        return self.evicted - before

    def _index(self, block: Block, first: int) -> None:
        """Tell the indexes of a block's records from number `first` on."""
        buffer = block.records.buffer
        for index, place, width in self._columns:
            index.append(block.base_offset + first, buffer, place * block.count + width * first, block.count - first)

    def resize(self, max_bytes: int, capacity: int | None = None) -> bool:
        """Change `max_bytes`, and `shrink` at once if that is less; return what `shrink` returns.

        With a new `capacity`, indexes are made anew: 0.1 us for each record and index. ValueError as when the ring was
        made, and then nothing has changed.
        """
        capacity = capacity or self.capacity
        self._check_bytes(max_bytes, self.signal, capacity)
        self._snapshot = None
        if capacity != self.capacity:
            self._evict_records(max(0, len(self) - capacity))
            self.capacity = capacity
            self._make_indexes()
            for block in self._blocks:
                self._index(block, max(0, self.first_offset - block.base_offset))
        self._blocks.limit(self._merging or Limits.of(capacity, max_bytes))
        self.max_bytes = max_bytes
        return self.shrink()

    def shrink(self) -> bool:
        """Evict at most `SHRINK_RECORDS` of the oldest records that are too much; return whether none is any more."""
        last = self.first_offset + SHRINK_RECORDS
        while self._blocks and self.total_bytes > self.max_bytes and self.first_offset < last:
            self._snapshot = None
            self._evict_records(min(self._blocks.oldest.end_offset, last) - self.first_offset)
        self._ceiling = max(self.max_bytes, self.total_bytes)
        return self.total_bytes <= self.max_bytes

    def _evict_records(self, count: int) -> None:
        """Evict the `count` oldest records from all indexes, and drop blocks without live records."""
        while count > 0:
            block = self._blocks.oldest
            begin = self.first_offset - block.base_offset
            end = min(begin + count, block.count)
            buffer = block.records.buffer
            if self._tokens is not None:  # first: a search takes its word for what no index has any more
                self._tokens.evict(end - begin)
            for index, place, width in self._columns:
                index.evict(buffer, place * block.count + width * begin, end - begin)
            self.first_offset += end - begin
            self.evicted += end - begin
            count -= end - begin
            if end == block.count:
                self._blocks.popleft()
                self._remains_bytes -= sum(left.nbytes for left in self._remains.pop(block, ()))

    def hide(self, deleted: Tombstones) -> None:
        """Show nobody these records from now on, nor those that were hidden before."""
        self.hidden = (self.hidden | deleted).within(self.first_offset, self.next_offset)
        self._remains, self._remains_bytes = {}, 0
        self._snapshot = None

    def snapshot(self) -> Snapshot:
        """Return the blocks as they are now, without what was deleted. The same object until the ring changes."""
        if self._snapshot is None:
            if self.hidden:
                self.hidden = self.hidden.within(self.first_offset, self.next_offset)
            blocks = self._remaining() if self.hidden else tuple(self._blocks)
            self._snapshot = Snapshot(blocks, self.first_offset, self.next_offset)
        return self._snapshot

    def _remaining(self) -> tuple[Block, ...]:
        """Cut what was deleted out of the blocks; what is left of a block is made once.

        The newest first, so that the oldest can leave when there is no room for what is left of all.
        """
        known, self._remains, self._remains_bytes = self._remains, {}, 0
        for block in reversed(tuple(self._blocks)):
            if block.end_offset <= self.first_offset:
                break
            if not self.hidden.touch(block.base_offset, block.end_offset):
                continue
            left = known[block] if block in known else tuple(remains(block, self.hidden))
            self._remains[block] = left
            self._remains_bytes += sum(one.nbytes for one in left)
            while self._blocks and self.total_bytes > self._ceiling:
                self._evict_records(self._blocks.oldest.end_offset - self.first_offset)
        return tuple(left for block in self._blocks for left in self._remains.get(block, (block,)))

    def restart(self, offset: int) -> None:
        """Go on at another offset, as after a damaged part of the log; everything held is evicted."""
        self._evict_records(len(self))
        self._snapshot = None
        self.first_offset = self.next_offset = offset
        if self._tokens is not None:
            self._tokens.restart(offset)

    def key(self, index: str, value: int | bytes) -> int:
        """Return the key under which an index knows a value: an id, a string's bytes, or a small number."""
        if isinstance(value, int):
            return value + 1
        if _INDEX_WIDTH[index] == 16:
            return key_of_column(memoryview(value), 16, 0)
        return hash_key(value)

    def count(self, index: str, key: int) -> int:
        """Return how many live records have the key in an index."""
        return self._indexes[index].count(key)

    def counts(self, index: str, column: bytes) -> NDArray[np.int64]:
        """Return, for each key of a column, how many live records have it in an index."""
        return self._indexes[index].counts(column, 0, len(column) // _INDEX_WIDTH[index])

    def find(self, index: str, key: int, limit: int = 1 << 62, before: int = 1 << 62) -> NDArray[np.int64]:
        """Return the offsets of live records with the key, newest first."""
        if not self.hidden:
            return self._indexes[index].find(key, self.first_offset, limit, before)
        return self.hidden.left_of(self._indexes[index].find(key, self.first_offset, before=before))[:limit]

    def lookup(self, index: str) -> Lookup:
        """Return an index for a query to use in another thread."""
        return Lookup(self, self._indexes[index])

    def search(self) -> Search | None:
        """Return the keyword index for a query to use in another thread; None when there is none."""
        return Search(self._tokens, self._indexes["trace_id"]) if self._tokens is not None else None

    def newest_of_each_key(self, index: str) -> list[tuple[int, int, int]]:
        """Return (key, newest offset, count) for every key of an index, newest first."""
        return sorted(self._indexes[index].items(), key=lambda item: -item[1])

    def stats(self) -> dict[str, Any]:
        """Return the figures that `/api/stats` shows for the ring. Bytes are sums of real buffers.

        Of the keyword index, keys are words, each of a kind, and postings pairs of a word and a record that has it.
        """
        indexes: dict[str, Postings | Tokens] = {**self._indexes}
        if self._tokens is not None:
            indexes["tokens"] = self._tokens
        return {
            "capacity": self.capacity,
            "records": len(self),
            "evicted": self.evicted,
            "payload_bytes": self._blocks.payload_bytes,
            "column_bytes": self._blocks.nbytes - self._blocks.payload_bytes,
            "index_bytes": self.index_bytes,
            "remains_bytes": self._remains_bytes,
            "total_bytes": self.total_bytes,
            "indexes": {
                name: {"keys": index.keys, "postings": index.postings, "bytes": index.nbytes}
                for name, index in indexes.items()
            },
        }

    def check(self) -> None:
        """Recount everything from the blocks and compare; AssertionError names what differs. O(records)."""
        self._blocks.check()
        offset = self._blocks.oldest.base_offset if self._blocks else self.next_offset
        for block in self._blocks:
            assert block.base_offset == offset, f"{block} does not follow {offset}"
            offset = block.end_offset
        assert offset == self.next_offset
        if self._blocks:
            assert self._blocks.oldest.base_offset <= self.first_offset < self._blocks.oldest.end_offset
        assert len(self) <= self.capacity
        assert self.first_offset <= self.next_offset
        for name, index in self._indexes.items():
            expected: dict[int, list[int]] = {}
            for block in self._blocks:
                column = block.records.column_bytes(name)
                for row in range(max(0, self.first_offset - block.base_offset), block.count):
                    key = key_of_column(column, _INDEX_WIDTH[name], row)
                    if key:
                        expected.setdefault(key, []).append(block.base_offset + row)
            assert {key for key, _, _ in index.items()} == set(expected), f"keys of {name}"
            assert index.keys == len(expected), f"number of keys of {name}"
            assert index.postings == sum(map(len, expected.values())), f"number of postings of {name}"
            for key, offsets in expected.items():
                assert index.count(key) == len(offsets), f"{name} key {key}"
                assert index.find(key, self.first_offset).tolist() == offsets[::-1], f"{name} key {key}"
        if self._tokens is not None:
            self._check_tokens(self._tokens)

    def _check_tokens(self, index: Tokens) -> None:
        """Recount the words of all live records."""
        expected: dict[tuple[int, bytes], set[int]] = {}

        def add(found: TextExtents, row: int, block: Block, offset: int) -> None:
            flags = int(found.flags[row])
            for place in np.flatnonzero(found.row == row).tolist():
                kind, start = int(found.kind[place]), int(found.start[place])
                for word in words(bytes(block.payload[start : start + int(found.length[place])])):
                    if len(word.folded) <= WORD_BYTES_MAX:
                        expected.setdefault((kind, word.folded), set()).add(offset)
                    else:
                        flags |= ATTRIBUTE_LONG if kind == ATTRIBUTE else BODY_LONG
            for bit in range(flags.bit_length()):
                if flags >> bit & 1:
                    expected.setdefault((tokens.FLAGS + bit, b""), set()).add(offset)

        for block in self._blocks:
            own, held, groups = texts(block), container_texts(block), block.column("group").tolist()
            for row in range(max(0, self.first_offset - block.base_offset), block.count):
                add(own, row, block, block.base_offset + row)
                add(held, groups[row], block, block.base_offset + row)
        found = index.items()
        assert index.first_offset == self.first_offset
        assert len(found) == index.keys
        assert sum(count for _, _, count, _ in found) == index.postings
        assert {(kind, text): offsets for kind, text, _, offsets in found} == {
            key: sorted(offsets, reverse=True) for key, offsets in expected.items()
        }, "tokens"
        for _, text, count, offsets in found:
            assert count == len(offsets), f"token {text!r}"
