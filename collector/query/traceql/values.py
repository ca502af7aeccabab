"""Columns of typed values: what a field is in each of some spans, as numpy arrays.

A column has an entry for each row it is about, or, for what a span has several of (events, links), for each of those:
then `owner` says which row each entry belongs to, ascending. Texts are extents of a payload, so that nothing is decoded
before it is returned.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from opentelemetry.proto.common.v1 import common_pb2

from collector.query import match
from collector.query.traceql.structure import Numbering

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SINGLE = np.zeros(256, np.bool_)
_SINGLE[[match.STRING, match.BOOL, match.INT, match.DOUBLE]] = True


Single = str | int | float | bool
"""A single value, decoded."""


class Column(NamedTuple):
    """Typed values, as `match.Values`, the bytes that their texts lie in, and which rows they belong to."""

    type: NDArray[np.uint8]
    integer: NDArray[np.int64]
    double: NDArray[np.float64]
    start: NDArray[np.uint32]
    length: NDArray[np.uint32]
    payload: bytes | bytearray
    owner: NDArray[np.intp] | None = None
    """The row of each entry; None: one entry for each row."""

    def content(self, at: int) -> bytes:
        """Return the bytes of one entry's text, array or list."""
        start = int(self.start[at])
        return bytes(memoryview(self.payload)[start : start + int(self.length[at])])

    def is_number(self) -> NDArray[np.bool_]:
        """Tell which entries are integers or floats."""
        return np.asarray((self.type == match.INT) | (self.type == match.DOUBLE), np.bool_)

    def is_there(self) -> NDArray[np.bool_]:
        """Tell which entries are present and not null."""
        return np.asarray((self.type != match.ABSENT) & (self.type != match.EMPTY), np.bool_)

    def is_single(self) -> NDArray[np.bool_]:
        """Tell which entries are texts, booleans or numbers."""
        found: NDArray[np.bool_] = _SINGLE[self.type]
        return found

    def elements(self, at: int) -> list[Single | None] | None:
        """Decode one entry that is an array: None for an element that is null, an array, a list or bytes."""
        if int(self.type[at]) != match.ARRAY:
            return None
        kinds = ("string_value", "bool_value", "int_value", "double_value")
        made: list[Single | None] = []
        for one in common_pb2.ArrayValue.FromString(self.content(at)).values:
            which = one.WhichOneof("value")
            made.append(getattr(one, which) if which in kinds else None)
        return made

    def compared(self, op: str, other: Column) -> NDArray[np.bool_]:
        """Compare numbers with another column's, entry by entry: false where one is no number."""
        compare = COMPARE[op]
        exact = (self.type == match.INT) & (other.type == match.INT)
        holds = np.where(exact, compare(self.integer, other.integer), compare(self.double, other.double))
        return np.asarray(holds & self.is_number() & other.is_number(), np.bool_)

    def take(self, rows: NDArray[np.integer]) -> Column:
        """Return these entries, as a column with one for each row."""
        return Column(
            self.type[rows],
            self.integer[rows],
            self.double[rows],
            self.start[rows],
            self.length[rows],
            self.payload,
        )

    def value(self, at: int) -> Single | None:
        """Decode one entry; None for what is absent, null, an array, a list or bytes."""
        kind = int(self.type[at])
        if kind == match.STRING:
            return self.content(at).decode("utf-8", "replace")
        if kind == match.BOOL:
            return bool(self.integer[at])
        if kind == match.INT:
            return int(self.integer[at])
        return float(self.double[at]) if kind == match.DOUBLE else None


def absent(count: int) -> Column:
    """Return a column without values."""
    none = np.zeros(count, np.uint32)
    return Column(np.zeros(count, np.uint8), np.zeros(count, np.int64), np.zeros(count), none, none, b"")


def of_integers(integers: NDArray[np.int64], kind: int = match.INT) -> Column:
    """Return a column of integers, or of booleans."""
    none = np.zeros(len(integers), np.uint32)
    return Column(np.full(len(integers), kind, np.uint8), integers, integers.astype(np.float64), none, none, b"")


