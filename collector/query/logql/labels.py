"""OTLP log records as Loki sees them: a stream's labels, a line's structured metadata, the line itself.

Loki's default rules, which Grafana's queries are written for:

* A stream is named by *index labels*: the resource attributes of `INDEX_ATTRIBUTES`, those that the resource names
  itself (`LABELS_ATTRIBUTE`), and always `service_name` (`unknown_service` when the resource has no service.name that
  is a text). Selectors see only these. * All else is *structured metadata* of the line, which label filters and
  groupings see too: the record's own fields (trace_id, severity_text, …), its attributes, the scope with its attributes, the other
  resource attributes, and `detected_level`. Where two have one name, the inner one counts, in the order just
  given. A name that an index label has already gets the suffix `_extracted`. * Names are Prometheus label
  names: each run of other characters than letters and digits becomes one `_`, and `key_` precedes a leading
  digit; names like `__this__` keep their underscores. Nested attributes are flattened: `http` holding
  `method` is `http_method`. * Values are text: numbers and truth values as JSON has them, bytes in base64,
  arrays and bodies that are not text as JSON. An empty text is the same as no label.

`decoded` is the definition, of a record decoded by the protobuf library. `reading.py` has the same compiled, for most records, and
`columns.py` by columns; tests compare them. `levels.py` says what level a record has.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from opentelemetry.proto.common.v1 import common_pb2

from collector.otlp.records import group_bytes, record, resource, scope
from collector.query.groups import alike, groups_of
from collector.query.logql import reading
from collector.query.logql.containers import Containers, label_name
from collector.query.logql.levels import LEVEL, detected_level, told
from collector.query.logql.row import DETAILS, ERROR, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.store import Memo

SERVICE = "service.name"
UNKNOWN_SERVICE = "unknown_service"

INDEX_ATTRIBUTES = frozenset(
    (
        SERVICE,
        "service.namespace",
        "service.instance.id",
        "deployment.environment.name",
        "cloud.region",
        "cloud.availability_zone",
        "container.name",
        "k8s.cluster.name",
        "k8s.container.name",
        "k8s.cronjob.name",
        "k8s.daemonset.name",
        "k8s.deployment.name",
        "k8s.job.name",
        "k8s.namespace.name",
        "k8s.pod.name",
        "k8s.replicaset.name",
        "k8s.statefulset.name",
    )
)
"""The resource attributes that become index labels: Loki's default list."""

CONTAINERS_CACHED = 10_000
"""Containers of which a query remembers whether they are selected; then it forgets them all and goes on."""

LABELS_ATTRIBUTE = "loki.resource.labels"
"""The resource attribute that names further resource attributes which are index labels: a text of names with commas between
them, or an array. The OpenTelemetry Collector's Loki exporter reads it so; what comes by Loki's push API has it."""

LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
"""What Prometheus and Loki take for a label's name."""


def number_text(value: float) -> str:
    """Return a double as JSON has it, as short as reads back the same; or NaN, Infinity, -Infinity."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value != 0 and not 1e-6 <= abs(value) < 1e21:
        return re.sub(r"e([+-])0", r"e\1", repr(value).removesuffix(".0"))
    return np.format_float_positional(value, trim="-")


def value_text(value: Any) -> str:
    """Return the text of an AnyValue."""
    match value.WhichOneof("value"):
        case "string_value":
            return str(value.string_value)
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "int_value":
            return str(value.int_value)
        case "double_value":
            return number_text(value.double_value)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "array_value" | "kvlist_value":
            return _json(value)
        case _:
            return ""


def _json(value: Any) -> str:
    """Return an AnyValue as JSON, keys sorted. As deep as OTLP may nest, which the scanner bounds."""
    match value.WhichOneof("value"):
        case "array_value":
            return f"[{','.join(map(_json, value.array_value.values))}]"
        case "kvlist_value":
            pairs = {pair.key: pair.value for pair in reversed(value.kvlist_value.values)}
            members = [f"{_json_text(key)}:{_json(pairs[key])}" for key in sorted(pairs)]
            return "{" + ",".join(members) + "}"
        case "bool_value" | "int_value":
            return value_text(value)
        case "double_value" if math.isfinite(value.double_value):
            return number_text(value.double_value)
        case "string_value" | "bytes_value" | "double_value":
            return _json_text(value_text(value))
        case _:
            return "null"


def _json_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def flatten(attributes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Yield (label name, text) for KeyValues, first to last; of keys that occur twice, the first."""
    seen = set()
    for pair in attributes:
        key, value = pair.key, pair.value
        if key not in seen:
            seen.add(key)
            if value.HasField("string_value"):
                yield label_name(key), value.string_value
            else:
                yield from _flatten(label_name(key), value)


