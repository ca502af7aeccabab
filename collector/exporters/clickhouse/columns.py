"""The tables of the OpenTelemetry Collector's ClickHouse exporter: columns, codecs, indexes, keys. What HyperDX and
Grafana's plugin read.

The names of columns are the same in all versions of that exporter. Types of times, sort keys and indexes are not: tables
that are created here have those of its newest version, and of existing ones every column is used that is there.

Ringtail adds columns of its own, which readers of the others do not see:

    RingtailTenant, RingtailInstance, RingtailOffset   whose record it is, and which: see exporters/base.py
    RingtailContainer, RingtailRecord                  the record as it was sent (keep_records): its own message, and a
                                                       request with what stands around it and no record
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from collector.otlp.block import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, SUM, SUMMARY
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

LOW: Final = "LowCardinality(String)"
MAP: Final = "Map(LowCardinality(String), String)"
ZSTD: Final = "CODEC(ZSTD(1))"
TIME: Final = "DateTime64(9)"


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type: str
    codec: str = ZSTD
    sent: str = ""
    """The type as which it is sent, if that is another one: the server turns it into the column's."""

    @property
    def native(self) -> str:
        """The type as which it is sent: without dictionaries, which the server makes."""
        return self.sent or self.type.replace(LOW, "String")


OWN: Final = (
    Column("RingtailTenant", LOW),
    Column("RingtailInstance", LOW),
    Column("RingtailOffset", "UInt64", "CODEC(Delta(8), ZSTD(1))"),
)
KEPT: Final = (Column("RingtailContainer", LOW), Column("RingtailRecord", "String"))

_EVENTS: Final = (
    Column("Events.Timestamp", f"Array({TIME})"),
    Column("Events.Name", f"Array({LOW})"),
    Column("Events.Attributes", f"Array({MAP})"),
)
_LINKS: Final = (
    Column("Links.TraceId", "Array(String)"),
    Column("Links.SpanId", "Array(String)"),
    Column("Links.TraceState", "Array(String)"),
    Column("Links.Attributes", f"Array({MAP})"),
)
_EXEMPLARS: Final = (
    Column("Exemplars.FilteredAttributes", f"Array({MAP})"),
    Column("Exemplars.TimeUnix", f"Array({TIME})"),
    Column("Exemplars.Value", "Array(Float64)"),
    Column("Exemplars.SpanId", "Array(String)"),
    Column("Exemplars.TraceId", "Array(String)"),
)
_POINT: Final = (
    Column("ResourceAttributes", MAP),
    Column("ResourceSchemaUrl", "String"),
    Column("ScopeName", "String"),
    Column("ScopeVersion", "String"),
    Column("ScopeAttributes", MAP),
    Column("ScopeDroppedAttrCount", "UInt32"),
    Column("ScopeSchemaUrl", "String"),
    Column("ServiceName", LOW),
    Column("MetricName", LOW),
    Column("MetricDescription", "String"),
    Column("MetricUnit", "String"),
    Column("Attributes", MAP),
    Column("StartTimeUnix", TIME, "CODEC(Delta(8), ZSTD(1))"),
    Column("TimeUnix", TIME, "CODEC(Delta(8), ZSTD(1))"),
)
_FLAGS: Final = Column("Flags", "UInt32")
_TEMPORALITY: Final = Column("AggregationTemporality", "Int32")
_COUNT_AND_SUM: Final = (Column("Count", "UInt64", "CODEC(Delta(8), ZSTD(1))"), Column("Sum", "Float64"))
_RANGE: Final = (Column("Min", "Float64"), Column("Max", "Float64"))


@dataclass(frozen=True, slots=True)
class Layout:
    """One table."""

    signal: Signal
    kind: int
    """The type of its data points (otlp/block.py); 0 for spans and log records."""
    suffix: str
    """What its name has behind the configured one."""
    columns: tuple[Column, ...]
    time: str
    """The column of the main time."""
    name: str
    """The column of what records are called; empty for log records."""
    attributes: str
    """The column of a record's attributes."""
    order: str
    primary: str = ""
    maps: tuple[tuple[str, str], ...] = ()
    """Maps with indexes, each with the name that those have."""
    indexes: tuple[str, ...] = ()
    """Further indexes."""
    text_indexes: tuple[str, ...] = ()
    """The same, for servers that have text indexes."""

    @property
    def traced(self) -> bool:
        """Whether its records have a trace id of their own."""
        return self.kind == 0


