"""The last minute of a shop, as its OpenTelemetry SDKs would have exported it: what `ringtail send` sends.

An order comes in at `frontend`, goes on to `orders`, which reserves the goods at `stock` and has the money taken by
`payment`. Every fifth payment fails, and the failure goes all the way back. Spans, log records and metrics tell of the
same orders: a record carries its span's ids, and the counters add up to the orders of the traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, ScopeMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

SERVICES: Final = ("frontend", "orders", "stock", "payment")
MINUTE_NS: Final = 60_000_000_000
MILLISECOND_NS: Final = 1_000_000
STEPS: Final = 6
"""Times at which the metrics are exported in the minute."""
FAILS_EVERY: Final = 5
FIRST_ORDER: Final = 1001

_INFO, _WARN, _ERROR = (9, "INFO"), (13, "WARN"), (17, "ERROR")
_PRODUCTS: Final = ("teapot", "kettle", "mug")
_BOUNDS_MS: Final = (50.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0)
_SCOPE: Final = "shop"
_VERSION: Final = "2.14.1"


@dataclass(slots=True)
class Story:
    """Export requests, one for each signal, and what is in them."""

    requests: dict[Signal, Any]
    records: dict[Signal, int]
    services: tuple[str, ...] = SERVICES
    traces: list[str] = field(default_factory=list)
    """Trace ids of the orders, in hexadecimal."""
    failed: list[str] = field(default_factory=list)
    """Trace ids of those that failed."""


@dataclass(frozen=True, slots=True)
class _Order:
    number: int
    product: str
    start: int
    duration: int
    failed: bool


def tell(time_ns: int, orders: int, chance: Random) -> Story:
    """Make the requests of a shop that has taken `orders` orders in the minute before `time_ns` (Unix ns)."""
    teller = _Teller(chance)
    step = MINUTE_NS // orders
    taken = []
    for i in range(orders):
        failed = i % FAILS_EVERY == min(FAILS_EVERY, orders) - 1
        duration = (chance.randint(400, 900) if failed else chance.randint(60, 280)) * MILLISECOND_NS
        start = time_ns - MINUTE_NS + i * step + (step - duration if step > duration else 0)
        order = _Order(FIRST_ORDER + i, chance.choice(_PRODUCTS), start, duration, failed)
        teller.order(order)
        taken.append(order)
    _measure(teller.metrics, taken, time_ns)
    return teller.story()


class _Teller:
    """The requests under construction: a resource for each service, with one scope."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._requests = {signal: signal.request_type() for signal in (TRACES, LOGS, METRICS)}
        self._traces: list[str] = []
        self._failed: list[str] = []
        self._spans: dict[str, ScopeSpans] = {}
        self._logs: dict[str, ScopeLogs] = {}
        self.metrics: dict[str, ScopeMetrics] = {}
        for service in SERVICES:
            resource = _attributes(
                {
                    "service.name": service,
                    "service.namespace": "shop",
                    "service.version": _VERSION,
                    "service.instance.id": f"{service}-{chance.randbytes(4).hex()}",
                    "deployment.environment.name": "demo",
                    "telemetry.sdk.name": "opentelemetry",
                    "telemetry.sdk.language": "python",
                }
            )
            for signal, containers, scopes, places in (
                (TRACES, "resource_spans", "scope_spans", self._spans),
                (LOGS, "resource_logs", "scope_logs", self._logs),
                (METRICS, "resource_metrics", "scope_metrics", self.metrics),
            ):
                container = getattr(self._requests[signal], containers).add()
                container.resource.attributes.extend(resource)
                places[service] = scope = getattr(container, scopes).add()
                scope.scope.name, scope.scope.version = f"{_SCOPE}.{service}", _VERSION

    def story(self) -> Story:
        """What has been told."""
        points = [
            len(getattr(metric, metric.WhichOneof("data") or "").data_points)
            for scope in self.metrics.values()
            for metric in scope.metrics
        ]
        records = {
            TRACES: sum(len(scope.spans) for scope in self._spans.values()),
            LOGS: sum(len(scope.log_records) for scope in self._logs.values()),
            METRICS: sum(points),
        }
        return Story(self._requests, records, traces=self._traces, failed=self._failed)

    def order(self, order: _Order) -> None:
        """Tell one order: eight spans, and a few log records."""
        trace_id = self._chance.randbytes(16)
        self._traces.append(trace_id.hex())
        if order.failed:
            self._failed.append(trace_id.hex())
        http = {"http.request.method": "POST", "http.response.status_code": 502 if order.failed else 201}
        whose = {"order.id": order.number, "shop.product": order.product}

        def span(
            service: str, name: str, kind: Any, within: Span | None, share: tuple[float, float], **more: Any
        ) -> Span:
            """Add a span that takes a share of the whole order's time."""
            begin, end = (order.start + int(order.duration * part) for part in share)
            made = self._spans[service].spans.add(
                trace_id=trace_id,
                span_id=self._chance.randbytes(8),
                parent_span_id=within.span_id if within is not None else b"",
                name=name,
                kind=kind,
                start_time_unix_nano=begin,
                end_time_unix_nano=end,
                flags=0x101,
            )
            made.attributes.extend(_attributes(more.get("attributes", {})))
            if order.failed and more.get("fails", True):
                made.status.code = Status.STATUS_CODE_ERROR
            return made

        server, client = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT
        root = span(
            "frontend",
            "POST /api/orders",
            server,
            None,
            (0, 1),
            attributes={**http, "http.route": "/api/orders", "url.path": "/api/orders", "server.port": 8080, **whose},
        )
        call = span("frontend", "POST", client, root, (0.04, 0.96), attributes={**http, "server.address": "orders"})
        place = span("orders", "POST /orders", server, call, (0.06, 0.94), attributes={**http, "http.route": "/orders"})
        reserve = {"rpc.system": "grpc", "rpc.service": "shop.v1.Stock", "rpc.method": "Reserve"}
        ask = span("orders", "shop.v1.Stock/Reserve", client, place, (0.08, 0.35), attributes=reserve, fails=False)
        stock = span("stock", "shop.v1.Stock/Reserve", server, ask, (0.1, 0.33), attributes=reserve, fails=False)
        update = "UPDATE stock SET reserved = reserved + 1 WHERE product = $1"
        database = {"db.system.name": "postgresql", "db.namespace": "shop", "db.query.text": update}
        span("stock", "UPDATE shop", client, stock, (0.14, 0.3), attributes=database, fails=False)
        charge = span("orders", "POST", client, place, (0.38, 0.9), attributes={**http, "server.address": "payment"})
        pay = span(
            "payment", "POST /charges", server, charge, (0.4, 0.88), attributes={**http, "http.route": "/charges"}
        )
        self._log("frontend", root, order.start, _INFO, f"order {order.number} received", whose)
        self._log("stock", stock, stock.end_time_unix_nano, _INFO, f"reserved 1 {order.product}", whose)
        if order.failed:
            self._tell_failure(order, pay, place, root)
        else:
            self._log("payment", pay, pay.end_time_unix_nano, _INFO, "card charged", whose)
            self._log("orders", place, place.end_time_unix_nano, _INFO, f"order {order.number} placed", whose)

    def _tell_failure(self, order: _Order, pay: Span, place: Span, root: Span) -> None:
        whose = {"order.id": order.number, "shop.product": order.product}
        at = pay.end_time_unix_nano - MILLISECOND_NS
        error = {"exception.type": "TimeoutError", "exception.message": "the card network did not answer in 300 ms"}
        pay.status.message = error["exception.message"]
        pay.events.add(name="exception", time_unix_nano=at).attributes.extend(_attributes(error))
        root.status.message = "payment failed"
        self._log("payment", pay, at - 20 * MILLISECOND_NS, _WARN, "card network slow, trying again", whose)
        self._log("payment", pay, at, _ERROR, "card network did not answer", {**whose, **error})
        self._log("orders", place, place.end_time_unix_nano, _ERROR, f"order {order.number} not placed", whose)

    def _log(
        self, service: str, span: Span, time: int, severity: tuple[int, str], body: str, attributes: Mapping[str, Any]
    ) -> None:
        record = self._logs[service].log_records.add(
            time_unix_nano=time,
            observed_time_unix_nano=time + MILLISECOND_NS,
            severity_number=severity[0],
            severity_text=severity[1],
            trace_id=span.trace_id,
            span_id=span.span_id,
            flags=1,
        )
        record.body.string_value = body
        record.attributes.extend(_attributes(attributes))


