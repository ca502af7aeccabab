"""What of a batch is written: rows in COPY's binary form, and the containers that they refer to.

A container's id is a hash of its bytes, 16 bytes long; so all instances agree on it, and whether it is there already
needs no lock. Everything here runs in a thread; a thousand rows at a time hold the GIL for some milliseconds.
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from collector.exporters import rows
from collector.exporters.containers import containers, description, resource, scope
from collector.exporters.points import points
from collector.exporters.postgres.pack import irregular, pack
from collector.exporters.postgres.partitions import DAY_NS, day_of
from collector.otlp.records import group_bytes
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from collector.exporters.containers import Container
    from collector.otlp.block import Block

RUN: Final = 1000
"""Rows that are taken out of a block at once."""
HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
_EPOCH_US: Final = 946_684_800_000_000
"""PostgreSQL's own epoch, 2000-01-01, in microseconds after Unix's."""

_RECORD: Final = (
    *(("time", "q"), ("nanos", "h"), ("source", "i"), ("log_offset", "q"), ("container", "b"), ("service", "t")),
    *(("irregular", "o"), ("attributes", "j"), ("flags", "q"), ("record", "b")),
)
COLUMNS: Final[dict[Signal, tuple[tuple[str, str], ...]]] = {
    TRACES: (
        *_RECORD,
        *(("trace_id", "b"), ("span_id", "b"), ("parent_span_id", "b"), ("trace_state", "t"), ("name", "t")),
        *(("kind", "h"), ("end_time", "q"), ("duration_ns", "q"), ("status_code", "h"), ("status_message", "t")),
        *(("events", "j"), ("links", "j"), ("dropped_attributes_count", "q"), ("dropped_events_count", "q")),
        ("dropped_links_count", "q"),
    ),
    LOGS: (
        *_RECORD,
        *(("observed_time", "q"), ("trace_id", "b"), ("span_id", "b"), ("severity_number", "h")),
        *(("severity_text", "t"), ("event_name", "t"), ("body", "t"), ("dropped_attributes_count", "q")),
    ),
    METRICS: (
        *_RECORD,
        *(("metric", "b"), ("name", "t"), ("type", "h"), ("start_time", "q"), ("value", "d"), ("int_value", "q")),
        *(("count", "d"), ("sum", "d"), ("min", "d"), ("max", "d"), ("distribution", "j"), ("exemplars", "j")),
    ),
}
"""What is copied, in this order, and in which form (pack.py)."""
KINDS: Final = {signal: "".join(kind for _, kind in columns) for signal, columns in COLUMNS.items()}

CONTAINER_COLUMNS: Final = {
    "day": "date",
    "id": "bytea",
    "service": "text",
    "irregular": "boolean",
    "resource_attributes": "jsonb",
    "resource_schema_url": "text",
    "scope_name": "text",
    "scope_version": "text",
    "scope_attributes": "jsonb",
    "scope_schema_url": "text",
    "resource": "bytea",
    "scope": "bytea",
}
METRIC_COLUMNS: Final = {
    "day": "date",
    "id": "bytea",
    "name": "text",
    "description": "text",
    "unit": "text",
    "type": "text",
    "temporality": "smallint",
    "monotonic": "boolean",
    "own": "bytea",
    "data": "bytea",
}
"""Types by column."""

Key = tuple[date, bytes]
"""Day and id."""


class Prepared(NamedTuple):
    """A batch as it is written."""

    copy: bytes
    """Everything that COPY is sent."""
    containers: dict[Key, tuple[Any, ...]]
    """Rows of the table of containers, by their keys."""
    metrics: dict[Key, tuple[Any, ...]]
    ranges: tuple[tuple[int, int], ...]
    """The offsets of the records, as [first, end)."""
    records: int


def days_in(blocks: Sequence[Block]) -> set[int]:
    """Return the days that records are of, as days since the epoch."""
    found: set[int] = set()
    for block in blocks:
        first, last = block.min_time // DAY_NS, block.max_time // DAY_NS
        if last - first < 2:
            found |= {first, last}
        else:
            found.update(np.unique(block.column("time") // np.uint64(DAY_NS)).tolist())
    return found


def stored(text: str) -> str:
    """Return a text as the columns have it."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def stored_json(text: str) -> str:
    """Return JSON as jsonb takes it; what it may have escaped more than jsontext.py does not matter here."""
    if "\\u0000" not in text:
        return text
    pieces = text.split("\\\\")
    return "\\\\".join(piece.replace("\\u0000", "\\ufffd") for piece in pieces)