def _flatten(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if value.WhichOneof("value") == "kvlist_value":
        for pair in value.kvlist_value.values:
            yield from _flatten(label_name(f"{name}_{pair.key}"), pair.value)
    else:
        yield name, value_text(value)


@dataclass(frozen=True, slots=True, eq=False)
class Container:
    """What a resource and a scope say of their records. Compared by identity."""

    stream: dict[str, str]
    """The index labels."""
    metadata: dict[str, str]
    """Their part of the structured metadata, under its final names."""
    level: str
    """The level that the index labels tell; empty if they tell none."""


Own = tuple[bytes, int, dict[str, str]]
"""What a record says itself: its line, its severity number, and its own part of the structured metadata."""


class Records:
    """Reads records as labels and lines; remembers containers, because thousands of records share one."""

    def __init__(self) -> None:
        self._containers = Containers()
        self._block: Block | None = None
        self._groups: dict[int, Container] = {}  # of that block

    def remember(self, memo: Memo | None) -> None:
        """Share containers with other queries of the store that a view is of."""
        if memo is not None:
            self._containers = memo.kept("logql containers", Containers)

    def name(self, key: bytes) -> str:
        """Return the label name of an attribute key."""
        return self._containers.names[key]

    def container(self, block: Block, group: int) -> Container:
        """Return the labels that a group's records have in common."""
        if block is not self._block:
            self._block, self._groups = block, {}
        found = self._groups.get(group)
        if found is None:
            key = (group_bytes(block, group, "resource"), group_bytes(block, group, "scope"))
            found = self._containers.get(key) or self._containers.add(key, _container(block, group))
            self._groups[group] = found
        return found

    def containers(self, block: Block, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], list[Container]]:
        """Return the containers of ascending rows: for each row its place in a list."""
        groups, places = groups_of(block, rows)
        codes, firsts = alike(block, groups, "resource", "scope")
        return codes[places], [self.container(block, group) for group in groups[firsts].tolist()]

    def metadata(self, block: Block, row: int, message: Any) -> dict[str, str]:
        """Return a record's structured metadata; `message` is the record, decoded."""
        container = self.container(block, block.records.number("group", row))
        return _metadata(container, decoded(message, container.stream))

    def labels(self, block: Block, row: int) -> dict[str, str]:
        """Return everything that label filters see of a record: stream labels and structured metadata."""
        container = self.container(block, block.records.number("group", row))
        return container.stream | _metadata(container, self.read(block, row, container))

    def row(self, block: Block, row: int, container: Container | None = None) -> Row:
        """Return a record as the line that a pipeline begins with; its container may be known."""
        if container is None:
            container = self.container(block, block.records.number("group", row))
        found = self.read(block, row, container)
        metadata = _metadata(container, found)
        line = Row(block.records.number("time", row), found[0], container.stream, container.stream.copy(), metadata)
        line.error, line.details = metadata.pop(ERROR, ""), metadata.pop(DETAILS, "")
        return line

    def read(self, block: Block, row: int, container: Container) -> Own:
        """Return a record's line, severity number, and its own part of the structured metadata."""
        start, length = block.records.number("start", row), block.records.number("length", row)
        found = reading.read(block.payload, start, length, container.stream, self._containers.names, _flattened, _line)
        return decoded(record(block, row), container.stream) if found is None else found


