"""Pipelines over batches, by columns and row by row, against a naive evaluator of one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.otlp.scan import scan
from collector.otlp.signals import LOGS
from collector.query.logql import ast
from collector.query.logql.columns import Batch
from collector.query.logql.labels import Records
from collector.query.logql.layer import StageLayer
from collector.query.logql.parsing import MemberLayer
from collector.query.logql.row import DETAILS
from collector.query.logql.steps import compile_stages, run
from tests.query.logql import naive
from tests.query.logql.logs import SECOND, deadline
from tests.query.logql.trees import some

KEYS = st.sampled_from(
    ["a", "b", "level", "a_b", "service_name", "meta", "a_extracted", "meta_extracted", "x y", "1a", ""]
)
TEXTS = st.sampled_from(["", "x", "12", "-1.5", "1s", "1.5s", "20KB", "3mib", "10.0.0.7", "::1", 'q"\n', "é", "<12>"])
VALUES = st.recursive(
    TEXTS | st.sampled_from([None, True, False, 0, 12, -1.5]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
JSON_LINES = st.builds(
    lambda value, escapes, cut, more: (json.dumps(value, ensure_ascii=escapes)[: cut or None]) + more,
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.booleans(),
    st.sampled_from([0, 0, 0, -1, -2, -5, 9]),
    st.sampled_from(["", "", "", " ", "}", ',"a":1}', " tail"]),
)
WORDS = st.sampled_from(
    [
        "a=x",
        "a=12",
        "b=1.5s",
        'a="q \\"x\\""',
        'level="é \\n"',
        "meta=1",
        "service_name=s",
        "a=",
        "b",
        "a==x",
        'x"y',
        "=z",
        'a="un',
        "a_b=20KB",
        'b="\\q"',
        "a=x,y",
        "a_extracted=e",
        'b=""',
        "x.y=10.0.0.7",
    ]
)
LOGFMT_LINES = st.lists(WORDS, max_size=5).map(" ".join)
PLAIN_LINES = st.sampled_from(
    [
        "",
        " ",
        "x",
        "10.0.0.7 - - [x] 12",
        "\x1b[31mred\x1b[0m",
        "[1,2]",
        '"a"',
        '["a",{"b":1}]',
        "::1 is me",
        "a - b",
        "12 x",
        '{"_entry":"a=12 b","a":"x","level":"y"}',
        '{"_entry":"\\q"}',
        '{"a":tru}',
        '{"a":{"b":[1}}',
    ]
)
LINES = st.lists(JSON_LINES | LOGFMT_LINES | PLAIN_LINES, min_size=1, max_size=6)

NAMES = st.sampled_from(
    ["a", "b", "level", "a_b", "service_name", "meta", "_1a", "x_y", "a_extracted", "meta_extracted"]
)
MATCHERS = st.builds(ast.Matcher, NAMES | st.just("__error__"), st.sampled_from(["=", "!="]), TEXTS) | st.builds(
    ast.Matcher,
    NAMES | st.just("__error__"),
    st.sampled_from(["=~", "!~"]),
    st.sampled_from(["", "x|12", ".+", ".*Err"]),
)
OPERATORS = st.sampled_from(["==", "!=", ">", ">=", "<", "<="])
ADDRESSES = st.sampled_from(["10.0.0.7", "10.0.0.0/8", "10.0.0.1-10.0.0.9", "::1", "::/64", "1.2.3.4"])
CONDITIONS = st.recursive(
    MATCHERS
    | st.builds(ast.NumberFilter, NAMES, OPERATORS, st.sampled_from([0.0, 12.0, -1.5]))
    | st.builds(ast.DurationFilter, NAMES, OPERATORS, st.sampled_from([SECOND, 0]))
    | st.builds(ast.SizeFilter, NAMES, OPERATORS, st.sampled_from([20_000, 12]))
    | st.builds(ast.AddressFilter, NAMES, st.sampled_from(["=", "!="]), ADDRESSES),
    lambda inner: st.builds(ast.And, some(inner, 2)) | st.builds(ast.Or, some(inner, 2)),
    max_leaves=3,
)
EXTRACTIONS = st.builds(
    ast.Extraction, NAMES, st.sampled_from(["a", "b", "a.b", 'a["x y"]', "a[0]", "b[1].a", '["1a"]', "level"])
)
FIELDS = st.builds(ast.Extraction, NAMES, st.sampled_from(["a", "b", "level", "service_name", "x_y"]))
SOURCES = st.sampled_from(sorted(naive.TEMPLATES))
ASSIGNMENTS = st.builds(lambda name, source: ast.LabelAssignment(name, source, False), NAMES, NAMES) | st.builds(
    lambda name, source: ast.LabelAssignment(name, source, True), NAMES, SOURCES
)
STAGES = st.one_of(
    st.just(ast.Json()),
    st.builds(ast.Logfmt, st.booleans(), st.booleans()),
    st.builds(ast.Json, some(EXTRACTIONS, 1, 2).filter(lambda each: len({e.label for e in each}) == len(each))),
    st.builds(ast.Logfmt, st.booleans(), st.booleans(), some(FIELDS, 1, 2).filter(lambda each: len({e.label for e in each}) == len(each))),
    st.builds(ast.Pattern, st.sampled_from(["<a> - <b>", "<_> <a>", "a=<a> <_>", '{"<a>":<level>', "<service_name> <meta>"])),
    st.builds(ast.Regexp, st.sampled_from(["(?P<a>[0-9]+)", "(?P<a>x)|(?P<b>1)", "^(?P<meta>.)(?P<level>.)?"])),
    st.just(ast.Unpack()),
    st.builds(ast.LabelStage, CONDITIONS),
    st.builds(ast.LineFilter, st.sampled_from(["|=", "!="]), some(st.builds(ast.LineOperand, TEXTS) | st.builds(ast.LineOperand, ADDRESSES, st.just(True)), 1, 2)),
    st.builds(ast.LineFilter, st.sampled_from(["|~", "!~"]), some(st.sampled_from(["a|b", "^.", "x$"]).map(ast.LineOperand), 1)),
    st.builds(ast.LineFilter, st.sampled_from(["|>", "!>"]), some(st.sampled_from(["<_>", "", "<_> - <_>", "<_>a<_>", "x", "a=<_>", "<_>}"]).map(ast.LineOperand), 1, 2)),
    st.builds(ast.LineFormat, SOURCES),
    st.builds(ast.LabelFormat, some(ASSIGNMENTS, 1, 3).filter(lambda each: len({e.label for e in each}) == len(each))),
    st.just(ast.Decolorize()),
    st.builds(ast.Drop, some(NAMES | MATCHERS, 1)),
    st.builds(ast.Keep, some(NAMES | MATCHERS, 1)),
)  # fmt: skip
COLUMNS = ["a", "b", "level", "a_b", "service_name", "meta", "_1a", "x_y", "a_extracted", "meta_extracted", "__error__"]


def batch_of(lines: list[str]) -> Batch:
    """Return a batch of lines; each has `service_name` in its stream, every other one `meta` and `level` beside it."""
    records = [
        {
            "time_unix_nano": (place + 1) * SECOND,
            "body": {"string_value": line},
            "attributes": [
                *({"key": key, "value": {"string_value": "12"}} for key in ("meta", "level") if place % 2),
                {"key": "detected_level", "value": {"string_value": "unknown"}},
            ],
        }
        for place, line in enumerate(lines)
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"string_value": "s"}}]}
    request = LOGS.request_type(resource_logs=[{"resource": resource, "scope_logs": [{"log_records": records}]}])
    block = scan(LOGS, request.SerializeToString(), 0)
    return Batch(block, np.arange(block.count), Records())


def naive_lines(lines: list[str]) -> list[naive.Line]:
    """Return the same lines for the naive evaluator."""
    found = []
    batch = batch_of(lines)
    for place, line in enumerate(lines):
        labels = {"service_name": ("stream", "s")}
        for name in ("meta", "level") if place % 2 else ():
            labels[name] = ("metadata", "12")
        labels["detected_level"] = ("metadata", batch.labels(place)["detected_level"])  # test_levels.py has these
        found.append(naive.Line(line, frozenset(["service_name"]), labels))
    return found


def test_the_batches_are_what_the_naive_evaluator_takes_them_for() -> None:
    lines = ["x", "y"]
    assert [batch_of(lines).labels(place) for place in range(2)] == [line.everything() for line in naive_lines(lines)]


@given(lines=LINES, stages=some(STAGES, 1, 4))
def test_pipelines_are_what_the_naive_evaluator_makes(lines: list[str], stages: tuple[ast.Stage, ...]) -> None:
    batch = run(compile_stages(stages, 0), batch_of(lines), deadline())
    expected = [(place, line) for place, line in enumerate(naive_lines(lines)) if naive.run(stages, line)]
    assert batch.rows.tolist() == [place for place, _ in expected]
    assert [line.decode() for line in batch.lines.all()] == [line.text for _, line in expected]
    for name in COLUMNS:
        codes, values = batch.column(name)
        actual = [values[code] if code else None for code in codes.tolist()]
        assert actual == [line.everything().get(name) for _, line in expected], name
    for place, (_, line) in enumerate(expected):
        row = batch.row(place)
        assert row.line.decode() == line.text
        for category in ("stream", "metadata", "parsed"):
            labels = {name: label for name, (kind, label) in line.labels.items() if kind == category}
            assert getattr(row, category) == labels
        assert row.error == line.error
        assert bool(row.details) == line.details
        codes, values = batch.column(DETAILS)
        assert values[codes[place]] == row.details


def test_a_broken_stage_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: a parser that forgets what was parsed before is told from the naive evaluator's."""
    check = test_pipelines_are_what_the_naive_evaluator_makes.hypothesis.inner_test
    stages = (ast.Json(), ast.Logfmt())
    check(['{"a":"1"} a=2'], stages)
    monkeypatch.setattr(StageLayer, "_extracted", lambda self, name: np.zeros(self.count, np.bool_))
    monkeypatch.setattr(MemberLayer, "_extracted", lambda self, name: np.zeros(self.count, np.bool_))
    with pytest.raises(AssertionError):
        check(['{"a":"1"} a=2'], stages)
