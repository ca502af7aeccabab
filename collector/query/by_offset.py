"""Entries by offset: what queries remember of records, as an array that follows the ring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.otlp.merge import merge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray

    from collector.otlp.block import Block

WINDOW_BYTES: Final = 2 * 1024 * 1024
"""Bytes of blocks that are read as one: numpy costs as much for a block of ten records as for one of a thousand."""

LEAST = 4096
"""Entries that there is room for at first, and that are let go of at once."""


class ByOffset:
    """One number for each record of a stretch of offsets, from `first` to before `end`.

    More are added at the end, and those before an offset are let go of: each costs two copies at most, amortised. For one
    thread at a time; what `between` returns does not change.
    """

    def __init__(self, kind: DTypeLike, first: int = 0) -> None:
        """Begin at an offset, with numbers of a kind."""
        self.first = self.end = first
        self._numbers: NDArray[Any] = np.empty(0, kind)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._numbers.nbytes

    def between(self, first: int, end: int) -> NDArray[Any]:
        """Return the numbers of the offsets from `first` to before `end`, which must be in the stretch."""
        return self._numbers[first - self.first : end - self.first]

    def append(self, numbers: NDArray[Any], largest: int = 0) -> None:
        """Add the numbers of the records that follow; the kind becomes one that has room for `largest`."""
        held = self.end - self.first
        needed = held + len(numbers)
        room = len(self._numbers) if needed <= len(self._numbers) else max(LEAST, held + held // 8, needed)
        kind = np.promote_types(self._numbers.dtype, np.min_scalar_type(largest))
        if room != len(self._numbers) or kind != self._numbers.dtype:
            grown = np.empty(room, kind)
            grown[:held] = self._numbers[:held]
            self._numbers = grown
        self._numbers[held:needed] = numbers
        self.end += len(numbers)

    def forget_before(self, offset: int) -> None:
        """Let go of what lies before an offset, if it is as much as the rest."""
        gone = offset - self.first
        if gone > LEAST and 2 * gone > self.end - self.first:
            self._numbers = self.between(offset, self.end).copy()
            self.first = offset

    def restart(self, offset: int) -> None:
        """Let go of everything, and begin at an offset."""
        self.first = self.end = offset
        self._numbers = np.empty(0, self._numbers.dtype)


def merged(blocks: Sequence[Block], begin: int) -> Iterator[Block]:
    """Yield the blocks that reach behind an offset, small ones that follow each other as one of `WINDOW_BYTES` or so."""
    held: list[Block] = []
    size = 0
    for block in blocks:
        if block.end_offset <= begin:
            continue
        if held and (size + block.nbytes > WINDOW_BYTES or block.base_offset != held[-1].end_offset):
            yield merge(held) if len(held) > 1 else held[0]
            held, size = [], 0
        held.append(block)
        size += block.nbytes
    if held:
        yield merge(held) if len(held) > 1 else held[0]