def decoded(message: Any, stream: dict[str, str]) -> Own:
    """Return what a decoded record says: its line, its severity number, and its own part of the structured metadata."""
    own: dict[str, str] = {}
    _add(own, _own_fields(message), stream)
    _add(own, flatten(message.attributes), stream)
    return value_text(message.body).encode(), message.severity_number, own


def _metadata(container: Container, found: Own) -> dict[str, str]:
    """Return the structured metadata of a record of a container."""
    line, severity_number, own = found
    metadata = container.metadata | own
    if LEVEL not in container.stream:
        metadata[LEVEL] = detected_level(container.level, metadata, severity_number, line)
    return metadata


def _flattened(name: str, value: bytes) -> Iterator[tuple[str, str]]:
    return _flatten(name, common_pb2.AnyValue.FromString(value))


def _line(body: bytes) -> bytes:
    return value_text(common_pb2.AnyValue.FromString(body)).encode()


def _container(block: Block, group: int) -> Container:
    service = group_bytes(block, group, "service").decode()
    stream = {label_name(SERVICE): service or UNKNOWN_SERVICE}
    indexed: list[Any] = []
    others: list[Any] = []
    attributes = resource(block, group).attributes
    named = _named(attributes)
    for pair in attributes:
        if (pair.key == SERVICE and service) or pair.key == LABELS_ATTRIBUTE:
            continue
        if pair.key in named and LABEL_NAME.fullmatch(pair.key) and pair.value.WhichOneof("value") != "kvlist_value":
            text = value_text(pair.value)
            if text:
                stream.setdefault(pair.key, text)
        else:
            is_label = pair.key in named or (pair.key in INDEX_ATTRIBUTES and pair.key != SERVICE)
            (indexed if is_label else others).append(pair)
    for name, value in flatten(indexed):
        if value:
            stream.setdefault(name, value)
    message = scope(block, group)
    metadata: dict[str, str] = {}
    _add(metadata, _scope_fields(message), stream)
    _add(metadata, flatten(message.attributes), stream)
    _add(metadata, flatten(others), stream)
    return Container(stream, metadata, told(stream))


def _named(attributes: Iterable[Any]) -> frozenset[str]:
    """Return the attributes that LABELS_ATTRIBUTE makes labels of."""
    value = next((pair.value for pair in attributes if pair.key == LABELS_ATTRIBUTE), None)
    if value is None:
        return frozenset()
    if value.WhichOneof("value") == "array_value":
        return frozenset(value_text(one) for one in value.array_value.values)
    return frozenset(name.strip() for name in value_text(value).split(","))


def _add(metadata: dict[str, str], pairs: Iterable[tuple[str, str]], stream: dict[str, str]) -> None:
    """Add labels that are neither empty nor there already, out of the way of the stream's."""
    for name, value in pairs:
        if value:
            free = f"{name}_extracted" if name in stream else name
            if free not in metadata:
                metadata[free] = value


def _scope_fields(scope: Any) -> Iterator[tuple[str, str]]:
    yield "scope_name", scope.name
    yield "scope_version", scope.version
    yield "scope_dropped_attributes_count", _count_text(scope.dropped_attributes_count)


def _own_fields(record: Any) -> Iterator[tuple[str, str]]:
    """Yield what a LogRecord says outside its attributes; empty where it says nothing."""
    if record.time_unix_nano:
        yield "observed_timestamp", _count_text(record.observed_time_unix_nano)
    yield "severity_number", _count_text(record.severity_number)
    yield "severity_text", record.severity_text
    yield "dropped_attributes_count", _count_text(record.dropped_attributes_count)
    yield "flags", _count_text(record.flags)
    yield "trace_id", _id_text(record.trace_id, 16)
    yield "span_id", _id_text(record.span_id, 8)
    yield "event_name", record.event_name


def _count_text(count: int) -> str:
    return str(count) if count else ""


def _id_text(raw: bytes, length: int) -> str:
    return raw.hex() if len(raw) == length and any(raw) else ""
