"""The questions of `make bench-query`, their goals, and what peers took for them.

A question makes another request each time, of the same kind, so that no answer is anybody's cache. `check` tells of an
answer whether it is one: a benchmark of wrong answers would mean nothing.

Peers were measured on the machine of the project's own figures with 1,024,000 spans of 414 B, or log records of 296 B,
warm, p50, over HTTP with keep-alive: Jaeger in memory, VictoriaTraces and Tempo, VictoriaLogs and Loki, as of autumn 2026.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from collector.otlp.signals import LOGS, TRACES, Signal
from collector.testing.otlp import TRACE_SPANS
from tests.benchmarks.asking import target
from tests.benchmarks.shop import DIGITS, ROOT_SERVICE
from tests.benchmarks.workload import SERVICES

NEWEST: Final = 20
HOUR_S: Final = 3600


@dataclass(slots=True)
class Facts:
    """What there is to ask about."""

    ids: list[bytes] = field(default_factory=list)
    """Ids of traces, 16 bytes each."""
    begin_s: int = 0
    end_s: int = 0
    """Unix seconds that enclose all records."""
    rare: dict[str, list[str]] = field(default_factory=dict)
    """Some customers and tickets that there are."""


@dataclass(frozen=True, slots=True)
class Question:
    """One row of the table."""

    what: str
    ask: Callable[[Facts, Random], str]
    """Makes a request's target."""
    check: Callable[[bytes], bool]
    """Tells whether an answer is right, as far as that is known."""
    goal: float | None = None
    """p50 in ms in the ring, warm."""
    log_goal: float | None = None
    """The same in the log."""
    peers: Sequence[float | None] = ()
    accept: str = ""
    worst: float | None = None
    """What the slowest answer in the ring may take, in ms, the first after a start among them."""


def _search(query: str, facts: Facts, limit: int = NEWEST) -> str:
    return target("/api/search", q=query, limit=limit)


def _trace(facts: Facts, chance: Random) -> str:
    return f"/api/traces/{chance.choice(facts.ids).hex()}"


def _spans_json(body: bytes) -> bool:
    batches = json.loads(body)["batches"]
    return sum(len(scope["spans"]) for batch in batches for scope in batch["scopeSpans"]) == TRACE_SPANS


def _some_traces(body: bytes) -> bool:
    return bool(json.loads(body)["traces"])


def _full(body: bytes) -> bool:
    return len(json.loads(body)["traces"]) == NEWEST


def _series(body: bytes) -> bool:
    return bool(json.loads(body)["series"])


def _values(body: bytes) -> bool:
    return len(json.loads(body)["tagValues"]) > 1


TRACE_PEERS: Final = ("Jaeger in memory", "VictoriaTraces", "Tempo")
TRACE_QUESTIONS: Final = (
    Question("trace by id, JSON", _trace, _spans_json, 0.6, 20, (0.7, 11, 28)),
    Question("trace by id, protobuf", _trace, lambda body: len(body) > 1000, None, None, (), "application/protobuf"),
    Question(
        f"newest {NEWEST} with one rare attribute value",
        lambda facts, chance: _search(f'{{ span.customer.id = "{chance.choice(facts.rare["customer"])}" }}', facts),
        _some_traces,
        15,
        300,
        (40, 20, 107),
    ),
    Question(
        f"newest {NEWEST} of a service with a common attribute value",
        lambda facts, chance: _search(
            f'{{ resource.service.name = "{chance.choice(SERVICES)}" && span.http.request.method = "POST" }}', facts
        ),
        _full,
        4,
        20,
        (6, 17, 27),
    ),
    Question(
        "regex over an attribute that few match",
        lambda facts, chance: _search(f'{{ span.url.path =~ "/api/products/9{chance.randrange(10)}.*" }}', facts),
        _some_traces,
        150,
    ),
    Question(
        "regex over an attribute that none matches",
        lambda facts, chance: _search(f'{{ span.url.path =~ "/api/nothing/{chance.randrange(1000)}.*" }}', facts),
        lambda body: not _some_traces(body),
        150,
    ),
    Question(
        "two-sided structural query",
        lambda facts, chance: _search(
            f'{{ resource.service.name = "{ROOT_SERVICE}" }} >> '
            f'{{ resource.service.name = "{chance.choice(SERVICES[:-1])}" && status = error }}',
            facts,
        ),
        _full,
        100,
        1500,
    ),
    Question(
        "two-sided structural query with a rare side",
        lambda facts, chance: _search(
            f'{{ span.customer.id = "{chance.choice(facts.rare["customer"])}" }} >> {{ status = error }}', facts
        ),
        lambda body: "traces" in json.loads(body),
        100,
        1500,
    ),
    Question(
        "rate() by (resource.service.name) over an hour",
        lambda facts, chance: target(
            "/api/metrics/query_range",
            q="{ } | rate() by (resource.service.name)",
            start=facts.end_s - HOUR_S,
            end=facts.end_s,
            step="60s",
        ),
        _series,
        50,
    ),
    Question(
        "values of a resource's tag",
        lambda facts, chance: "/api/v2/search/tag/resource.service.name/values",
        _values,
        5,
    ),
    Question(
        "values of a span's tag",
        lambda facts, chance: "/api/v2/search/tag/span.http.route/values",
        _values,
        5,
    ),
    Question(
        "names of tags",
        lambda facts, chance: "/api/v2/search/tags",
        lambda body: bool(json.loads(body)["scopes"]),
        None,
    ),
)


