"""Labels of records that are known by their offsets, and the layers that look them up.

Known is what was remembered (`remembered.py`). A `RingLayer` is a bottom layer of records of many blocks of which all is
known that will be asked; a `BlockLayer` is that of some rows of a block, which answers for what is known without looking
into the payload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from collector.query.logql.column import STREAM as IN_STREAM
from collector.query.logql.column import Entry
from collector.query.logql.layer import Layer
from collector.query.logql.lines import Lines
from collector.query.logql.original import Original

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.query.logql.labels import Container, Records

STREAM: Final = "{}"
"""The field of streams; no label has that name."""
SIZE: Final = "{size}"
"""The field of lines' sizes in bytes."""


class Known(NamedTuple):
    """One label, or STREAM or SIZE, over a stretch of offsets."""

    first: int
    """The first offset."""
    end: int
    """The offset after the last."""
    codes: NDArray[Any]
    """For each record the place of its text, or stream, among the values; of SIZE the size."""
    values: list[str]
    """Texts, of which the first is that of records without the label."""
    kinds: NDArray[np.uint8]
    """The category of each."""
    streams: list[Container]
    """Of STREAM: the streams, without metadata."""

    def of(self, offsets: NDArray[np.int64]) -> NDArray[Any]:
        """Return the codes at some offsets."""
        return self.codes[offsets - self.first]

    def entry(self, offsets: NDArray[np.int64]) -> Entry:
        """Return the label at some offsets."""
        codes = self.of(offsets)
        return Entry(codes.astype(np.intp), self.values, self.kinds[codes])

    def has(self, block: Block) -> bool:
        """Tell whether a whole block is in the stretch."""
        return self.first <= block.base_offset and block.end_offset <= self.end


class RingLayer(Layer):
    """The labels of records before any stage, as they are known."""

    def __init__(
        self, offsets: NDArray[np.int64], times: NDArray[np.uint64], known: Mapping[str, Known], deadline: Deadline
    ) -> None:
        """Take offsets and times of the records, and all that will be asked for."""
        super().__init__(len(offsets))
        self._deadline = deadline
        self.offsets = offsets
        self._times = times
        self._known = known

    def narrowed(self, mask: NDArray[np.bool_]) -> RingLayer:
        """See `Layer.narrowed`."""
        layer = super().narrowed(mask)
        layer.offsets, layer._times = self.offsets[mask], self._times[mask]
        return layer

    def check(self) -> None:
        """See `Layer.check`."""
        self._deadline.check()

    def times(self) -> NDArray[np.uint64]:
        """See `Layer.times`."""
        return self._times

    def extracted(self, name: str) -> NDArray[np.bool_]:
        """See `Layer.extracted`."""
        return np.zeros(self.count, np.bool_)

    def in_base(self, name: str) -> NDArray[np.bool_]:
        """See `Layer.in_base`."""
        found: NDArray[np.bool_] = self.entry(name).kinds == IN_STREAM
        return found

    def _entry(self, name: str) -> Entry:
        return self._known[name].entry(self.offsets)

    def _lines(self) -> Lines:
        """Return lines of which only the sizes can be asked for."""
        sizes = self._known[SIZE].of(self.offsets)
        return Lines(b"", np.zeros_like(sizes), sizes)


class BlockLayer(Original):
    """The labels and lines of some rows of a block before any stage, some of them known."""

    def __init__(
        self,
        block: Block,
        rows: NDArray[np.intp],
        records: Records,
        deadline: Deadline | None,
        known: Mapping[str, Known],
    ) -> None:
        """Take ascending row numbers. What is known must have the whole block."""
        super().__init__(block, rows, records, deadline)
        self._known = known

    def in_base(self, name: str) -> NDArray[np.bool_]:
        """See `Layer.in_base`."""
        if name in self._known:
            found: NDArray[np.bool_] = self.entry(name).kinds == IN_STREAM
            return found
        return super().in_base(name)

    def _entry(self, name: str) -> Entry:
        known = self._known.get(name)
        if known is None:
            return super()._entry(name)
        return known.entry(self.rows + self.block.base_offset)
