"""What stands around records, apart from them: resource, scope and metric as bytes that repeat, and requests made of them
again.

A backend that keeps each record's own bytes keeps these beside, once for all records that share them: the fields of the
ResourceSpans, of the ScopeSpans and of the Metric but for their children, as they stood, so schema URLs and fields of
later OTLP versions are among them. `containers` takes them out of a block, one entry a group; `assembled` puts records
back into them, without a look inside.

A metric's bytes are its own fields, then the field of its data (gauge, sum, …) with what that holds beside points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from collector.exporters import jsontext
from collector.otlp.block import METRIC_TYPES
from collector.otlp.records import (
    RESOURCE_ATTRIBUTES,
    SCOPE_ATTRIBUTES,
    data_field,
    group_bytes,
    own_data,
    scope,
    service_name,
    tagged,
)
from collector.otlp.signals import METRICS
from collector.otlp.wire import own_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.otlp.block import Block
    from collector.otlp.signals import Signal

TEMPORALITIES: Final = ("", "delta", "cumulative")


class Metric(NamedTuple):
    """A metric without its points."""

    own: bytes
    """Its fields but the data."""
    data: bytes
    """The fields of its data but points."""
    type: int
    """As in otlp/block.py."""

    @property
    def key(self) -> bytes:
        """Bytes that are equal for equal metrics."""
        return b"%d %d " % (self.type, len(self.own)) + self.own + self.data


class Container(NamedTuple):
    """What stands around the records of one group."""

    resource: bytes
    """The fields of the ResourceSpans (…Logs, …Metrics) but for the scopes: resource and schema URL."""
    scope: bytes
    """The fields of the ScopeSpans (…) but for the records."""
    metric: Metric | None


def containers(block: Block) -> list[Container]:
    """Return the container of each group of a block."""
    found = []
    outer_at = inner_at = -1
    outer = inner = b""
    places = _extents(block, "envelope"), _extents(block, "scope_envelope")
    for group in range(block.groups.count):
        (start, length), (inner_start, inner_length) = places[0][group], places[1][group]
        if start != outer_at:
            outer_at, outer = start, own_fields(block.payload, start, length, 2)
        if inner_start != inner_at:
            inner_at, inner = inner_start, own_fields(block.payload, inner_start, inner_length, 2)
        found.append(Container(outer, inner, None))
    if block.signal is METRICS:
        types = dict(zip(block.column("group").tolist(), block.column("type").tolist(), strict=True))
        for group, one in enumerate(found):
            found[group] = one._replace(metric=_metric(block, group, types.get(group, 0)))
    return found


def _extents(block: Block, part: str) -> list[tuple[int, int]]:
    columns = (block.group_column(f"{part}_{end}").tolist() for end in ("start", "length"))
    return list(zip(*columns, strict=True))


def _metric(block: Block, group: int, kind: int) -> Metric | None:
    if not kind:
        return None
    whole = group_bytes(block, group, "metric")
    return Metric(own_fields(whole, 0, len(whole), data_field(kind)), own_data(whole, kind), kind)


def described(block: Block, group: int) -> dict[str, Any]:
    """Return what people call a group's resource and scope: service, attributes, schema URLs, name and version."""
    starts, lengths = block.group_column("resource_start")[group:], block.group_column("resource_length")[group:]
    of_scope = scope(block, group)
    places = block.group_column("scope_start")[group:], block.group_column("scope_length")[group:]
    return {
        "service": service_name(block, group),
        "resource_attributes": jsontext.attributes(block.payload, starts[:1], lengths[:1], RESOURCE_ATTRIBUTES)[0],
        "scope_name": of_scope.name,
        "scope_version": of_scope.version,
        "scope_attributes": jsontext.attributes(block.payload, places[0][:1], places[1][:1], SCOPE_ATTRIBUTES)[0],
    }


def described_metric(block: Block, group: int, kind: int) -> dict[str, Any]:
    """Return what people call a group's metric."""
    return {
        "name": group_bytes(block, group, "name").decode(),
        "unit": group_bytes(block, group, "unit").decode(),
        "type": METRIC_TYPES[kind],
        "temporality": int(block.group_column("temporality")[group]),
        "monotonic": int(block.group_column("monotonic")[group]),
    }


def assembled(signal: Signal, rows: Iterable[tuple[Container, bytes]]) -> bytes:
    """Return one request with these records, each given with what it stands in. Records that share a container share it
    again; containers and records keep the order of their first appearance."""
    envelopes: dict[bytes, dict[bytes, Any]] = {}
    for container, record in rows:
        scopes = envelopes.setdefault(container.resource, {})
        if signal is METRICS:
            scopes.setdefault(container.scope, {}).setdefault(container.metric, []).append(tagged(1, record))
        else:
            scopes.setdefault(container.scope, []).append(tagged(2, record))
    parts = []
    for outer, scopes in envelopes.items():
        body = [outer]
        for inner, records in scopes.items():
            inside = [_with_points(metric, points) for metric, points in records.items()] if signal is METRICS else records
            body.append(tagged(2, inner + b"".join(inside)))
        parts.append(tagged(1, b"".join(body)))
    return b"".join(parts)


def _with_points(metric: Metric, points: list[bytes]) -> bytes:
    return tagged(2, metric.own + tagged(data_field(metric.type), metric.data + b"".join(points)))
