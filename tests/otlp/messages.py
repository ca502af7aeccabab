"""Hypothesis strategies for OTLP export requests, as protobuf messages built from their descriptors.

`requests` makes anything that the .proto files allow, unknown fields included; `strict_records` only what
OTLP's data model accepts. Containers and lists stay small, so that edges are common.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as F
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from collector.otlp.signals import LOGS, METRICS, TRACES, Signal

_RANGES = {
    F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    F.CPPTYPE_UINT32: (0, 2**32 - 1),
    F.CPPTYPE_UINT64: (0, 2**64 - 1),
    F.CPPTYPE_ENUM: (-5, 300),
}
_CONTAINERS = {"resource_spans", "scope_spans", "resource_logs", "scope_logs", "resource_metrics", "scope_metrics"}
_CONTAINERS |= {"spans", "log_records", "metrics", "data_points"}
_TEXTS = ("", "service.name", "a", "http.method", "é∑", "x" * 200)
_BYTES = (b"", bytes(16), b"t" * 16, b"s" * 8, b"odd")
_UNKNOWN = (b"\xf8\x3f\x05", b"\xfa\x3f\x02hi", b"\xf9\x3f12345678", b"\xfb\x3f\x08\x01\xfc\x3f")


def _value(field: Any, chance: Random, depth: int) -> Any:
    if field.cpp_type == F.CPPTYPE_MESSAGE:
        return message(field.message_type, chance, depth + 1)
    if field.type == F.TYPE_STRING:
        return chance.choice(_TEXTS)
    if field.type == F.TYPE_BYTES:
        return chance.choice((*_BYTES, chance.randbytes(16), chance.randbytes(8)))
    if field.cpp_type == F.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if field.cpp_type in (F.CPPTYPE_DOUBLE, F.CPPTYPE_FLOAT):
        return chance.choice((0.0, -0.0, 1.5, -7.25, 1e300, math.inf, -math.inf, math.nan))
    low, high = _RANGES[field.cpp_type]
    return chance.choice((0, 1, 2, low, high, chance.randint(low, high)))


def message(descriptor: Any, chance: Random, depth: int = 0) -> Any:
    """Make one message of a type at random; deep inside, only scalar fields."""
    made = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        is_message = field.cpp_type == F.CPPTYPE_MESSAGE
        likely = field.name in _CONTAINERS
        if (is_message and depth > 9) or (not likely and chance.random() < 0.4):
            continue
        if field.is_repeated:
            items = [_value(field, chance, depth) for _ in range(chance.randint(0, 3 if depth < 5 else 2))]
            target = getattr(made, field.name)
            if is_message:
                for item in items:
                    target.add().CopyFrom(item)
            else:
                target.extend(items)
        elif is_message:
            getattr(made, field.name).CopyFrom(_value(field, chance, depth))
        else:
            setattr(made, field.name, _value(field, chance, depth))
    if chance.random() < 0.1:
        made.MergeFromString(chance.choice(_UNKNOWN))
    return made


def requests(signal: Signal) -> st.SearchStrategy[Any]:
    """Export requests of a signal, valid as protobuf. Hypothesis draws a seed, so that a failure repeats."""
    return st.integers(0, 2**32).map(lambda seed: message(signal.request_type.DESCRIPTOR, Random(seed)))


def strict_records(signal: Signal) -> st.SearchStrategy[Any]:
    """Export requests of a signal in which no record is rejected."""
    return requests(signal).map(lambda request: _made_valid(signal, request))


def _made_valid(signal: Signal, request: Any) -> Any:
    if signal is TRACES:
        for envelope in request.resource_spans:
            for scope in envelope.scope_spans:
                for span in scope.spans:
                    span.trace_id = (span.trace_id + b"t" * 16)[:16] if any(span.trace_id) else b"t" * 16
                    span.span_id = (span.span_id + b"s" * 8)[:8] if any(span.span_id[:8]) else b"s" * 8
    elif signal is METRICS:
        for envelope in request.resource_metrics:
            for scope in envelope.scope_metrics:
                for metric in scope.metrics:
                    _valid_points(metric)
    else:
        assert signal is LOGS
    return request


def _valid_points(metric: Any) -> None:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    if kind in ("sum", "histogram", "exponential_histogram"):
        data.aggregation_temporality = 2
    for point in data.data_points:
        point.time_unix_nano = point.time_unix_nano or 1
        for exemplar in getattr(point, "exemplars", ()):
            if exemplar.WhichOneof("value") is None:
                exemplar.as_double = 0.5
        if kind in ("gauge", "sum") and point.WhichOneof("value") is None:
            point.as_int = 7
        if kind == "histogram":
            del point.bucket_counts[:]
            del point.explicit_bounds[:]
            point.bucket_counts.extend([1, 2, 3])
            point.explicit_bounds.extend([0.5, 1.5])
