"""Requests for checks: valid ones of each signal as messages and as OTLP/JSON, to be spoiled one rule at a time.

Ids and names are random, so that what is read back is what was sent, whoever else sends to the same server.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.clock import Clock

SCOPE: Final = "ringtail.conformance"


class Payloads:
    """Makes requests whose records are of now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> int:
        """Return the time that records get, in Unix ns."""
        return self._clock.now_ns()

    # --- messages -----------------------------------------------------------------------------------------

    def message(self, signal: Signal, count: int = 1, service: str = "conformance") -> Any:
        """Return a valid request with `count` records, all in one scope."""
        if signal is TRACES:
            return self.spans(*({} for _ in range(count)), service=service)
        if signal is LOGS:
            return self.logs(*({} for _ in range(count)), service=service)
        return self.gauge(*({} for _ in range(count)), service=service)

    def body(self, signal: Signal, count: int = 1) -> bytes:
        """Return the same, serialized."""
        return bytes(self.message(signal, count).SerializeToString())

    def _scope(self, signal: Signal, service: str) -> tuple[Any, Any]:
        """Return an empty request, and its one scope container."""
        request = signal.request_type()
        suffix = {TRACES: "spans", LOGS: "logs", METRICS: "metrics"}[signal]
        envelope = getattr(request, f"resource_{suffix}").add()
        pair = envelope.resource.attributes.add(key="service.name")
        pair.value.string_value = service
        inner = getattr(envelope, f"scope_{suffix}").add()
        inner.scope.name = SCOPE
        return request, inner

    def span(self) -> dict[str, Any]:
        """Return the fields of a valid span."""
        now = self.now()
        return {
            "trace_id": secrets.token_bytes(16),
            "span_id": secrets.token_bytes(8),
            "name": "check",
            "kind": 2,
            "start_time_unix_nano": now - 1_000_000,
            "end_time_unix_nano": now,
        }

    def spans(self, *changes: Mapping[str, Any], service: str = "conformance") -> Any:
        """Return a request with a span for each mapping, which changes the fields of a valid one."""
        request, inner = self._scope(TRACES, service)
        for change in changes:
            inner.spans.add(**{**self.span(), **change})
        return request

    def logs(self, *changes: Mapping[str, Any], service: str = "conformance") -> Any:
        """Return a request with a log record for each mapping."""
        request, inner = self._scope(LOGS, service)
        for change in changes:
            valid = {"time_unix_nano": self.now(), "observed_time_unix_nano": self.now(), "severity_number": 9}
            record = inner.log_records.add(**{**valid, **change})
            if not record.HasField("body"):
                record.body.string_value = "a line of a check"
        return request

    def gauge(self, *changes: Mapping[str, Any], service: str = "conformance", name: str = "") -> Any:
        """Return a request with a gauge of one data point for each mapping."""
        valid = {"as_int": 1, "time_unix_nano": self.now()}
        points = [{**valid, **change} for change in changes]
        for change, point in zip(changes, points, strict=True):
            if "as_double" in change:
                del point["as_int"]
        return self.points("gauge", *points, service=service, name=name)

    def points(
        self, kind: str, *points: Mapping[str, Any], service: str = "conformance", name: str = "", temporality: int = 2
    ) -> Any:
        """Return a request with one metric of a kind and exactly these data points."""
        request, inner = self._scope(METRICS, service)
        data = getattr(inner.metrics.add(name=name or "conformance_check"), kind)
        data.SetInParent()
        if kind not in ("gauge", "summary"):
            data.aggregation_temporality = temporality
        for point in points:
            data.data_points.add(**{key: value for key, value in point.items() if value is not None})
        return request

    # --- OTLP/JSON ----------------------------------------------------------------------------------------

    def json(self, signal: Signal, **fields: Any) -> bytes:
        """Return a request with one valid record in OTLP/JSON, some of whose fields are changed or added."""
        now = str(self.now())
        if signal is TRACES:
            record: dict[str, Any] = {
                "traceId": secrets.token_hex(16),
                "spanId": secrets.token_hex(8),
                "name": "check",
                "kind": 2,
                "startTimeUnixNano": now,
                "endTimeUnixNano": now,
            }
            scope: dict[str, Any] = {"scope": {"name": SCOPE}, "spans": [{**record, **fields}]}
            envelope = {"resource": _resource(), "scopeSpans": [scope]}
            return encode({"resourceSpans": [envelope]})
        if signal is LOGS:
            record = {"timeUnixNano": now, "severityNumber": 9, "body": {"stringValue": "a line of a check"}}
            scope = {"scope": {"name": SCOPE}, "logRecords": [{**record, **fields}]}
            return encode({"resourceLogs": [{"resource": _resource(), "scopeLogs": [scope]}]})
        record = {"timeUnixNano": now, "asInt": "1", **fields}
        if "asDouble" in fields:
            del record["asInt"]
        metric = {"name": "conformance_check", "gauge": {"dataPoints": [record]}}
        scope = {"scope": {"name": SCOPE}, "metrics": [metric]}
        return encode({"resourceMetrics": [{"resource": _resource(), "scopeMetrics": [scope]}]})

    def json_metric(self, metric: Mapping[str, Any]) -> bytes:
        """Return a request with this metric in OTLP/JSON."""
        scope = {"scope": {"name": SCOPE}, "metrics": [metric]}
        return encode({"resourceMetrics": [{"resource": _resource(), "scopeMetrics": [scope]}]})


def _resource() -> dict[str, Any]:
    return {"attributes": [{"key": "service.name", "value": {"stringValue": "conformance"}}]}


def encode(value: Any) -> bytes:
    """Return JSON text as bytes."""
    return json.dumps(value).encode()


def fresh_name(prefix: str) -> str:
    """Return a name that nobody else uses."""
    return f"{prefix}_{secrets.token_hex(6)}"


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited protobuf field, for numbers that no message has."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