def _measure(scopes: Mapping[str, ScopeMetrics], orders: list[_Order], end: int) -> None:
    """Add metrics of all five kinds, exported several times in the minute, so that rates show at once."""
    start = end - MINUTE_NS
    add = scopes["frontend"].metrics.add
    total = add(name="shop.orders", unit="{order}", description="Orders taken, by how they ended.")
    total.sum.is_monotonic, total.sum.aggregation_temporality = True, AGGREGATION_TEMPORALITY_CUMULATIVE
    latency = add(name="http.server.request.duration", unit="ms", description="How long requests took.")
    latency.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    level = scopes["stock"].metrics.add(name="shop.stock.level", unit="{item}", description="Items on the shelf.")
    charge = scopes["payment"].metrics.add(
        name="shop.payment.duration", unit="ms", description="How long payments took."
    )
    charge.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    query = scopes["stock"].metrics.add(
        name="db.client.operation.duration", unit="ms", description="How long queries took."
    )
    for step in range(1, STEPS + 1):
        now = start + step * MINUTE_NS // STEPS
        done = [order for order in orders if order.start + order.duration <= now]
        common: dict[str, Any] = {"start_time_unix_nano": start, "time_unix_nano": now}
        for failed, code in ((False, 201), (True, 502)):
            ended = [order for order in done if order.failed is failed]
            labels = _attributes({"http.response.status_code": code, "http.route": "/api/orders"})
            times = [order.duration / MILLISECOND_NS for order in ended]
            total.sum.data_points.add(as_int=len(ended), attributes=labels, **common)
            latency.histogram.data_points.add(
                count=len(times),
                sum=sum(times),
                bucket_counts=_counts(times),
                explicit_bounds=_BOUNDS_MS,
                attributes=labels,
                **common,
            )
        for product in _PRODUCTS:
            sold = sum(order.product == product for order in done)
            level.gauge.data_points.add(as_int=40 - sold, attributes=_attributes({"shop.product": product}), **common)
        payments = [order.duration * 0.48 / MILLISECOND_NS for order in done]
        _exponential(charge.exponential_histogram.data_points.add(**common), payments)
        queries = sorted(order.duration * 0.16 / MILLISECOND_NS for order in done)
        point = query.summary.data_points.add(count=len(queries), sum=sum(queries), **common)
        for quantile in (0.5, 0.9, 0.99) if queries else ():
            value = queries[min(len(queries) - 1, int(quantile * len(queries)))]
            point.quantile_values.add(quantile=quantile, value=value)


def _counts(values: list[float]) -> list[int]:
    """Count values into the buckets of an explicit histogram."""
    edges = (*_BOUNDS_MS, float("inf"))
    low = (float("-inf"), *_BOUNDS_MS)
    return [sum(under < value <= upto for value in values) for under, upto in zip(low, edges, strict=True)]


def _exponential(point: Any, values: list[float]) -> None:
    """Fill an exponential histogram's point of scale 0: bucket i holds values in (2**i, 2**(i+1)]."""
    point.count, point.sum, point.scale = len(values), sum(values), 0
    point.positive.offset = 0
    point.positive.bucket_counts.extend(sum(2.0**i < value <= 2.0 ** (i + 1) for value in values) for i in range(11))


def _attributes(values: Mapping[str, str | int]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value))
        for key, value in values.items()
    ]
