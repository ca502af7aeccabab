"""Series: the points of ring and log as Prometheus would have stored them.

A point belongs to the series that its labels name. Within a block, points are told apart by the `series` column,
a key of everything that the client wrote around the value; labels are decoded once for each key. Samples are in
order of time; of two with the same millisecond the newer offset counts.

Cumulative sums and histograms stay as they are. Delta ones are added up, from the oldest point that ring and log
still hold, or of a backend from `DELTA_REACH_NS` before the query: rates are right, absolute values begin there. Points flagged NO_RECORDED_VALUE end their series (stale).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from collector.errors import QueryLimit
from collector.otlp import records
from collector.otlp.block import EXPONENTIAL_HISTOGRAM, HISTOGRAM, NO_RECORDED_VALUE, SUMMARY, Block
from collector.query.deadline import Deadline
from collector.query.groups import alike, groups_of
from collector.query.promql.hints import hints_of
from collector.query.promql.translate import (
    Family,
    Labels,
    attribute_labels,
    bucket_bounds,
    family,
    group_labels,
    sorted_labels,
    target_info,
)
from collector.query.regex import compile_regex
from collector.query.slices import END_OF_TIME, slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from collector.query.promql.ast import Matcher
    from collector.store import View

SERIES_MAX = 50_000
"""Series that one selector may find."""
SAMPLES_MAX = 5_000_000
"""Samples that one selector may find."""
DELTA_REACH_NS = 86_400 * 10**9
"""How long before a query's range the points of a backend are added up, ns: a day."""

STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""Prometheus' stale marker: a NaN with its own bits."""
_STALE_BITS = np.uint64(0x7FF0000000000002)


@dataclass(slots=True)
class Series:
    """One series: `times` in ms, ascending, and `values`."""

    labels: Labels
    times: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(slots=True)