def prepare(signal: Signal, blocks: Sequence[Block], source: int) -> Prepared:
    """Turn blocks of a source into what is written."""
    parts = [HEADER]
    around: dict[Key, tuple[Any, ...]] = {}
    metrics: dict[Key, tuple[Any, ...]] = {}
    ranges: list[tuple[int, int]] = []
    for block in blocks:
        groups = _Groups(block)
        for first in range(0, block.count, RUN):
            end = min(block.count, first + RUN)
            parts.append(pack(KINDS[signal], _columns(block, groups, first, end, source)))
        groups.note(around, metrics)
        if ranges and ranges[-1][1] == block.base_offset:
            ranges[-1] = (ranges[-1][0], block.end_offset)
        else:
            ranges.append((block.base_offset, block.end_offset))
    parts.append(TRAILER)
    return Prepared(b"".join(parts), around, metrics, tuple(ranges), sum(block.count for block in blocks))


class _Groups:
    """What the records of a block stand in, by group."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.containers = containers(block)
        self.ids = [_id(one.resource, one.scope) for one in self.containers]
        self.metric_ids = [_id(one.metric.key) if one.metric is not None else None for one in self.containers]
        self.services = [group_bytes(block, group, "service").decode() for group in range(len(self.containers))]
        self.names = (
            [group_bytes(block, group, "name").decode() for group in range(len(self.containers))]
            if block.signal is METRICS
            else []
        )

    def note(self, around: dict[Key, tuple[Any, ...]], metrics: dict[Key, tuple[Any, ...]]) -> None:
        """Add the rows that the records refer to."""
        count = len(self.containers)
        days = self.block.column("time") // np.uint64(DAY_NS)
        pairs = np.unique(days * np.uint64(count) + self.block.column("group"))
        for number, group in (divmod(pair, count) for pair in pairs.tolist()):
            day = day_of(number)
            one = self.containers[group]
            if (day, self.ids[group]) not in around:
                around[day, self.ids[group]] = self._container(day, group, one)
            if one.metric is not None and (day, self.metric_ids[group]) not in metrics:
                told = description(one.metric)
                key = self.metric_ids[group]
                assert key is not None
                metrics[day, key] = (
                    *(day, key, stored(told.name), stored(told.description), stored(told.unit), told.type),
                    *(told.temporality, told.monotonic, one.metric.own, one.metric.data),
                )

    def _container(self, day: date, group: int, one: Container) -> tuple[Any, ...]:
        outer, inner = resource(one.resource), scope(one.scope)
        return (
            *(day, self.ids[group], stored(self.services[group]), irregular([outer.attributes])[0]),
            *(stored_json(outer.attributes), stored(outer.schema_url), stored(inner.name), stored(inner.version)),
            *(stored_json(inner.attributes), stored(inner.schema_url), one.resource, one.scope),
        )


def _id(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()[:16]


def _micros(times: NDArray[Any]) -> list[int]:
    found: list[int] = ((times // np.uint64(1000)).astype(np.int64) - _EPOCH_US).tolist()
    return found


def _columns(block: Block, groups: _Groups, first: int, end: int, source: int) -> list[list[Any]]:
    """Return the columns of a run of rows, in the order of `COLUMNS`."""
    signal = block.signal
    extract = rows.spans if signal is TRACES else rows.logs if signal is LOGS else points
    found: dict[str, list[Any]] = extract(block, first, end)
    times = block.column("time")[first:end]
    of = found["group"]
    found["time"] = _micros(times)
    found["nanos"] = (times % np.uint64(1000)).tolist()
    found["source"] = [source] * (end - first)
    found["log_offset"] = list(range(block.base_offset + first, block.base_offset + end))
    found["container"] = [groups.ids[group] for group in of]
    found["service"] = [groups.services[group] for group in of]
    found["irregular"] = irregular(found["attributes"])
    if signal is TRACES:
        ends = block.column("end_time")[first:end]
        found["end_time"] = _micros(ends)
        found["duration_ns"] = (ends - times).view(np.int64).tolist()
    elif signal is LOGS:
        found["observed_time"] = _micros(block.column("observed_time")[first:end])
    else:
        found["metric"] = [groups.metric_ids[group] for group in of]
        found["name"] = [groups.names[group] for group in of]
        found["start_time"] = _micros(block.column("start_time")[first:end])
        found["int_value"] = [one if isinstance(one, int) else None for one in found["value"]]
    return [found[name] for name, _ in COLUMNS[signal]]
