"""Jaeger's search: the newest traces with a span that has a service, an operation, tags and a duration.

All conditions are of one span, as in Jaeger's own storages. A tag is a key and a text, and matches an attribute of the
span, of its resource or of one of its events whose value reads so: `500` matches the number and the text. Some tags
are no attributes in OpenTelemetry: `error`, `span.kind`, `otel.status_code`, `otel.status_description`,
`otel.scope.name` and `otel.scope.version` (`TRANSLATED`); they match the fields that they are made of (model.py).

A trace's place is given by its newest matching span, by (start time, offset); the answer is exact and repeatable.
Columns and compiled matches decide; a span is decoded only when an event of it may have the tag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from collector.otlp import records
from collector.otlp.asked import NOTHING, Hints
from collector.otlp.records import RESOURCE_ATTRIBUTES, SPAN_ATTRIBUTES
from collector.query import match
from collector.query.groups import groups_of
from collector.query.jaeger.model import KINDS, NO_SERVICE, STATUSES, text_of
from collector.query.places import place_of
from collector.query.slices import END_OF_TIME, slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.query.slices import Slice
    from collector.store import View

_STATUS, _STATUS_MESSAGE = 15, 2
_SCOPE_NAME, _SCOPE_VERSION = 1, 2
_ERROR = 2


class Found(NamedTuple):
    """A trace that was found, and its newest matching span's start (Unix ns) and offset."""

    trace_id: bytes
    time: int
    offset: int


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for. Times in Unix ns and durations in ns, inclusive; empty texts match everything."""

    service: str = ""
    operation: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    start_ns: int = 0
    end_ns: int = END_OF_TIME
    min_duration_ns: int = 0
    max_duration_ns: int = END_OF_TIME
    limit: int = 100
    """Traces."""


def find(deadline: Deadline, view: View, search: Search) -> list[Found]:
    """Return the newest `limit` traces with a matching span, newest first. The view may be narrowed to the service."""
    best: dict[bytes, tuple[int, int]] = {}
    worst: tuple[int, int] | None = None

    def wanted(oldest_ns: int, newest_ns: int) -> bool:
        return worst is None or newest_ns >= worst[0]

    hints = Hints(names=(search.operation,)) if search.operation else NOTHING
    for piece in slices(view, search.start_ns, search.end_ns, deadline, wanted=wanted, hints=hints):
        rows = _matching(piece, search)
        if not rows.size:
            continue
        _take(best, piece.block, rows)
        if len(best) > 2 * search.limit or (worst is None and len(best) >= search.limit):
            ranked = _ranked(best, search.limit)
            best = dict(ranked)
            worst = ranked[-1][1]
    return [Found(trace, *place) for trace, place in _ranked(best, search.limit)]


def _ranked(best: dict[bytes, tuple[int, int]], limit: int) -> list[tuple[bytes, tuple[int, int]]]:
    return sorted(best.items(), key=lambda item: item[1], reverse=True)[:limit]


def _take(best: dict[bytes, tuple[int, int]], block: Block, rows: NDArray[np.intp]) -> None:
    """Note the newest match of each trace in one block."""
    times = block.column("time")[rows]
    order = np.lexsort((rows, times))[::-1]
    raw = np.ascontiguousarray(block.column("trace_id")[rows[order]]).view("V16").reshape(-1)
    _, firsts = np.unique(raw, return_index=True)
    for at in firsts.tolist():
        trace = raw[at].tobytes()
        offset = block.base_offset + int(rows[order[at]])
        place = (int(times[order[at]]), offset if offset >= 0 else place_of(trace))
        if place > best.get(trace, (-1, 0)):
            best[trace] = place


def _matching(piece: Slice, search: Search) -> NDArray[np.intp]:
    """Return the rows of a slice that match, cheapest conditions first."""
    block, rows = piece
    if search.service:
        groups, places = groups_of(block, rows)
        wanted = "" if search.service == NO_SERVICE else search.service
        starts, lengths = block.group_column("service_start")[groups], block.group_column("service_length")[groups]
        same = match.equal(block.payload, starts, lengths, wanted.encode())
        rows = rows[np.asarray(same, np.bool_)[places]]
    if search.operation and rows.size:
        starts, lengths = block.column("name_start")[rows], block.column("name_length")[rows]
        rows = rows[np.asarray(match.equal(block.payload, starts, lengths, search.operation.encode()), np.bool_)]
    if rows.size and (search.min_duration_ns > 0 or search.max_duration_ns < END_OF_TIME):
        start, end = block.column("time")[rows], block.column("end_time")[rows]
        took = np.where(end > start, end - start, 0)
        rows = rows[(took >= search.min_duration_ns) & (took <= search.max_duration_ns)]
    for key, text in search.tags:
        if rows.size:
            rows = rows[_tagged(block, rows, key, text)]
    return rows


def _tagged(block: Block, rows: NDArray[np.intp], key: str, text: str) -> NDArray[np.bool_]:
    """Tell which rows have a tag."""
    starts, lengths = block.column("start")[rows], block.column("length")[rows]
    name = key.encode()
    found = _reads(match.attribute(block.payload, starts, lengths, SPAN_ATTRIBUTES, name), block, text)
    groups, places = groups_of(block, rows)
    outer = match.attribute(
        block.payload,
        block.group_column("resource_start")[groups],
        block.group_column("resource_length")[groups],
        RESOURCE_ATTRIBUTES,
        name,
    )
    found |= _reads(outer, block, text)[places]
    found |= _translated(block, rows, groups, places, key, text)
    rest = np.flatnonzero(~found)
    if rest.size:
        there = np.asarray(match.contains(block.payload, starts[rest], lengths[rest], name), np.bool_)
        if key == "event":  # which the name of an event is, too
            there |= np.asarray(match.contains(block.payload, starts[rest], lengths[rest], text.encode()), np.bool_)
        for at in rest[there].tolist():
            found[at] = _has_event_tag(block, int(rows[at]), key, text)
    return found


def _reads(values: match.Values, block: Block, text: str) -> NDArray[np.bool_]:
    """Tell which values read as the text."""
    found = np.zeros(len(values.type), np.bool_)
    texts = np.flatnonzero(values.type == match.STRING)
    if texts.size:
        found[texts] = match.equal(block.payload, values.start[texts], values.length[texts], text.encode())
    if text in ("true", "false"):
        found |= (values.type == match.BOOL) & (values.integer == (text == "true"))
    number = _number(text)
    if isinstance(number, int) and -(2**63) <= number < 2**63:
        found |= (values.type == match.INT) & (values.integer == number)
    if number is not None:
        found |= (values.type == match.DOUBLE) & (values.double == float(number))
    return found


def _number(text: str) -> int | float | None:
    try:
        return int(text) if text.lstrip("-").isdecimal() and len(text) <= 20 else _finite(float(text))
    except ValueError:
        return None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _translated(
    block: Block, rows: NDArray[np.intp], groups: NDArray[np.intp], places: NDArray[np.intp], key: str, text: str
) -> NDArray[np.bool_]:
    """Tell which rows have a tag that Jaeger's model makes of a field."""
    nothing = np.zeros(len(rows), np.bool_)
    if key == "error":
        return np.asarray(block.column("status")[rows] == _ERROR, np.bool_) if text == "true" else nothing
    if key == "span.kind":
        number = next((number for number, name in KINDS.items() if name == text), -1)
        return np.asarray(block.column("kind")[rows] == number, np.bool_)
    if key == "otel.status_code":
        number = next((number for number, name in STATUSES.items() if name == text), -1)
        return np.asarray(block.column("status")[rows] == number, np.bool_)
    if key == "otel.status_description":
        extents = (block.column("start")[rows], block.column("length")[rows])
        status = match.string_field(block.payload, *extents, _STATUS)
        message = match.string_field(block.payload, *status, _STATUS_MESSAGE)
        return np.asarray(match.equal(block.payload, *message, text.encode()), np.bool_) & (message[1] > 0)
    if key in ("otel.scope.name", "otel.scope.version"):
        scopes = (block.group_column("scope_start")[groups], block.group_column("scope_length")[groups])
        field = _SCOPE_NAME if key == "otel.scope.name" else _SCOPE_VERSION
        value = match.string_field(block.payload, *scopes, field)
        same = np.asarray(match.equal(block.payload, *value, text.encode()), np.bool_) & (value[1] > 0)
        return np.asarray(same[places], np.bool_)
    return nothing


def _has_event_tag(block: Block, row: int, key: str, text: str) -> bool:
    """Tell whether an event of a span has the tag."""
    return any(
        (key == "event" and event.name == text)
        or any(one.key == key and text_of(one.value) == text for one in event.attributes)
        for event in records.record(block, row).events
    )
