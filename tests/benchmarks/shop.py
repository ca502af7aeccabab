"""What queries are asked about: spans in trees across services, and log lines, with rare and common values.

A request holds the spans of 64 whole traces as a Collector batches them: eight services, each with a resource of its
own, in each trace three of them. A trace has eight spans:

    frontend   GET /api/cart            server, the root: has customer.id
      frontend   GET                    client
        A          POST /api/orders     server
          A          validate           internal
          A          POST               client
            B          GET /health      server; its status follows its code, so an eighth or so are errors
              B          SELECT shop    client
      C          PUT /api/orders        server

Rare is what some 25 of a million records have: `customer.id` is one of 5000 on each eighth record, and a log's line says
`ticket-…` likewise. Common are methods, services and severities. Both exchange their digits with every request, as
trace ids do (fresh.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.otlp.signals import LOGS, Signal
from collector.testing import otlp as builders
from collector.testing.otlp import TIME_NS, TRACE_SPANS
from tests.benchmarks.fresh import STEP_NS, Source, Template
from tests.benchmarks.workload import SERVICES

RARE_VALUES: Final = 5000
"""Distinct customers and tickets."""
RARE_EVERY: Final = 8
"""One record in so many has one."""
DIGITS: Final = 6
RARE: Final = re.compile(rb"(customer|ticket)-(\d{6})")
ROOT_SERVICE: Final = "frontend"
_SHAPE: Final = ((-1, 0, "server"), (0, 0, "client"), (1, 1, "server"), (2, 1, "internal"), (2, 1, "client"),
                 (4, 2, "server"), (5, 2, "database"), (0, 3, "server"))  # fmt: skip
"""Parent, which of the trace's services, and what it is, of each span of a trace."""


def rare(kind: str, number: int) -> str:
    """Return a customer or a ticket."""
    return f"{kind}-{number:0{DIGITS}d}"


class RareTemplate(Template):
    """A request whose customers and tickets are exchanged, too."""

    def __init__(self, signal: Signal, payload: bytes) -> None:
        super().__init__(signal, payload)
        places = [match.start(2) for match in RARE.finditer(payload)]
        self._digits = np.array(places, np.intp)[:, None] + np.arange(DIGITS)

    def fresh(self, chance: np.random.Generator, later_ns: int = 0) -> tuple[bytes, bytes]:
        """As a template."""
        payload, ids = super().fresh(chance, later_ns)
        made = np.frombuffer(payload, np.uint8).copy()
        numbers = chance.integers(0, RARE_VALUES, len(self._digits))
        made[self._digits] = _digits(numbers)
        return made.tobytes(), ids


def _digits(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    powers = 10 ** np.arange(DIGITS - 1, -1, -1)
    return (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)


class Shop(Source):
    """Requests of the shop, `STEP_NS` apart."""

    @staticmethod
    def make(signal: Signal, records: int, templates: int) -> Sequence[Template]:
        """Return the templates."""
        build = _logs if signal is LOGS else _traces
        return [RareTemplate(signal, build(records, seed, TIME_NS + seed * STEP_NS)) for seed in range(templates)]


def _traces(records: int, seed: int, time_ns: int) -> bytes:
    chance = Random(f"shop {seed}")
    request = ExportTraceServiceRequest()
    scopes: dict[tuple[str, bool], Any] = {}
    for service in SERVICES:
        envelope = request.resource_spans.add(resource=builders._resource(service, chance))
        for is_client in (False, True):
            scope = scopes[service, is_client] = envelope.scope_spans.add()
            scope.scope.name = f"opentelemetry.instrumentation.{'psycopg' if is_client else 'fastapi'}"
            scope.scope.version = "0.57b0"
    others = [one for one in SERVICES if one != ROOT_SERVICE]
    for number in range(max(1, records // TRACE_SPANS)):
        start = time_ns + number * STEP_NS // (2 * max(1, records // TRACE_SPANS))
        services = (ROOT_SERVICE, *chance.sample(others, 3))
        _tree(scopes, services, start, chance)
    return request.SerializeToString()


def _tree(scopes: dict[tuple[str, bool], Any], services: Sequence[str], start: int, chance: Random) -> None:
    trace_id = chance.randbytes(16)
    ids = [chance.randbytes(8) for _ in _SHAPE]
    end = start + chance.randint(50_000_000, 400_000_000)
    for place, (parent, service, what) in enumerate(_SHAPE):
        span = scopes[services[service], what == "database"].spans.add(
            trace_id=trace_id,
            span_id=ids[place],
            parent_span_id=ids[parent] if parent >= 0 else b"",
            start_time_unix_nano=start + place * 1_000_000,
            end_time_unix_nano=end - place * 1_000_000,
            flags=0x101,
        )
        (builders._client_span if what == "database" else builders._server_span)(span, chance)
        if what == "server":
            span.kind = Span.SPAN_KIND_SERVER
        elif what == "client":
            span.kind = Span.SPAN_KIND_CLIENT
        if parent < 0:
            span.attributes.append(_text("customer.id", rare("customer", 0)))


def _logs(records: int, seed: int, time_ns: int) -> bytes:
    request = ExportLogsServiceRequest.FromString(
        builders.logs(records, seed=seed, service=SERVICES[seed % len(SERVICES)], time_ns=time_ns)
    )
    number = 0
    for scope in request.resource_logs[0].scope_logs:
        for record in scope.log_records:
            if number % RARE_EVERY == 0:
                record.body.string_value += f", {rare('ticket', 0)}"
            elif number % RARE_EVERY == 1:
                record.attributes.append(_text("customer.id", rare("customer", 0)))
            record.attributes.append(_text("log.file.path", f"/var/log/shop/{scope.scope.name}.log"))
            number += 1
    return request.SerializeToString()


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))
