"""The messages of `proto/ringtail/v1/query.proto`, made of the descriptors that the build has put into the package.

OTLP's data goes into an answer as the bytes that the store holds: protobuf concatenates, so a message that is put
together from a part written here and a field of OTLP's bytes needs no parse. `otlp/records.py` writes such a
field (`tagged`).
"""

from __future__ import annotations

import pkgutil
from functools import cache
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

# Their descriptors are what the file imports.
from opentelemetry.proto.logs.v1 import logs_pb2  # noqa: F401
from opentelemetry.proto.metrics.v1 import metrics_pb2  # noqa: F401
from opentelemetry.proto.trace.v1 import trace_pb2  # noqa: F401

from collector.errors import Malformed, Unavailable

PACKAGE: Final = "ringtail.v1"
SERVICE: Final = f"{PACKAGE}.QueryService"
_FILE: Final = "query.binpb"


@cache
def message(name: str) -> Any:
    """Return the class of a message. Raises Unavailable when the package was not built whole."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@cache
def _pool() -> Any:
    pool: Any = descriptor_pool.Default()
    try:
        data = pkgutil.get_data("collector.api", _FILE)
    except FileNotFoundError as error:
        raise Unavailable(f"collector/api/{_FILE} is missing: build the package, or run build_proto.py") from error
    for one in FileDescriptorSet.FromString(data or b"").file:
        pool.AddSerializedFile(one.SerializeToString())
    return pool


def parsed(name: str, data: bytes) -> Any:
    """Return a request; raise Malformed for bytes that are none."""
    try:
        return message(name).FromString(data)
    except DecodeError as error:
        raise Malformed(f"this is no {name}: {error}") from error
