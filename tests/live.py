"""Three stores with real logs in this process, and everything that tails them, on real sockets.

async with Live(tmp_path) as live:
    await live.send(3, service="shop")          # offsets that were appended: range(a, b)
    async with live.sse("q={}") as events:      # an HTTP client: reads when told to
        event = await events.next()
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import structlog
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from prometheus_client import CollectorRegistry

from collector.api.app import create_app
from collector.api.grpc import QueryListener, Served
from collector.api.loki_push import PushDoor
from collector.api.server import ApiServer
from collector.clock import SystemClock
from collector.otlp.signals import LOGS, SIGNALS
from collector.query.engine import Engine
from collector.query.tails import Tails
from collector.receivers.admission import Admission
from collector.receivers.export import Destination, Receiver, ReceiverMetrics
from collector.ring.ring import Ring
from collector.store import Store
from collector.wal.commit import Committer
from collector.wal.files import OperatingSystemFiles
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics

PATIENCE_S = 30.0


def payload(numbers: Iterator[int], count: int, service: str = "shop", padding: int = 0, scopes: int = 1) -> bytes:
    """A request of spans that have the next numbers, one more as span ids, one after the other over some scopes."""
    data = TracesData()
    envelope = data.resource_spans.add()
    envelope.resource.attributes.add(key="service.name").value.string_value = service
    for each in range(scopes):
        scope = envelope.scope_spans.add()
        scope.scope.name = f"scope {each % 2}"
        for number in itertools.islice(numbers, (count + each) // scopes):
            span = scope.spans.add(trace_id=bytes([number % 7 + 1]) * 16, span_id=(number + 1).to_bytes(8, "big"))
            span.name = f"{'even' if number % 2 == 0 else 'odd'}"
            span.start_time_unix_nano, span.end_time_unix_nano = 10**18 + number, 10**18 + number + 1000
            span.attributes.add(key="number").value.int_value = number
            if padding:
                span.attributes.add(key="padding").value.string_value = "x" * padding
    return data.SerializeToString()


def numbers_of(data: Any) -> list[int]:
    """The numbers of spans as OTLP, in their order."""
    if isinstance(data, bytes):
        data = TracesData.FromString(data)
    if isinstance(data, dict):
        return [
            int(span["spanId"], 16) - 1
            for envelope in data["resourceSpans"]
            for scope in envelope["scopeSpans"]
            for span in scope["spans"]
        ]
    spans: list[Span] = [
        span for envelope in data.resource_spans for scope in envelope.scope_spans for span in scope.spans
    ]
    return [int.from_bytes(span.span_id, "big") - 1 for span in spans]


class Event(NamedTuple):
    name: str
    id: str
    data: Any


class Events:
    """A client of server-sent events, as simple as can be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.last_id = ""
        self._body = b""

    async def head(self) -> Self:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        return self

    async def rest(self) -> str:
        return (await self.reader.readexactly(int(self.headers["content-length"]))).decode()

    async def next(self) -> Event:
        """The next event, heartbeats passed over; EOFError at the end."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                block = await self._block()
                fields = dict(line.partition(": ")[::2] for line in block.splitlines())
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    return Event(fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"]))

    async def _block(self) -> str:
        while b"\n\n" not in self._body:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            chunk = await self.reader.readexactly(size + 2)
            if not size:
                raise EOFError
            self._body += chunk[:-2]
        block, _, self._body = self._body.partition(b"\n\n")
        return block.decode()


class Live:
    """See the module's docstring."""

    def __init__(
        self, directory: Path, capacity: int = 1000, *, tails_max: int = 8, segment_bytes: int = 1 << 20
    ) -> None:
        self.clock = SystemClock()
        self.registry = CollectorRegistry()
        self.engine = Engine(2, 30.0, self.clock)
        self.tails = Tails(tails_max, self.clock, self.registry)
        self.stores: dict[str, Store] = {}
        self.numbers = itertools.count()
        self._closing: list[Any] = []
        for signal in SIGNALS:
            log = Log.open(
                str(directory),
                signal,
                files=OperatingSystemFiles(),
                clock=self.clock,
                metrics=LogMetrics(CollectorRegistry()),
                logger=structlog.get_logger(),
                segment_bytes=segment_bytes,
            )
            store = Store(signal, Ring(signal, capacity, 1 << 25, log.next_offset), log, asyncio.get_running_loop())
            committer = Committer(log, "never", 1.0, store.committed)
            store.attach(committer)
            self.stores[signal.name] = store
            self._closing += [committer, log]
        self.store = self.stores["traces"]
        self.admission = Admission(1 << 27)
        self.pushes = PushDoor(self.admission)
        destination = Destination(self.stores["logs"])
        self.pushes.open(Receiver(LOGS, "http", lambda name: destination, ReceiverMetrics(self.registry), "loki"))
        self.app = create_app(
            self.stores,
            self.engine,
            self.registry,
            list,
            dict,
            dict,
            structlog.get_logger(),
            tails=self.tails,
            pushes=self.pushes,
        )
        self.api = ApiServer(self.app)
        self.queries = QueryListener(
            lambda name: Served(self.stores, self.engine),
            self.tails,
            Admission(1 << 24),
            self.clock,
            structlog.get_logger(),
        )
        self.port = self.grpc_port = 0

    async def __aenter__(self) -> Self:
        return self

    async def listen(self) -> None:
        """Serve both APIs."""
        self.port = await self.api.start("127.0.0.1", 0)
        self.grpc_port = await self.queries.start("127.0.0.1", 0)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tails.stop()
        await self.queries.stop(1.0)
        await self.api.stop()
        for store in self.stores.values():
            await store.drain()
        self.engine.close()
        self.tails.close()
        self.pushes.close()
        for part in self._closing:
            part.close()

    async def send(self, count: int, **options: Any) -> None:
        """Append a request of so many spans; they are durable then."""
        await self.store.append(payload(self.numbers, count, **options))

    def metric(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(name, labels)
        assert found is not None, name
        return found

    async def until(self, condition: Any) -> None:
        """Let the loop turn until a condition holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - looks into what is tested
                await asyncio.sleep(0.001)

    @asynccontextmanager
    async def sse(
        self, query: str = "", headers: Mapping[str, str] | None = None, limit: int = 2**16
    ) -> AsyncIterator[Events]:
        """An HTTP connection that has asked for a tail."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limit)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=limit)
        lines = [
            f"GET /api/tail?{query} HTTP/1.1",
            "Host: localhost",
            *(f"{a}: {b}" for a, b in (headers or {}).items()),
        ]
        writer.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        try:
            yield await Events(reader, writer).head()
        finally:
            writer.close()
