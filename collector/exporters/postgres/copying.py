"""What of a batch is written: rows in COPY's binary form, and the containers that they refer to.

A container's id is a hash of its bytes, 16 bytes long; so all instances agree on it, and whether it is there already
needs no lock. Everything here runs in a thread; a thousand rows at a time hold the GIL for some milliseconds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from collector.exporters import rows
from collector.exporters.containers import containers, description, resource, scope
from collector.exporters.larger import larger
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

_MIN_TIME: Final = attrgetter("min_time")
_MAX_TIME: Final = attrgetter("max_time")

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
    first = min(map(_MIN_TIME, blocks)) // DAY_NS
    last = max(map(_MAX_TIME, blocks)) // DAY_NS
    if last - first < 2:
        return {first, last}
    found: set[int] = set()
    for block in blocks:
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
    shared = _Shared(signal)
    ranges: list[tuple[int, int]] = []
    for block in larger(blocks, RUN):
        groups = shared.groups(block)
        for first in range(0, block.count, RUN):
            end = min(block.count, first + RUN)
            parts.append(pack(KINDS[signal], _columns(block, groups, first, end, source)))
        shared.note(block, groups)
        if ranges and ranges[-1][1] == block.base_offset:
            ranges[-1] = (ranges[-1][0], block.end_offset)
        else:
            ranges.append((block.base_offset, block.end_offset))
    parts.append(TRAILER)
    count = sum(end - first for first, end in ranges)
    return Prepared(b"".join(parts), shared.containers, shared.metrics, tuple(ranges), count)


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """What records stand in, as their columns have it."""

    container: Container
    id: bytes
    metric_id: bytes | None
    service: str
    name: str
    """Of a metric."""


class _Shared:
    """What the records of a batch stand in; each container is looked at once, however many groups have it."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self._known: dict[Container, _Group] = {}
        self.containers: dict[Key, tuple[Any, ...]] = {}
        """Rows of the table, by their keys."""
        self.metrics: dict[Key, tuple[Any, ...]] = {}

    def groups(self, block: Block) -> list[_Group]:
        """Return those of a block."""
        found = []
        for number, container in enumerate(containers(block)):
            group = self._known.get(container)
            if group is None:
                points = container.metric is not None
                group = self._known[container] = _Group(
                    container,
                    _id(container.resource, container.scope),
                    _id(container.metric.key) if container.metric is not None else None,
                    group_bytes(block, number, "service").decode(),
                    group_bytes(block, number, "name").decode() if points else "",
                )
            found.append(group)
        return found

    def note(self, block: Block, groups: list[_Group]) -> None:
        """Add the rows that the records of a block refer to."""
        days = block.column("time") // np.uint64(DAY_NS)
        for number in np.unique(days).tolist():
            day = day_of(number)
            # Groups that are alike are one object; several of one container differ in their metrics.
            for group in {id(one): one for one in map(groups.__getitem__, _of(block, days == number))}.values():
                if (day, group.id) not in self.containers:
                    self.containers[day, group.id] = _container_row(day, group)
                if group.metric_id is not None and (day, group.metric_id) not in self.metrics:
                    self.metrics[day, group.metric_id] = _metric_row(day, group)


def _of(block: Block, chosen: NDArray[np.bool_]) -> list[int]:
    """Return the groups of some records."""
    found: list[int] = np.unique(block.column("group")[chosen]).tolist()
    return found


def _container_row(day: date, group: _Group) -> tuple[Any, ...]:
    outer, inner = resource(group.container.resource), scope(group.container.scope)
    return (
        *(day, group.id, stored(group.service), irregular([outer.attributes])[0]),
        *(stored_json(outer.attributes), stored(outer.schema_url), stored(inner.name), stored(inner.version)),
        *(stored_json(inner.attributes), stored(inner.schema_url), group.container.resource, group.container.scope),
    )


def _metric_row(day: date, group: _Group) -> tuple[Any, ...]:
    metric = group.container.metric
    assert metric is not None
    told = description(metric)
    return (
        *(day, group.metric_id, stored(told.name), stored(told.description), stored(told.unit), told.type),
        *(told.temporality, told.monotonic, metric.own, metric.data),
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


def _columns(block: Block, groups: list[_Group], first: int, end: int, source: int) -> list[list[Any]]:
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
    found["container"] = [groups[group].id for group in of]
    found["service"] = [groups[group].service for group in of]
    found["irregular"] = irregular(found["attributes"])
    if signal is TRACES:
        ends = block.column("end_time")[first:end]
        found["end_time"] = _micros(ends)
        found["duration_ns"] = (ends - times).view(np.int64).tolist()
    elif signal is LOGS:
        found["observed_time"] = _micros(block.column("observed_time")[first:end])
    else:
        found["metric"] = [groups[group].metric_id for group in of]
        found["name"] = [groups[group].name for group in of]
        found["start_time"] = _micros(block.column("start_time")[first:end])
        found["int_value"] = [one if isinstance(one, int) else None for one in found["value"]]
    return [found[name] for name, _ in COLUMNS[signal]]
