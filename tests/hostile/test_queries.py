"""S7: 500 hostile queries. Each ends within its time limit, in bounded memory, and never as a defect; others are served.

`make test` asks every fifth of them, `make torture` all (RINGTAIL_TEST_QUERIES_EVERY=1). Time is the daemon's CPU time, with one query at a time: a loaded machine makes no difference to it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from collector.otlp.signals import SIGNALS
from collector.testing.otlp import BUILDERS, TIME_NS
from tests.daemon import Daemon
from tests.hostile.resident import cpu_seconds, growth

TIMEOUT_S = 2.0
MARGIN_S = 1.0
GROWTH_MAX = 256 << 20
EVERY = int(os.environ.get("RINGTAIL_TEST_QUERIES_EVERY", "5"))
NOW_S = TIME_NS // 10**9
CENTURY_S = 100 * 365 * 86_400

# Regular expressions that take exponential time, or much memory, where they are not matched in linear time.
EXPRESSIONS = (
    "(a+)+$", "(a|a)*$", "(a|aa)+$", "([a-zA-Z]+)*$", "(.*a){25}", "(.*)*(.*)*(.*)*x", "(x+x+)+y", "(?:(?:a*)*)*b",
    "a{1000}", "(a{30}){30}", "((a{100}){100}){100}", "(?i)(k|\u212a|s|\u017f){1000}", "[\\p{L}\\p{N}]{900}", ".{1000}",
    "(" * 900 + "a" + ")" * 900, "(" * 1100 + "a" + ")" * 1100, "a" * 20_000, "|".join(f"w{i}" for i in range(3000)),
    "(?P<a>x)" * 500, "\\b" * 5000, "[^\\x00-\\x{10FFFF}]", "(?=a)", "(a)\\1", "(?<=a)b", "x*" * 2000, "^" * 5000 + "a",
    "(.|.|.|.)*" * 40, "(a?){200}a{200}", "\\pZ*\\PZ*" * 200, "(?s).*" * 300, "\x00", "\u202e", "[", "(?", "\\", "*",
)  # fmt: skip


def quoted(text: str) -> str:
    """A text as a literal of all three languages."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def queries() -> Iterator[str]:
    """Yield targets: a path and what it is asked."""
    for expression in EXPRESSIONS:
        text = quoted(expression)
        for query in (
            f"{{ name =~ {text} }}",
            f"{{ .db.query.text !~ {text} || resource.service.name =~ {text} }}",
        ):
            yield tempo(query)
        for query in (
            f'{{service_name=~".+"}} |~ {text}',
            f'{{service_name=~".+"}} !~ {text} |~ {text} |~ {text}',
            f"{{service_name=~{text}}}",
            f'{{service_name=~".+"}} | thread_name =~ {text}',
            f'sum by (level) (count_over_time({{service_name=~".+"}} |~ {text} [5m]))',
            f'label_replace(rate({{service_name=~".+"}}[1m]), "a", "$1", "b", {text})',
        ):
            yield loki(query)
        for query in (
            f"{{__name__=~{text}}}",
            f"sum(rate({{__name__=~{quoted('.+')},instance!~{text}}}[5m]))",
            f'label_replace(up, "a", "$1", "b", {text})',
        ):
            yield prometheus(query)
        yield f"/api/v1/series?match[]={quote(f'{{__name__=~{text}}}')}"
        yield f"/loki/api/v1/series?match[]={quote(f'{{service_name=~{text}}}')}"
    yield from deep()
    yield from large()


def tempo(query: str, **more: object) -> str:
    return f"/api/search?q={quote(query)}&start=1&end={NOW_S + 100}{parameters(more)}"


def loki(query: str, **more: object) -> str:
    more = {"start": TIME_NS - 3600 * 10**9, "end": TIME_NS + 10**9, "limit": 5000, "step": "60s", **more}
    return f"/loki/api/v1/query_range?query={quote(query)}{parameters(more)}"


def prometheus(query: str, **more: object) -> str:
    more = {"start": NOW_S - 3600, "end": NOW_S, "step": 15, **more}
    return f"/api/v1/query_range?query={quote(query)}{parameters(more)}"


def parameters(more: dict[str, object]) -> str:
    return "".join(f"&{name}={quote(str(value))}" for name, value in more.items())


