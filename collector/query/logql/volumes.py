"""Volumes: how many bytes of lines there are by stream or by label, over a range or over its intervals.

What Loki's `index/volume` (one interval) and `index/volume_range` (many) answer, and Grafana's label browser and Logs
Drilldown ask. By *series*, streams are told apart by some of their index labels: by the targets, or else by the labels
that the selector names, or else by all. By *labels*, each label counts for itself, whatever its value: the targets, or
else all. Only streams count that have all targets, but for those that the selector has matchers for.

Loki estimates from its index, by whole chunks; here the bytes of lines are counted exactly: of lines with
begin <= time < end of an interval, the last one's end included. Cost: no record is decoded, but for bodies that are
not texts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from collector.errors import QueryLimit
from collector.query.logql import ast
from collector.query.logql.source import Selection
from collector.query.logql.streams import StreamLines, stream_lines
from collector.query.logql.tallies import Grid
from collector.query.logql.vectors import CELLS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.store import View

Labels = tuple[tuple[str, str], ...]

SERIES_MAX: Final = 1000
"""Series, or labels, that volumes are counted by: Loki's default of volume_max_series."""
INTERVALS_MAX: Final = 11_000
"""Intervals of one request."""
LIMIT_DEFAULT: Final = 100
"""How many of the largest volumes there are in each interval of an answer, unless the request says."""
_GAP_NS: Final = 1_000_000  # by which Loki has an interval end before the next begins


class Volume(NamedTuple):
    """The volumes of one series, or of one label."""

    labels: Labels
    """The series' labels; of a label its name, with an empty value."""
    samples: tuple[tuple[int, int], ...]
    """(Unix ns, bytes) for each interval in which it is one of the largest. The time is the interval's end."""


def intervals(start_ns: int, end_ns: int, step_ns: int) -> list[tuple[int, int]]:
    """Cut a range at multiples of the step, as Loki does: the first begins at the start, the last ends at the end.

    A step of 0 makes one interval. Raises QueryLimit over INTERVALS_MAX.
    """
    if step_ns <= 0 or end_ns <= start_ns:
        return [(start_ns, end_ns)]
    first = start_ns // step_ns * step_ns + step_ns
    if (end_ns - first) // step_ns >= INTERVALS_MAX - 1:
        raise QueryLimit(f"the range has more than {INTERVALS_MAX} intervals: take a larger step")
    edges = [start_ns, *range(first, end_ns, step_ns), end_ns]
    return list(pairwise(edges))


def volumes(
    deadline: Deadline,
    view: View,
    selector: ast.Selector,
    start_ns: int,
    end_ns: int,
    step_ns: int = 0,
    targets: Sequence[str] = (),
    *,
    by_labels: bool = False,
    limit: int = LIMIT_DEFAULT,
) -> list[Volume]:
    """Return the volumes of the streams that a selector selects (`{}`: all), the largest first.

    With a step there is a sample for each interval (`intervals`), and each interval has its own `limit` largest; series
    are in the order of their first samples, equal ones by their labels. Raises QueryLimit over SERIES_MAX.
    """
    cuts = intervals(start_ns, end_ns, step_ns)
    begins = np.array([begin for begin, _ in cuts], np.uint64)
    counted = _Counted(selector, targets, len(cuts), by_labels=by_labels)
    for lines in stream_lines(deadline, view, counted.selection, start_ns, end_ns, sizes=True):
        counted.add(lines, np.searchsorted(begins, lines.times, "right") - 1)
    ends = [end - _GAP_NS for _, end in cuts[:-1]] + [cuts[-1][1]]
    return counted.largest(ends, limit)


class _Counted:
    """Bytes by series or label, and interval."""

    def __init__(self, selector: ast.Selector, targets: Sequence[str], count: int, *, by_labels: bool) -> None:
        named = {matcher.label for matcher in selector.matchers}
        present = [ast.Matcher(name, "=~", ".+") for name in sorted(set(targets) - named)]
        self.selection = Selection(ast.Selector((*selector.matchers, *present)))
        self._by_labels = by_labels
        self._names: frozenset[str] | None = frozenset(targets or (() if by_labels else named)) or None
        self._bytes = Grid(count, 0, np.int64)
        self._count = count
        self._rows: dict[Labels, int] = {}

    def add(self, lines: StreamLines, places: NDArray[np.intp]) -> None:
        """Count lines, each with the place of its interval. Raises QueryLimit."""
        used = [(number, sorted(lines.streams[number].stream.items())) for number in lines.used()]
        tables: dict[str, NDArray[np.intp]] = {}  # of each label, or of all together: a row for each stream, or -1
        for number, stream in used:
            labels = tuple(pair for pair in stream if self._names is None or pair[0] in self._names)
            for key in [((name, ""),) for name, _ in labels] if self._by_labels else [labels]:
                name = key[0][0] if self._by_labels else ""
                if name not in tables:
                    tables[name] = np.full(len(lines.streams), -1, np.intp)
                tables[name][number] = self._row(key)
        room = self._bytes.room(len(self._rows))
        for table in tables.values():
            rows = table[lines.codes]
            there = rows >= 0
            np.add.at(room, rows[there] * self._count + places[there], lines.sizes[there])

    def _row(self, key: Labels) -> int:
        row = self._rows.get(key)
        if row is None:
            row = len(self._rows)
            if row >= SERIES_MAX:
                raise QueryLimit(
                    f"the query hit the max number of series limit (limit: {SERIES_MAX} series); "
                    "name fewer labels, or select fewer streams"
                )
            if (row + 1) * self._count > CELLS_MAX:
                raise QueryLimit(f"the volumes have more than {CELLS_MAX} samples; take a larger step")
            self._rows[key] = row
        return row

    def largest(self, times: list[int], limit: int) -> list[Volume]:
        """Return what there is, the `limit` largest of each interval."""
        keys = sorted(self._rows)
        if not keys:
            return []
        matrix = self._bytes.rows(range(len(keys)))[[self._rows[key] for key in keys]]
        places = np.empty_like(matrix)
        np.put_along_axis(
            places, np.argsort(-matrix, axis=0, kind="stable"), np.arange(len(keys))[:, np.newaxis], axis=0
        )
        chosen = (places < limit) & (matrix > 0)
        found = []
        for key, row, mask in zip(keys, matrix.tolist(), chosen.tolist(), strict=True):
            samples = [(time, size) for time, size, there in zip(times, row, mask, strict=True) if there]
            if samples:
                found.append(Volume(key, tuple(samples)))
        return sorted(found, key=lambda volume: (-volume.samples[0][1], volume.labels))
