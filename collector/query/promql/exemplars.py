"""Exemplars: single measurements that data points carry, with the span in which each was made, as Prometheus would have them.

An exemplar belongs to its point's series; of a histogram to the `_bucket` series with the smallest `le` that is at least
its value, so that one without an order (NaN) belongs to none. Its labels are `trace_id` and `span_id` in hex and, unless all
would be longer than OpenMetrics allows, its filtered attributes: what OpenTelemetry's specification "Prometheus and
OpenMetrics Compatibility" says, but that it knows none of gauges.

SDKs repeat exemplars in the later points of a cumulative metric. They count once, of a histogram whose buckets have changed
since in the bucket of the newest point. One without a time has its point's.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from collector.otlp import records
from collector.otlp.block import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, SUM, SUMMARY
from collector.query.groups import groups_of
from collector.query.promql.hints import hints_of
from collector.query.promql.series import apart, family_of, float_text, matcher_of, metrics_of
from collector.query.promql.translate import Labels, attribute_labels, bucket_bounds, group_labels, sorted_labels
from collector.query.slices import END_OF_TIME, slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.query.promql.ast import Matcher
    from collector.query.promql.translate import Family
    from collector.store import View

EXEMPLARS_MAX: Final = 10_000
"""Exemplars of one answer: the newest."""
CHARACTERS_MAX: Final = 128
"""Characters of an exemplar's label names and values, as OpenMetrics has it; filtered attributes beyond are left out."""
LAG_NS: Final = 300 * 10**9
"""How much later than an exemplar its point may be, by when an SDK has exported it."""

_TAGS: Final = {GAUGE: 5 << 3 | 2, SUM: 5 << 3 | 2, HISTOGRAM: 8 << 3 | 2, EXPONENTIAL_HISTOGRAM: 11 << 3 | 2}
"""How the field `exemplars` begins in the points that have it, by the `type` column."""

_Key = tuple[int, Labels, Labels, str]
"""What makes exemplars the same: time in ms, labels of the series but `le`, own labels, and value."""
_Place = tuple[int, int]
"""A point's time and offset."""


class Exemplar(NamedTuple):
    """One exemplar: its time in Unix ms, its labels, and its value as Prometheus writes it."""

    time: int
    labels: Labels
    value: str


class Found(NamedTuple):
    """Exemplars by series, both in their order, and whether there are older ones beside them, or may be."""

    series: list[tuple[Labels, list[Exemplar]]]
    left_out: bool


def select(deadline: Deadline, view: View, selectors: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int) -> Found:
    """Return the exemplars with a time in [start_ms, end_ms] of every series that one of the selectors matches.

    They are looked for in points from `start_ms` to `LAG_NS` behind `end_ms`. Of more than EXEMPLARS_MAX the newest are
    returned.
    """
    newest = _Newest(EXEMPLARS_MAX)
    start_ns = max(0, start_ms * 1_000_000)
    end_ns = min(END_OF_TIME, (end_ms + 1) * 1_000_000 - 1 + LAG_NS)
    if not selectors or end_ms < 0 or end_ns < start_ns:
        return newest.found()
    finder = _Finder(selectors, start_ms, end_ms, newest)
    for block, rows in slices(view, start_ns, end_ns, deadline, wanted=newest.wants, hints=hints_of(selectors)):
        finder.add(deadline, block, rows)
    return newest.found()


def exemplar_labels(exemplar: Any) -> Labels:
    """Return an exemplar's labels; ids of zeros are none."""
    ids = {
        name: raw.hex() for name, raw in (("trace_id", exemplar.trace_id), ("span_id", exemplar.span_id)) if any(raw)
    }
    labels = attribute_labels(exemplar.filtered_attributes) | ids
    if sum(len(name) + len(text) for name, text in labels.items()) > CHARACTERS_MAX:
        labels = ids
    return tuple(sorted((name, text) for name, text in labels.items() if text))


def exemplar_value(exemplar: Any) -> float:
    """Return what was measured."""
    return float(getattr(exemplar, exemplar.WhichOneof("value") or "as_double"))


def placed(point: Any, kind: int) -> Iterator[tuple[str, Any]]:
    """Yield the exemplars of a point, each with the `le` of its bucket, which is empty if the point is no histogram."""
    if kind not in (HISTOGRAM, EXPONENTIAL_HISTOGRAM):
        for one in point.exemplars if kind != SUMMARY else ():
            yield "", one
        return
    if not point.exemplars:
        return
    bounds = sorted(bound for bound in bucket_bounds(point, kind)[0] if not math.isinf(bound))
    for one in point.exemplars:
        value = exemplar_value(one)
        if not math.isnan(value):
            place = bisect_left(bounds, value)
            yield float_text(bounds[place]) if place < len(bounds) else "+Inf", one


