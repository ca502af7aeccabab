"""The ring's blocks, oldest first, small ones merged into larger ones.

A request becomes a block, and one span is what a SimpleSpanProcessor sends. A block costs some 500 B of memory and
20 µs of a query whatever it holds, so small blocks are merged, at the newest end only, in two steps:

    settled    blocks that stay as they are
    gathered   a run of blocks, each made of a run of loose ones
    loose      a run of small blocks as they were appended

A full run of loose blocks becomes one gathered block, and a full run of gathered ones a settled block. A run is full
when it has `RUN_BLOCKS` blocks, or when one more would pass the limits of a merged block. A block that is not small
is settled at once, and so is what stands before it, merged as far as it has come.

* A record is copied twice at most, and at most `RUN_BLOCKS` blocks or `BYTES_MAX` at a time: 0.3 ms (measured; with
  runs of 64 or 128 a thousand requests of one span each are left in more blocks, because a merged block is full
  before the second run is).
* Of blocks that are not settled there are at most two runs.
* Offsets do not change, and blocks are immutable: a snapshot keeps the parts for as long as it needs them.

Groups are not unified, although one client's requests repeat the same resource: a merged block is byte for byte what
a scan of the payloads together would make.

Left out: merging of what has settled, as when the limits of a shrinking ring fall. It leaves by itself.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from collector.otlp.merge import merge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.otlp.block import Block

RUN_BLOCKS: Final = 32
"""Blocks that are merged at once."""

SHARE: Final = 64
"""A merged block takes at most one part in so many of the ring, so that eviction by whole blocks stays fine."""

RECORDS_MAX: Final = 4096
BYTES_MAX: Final = 1024 * 1024
"""The largest merged block."""

SMALL_RECORDS: Final = 256
SMALL_BYTES: Final = 128 * 1024
"""A block below both is small; above, a query's cost for the block is little beside that for its records."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a merged block may be, below what a block is small, and how many blocks make a run."""

    records: int
    bytes: int
    small_records: int
    small_bytes: int
    run: int = RUN_BLOCKS

    @classmethod
    def of(cls, capacity: int, max_bytes: int) -> Limits:
        """Return the limits for a ring of so many records and bytes."""
        records, size = min(RECORDS_MAX, capacity // SHARE), min(BYTES_MAX, max_bytes // SHARE)
        return cls(records, size, min(SMALL_RECORDS, records // 2 + 1), min(SMALL_BYTES, size // 2 + 1))


class _Run:
    """Neighbouring small blocks that wait to become one."""

    __slots__ = ("blocks", "bytes", "records")

    def __init__(self) -> None:
        self.blocks: deque[Block] = deque()
        self.records = 0
        self.bytes = 0

    def append(self, block: Block) -> None:
        self.blocks.append(block)
        self.records += block.count
        self.bytes += block.nbytes

    def popleft(self) -> Block:
        block = self.blocks.popleft()
        self.records -= block.count
        self.bytes -= block.nbytes
        return block

    def is_full(self, block: Block, limits: Limits) -> bool:
        """Tell whether the block must not come into this run."""
        return (
            len(self.blocks) >= limits.run
            or self.records + block.count > limits.records
            or self.bytes + block.nbytes > limits.bytes
        )

    def take(self) -> Block:
        """Return everything as one block, and be empty."""
        block = merge(list(self.blocks)) if len(self.blocks) > 1 else self.blocks[0]
        self.blocks.clear()
        self.records = self.bytes = 0
        return block


class Blocks:
    """A queue of blocks that merges small ones. Owned by the event loop's thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.nbytes = 0
        """What all blocks hold of memory, in bytes."""
        self.payload_bytes = 0
        """The payloads' part of it."""
        self._settled: deque[Block] = deque()
        self._gathered = _Run()
        self._loose = _Run()

    def __len__(self) -> int:
        return len(self._settled) + len(self._gathered.blocks) + len(self._loose.blocks)

    def __iter__(self) -> Iterator[Block]:
        return chain(self._settled, self._gathered.blocks, self._loose.blocks)

    @property
    def oldest(self) -> Block:
        """The block with the oldest record. IndexError when there is none."""
        return (self._settled or self._gathered.blocks or self._loose.blocks)[0]

    def limit(self, limits: Limits) -> None:
        """Merge within other limits from now on."""
        self._gather()
        self._settle()
        self._limits = limits

    def append(self, block: Block) -> None:
        """Take the block that follows the newest one."""
        self.nbytes += block.nbytes
        self.payload_bytes += block.payload_bytes
        if not self._is_small(block):
            self._gather()
            self._settle()
            self._settled.append(block)
            return
        if self._loose.is_full(block, self._limits):
            self._gather()
        self._loose.append(block)

    def popleft(self) -> Block:
        """Let go of the oldest block, and return it."""
        if self._settled:
            block = self._settled.popleft()
        else:
            block = (self._gathered if self._gathered.blocks else self._loose).popleft()
        self.nbytes -= block.nbytes
        self.payload_bytes -= block.payload_bytes
        return block

    def _is_small(self, block: Block) -> bool:
        return block.count < self._limits.small_records and block.nbytes < self._limits.small_bytes

    def _gather(self) -> None:
        """Make one block of the loose ones."""
        if not self._loose.blocks:
            return
        block = self._taken(self._loose)
        if not self._is_small(block):
            self._settle()
            self._settled.append(block)
            return
        if self._gathered.is_full(block, self._limits):
            self._settle()
        self._gathered.append(block)

    def _settle(self) -> None:
        """Make one block of the gathered ones, and leave it at that."""
        if self._gathered.blocks:
            self._settled.append(self._taken(self._gathered))

    def _taken(self, run: _Run) -> Block:
        self.nbytes -= run.bytes
        self.payload_bytes -= sum(block.payload_bytes for block in run.blocks)
        block = run.take()
        self.nbytes += block.nbytes
        self.payload_bytes += block.payload_bytes
        return block

    def check(self) -> None:
        """Recount everything; AssertionError names what differs."""
        assert self.nbytes == sum(block.nbytes for block in self)
        assert self.payload_bytes == sum(block.payload_bytes for block in self)
        for run in (self._gathered, self._loose):
            assert len(run.blocks) <= self._limits.run
            assert run.records == sum(block.count for block in run.blocks) <= self._limits.records
            assert run.bytes == sum(block.nbytes for block in run.blocks) <= self._limits.bytes
            assert all(map(self._is_small, run.blocks))
