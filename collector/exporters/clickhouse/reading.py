"""Answers as blocks: one SELECT over all tables of a signal, in order of time, read as it comes.

A row of the answer (RowBinary) has four values, whatever the table:

    time        8 bytes, Unix ns
    container   what stood around the record, and
    record      its own message, where the table keeps them; else both are empty, and
    columns     is the row as JSON (loose.py)

The server sorts; here there is one piece at a time, of at most PIECE_RECORDS records, and of PIECE_BYTES unless one record has
more. Who reads slowly holds the answer up, and at last the server gives up: Retryable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from collector.errors import Retryable
from collector.exporters.base import PIECE_RECORDS
from collector.exporters.clickhouse import loose
from collector.exporters.clickhouse.filters import time_of, wanted_rows
from collector.exporters.containers import Container, Metric, assembled
from collector.otlp.block import METRIC_TYPES
from collector.otlp.records import data_field, top_level_fields
from collector.otlp.scan import scan
from collector.otlp.wire import own_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collector.exporters.base import Wanted
    from collector.exporters.clickhouse.schema import Table
    from collector.otlp.block import Block
    from collector.otlp.signals import Signal

PIECE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of rows of which a block is made."""
ROW_BYTES_MAX: Final = 256 * 1024 * 1024
"""Bytes of one row, at most."""
CONTAINERS_MAX: Final = 1024
"""Containers that are kept apart at once."""
_DATA: Final = {data_field(kind): kind for kind in range(1, len(METRIC_TYPES))}


class Row(NamedTuple):
    """A row of the answer."""

    time: int
    table: int
    container: bytes
    record: bytes
    columns: bytes


def statement(
    tables: Sequence[Table], places: Sequence[str], wanted: Wanted, *, far: bool = True
) -> tuple[str, dict[str, str]] | None:
    """Return the SELECT, and its parameters; None when no table has anything. `places` are the tables' names in it; `far` as
    filters.py has it."""
    parts = []
    parameters: dict[str, str] = {}
    for number, (table, place) in enumerate(zip(tables, places, strict=True)):
        conditions = wanted_rows(table, wanted, far=far)
        if conditions is None:
            continue
        parameters |= conditions.parameters
        time = f"{time_of(table)} AS ringtail_time, toUInt8({number}) AS ringtail_table"
        kept = "CAST(RingtailContainer, 'String') AS ringtail_container, RingtailRecord AS ringtail_record"
        none = "'' AS ringtail_container, '' AS ringtail_record"
        json = f"{loose.expression(table)} AS ringtail_columns"
        if table.keeps:
            whole = f"SELECT {time}, {kept}, '' AS ringtail_columns FROM {place} WHERE {conditions.where}"
            parts += [
                f"{whole} AND RingtailContainer != ''",
                f"SELECT {time}, {none}, {json} FROM {place} WHERE {conditions.where} AND RingtailContainer = ''",
            ]
        else:
            parts.append(f"SELECT {time}, {none}, {json} FROM {place} WHERE {conditions.where}")
    if not parts:
        return None
    order = "DESC" if wanted.newest_first else "ASC"
    return f"SELECT * FROM ({' UNION ALL '.join(parts)}) ORDER BY ringtail_time {order} FORMAT RowBinary", parameters


class Rows:
    """Rows out of an answer that comes in chunks."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def add(self, chunk: bytes) -> list[Row]:
        """Take a chunk, and return the rows that are whole now. Raises Retryable for what is no answer."""
        data = self._rest
        data += chunk
        found = []
        at = 0
        while True:
            end = at + 9
            places = []
            for _ in range(3):
                length, begin = _varint(data, end)
                if begin < 0:
                    break
                if length > ROW_BYTES_MAX:
                    raise Retryable("the answer broke off: a row is too long")
                end = begin + length
                places.append((begin, end))
            if len(places) < 3 or end > len(data):
                break
            texts = [bytes(data[first:last]) for first, last in places]
            found.append(Row(int.from_bytes(data[at : at + 8], "little", signed=True), data[at + 8], *texts))
            at = end
        del data[:at]
        return found

    def end(self) -> None:
        """The answer is over. Raises Retryable when a row is not."""
        if self._rest:
            raise Retryable("the answer broke off")


def _varint(data: bytearray, at: int) -> tuple[int, int]:
    """Return a number and where it ends; -1 when it is not whole."""
    number = shift = 0
    while at < len(data) and shift < 35:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    if shift >= 35:
        raise Retryable("the answer broke off: a length is too long")
    return 0, -1


class Pieces:
    """Blocks out of rows. One is made at a time, in any thread."""

    def __init__(self, signal: Signal, tables: Sequence[Table]) -> None:
        self._signal = signal
        self._readers: list[Callable[[bytes], tuple[Container, bytes]]] = [loose.reader(one) for one in tables]
        self._containers: dict[bytes, Container] = {}

    def block(self, rows: Sequence[Row]) -> Block:
        """Return the records of rows as a block. Raises Retryable for what is no record."""
        found = []
        for row in rows:
            if not row.container:
                found.append(self._readers[row.table](row.columns))
                continue
            container = self._containers.get(row.container)
            if container is None:
                if len(self._containers) >= CONTAINERS_MAX:
                    self._containers.clear()
                container = self._containers[row.container] = read_container(row.container)
            found.append((container, row.record))
        return scan(self._signal, assembled(self._signal, found), 0)


def read_container(written: bytes) -> Container:
    """Return what sheet.py has written."""
    outer = _content(written, 1)
    inner = _content(outer, 2)
    found = Container(own_fields(outer, 0, len(outer), 2), own_fields(inner, 0, len(inner), 2), None)
    metric = _content(inner, 2)
    for number, content in top_level_fields(metric):
        if number in _DATA:
            own = own_fields(metric, 0, len(metric), number)
            return found._replace(metric=Metric(own, content, _DATA[number]))
    return found


def _content(message: bytes, field: int) -> bytes:
    return next((content for number, content in top_level_fields(message) if number == field), b"")


def piece_is_full(rows: Sequence[Row], nbytes: int) -> bool:
    """Tell whether rows are enough for a block."""
    return len(rows) >= PIECE_RECORDS or nbytes >= PIECE_BYTES
