"""Single records known again by what is in their columns, in tables that do not say whose rows they have.

An identity is 40 bytes: the main time in ns, the trace id, and the first half of a SHA-256 over what the columns of `COLUMNS` have of the
record: ids, names, kind, status and duration of a span; severity, body and event of a log record; service, scope and all
attributes. A text goes into it behind its length, a map behind its number of pairs, in their order. The server reckons the same out
of a row; so a row is the record only if it is the same in all of these columns, and no value travels. Rows that
are the same in all of them are one record here: one that was sent twice, or that another program wrote as well.

What is asked is narrowed by time and trace ids first, so the server reckons for few rows. Cost here: some 20 µs a record.

Left out are columns that not every version of the tables has. A table that lacks one of the others, or computes it, or whose times are
no nanoseconds, cannot tell.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from collector.exporters.clickhouse.buffers import PLACES
from collector.exporters.clickhouse.filters import VALUES_MAX, Conditions, add_range, add_tenant, hexadecimal, time_of
from collector.exporters.clickhouse.sheet import Sheet
from collector.otlp.signals import LOGS, TRACES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from collector.exporters.clickhouse.schema import Table
    from collector.otlp.block import Block
    from collector.otlp.signals import Signal

_AROUND: Final = ("ServiceName", "ResourceAttributes", "ScopeName", "ScopeVersion")
COLUMNS: Final[dict[Signal, tuple[str, ...]]] = {
    TRACES: (
        *("TraceId", "SpanId", "ParentSpanId", "TraceState", "SpanName", "SpanKind", "Duration", "StatusCode"),
        *("SpanAttributes", *_AROUND),
    ),
    LOGS: ("TraceId", "SpanId", "SeverityText", "SeverityNumber", "Body", "LogAttributes", *_AROUND),
}
AT_ONCE: Final = VALUES_MAX // 2
"""Identities in one statement, each with two values."""
_DIGEST_BYTES: Final = 16
_NUMBERS: Final = {"Duration": "<u8", "SeverityNumber": "u1", "Timestamp": "<i8"}
"""Columns of numbers, as they are sent."""
_TIME: Final = "DateTime64(9"


def identities(block: Block, rows: NDArray[np.intp]) -> list[bytes]:
    """Return the identities of these rows of a block of spans or log records."""
    sheet = Sheet(False)
    edges = np.flatnonzero(np.diff(rows, prepend=-2, append=-2) != 1) if rows.size else np.empty(0, np.intp)
    for first, end in pairwise(edges.tolist()):
        add = sheet.add_spans if block.signal is TRACES else sheet.add_logs
        add(block, int(rows[first]), int(rows[end - 1]) + 1)
    times = np.frombuffer(sheet.take(*PLACES["Timestamp"]), _NUMBERS["Timestamp"]).tolist()
    columns = [list(_column(sheet, name)) for name in COLUMNS[block.signal]]
    trace_ids = block.column("trace_id")
    return [
        b"".join(
            (
                time.to_bytes(8, "big"),
                trace_ids[row].tobytes(),
                hashlib.sha256(b"".join(parts)).digest()[:_DIGEST_BYTES],
            )
        )
        for row, time, *parts in zip(rows.tolist(), times, *columns, strict=True)
    ]


def _column(sheet: Sheet, name: str) -> Iterator[bytes]:
    """Yield what goes into the hash of a column, row by row."""
    places = [sheet.take(place) for place in PLACES[name]]
    if name in _NUMBERS:
        yield from (_part(b"%d" % one) for one in np.frombuffer(places[0], _NUMBERS[name]).tolist())
    elif len(places) == 1:
        yield from map(_part, _texts(places[0]))
    else:
        pairs = zip(_texts(places[1]), _texts(places[2]), strict=True)
        begun = 0
        for end in np.frombuffer(places[0], "<u8").tolist():
            yield b"%d;" % (end - begun) + b"".join(_part(one) for _ in range(end - begun) for one in next(pairs))
            begun = end


def _part(value: bytes) -> bytes:
    return b"%d:" % len(value) + value


def _texts(column: bytes) -> Iterator[bytes]:
    """Yield the strings of a column."""
    at = 0
    while at < len(column):
        length = shift = 0
        while (byte := column[at]) & 0x80:
            length |= (byte & 0x7F) << shift
            shift += 7
            at += 1
        length |= byte << shift
        at += 1
        yield column[at : at + length]
        at += length


def can(table: Table) -> bool:
    """Tell whether rows of a table can be known again."""
    sent = {column.name for column in table.sent}
    exact = table.types[table.layout.time].startswith(_TIME)
    return table.layout.traced and exact and sent.issuperset((*COLUMNS[table.layout.signal], table.layout.time))


def of_rows(table: Table, tenant: str, some: Sequence[bytes]) -> Conditions | None:
    """Return the conditions for the rows of some identities, at most `AT_ONCE`; None when the table has none of that tenant.

    Of a table that has keys by now, those rows are meant that have none.
    """
    made = Conditions()
    if not add_tenant(made, table, tenant):
        return None
    if table.keyed:
        made.parts.append("RingtailInstance = ''")
    times = [int.from_bytes(one[:8], "big") for one in some]
    add_range(made, table, min(times), max(times))
    made.parts.append(made.among("TraceId", sorted({hexadecimal(one[8:24]) for one in some})))
    exact = (
        f"concat(toString({time_of(table)}), ':', lower(hex(substring(SHA256({_hashed(table)}), 1, {_DIGEST_BYTES}))))"
    )
    made.parts.append(made.among(exact, [f"{time}:{one[24:].hex()}" for time, one in zip(times, some, strict=True)]))
    return made


def _hashed(table: Table) -> str:
    """Return what is hashed of a row, as an expression."""
    parts = []
    for name in COLUMNS[table.layout.signal]:
        if len(PLACES[name]) == 1:
            value = f"CAST(`{name}`, 'String')"
            parts.append(f"concat(toString(length({value})), ':', {value})")
        else:
            pair = "concat(toString(length(k)), ':', k, toString(length(v)), ':', v)"
            lists = ", ".join(f"CAST({part}(`{name}`), 'Array(String)')" for part in ("mapKeys", "mapValues"))
            parts.append(
                f"concat(toString(length(`{name}`)), ';', arrayStringConcat(arrayMap((k, v) -> {pair}, {lists})))"
            )
    return f"concat({', '.join(parts)})"
