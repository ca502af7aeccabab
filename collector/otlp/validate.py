"""The slow way of a request that cannot be stored as it came.

`accept` adds a payload to the block under construction. Almost every payload goes straight in; one that
merges singular fields is rewritten by the protobuf library first, and one with records that OTLP's data model
does not allow is stored without them. What is stored is canonical and valid, so nothing downstream has to ask.

References into the string table of profiles, where there is none, are kept and mean nothing, as OTLP says; the
sender is warned.

Cost of the slow way: a parse and a serialization by the protobuf library, about a microsecond a record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from collector.errors import Malformed
from collector.otlp.rules import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.otlp.scan import BlockBuilder
    from collector.otlp.signals import Signal


STRINDEX_WARNING: Final = "all records are kept; string_value_strindex and key_strindex mean something in profiles only and are read as absent"
"""What a sender is told whose attributes refer to a string table."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request: how many records were taken, how many were not, and why, in a sentence.

    A sentence without rejected records is a warning.
    """

    records: int
    rejected: int
    message: str


_ONE: Final = Accepted(1, 0, "")
"""A request of one record, as an exporter without batches sends it."""


def accept(builder: BlockBuilder, payload: bytes | bytearray) -> Accepted:
    """Add the valid records of a payload to the builder; raise Malformed if it is not a request at all."""
    added = builder.add(payload)
    if not added.canonical:
        added = builder.add(payload := canonical(builder.signal, payload))
    if added.rejected is None:
        if added.records == 1 and not added.strindex:
            return _ONE
        return Accepted(added.records, 0, STRINDEX_WARNING if added.strindex else "")
    reasons = added.reasons or []
    message = _sentence(builder.signal, reasons, added.rejected[0])
    kept = builder.add(without(builder.signal, payload, added.rejected))
    return Accepted(kept.records, len(added.rejected), message)


def canonical(signal: Signal, payload: bytes | bytearray) -> bytes:
    """Return the same request as the protobuf library writes it: each singular field once, numbers packed."""
    return bytes(_parse(signal, payload).SerializeToString())


def without(signal: Signal, payload: bytes | bytearray, ordinals: list[int]) -> bytes:
    """Return the request without the records at these ordinals (ascending, counted over the request)."""
    request = _parse(signal, payload)
    unwanted = set(ordinals)
    ordinal = 0
    for records in _record_lists(signal, request):
        doomed = [i for i in range(len(records)) if ordinal + i in unwanted]
        ordinal += len(records)
        for i in reversed(doomed):
            del records[i]
    return bytes(request.SerializeToString())


def _parse(signal: Signal, payload: bytes | bytearray) -> Any:
    try:
        return signal.request_type.FromString(bytes(payload))
    except DecodeError as error:
        raise Malformed(f"not a valid {signal.request_type.DESCRIPTOR.name}: {error}") from error


def _record_lists(signal: Signal, request: Any) -> Iterator[Any]:
    """Yield every repeated field that holds records, in the payload's order."""
    if signal.name == "traces":
        for envelope in request.resource_spans:
            for scope in envelope.scope_spans:
                yield scope.spans
    elif signal.name == "logs":
        for envelope in request.resource_logs:
            for scope in envelope.scope_logs:
                yield scope.log_records
    else:
        for envelope in request.resource_metrics:
            for scope in envelope.scope_metrics:
                for metric in scope.metrics:
                    data = metric.WhichOneof("data")
                    if data is not None:
                        yield getattr(metric, data).data_points


def _sentence(signal: Signal, reasons: list[int], first: int) -> str:
    counted = [f"{count} because {reason}" for reason, count in zip(REASONS, reasons, strict=True) if count]
    return f"{sum(reasons)} {signal.noun} rejected: {'; '.join(counted)}; the first is number {first} of the request"
