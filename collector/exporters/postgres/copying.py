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

from collector.exporters.containers import containers, description, resource, scope
from collector.exporters.larger import larger
from collector.exporters.postgres.pack import Rows
from collector.exporters.postgres.partitions import DAY_NS, day_of
from collector.exporters.postgres.values import irregular
from collector.otlp.records import group_bytes
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from collector.exporters.containers import Container
    from collector.otlp.block import Block

RUN: Final = 1000
"""Rows that are taken out of a block at once."""

_RECORD: Final = (
    *("time", "nanos", "source", "log_offset", "container", "service", "attributes", "irregular", "flags"),
    "record",
)
COLUMNS: Final[dict[Signal, tuple[str, ...]]] = {
    TRACES: (
        *_RECORD,
        *("trace_id", "span_id", "parent_span_id", "trace_state", "name", "kind", "end_time", "duration_ns"),
        *("status_code", "status_message", "events", "links", "dropped_attributes_count", "dropped_events_count"),
        "dropped_links_count",
    ),
    LOGS: (
        *_RECORD,
        *("observed_time", "trace_id", "span_id", "severity_number", "severity_text", "event_name", "body"),
        "dropped_attributes_count",
    ),
    METRICS: (
        *_RECORD,
        *("metric", "name", "type", "start_time", "value", "int_value", "count", "sum", "min", "max"),
        *("distribution", "exemplars"),
    ),
}
"""What is copied, in the order of pack.py."""

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
NAME_COLUMNS: Final = {"day": "date", "id": "bytea", "name": "text"}
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
    names: dict[date, set[str]]
    """Of spans, by day."""
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
    rows = Rows(source)
    shared = _Shared(signal)
    names: dict[date, set[str]] = {}
    ranges: list[tuple[int, int]] = []
    for block in larger(blocks, RUN):
        groups = shared.groups(block)
        for first in range(0, block.count, RUN):
            end = min(block.count, first + RUN)
            names_of = _add(rows, block, first, end, groups)
            if signal is TRACES:
                _note_names(names, names_of, block.column("time")[first:end])
        shared.note(block, groups)
        if ranges and ranges[-1][1] == block.base_offset:
            ranges[-1] = (ranges[-1][0], block.end_offset)
        else:
            ranges.append((block.base_offset, block.end_offset))
    count = sum(end - first for first, end in ranges)
    return Prepared(rows.take(), shared.containers, shared.metrics, names, tuple(ranges), count)


def _note_names(found: dict[date, set[str]], names: list[str], times: NDArray[np.uint64]) -> None:
    days = times // np.uint64(DAY_NS)
    if days.min() == days.max():
        found.setdefault(day_of(int(days[0])), set()).update(names)
        return
    for number, name in set(zip(days.tolist(), names, strict=True)):
        found.setdefault(day_of(number), set()).add(name)


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """What records stand in, as their columns have it."""

    container: Container
    id: bytes
    metric_id: bytes | None
    service: str


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
                group = self._known[container] = _Group(
                    container,
                    id_of(container.resource, container.scope),
                    id_of(container.metric.key) if container.metric is not None else None,
                    group_bytes(block, number, "service").decode(),
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
        *(day, group.id, stored(group.service), irregular(outer.attributes)),
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


def id_of(*parts: bytes) -> bytes:
    """Return the hash that a row of what records share is found by."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()[:16]


def _add(rows: Rows, block: Block, first: int, end: int, groups: list[_Group]) -> list[str]:
    """Add rows; return the names of spans."""
    containers = [group.id for group in groups]
    if block.signal is TRACES:
        return rows.add_spans(block, first, end, containers)
    if block.signal is LOGS:
        rows.add_logs(block, first, end, containers)
    else:
        rows.add_points(block, first, end, containers, [group.metric_id for group in groups])
    return []
