"""What backends are told of a query is certain: no record of an answer lacks it."""

from __future__ import annotations

from typing import Any

import hypothesis
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collector.otlp.block import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, SUM, SUMMARY
from collector.query.logql.hints import certain
from collector.query.promql.ast import Matcher
from collector.query.promql.hints import hints_of
from collector.query.promql.translate import family, value_text

TEXT = st.text(st.sampled_from(list('abdefnrtu019 "\\/{}[]:,<é\n\r\t\b\f\x01\x1f\x7f')), max_size=12)


def _any_value(content: Any) -> AnyValue:
    made = AnyValue()
    if isinstance(content, str):
        made.string_value = content
    elif isinstance(content, bool):
        made.bool_value = content
    elif isinstance(content, int):
        made.int_value = content
    elif isinstance(content, float):
        made.double_value = content
    elif isinstance(content, list):
        made.array_value.values.extend(map(_any_value, content))
        made.array_value.SetInParent()
    elif isinstance(content, dict):
        for key, value in content.items():
            made.kvlist_value.values.add(key=key).value.CopyFrom(_any_value(value))
        made.kvlist_value.SetInParent()
    return made


BODIES = st.recursive(
    st.one_of(TEXT, st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)


@hypothesis.settings(max_examples=300, deadline=None)
@given(BODIES, st.data())
def test_a_line_with_a_text_is_of_a_record_that_has_its_hint(content: Any, data: st.DataObject) -> None:
    body = _any_value(content)
    line = value_text(body)
    begin = data.draw(st.integers(0, len(line)))
    text = line[begin : data.draw(st.integers(begin, len(line)))]
    assert certain(text).encode() in body.SerializeToString()


def test_texts_that_say_something_are_passed_on() -> None:
    assert certain("connection refused") == "onnection refused"  # behind \u001 a `c` may be of an escape
    assert certain('"level":"warning"') == "warning"
    assert certain("GET /cart") == "GET /cart"
    assert [certain(text) for text in ("12.5", "rue", "ab", "\\n", "SGVsbG8gd29ybGQ=", "a1b2c3")] == [""] * 6


@hypothesis.settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["http", "total", "ratio", "1x", "bytes", "s", ":", ".", "_", "-", "é"]), max_size=6),
    st.sampled_from(["", "1", "s", "By", "By/s", "{x}", "total", "m/1", "%"]),
    st.sampled_from([GAUGE, SUM, HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY]),
    st.booleans(),
)
def test_a_series_is_of_a_metric_whose_name_fits(words: list[str], unit: str, kind: int, monotonic: bool) -> None:
    name = "".join(words)
    for sample in family(name, unit, kind, 2, monotonic).sample_names():
        hints = hints_of([[Matcher("__name__", "=", sample)]])
        assert hints.named is None or hints.named(name), sample


def test_names_that_do_not_fit_are_left_out() -> None:
    named = hints_of([[Matcher("__name__", "=", "http_server_duration_seconds_bucket")]]).named
    assert named is not None
    assert named("http.server.duration")
    assert not named("http.client.duration")
    assert not named("process.cpu")
    for matchers in ([], [Matcher("__name__", "=~", "http.*")], [Matcher("__name__", "=", "target_info")]):
        assert hints_of([matchers]).named is None
