"""Which data points a series selector means: what is deleted by one.

A point is one sample, or, of a histogram or summary, several with names of their own (`_bucket`, `_sum`, `_count`). Those
cannot be taken apart, so a point is meant when its family's name or any of these names is, with labels that all of its
samples have; `le` and `quantile`, which tell samples of one point apart, are refused. `target_info` is no point's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from collector.errors import InvalidQuery
from collector.otlp import records
from collector.query.groups import groups_of
from collector.query.promql.parser import parse_selector
from collector.query.promql.series import apart, family_of, matcher_of, metrics_of
from collector.query.promql.translate import attribute_labels, group_labels, sorted_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.query.promql.ast import Matcher
    from collector.query.promql.translate import Family
    from collector.query.slices import Slice
    from collector.store import View

_OF_SAMPLES: Final = ("le", "quantile")


def points(query: str) -> tuple[PointFilter, None]:
    """Return what finds the points that a series selector means. Raises InvalidQuery for anything but one."""
    matchers = parse_selector(query).matchers
    for one in matchers:
        if one.name in _OF_SAMPLES:
            raise InvalidQuery(f"{one.name} tells samples of one data point apart, and points are whole: leave it out")
    return PointFilter(matchers), None


class PointFilter:
    """What finds the points that matchers mean."""

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        self._matches = matcher_of(matchers)
        self._name_matches = matcher_of([one for one in matchers if one.name == "__name__"])

    def __call__(self, piece: Slice, view: View, deadline: Deadline) -> NDArray[np.intp]:
        """Return the rows that match."""
        block, rows = piece.block, piece.rows
        groups, places = groups_of(block, rows)
        variants, firsts = metrics_of(block, groups)
        names = [self._names(family_of(block, group)) for group in groups[firsts].tolist()]
        own = variants[places]
        meant = np.flatnonzero(np.array([bool(one) for one in names])[own])
        chosen, own = rows[meant], own[meant]
        found = [
            chosen[series]
            for series in apart(block, chosen, own)
            if self._means(block, int(chosen[series[0]]), names[int(own[series[0]])])
        ]
        return np.sort(np.concatenate(found)) if found else rows[:0]

    def _names(self, family: Family) -> list[str]:
        """Return the names of a family's that are meant."""
        names = dict.fromkeys((family.name, *family.sample_names())) if family.name else ()
        return [name for name in names if self._name_matches((("__name__", name),))]

    def _means(self, block: Block, row: int, names: Sequence[str]) -> bool:
        labels = attribute_labels(records.record(block, row).attributes)
        labels |= group_labels(block, int(block.column("group")[row]))
        return any(self._matches(sorted_labels(name, labels)) for name in names)
