"""OTLP/JSON as it is sent: lowerCamelCase keys, ids in hexadecimal, enums and small integers as numbers, 64-bit integers
as strings, other bytes in base64 (the specification's "JSON Protobuf Encoding").

A walk over parsed messages by their descriptors, whose fields are looked up once for each message type. About 25 µs a
span; answers of a few records use it. Depth is bounded by what the protobuf library parses, 100 levels.
"""

from __future__ import annotations

import math
from base64 import b64encode
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    Convert = Callable[[Any], Any]

_IDS: Final = ("trace_id", "span_id", "parent_span_id", "profile_id")
_LONG: Final = (
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
    FieldDescriptor.TYPE_SINT64,
)


def to_json(message: Any) -> bytes:
    """Return a message of OTLP as JSON on one line."""
    return msgspec.json.encode(tree(message))


def tree(message: Any) -> dict[str, Any]:
    """Return a message of OTLP as JSON's objects."""
    made: dict[str, Any] = {}
    for field, value in message.ListFields():
        name, convert = _of(field)
        made[name] = convert(value)
    return made


@cache
def _of(field: Any) -> tuple[str, Convert]:
    """Return JSON's name of a field, and what makes JSON of its value: as many as OTLP has fields."""
    convert = _converter(field)
    if field.default_value == []:
        return field.json_name, lambda values: [convert(value) for value in values]
    return field.json_name, convert


def _converter(field: Any) -> Convert:
    """Return what makes JSON of one value."""
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _ATTRIBUTES.get(field.message_type.full_name, tree)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes.hex if field.name in _IDS else _base64
    if field.type in _LONG:
        return str
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return _number
    return _same


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _same(value: Any) -> Any:
    return value


def _key_value(message: Any) -> dict[str, Any]:
    """What `tree` makes of a KeyValue, in a third of the time: most of a span are these."""
    key = message.key
    if not key or not message.HasField("value"):
        return tree(message)
    return {"key": key, "value": _any_value(message.value)}


def _any_value(message: Any) -> dict[str, Any]:
    """The same for an AnyValue."""
    kind = message.WhichOneof("value")
    if kind == "string_value":
        return {"stringValue": message.string_value}
    if kind == "int_value":
        return {"intValue": str(message.int_value)}
    return tree(message)


_ATTRIBUTES: Final[dict[str, Convert]] = {
    "opentelemetry.proto.common.v1.KeyValue": _key_value,
    "opentelemetry.proto.common.v1.AnyValue": _any_value,
}
