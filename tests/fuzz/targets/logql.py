"""LogQL: any text is a query that prints as itself and runs, or an InvalidQuery whose place lies in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache

import numpy as np

from collector.clock import SystemClock
from collector.errors import InvalidQuery, QueryLimit, QueryTimeout
from collector.query.deadline import Deadline
from collector.query.logql import ast
from collector.query.logql.logs import read_lines
from collector.query.logql.metrics import evaluate
from collector.query.logql.parser import parse
from collector.query.logql.plan import prepare
from collector.query.logql.source import Statistics
from collector.store import Store
from collector.testing import otlp
from tests.fuzz.target import Target
from tests.fuzz.texts import pieces, text_of
from tests.query.logql.logs import store_of

QUERIES = (
    '{service_name="checkout"} |= "order" != `x` |~ "a.b" !~ "(?i)c"',
    '{a=~".+",b!~"c|d"} | json x="y[0].z", w | logfmt --strict | level="error" or n > 5 and d >= 1h30m',
    '{a="b"} | pattern "<_> <x>" | regexp "(?P<y>.)" | line_format "{{.x}}" | label_format z=y,w="{{.x}}"',
    '{a="b"} | drop x, y=~"z" | keep w | decolorize | unpack',
    'sum by (level) (count_over_time({service_name=~"c.*"}[5m] offset 1h))',
    'topk(5, rate({a="b"} | unwrap bytes(size) [1m]) ) > bool 1.5e3',
    'quantile_over_time(0.99, {a="b"} | unwrap duration(d) | __error__="" [2h]) by (x)',
    'label_replace(vector(-1), "a", "$1", "b", "(.*)") and on(a) rate({c="d"}[1d])',
    "vector(1) + 2 * 3 ^ -4 % 0x1F",
    '{a="b"} | x = 20KB or y != 1.5MiB | ip("10.0.0.0/8") # comment',
    '{a="\\u00e9\\x41\\101"}',
    '{service_name=~".+"} |> "<_> x <_>" | logfmt a="b", c | json x="a[0].b" | a > 5 and b < 1KB or c != 2s | keep a, b="c"',
    '{service_name=~".+"} | line_format `{{ if .a }}{{ .b | upper }}{{ else }}{{ __line__ }}{{ end }}` |= ip("::1") or "x"',
)
_STEPS = np.arange(0, 10, dtype=np.int64) * 10_000_000_000 + otlp.TIME_NS - 60_000_000_000


@cache
def _store() -> Store:
    return store_of([otlp.logs(16, seed=seed) for seed in range(2)])


def _check(data: bytes) -> None:
    text = text_of(data)
    try:
        tree = parse(text)
    except InvalidQuery as error:
        str(error).encode()
        assert error.position is None or 0 <= error.position <= len(text)
        return
    assert parse(str(tree)) == tree
    deadline = Deadline(0.5, SystemClock())
    statistics = Statistics()
    try:
        plan = prepare(text)
        with ExitStack() as released:
            views = {
                service: released.enter_context(_store().view("service", service) if service else _store().view())
                for service in plan.services
            }
            if isinstance(plan.expression, ast.LogQuery):
                source = plan.sources[plan.expression]
                read_lines(deadline, views[source.selection.service], source, 0, 2**63, 10, False, statistics)
            else:
                evaluate(deadline, views, plan, _STEPS, statistics)
    except (InvalidQuery, QueryLimit, QueryTimeout):
        pass


def _seeds() -> Iterator[bytes]:
    for query in QUERIES:
        yield query.encode()


TARGETS = [Target("logql", _check, _seeds, pieces(QUERIES), length_max=1024)]
