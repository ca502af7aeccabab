"""Labels of many records as they came, by columns: `Records.labels` without decoding the records.

What has no column of its own comes out of the payload by one compiled search (`match.attribute`). Only where
that cannot decide (two keys with one label name, values that are arrays, bytes or nested) the record is
decoded, one by one. The answer is the same either way; tests hold the two against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from collector.errors import QueryLimit
from collector.otlp.records import LOG_ATTRIBUTES
from collector.query import levels, match
from collector.query.logql.column import ABSENT, METADATA, STREAM, Builder, Column, Entry
from collector.query.logql.labels import (
    Container,
    Records,
    number_text,
)
from collector.query.logql.layer import MADE_MAX, Layer
from collector.query.logql.levels import LEVEL, LEVEL_LABELS, normalized, of_number
from collector.query.logql.lines import Lines, body_lines
from collector.query.logql.row import SUFFIX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.query.logql.row import Row


_TEXT_FIELDS = {"severity_text": 3, "event_name": 12}
_DECODED_FIELDS = frozenset(("observed_timestamp", "dropped_attributes_count", "flags"))
_OUT_OF_RANGE = 255  # of the severity column: the number is larger, or negative
_IS_COMPOUND = np.isin(
    np.arange(match.EMPTY + 1), (match.ARRAY, match.KVLIST, match.BYTES)
)  # as an attribute: not a scalar


class Original(Layer):
    """The labels and lines of some rows of a block before any stage."""

    def __init__(self, block: Block, rows: NDArray[np.intp], records: Records, deadline: Deadline | None) -> None:
        """Take ascending row numbers."""
        super().__init__(len(rows))
        self._deadline = deadline
        self._made = [0]  # shared with what is narrowed from here
        self.block = block
        self.rows = rows
        self.records = records
        self._keys: set[bytes] | None = None  # a superset of the rows' attribute keys, once it is known
        self._stream_rows: dict[str, NDArray[np.bool_]] = {}
        self._grouped: list[tuple[Container, NDArray[np.intp]]] | None = None

    def narrowed(self, mask: NDArray[np.bool_]) -> Original:
        """See `Layer.narrowed`."""
        layer = super().narrowed(mask)
        layer.rows = self.rows[mask]
        layer._stream_rows = {name: rows[mask] for name, rows in self._stream_rows.items()}
        layer._grouped = None
        return layer

    def check(self) -> None:
        """See `Layer.check`."""
        if self._deadline is not None:
            self._deadline.check()

    def charge(self, size: int) -> None:
        """See `Layer.charge`."""
        self._made[0] += size
        if self._made[0] > MADE_MAX:
            raise QueryLimit(
                f"the stages make more than {MADE_MAX} characters out of {self.block.count} lines; filter lines first"
            )

    def row(self, place: int) -> Row:
        """See `Layer.row`."""
        return self.records.row(self.block, int(self.rows[place]))

    def times(self) -> NDArray[np.uint64]:
        """See `Layer.times`."""
        times: NDArray[np.uint64] = self.block.column("time")[self.rows]
        return times

    def _extracted(self, name: str) -> NDArray[np.bool_]:
        return np.zeros(self.count, np.bool_)

    def in_base(self, name: str) -> NDArray[np.bool_]:
        """See `Layer.in_base`."""
        found = self._stream_rows.get(name)
        if found is None:
            found = np.zeros(self.count, np.bool_)
            for container, places in self._containers():
                if name in container.stream:
                    found[places] = True
            self._stream_rows[name] = found
        return found

    def _lines(self) -> Lines:
        return body_lines(self.block, self.rows)

    def _entry(self, name: str) -> Entry:
        builder = Builder(self.count)
        in_stream = self.in_base(name)
        if name == LEVEL:
            self._fill_level(builder)
        else:
            self._fill(builder, name, in_stream)
        kinds = np.where(builder.codes == 0, ABSENT, np.where(in_stream, STREAM, METADATA))
        return Entry(builder.codes, builder.values, kinds.astype(np.uint8))

    def _fill(self, builder: Builder, name: str, in_stream: NDArray[np.bool_]) -> None:
        """Fill in a label that records or their containers state."""
        if name in _DECODED_FIELDS or (name.endswith(SUFFIX) and self.in_base(name.removesuffix(SUFFIX)).any()):
            builder.fill(np.arange(self.count), self._decoded(name, np.arange(self.count)))
            return
        containers = self._containers()
        for container, places in containers:
            if name in container.stream:
                builder.codes[places] = builder.code(container.stream[name])
        if in_stream.all():
            return
        self._fill_fields(builder, name)
        undecided = self._fill_attributes(builder, name)
        for container, places in containers:
            value = container.metadata.get(name)
            if value is not None:
                builder.codes[places[builder.codes[places] == 0]] = builder.code(value)
        undecided = undecided[~in_stream[undecided]]
        builder.fill(undecided, self._decoded(name, undecided))

    def _decoded(self, name: str, places: NDArray[np.intp]) -> list[str]:
        labels = self.records.labels
        return [labels(self.block, row).get(name, "") for row in self.rows[places].tolist()]

    def _containers(self) -> list[tuple[Container, NDArray[np.intp]]]:
        """Return each container with the places of its rows."""
        if self._grouped is None:
            codes, containers = self.records.containers(self.block, self.rows)
            if len(containers) <= 1:
                self._grouped = [(container, np.arange(self.count)) for container in containers]
            else:
                order = np.argsort(codes, kind="stable")
                bounds = np.searchsorted(codes[order], np.arange(1, len(containers)))
                self._grouped = list(zip(containers, np.split(order, bounds), strict=True))
        return self._grouped

    def _extents(self, places: NDArray[np.intp] | slice = slice(None)) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = self.rows[places]
        return self.block.column("start")[rows], self.block.column("length")[rows]

    def _fill_fields(self, builder: Builder, name: str) -> None:
        """Fill in what a record says outside its attributes."""
        if name in _TEXT_FIELDS:
            starts, lengths = match.string_field(self.block.payload, *self._extents(), _TEXT_FIELDS[name])
            places = builder.open(lengths > 0)
            self._fill_texts(builder, places, starts[places], lengths[places])
        elif name == "severity_number":
            severity = self.block.column("severity")[self.rows]
            places = builder.open(severity > 0)
            builder.fill_numbers(places, severity[places], str)
            places = np.flatnonzero(severity == _OUT_OF_RANGE)
            builder.fill(places, self._decoded(name, places))
        elif name in ("trace_id", "span_id"):
            ids = self.block.column(name)[self.rows].reshape(self.count, -1)
            places = builder.open((ids != 0).any(axis=1))
            raw = np.ascontiguousarray(ids[places]).view(np.uint8)
            builder.fill(places, [bytes(each).hex() for each in raw])

    def _fill_texts(
        self, builder: Builder, places: NDArray[np.intp], starts: NDArray[Any], lengths: NDArray[Any]
    ) -> None:
        """Fill in strings of the payload, each distinct one made once."""
        codes, firsts = match.distinct(self.block.payload, (starts, lengths))
        texts = match.strings(self.block.payload, starts[firsts], lengths[firsts])
        builder.codes[places] = np.array([builder.code(text) for text in texts], np.intp)[codes]

    def _fill_attributes(self, builder: Builder, name: str) -> NDArray[np.intp]:
        """Fill in attributes of that label name; return the places that only a decoded record decides."""
        payload = self.block.payload
        undecided = np.zeros(self.count, np.bool_)
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
            self._fill_texts(builder, places, values.start[places], values.length[places])
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

    def _stated(self, name: str) -> Column:
        """Return a label that records or their containers state."""
        builder = Builder(self.count)
        self._fill(builder, name, self.in_base(name))
        return builder.column()

    def _fill_level(self, builder: Builder) -> None:
        """Fill in the level by the rules of levels.py, in their order."""
        containers = self._containers()
        for container, places in containers:
            if LEVEL in container.stream:
                builder.codes[places] = builder.code(container.stream[LEVEL])
        builder.take(self._stated(LEVEL), normalized)
        for container, places in containers:
            text = container.level
            if text:
                builder.codes[places[builder.codes[places] == 0]] = builder.code(text)
        for label in self._level_labels(containers):
            builder.take(self._stated(label), normalized)
        numbers = self.block.column("severity")[self.rows]
        places = builder.open(numbers > 0)
        builder.fill_numbers(places, numbers[places], of_number)
        places = builder.open(numbers == 0)
        if places.size:
            codes = body_lines(self.block, self.rows[places]).levels()
            builder.fill_numbers(places, codes, levels.LEVELS.__getitem__)

    def _level_labels(self, containers: list[tuple[Container, NDArray[np.intp]]]) -> list[str]:
        """Return the labels of a level that any row can have as structured metadata, in their order."""
        owns = [self.records.name(key) for key in self._attribute_keys()]
        return [
            label
            for label in LEVEL_LABELS
            if label == "severity_text"
            or any(label in container.metadata for container, _ in containers)
            or any(own == label or _may_nest(own, label) for own in owns)
        ]


def _may_nest(outer: str, name: str) -> bool:
    """Tell whether flattening an attribute of label name `outer` can make the label `name`."""
    stem = outer.strip("_")
    return name.strip("_").startswith(stem) if stem else name.startswith("_")
