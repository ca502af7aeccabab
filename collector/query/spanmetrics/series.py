"""Span metrics as Prometheus' series: for PromQL, its catalogue, and a scrape.

A table of counters (calls, edges) gives several metrics, each out of some columns of the table: a counter is the sum of
its columns, a histogram's buckets are their running sums. Values stand at ticks, and at the moment of the query, so
that what was just received counts at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from collector.errors import QueryLimit
from collector.query.promql.series import SAMPLES_MAX, SERIES_MAX, Series, float_text, matcher_of
from collector.query.promql.translate import Labels, sorted_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.promql.ast import Matcher
    from collector.query.spanmetrics.history import Life, Moment


class Sample(NamedTuple):
    """One series of a metric: its name, the `le` label if it is a bucket, and what it shows."""

    name: str
    le: str
    column: int
    """The running sum of the metric's columns up to this one, or `SUM`."""


SUM = -1
"""Shows the sum of the seconds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric out of the columns `begin` to `end` of a table; a histogram's `total` is a column of sums."""

    name: str
    help: str
    begin: int
    end: int
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, in seconds, without the last one; empty for a counter."""
    total: int = 0
    samples: tuple[Sample, ...] = field(init=False)

    def __post_init__(self) -> None:
        last = self.end - self.begin - 1
        made = [Sample(self.name, "", last)]
        if self.bounds:
            bounds = [*map(float_text, self.bounds), "+Inf"]
            made = [Sample(f"{self.name}_bucket", bound, column) for column, bound in enumerate(bounds)]
            made += [Sample(f"{self.name}_sum", "", SUM), Sample(f"{self.name}_count", "", last)]
        object.__setattr__(self, "samples", tuple(made))

    @property
    def type(self) -> str:
        """Prometheus' type."""
        return "histogram" if self.bounds else "counter"


@dataclass(frozen=True, slots=True)
class Table:
    """What a table of counters has: metrics, bucket bounds as (first in ns, how many), and how wide its rows are."""

    bounds: tuple[int, int]
    width: int
    sums: int
    metrics: tuple[Metric, ...]


def _seconds(bounds: tuple[int, int]) -> tuple[float, ...]:
    first, count = bounds
    return tuple(first * 2**exponent / 10**9 for exponent in range(count))


_CALL_BOUNDS = (2_000_000, 14)
_EDGE_BOUNDS = (100_000_000, 8)

CALLS = Table(
    _CALL_BOUNDS,
    15,
    1,
    (
        Metric("traces_spanmetrics_calls_total", "Spans received.", 0, 15),
        Metric("traces_spanmetrics_latency", "Durations of spans received, in seconds.", 0, 15, _seconds(_CALL_BOUNDS)),
    ),
)
"""Tempo's span metrics, with its default buckets: 2 ms to 16.384 s."""

EDGES = Table(
    _EDGE_BOUNDS,
    19,
    2,
    (
        Metric("traces_service_graph_request_total", "Requests between two services.", 1, 10),
        Metric("traces_service_graph_request_failed_total", "Requests between two services that failed.", 0, 1),
        Metric(
            "traces_service_graph_request_server_seconds",
            "Durations of requests between two services, as the server saw them.",
            1,
            10,
            _seconds(_EDGE_BOUNDS),
        ),
        Metric(
            "traces_service_graph_request_client_seconds",
            "Durations of requests between two services, as the client saw them.",
            10,
            19,
            _seconds(_EDGE_BOUNDS),
            1,
        ),
    ),
)
"""Tempo's service graph, with its default buckets: 0.1 s to 12.8 s."""


class Newest(NamedTuple):
    """A metric, and the newest value of each of its series that has not ended."""

    metric: Metric
    values: list[tuple[Labels, float]]


class SpanSeries:
    """Span metrics at one moment. For any thread; a `Source` of PromQL's series and of its catalogue."""

    def __init__(self, calls: Moment, edges: Moment) -> None:
        self._tables = ((CALLS, calls), (EDGES, edges))

    def select(self, deadline: Deadline, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Series]:
        """Return every series that matches, with its samples in (start_ms, end_ms].

        Raises QueryLimit beyond SERIES_MAX series or SAMPLES_MAX samples.
        """
        found: list[Series] = []
        names = matcher_of([one for one in matchers if one.name == "__name__"])
        outer = matcher_of([one for one in matchers if one.name not in ("__name__", "le")])
        inner = matcher_of([one for one in matchers if one.name in ("__name__", "le")])
        for table, moment in self._tables:
            for metric in table.metrics:
                if any(names((("__name__", sample.name),)) for sample in metric.samples):
                    deadline.check()
                    found += _select(moment, metric, outer, inner, start_ms, end_ms)
                    if len(found) > SERIES_MAX:
                        raise QueryLimit(f"the selector finds more than {SERIES_MAX} series")
        return found

    def known(self, start_ms: int, end_ms: int) -> Iterator[tuple[str, dict[str, str], Labels]]:
        """Yield metric, {type, help, unit} and labels of every series that has a value in [start_ms, end_ms]."""
        for table, moment in self._tables:
            for slot, life in _lives(moment):
                first = max(life.began, moment.base_time)
                if first <= end_ms and (life.ended or moment.open.time) >= start_ms and _counted(moment, slot):
                    for metric in table.metrics:
                        metadata = {"type": metric.type, "help": metric.help, "unit": ""}
                        for sample in metric.samples:
                            yield metric.name, metadata, _labels(sample, life)

    def newest(self) -> list[Newest]:
        """Return the newest values, by metric."""
        made = []
        for table, moment in self._tables:
            lives = [(slot, life) for slot, life in _lives(moment) if not life.ended and _counted(moment, slot)]
            slots = np.array([slot for slot, _ in lives], np.intp)
            for metric in table.metrics:
                columns = [sample.column for sample in metric.samples]
                _, shown = _values(moment, metric, slots, columns, moment.open.time - 1, moment.open.time)
                values = [
                    (_labels(sample, life), float(value))
                    for (_, life), row in zip(lives, shown[0].tolist(), strict=True)
                    for sample, value in zip(metric.samples, row, strict=True)
                ]
                made.append(Newest(metric, values))
        return made


