"""An insert in ClickHouse's Native format: one block of columns, each with its name and type.

    columns, rows     varints
    then, for each    name, type (varint of the length and the text), and the values as sheet.py lays them out

It is what the server keeps in memory, so that reading it costs it least of all its formats; types that differ from those of
the table are turned into them there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cramjam
import zstandard

from collector.exporters.clickhouse.sheet import PLACES, Sheet
from collector.otlp.signals import LOGS, METRICS, TRACES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.exporters.base import Batch
    from collector.exporters.clickhouse.schema import Table
    from collector.otlp.block import Block

RUN: Final = 1024
"""Rows that are laid out at once, with the GIL held."""
ZSTD_LEVEL: Final = 1
LZ4_LEVEL: Final = 1


def varint(number: int) -> bytes:
    """Return a number as LEB128."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def text(value: str) -> bytes:
    """Return a text with its length."""
    encoded = value.encode()
    return varint(len(encoded)) + encoded


def laid_out(batch: Batch, table: Table) -> Iterator[bytes]:
    """Yield the parts of the insert of those records of a batch that belong into a table; nothing for none."""
    sheet = Sheet(table.keeps)
    for block in batch.blocks:
        _add(sheet, block, table)
    if not sheet.count:
        return
    constants = {"RingtailTenant": batch.source.tenant, "RingtailInstance": batch.source.instance}
    yield varint(len(table.sent)) + varint(sheet.count)
    for column in table.sent:
        yield text(column.name) + text(column.native)
        if column.name in constants:
            yield text(constants[column.name]) * sheet.count
        else:
            for place in PLACES[column.name]:
                yield sheet.take(place)


def _add(sheet: Sheet, block: Block, table: Table) -> None:
    kind = table.layout.kind
    if block.signal is METRICS and not (block.column("type") == kind).any():
        return
    for first in range(0, block.count, RUN):
        end = min(first + RUN, block.count)
        if block.signal is TRACES:
            sheet.add_spans(block, first, end)
        elif block.signal is LOGS:
            sheet.add_logs(block, first, end)
        else:
            sheet.add_points(block, first, end, kind)


def body(batch: Batch, table: Table, compression: str) -> bytes:
    """Return the body of an insert; empty when no record of the batch belongs into the table."""
    made = b"".join(laid_out(batch, table))
    if compression == "none" or not made:
        return made
    if compression == "zstd":
        return zstandard.ZstdCompressor(ZSTD_LEVEL).compress(made)
    return bytes(cramjam.lz4.compress(made, level=LZ4_LEVEL))
