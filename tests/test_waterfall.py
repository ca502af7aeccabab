"""The picture of a trace, and the reader of events: the command line's parts without I/O."""

from __future__ import annotations

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.cli.tail import Event, EventReader
from collector.cli.terminal import duration, fitted, moment
from collector.cli.waterfall import ASCII, DEPTH_SHOWN, UNICODE, Bar, placed, waterfall

MS = 10**6


def drawn(bars: list[Bar], width: int = 80, signs: object = UNICODE) -> list[str]:
    return list(waterfall("ab" * 16, bars, width, signs, lambda text: f"<{text}>", lambda text: text))  # type: ignore[arg-type]


def bar(span_id: str, parent_id: str = "", start: int = 0, end: int = 100, **fields: object) -> Bar:
    return Bar(span_id, parent_id, fields.pop("name", f"span {span_id}"), "shop", start * MS, end * MS, **fields)  # type: ignore[arg-type]


def test_a_picture() -> None:
    bars = [
        bar("c", "b", 20, 40),
        bar("a", "", 0, 100, name="GET /"),
        bar("e", "gone", 90, 100),
        bar("b", "a", 10, 50, is_error=True, message="no\x1b[2J luck"),
        bar("d", "a", 60, 60),
        bar("f", "b", 41, 42),
    ]
    assert drawn(bars) == [
        f"trace {'ab' * 16}  1970-01-01 00:00:00.000  100 ms  6 spans  1 service  <1 error>",
        "<parts are missing: 1 span with a parent that is not here, marked ?>",
        "",
        "GET /                              shop                100 ms  █████████████████",
        "<├ ! span b                       >  shop               40.0 ms  < ██████>",
        "│ <  ! no\\x1b[2J luck>",
        "│ ├ span c                         shop               20.0 ms     ███",
        "│ └ span f                         shop               1.00 ms        ▏",
        "└ span d                           shop                  0 ns            ▏",
        "? span e                           shop               10.0 ms                 █",
    ]
    assert all(line.isascii() for line in drawn(bars, signs=ASCII))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 10), st.integers(0, 5)), min_size=1, max_size=30))
def test_every_span_stands_there_once_whatever_names_what(spans: list[tuple[int, int, int]]) -> None:
    """Circles, missing parents, ids that stand twice, a span that is its own parent."""
    bars = [bar(str(one), str(parent) if parent else "", start, start + 1) for one, parent, start in spans]
    found = list(placed(bars))
    assert sorted(map(id, (one.bar for one in found))) == sorted(map(id, bars))
    seen: set[str] = set()
    for one in found:
        assert not one.lines or one.bar.parent_id in seen, "a parent stands before its children"
        seen.add(one.bar.span_id)
    assert len(drawn(bars)) >= len(bars) + 2


def test_notes_stand_under_the_first_span_of_their_id() -> None:
    bars = [bar("a", name="GET /"), bar("b", "a", 10, 50), bar("b", "a", 20, 50)]
    lines = list(
        waterfall(
            "ab" * 16,
            bars,
            80,
            UNICODE,
            lambda text: f"<{text}>",
            lambda text: text,
            missing="it is\nnot whole",
            notes={"b": ["one", "two"], "x": ["nowhere"]},
        )
    )
    assert lines[1] == "<it is\\nnot whole>"
    assert [line.split("  ")[0] for line in lines[3:5]] == ["GET /", "├ span b"]
    assert lines[5:7] == ["│   one", "│   two"]
    assert lines[7].startswith("└ span b")
    assert len(lines) == 8


def test_a_deep_trace_grows_no_wider() -> None:
    bars = [bar(str(i), str(i - 1) if i else "", i, 5000) for i in range(3000)]
    lines = drawn(bars, 100)
    assert len(lines) == 3002
    assert max(map(len, lines)) <= 100
    assert max(len(one.lines) for one in placed(bars)) == DEPTH_SHOWN


def test_what_ends_before_it_starts() -> None:
    assert drawn([bar("a", "", 10, 5)])[-1].endswith("▏")


def test_texts_are_fitted_by_columns() -> None:
    assert fitted("abc", 5) == "abc  "
    assert fitted("abcdef", 5) == "abcd…"
    assert fitted("日本語", 5) == "日本…"
    assert fitted("日本", 5) == "日本 "
    assert fitted("e\u0301e\u0301", 3) == "e\u0301e\u0301 "
    assert fitted("", 2) == "  "


def test_figures() -> None:
    assert [
        duration(n) for n in (0, 999, 1000, 12_345, 123_456, 99_960_000, 1_500_000_000, 61 * 10**9, 7200 * 10**9)
    ] == [
        *("0 ns", "999 ns", "1.00 µs", "12.3 µs", "123 µs", "100 ms", "1.50 s", "1 min", "120 min"),
    ]
    assert moment(1_790_000_000_123_456_789) == "2026-09-21 14:13:20.123"
    assert moment(2**64 - 1).startswith("2554-")


LINES = st.sampled_from(
    ["data: a", "data", "data:b", "id: 7", "id", "event: missed", "retry: 250", "retry: x", ": c", ""]
)


def test_events() -> None:
    reader = EventReader()
    lines = [
        "retry: 250",
        ": hello",
        "event: start",
        "data: {}",
        "",
        "id: 5",
        "data: a",
        "data:b",
        "",
        "id: 9",
        "",
        "x: y",
    ]
    assert [found for one in lines if (found := reader.line(one))] == [Event("start", "{}"), Event("message", "a\nb")]
    assert (reader.last_id, reader.again_s) == ("9", 0.25)
    for line in ("id: 11", "data: cut"):
        reader.line(line)
    reader.begin()
    assert reader.line("") is None
    assert reader.last_id == "9", "an event that was cut did not come"


def test_an_event_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("collector.cli.tail"), "EVENT_CHARACTERS_MAX", 100)
    reader = EventReader()
    for _ in range(5):  # Each by itself is short enough.
        assert reader.line("data: " + "x" * 90) is None
        assert reader.line("") is not None
    reader.line("data: " + "x" * 90)
    with pytest.raises(ValueError, match="more than 100 characters"):
        reader.line("data: " + "x" * 90)


@given(st.lists(LINES, max_size=30), st.integers(0, 30))
def test_an_id_counts_when_its_event_is_whole(lines: list[str], cut: int) -> None:
    whole, resumed = EventReader(), EventReader()
    for one in lines[:cut]:
        whole.line(one)
    ended = max((at + 1 for at, one in enumerate(lines[:cut]) if not one), default=0)
    for one in lines[:ended]:
        resumed.line(one)
    assert whole.last_id == resumed.last_id
