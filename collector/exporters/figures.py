"""What deliveries count and backends take, and how it is exposed: the Collector's names where it has one,
`ringtail_exporter_*` otherwise, `ringtail_backend_*` for what only backends have.

Counts are plain numbers of the event loop's thread, kept by (exporter, signal, tenant) for as long as the daemon runs,
also while an exporter is made anew by a reload. Durations are kept by (exporter, operation, signal): the same histograms
are `/api/stats` and metrics.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from collector.otlp.signals import SIGNALS, Signal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import CollectorRegistry, Metric

OUTCOMES: Final = ("success", "partial", "retryable", "permanent", "unwelcome")
"""How an attempt to export a batch can end."""
LOSSES: Final = ("retention", "damage", "eviction", "dead_letters")
"""Why a record was never delivered: it could not be read any more, or it was refused, and could not be kept."""
DURATION_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of a histogram's buckets; one more has what took longer."""
WRITE: Final = "write"
READS: Final = ("read", "count", "delete", "retain")
"""What is asked of a backend beside writing."""


@dataclass(slots=True)
class Durations:
    """A histogram of how long something took."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BUCKETS_S) + 1))
    total_s: float = 0.0
    longest_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(DURATION_BUCKETS_S, seconds)] += 1
        self.total_s += seconds
        self.longest_s = max(self.longest_s, seconds)

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.buckets)

    def quantile_s(self, share: float) -> float:
        """Return what this share took at most, within a bucket."""
        left = share * self.count
        for bound, count in zip((*DURATION_BUCKETS_S, self.longest_s), self.buckets, strict=True):
            left -= count
            if left <= 0:
                return min(bound, self.longest_s)
        return self.longest_s

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the buckets as Prometheus has them."""
        found = []
        total = 0
        for bound, count in zip((*map(str, DURATION_BUCKETS_S), "+Inf"), self.buckets, strict=True):
            total += count
            found.append((bound, float(total)))
        return found

    def stats(self) -> dict[str, Any]:
        """Return it for `/api/stats`, in ms; quantiles are at most so much."""
        count = self.count
        return {
            "count": count,
            "mean_ms": round(self.total_s / count * 1e3, 3) if count else 0.0,
            "p50_ms": round(self.quantile_s(0.5) * 1e3, 3),
            "p99_ms": round(self.quantile_s(0.99) * 1e3, 3),
            "max_ms": round(self.longest_s * 1e3, 3),
        }


class Figures(NamedTuple):
    """How far a delivery is behind, now."""

    position: int
    records: int
    size: int
    """Bytes of the log; of the ring, without a log. About."""
    seconds: float
    """Since the oldest record that is not delivered was received. About."""


@dataclass(slots=True)
class Counts:
    """What one delivery has counted."""

    sent: int = 0
    sent_bytes: int = 0
    """Of payload, before compression."""
    refused: int = 0
    """Records refused for good: by partial success, or as dead letters."""
    dead_letters: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    cursor_failures: int = 0


class Reported(NamedTuple):
    """One delivery, as it is exposed."""

    exporter: str
    tenant: str
    signal: Signal
    counts: Counts
    figures: Figures
    failing: str
    """Why nothing is delivered now; empty when it is."""


