"""Members of JSON lines and pairs of logfmt, compiled, against the naive evaluator, on texts that are nearly right."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.query.logql import members, pairs
from collector.query.logql.escapes import json_text, logfmt_text
from tests.query.logql import naive

PIECES = [
    "{",
    "}",
    "[",
    "]",
    '"',
    '"a"',
    '"b c"',
    ":",
    ",",
    " ",
    "\t",
    "1",
    "-2.5",
    "true",
    "null",
    "nul",
    "\\",
    '\\"',
    "\\u00e9",
    "é",
]
JSON_TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
OBJECTS = st.recursive(
    st.sampled_from([None, True, 1.5, "", "x", 'q"\\', "é"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "b c", "1", "", " ", "é"]), inner, max_size=3)
    ),
    max_leaves=8,
)
NEARLY_JSON = st.builds(
    lambda value, at, piece: json.dumps(value)[:at] + piece + json.dumps(value)[at + 1 :],
    st.dictionaries(st.sampled_from(["a", "b", "2"]), OBJECTS, max_size=3),
    st.integers(0, 40),
    st.sampled_from([*PIECES, ""]),
)
LINES = JSON_TEXTS | NEARLY_JSON | JSON_TEXTS.map(lambda text: "{" + text + "}")
LOGFMT = st.lists(
    st.sampled_from(["a", "b.c", "1", "=", '"', " ", "\t", "\\", '\\"', "\\n", "é", "x y", '="', "'"]), max_size=14
).map("".join)
FAULTY = (
    members.BAD_OBJECT,
    members.BAD_JSON,
    members.BAD_ARRAY,
    members.BAD_STRING,
    members.BAD_ESCAPE,
    members.BAD_VALUE,
)


def flat(line: str) -> tuple[list[tuple[str, str]], bool]:
    """Return what the naive evaluator finds, and whether the line is broken."""
    found: list[tuple[str, str]] = []
    pairs_of = naive.flat(line, [])
    while True:
        try:
            found.append(next(pairs_of))
        except StopIteration:
            return found, False
        except naive.Broken:
            return found, True


def read(line: bytes, kind: int, start: int, length: int) -> str:
    raw = line[start : start + length]
    return json_text(raw) if kind == members.ESCAPED else raw.decode()


def extents(lines: list[bytes]) -> tuple[bytes, np.ndarray, np.ndarray]:
    lengths = np.array([len(line) for line in lines], np.uint32)
    return b"".join(lines), (np.cumsum(lengths) - lengths).astype(np.uint32), lengths


@given(texts=st.lists(LINES, min_size=1, max_size=5))
def test_members_of_json(texts: list[str]) -> None:
    lines = [text.encode() for text in texts]
    place = extents(lines)
    statuses = members.json_status(*place)
    expected = [flat(text) for text in texts]
    for line, status, (found, broken) in zip(lines, statuses.tolist(), expected, strict=True):
        listed, listed_status = members.json_members(line)
        assert listed_status == status
        assert (status in FAULTY) == broken, line
        assert [(name.decode(), read(line, *where)) for name, *where in listed] == found
    for name in {"a", *(name for found, _ in expected for name, _ in found)}:
        kinds, starts, lengths = members.json_member(*place, name.encode())
        for row, (found, _) in enumerate(expected):
            first = dict(reversed(found)).get(name)
            actual = read(place[0], int(kinds[row]), int(starts[row]), int(lengths[row])) if kinds[row] else None
            assert actual == first


@given(
    texts=st.lists(LINES, min_size=1, max_size=5),
    path=st.lists(st.sampled_from(["a", "b", "b c", 0, 1]), min_size=1, max_size=3),
)
def test_paths_into_json(texts: list[str], path: list[str | int]) -> None:
    place = extents([text.encode() for text in texts])
    steps: list[bytes | int] = [step.encode() if isinstance(step, str) else step for step in path]
    kinds, starts, lengths, statuses = members.json_path(*place, steps)
    names = {members.PLAIN: "string", members.ESCAPED: "string", members.SCALAR: "scalar", members.OBJECT: "object"}
    names |= {members.ARRAY: "array", members.NULL: "null"}
    for row, text in enumerate(texts):
        raw = place[0][int(starts[row]) : int(starts[row]) + int(lengths[row])].decode()
        try:
            expected = naive.at_path(text, path)
        except naive.Broken:
            assert (kinds[row], statuses[row]) == (members.NONE, members.OK)
        except ValueError:
            assert (kinds[row], statuses[row] != members.OK) == (members.NONE, True)
        else:
            assert (names[int(kinds[row])], raw) == expected


@given(texts=st.lists(LOGFMT, min_size=1, max_size=5), strict=st.booleans(), keep_empty=st.booleans())
def test_pairs_of_logfmt(texts: list[str], strict: bool, keep_empty: bool) -> None:
    lines = [text.encode() for text in texts]
    place = extents(lines)
    statuses = pairs.logfmt_status(*place)[0]
    expected = []
    for line, text, status in zip(lines, texts, statuses.tolist(), strict=True):
        told = list(naive.pairs(text, strict))
        found = [(naive.label([pair[0]]), pair[1]) for pair in told if pair is not None]
        found = [(name, value) for name, value in found if name]
        expected.append(found)
        assert bool(status) == (None in naive.pairs(text, strict=False)), text
        listed = [
            (
                name.decode(),
                logfmt_text(line[at : at + size]) if kind == members.ESCAPED else line[at : at + size].decode(),
            )
            for name, kind, at, size in pairs.logfmt_members(line, strict)
        ]
        assert listed == found
    for name in {"a", *(name for found in expected for name, _ in found)}:
        kinds, starts, lengths = pairs.logfmt_member(*place, name.encode(), keep_empty, strict)
        for row, found in enumerate(expected):
            values = [value for each, value in found if each == name and (value or keep_empty)]
            raw = place[0][int(starts[row]) : int(starts[row]) + int(lengths[row])]
            value = logfmt_text(raw) if kinds[row] == members.ESCAPED else raw.decode()
            assert (value if kinds[row] else None) == (values[0] if values else None)


def test_a_broken_walk_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: were the last of two members found, the test above would fail."""
    whole = members.json_members

    def last_first(line: bytes) -> tuple[list[tuple[bytes, int, int, int]], int]:
        found, status = whole(line)
        return found[::-1], status

    monkeypatch.setattr(members, "json_members", last_first)
    with pytest.raises(AssertionError):
        test_members_of_json.hypothesis.inner_test(['{"a":1,"b":2}'])
