"""The block: an immutable run of consecutive records of one signal, the one thing that travels everywhere.

A block is a payload (one serialized Export…ServiceRequest, possibly several concatenated, which is the same
thing in protobuf) and what one pass of the scanner took out of it. It has two tables:

* records: one row a record, in the payload's order; row `i` has offset `base_offset + i`.
* groups: one row for each innermost container of records (a ScopeSpans, a ScopeLogs or a Metric), with
  where it, its scope and its resource lie in the payload.

A table is one buffer, column after column, widest first, so that every column is an aligned numpy view and
a block of one record costs one small object and not fifteen. Extents are pairs of 32-bit `…_start` and
`…_length` in bytes of the payload; a length of 0 means absent. Names and services stand in the columns as
64-bit keys (see `scan.hash_key`): a key narrows a search, the bytes decide it. 0 is the key of an absent
string. Trace and span ids are raw bytes seen as native 64-bit words.

Nothing else holds a record on the way in; attributes, events, links and bodies are read from the payload
when a query asks (`records.py`, `query/match.py`).
"""

from __future__ import annotations

from struct import Struct
from sys import byteorder
from typing import TYPE_CHECKING, Any

import numpy as np

from collector.otlp.signals import LOGS, METRICS, TRACES, Signal
from collector.otlp.wire import hash_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

FROM_NOTHING, FROM_PAYLOAD, FROM_GROUPS = range(3)
"""What the numbers of a column count from; see `Layout`."""


_UNSIGNED = {size: Struct(f"={kind}") for size, kind in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))}


class Layout:
    """The columns of a table: names, numpy types, and where each begins for a given number of rows.

    `bases` has a byte for each column that says what its numbers count from: `FROM_NOTHING`, `FROM_PAYLOAD` for a
    place in the payload (0 is none), `FROM_GROUPS` for a row of the group table.
    """

    __slots__ = ("bases", "columns", "numbers", "row_bytes")

    def __init__(self, *columns: tuple[str, str]) -> None:
        """Take (name, numpy type) pairs, widest type first, so that each column is aligned."""
        self.columns: dict[str, tuple[np.dtype[Any], int]] = {}
        row_bytes = 0
        width = 16
        for name, kind in columns:
            dtype = np.dtype(kind)
            if dtype.itemsize > width:
                raise ValueError(f"column {name} is wider than the one before it")
            width = dtype.itemsize
            self.columns[name] = (dtype, row_bytes)
            row_bytes += width
        self.row_bytes = row_bytes
        self.numbers = {
            name: (_UNSIGNED[dtype.itemsize].unpack_from, place, dtype.itemsize)
            for name, (dtype, place) in self.columns.items()
            if dtype.itemsize in _UNSIGNED
        }
        self.bases = bytes(map(_base, self.columns))


def _base(name: str) -> int:
    if name == "start" or name.endswith("_start"):
        return FROM_PAYLOAD
    return FROM_GROUPS if name == "group" else FROM_NOTHING


_U128 = "2u8"

RECORDS: dict[Signal, Layout] = {
    TRACES: Layout(
        ("trace_id", _U128),
        ("time", "u8"),  # start_time_unix_nano
        ("end_time", "u8"),
        ("span_id", "u8"),
        ("parent_span_id", "u8"),
        ("name", "u8"),
        ("service", "u8"),
        ("start", "u4"),
        ("length", "u4"),
        ("group", "u4"),
        ("name_start", "u4"),
        ("name_length", "u4"),
        ("kind", "u1"),
        ("status", "u1"),
    ),
    LOGS: Layout(
        ("trace_id", _U128),
        ("time", "u8"),  # time_unix_nano, or observed_time_unix_nano when that is 0
        ("observed_time", "u8"),
        ("span_id", "u8"),
        ("service", "u8"),
        ("start", "u4"),
        ("length", "u4"),
        ("group", "u4"),
        ("body_start", "u4"),  # the body's AnyValue message
        ("body_length", "u4"),
        ("severity", "u1"),
    ),
    METRICS: Layout(
        ("time", "u8"),
        ("start_time", "u8"),
        ("value", "f8"),  # of gauges and sums; a histogram's or summary's sum
        ("series", "u8"),  # key of resource, scope, metric and attributes as the client wrote them
        ("name", "u8"),
        ("service", "u8"),
        ("start", "u4"),
        ("length", "u4"),
        ("group", "u4"),
        ("flags", "u4"),
        ("type", "u1"),  # 1 gauge, 2 sum, 3 histogram, 4 exponential histogram, 5 summary
        ("value_type", "u1"),  # 0 none, 1 double, 2 integer
    ),
}
"""The record table of each signal. `time` is the time that queries order and select by, in Unix ns."""

