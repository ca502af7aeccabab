"""S4: request lines that nobody would write. Every one gets an answer or the connection's end, and none is a defect."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from random import Random

import structlog
from prometheus_client import CollectorRegistry

from collector.api.app import create_app
from collector.clock import SystemClock
from collector.otlp.signals import SIGNALS
from collector.query.engine import Engine
from collector.ring.ring import Ring
from collector.store import Store
from tests.api.asgi import call
from tests.effort import Effort
from tests.receivers.doubles import Receiving
from tests.receivers.wire import Client

METHODS = (
    "GET",
    "POST",
    "PUT",
    "HEAD",
    "OPTIONS",
    "DELETE",
    "TRACE",
    "CONNECT",
    "PATCH",
    "PRI",
    "M-SEARCH",
    "get",
    "POST\t",
    "",
)
PATHS = (
    "/",
    "/v1/traces",
    "/v1/logs",
    "/v1/metrics",
    "/v1development/profiles",
    "*",
    "http://h/v1/logs",
    "//v1/traces",
    "",
)
VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.11", "http/1.1", "HTTP/1.", "")
PARTS = (
    *(
        "%",
        "%2e%2e",
        "%00",
        "%zz",
        "..",
        "/",
        "//",
        "\\",
        "?",
        "#",
        "@",
        ":",
        ";",
        "&",
        "=",
        "+",
        " ",
        "\t",
        "\0",
        "\x7f",
    ),
    *(
        "\x85",
        "ÿ",
        "{}",
        "[::1]",
        "a" * 300,
        "%25" * 50,
        "?q={}",
        "/api/traces/",
        "\r",
        "<script>",
        "${jndi:x}",
        "../" * 20,
    ),
)
API = (
    "/api/search",
    "/api/v2/traces/",
    "/loki/api/v1/query",
    "/api/v1/query_range",
    "/metrics",
    "/api/stats",
    "/healthz",
    "/-/",
)
EXPECTED = frozenset({200, 400, 404, 405, 413, 415, 417, 431, 505})


def line(chance: Random) -> bytes:
    """A request line: one that is right with damage, or one of parts."""
    method, path, version = (
        chance.choice(METHODS + METHODS[:3] * 8),
        chance.choice(PATHS),
        chance.choice((*VERSIONS, *VERSIONS[:1] * 8)),
    )
    for _ in range(chance.choice((0, 1, 1, 3, 8))):
        at = chance.randint(0, len(path))
        path = path[:at] + chance.choice(PARTS) + path[at:]
    data = bytearray(f"{method} {path} {version}\r\n".encode("latin-1"))
    for _ in range(chance.choice((0, 0, 0, 1, 4))):
        at = chance.randrange(len(data))
        data[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        data = data or bytearray(b"x")
    return bytes(data)


def test_methods_and_targets_of_otlp_over_http(effort: Effort) -> None:
    chance = effort.chance()
    loop = asyncio.new_event_loop()
    receiving = Receiving(loop)
    codes: Counter[int] = Counter()
    count = effort.times(30_000, 1_000_000)
    for _ in range(count):
        client = Client(receiving)
        data = line(chance) + b"Host: h\r\nContent-Length: 0\r\n\r\n"
        client.send(data, chance.choice((1 << 20, 1 << 20, 7)))
        answers = [int(one) for one in re.findall(rb"HTTP/1\.1 (\d\d\d) ", bytes(client.transport.written))]
        assert set(answers) <= EXPECTED, (data, answers)
        assert answers or client.transport.closed or b"\r\n\r\n" not in data[:-4], data
        codes[answers[0] if answers else 0] += 1
        client.close()
    loop.close()
    assert receiving.admission.in_flight_bytes == 0
    assert "request failed" not in [event for event, _ in receiving.logger.events]
    assert min(codes[404], codes[405], codes[400]) > count // 100
    effort.report("S4", lines=count, answers={str(code): number for code, number in sorted(codes.items())})


async def test_methods_and_targets_of_the_query_api(effort: Effort) -> None:
    chance = effort.chance()
    engine = Engine(1, 10.0, SystemClock())
    stores = {one.name: Store(one, Ring(one, 10, 1 << 20), None, asyncio.get_running_loop()) for one in SIGNALS}
    app = create_app(stores, engine, CollectorRegistry(), list, dict, dict, structlog.get_logger())
    codes: Counter[int] = Counter()
    count = effort.times(3000, 100_000)
    for _ in range(count):
        path = chance.choice(API)
        for _ in range(chance.choice((0, 1, 2, 5))):
            path += chance.choice(PARTS)
        answer = await call(app, path, {chance.choice(("q", "query", "limit")): chance.choice(PARTS)},
                            method=chance.choice(METHODS[:9]))  # fmt: skip
        assert answer.status < 500, (path, answer)
        codes[answer.status] += 1
    engine.close()
    assert codes[404] > count // 10
    effort.report("S4", requests=count, answers={str(code): number for code, number in sorted(codes.items())})
