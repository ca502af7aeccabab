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

import numpy as np
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from collector.exporters import jsontext
from collector.exporters.groups import around
from collector.otlp.block import METRIC_TYPES
from collector.otlp.records import (
    RESOURCE_ATTRIBUTES,
    SCOPE_ATTRIBUTES,
    data_field,
    tagged,
)
from collector.otlp.signals import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.otlp.block import Block
    from collector.otlp.signals import Signal


_DATA_FIELDS: Final = bytes((0, *map(data_field, range(1, len(METRIC_TYPES)))))
"""The field of Metric that holds the points, by type."""


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
    """Return the container of each group of a block; one object for all that are equal."""
    if block.signal is not METRICS:
        return around(block, None, b"", _container)
    kinds = np.zeros(block.groups.count, np.uint8)
    kinds[block.column("group")] = block.column("type")
    return around(block, kinds.tobytes(), _DATA_FIELDS, _container)


def _container(outer: bytes, inner: bytes, own: bytes, data: bytes, kind: int) -> Container:
    return Container(outer, inner, Metric(own, data, kind) if kind else None)


class Resource(NamedTuple):
    """What people call a resource."""

    attributes: str
    """As JSON."""
    schema_url: str


class Scope(NamedTuple):
    """What people call a scope."""

    name: str
    version: str
    attributes: str
    schema_url: str


class Description(NamedTuple):
    """What people call a metric."""

    name: str
    description: str
    unit: str
    type: str
    temporality: int
    """0 unspecified, or none; 1 delta, 2 cumulative."""
    monotonic: bool


def resource(container: bytes) -> Resource:
    """Read `Container.resource`."""
    found = trace_pb2.ResourceSpans.FromString(container)  # the fields have the same numbers for all signals
    return Resource(jsontext.members(found.resource.SerializeToString(), RESOURCE_ATTRIBUTES), found.schema_url)


def scope(container: bytes) -> Scope:
    """Read `Container.scope`."""
    found = trace_pb2.ScopeSpans.FromString(container)
    attributes = jsontext.members(found.scope.SerializeToString(), SCOPE_ATTRIBUTES)
    return Scope(found.scope.name, found.scope.version, attributes, found.schema_url)


def description(metric: Metric) -> Description:
    """Read a metric."""
    found = metrics_pb2.Metric.FromString(metric.own + tagged(data_field(metric.type), metric.data))
    data = getattr(found, METRIC_TYPES[metric.type])
    return Description(
        found.name,
        found.description,
        found.unit,
        METRIC_TYPES[metric.type],
        getattr(data, "aggregation_temporality", 0),
        getattr(data, "is_monotonic", False),
    )


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
            inside = (
                [_with_points(metric, points) for metric, points in records.items()] if signal is METRICS else records
            )
            body.append(tagged(2, inner + b"".join(inside)))
        parts.append(tagged(1, b"".join(body)))
    return b"".join(parts)


def _with_points(metric: Metric, points: list[bytes]) -> bytes:
    return tagged(2, metric.own + tagged(data_field(metric.type), metric.data + b"".join(points)))
