"""OTLP requests of every shape: what a backend must keep, and what it may stumble over.

`corpus` makes requests with all kinds of values, of points and of absences; `hostile` makes texts that mean something to
a database. Both are valid OTLP, and the same arguments always make the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

TIME_NS: Final = 1_790_000_000_000_000_000
"""When the records of a corpus begin, Unix ns; they are a second apart."""
SECOND_NS: Final = 1_000_000_000
SERVICES: Final = ("checkout", "cart", "Zahlung", "")
HOSTILE: Final = (
    "'; DROP TABLE spans; --",
    '"; DELETE FROM otel_logs WHERE 1=1; --',
    "') OR ('1'='1",
    "`; TRUNCATE TABLE logs",
    "\\'; SELECT pg_sleep(10); --",
    "%s %d %(name)s ${jndi:ldap://x} {{7*7}} $1 ? :name",
    "NUL\0inside",
    "line\nbreak\ttab\rreturn\x1b[31m",
    "\ufeffbyte order mark",
    "right \u202eto left",
    "emoji \U0001f9a6 and combining e\u0301",
    "\\x00 \\u0000 \\N \\",
    "x" * 5000,
)
"""Texts for names, keys and values."""
_KINDS: Final = tuple(Span.SpanKind.values())
_STATUSES: Final = tuple(Status.StatusCode.values())[1:]


def corpus(signal: Signal, count: int, *, seed: int = 0, texts: tuple[str, ...] = ("plain",)) -> bytes:
    """Return an export request with `count` records, one a second from `TIME_NS` on, over several resources and scopes.

    `texts` are strewn over names, keys and values.
    """
    chance = Random(f"corpus {signal.name} {seed}")
    request: Any = signal.request_type()
    for number in range(count):
        envelope = _envelope(request, signal, number, chance, texts)
        _ADD[signal](envelope, number, chance, texts)
    return bytes(request.SerializeToString())


def _envelope(request: Any, signal: Signal, number: int, chance: Random, texts: tuple[str, ...]) -> Any:
    """Return the scope container that a record goes to: the last one, or another."""
    outer = {TRACES: "resource_spans", LOGS: "resource_logs", METRICS: "resource_metrics"}[signal]
    inner = outer.replace("resource", "scope")
    containers = getattr(request, outer)
    if not containers or chance.random() < 0.2:
        container = containers.add(schema_url=chance.choice(("", "https://opentelemetry.io/schemas/1.30.0")))
        service = SERVICES[number % len(SERVICES)]
        if service:
            container.resource.attributes.add(key="service.name").value.string_value = service
        container.resource.attributes.add(key="host.id").value.int_value = number % 5
        container.resource.attributes.add(key=chance.choice(texts)).value.string_value = chance.choice(texts)
        container.resource.dropped_attributes_count = chance.choice((0, 3))
    container = containers[-1]
    scopes = getattr(container, inner)
    if not scopes or chance.random() < 0.3:
        scope = scopes.add(schema_url=chance.choice(("", "https://example.com/own")))
        if chance.random() < 0.8:
            scope.scope.name, scope.scope.version = chance.choice(("lib.a", chance.choice(texts))), "1.2"
            scope.scope.attributes.extend(attributes(chance, texts, 1))
    return scopes[-1]


def attributes(chance: Random, texts: tuple[str, ...], count: int) -> list[KeyValue]:
    """Return attributes of all kinds of values."""
    found = [KeyValue(key=f"{chance.choice(texts)}.{i}", value=value(chance, texts, 2)) for i in range(count)]
    found.append(KeyValue(key="color", value=AnyValue(string_value=chance.choice(("red", "green", "blue")))))
    found.append(KeyValue(key="number", value=AnyValue(int_value=chance.randrange(5))))
    return found


def value(chance: Random, texts: tuple[str, ...], depth: int) -> AnyValue:
    """Return a value of any kind, nested at most so deep."""
    kind = chance.randrange(8 if depth else 6)
    if kind == 0:
        return AnyValue(string_value=chance.choice(texts))
    if kind == 1:
        return AnyValue(bool_value=chance.random() < 0.5)
    if kind == 2:
        return AnyValue(int_value=chance.choice((0, -1, 2**53 + 1, 2**63 - 1, -(2**63))))
    if kind == 3:
        return AnyValue(double_value=chance.choice((0.5, -0.0, 1e300, 3.0, float("inf"))))
    if kind == 4:
        return AnyValue(bytes_value=chance.randbytes(chance.randrange(4)))
    if kind == 5:
        return AnyValue()
    made = AnyValue()
    if kind == 6:
        made.array_value.values.extend(value(chance, texts, depth - 1) for _ in range(chance.randrange(3)))
        made.array_value.SetInParent()
    else:
        for i in range(chance.randrange(3)):
            made.kvlist_value.values.add(key=f"k{i}").value.CopyFrom(value(chance, texts, depth - 1))
        made.kvlist_value.SetInParent()
    return made


def _add_span(scope: Any, number: int, chance: Random, texts: tuple[str, ...]) -> None:
    start = TIME_NS + number * SECOND_NS + chance.randrange(1000)
    span: Span = scope.spans.add(
        trace_id=trace_id(number // 3),
        span_id=(number + 1).to_bytes(8, "big"),
        parent_span_id=number.to_bytes(8, "big") if number % 3 else b"",
        name=f"{chance.choice(texts)} {number % 4}",
        kind=_KINDS[chance.randrange(6)],
        start_time_unix_nano=start,
        end_time_unix_nano=start + chance.randrange(10**9),
        trace_state=chance.choice(("", "a=1,b=2")),
        flags=chance.choice((0, 1, 0x301)),
        dropped_attributes_count=chance.choice((0, 1)),
        dropped_events_count=chance.choice((0, 2)),
        dropped_links_count=chance.choice((0, 3)),
        attributes=attributes(chance, texts, chance.randrange(4)),
    )
    for i in range(chance.choice((0, 0, 2))):
        event = span.events.add(time_unix_nano=start + i, name=chance.choice(texts), dropped_attributes_count=i)
        event.attributes.extend(attributes(chance, texts, 1))
    if chance.random() < 0.3:
        link = span.links.add(trace_id=trace_id(number + 1), span_id=b"\1" * 8, trace_state="x=y", flags=1)
        link.attributes.extend(attributes(chance, texts, 1))
    if chance.random() < 0.4:
        span.status.code = chance.choice(_STATUSES)
        span.status.message = chance.choice(("", chance.choice(texts)))


def _add_log(scope: Any, number: int, chance: Random, texts: tuple[str, ...]) -> None:
    time = TIME_NS + number * SECOND_NS + chance.randrange(1000)
    observed_only = number % 7 == 3
    record: LogRecord = scope.log_records.add(
        time_unix_nano=0 if observed_only else time,
        observed_time_unix_nano=time if observed_only else time + 5,
        severity_number=chance.choice((0, 1, 5, 9, 9, 13, 17, 24)),
        severity_text=chance.choice(("", "INFO", chance.choice(texts))),
        flags=chance.choice((0, 1)),
        dropped_attributes_count=chance.choice((0, 1)),
        event_name=chance.choice(("", "started")),
        attributes=attributes(chance, texts, chance.randrange(4)),
    )
    if chance.random() < 0.7:
        record.trace_id, record.span_id = trace_id(number // 3), (number + 1).to_bytes(8, "big")
    if chance.random() < 0.6:
        record.body.string_value = f"order {number} of {chance.choice(texts)} accepted"
    elif chance.random() < 0.8:
        record.body.CopyFrom(value(chance, texts, 2))


def _add_point(scope: Any, number: int, chance: Random, texts: tuple[str, ...]) -> None:
    kind = ("gauge", "sum", "histogram", "exponential_histogram", "summary")[number % 5]
    metric: Metric = scope.metrics.add(
        name=f"{chance.choice(texts)}.{kind}.{number % 4}",
        description=chance.choice(("", chance.choice(texts))),
        unit="By",
    )
    data = getattr(metric, kind)
    if kind not in ("gauge", "summary"):
        data.aggregation_temporality = chance.choice((1, 2))
    if kind == "sum":
        data.is_monotonic = chance.random() < 0.5
    time = TIME_NS + number * SECOND_NS + chance.randrange(1000)
    point = data.data_points.add(
        time_unix_nano=time,
        start_time_unix_nano=chance.choice((0, TIME_NS - 10**12)),
        attributes=attributes(chance, texts, chance.randrange(3)),
        flags=chance.choice((0, 0, 0, 1)),
    )
    if not point.flags & 1:
        _fill(point, kind, chance)
    if kind != "summary" and chance.random() < 0.3:
        exemplar = point.exemplars.add(time_unix_nano=time, trace_id=trace_id(number), span_id=b"\2" * 8, as_double=1.5)
        exemplar.filtered_attributes.extend(attributes(chance, texts, 1))


def _fill(point: Any, kind: str, chance: Random) -> None:
    if kind in ("gauge", "sum"):
        if chance.random() < 0.5:
            point.as_int = chance.choice((0, -5, 2**62))
        else:
            point.as_double = chance.choice((0.25, -1e9, 1e-300))
    elif kind == "histogram":
        point.explicit_bounds.extend((1.0, 2.5, 10.0))
        point.bucket_counts.extend(chance.randrange(5) for _ in range(4))
        point.count = sum(point.bucket_counts)
        if chance.random() < 0.7:
            point.sum, point.min, point.max = 12.5, 0.5, 9.0
    elif kind == "exponential_histogram":
        point.scale, point.zero_count, point.zero_threshold = chance.choice((-2, 0, 5)), 1, 0.001
        point.positive.offset = -3
        point.positive.bucket_counts.extend(chance.randrange(4) for _ in range(5))
        point.negative.bucket_counts.extend((0, 2))
        point.count = sum(point.positive.bucket_counts) + 3
        point.sum = 4.5
    else:
        point.count, point.sum = 3, 6.5
        for quantile in (0.0, 0.5, 1.0):
            point.quantile_values.add(quantile=quantile, value=quantile * 10)


_ADD: Final = {TRACES: _add_span, LOGS: _add_log, METRICS: _add_point}


def trace_id(number: int) -> bytes:
    """Return the id of a trace of a corpus, which has three spans."""
    return (0xA000 + number).to_bytes(16, "big")


class Whole(NamedTuple):
    """A record with what it stands in."""

    resource: Resource
    resource_schema: str
    scope: InstrumentationScope
    scope_schema: str
    metric: Metric | None
    """Without its points."""
    record: Any

    def key(self) -> bytes:
        """Return bytes that are equal for equal records."""
        parts = [
            self.resource.SerializeToString(deterministic=True),
            self.resource_schema.encode(),
            self.scope.SerializeToString(deterministic=True),
            self.scope_schema.encode(),
            self.metric.SerializeToString(deterministic=True) if self.metric is not None else b"",
            self.record.SerializeToString(deterministic=True),
        ]
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    @property
    def time_ns(self) -> int:
        """The record's main time."""
        if isinstance(self.record, Span):
            return self.record.start_time_unix_nano
        if isinstance(self.record, LogRecord):
            return self.record.time_unix_nano or self.record.observed_time_unix_nano
        return int(self.record.time_unix_nano)

    @property
    def service(self) -> str:
        """The string value of the resource's service.name; empty without one."""
        found = [one.value.string_value for one in self.resource.attributes if one.key == "service.name"]
        return found[0] if found else ""


def wholes(signal: Signal, payload: bytes) -> Iterator[Whole]:
    """Yield the records of an export request."""
    request: Any = signal.request_type.FromString(payload)
    outer = {TRACES: "resource_spans", LOGS: "resource_logs", METRICS: "resource_metrics"}[signal]
    for container in getattr(request, outer):
        for scope in getattr(container, outer.replace("resource", "scope")):
            around = (container.resource, container.schema_url, scope.scope, scope.schema_url)
            if signal is METRICS:
                for metric in scope.metrics:
                    yield from _points(metric, around)
            else:
                for record in scope.spans if signal is TRACES else scope.log_records:
                    yield Whole(*around, None, record)


def _points(metric: Metric, around: tuple[Any, Any, Any, Any]) -> Iterator[Whole]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    own = Metric()
    own.CopyFrom(metric)
    getattr(own, kind).ClearField("data_points")
    for point in getattr(metric, kind).data_points:
        yield Whole(*around, own, point)
