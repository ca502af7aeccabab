"""Spans of a few traces and services in ring and log, and the same as a plain list, for brute force."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, NamedTuple

from collector.otlp.scan import scan
from collector.otlp.signals import TRACES
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.files import MemoryFiles
from tests.wal.logs import open_log

SERVICES = ("", "a", "b", "c")
NAMES = ("get", "put", "get /a")


class Span(NamedTuple):
    """What a test wants to know of a span."""

    trace: bytes
    id: bytes
    parent: bytes
    service: str
    name: str
    kind: int
    start: int
    end: int
    status: int
    code: int | None


class Held:
    """A store whose ring is small, so that most spans are in the log only."""

    def __init__(self, seed: int, requests: int, capacity: int, *, logged: bool = True) -> None:
        self.log = open_log(MemoryFiles(), signal=TRACES, segment_bytes=4000) if logged else None
        loop = asyncio.new_event_loop()
        loop.close()
        self.store = Store(TRACES, Ring(TRACES, capacity, 1 << 24), self.log, loop)
        self.spans: list[Span] = []
        chance = Random(seed)
        for _ in range(requests):
            self.append([random_span(chance) for _ in range(chance.randint(1, 6))])

    def append(self, spans: list[Span]) -> None:
        """What a commit does."""
        payload = request(spans).SerializeToString()
        block = scan(TRACES, payload, self.store.ring.next_offset)
        if self.log is not None:
            self.log.append([payload], block.count, block.min_time, block.max_time)
        self.store.ring.append(block)
        self.spans += spans

    @property
    def readable(self) -> list[tuple[int, Span]]:
        """What can be read: (offset, span)."""
        with self.store.view() as view:
            return [(offset, span) for offset, span in enumerate(self.spans) if offset >= view.first_offset]


def random_span(chance: Random) -> Span:
    start = chance.randint(1000, 1200)
    return Span(
        trace=chance.randint(1, 5).to_bytes(16, "big" if chance.random() < 0.5 else "little"),
        id=chance.randint(1, 12).to_bytes(8, "big"),
        parent=chance.choice([b"", chance.randint(1, 12).to_bytes(8, "big")]),
        service=chance.choice(SERVICES),
        name=chance.choice(NAMES),
        kind=chance.randint(0, 5),
        start=start,
        end=max(0, start + chance.randint(-2, 50)),
        status=chance.randint(0, 2),
        code=chance.choice([None, 200, 500]),
    )


def request(spans: list[Span]) -> Any:
    made = TRACES.request_type()
    for span in spans:
        envelope = made.resource_spans.add()
        if span.service:
            envelope.resource.attributes.add(key="service.name").value.string_value = span.service
        one = envelope.scope_spans.add().spans.add(
            trace_id=span.trace,
            span_id=span.id,
            parent_span_id=span.parent,
            name=span.name,
            kind=span.kind,
            start_time_unix_nano=span.start,
            end_time_unix_nano=span.end,
        )
        one.status.code = span.status
        if span.code is not None:
            one.attributes.add(key="code").value.int_value = span.code
    return made
