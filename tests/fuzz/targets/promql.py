"""PromQL: any text is an expression that runs, or an InvalidQuery whose place lies in it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from collector.clock import SystemClock
from collector.errors import InvalidQuery, QueryLimit, QueryTimeout
from collector.query.deadline import Deadline
from collector.query.promql.ast import MatrixSelector
from collector.query.promql.evaluate import evaluate, range_vector
from collector.query.promql.parser import parse, parse_selector
from collector.store import Store
from tests.fuzz.target import Target
from tests.fuzz.texts import pieces, text_of
from tests.query.promql.points import INTERVAL_MS, START_MS, random_series, store_of

QUERIES = (
    'requests_total{code=~"a|b",n!="1"}',
    "sum by (code) (rate(requests_total[5m])) / on(code) group_left(n) temperature",
    "topk(3, max_over_time(temperature[1m:15s] offset -1m @ end()))",
    'histogram_quantile(0.9, sum(rate({"http.server.duration"}[1h])) by (le))',
    'label_replace(temperature, "x", "$1-${2}", "code", "(.)(.)?")',
    "temperature > bool 2 ^ -3 % 4 and ignoring(n) requests_total unless vector(1)",
    'quantile(0.5, temperature) without (code) or absent(nothing{a="b"})',
    'count_values("v", temperature @ 1700000100) atan2 1e3',
    "deriv(temperature[5m]) - Inf + NaN * 0x1F",
    "clamp(sort_desc(temperature), -1, 1)[1d:1h]",
    "time() - timestamp(temperature) # comment",
    '{__name__=~".+"}',
)
_STEPS = np.arange(START_MS, START_MS + 20 * INTERVAL_MS, 30_000, dtype=np.int64)


@cache
def _store() -> Store:
    return store_of(random_series(1, 4, 12))


def _check(data: bytes) -> None:
    text = text_of(data)
    try:
        expression = parse(text)
    except InvalidQuery as error:
        str(error).encode(errors="surrogatepass")
        assert error.position is None or 0 <= error.position <= len(text)
        return
    deadline = Deadline(0.5, SystemClock())
    with _store().view() as view:
        try:
            if isinstance(expression, MatrixSelector):
                range_vector(deadline, view, expression, START_MS)
            else:
                evaluate(deadline, view, expression, _STEPS)
            parse_selector(text)
        except (InvalidQuery, QueryLimit, QueryTimeout):
            pass


def _seeds() -> Iterator[bytes]:
    for query in QUERIES:
        yield query.encode()


TARGETS = [Target("promql", _check, _seeds, pieces(QUERIES), length_max=1024)]