class ExporterMetrics(Collector):
    """All deliveries of a daemon."""

    def __init__(
        self, registry: CollectorRegistry, deliveries: Callable[[], Sequence[Reported]], *, tenants: bool
    ) -> None:
        """`deliveries` are those that there are now; tenants are a label when there are `tenants`."""
        self._deliveries = deliveries
        self._labels = ("exporter", "tenant", "signal") if tenants else ("exporter", "signal")
        self._durations: dict[tuple[str, str, Signal], Durations] = {}
        self._sizes: dict[str, int] = {}
        registry.register(self)

    def duration(self, exporter: str, operation: str, signal: Signal) -> Durations:
        """Return the histogram of one exporter, operation (`WRITE`, or one of `READS`) and signal."""
        return self._durations.setdefault((exporter, operation, signal), Durations())

    def note_size(self, exporter: str, size: int | None) -> None:
        """Keep what a backend has said of its size, in bytes; None forgets it."""
        if size is None:
            self._sizes.pop(exporter, None)
        else:
            self._sizes[exporter] = size

    def size(self, exporter: str) -> int | None:
        """Return that."""
        return self._sizes.get(exporter)

    def durations(self, exporter: str) -> dict[str, dict[str, Any]]:
        """Return an exporter's part of `/api/stats`: by operation and signal."""
        found: dict[str, dict[str, Any]] = {}
        for (of, operation, signal), one in self._durations.items():
            if of == exporter:
                found.setdefault(operation, {})[signal.name] = one.stats()
        return found

    def describe(self) -> Iterable[Metric]:
        """Say nothing: exporters come and go."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return everything, as a scrape asks for it."""
        found = list(self._deliveries())
        if not found:
            return
        for signal in SIGNALS:
            yield from _of_signal(signal, [one for one in found if one.signal is signal])
        labels = self._labels
        for name, text, value in _COUNTERS:
            counters = CounterMetricFamily(name, text, labels=labels)
            for one in found:
                counters.add_metric(self._values(one), value(one.counts))
            yield counters
        for name, text, gauge in _GAUGES:
            gauges = GaugeMetricFamily(name, text, labels=labels)
            for one in found:
                gauges.add_metric(self._values(one), gauge(one))
            yield gauges
        for name, text, label, values, counted in _LABELLED:
            counters = CounterMetricFamily(name, text, labels=(*labels, label))
            for one in found:
                for key in values:
                    counters.add_metric((*self._values(one), key), counted(one.counts)[key])
            yield counters

        yield from self._taken()

    def _taken(self) -> Iterable[Metric]:
        """Durations and sizes."""
        writes = HistogramMetricFamily(
            "ringtail_exporter_duration_seconds",
            "How long an attempt to export a batch took.",
            labels=("exporter", "signal"),
        )
        reads = HistogramMetricFamily(
            "ringtail_backend_duration_seconds",
            f"How long a backend took, but for writing, by operation: {', '.join(READS)}. Reads: the waits for all their blocks.",
            labels=("exporter", "signal", "operation"),
        )
        for (exporter, operation, signal), one in self._durations.items():
            if operation == WRITE:
                writes.add_metric((exporter, signal.name), one.cumulative(), one.total_s)
            else:
                reads.add_metric((exporter, signal.name, operation), one.cumulative(), one.total_s)
        yield writes
        yield reads
        sizes = GaugeMetricFamily(
            "ringtail_backend_bytes", "What a backend occupies, in bytes, indexes included.", labels=("exporter",)
        )
        for exporter, size in self._sizes.items():
            sizes.add_metric((exporter,), size)
        yield sizes

    def _values(self, one: Reported) -> tuple[str, ...]:
        every = {"exporter": one.exporter, "tenant": one.tenant, "signal": one.signal.name}
        return tuple(every[label] for label in self._labels)


def _of_signal(signal: Signal, found: Sequence[Reported]) -> Iterable[Metric]:
    """The Collector's metrics, which have the signal in their names."""
    noun = signal.records
    counted: tuple[tuple[str, str, Callable[[Counts], int]], ...] = (
        (f"otelcol_exporter_sent_{noun}", f"Number of {signal.noun} delivered.", lambda one: one.sent),
        (
            f"otelcol_exporter_send_failed_{noun}",
            f"Number of {signal.noun} that a destination has refused for good.",
            lambda one: one.refused,
        ),
        (
            f"otelcol_exporter_enqueue_failed_{noun}",
            f"Number of {signal.noun} that could no longer be read when it was their turn.",
            lambda one: sum(one.lost[reason] for reason in LOSSES[:3]),
        ),
    )
    for name, text, value in counted:
        family = CounterMetricFamily(name, text, labels=("exporter",))
        sums: Counter[str] = Counter()
        for one in found:
            sums[one.exporter] += value(one.counts)
        for exporter, total in sorted(sums.items()):
            family.add_metric((exporter,), total)
        yield family


_COUNTERS: Final[tuple[tuple[str, str, Callable[[Counts], int]], ...]] = (
    ("ringtail_exporter_sent_bytes", "Bytes delivered, as protobuf before compression.", lambda one: one.sent_bytes),
    ("ringtail_exporter_dead_letter_records", "Records put to the dead letters.", lambda one: one.dead_letters),
    (
        "ringtail_exporter_cursor_failures",
        "Writes of a cursor that failed: after a crash more is repeated.",
        lambda one: one.cursor_failures,
    ),
)
_GAUGES: Final[tuple[tuple[str, str, Callable[[Reported], float]], ...]] = (
    ("ringtail_exporter_lag_records", "Records that are not delivered yet.", lambda one: one.figures.records),
    ("ringtail_exporter_lag_bytes", "Bytes of the log that are not delivered yet.", lambda one: one.figures.size),
    (
        "ringtail_exporter_lag_seconds",
        "Seconds since the oldest record that is not delivered yet was received.",
        lambda one: one.figures.seconds,
    ),
    (
        "ringtail_exporter_failing",
        "1 while a destination takes nothing, 0 otherwise.",
        lambda one: 1 if one.failing else 0,
    ),
)
_LABELLED: Final[tuple[tuple[str, str, str, tuple[str, ...], Callable[[Counts], Counter[str]]], ...]] = (
    (
        "ringtail_exporter_attempts",
        f"Attempts to export a batch, by outcome: {', '.join(OUTCOMES)}.",
        "outcome",
        OUTCOMES,
        lambda one: one.attempts,
    ),
    (
        "ringtail_exporter_lost_records",
        f"Records that will never be delivered, by reason: {', '.join(LOSSES)}.",
        "reason",
        LOSSES,
        lambda one: one.lost,
    ),
)
