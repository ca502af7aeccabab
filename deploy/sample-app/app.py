"""A small shop that is instrumented with OpenTelemetry and nothing else: what an application of yours might look like.

It takes orders by HTTP on port 8080 (`curl -X POST localhost:8080/orders`), and orders something itself about once a
second, so that there is always something to see. An order is checked, paid and recorded; some payments are slow, some
fail. Everything about Ringtail is in the environment: OTEL_EXPORTER_OTLP_ENDPOINT and the like.

Usage: app.py [ORDERS]       with a number, it places that many orders and ends
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry import _logs, metrics, propagate, trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

PORT = int(os.environ.get("PORT", "8080"))
PRODUCTS = {"teapot": 2490, "kettle": 3990, "mug": 990}
SEVERITIES = {
    logging.INFO: _logs.SeverityNumber.INFO,
    logging.WARNING: _logs.SeverityNumber.WARN,
    logging.ERROR: _logs.SeverityNumber.ERROR,
}


class PaymentRefused(Exception):
    """The card network says no."""


class Shop:
    """One service: its telemetry, and what it does."""

    def __init__(self, name: str) -> None:
        resource = Resource.create({"service.name": name, "service.version": "1.0.0"})
        self.traces = TracerProvider(resource=resource)
        self.traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.logs = LoggerProvider(resource=resource)
        self.logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        self.metrics = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
        self.tracer = self.traces.get_tracer("sample-app")
        self._logger = self.logs.get_logger("sample-app")
        meter = self.metrics.get_meter("sample-app")
        self.orders = meter.create_counter("shop.orders", "{order}", "Orders, by product and how they ended.")
        self.latency = meter.create_histogram(
            "http.server.request.duration",
            "s",
            "How long requests took.",
            explicit_bucket_boundaries_advisory=[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
        )
        self._stock = dict.fromkeys(PRODUCTS, 100)
        meter.create_observable_gauge("shop.stock.level", [self._observe], "{item}", "Items on the shelf.")
        self._numbers = itertools.count(1001)

    def _observe(self, _: metrics.CallbackOptions) -> list[metrics.Observation]:
        return [metrics.Observation(level, {"shop.product": product}) for product, level in self._stock.items()]

    def log(self, level: int, text: str, **attributes: str | int) -> None:
        """Write a log record; the SDK adds the ids of the span that is current."""
        self._logger.emit(
            timestamp=time.time_ns(),
            severity_number=SEVERITIES[level],
            severity_text=logging.getLevelName(level),
            body=text,
            attributes=attributes,
        )

    def place(self, product: str) -> int:
        """Take one order and return its number; raises PaymentRefused."""
        number = next(self._numbers)
        self.log(logging.INFO, f"order {number} received", **{"order.id": number, "shop.product": product})
        with self.tracer.start_as_current_span("check stock", attributes={"shop.product": product}):
            time.sleep(random.uniform(0.001, 0.01))
            if self._stock[product] == 0:
                self._stock[product] = 100
                self.log(logging.WARNING, f"{product} was sold out, the shelf is filled again")
            self._stock[product] -= 1
        with self.tracer.start_as_current_span(
            "charge card",
            kind=trace.SpanKind.CLIENT,
            attributes={"server.address": "cards.example.com", "order.total.cents": PRODUCTS[product]},
        ):
            time.sleep(random.choice((0.01, 0.02, 0.02, 0.3)))
            if random.random() < 0.1:
                self.log(logging.ERROR, f"payment of order {number} refused", **{"order.id": number})
                raise PaymentRefused(f"the card of order {number} was refused")
        with self.tracer.start_as_current_span("INSERT orders", kind=trace.SpanKind.CLIENT) as span:
            span.set_attributes({"db.system.name": "sqlite", "db.query.text": "INSERT INTO orders VALUES (?, ?)"})
            time.sleep(random.uniform(0.001, 0.005))
        self.log(logging.INFO, f"order {number} placed", **{"order.id": number})
        return number

    def close(self) -> None:
        """Export what is left."""
        for provider in (self.traces, self.logs, self.metrics):
            provider.shutdown()


def handler(shop: Shop) -> type[BaseHTTPRequestHandler]:
    """The HTTP side of a shop: POST /orders."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            started = time.monotonic()
            labels = {"http.request.method": "POST", "http.route": "/orders"}
            with shop.tracer.start_as_current_span(
                "POST /orders",
                context=propagate.extract({name.lower(): value for name, value in self.headers.items()}),
                kind=trace.SpanKind.SERVER,
                attributes=labels,
            ) as span:
                product = random.choice(list(PRODUCTS))
                try:
                    status, answer = 201, {"order": shop.place(product), "product": product}
                except PaymentRefused as error:
                    span.record_exception(error)
                    span.set_status(trace.StatusCode.ERROR, str(error))
                    status, answer = 502, {"error": str(error)}
                span.set_attribute("http.response.status_code", status)
                labels |= {"http.response.status_code": status}
                shop.orders.add(1, {"shop.product": product, "shop.outcome": "placed" if status == 201 else "refused"})
                shop.latency.record(time.monotonic() - started, labels)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Leave access logs to the spans."""

    return Handler


def order(customer: Shop, port: int) -> None:
    """Order something, as a customer's browser would; the trace begins here."""
    with customer.tracer.start_as_current_span("POST", kind=trace.SpanKind.CLIENT) as span:
        headers: dict[str, str] = {}
        propagate.inject(headers)
        request = urllib.request.Request(f"http://127.0.0.1:{port}/orders", b"", headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
            span.set_status(trace.StatusCode.ERROR)
        span.set_attribute("http.response.status_code", status)


def main(orders: int | None) -> None:
    """Serve, and place orders: that many and then end, or until the process is ended."""
    shop, customer = Shop("shop"), Shop("customer")
    with ThreadingHTTPServer(("0.0.0.0", PORT), handler(shop)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"taking orders on port {server.server_port}", flush=True)
        try:
            for _ in itertools.count() if orders is None else range(orders):
                order(customer, server.server_port)
                time.sleep(random.uniform(0.5, 1.5) if orders is None else 0)
        except KeyboardInterrupt:
            pass
        finally:
            server.shutdown()
            customer.close()
            shop.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