def _lines(query: str, facts: Facts) -> str:
    return target(
        "/loki/api/v1/query_range",
        query=query,
        start=facts.begin_s,
        end=facts.end_s,
        limit=NEWEST,
        direction="backward",
    )


def _count(body: bytes) -> int:
    found: list[dict[str, Any]] = json.loads(body)["data"]["result"]
    return sum(len(stream["values"]) for stream in found)


def _some_lines(body: bytes) -> bool:
    return _count(body) > 0


def _all_lines(body: bytes) -> bool:
    return _count(body) == NEWEST


_ALL: Final = '{service_name=~".+"}'
WORST_MS: Final = 500
"""What a search for words may take at the very worst."""
LOG_PEERS: Final = ("VictoriaLogs", "Loki")
LOG_QUESTIONS: Final = (
    Question(
        f"newest {NEWEST} with a rare word in the body",
        lambda facts, chance: _lines(f'{_ALL} |= "{chance.choice(facts.rare["ticket"])}"', facts),
        _some_lines,
        2,
        100,
        (4.7, 109),
        worst=WORST_MS,
    ),
    Question(
        f"newest {NEWEST} with a common word in the body",
        lambda facts, chance: _lines(f'{_ALL} |= "retrying"', facts),
        _all_lines,
        2,
        worst=WORST_MS,
    ),
    Question(
        "a word that no body has",
        lambda facts, chance: _lines(f'{_ALL} |= "nowhere{chance.randrange(1000)}"', facts),
        lambda body: not _some_lines(body),
        2,
        worst=WORST_MS,
    ),
    Question(
        f"newest {NEWEST} with one rare attribute value",
        lambda facts, chance: _lines(f'{_ALL} | customer_id = "{chance.choice(facts.rare["customer"])}"', facts),
        _some_lines,
        2,
        None,
        (3.8, 99),
        worst=WORST_MS,
    ),
    Question(
        f"newest {NEWEST} of a service with a common value",
        lambda facts, chance: _lines(f'{{service_name="{chance.choice(SERVICES)}"}} | detected_level = "error"', facts),
        _all_lines,
        4,
        None,
        (20, 100),
    ),
    Question(
        "two words, one of them rare",
        lambda facts, chance: _lines(
            f'{_ALL} |= "{chance.choice(facts.rare["ticket"])}" |= "customer notified"', facts
        ),
        lambda body: "result" in json.loads(body)["data"],
        5,
        worst=WORST_MS,
    ),
    Question(
        "two common words that stand apart",
        lambda facts, chance: _lines(f'{_ALL} |= "order" |= "payment"', facts),
        lambda body: "result" in json.loads(body)["data"],
        None,
        worst=WORST_MS,
    ),
    Question(
        "an expression for a rare word, blind to case",
        lambda facts, chance: _lines(
            f'{_ALL} |~ "(?i)(TICKET|order)-{chance.choice(facts.rare["ticket"])[-DIGITS:]}"', facts
        ),
        _some_lines,
        None,
        worst=WORST_MS,
    ),
    Question(
        "the lines of a trace by its id",
        lambda facts, chance: _lines(f'{_ALL} | trace_id = "{chance.choice(facts.ids).hex()}"', facts),
        _some_lines,
        None,
        worst=WORST_MS,
    ),
    Question(
        "sum by (level) (count_over_time(…[1m])) over everything",
        lambda facts, chance: target(
            "/loki/api/v1/query_range",
            query=f"sum by (detected_level) (count_over_time({_ALL}[1m]))",
            start=facts.begin_s,
            end=facts.end_s + 60,
            step="60",
        ),
        _some_lines,
        200,
    ),
    Question(
        "values of the label service_name",
        lambda facts, chance: target("/loki/api/v1/label/service_name/values", start=facts.begin_s, end=facts.end_s),
        lambda body: len(json.loads(body)["data"]) == len(SERVICES),
        None,
    ),
)


@dataclass(frozen=True, slots=True)
class Signals:
    """One signal's table."""

    signal: Signal
    questions: Sequence[Question]
    peers: Sequence[str]
    memory_mb: float
    """The goal for a million records."""
    memory_peers: str


TABLES: Final = (
    Signals(TRACES, TRACE_QUESTIONS, TRACE_PEERS, 650, "Jaeger 1,990, VictoriaTraces 420, Tempo 2,200"),
    Signals(LOGS, LOG_QUESTIONS, LOG_PEERS, 600, ""),
)