def deep() -> Iterator[str]:
    """Yield queries that nest, or go on, for long."""
    for count in (100, 1000, 10_000):
        yield tempo("{ " + "(" * count + ".a" + ")" * count + " }")
        yield tempo("{ " + "!" * count + ".a }")
        yield tempo("{ " + "-" * count + "1 = 1 }")
        yield tempo("{ .a = 1 } | count() > " + "-" * count + "1")
        yield tempo("{ 1" + " ^ 1" * count + " = 1 }")
        yield tempo("{ .a" + " && .a" * count + " }")
        yield tempo("{ .a" + " + 1" * count + " = 2 }")
        yield tempo("{}" + " >> {}" * count)
        yield tempo("(" * count + "{}" + ")" * count)
        yield tempo("{ span." + '"a"' * count + " = 1 }")
        for opening, closing in (("(", ")"), ("sum(", ")"), ("-", ""), ("abs(", ")")):
            yield prometheus(opening * count + "x" + closing * count)
            yield loki(opening * count + 'rate({a="b"}[1m])' + closing * count)
        for operator in ("+", "^", "or", "and", "unless", "=="):
            yield prometheus("x" + f" {operator} x" * count)
            yield loki('rate({a="b"}[1m])' + f' {operator} rate({{a="b"}}[1m])' * (count // 10))
        yield prometheus("x" + "[1d:1h]" * count)
        yield prometheus("{" + ",".join(f'a{i}=~".*x.*"' for i in range(count // 10)) + "}")
        yield loki('{a="b"}' + ' |= "x"' * count)
        yield loki('{service_name=~".+"}' + ' |~ ".*"' * (count // 10))
        yield loki('{service_name=~".+"} | ' + "(" * count + 'a="b"' + ")" * count)


def large() -> Iterator[str]:
    """Yield queries for much: limits, ranges, steps, numbers."""
    # Stages of LogQL that loop, grow, or nest.
    for stages in (
        "| line_format `{{ range 9999999 }}{{ range 9999999 }}x{{ end }}{{ end }}` |= `y`",
        "| line_format `{{ $x := __line__ }}{{ range 60 }}{{ $x = print $x $x }}{{ end }}{{ $x }}` |= `y`",
        "| label_format a=`{{ repeat 999999999 __line__ }}` | a=`y`",
        '| label_format a=`{{ printf "%999999999d" 1 }}` | a=`y`',
        '| line_format `{{ regexReplaceAll "(a*)*(b|)*" __line__ "${1}${1}" }}` |= `y`',
        '| line_format `{{ replace "" __line__ __line__ }}` |= `y`',
        '| line_format `{{ fromJson (repeat 99999 "[") }}` |= `y`',
        "| label_format "
        + ",".join(f"a{i}=`{{{{ .a{i - 1} }}}}{{{{ .a{i - 1} }}}}`" for i in range(1, 90))
        + " | a89=`y`",
        " ".join(f"| label_format b{i}=`{{{{ .b{i - 1} }}}}x`" for i in range(1, 60)) + " | b59=`y`",
        "| json " * 90 + "| x=`y`",
        "| logfmt a=`b` " * 90 + "| x=`y`",
        "| json | line_format `{{ . }}` " * 30 + "|= `y`",
        "| pattern `" + "<_>e" * 5000 + "<x>` | x=`y`",
        "| regexp `(?P<x>(.*)*)` | x=`y`",
        "|> `" + "<_>e" * 5000 + "`",
        "|= ip(`0.0.0.0/0`) or ip(`::/0`)",
        "| json x=`" + "[0]" * 60 + "` | x=`y`",
        "| unpack | decolorize " * 40 + "|= `y`",
        "| line_format `" + "{{ if .a }}" * 30 + "x" + "{{ end }}" * 30 + "` |= `y`",
        "| line_format `" + "{{ (" * 500 + "` |= `y`",
    ):
        yield loki('{service_name=~".+"} ' + stages)
        yield loki(f'sum by (x) (count_over_time({{service_name=~".+"}} {stages} [5m]))')
    for number in (
        "1e9",
        "1000000000",
        "9" * 18,
        "9" * 400,
        "9" * 5000,
        "-1",
        "0",
        "1e400",
        "nan",
        "\u0663",
        "0x10",
        "\u00b2",
    ):
        yield tempo("{}", limit=number)
        yield tempo("{}", spss=number)
        yield f"/api/search?q=%7B%7D&start={quote(number)}&end={quote(number)}"
        yield f"/api/search?q=%7B%7D&minDuration={quote(number)}s&maxDuration={quote(number)}h"
        yield loki('{service_name=~".+"}', limit=number)
        yield loki('count_over_time({service_name=~".+"}[1s])', step=number)
        yield loki('{service_name=~".+"}', start=number, end=number)
        yield prometheus("x", step=number)
        yield prometheus("x", start=number, end=number)
        yield prometheus(f'topk({number}, {{__name__=~".+"}})')
        yield prometheus(f"x[{number}]")
        yield prometheus(f"rate(x[{number}y]) offset {number}w @ {number}")
        yield f"/api/v1/labels?limit={quote(number)}"
        yield f"/api/v1/query?query=1&time={quote(number)}"
        yield tempo(f"{{ duration > {number}s || .a = {number} || .b < {number}h }}")
        yield tempo(f"{{ span:duration + {number} * {number} > {number} }}")
    # What PromQL can nest, double or match many times.
    for query in (
        "sum_over_time(" * 6 + '{__name__=~".+"}' + "[1h:1s])" * 6,
        'mad_over_time(avg_over_time({__name__=~".+"}[1d:1s])[1d:1s])',
        'quantile_over_time(0.5, {__name__=~".+"}[1d:2s])',
        'stddev_over_time((time() + 0 * {__name__=~".+"})[1d:1s])',
        'double_exponential_smoothing({__name__=~".+"}[1d:1s], 0.5, 0.5)',
        'predict_linear(deriv({__name__=~".+"}[1h:1s])[1d:1s], 1e300)',
        'absent_over_time({__name__=~".+"}[100y:1s])',
        'count_values("v", rate({__name__=~".+"}[1h]) * time())',
        'max_over_time(count_values("v", {__name__=~".+"} * time())[1d:1s])',
        "label_replace(" * 60 + '{__name__=~".+"}' + ', "a", "x$1$1", "a", "(.*)")' * 60,
        "label_join(" * 40 + '{__name__=~".+"}' + ', "a", "", "a", "a", "a", "le")' * 40,
        'label_replace({__name__=~".+"}, "a", "' + "$1" * 20_000 + '", "__name__", "(.*)")',
        '{__name__=~".+"} * on () group_left (le) {__name__=~".+"}',
        '{__name__=~".+"} - ignoring (le, __name__) group_right {__name__=~".+"}',
        'histogram_quantile(time() % 2, {__name__=~".+"})',
        'histogram_fraction(-Inf, time(), rate({__name__=~".+"}[1h]))',
        'topk(1e18, {__name__=~".+"}) and bottomk(5, {__name__=~".+"}) and limitk(5, {__name__=~".+"})',
        'quantile(time(), {__name__=~".+"}) + limit_ratio(-0.5, {__name__=~".+"})',
        'sort_by_label({__name__=~".+"}, ' + ", ".join(['"le"'] * 90) + ")",
        'year({__name__=~".+"} * 1e300) + days_in_month({__name__=~".+"} / 0)',
    ):
        yield prometheus(query)
        yield prometheus(query, start=NOW_S - 10_000, end=NOW_S, step=1)
        yield f"/api/v1/query_exemplars?query={quote(query)}"
    for step in ("1ms", "0.001", "1ns", "1s"):
        yield prometheus('{__name__=~".+"}', start=NOW_S - CENTURY_S, end=NOW_S, step=step)
        yield prometheus("1", start=0, end=CENTURY_S, step=step)
        yield loki('rate({service_name=~".+"}[100y])', start=0, end=TIME_NS, step=step)
    for query in (
        'sum({__name__=~".+"}) by (instance) + on(instance) group_left sum({__name__=~".+"}) by (instance)',
        '{__name__=~".+"} * ignoring(le) {__name__=~".+"}',
        'quantile_over_time(0.5, {__name__=~".+"}[100y])',
        'stddev_over_time({__name__=~".+"}[1h])',
        'count({__name__=~".+"}) without (instance, le) or {__name__=~".+"} unless {__name__=~".*"}',
    ):
        yield prometheus(query, start=NOW_S - 10_000, end=NOW_S, step=1)
    yield tempo("{ .a = " + quoted("x" * 60_000) + " }")
    yield loki('{service_name=~".+"} |= ' + quoted("x" * 60_000))
    yield prometheus("{" + ",".join(f"a{i}={quoted('x' * 50)}" for i in range(800)) + "}")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(
        tmp_path_factory.mktemp("queries"),
        f"query.timeout={int(TIMEOUT_S)}s",
        "query.threads=1",
        "wal.sync=never",
        *(f"stores.{signal.name}.capacity=20000" for signal in SIGNALS),
        *(f"stores.{signal.name}.max_bytes=64MiB" for signal in SIGNALS),
        allow=("library",),  # uvicorn's, about request lines over 64 KiB
    ) as made:
        for signal in SIGNALS:
            for seed in range(10):
                body = BUILDERS[signal](1000, seed=seed, time_ns=TIME_NS - seed * 10**9)
                assert made.export(f"/v1/{signal.name}", body).code == 200
        yield made


def test_hostile_queries_end_and_others_are_served(daemon: Daemon) -> None:
    asked = list(dict.fromkeys(queries()))
    assert len(asked) >= 500
    ended = threading.Event()
    refused: list[object] = []

    def others() -> None:
        while not ended.wait(0.2):
            for answer in (daemon.export("/v1/traces", BUILDERS[SIGNALS[0]](1)), daemon.get("/healthz")):
                if answer.code != 200:
                    refused.append(answer)

    beside = threading.Thread(target=others)
    beside.start()
    codes: dict[int, int] = {}
    try:
        for target in asked[::EVERY]:
            before = cpu_seconds(daemon)
            with growth(daemon) as grown:
                answer = daemon.get(target)
            assert answer.code in (200, 400, 413, 414, 422, 431, 503, 504), (
                target[:300],
                answer.code,
                answer.body[:300],
            )
            assert cpu_seconds(daemon) - before < TIMEOUT_S + MARGIN_S, target[:300]
            assert grown.bytes < GROWTH_MAX, (grown.bytes >> 20, target[:300])
            codes[answer.code] = codes.get(answer.code, 0) + 1
    finally:
        ended.set()
        beside.join()
    assert not refused
    assert codes[200] * EVERY > 50, codes
    assert codes[400] * EVERY > 50, codes
