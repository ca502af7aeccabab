"""Labels and lines of many records at once: `Records.labels` by columns, without decoding the records.

A `Batch` is some rows of a block. `Batch.column(name)` is one label of all of them, dictionary-encoded: a
code for each row and the text of each code. So a predicate is asked once for each distinct text, and grouping
is arithmetic on codes. `Batch.lines` knows where the lines lie, so that line filters run compiled over the
payload.

What has no column of its own comes out of the payload by one compiled search (`match.attribute`). Only where
that cannot decide (two keys with one label name, values that are arrays, bytes or nested) the record is
decoded, one by one. The answer is the same either way; tests hold the two against each other.

A batch carries the changes that `drop` and `keep` made to labels; a column is asked for after them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from opentelemetry.proto.common.v1 import common_pb2

from collector.otlp.records import LOG_ATTRIBUTES
from collector.query import levels, match
from collector.query.logql.labels import (
    Container,
    Records,
    number_text,
    value_text,
)
from collector.query.logql.levels import LEVEL, LEVEL_LABELS, normalized, of_number, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.otlp.block import Block

_TEXT_FIELDS = {"severity_text": 3, "event_name": 12}
_DECODED_FIELDS = frozenset(("observed_timestamp", "dropped_attributes_count", "flags"))
_SUFFIX = "_extracted"
_OUT_OF_RANGE = 255  # of the severity column: the number is larger, or negative
_TYPES = np.arange(match.EMPTY + 1)
_IS_DOCUMENT = ~np.isin(_TYPES, (match.ABSENT, match.STRING, match.EMPTY))  # as a body: not text
_IS_COMPOUND = np.isin(_TYPES, (match.ARRAY, match.KVLIST, match.BYTES))  # as an attribute: not a scalar


class Column(NamedTuple):
    """One label of a batch's rows."""

    codes: NDArray[np.intp]
    """For each row, the place of its text in `values`."""
    values: list[str]
    """Texts without repetition; the first is empty, which is the text of rows without the label."""

    def where(self, predicate: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Tell for each row whether its text meets the predicate."""
        return np.fromiter(map(predicate, self.values), np.bool_, len(self.values))[self.codes]


class Change(Protocol):
    """What a stage does to labels, one name at a time."""

    def column(self, name: str, column: Column) -> Column:
        """Return the label's column after the change."""
        ...

    def labels(self, labels: dict[str, str]) -> dict[str, str]:
        """Return one record's labels after the change."""
        ...


class _Builder:
    """A column under construction: texts are filled in only where there is none yet."""

    def __init__(self, count: int) -> None:
        self.codes = np.zeros(count, np.intp)
        self.values = [""]
        self._known = {"": 0}

    def code(self, text: str) -> int:
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = len(self.values)
            self.values.append(text)
        return found

    def open(self, wanted: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the rows among the wanted that have no text yet."""
        return np.flatnonzero(wanted & (self.codes == 0))

    def fill(self, rows: NDArray[np.intp], texts: list[str]) -> None:
        code = self.code
        self.codes[rows] = [code(text) for text in texts]

    def fill_numbers(self, rows: NDArray[np.intp], numbers: NDArray[Any], text: Callable[[int], str]) -> None:
        """Fill in texts made of whole numbers, each made once."""
        codes = {number: self.code(text(number)) for number in set(numbers.tolist())}
        self.codes[rows] = [codes[number] for number in numbers.tolist()]

    def take(self, column: Column, text: Callable[[str], str]) -> None:
        """Fill in what `text` makes of another column's texts."""
        codes = np.array([self.code(text(value)) if value else 0 for value in column.values], np.intp)
        rows = self.open(column.codes > 0)
        self.codes[rows] = codes[column.codes[rows]]

    def column(self) -> Column:
        return Column(self.codes, self.values)


class Lines:
    """The lines of a batch: where they lie in the payload, or their bytes where a body is not a text."""

    def __init__(self, block: Block, rows: NDArray[np.intp]) -> None:
        starts, lengths = block.column("body_start")[rows], block.column("body_length")[rows]
        values = match.any_value(block.payload, starts, lengths)
        self._payload = block.payload
        self._starts, self._lengths = values.start, values.length
        self._documents: dict[int, bytes] = {}
        for place in np.flatnonzero(_IS_DOCUMENT[values.type]).tolist():
            start, length = int(starts[place]), int(lengths[place])
            body = common_pb2.AnyValue.FromString(bytes(memoryview(block.payload)[start : start + length]))
            self._documents[place] = value_text(body).encode()

    def sizes(self) -> NDArray[np.int64]:
        """Return the lines' lengths in bytes."""
        sizes = self._lengths.astype(np.int64)
        for place, line in self._documents.items():
            sizes[place] = len(line)
        return sizes

    def all(self) -> list[bytes]:
        """Return every line."""
        view = memoryview(self._payload)
        lines = [
            bytes(view[start : start + length])
            for start, length in zip(self._starts.tolist(), self._lengths.tolist(), strict=True)
        ]
        for place, line in self._documents.items():
            lines[place] = line
        return lines

    def contain(self, needle: bytes) -> NDArray[np.bool_]:
        """Tell for each line whether the needle occurs in it."""
        found = match.contains(self._payload, self._starts, self._lengths, needle)
        for place, line in self._documents.items():
            found[place] = needle in line
        return found

    def levels(self) -> NDArray[np.uint8]:
        """Return the code of the level that each line tells, an index of `levels.LEVELS`."""
        found = levels.levels(self._payload, self._starts, self._lengths)
        for place, line in self._documents.items():
            found[place] = levels.level_of(line)
        return found

    def meet(self, predicate: Callable[[bytes], bool]) -> NDArray[np.bool_]:
        """Tell for each line whether its bytes meet the predicate."""
        view = memoryview(self._payload)
        found = np.fromiter(
            (
                predicate(bytes(view[start : start + length]))
                for start, length in zip(self._starts.tolist(), self._lengths.tolist(), strict=True)
            ),
            np.bool_,
            len(self._starts),
        )
        for place, line in self._documents.items():
            found[place] = predicate(line)
        return found


class Batch:
    """Some rows of a block of log records, and what the stages so far have made of their labels."""

    def __init__(
        self,
        block: Block,
        rows: NDArray[np.intp],
        records: Records,
        changes: tuple[Change, ...] = (),
        keys: set[bytes] | None = None,
    ) -> None:
        """Take ascending row numbers. `keys` is a superset of the rows' attribute keys, if known."""
        self.block = block
        self.rows = rows
        self.records = records
        self.changes = changes
        self._keys = keys
        self._columns: dict[str, Column] = {}
        self._lines: Lines | None = None

    def narrowed(self, mask: NDArray[np.bool_]) -> Batch:
        """Return the batch of the rows that the mask names."""
        if mask.all():
            return self
        batch = Batch(self.block, self.rows[mask], self.records, self.changes, self._keys)
        batch._columns = {name: Column(codes[mask], values) for name, (codes, values) in self._columns.items()}
        return batch

    def changed(self, change: Change) -> Batch:
        """Return the same rows with their labels changed."""
        batch = Batch(self.block, self.rows, self.records, (*self.changes, change), self._keys)
        batch._columns = self._columns
        batch._lines = self._lines
        return batch

    @property
    def lines(self) -> Lines:
        """The rows' lines."""
        if self._lines is None:
            self._lines = Lines(self.block, self.rows)
        return self._lines

    def column(self, name: str) -> Column:
        """Return a label as the stages so far have left it."""
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = self._original(name)
        for change in self.changes:
            column = change.column(name, column)
        return column

    def labels(self, place: int) -> dict[str, str]:
        """Return all labels of the row at a place in the batch, as the stages so far have left them."""
        labels = self.records.labels(self.block, int(self.rows[place]))
        for change in self.changes:
            labels = change.labels(labels)
        return labels

    def _original(self, name: str) -> Column:
        return self._level() if name == LEVEL else self._stated(name)

    def _stated(self, name: str) -> Column:
        """Return a label that a record or its container states."""
        count = len(self.rows)
        builder = _Builder(count)
        containers = self._containers()
        base = name.removesuffix(_SUFFIX)
        if name in _DECODED_FIELDS or (base != name and any(base in one.stream for one, _ in containers)):
            builder.fill(np.arange(count), self._decoded(name, np.arange(count)))
            return builder.column()
        in_stream = np.zeros(count, np.bool_)
        for container, places in containers:
            if name in container.stream:
                in_stream[places] = True
                builder.codes[places] = builder.code(container.stream[name])
        if not in_stream.all():
            self._fill_fields(builder, name)
            undecided = self._fill_attributes(builder, name)
            for container, places in containers:
                value = container.metadata.get(name)
                if value is not None:
                    builder.codes[places[builder.codes[places] == 0]] = builder.code(value)
            undecided = undecided[~in_stream[undecided]]
            builder.fill(undecided, self._decoded(name, undecided))
        return builder.column()

    def _decoded(self, name: str, places: NDArray[np.intp]) -> list[str]:
        labels = self.records.labels
        return [labels(self.block, row).get(name, "") for row in self.rows[places].tolist()]

    def _containers(self) -> list[tuple[Container, NDArray[np.intp]]]:
        """Return each container with the places of its rows."""
        codes, containers = self.records.containers(self.block, self.rows)
        if len(containers) <= 1:
            return [(container, np.arange(len(self.rows))) for container in containers]
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(1, len(containers)))
        return list(zip(containers, np.split(order, bounds), strict=True))

    def _extents(self, places: NDArray[np.intp] | slice = slice(None)) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = self.rows[places]
        return self.block.column("start")[rows], self.block.column("length")[rows]

    def _fill_fields(self, builder: _Builder, name: str) -> None:
        """Fill in what a record says outside its attributes."""
        if name in _TEXT_FIELDS:
            starts, lengths = match.string_field(self.block.payload, *self._extents(), _TEXT_FIELDS[name])
            places = builder.open(lengths > 0)
            builder.fill(places, match.strings(self.block.payload, starts[places], lengths[places]))
        elif name == "severity_number":
            severity = self.block.column("severity")[self.rows]
            places = builder.open(severity > 0)
            builder.fill_numbers(places, severity[places], str)
            places = np.flatnonzero(severity == _OUT_OF_RANGE)
            builder.fill(places, self._decoded(name, places))
        elif name in ("trace_id", "span_id"):
            ids = self.block.column(name)[self.rows].reshape(len(self.rows), -1)
            places = builder.open((ids != 0).any(axis=1))
            raw = np.ascontiguousarray(ids[places]).view(np.uint8)
            builder.fill(places, [bytes(each).hex() for each in raw])

    def _fill_attributes(self, builder: _Builder, name: str) -> NDArray[np.intp]:
        """Fill in attributes of that label name; return the places that only a decoded record decides."""
        payload = self.block.payload
        undecided = np.zeros(len(self.rows), np.bool_)
        open_rows = builder.codes == 0
        named: list[bytes] = []
        for key in self._attribute_keys():
            own = self.records.name(key)
            if own == name:
                named.append(key)
            elif _may_nest(own, name):
                values = match.attribute(payload, *self._extents(), LOG_ATTRIBUTES, key)
                undecided |= values.type == match.KVLIST
        if len(named) > 1:
            undecided[:] = True
        elif named:
            values = match.attribute(payload, *self._extents(), LOG_ATTRIBUTES, named[0])
            places = builder.open(values.type == match.STRING)
            builder.fill(places, match.strings(payload, values.start[places], values.length[places]))
            places = builder.open(values.type == match.BOOL)
            builder.fill_numbers(places, values.integer[places], ("false", "true").__getitem__)
            places = builder.open(values.type == match.INT)
            builder.fill_numbers(places, values.integer[places], str)
            places = builder.open(values.type == match.DOUBLE)
            builder.fill(places, list(map(number_text, values.double[places].tolist())))
            undecided |= _IS_COMPOUND[values.type]
        return np.flatnonzero(undecided & open_rows)

    def _attribute_keys(self) -> set[bytes]:
        """Return a superset of the rows' attribute keys."""
        if self._keys is None:
            # An empty key is not on the wire, so it is not among the keys found.
            self._keys = match.keys(self.block.payload, *self._extents(), LOG_ATTRIBUTES) | {b""}
        return self._keys

    def _level(self) -> Column:
        """Return the level by the rules of levels.py, in their order."""
        builder = _Builder(len(self.rows))
        containers = self._containers()
        for container, places in containers:
            if LEVEL in container.stream:
                builder.codes[places] = builder.code(container.stream[LEVEL])
        builder.take(self._stated(LEVEL), normalized)
        for container, places in containers:
            text = told(container.stream)
            if text:
                builder.codes[places[builder.codes[places] == 0]] = builder.code(text)
        owns = [self.records.name(key) for key in self._attribute_keys()]
        for label in LEVEL_LABELS:
            if (
                label == "severity_text"
                or any(label in container.metadata for container, _ in containers)
                or any(own == label or _may_nest(own, label) for own in owns)
            ):
                builder.take(self._stated(label), normalized)
        numbers = self.block.column("severity")[self.rows]
        places = builder.open(numbers > 0)
        builder.fill_numbers(places, numbers[places], of_number)
        places = builder.open(numbers == 0)
        if places.size:
            lines = Lines(self.block, self.rows[places])
            builder.fill_numbers(places, lines.levels(), levels.LEVELS.__getitem__)
        return builder.column()


def _may_nest(outer: str, name: str) -> bool:
    """Tell whether flattening an attribute of label name `outer` can make the label `name`."""
    stem = outer.strip("_")
    return name.strip("_").startswith(stem) if stem else name.startswith("_")
