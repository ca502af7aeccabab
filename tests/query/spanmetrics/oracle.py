"""Span metrics by the book: spans as messages, counters as dicts, one span after the other."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any, NamedTuple

from collector.otlp.signals import TRACES

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
CALL_BOUNDS = [0.002 * 2**i for i in range(14)]
EDGE_BOUNDS = [0.1 * 2**i for i in range(8)]

Key = tuple[Any, ...]


def bucket(nanoseconds: int, bounds: list[float]) -> int:
    return sum(nanoseconds > round(bound * 10**9) for bound in bounds)


class Half(NamedTuple):
    """A span that waits for its other half."""

    service: str
    is_client: bool
    took: int
    failed: bool
    peer: str


class Oracle:
    """Counts of calls by (service, name, kind, status, bucket), and of edges by (client, server, connection, what)."""

    def __init__(self) -> None:
        self.calls: Counter[Key] = Counter()
        self.edges: Counter[Key] = Counter()
        self.seconds: Counter[Key] = Counter()
        self.newer: dict[Key, Half] = {}
        self.older: dict[Key, Half] = {}
        self.expired = 0

    def add(self, request: Any) -> None:
        for envelope in request.resource_spans:
            service = next((one.value.string_value for one in envelope.resource.attributes), "")
            for scope in envelope.scope_spans:
                for span in scope.spans:
                    self._span(service, span)

    def _span(self, service: str, span: Any) -> None:
        took = max(0, span.end_time_unix_nano - span.start_time_unix_nano)
        key = (service, span.name, span.kind, span.status.code)
        self.calls[*key, bucket(took, CALL_BOUNDS)] += 1
        self.seconds[key] += took
        if not service:
            return
        failed = span.status.code == 2
        if span.kind in (CLIENT, PRODUCER):
            attributes = {one.key: one.value.string_value for one in span.attributes if one.value.string_value}
            database = any(name in attributes for name in ("db.name", "db.system", "db.namespace", "db.system.name"))
            names = ("peer.service", "server.address", "network.peer.address", "db.name", "db.system")
            peer = next((attributes[name] for name in names[: 5 if database else 1] if name in attributes), "")
            mine = Half(service, True, took, failed, peer)
            place = (span.trace_id, span.span_id)
            if self._pair(place, mine, span.kind == PRODUCER):
                return
            if database:
                self._edge(service, peer, "database", took, took, failed)
                return
            self._wait(place, mine)
        elif span.kind in (SERVER, CONSUMER):
            mine = Half(service, False, took, failed, "")
            if not span.parent_span_id:
                self._edge("user", service, "virtual_node", 0, took, failed)
                return
            place = (span.trace_id, span.parent_span_id)
            if not self._pair(place, mine, span.kind == CONSUMER):
                self._wait(place, mine)

    def _pair(self, place: Key, mine: Half, messaging: bool) -> bool:
        for generation in (self.newer, self.older):
            other = generation.get(place)
            if other is not None:
                if other.is_client == mine.is_client:
                    return False
                del generation[place]
                client, server = (mine, other) if mine.is_client else (other, mine)
                connection = "messaging_system" if messaging else ""
                failed = client.failed or server.failed
                self._edge(client.service, server.service, connection, client.took, server.took, failed)
                return True
        return False

    def _wait(self, place: Key, mine: Half) -> None:
        self.newer[place] = mine

    def turn(self) -> None:
        for half in self.older.values():
            self.expired += 1
            if half.is_client and half.peer:
                self._edge(half.service, half.peer, "virtual_node", half.took, 0, half.failed)
        self.older, self.newer = self.newer, {}

    def _edge(
        self, client: str, server: str, connection: str, client_took: int, server_took: int, failed: bool
    ) -> None:
        key = (client, server, connection)
        self.edges[*key, "total"] += 1
        self.edges[*key, "failed"] += failed
        self.edges[*key, "server", bucket(server_took, EDGE_BOUNDS)] += 1
        self.edges[*key, "client", bucket(client_took, EDGE_BOUNDS)] += 1
        self.seconds[*key, "server"] += server_took
        self.seconds[*key, "client"] += client_took


def random_request(chance: Random, count: int) -> Any:
    """Spans that often fit together, with the attributes that say who is called."""
    made = TRACES.request_type()
    for _ in range(count):
        envelope = made.resource_spans.add()
        service = chance.choice(["", "a", "b", "c"])
        if service:
            envelope.resource.attributes.add(key="service.name").value.string_value = service
        start = chance.randint(10**9, 2 * 10**9)
        took = chance.choice([-5, 0, 1, 2_000_000, 2_000_001, 4 * 10**6, 10**8, 10**8 + 1, 2**40, 10**18])
        span = envelope.scope_spans.add().spans.add(
            trace_id=chance.randint(1, 3).to_bytes(16, "big"),
            span_id=chance.randint(1, 6).to_bytes(8, "big"),
            parent_span_id=chance.choice([b"", chance.randint(1, 6).to_bytes(8, "big")]),
            name=chance.choice(["get", "put", ""]),
            kind=chance.choice([0, 1, SERVER, SERVER, CLIENT, CLIENT, PRODUCER, CONSUMER]),
            start_time_unix_nano=start,
            end_time_unix_nano=start + took,
        )
        span.status.code = chance.randint(0, 2)
        for name in (
            "x",
            "peer.service",
            "server.address",
            "network.peer.address",
            "db.name",
            "db.system",
            "db_system",
        ):
            if chance.random() < 0.15:
                span.attributes.add(key=name).value.string_value = chance.choice(["", "a", "orders", "10.0.0.1"])
        if chance.random() < 0.1:
            span.attributes.add(key="db.name").value.int_value = 5
    return made