def between(starts: NDArray[np.uint64], ends: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return durations in ns: 0 where the end is not behind the start."""
    return np.where(ends > starts, ends - starts, 0).astype(np.int64)


def of_doubles(doubles: NDArray[np.float64], there: NDArray[np.bool_]) -> Column:
    """Return a column of floats, absent where `there` is false."""
    none = np.zeros(len(doubles), np.uint32)
    kinds = np.where(there, match.DOUBLE, match.ABSENT).astype(np.uint8)
    return Column(kinds, np.zeros(len(doubles), np.int64), np.where(there, doubles, 0.0), none, none, b"")


def of_texts(starts: NDArray[np.uint32], lengths: NDArray[np.uint32], payload: bytes | bytearray) -> Column:
    """Return a column of texts that lie in a payload."""
    count = len(starts)
    return Column(
        np.full(count, match.STRING, np.uint8), np.zeros(count, np.int64), np.zeros(count), starts, lengths, payload
    )


def of_hex(raw: bytes, size: int) -> Column:
    """Return ids of `size` bytes as texts of hex digits; an id of zeros is the empty text."""
    count = len(raw) // size
    present = np.frombuffer(raw, np.uint8).reshape(count, size).any(axis=1)
    starts = (np.arange(count) * size * 2).astype(np.uint32)
    return of_texts(starts, np.where(present, size * 2, 0).astype(np.uint32), raw.hex().encode())


def chosen(first: Column, second: Column) -> Column:
    """Return the first column's values, and the second's where it has none. Their texts lie in one payload."""
    missing = first.type == match.ABSENT
    return Column(
        np.where(missing, second.type, first.type),
        np.where(missing, second.integer, first.integer),
        np.where(missing, second.double, first.double),
        np.where(missing, second.start, first.start),
        np.where(missing, second.length, first.length),
        first.payload,
    )


def first_of_each(column: Column, rows: int) -> Column:
    """Return a column with one entry for each of so many rows: the first that is there."""
    if column.owner is None:
        return column
    there = np.flatnonzero(column.is_there())
    owners, places = np.unique(column.owner[there], return_index=True)
    chosen_entries = there[places]

    def spread(entries: NDArray[Any]) -> NDArray[Any]:
        whole = np.zeros(rows, entries.dtype)
        whole[owners] = entries[chosen_entries]
        return whole

    return Column(
        spread(column.type),
        spread(column.integer),
        spread(column.double),
        spread(column.start),
        spread(column.length),
        column.payload,
    )


def joined(columns: Sequence[Column]) -> Column:
    """Return columns behind each other as one; their texts are copied."""
    if len(columns) == 1:
        return columns[0]
    if not columns:
        return absent(0)
    pieces, starts, total = [], [], 0
    for one in columns:
        has = one.length > 0
        lengths = np.where(has, one.length, 0).astype(np.int64)
        begins = np.cumsum(lengths) - lengths
        size = int(lengths.sum())
        if size:
            source = np.repeat(one.start.astype(np.int64) - begins, lengths) + np.arange(size)
            pieces.append(np.frombuffer(one.payload, np.uint8)[source].tobytes())
        starts.append((begins + total).astype(np.uint32))
        total += size
    return Column(
        np.concatenate([one.type for one in columns]),
        np.concatenate([one.integer for one in columns]),
        np.concatenate([one.double for one in columns]),
        np.concatenate(starts),
        np.concatenate([one.length for one in columns]),
        b"".join(pieces),
    )


def codes(column: Column) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number the distinct values of a column: (a code for each row, the first row of each code).

    1 and 1.0 are different values, and so are "1" and 1. What has no single value is one code.
    """
    count = len(column.type)
    if not count:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    texts = column.type == match.STRING
    if texts.all():
        known, firsts = match.distinct(column.payload, (column.start, column.length))
        return known, firsts
    if not (column.is_single() & ~texts).any():
        rows = np.flatnonzero(texts)
        known, firsts = match.distinct(column.payload, (column.start[rows], column.length[rows]))
        found = np.full(count, len(firsts), np.intp)
        found[rows] = known
        return found, np.append(rows[firsts], np.argmin(texts))
    content = np.where(column.type == match.DOUBLE, column.double.view(np.int64), column.integer)
    kind = np.where(column.is_single(), column.type, 0)
    content = np.where((kind != 0) & ~texts, content, 0)
    if texts.any():
        rows = np.flatnonzero(texts)
        known, _ = match.distinct(column.payload, (column.start[rows], column.length[rows]))
        content[rows] = known
    numbers = Numbering().add(kind.astype(np.uint64), content.view(np.uint64)).astype(np.intp)
    highest = np.maximum.accumulate(numbers)
    return numbers, np.concatenate(([0], np.flatnonzero(highest[1:] > highest[:-1]) + 1)).astype(np.intp)