def _lives(moment: Moment) -> list[tuple[int, Life]]:
    return list(moment.lives.items())


def _counted(moment: Moment, slot: int) -> bool:
    """Tell whether there is anything to show: slot 0 only exists once something was folded."""
    return (
        slot != 0
        or bool(moment.base_counts[0].any())
        or any(0 in one.slots[:1] for one in (*moment.intervals, moment.open))
    )


def _labels(sample: Sample, life: Life) -> Labels:
    return sorted_labels(sample.name, dict(life.labels) | ({"le": sample.le} if sample.le else {}))


def _select(
    moment: Moment,
    metric: Metric,
    outer: Callable[[Labels], bool],
    inner: Callable[[Labels], bool],
    start_ms: int,
    end_ms: int,
) -> list[Series]:
    """Return a metric's series whose label sets pass `outer`, and their samples' names and buckets `inner`."""
    samples = [one for one in metric.samples if inner((("__name__", one.name), ("le", one.le)))]
    chosen = [
        (_labels(sample, life), slot, life, sample)
        for slot, life in _lives(moment)
        if outer(life.labels) and _counted(moment, slot)
        for sample in samples
    ]
    if not chosen:
        return []
    slots = np.unique([slot for _, slot, _, _ in chosen])
    columns = sorted({sample.column for _, _, _, sample in chosen})
    times, shown = _values(moment, metric, slots, columns, start_ms, end_ms)
    found: dict[Labels, list[Series]] = {}
    for labels, slot, life, sample in chosen:
        lived = times >= life.began
        if life.ended:
            lived &= times <= life.ended
        if lived.any():
            values = shown[lived, np.searchsorted(slots, slot), columns.index(sample.column)]
            found.setdefault(labels, []).append(Series(labels, times[lived], values))
    return [_joined(pieces) for pieces in found.values()]


def _joined(pieces: list[Series]) -> Series:
    """Make one series of the lives of one label set, one after the other; where they meet, the later one counts."""
    if len(pieces) == 1:
        return pieces[0]
    pieces.sort(key=lambda one: int(one.times[0]))
    times = np.concatenate([one.times for one in pieces])
    values = np.concatenate([one.values for one in pieces])
    keep = np.append(times[1:] > times[:-1], True)
    return Series(pieces[0].labels, times[keep], values[keep])


def _values(
    moment: Moment,
    metric: Metric,
    slots: NDArray[np.intp],
    columns: Sequence[int],
    start_ms: int,
    end_ms: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the times in (start_ms, end_ms], and the values at each of them, by slot, of columns as samples name them."""
    steps = (*moment.intervals, moment.open)
    ticks = [moment.base_time, *(one.time for one in steps)]
    times = np.array([time for time in ticks if start_ms < time <= end_ms], np.int64)
    if len(times) * len(slots) * len(columns) > SAMPLES_MAX:
        raise QueryLimit(f"the selector finds more than {SAMPLES_MAX} samples")
    shown = np.zeros((len(times), len(slots), len(columns)))
    place = np.full(len(moment.base_counts), -1, np.intp)
    place[slots] = np.arange(len(slots))
    values = _shown(metric, columns, moment.base_counts[slots], moment.base_sums[slots])
    at = 0
    for time, step in zip(ticks, (None, *steps), strict=True):
        if time > end_ms:
            break
        if step is not None:
            own = place[step.slots]
            there = own >= 0
            values[own[there]] += _shown(metric, columns, step.counts[there], step.sums[there])
        if time > start_ms:
            shown[at] = values
            at += 1
    return times, shown


def _shown(
    metric: Metric, columns: Sequence[int], counts: NDArray[np.integer[Any]], sums: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what columns show of a table's rows. Values add up as rows do, and are whole up to 2^53."""
    running = counts[:, metric.begin : metric.end].cumsum(axis=1, dtype=np.int64)
    return np.column_stack(
        [sums[:, metric.total] if column == SUM else running[:, column].astype(np.float64) for column in columns]
    )
