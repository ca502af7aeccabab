"""The catalogue: which series there are in a time range, without their samples, and what is known of their metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import numpy as np

from collector.errors import QueryLimit
from collector.otlp import records
from collector.otlp.block import EXPONENTIAL_HISTOGRAM, HISTOGRAM, SUMMARY
from collector.query.promql.hints import hints_of
from collector.query.promql.series import SERIES_MAX, family_of, matcher_of, samples_of
from collector.query.promql.translate import Labels, attribute_labels, group_labels, sorted_labels, target_info
from collector.query.slices import END_OF_TIME, slices

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.query.promql.ast import Matcher
    from collector.store import View


@dataclass(slots=True)
class Catalogue:
    """Label sets, and by family name {type, help, unit} of the newest point."""

    series: set[Labels] = field(default_factory=set)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)


class Source(Protocol):
    """Series that are no points of the store."""

    def known(self, start_ms: int, end_ms: int) -> Iterator[tuple[str, dict[str, str], Labels]]:
        """Yield family name, {type, help, unit} and labels of every series with a value in [start_ms, end_ms]."""
        ...


def collect(
    deadline: Deadline,
    view: View,
    selectors: Sequence[Sequence[Matcher]],
    start_ms: int,
    end_ms: int,
    more: Sequence[Source] = (),
) -> Catalogue:
    """Collect every series with a point in [start_ms, end_ms] that one of the selectors matches; all without one.

    `more` are further sources. Raises QueryLimit beyond SERIES_MAX series.
    """
    tests = [matcher_of(matchers) for matchers in selectors]
    found = Catalogue()
    known: set[tuple[int, int]] = set()
    start_ns = max(0, start_ms * 1_000_000)
    end_ns = min(END_OF_TIME, (end_ms + 1) * 1_000_000 - 1)
    received = (
        labels
        for block, rows in slices(view, start_ns, max(0, end_ns), deadline, hints=hints_of(selectors))
        for labels in _labels(block, rows, known, found)
    )
    for labels in chain(received, *(_known(source, start_ms, end_ms, found) for source in more)):
        if tests and not any(test(labels) for test in tests):
            continue
        found.series.add(labels)
        if len(found.series) > SERIES_MAX:
            raise QueryLimit(f"there are more than {SERIES_MAX} series")
    return found


def _known(source: Source, start_ms: int, end_ms: int, found: Catalogue) -> Iterator[Labels]:
    for name, metadata, labels in source.known(start_ms, end_ms):
        found.metadata.setdefault(name, metadata)
        yield labels


def _labels(block: Block, rows: NDArray[np.intp], known: set[tuple[int, int]], found: Catalogue) -> Iterator[Labels]:
    """Yield the label sets of a block's series that were not seen before."""
    keys, kinds = block.column("series")[rows], block.column("type")[rows]
    _, firsts = np.unique(keys, return_index=True)
    for first in firsts.tolist():
        row, kind = int(rows[first]), int(kinds[first])
        key = (int(keys[first]), kind)
        if key in known:
            continue
        known.add(key)
        group = int(block.column("group")[row])
        family = family_of(block, group)
        if not family.name:
            continue
        if family.name not in found.metadata:
            metric = records.metric(block, group)
            found.metadata[family.name] = {"type": family.type, "help": metric.description, "unit": metric.unit}
        point = records.record(block, row)
        labels = attribute_labels(point.attributes) | group_labels(block, group)
        if kind in (HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY):
            for name, extra, _ in samples_of(point, kind, family):
                yield sorted_labels(name, labels | extra)
        else:
            yield sorted_labels(family.name, labels)
        info = target_info(records.resource(block, group))
        if info:
            yield info
