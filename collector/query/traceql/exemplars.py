"""Exemplars: single spans that a series was made of, spread over its time, to go on from a figure to a trace.

A series has at most one for each of the slots that the range is cut into. Of what all series have together, the answer
returns so many as were asked for, evenly chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def firsts(cells: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the distinct numbers, ascending, each with its first place. There is one at least, and none is negative."""
    bound = int(cells.max()) + 1
    if bound > 4 * len(cells) + 65_536:
        found, places = np.unique(cells, return_index=True)
    else:
        first = np.full(bound, -1, np.int64)
        first[cells[::-1]] = np.arange(len(cells) - 1, -1, -1)
        found = np.flatnonzero(first >= 0)
        places = first[found]
    return zip(found.tolist(), places.tolist(), strict=True)


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
        slot = step if self._slots == self._steps else step * self._slots // self._steps
        times = batch.times
        for cell, at in firsts(series * self._slots + slot):
            key = divmod(cell, self._slots)
            if key not in self._noted and len(self._noted) < _NOTED * self._wanted:
                measured = float(value[at]) if value is not None else float("nan")
                self._noted[key] = Exemplar(int(times[at]), measured, *batch.ids(at), int(step[at]))

    def of(self, series: int) -> list[Exemplar]:
        """Return a series' exemplars, oldest first. Nothing can be added any more."""
        if self._chosen is None:
            noted = sorted(self._noted.items())
            stride = max(1, -(-len(noted) // max(1, self._wanted)))
            self._chosen = {}
            for (number, _), one in noted[::stride]:
                self._chosen.setdefault(number, []).append(one)
        return self._chosen.get(series, [])