_CONTAINERS = (
    ("service", "u8"),
    ("envelope_start", "u4"),  # the ResourceSpans / ResourceLogs / ResourceMetrics message
    ("envelope_length", "u4"),
    ("resource_start", "u4"),
    ("resource_length", "u4"),
    ("scope_envelope_start", "u4"),  # the ScopeSpans / ScopeLogs / ScopeMetrics message
    ("scope_envelope_length", "u4"),
    ("scope_start", "u4"),
    ("scope_length", "u4"),
    ("service_start", "u4"),  # the string value of the resource's service.name
    ("service_length", "u4"),
)

GROUPS: dict[Signal, Layout] = {
    TRACES: Layout(*_CONTAINERS),
    LOGS: Layout(*_CONTAINERS),
    METRICS: Layout(
        *_CONTAINERS,
        ("metric_start", "u4"),
        ("metric_length", "u4"),
        ("name_start", "u4"),
        ("name_length", "u4"),
        ("unit_start", "u4"),
        ("unit_length", "u4"),
        ("temporality", "u1"),
        ("monotonic", "u1"),
    ),
}
"""The group table of each signal."""

GAUGE, SUM, HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY = 1, 2, 3, 4, 5
METRIC_TYPES = ("", "gauge", "sum", "histogram", "exponential_histogram", "summary")
"""Names of the `type` column's values."""

NO_RECORDED_VALUE = 1
"""The bit of `flags` that marks a point without a value (DataPointFlags)."""


class Table:
    """Rows of fixed-width columns in one buffer. Immutable."""

    __slots__ = ("buffer", "count", "layout")

    def __init__(self, layout: Layout, count: int, buffer: bytes) -> None:
        if len(buffer) != layout.row_bytes * count:
            raise ValueError(f"{len(buffer)} bytes are not {count} rows of {layout.row_bytes}")
        self.layout = layout
        self.count = count
        self.buffer = buffer

    def column(self, name: str) -> NDArray[Any]:
        """Return the column as a read-only view: `count` entries, of two words each for 16-byte ids."""
        dtype, place = self.layout.columns[name]
        return np.frombuffer(self.buffer, dtype, self.count, place * self.count)

    def number(self, name: str, row: int) -> int:
        """Return one entry of a column of unsigned numbers: a fifth of the time that a view for it takes."""
        unpack, place, size = self.layout.numbers[name]
        found: int = unpack(self.buffer, place * self.count + size * row)[0]
        return found

    def column_bytes(self, name: str) -> memoryview:
        """Return the column's bytes, for compiled code that knows the width."""
        dtype, place = self.layout.columns[name]
        begin = place * self.count
        return memoryview(self.buffer)[begin : begin + dtype.itemsize * self.count]


class Block:
    """An immutable run of consecutive records of one signal: payload, columns, offsets and time range."""

    __slots__ = (
        "base_offset",
        "count",
        "end_offset",
        "groups",
        "max_time",
        "min_time",
        "nbytes",
        "payload",
        "payload_bytes",
        "records",
        "signal",
    )

    OVERHEAD = 560
    """Bytes of the Python objects around the three buffers (measured; tests/otlp/test_block.py)."""

    def __init__(
        self,
        signal: Signal,
        base_offset: int,
        payload: bytes | bytearray,
        records: Table,
        groups: Table,
        min_time: int,
        max_time: int,
    ) -> None:
        self.signal = signal
        self.base_offset = base_offset
        self.payload = payload
        self.records = records
        self.groups = groups
        self.min_time = min_time
        self.max_time = max_time
        self.count = count = records.count
        """The number of records."""
        self.end_offset = base_offset + count
        """The offset after the last record's."""
        self.payload_bytes = payload.__alloc__() if isinstance(payload, bytearray) else len(payload)
        """What the payload holds of memory, in bytes."""
        self.nbytes = self.payload_bytes + len(records.buffer) + len(groups.buffer) + self.OVERHEAD
        """What the block holds of memory, in bytes: payload, both tables, and the objects around them."""

    def column(self, name: str) -> NDArray[Any]:
        """Return a record column: `count` entries, read-only."""
        return self.records.column(name)

    def group_column(self, name: str) -> NDArray[Any]:
        """Return a group column: one entry for each group, read-only."""
        return self.groups.column(name)

    def may_have(self, column: str, key: int | bytes) -> bool:
        """Tell whether a record can have this key, as far as the groups know: of services they do."""
        if column != "service" or isinstance(key, int):
            return True
        begin = GROUPS[self.signal].columns[column][1] * self.groups.count
        token = hash_key(key).to_bytes(8, byteorder)
        return self.groups.buffer.find(token, begin, begin + 8 * self.groups.count) >= 0

    def __repr__(self) -> str:
        return f"<Block {self.signal.name} [{self.base_offset}, {self.end_offset}) {self.nbytes} B>"
