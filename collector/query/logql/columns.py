"""A batch: some rows of a block on their way through a pipeline, by columns.

`Batch.column(name)` is one label of all rows, dictionary-encoded: a code for each row and the text of each code. So
a predicate is asked once for each distinct text, and grouping is arithmetic on codes. `Batch.lines` knows where
the lines lie, so that line filters run compiled over the payload. What stages have made of labels and lines is a pile
of layers (`layer.py`), asked for label by label.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from collector.query.logql.column import Column, Entry
from collector.query.logql.original import Original

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.query.logql.labels import Records
    from collector.query.logql.layer import Layer
    from collector.query.logql.lines import Lines
    from collector.query.logql.row import Row

__all__ = ("Batch", "Column")


class Batch:
    """Some rows of a block of log records, and what the stages so far have made of their labels and lines."""

    def __init__(
        self, block: Block, rows: NDArray[np.intp], records: Records, deadline: Deadline | None = None
    ) -> None:
        """Take ascending row numbers, and the deadline that long work on them asks."""
        self.block = block
        self.rows = rows
        self.records = records
        self.layer: Layer = Original(block, rows, records, deadline)
        self.steps: Sequence[Callable[[Row], bool]] = ()
        """The stages so far, line by line."""
        self.samples: NDArray[np.float64] | None = None
        """What `unwrap` has made of each row; None before it."""

    def narrowed(self, mask: NDArray[np.bool_]) -> Batch:
        """Return the batch of the rows that the mask names."""
        if mask.all():
            return self
        batch = copy(self)
        batch.rows = self.rows[mask]
        batch.layer = self.layer.narrowed(mask)
        if self.samples is not None:
            batch.samples = self.samples[mask]
        return batch

    def under(self, layer: Layer) -> Batch:
        """Return the same rows under another layer."""
        batch = copy(self)
        batch.layer = layer
        return batch

    @property
    def lines(self) -> Lines:
        """The rows' lines, as the stages so far have left them."""
        return self.layer.lines

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The rows' offsets in the log."""
        return self.rows + self.block.base_offset

    def entry(self, name: str) -> Entry:
        """Return a label with its categories, as the stages so far have left it."""
        return self.layer.entry(name)

    def column(self, name: str) -> Column:
        """Return a label as the stages so far have left it. `__error__` and `__error_details__` are labels, too."""
        return self.layer.entry(name).column

    def row(self, place: int) -> Row:
        """Return the line at a place in the batch with all its labels, as the stages so far have left them."""
        row = self.layer.row(place)
        for step in self.steps:
            step(row)
        return row

    def labels(self, place: int) -> dict[str, str]:
        """Return all labels of the row at a place in the batch, as the stages so far have left them."""
        return self.row(place).labels()
