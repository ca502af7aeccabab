"""Compiled dictionaries number values as a plain dict does, over many blocks, and count by those numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.query import match
from collector.query.traceql.dictionary import COUNT_MAX, Dictionary, counted
from collector.query.traceql.values import Column

Value = tuple[int, Any]
"""A kind, and a text, a number or nothing."""

TEXTS = st.sampled_from([b"", b"a", b"b", b"1", b"a" * 9, b"a" * 8 + b"b", b"\xff" * 40]) | st.binary(max_size=3)
NUMBERS = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)])
VALUES = st.one_of(
    st.tuples(st.just(match.STRING), TEXTS),
    st.tuples(st.just(match.INT), NUMBERS),
    st.tuples(st.just(match.BOOL), st.sampled_from([0, 1])),
    st.tuples(st.just(match.DOUBLE), st.sampled_from([0.0, -0.0, 1.0, 1.5, float("inf"), float("nan")])),
    st.tuples(st.sampled_from([match.ABSENT, match.EMPTY]), st.none()),
)


def column(block: list[Value]) -> Column:
    """A column of values; what their kinds do not use is anything."""
    payload = b"".join(value for kind, value in block if kind == match.STRING)
    starts, lengths, at = [], [], 0
    for kind, value in block:
        size = len(value) if kind == match.STRING else 0
        starts.append(at if kind == match.STRING else 99)
        lengths.append(size)
        at += size
    return Column(
        np.array([kind for kind, _ in block], np.uint8),
        np.array([value if kind in (match.INT, match.BOOL) else 7 for kind, value in block], np.int64),
        np.array([float(value) if kind in (match.INT, match.DOUBLE) else 7.0 for kind, value in block], np.float64),
        np.array(starts, np.uint32),
        np.array(lengths, np.uint32),
        payload,
    )


def key(value: Value) -> Any:
    """What tells a value from others."""
    kind, content = value
    if kind in (match.ABSENT, match.EMPTY):
        return None
    return kind, np.float64(content).tobytes() if kind == match.DOUBLE else content


def add(dictionary: Dictionary, block: list[Value], count_max: int = COUNT_MAX, bytes_max: int = 1 << 20) -> Any:
    """Put a block's values into a dictionary."""
    made = column(block)
    return dictionary.add(
        made.payload, made.type, made.integer, made.double, made.start, made.length, count_max, bytes_max
    )


@given(st.lists(st.lists(VALUES, max_size=30), max_size=6))
def test_values_are_numbered_as_they_come(blocks: list[list[Value]]) -> None:
    dictionary, expected, last, offset = Dictionary(), {}, {}, 40
    for block in blocks:
        numbers = add(dictionary, block)
        for at, value in enumerate(block):
            assert numbers[at] == expected.setdefault(key(value), len(expected))
            last[expected[key(value)]] = offset + at
        dictionary.seen(numbers, offset)
        offset += len(block)
    assert len(dictionary) == len(expected)
    assert dictionary.last().tolist() == [last[number] for number in range(len(expected))]
    made = Column(*dictionary.columns())
    assert dictionary.text_bytes == len(made.payload)
    found = []
    for at, kind in enumerate(made.type.tolist()):
        content: Any = made.content(at) if kind == match.STRING else int(made.integer[at])
        found.append(key((kind, float(made.double[at]) if kind == match.DOUBLE else content)))
        assert kind != match.INT or made.double[at] == float(content)
    assert found == list(expected)


def test_many_values() -> None:
    dictionary = Dictionary()
    texts = [(match.STRING, b"value %d" % number) for number in range(20_000)]
    assert add(dictionary, texts).tolist() == list(range(20_000))
    assert add(dictionary, texts[::-1]).tolist() == list(range(20_000))[::-1]
    assert dictionary.nbytes > dictionary.text_bytes


def test_limits() -> None:
    block = [(match.STRING, b"one"), (match.STRING, b"two"), (match.INT, 3)]
    dictionary = Dictionary()
    assert add(dictionary, block, 3, 6).tolist() == [0, 1, 2]
    assert add(dictionary, block, 3, 6).tolist() == [0, 1, 2], "what is known has room"
    assert add(dictionary, [(match.INT, 4)], 3, 6) is None
    assert add(dictionary, [(match.STRING, b"x")], 9, 6) is None
    assert add(Dictionary(), [(match.INT, number) for number in range(COUNT_MAX + 1)], 1 << 20) is None
    wrong = column(block)._replace(length=np.array([3, 4, 0], np.uint32))
    with pytest.raises(ValueError, match="outside the payload"):
        dictionary.add(wrong.payload, wrong.type, wrong.integer, wrong.double, wrong.start, wrong.length, 9, 99)
    with pytest.raises(ValueError, match="a number of no value"):
        dictionary.seen(np.array([3], np.uint16), 0)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64])
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2))))
def test_counts_by_number_and_cell(kind: Any, pairs: list[tuple[int, int]]) -> None:
    numbers = np.array([number for number, _ in pairs], kind)
    cells = np.array([cell for _, cell in pairs], np.int32)
    counts = np.ones((5, 3), np.int64)
    expected = counts.copy()
    np.add.at(expected, (numbers, cells), 1)
    counted(numbers, cells, counts)
    assert counts.tolist() == expected.tolist()


def test_numbers_and_cells_out_of_range_are_refused() -> None:
    for number, cell in ((5, 0), (0, 3), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="out of range"):
            counted(np.array([number], np.int64), np.array([cell], np.int32), np.zeros((5, 3), np.int64))
