"""Blocks that queries have read from compacted segments, kept for the next query: decompressed and scanned.

A frame of 256 KiB takes some 150 us to read, decompress and scan, and next to nothing to take from here. One cache serves
all logs of a daemon, so what is asked for most has most of it. An entry is named by its segment's nonce and its position
there; a file's nonce is its own, so what compaction has replaced or retention removed is never found again, and is
forgotten at once, to make room. Segments that are not compacted are not kept: nothing of them needs decompression.

The least recently used go first. While there is room every block is kept; then only one that is read a second time, soon
after it was turned away (as many are known of those as blocks are held). And one read may put in a quarter of the cache at
most. So neither a scan of the whole log nor many lookups of what nobody asks for again turn out what is useful: with one
question in twenty a scan of eight times the cache, and fifteen others of random records, 94 % of the rest was found
here, 54 % without these two rules (in a simulation of either).

`nbytes` is exact: blocks count their buffers (block.py), and `ENTRY_BYTES` stands for what is around one here, and for what
is known of one that was turned away. A block that a query is using stays with it when it is forgotten here. For any thread;
the lock is held for a few operations on dictionaries, and by the log's writer only when retention removes a segment.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from collector.errors import Malformed
from collector.otlp.scan import scan
from collector.otlp.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry, Metric

    from collector.otlp.block import Block
    from collector.otlp.signals import Signal
    from collector.wal.frame import Frame
    from collector.wal.segment import Segment

ENTRY_BYTES: Final = 600
"""Bytes of the objects around a block (key, dictionary entries, place in the segment's set), and of the key and the entry
of one that was turned away: measured, rounded up."""
READ_SHARE: Final = 1 / 4
"""Of the cache, what one read may put in."""

Key = tuple[int, int]
"""Nonce of the segment, position of the frame."""


class BlockCache(Collector):
    """Blocks of all logs, by nonce and position. `bytes_max` may be changed at any time."""

    def __init__(self, registry: CollectorRegistry, bytes_max: int = 0) -> None:
        """Hold `bytes_max` at most; with none nothing is kept. The registry gets its metrics."""
        self._lock = threading.Lock()
        # The most recently used last.
        self._blocks: OrderedDict[Key, Block] = OrderedDict()
        self._positions: dict[int, set[int]] = {}
        # What was turned away, the newest last.
        self._turned_away: OrderedDict[Key, None] = OrderedDict()
        self._nbytes = 0
        self._bytes_max = bytes_max
        self._hits = dict.fromkeys(SIGNALS, 0)
        self._misses = dict(self._hits)
        registry.register(self)

    @property
    def nbytes(self) -> int:
        """Bytes that the blocks take, and what is around them."""
        return self._nbytes

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def bytes_max(self) -> int:
        """Bytes that all of it may take."""
        return self._bytes_max

    @bytes_max.setter
    def bytes_max(self, value: int) -> None:
        with self._lock:
            self._bytes_max = value
            self._shrink()

    def get(self, signal: Signal, nonce: int, position: int) -> Block | None:
        """The block of a frame, if it is here; it is the most recently used one then."""
        key = nonce, position
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._hits[signal] += 1
                self._blocks.move_to_end(key)
        return block

    def put(self, nonce: int, position: int, block: Block) -> bool:
        """Keep the block of a frame, which was not here, or turn it away; returns whether it was kept."""
        size = block.nbytes + ENTRY_BYTES
        key = nonce, position
        with self._lock:
            if size > self._bytes_max or key in self._blocks:
                return False  # Larger than everything, or another query was faster.
            if key in self._turned_away:
                del self._turned_away[key]
            elif self._nbytes + size > self._bytes_max:
                self._turned_away[key] = None
                self._shrink()
                return False
            self._blocks[key] = block
            self._positions.setdefault(nonce, set()).add(position)
            self._nbytes += size
            self._shrink()
            return True

    def missed(self, signal: Signal) -> None:
        """Count a block that was read because it was not here."""
        with self._lock:
            self._misses[signal] += 1

    def forget(self, nonce: int) -> None:
        """Let go of a segment's blocks: its file is gone."""
        with self._lock:
            for position in self._positions.pop(nonce, ()):
                self._nbytes -= self._blocks.pop((nonce, position)).nbytes + ENTRY_BYTES
            self._shrink()

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._blocks.clear()
            self._positions.clear()
            self._turned_away.clear()
            self._nbytes = 0

    def _shrink(self) -> None:
        while self._nbytes > self._bytes_max:
            (nonce, position), block = self._blocks.popitem(last=False)
            self._nbytes -= block.nbytes + ENTRY_BYTES
            held = self._positions[nonce]
            held.remove(position)
            if not held:
                del self._positions[nonce]
        while len(self._turned_away) > len(self._blocks):
            self._turned_away.popitem(last=False)

    def stats(self) -> dict[str, int]:
        """The figures of `/api/stats`."""
        return {
            "bytes": self.nbytes,
            "limit_bytes": self.bytes_max,
            "blocks": len(self),
            "hits": sum(self._hits.values()),
            "misses": sum(self._misses.values()),
        }

    def describe(self) -> Iterable[Metric]:
        """Name the metrics."""
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        """Read the figures now."""
        for name, text, counts in (
            ("hits", "Blocks of compacted segments that queries found decompressed.", self._hits),
            ("misses", "Blocks of compacted segments that queries read from their files.", self._misses),
        ):
            family = CounterMetricFamily(f"ringtail_log_cache_{name}", text, labels=("signal",))
            for signal, count in counts.items():
                family.add_metric((signal.name,), count)
            yield family
        for name, text, value in (
            ("bytes", "Bytes of decompressed blocks of the log held.", self.nbytes),
            ("limit_bytes", "Bytes of decompressed blocks of the log that may be held.", self.bytes_max),
            ("blocks", "Decompressed blocks of the log held.", len(self)),
        ):
            yield GaugeMetricFamily(f"ringtail_log_cache_{name}", text, value=value)

    def check(self) -> list[str]:
        """Count everything again; returns what differs, one line each."""
        with self._lock:
            found = []
            size = sum(block.nbytes + ENTRY_BYTES for block in self._blocks.values())
            if size != self._nbytes:
                found.append(f"{self._nbytes} bytes are {size}")
            if self._nbytes > self._bytes_max:
                found.append(f"{self._nbytes} bytes are more than {self._bytes_max}")
            named = {(nonce, position) for nonce, held in self._positions.items() for position in held}
            if len(self._turned_away) > len(self._blocks) or not self._turned_away.keys().isdisjoint(self._blocks):
                found.append("what was turned away is too much, or held")
            if named != set(self._blocks) or not all(self._positions.values()):
                found.append("the positions are not those of the blocks")
            return found


class Blocks:
    """One read of a log: makes blocks of frames, and takes them from the cache and puts them there."""

    def __init__(self, cache: BlockCache | None, signal: Signal, unusable: Callable[[Frame, str], None]) -> None:
        """`unusable` is told of a frame that is no valid request, and why."""
        self._cache = cache
        self._signal = signal
        self._unusable = unusable
        self._room = int(cache.bytes_max * READ_SHARE) if cache is not None else 0

    def held(self, of: Segment, position: int) -> Block | None:
        """The block of a frame from the cache."""
        if self._cache is None or not of.compacted or of.nonce is None:
            return None
        return self._cache.get(self._signal, of.nonce, position)

    def made(self, of: Segment, position: int, one: Frame) -> Block | None:
        """The block of a frame; None when it is no valid request."""
        try:
            block = scan(self._signal, one.payload, one.base_offset)
        except Malformed as error:
            self._unusable(one, str(error))
            return None
        if self._cache is not None and of.compacted and of.nonce is not None:
            self._cache.missed(self._signal)
            if self._room > 0 and self._cache.put(of.nonce, position, block):
                self._room -= block.nbytes
        return block
