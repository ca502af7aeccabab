"""The log's own metrics, each with the label `signal`. Gauges of size are exposed by the daemon from `Log.stats`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from collector.otlp.signals import Signal

FSYNC_BUCKETS_S: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    1.0,
    5.0,
)
"""From a drive with a protected cache to one that is about to fail."""


@dataclass(frozen=True, slots=True)
class SignalMetrics:
    """The metrics of one signal's log."""

    appended_bytes: Counter
    appended_records: Counter
    fsync_duration: Histogram
    truncated_bytes: Counter
    damaged_records: Counter
    index_rebuilds: Counter
    failed: Gauge
    compaction_runs: Counter
    compaction_bytes_in: Counter
    compaction_bytes_out: Counter
    compaction_failures: Counter


class LogMetrics:
    """The metrics of all logs of one daemon, in the given registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("signal",)
        self._appended_bytes = Counter(
            "ringtail_wal_appended_bytes_total",
            "Bytes of frames appended to the log, headers included.",
            labels,
            registry=registry,
        )
        self._appended_records = Counter(
            "ringtail_wal_appended_records_total", "Records appended to the log.", labels, registry=registry
        )
        self._fsync_duration = Histogram(
            "ringtail_wal_fsync_duration_seconds",
            "How long it took to sync the active segment of the log.",
            labels,
            registry=registry,
            buckets=FSYNC_BUCKETS_S,
        )
        self._truncated_bytes = Counter(
            "ringtail_wal_truncated_bytes_total",
            "Bytes of torn tails cut off when the log was opened.",
            labels,
            registry=registry,
        )
        self._damaged_records = Counter(
            "ringtail_wal_damaged_records_total",
            "Records of the log found unreadable.",
            labels,
            registry=registry,
        )
        self._index_rebuilds = Counter(
            "ringtail_wal_index_rebuilds_total",
            "Indexes of offsets or keys that were missing or damaged and were made anew from their segment.",
            labels,
            registry=registry,
        )
        self._failed = Gauge(
            "ringtail_wal_failed",
            "1 when a write or sync of the log has failed and nothing more is accepted, else 0.",
            labels,
            registry=registry,
        )

        self._compaction_runs = Counter(
            "ringtail_wal_compaction_runs_total", "Segments of the log compacted.", labels, registry=registry
        )
        self._compaction_bytes_in = Counter(
            "ringtail_wal_compaction_bytes_in_total",
            "Bytes that segments had before they were compacted.",
            labels,
            registry=registry,
        )
        self._compaction_bytes_out = Counter(
            "ringtail_wal_compaction_bytes_out_total",
            "Bytes that segments have become by compaction, key indexes included.",
            labels,
            registry=registry,
        )
        self._compaction_failures = Counter(
            "ringtail_wal_compaction_failures_total",
            "Segments that could not be compacted: they are damaged, or the file system refused.",
            labels,
            registry=registry,
        )

    def of(self, signal: Signal) -> SignalMetrics:
        """The metrics of one signal; from then on they are exposed, at zero."""
        name = signal.name
        return SignalMetrics(
            self._appended_bytes.labels(name),
            self._appended_records.labels(name),
            self._fsync_duration.labels(name),
            self._truncated_bytes.labels(name),
            self._damaged_records.labels(name),
            self._index_rebuilds.labels(name),
            self._failed.labels(name),
            self._compaction_runs.labels(name),
            self._compaction_bytes_in.labels(name),
            self._compaction_bytes_out.labels(name),
            self._compaction_failures.labels(name),
        )
