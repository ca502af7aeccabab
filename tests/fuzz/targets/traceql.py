"""TraceQL: any text is a query that runs, or an InvalidQuery whose place lies in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache

from collector.clock import SystemClock
from collector.errors import InvalidQuery, QueryLimit, QueryTimeout
from collector.otlp.signals import TRACES
from collector.query.deadline import Deadline
from collector.query.traceql import metrics
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import plan
from collector.query.traceql.search import Search, describe, find
from collector.query.traceql.series import Steps
from collector.query.traceql.stages import is_metrics
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing import otlp
from tests.fuzz.target import Target
from tests.fuzz.texts import pieces, text_of

QUERIES = (
    "{}",
    '{ .a = 1 && resource.service.name = "checkout" }',
    '{ span."http.route" =~ "/a.*" || name != "x" } | count() > 2',
    "{ duration > 1m30s && status = error } >> { kind = server }",
    "{ .a } &>> { .b } | by(resource.service.name) | avg(duration) >= 1.5s",
    "{ traceDuration > 1s } | select(.a, span:id)",
    "{ -(.a + 1) * 2 ^ 3 % 4 < 5 - .b / 1e3 }",
    "{ event:name = nil } | rate() by(.x) with(exemplars=true)",
    "{ parent.span.a != nil && !(.b = true) } ~ { rootName = `x` }",
    "{ true } | quantile_over_time(duration, .9, .95) by(name) | topk(10)",
    "{ .a = 9223372036854775807 }",
    "{ .a } | compare({ status = error }, 3)",
    "{ childCount > 1 } !~ { nestedSetLeft < 5 } | coalesce() | histogram_over_time(duration) > 2",
    "({ link:traceID != nil } | sum(.b) > 1) &<< { event:timeSinceStart > 1ms }",
)


@cache
def _store() -> Store:
    loop = asyncio.new_event_loop()
    store = Store(TRACES, Ring(TRACES, 1000, 1 << 22), None, loop)
    for seed in range(2):
        loop.run_until_complete(store.append(otlp.traces(16, seed=seed)))
    loop.close()
    return store


def _check(data: bytes) -> None:
    text = text_of(data)
    try:
        query = parse(text)
        plan(query)
    except InvalidQuery as error:
        str(error).encode(errors="surrogatepass")
        assert error.position is None or 0 <= error.position <= len(text)
        return
    deadline = Deadline(0.5, SystemClock())
    search = Search(query, 5, 3)
    with _store().view() as view:
        try:
            if is_metrics(query):
                steps = Steps.over(otlp.TIME_NS, otlp.TIME_NS + 2 * 10**9, 10**9)
                metrics.run(deadline, view, view, query, steps, 10)
            else:
                found, _ = find(deadline, view, view, search)
                describe(deadline, view, found, search)
        except (InvalidQuery, QueryLimit, QueryTimeout):
            pass


def _seeds() -> Iterator[bytes]:
    for query in QUERIES:
        yield query.encode()


TARGETS = [Target("traceql", _check, _seeds, pieces(QUERIES), length_max=1024)]
