"""Loki's push requests as its clients make them: protobuf by the protobuf library, compressed by a real snappy encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_TEXT, _BYTES, _INT64, _INT32, _MESSAGE = 9, 12, 3, 5, 11
_FIELDS: dict[str, list[tuple[str, int, int, str, bool]]] = {
    "Timestamp": [("seconds", 1, _INT64, "", False), ("nanos", 2, _INT32, "", False)],
    "LabelPair": [("name", 1, _BYTES, "", False), ("value", 2, _BYTES, "", False)],
    "Entry": [
        ("timestamp", 1, _MESSAGE, "Timestamp", False),
        ("line", 2, _BYTES, "", False),
        ("metadata", 3, _MESSAGE, "LabelPair", True),
    ],
    "Stream": [
        ("labels", 1, _BYTES, "", False),
        ("entries", 2, _MESSAGE, "Entry", True),
        ("hash", 3, 4, "", False),
    ],
    "PushRequest": [("streams", 1, _MESSAGE, "Stream", True), ("format", 2, _BYTES, "", False)],
}

Entry = tuple[int, str] | tuple[int, str, Mapping[str, str]]
Streams = Sequence[tuple[str, Sequence[Entry]]]


@cache
def message(name: str) -> Any:
    """The class of a message; texts are bytes, so that they may be anything."""
    file = descriptor_pb2.FileDescriptorProto(name="pushing.proto", package="pushing", syntax="proto3")
    for type_name, fields in _FIELDS.items():
        made = file.message_type.add(name=type_name)
        for field, number, kind, of, repeated in fields:
            one = made.field.add(name=field, number=number, type=kind, label=3 if repeated else 1)
            if of:
                one.type_name = f".pushing.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {each: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"pushing.{each}")) for each in _FIELDS}[
        name
    ]


def request(streams: Streams) -> Any:
    """A PushRequest."""
    made = message("PushRequest")()
    for labels, entries in streams:
        stream = made.streams.add(labels=labels.encode())
        for time, line, *metadata in entries:
            entry = stream.entries.add(line=line.encode())
            entry.timestamp.seconds, entry.timestamp.nanos = divmod(time, 1_000_000_000)
            for name, value in metadata[0].items() if metadata else ():  # type: ignore[attr-defined]
                entry.metadata.add(name=name.encode(), value=value.encode())
    return made


def snappy(data: bytes) -> bytes:
    """A block of snappy."""
    return bytes(cramjam.snappy.compress_raw(data))


def protobuf(streams: Streams) -> bytes:
    """A body as Promtail sends it."""
    return snappy(request(streams).SerializeToString())
