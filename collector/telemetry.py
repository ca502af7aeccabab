"""What Ringtail tells of itself: its logs (structlog) and the metrics that belong to no room.

Metrics of a room are declared beside the code that updates them, with the registry passed in. Here are the
process's own, under the Collector's names, and those that are read off the stores' statistics when scraped.
"""

from __future__ import annotations

import logging
import resource
import sys
from typing import TYPE_CHECKING, Any

import structlog
from prometheus_client import disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from collector import __version__
from collector.heap import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import CollectorRegistry, Metric

    from collector.clock import Clock

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160))} | {
    code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""What ends a line, moves a cursor or turns the direction of writing."""


class Level:
    """The least severe event that is logged. Loggers hold it, so that it can change while they are used."""

    def __init__(self, name: str) -> None:
        """One of debug, info, warning, error."""
        self.set(name)

    def set(self, name: str) -> None:
        """Change it for all loggers that hold it."""
        self._number = _LEVELS[name]

    def __call__(self, _logger: Any, name: str, event: dict[str, Any]) -> dict[str, Any]:
        """Drop what is less severe: structlog's processor."""
        if _LEVELS.get(name, logging.CRITICAL) < self._number:
            raise structlog.DropEvent
        return event


def logger(level: Level, form: str, stream: Any = None) -> Any:
    """Return a logger that writes one line an event: `console` for people, `json` for machines.

    It keeps its own settings, so that two daemons in one process do not share them.
    """
    stream = stream if stream is not None else sys.stderr
    processors: list[Any] = [
        level,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if form == "json":
        # Escapes everything beyond printable ASCII by itself.
        processors += [_event_first, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=20, sort_keys=False)
        processors += [_one_line, plain]
    return structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=True,
    ).bind()


def _one_line(_logger: Any, _name: str, event: dict[str, Any]) -> dict[str, Any]:
    """Escape control characters: what a client sent cannot start a line or move a cursor."""
    made = {key: value.translate(_CONTROL) if isinstance(value, str) else value for key, value in event.items()}
    # The renderer would print a traceback on lines of its own.
    if "exception" in made:
        made["traceback"] = made.pop("exception")
    return made


def _event_first(_logger: Any, _name: str, event: dict[str, Any]) -> dict[str, Any]:
    """Order the keys for people who read JSON."""
    first = ("timestamp", "level", "event")
    return {key: event[key] for key in first} | {key: event[key] for key in event if key not in first}


class StandardLogs(logging.Handler):
    """Turns records of the standard library's logging, which libraries use, into events of a logger of ours.

    For the process's entry point to install: the standard library's loggers belong to the process, not to a daemon.
    """

    def __init__(self, ours: Any) -> None:
        super().__init__(logging.WARNING)
        self._ours = ours

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as an event."""
        write = self._ours.error if record.levelno >= logging.ERROR else self._ours.warning
        more = {"exc_info": record.exc_info} if record.exc_info else {}
        write("library", name=record.name, message=record.getMessage(), **more)


class _Process(Collector):
    """The process's figures, read when they are asked for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()

    def collect(self) -> Iterable[Metric]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "otelcol_process_cpu_seconds",
            "CPU seconds of the process, user and system.",
            value=usage.ru_utime + usage.ru_stime,
        )
        resident = resident_bytes() or usage.ru_maxrss * 1024  # where it is not told, the peak is the next best
        yield GaugeMetricFamily("otelcol_process_memory_rss_bytes", "Resident memory in bytes.", value=resident)
        yield CounterMetricFamily(
            "otelcol_process_uptime_seconds", "Seconds since the start.", value=self._clock.monotonic() - self._started
        )
        build = GaugeMetricFamily("ringtail_build_info", "1; what runs is in the label.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build


def process_metrics(registry: CollectorRegistry, clock: Clock) -> None:
    """Register the process's own metrics."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it untyped; a second series for each counter that no dashboard reads
    registry.register(_Process(clock))


class StoreCollector(Collector):
    """Rings, indexes and logs, read off the same statistics as `/api/stats`."""

    def __init__(self, statistics: Callable[[], Mapping[str, dict[str, Any]]], *, tenants: bool) -> None:
        """`statistics` are those of each tenant by its name, which is a label when there are `tenants`."""
        self._statistics = statistics
        self._labels = ("tenant", "signal") if tenants else ("signal",)

    def describe(self) -> Iterable[Metric]:
        """Say nothing: the stores may not be open yet."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Read the statistics now."""
        labels = self._labels
        found = [
            ((tenant, signal)[-len(labels) :], stats)
            for tenant, statistics in self._statistics().items()
            for signal, stats in statistics["signals"].items()
        ]
        for name, key, text in _RING_GAUGES:
            family = GaugeMetricFamily(name, text, labels=labels)
            for values, stats in found:
                family.add_metric(values, stats[key])
            yield family
        evicted = CounterMetricFamily("ringtail_ring_evicted_records", "Records evicted.", labels=labels)
        for values, stats in found:
            evicted.add_metric(values, stats["evicted"])
        yield evicted
        for key, text in (("keys", "Distinct keys."), ("postings", "Postings."), ("bytes", "Bytes of the index.")):
            family = GaugeMetricFamily(f"ringtail_index_{key}", text, labels=(*labels, "index"))
            for values, stats in found:
                for index, figures in stats["indexes"].items():
                    family.add_metric((*values, index), figures[key])
            yield family
        for key, text in _LOG_GAUGES:
            family = GaugeMetricFamily(f"ringtail_wal_{key}", text, labels=labels)
            for values, stats in found:
                family.add_metric(values, stats["log"][key])
            yield family
        for key, text in _DELETED_GAUGES:
            family = GaugeMetricFamily(f"ringtail_deleted_{key}", text, labels=labels)
            for values, stats in found:
                family.add_metric(values, stats["deleted"][key])
            yield family
        yield from self._span_metrics()

    def _span_metrics(self) -> Iterable[Metric]:
        labels = self._labels[:-1]
        found = [
            ((tenant,)[: len(labels)], statistics["spanmetrics"])
            for tenant, statistics in self._statistics().items()
            if "spanmetrics" in statistics
        ]
        series = GaugeMetricFamily(
            "ringtail_spanmetrics_series", "Label sets of metrics made of spans.", labels=(*labels, "table")
        )
        folded = CounterMetricFamily(
            "ringtail_spanmetrics_folded_spans", "Spans that found no label set.", labels=(*labels, "table")
        )
        expired = CounterMetricFamily(
            "ringtail_spanmetrics_expired_spans", "Spans whose other half never came.", labels=labels
        )
        held = GaugeMetricFamily("ringtail_spanmetrics_bytes", "Memory held for metrics made of spans.", labels=labels)
        for values, stats in found:
            for table in ("calls", "edges"):
                series.add_metric((*values, table), stats["series"][table])
                folded.add_metric((*values, table), stats["folded"][table])
            expired.add_metric(values, stats["expired"])
            held.add_metric(values, stats["bytes"])
        yield from (series, folded, expired, held)


_RING_GAUGES = (
    ("ringtail_ring_capacity_records", "capacity", "Records that the ring can hold."),
    ("ringtail_ring_records", "records", "Records that the ring holds."),
    ("ringtail_ring_payload_bytes", "payload_bytes", "Bytes of payloads held."),
    ("ringtail_ring_column_bytes", "column_bytes", "Bytes of columns held."),
    ("ringtail_ring_index_bytes", "index_bytes", "Bytes of index arrays held."),
    ("ringtail_ring_bytes", "total_bytes", "Bytes held: payloads, columns and indexes."),
)
_DELETED_GAUGES = (
    ("records", "Records that were deleted, and would be shown else."),
    ("in_segments", "Those of them whose bytes are still in segments."),
    ("pending", "Deletions that backends have not done yet."),
)
_LOG_GAUGES = (
    ("bytes", "Bytes of the log's segments."),
    ("segments", "Segments of the log."),
    ("first_offset", "Oldest offset in the log."),
    ("next_offset", "Offset of the next record."),
)