class _Newest:
    """Keeps the newest exemplars of those that come, each once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[_Key, tuple[_Place, Labels]] = {}
        self._oldest: list[_Key] = []
        """What is held, as a heap."""
        self._left_out = False

    def wants(self, oldest_ns: int, newest_ns: int) -> bool:
        """Tell whether points of this time can have exemplars that are new enough; none is later than its point."""
        if len(self._held) < self._most or newest_ns // 1_000_000 >= self._oldest[0][0]:
            return True
        self._left_out = True
        return False

    def add(self, key: _Key, place: _Place, labels: Labels) -> None:
        """Take an exemplar of the series with these labels."""
        known = self._held.get(key)
        if known is not None:
            if place > known[0]:
                self._held[key] = (place, labels)
            return
        if len(self._held) < self._most:
            heapq.heappush(self._oldest, key)
        else:
            self._left_out = True
            gone = heapq.heappushpop(self._oldest, key)
            if gone == key:
                return
            del self._held[gone]
        self._held[key] = (place, labels)

    def found(self) -> Found:
        """Return what is held."""
        series: dict[Labels, list[Exemplar]] = {}
        for key in sorted(self._held):
            time, _, labels, value = key
            series.setdefault(self._held[key][1], []).append(Exemplar(time, labels, value))
        return Found(sorted(series.items()), self._left_out)


class _Finder:
    """Finds the exemplars of matching series, block by block."""

    def __init__(self, selectors: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int, newest: _Newest) -> None:
        self._tests = [matcher_of(matchers) for matchers in selectors]
        self._name_tests = [matcher_of([one for one in matchers if one.name == "__name__"]) for matchers in selectors]
        self._point_tests = [matcher_of([one for one in matchers if one.name != "le"]) for matchers in selectors]
        self._start = start_ms
        self._end = end_ms
        self._newest = newest

    def add(self, deadline: Deadline, block: Block, rows: NDArray[np.intp]) -> None:
        """Take the exemplars of a block's points; `rows` ascend."""
        groups, places = groups_of(block, rows)
        variants, firsts = metrics_of(block, groups)
        names = [_series_name(family_of(block, group)) for group in groups[firsts].tolist()]
        wanted = np.array([bool(name) and _any(self._name_tests, (("__name__", name),)) for name in names])
        own = variants[places]
        chosen = np.flatnonzero(wanted[own])
        chosen = chosen[_may_have_exemplars(block, rows[chosen])]
        rows, own = rows[chosen], own[chosen]
        for series in apart(block, rows, own):
            self._add_series(deadline, block, rows[series].tolist(), names[int(own[series[0]])])

    def _add_series(self, deadline: Deadline, block: Block, rows: list[int], name: str) -> None:
        """Take the exemplars of points that differ in time and values only."""
        kind = block.records.number("type", rows[0])
        common = attribute_labels(records.record(block, rows[0]).attributes)
        common |= group_labels(block, block.records.number("group", rows[0]))
        base = sorted_labels(name, common)
        if not _any(self._point_tests, base):
            return
        found: dict[str, Labels] = {}
        for row in rows:
            deadline.check()
            point = records.record(block, row)
            place = (point.time_unix_nano, block.base_offset + row)
            for le, one in placed(point, kind):
                if le not in found:
                    labels = sorted_labels(name, common | {"le": le}) if le else base
                    found[le] = labels if _any(self._tests, labels) else ()
                time = (one.time_unix_nano or point.time_unix_nano) // 1_000_000
                if found[le] and self._start <= time <= self._end:
                    key = (time, base, exemplar_labels(one), float_text(exemplar_value(one)))
                    self._newest.add(key, place, found[le])


def _series_name(family: Family) -> str:
    """Return the name of the series of a family that have exemplars; empty when none have."""
    if not family.name or family.type == "summary":
        return ""
    return f"{family.name}_bucket" if family.type == "histogram" else family.name


def _any(tests: list[Callable[[Labels], bool]], labels: Labels) -> bool:
    return any(test(labels) for test in tests)


def _may_have_exemplars(block: Block, rows: NDArray[np.intp]) -> list[int]:
    """Return the places of points in which the tag of their exemplars stands; the others have none.

    A tag is a varint, which may be written longer than need be: its first byte has the high bit then.
    """
    find = block.payload.find
    starts = block.column("start")[rows].tolist()
    lengths = block.column("length")[rows].tolist()
    tags = [_TAGS[kind] for kind in block.column("type")[rows].tolist()]
    forms = {tag: (bytes((tag,)), bytes((tag | 0x80,))) for tag in set(tags)}
    return [
        place
        for place, (start, length, tag) in enumerate(zip(starts, lengths, tags, strict=True))
        if any(find(form, start, start + length) >= 0 for form in forms[tag])
    ]
