"""What a pipeline's stages make of the labels and lines of a batch, stage by stage, worked out when it is asked for.

Every stage that changes labels or lines puts a `Layer` on the one below. A layer answers for one label at a time:
`| json | level="error"` looks for one member in the lines, not for all of them. A filter narrows the whole pile to the
rows that are left, with everything that is known of them so far.

At the bottom is `original.Original`. The pile is at most `steps.LAYERS_MAX` high, because a question goes down through
it by recursion.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Self

import numpy as np

from collector.query.logql.column import METADATA, Entry, parsed
from collector.query.logql.row import DETAILS, ERROR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.logql.lines import Lines
    from collector.query.logql.row import Row


ROWS_BETWEEN_CHECKS = 256
"""Lines that are worked on one by one between two looks at the deadline."""


MADE_MAX = 64 << 20
"""Characters of lines and labels that all stages together may make out of one block's lines."""


class Layer:
    """The labels and lines of some rows after a stage."""

    def __init__(self, count: int) -> None:
        """Take the number of rows."""
        self.count = count
        self._entries: dict[str, Entry] = {}
        self._extractions: dict[str, NDArray[np.bool_]] = {}
        self._known_lines: Lines | None = None

    def narrowed(self, mask: NDArray[np.bool_]) -> Self:
        """Return the same for the rows that the mask names."""
        layer = copy(self)
        layer.count = int(mask.sum())
        layer._entries = {name: entry.narrowed(mask) for name, entry in self._entries.items()}
        layer._extractions = {name: rows[mask] for name, rows in self._extractions.items()}
        if self._known_lines is not None:
            layer._known_lines = self._known_lines.narrowed(mask)
        return layer

    def entry(self, name: str) -> Entry:
        """Return a label."""
        found = self._entries.get(name)
        if found is None:
            found = self._entries[name] = self._entry(name)
        return found

    @property
    def lines(self) -> Lines:
        """The rows' lines."""
        if self._known_lines is None:
            self._known_lines = self._lines()
        return self._known_lines

    def check(self) -> None:
        """Raise QueryTimeout when the query's time is over: for work line by line."""
        raise NotImplementedError

    def charge(self, size: int) -> None:
        """Count characters that a stage has made. Raises QueryLimit over MADE_MAX."""
        raise NotImplementedError

    def row(self, place: int) -> Row:
        """Return the line at a place as it came, before all stages."""
        raise NotImplementedError

    def times(self) -> NDArray[np.uint64]:
        """Return the rows' times, Unix ns."""
        raise NotImplementedError

    def extracted(self, name: str) -> NDArray[np.bool_]:
        """Tell for each row whether a label of that name was ever parsed out of the line."""
        found = self._extractions.get(name)
        if found is None:
            found = self._extractions[name] = self._extracted(name)
        return found

    def in_base(self, name: str) -> NDArray[np.bool_]:
        """Tell for each row whether its stream had a label of that name before the pipeline."""
        raise NotImplementedError

    def taken(self, name: str) -> NDArray[np.bool_]:
        """Tell for each row whether a parsed label of that name gets the suffix."""
        taken: NDArray[np.bool_] = self.in_base(name) | (self.entry(name).kinds == METADATA)
        return taken

    def _entry(self, name: str) -> Entry:
        raise NotImplementedError

    def _extracted(self, name: str) -> NDArray[np.bool_]:
        raise NotImplementedError

    def _lines(self) -> Lines:
        raise NotImplementedError


class StageLayer(Layer):
    """A layer above another; what a stage leaves alone comes from below."""

    def __init__(self, below: Layer) -> None:
        super().__init__(below.count)
        self.below = below

    def narrowed(self, mask: NDArray[np.bool_]) -> Self:
        """See `Layer.narrowed`."""
        layer = super().narrowed(mask)
        layer.below = self.below.narrowed(mask)
        return layer

    def check(self) -> None:
        """See `Layer.check`."""
        self.below.check()

    def charge(self, size: int) -> None:
        """See `Layer.charge`."""
        self.below.charge(size)

    def row(self, place: int) -> Row:
        """See `Layer.row`."""
        return self.below.row(place)

    def times(self) -> NDArray[np.uint64]:
        """See `Layer.times`."""
        return self.below.times()

    def in_base(self, name: str) -> NDArray[np.bool_]:
        """See `Layer.in_base`."""
        return self.below.in_base(name)

    def _entry(self, name: str) -> Entry:
        return self.below.entry(name)

    def _extracted(self, name: str) -> NDArray[np.bool_]:
        return self.below.extracted(name)

    def _lines(self) -> Lines:
        return self.below.lines


class FaultLayer(StageLayer):
    """Rows on which a filter or a conversion failed."""

    def __init__(self, below: Layer, faults: dict[str, Entry]) -> None:
        """Take the two labels of the faults."""
        super().__init__(below)
        self._faults = faults

    @classmethod
    def over(cls, below: Layer, error: str, codes: NDArray[np.intp], details: list[str]) -> FaultLayer:
        """Return faults above a layer; above others, one layer for them all, so that filters do not pile up.

        `codes` has for each row a place in `details`, of which the first is empty and stands for rows without a fault.
        """
        faults = {ERROR: parsed((codes != 0).astype(np.intp), ["", error]), DETAILS: parsed(codes, details)}
        if isinstance(below, FaultLayer):
            faults = {name: below._faults[name].under(fault) for name, fault in faults.items()}
            below = below.below
        return cls(below, faults)

    def narrowed(self, mask: NDArray[np.bool_]) -> FaultLayer:
        """See `Layer.narrowed`."""
        layer = super().narrowed(mask)
        layer._faults = {name: entry.narrowed(mask) for name, entry in self._faults.items()}
        return layer

    def _entry(self, name: str) -> Entry:
        below = self.below.entry(name)
        fault = self._faults.get(name)
        return below if fault is None else below.under(fault)
