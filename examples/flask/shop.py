"""A shop that takes orders by HTTP: Flask, with OpenTelemetry's SDK for Python and nothing of Ringtail's."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request
from opentelemetry import _logs, metrics, trace
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
from opentelemetry.trace import SpanKind, Status, StatusCode


def instrument() -> None:
    """Send telemetry to where OTEL_EXPORTER_OTLP_ENDPOINT says. Once in a process."""
    resource = Resource.create({"service.name": "shop"})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(traces)
    logs = LoggerProvider(resource=resource)
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    _logs.set_logger_provider(logs)
    readers = [PeriodicExportingMetricReader(OTLPMetricExporter())]
    metrics.set_meter_provider(MeterProvider(readers, resource=resource))


class CardRefused(Exception):
    """The bank says no."""


def create_app() -> Flask:
    """Return the application."""
    app = Flask("shop")
    tracer = trace.get_tracer("shop")
    logger = _logs.get_logger("shop")
    orders = metrics.get_meter("shop").create_counter("orders")

    def charge(card: str) -> None:
        with tracer.start_as_current_span("charge card", kind=SpanKind.CLIENT, attributes={"card.network": card[:4]}):
            if card.endswith("0000"):
                raise CardRefused("card refused")

    @app.post("/checkout")
    def checkout() -> tuple[Response, int]:
        order = request.get_json()
        attributes = {"http.route": "/checkout", "order.items": len(order["items"])}
        with tracer.start_as_current_span("checkout", kind=SpanKind.SERVER, attributes=attributes) as span:
            try:
                charge(order["card"])
            except CardRefused as refusal:
                span.set_status(Status(StatusCode.ERROR, str(refusal)))
                orders.add(1, {"outcome": "refused"})
                logger.emit(severity_text="WARN", severity_number=_logs.SeverityNumber.WARN, body=f"order: {refusal}")
                return jsonify(error=str(refusal)), 402
            orders.add(1, {"outcome": "placed"})
            return jsonify(status="placed"), 201

    return app