class _Samples:
    delta: bool
    times: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def is_stale(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell stale markers from values and from ordinary NaNs."""
    stale: NDArray[np.bool_] = np.ascontiguousarray(values).view(np.uint64) == _STALE_BITS
    return stale


def matcher_of(matchers: Sequence[Matcher]) -> Callable[[Labels], bool]:
    """Return a test of labels against matchers; an absent label is an empty one."""
    tests: list[tuple[str, Callable[[str], bool]]] = []
    for one in matchers:
        if one.op in ("=~", "!~"):
            pattern, wanted = compile_regex(one.value, any_character=True), one.op == "=~"
            verdicts: dict[str, bool] = {}

            def by_regex(
                text: str, pattern: Any = pattern, wanted: bool = wanted, verdicts: dict[str, bool] = verdicts
            ) -> bool:
                if text not in verdicts:
                    verdicts[text] = (pattern.fullmatch(text) is not None) == wanted
                return verdicts[text]

            tests.append((one.name, by_regex))
        elif one.op == "=":
            tests.append((one.name, one.value.__eq__))
        else:
            tests.append((one.name, one.value.__ne__))

    def matches(labels: Labels) -> bool:
        found = dict(labels)
        return all(test(found.get(name, "")) for name, test in tests)

    return matches


class Source(Protocol):
    """Series that are no points of the store."""

    def select(self, deadline: Deadline, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Series]:
        """Return every series that matches, with its samples in (start_ms, end_ms], as `select` below does."""
        ...


def select(
    deadline: Deadline,
    view: View,
    matchers: Sequence[Matcher],
    start_ms: int,
    end_ms: int,
    more: Sequence[Source] = (),
) -> list[Series]:
    """Return every series that matches, with its samples in (start_ms, end_ms], ordered by labels.

    `more` are further sources; of series with the same labels the received one counts. Delta series are added up over
    all that is held before `end_ms`. Raises QueryLimit beyond SERIES_MAX or SAMPLES_MAX.
    """
    found = _received(deadline, view, matchers, start_ms, end_ms)
    others = [one for source in more for one in source.select(deadline, matchers, start_ms, end_ms)]
    if others:
        found = list(({one.labels: one for one in others} | {one.labels: one for one in found}).values())
        found.sort(key=lambda one: one.labels)
    return found


def _received(deadline: Deadline, view: View, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Series]:
    end_ns = min(END_OF_TIME, (end_ms + 1) * 1_000_000 - 1)
    start_ns = max(0, (start_ms + 1) * 1_000_000)
    if end_ns < start_ns:
        return []
    for since, behind in ((start_ns, start_ns), (0, max(0, start_ns - DELTA_REACH_NS))):
        collector = Collector(matchers)
        for block, rows in slices(view, since, end_ns, deadline, hints=hints_of([matchers], behind)):
            collector.add(block, rows)
        if since == 0 or not collector.has_delta:
            return collector.series(start_ms)
    raise AssertionError("the second pass has all history")


class Collector:
    """Gathers the samples of matching series, block by block."""

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        self._matches = matcher_of(matchers)
        self._names = [one for one in matchers if one.name == "__name__"]
        self._name_matches = matcher_of(self._names)
        self._found: dict[Labels, _Samples] = {}
        self._count = 0
        self.has_delta = False
        """A matching series is to be added up, which takes all its history."""

    def _wanted(self, name: str) -> bool:
        return self._name_matches((("__name__", name),))

    def add(self, block: Block, rows: NDArray[np.intp]) -> None:
        """Take the matching points of a block; `rows` ascend."""
        groups, places = groups_of(block, rows)
        variants, firsts = metrics_of(block, groups)
        families = [family_of(block, group) for group in groups[firsts].tolist()]
        wanted = [bool(found.name) and any(map(self._wanted, found.sample_names())) for found in families]
        if any(wanted):
            own = variants[places]
            chosen = np.array(wanted)[own]
            self._add_families(block, rows[chosen], own[chosen], families)
        if self._wanted("target_info"):
            self._add_targets(block, rows, groups, places)

    def _add_targets(
        self, block: Block, rows: NDArray[np.intp], groups: NDArray[Any], places: NDArray[np.intp]
    ) -> None:
        """A resource's `target_info` is 1 whenever one of its points comes."""
        times = block.column("time")[rows] // 1_000_000
        codes, firsts = alike(block, groups, "resource")
        for code, group in enumerate(groups[firsts].tolist()):
            labels = target_info(records.resource(block, group))
            if labels and self._matches(labels):
                for time in np.unique(times[codes[places] == code]).tolist():
                    self._sample(labels, False, time, 0, 1.0)

    def _add_families(
        self, block: Block, rows: NDArray[np.intp], variants: NDArray[np.intp], families: list[Family]
    ) -> None:
        """Take points, of each of which `variants` says the family, series by series."""
        previous, common = -1, {}
        for own in apart(block, rows, variants):
            variant = int(variants[own[0]])
            if variant != previous:
                previous, common = variant, group_labels(block, int(block.column("group")[rows[own[0]]]))
            self._add_series(block, rows[own], families[variant], common)

    def _add_series(self, block: Block, rows: NDArray[np.intp], found: Family, common: dict[str, str]) -> None:
        kind = int(block.column("type")[rows[0]])
        labels = attribute_labels(records.record(block, int(rows[0])).attributes) | common
        if kind in (HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY):
            for row in rows.tolist():
                self._add_distribution(block, row, kind, found, labels)
        else:
            self._add_numbers(block, rows, sorted_labels(found.name, labels), found.delta)

    def _add_numbers(self, block: Block, rows: NDArray[np.intp], labels: Labels, delta: bool) -> None:
        if not self._matches(labels):
            return
        times = (block.column("time")[rows] // 1_000_000).tolist()
        flags = block.column("flags")[rows].tolist()
        values = block.column("value")[rows].tolist()
        for time, flag, value, row in zip(times, flags, values, rows.tolist(), strict=True):
            kept = STALE if flag & NO_RECORDED_VALUE else value
            self._sample(labels, delta, time, block.base_offset + row, kept)

    def _add_distribution(self, block: Block, row: int, kind: int, found: Family, labels: dict[str, str]) -> None:
        point = records.record(block, row)
        time, offset = point.time_unix_nano // 1_000_000, block.base_offset + row
        stale = bool(point.flags & NO_RECORDED_VALUE)
        for name, extra, value in samples_of(point, kind, found):
            full = sorted_labels(name, labels | extra)
            if self._matches(full):
                self._sample(full, found.delta, time, offset, STALE if stale else value)

    def _sample(self, labels: Labels, delta: bool, time: int, offset: int, value: float) -> None:
        samples = self._found.get(labels)
        if samples is None:
            if len(self._found) >= SERIES_MAX:
                raise QueryLimit(f"the selector finds more than {SERIES_MAX} series")
            samples = self._found[labels] = _Samples(delta)
            self.has_delta |= delta
        self._count += 1
        if self._count > SAMPLES_MAX:
            raise QueryLimit(f"the selector finds more than {SAMPLES_MAX} samples")
        samples.times.append(time)
        samples.offsets.append(offset)
        samples.values.append(value)

    def series(self, start_ms: int) -> list[Series]:
        """Return what was found, with samples after `start_ms`, ordered by labels."""
        made = []
        for labels in sorted(self._found):
            samples = self._found[labels]
            times = np.array(samples.times, np.int64)
            values = np.array(samples.values, np.float64)
            order = np.lexsort((np.array(samples.offsets, np.int64), times))
            times, values = times[order], values[order]
            if samples.delta:
                stale = is_stale(values)
                values = np.where(stale, values, np.cumsum(np.where(stale, 0.0, values)))
            last = np.append(times[1:] != times[:-1], True)  # of equal times, the newest offset
            keep = last & (times > start_ms)
            if keep.any():
                made.append(Series(labels, times[keep], values[keep]))
        return made


def metrics_of(block: Block, groups: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Tell the metrics of targets apart: a code for each group, and for each code the place of its first group."""
    codes, firsts = alike(block, groups, "resource", "scope", "name", "unit")
    kinds = block.column("type")[np.searchsorted(block.column("group"), groups)].astype(np.intp)
    kinds |= block.group_column("temporality")[groups].astype(np.intp) << 8
    kinds |= block.group_column("monotonic")[groups].astype(np.intp) << 16
    if (kinds == kinds[firsts][codes]).all():
        return codes, firsts
    _, firsts, codes = np.unique(codes << 24 | kinds, return_index=True, return_inverse=True)
    return codes, firsts


def apart(block: Block, rows: NDArray[np.intp], variants: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Tell points apart by their series: return, for each one, the places of its points in `rows`, in their order.

    `variants` has a code of the metric for each point (`metrics_of`); series of one metric follow each other.
    """
    if not rows.size:
        return []
    keys = block.column("series")[rows]
    order = np.lexsort((keys, variants))  # rows of one series stay in their order
    keys, variants = keys[order], variants[order]
    return np.split(order, np.flatnonzero((keys[1:] != keys[:-1]) | (variants[1:] != variants[:-1])) + 1)


def samples_of(point: object, kind: int, found: Family) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield (name, extra labels, value) of every sample that a histogram or summary point is."""
    count, total = float(point.count), float(point.sum)  # type: ignore[attr-defined]  # one of three messages
    if kind == SUMMARY:
        for quantile in point.quantile_values:  # type: ignore[attr-defined]  # as above
            yield found.name, {"quantile": float_text(quantile.quantile)}, quantile.value
    else:
        bounds, counts = bucket_bounds(point, kind)
        for bound, below in zip(bounds, counts, strict=True):
            if not math.isinf(bound):
                yield f"{found.name}_bucket", {"le": float_text(bound)}, float(below)
        yield f"{found.name}_bucket", {"le": "+Inf"}, count
    if kind == SUMMARY or point.HasField("sum"):  # type: ignore[attr-defined]  # as above
        yield f"{found.name}_sum", {}, total
    yield f"{found.name}_count", {}, count


def family_of(block: Block, group: int) -> Family:
    """Return the Prometheus family of a group's metric."""
    name = records.group_bytes(block, group, "name").decode()
    unit = records.group_bytes(block, group, "unit").decode()
    row = int(np.searchsorted(block.column("group"), group))  # groups ascend with rows
    kind = int(block.column("type")[row])
    temporality = int(block.group_column("temporality")[group])
    return family(name, unit, kind, temporality, bool(block.group_column("monotonic")[group]))


def float_text(value: float) -> str:
    """Write a float as Prometheus does: shortest, +Inf, NaN."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if exponent:
        number = int(exponent)
        if number < 0:
            return f"{mantissa}e-{abs(number):02d}"
        return f"{mantissa}e+{number:02d}"
    return text
