"""Exemplars: single spans that a series was made of, spread over its time, to go on from a figure to a trace.

A series has at most one for each of the slots that the range is cut into. Of what all series have together, the answer
returns so many as were asked for, evenly chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.traceql.matches import Batch

EXEMPLARS_MAX: Final = 1000
"""Exemplars of one answer."""
_NOTED: Final = 10
"""How many times more are noted than returned, so that late series have some."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One span: start in Unix ns, its value (NaN: the sample's), and its ids."""

    time: int
    value: float
    trace_id: bytes
    span_id: bytes
    step: int


class Exemplars:
    """Chooses exemplars while spans go by."""

    def __init__(self, wanted: int, steps: int) -> None:
        """Return at most `wanted` in all."""
        self._wanted = min(wanted, EXEMPLARS_MAX)
        self._steps = steps
        self._slots = min(max(1, self._wanted), steps)
        self._noted: dict[tuple[int, int], Exemplar] = {}
        self._chosen: dict[int, list[Exemplar]] | None = None

    def add(
        self,
        batch: Batch,
        series: NDArray[np.int64],
        step: NDArray[np.int64],
        value: NDArray[np.float64] | None,
    ) -> None:
        """Note a span for each slot of each series that has none."""
        if not self._wanted or len(self._noted) >= _NOTED * self._wanted:
            return
        cells, firsts = np.unique(series * self._slots + step * self._slots // self._steps, return_index=True)
        for cell, at in zip(cells.tolist(), firsts.tolist(), strict=True):
            key = divmod(cell, self._slots)
            if key not in self._noted and len(self._noted) < _NOTED * self._wanted:
                measured = float(value[at]) if value is not None else float("nan")
                self._noted[key] = Exemplar(int(batch.times[at]), measured, *batch.ids(at), int(step[at]))

    def of(self, series: int) -> list[Exemplar]:
        """Return a series' exemplars, oldest first. Nothing can be added any more."""
        if self._chosen is None:
            noted = sorted(self._noted.items())
            stride = max(1, -(-len(noted) // max(1, self._wanted)))
            self._chosen = {}
            for (number, _), one in noted[::stride]:
                self._chosen.setdefault(number, []).append(one)
        return self._chosen.get(series, [])
