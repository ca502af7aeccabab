"""An insert in ClickHouse's Native format: blocks of columns, each with its name and type.

    columns, rows     varints
    then, for each    name, type (varint of the length and the text), and the values as sheet.py lays them out

It is what the server keeps in memory, so that reading it costs it least of all its formats; types that differ from those of
the table are turned into them there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import cramjam
import zstandard

from collector.exporters.clickhouse.buffers import PLACES
from collector.exporters.clickhouse.sheet import Sheet
from collector.exporters.larger import larger
from collector.otlp.signals import LOGS, METRICS, TRACES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.exporters.base import Batch
    from collector.exporters.clickhouse.schema import Table

RUN: Final = 1024
"""Rows that are laid out at once, with the GIL held."""
BLOCK_ROWS: Final = 8192
"""Rows of a block of the insert: a span is four times as large in columns as it was, so they are compressed as they come. The
server makes one part of all of them."""
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


def joined(batch: Batch) -> Batch:
    """Return a batch with its small blocks as larger ones."""
    return replace(batch, blocks=tuple(larger(batch.blocks, RUN)))


def laid_out(batch: Batch, table: Table) -> Iterator[bytes]:
    """Yield the parts of the insert of those records of a batch that belong into a table; nothing for none."""
    sheet = Sheet(table.keeps)
    kind = table.layout.kind
    for block in batch.blocks:
        if batch.signal is METRICS and not (block.column("type") == kind).any():
            continue
        for first in range(0, block.count, RUN):
            end = min(first + RUN, block.count)
            if batch.signal is TRACES:
                sheet.add_spans(block, first, end)
            elif batch.signal is LOGS:
                sheet.add_logs(block, first, end)
            else:
                sheet.add_points(block, first, end, kind)
            if sheet.count >= BLOCK_ROWS:
                yield from _block(sheet, batch, table)
                sheet.clear()
    if sheet.count:
        yield from _block(sheet, batch, table)


def _block(sheet: Sheet, batch: Batch, table: Table) -> Iterator[bytes]:
    constants = {"RingtailTenant": batch.source.tenant, "RingtailInstance": batch.source.instance}
    yield varint(len(table.sent)) + varint(sheet.count)
    for column in table.sent:
        yield text(column.name) + text(column.native)
        if column.name in constants:
            yield text(constants[column.name]) * sheet.count
        else:
            for place in PLACES[column.name]:
                yield sheet.take(place)


def body(batch: Batch, table: Table, compression: str) -> bytes:
    """Return the body of an insert; empty when no record of the batch belongs into the table."""
    parts = laid_out(batch, table)
    first = next(parts, b"")
    if compression == "none" or not first:
        return b"".join((first, *parts))
    if compression == "zstd":
        compressor = zstandard.ZstdCompressor(ZSTD_LEVEL).compressobj()
        return b"".join((compressor.compress(first), *map(compressor.compress, parts), compressor.flush()))
    lz4 = cramjam.lz4.Compressor(LZ4_LEVEL)
    lz4.compress(first)
    for part in parts:
        lz4.compress(part)
    return bytes(lz4.finish())