SPANS: Final = Layout(
    TRACES,
    0,
    "",
    (
        Column("Timestamp", TIME, "CODEC(Delta(8), ZSTD(1))"),
        Column("TraceId", "String"),
        Column("SpanId", "String"),
        Column("ParentSpanId", "String"),
        Column("TraceState", "String"),
        Column("SpanName", LOW),
        Column("SpanKind", LOW),
        Column("ServiceName", LOW),
        Column("ResourceAttributes", MAP),
        Column("ScopeName", "String"),
        Column("ScopeVersion", "String"),
        Column("SpanAttributes", MAP),
        Column("Duration", "UInt64", "CODEC(T64, ZSTD(1))"),
        Column("StatusCode", LOW),
        Column("StatusMessage", "String"),
        *_EVENTS,
        *_LINKS,
    ),
    "Timestamp",
    "SpanName",
    "SpanAttributes",
    "(ServiceName, SpanName, toDateTime(Timestamp), Timestamp)",
    "(ServiceName, SpanName, toDateTime(Timestamp))",
    (("ResourceAttributes", "res"), ("SpanAttributes", "span")),
    (
        "idx_duration Duration TYPE minmax GRANULARITY 1",
        "idx_lower_span_name lower(SpanName) TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8",
    ),
    (
        "idx_duration Duration TYPE minmax GRANULARITY 1",
        "idx_lower_span_name lower(SpanName) TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8",
    ),
)
LOG_RECORDS: Final = Layout(
    LOGS,
    0,
    "",
    (
        Column("Timestamp", TIME, "CODEC(Delta(8), ZSTD(1))"),
        Column("TraceId", "String"),
        Column("SpanId", "String"),
        Column("TraceFlags", "UInt8", ""),
        Column("SeverityText", LOW),
        Column("SeverityNumber", "UInt8", ""),
        Column("ServiceName", LOW),
        Column("Body", "String"),
        Column("ResourceSchemaUrl", LOW),
        Column("ResourceAttributes", MAP),
        Column("ScopeSchemaUrl", LOW),
        Column("ScopeName", "String"),
        Column("ScopeVersion", LOW),
        Column("ScopeAttributes", MAP),
        Column("LogAttributes", MAP),
        Column("EventName", "String"),
    ),
    "Timestamp",
    "",
    "LogAttributes",
    "(toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp)",
    "",
    (("ResourceAttributes", "res"), ("ScopeAttributes", "scope"), ("LogAttributes", "log")),
    ("idx_lower_body lower(Body) TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8",),
    ("idx_lower_body lower(Body) TYPE text(tokenizer = 'splitByNonAlpha')",),
)
_POINT_ORDER: Final = "(ServiceName, MetricName, toStartOfHour(TimeUnix), cityHash64(Attributes), TimeUnix)"
_POINT_MAPS: Final = (("ResourceAttributes", "res"), ("ScopeAttributes", "scope"), ("Attributes", ""))
_POINT_INDEXES: Final = ("idx_time_minmax TimeUnix TYPE minmax GRANULARITY 1",)


def _points(kind: int, suffix: str, columns: tuple[Column, ...]) -> Layout:
    return Layout(
        METRICS,
        kind,
        suffix,
        (*_POINT, *columns),
        "TimeUnix",
        "MetricName",
        "Attributes",
        _POINT_ORDER,
        "",
        _POINT_MAPS,
        _POINT_INDEXES,
        _POINT_INDEXES,
    )


LAYOUTS: Final[dict[Signal, tuple[Layout, ...]]] = {
    TRACES: (SPANS,),
    LOGS: (LOG_RECORDS,),
    METRICS: (
        _points(GAUGE, "_gauge", (Column("Value", "Float64"), _FLAGS, *_EXEMPLARS)),
        _points(
            SUM,
            "_sum",
            (
                Column("Value", "Float64"),
                _FLAGS,
                *_EXEMPLARS,
                _TEMPORALITY,
                Column("IsMonotonic", "Bool", "CODEC(Delta(1), ZSTD(1))"),
            ),
        ),
        _points(
            HISTOGRAM,
            "_histogram",
            (
                *_COUNT_AND_SUM,
                Column("BucketCounts", "Array(UInt64)"),
                Column("ExplicitBounds", "Array(Float64)"),
                *_EXEMPLARS,
                _FLAGS,
                *_RANGE,
                _TEMPORALITY,
            ),
        ),
        _points(
            EXPONENTIAL_HISTOGRAM,
            "_exponential_histogram",
            (
                *_COUNT_AND_SUM,
                Column("Scale", "Int32"),
                Column("ZeroCount", "UInt64"),
                Column("PositiveOffset", "Int32"),
                Column("PositiveBucketCounts", "Array(UInt64)"),
                Column("NegativeOffset", "Int32"),
                Column("NegativeBucketCounts", "Array(UInt64)"),
                *_EXEMPLARS,
                _FLAGS,
                *_RANGE,
                _TEMPORALITY,
            ),
        ),
        _points(
            SUMMARY,
            "_summary",
            (
                *_COUNT_AND_SUM,
                Column("ValueAtQuantiles.Quantile", "Array(Float64)"),
                Column("ValueAtQuantiles.Value", "Array(Float64)"),
                _FLAGS,
            ),
        ),
    ),
}
"""The tables of each signal."""
