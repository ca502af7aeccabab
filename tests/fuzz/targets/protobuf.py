"""The scanner: on any bytes the verdict of the protobuf library, and its values in the columns.

Beside that everything that becomes of an accepted payload: rewriting what is not canonical, cutting out what OTLP
does not allow, records decoded one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from collector.errors import Malformed
from collector.otlp.scan import BlockBuilder, scan
from collector.otlp.signals import SIGNALS, Signal
from collector.otlp.validate import accept, canonical
from collector.testing.otlp import BUILDERS
from tests.fuzz import wire
from tests.fuzz.target import Target
from tests.otlp.columns_oracle import all_records, assert_columns, library_accepts, scanner_accepts
from tests.otlp.messages import message


def _check(signal: Signal) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        fine = library_accepts(signal, data)
        assert scanner_accepts(signal, data) == fine, "the protobuf library judges otherwise"
        builder = BlockBuilder(signal)
        try:
            accepted = accept(builder, data)
        except Malformed:
            assert not fine
            return
        if not BlockBuilder(signal).add(data).canonical:
            data = canonical(signal, data)
        count = len(all_records(signal, signal.request_type.FromString(data)))
        assert accepted.records + accepted.rejected == count
        assert accepted.message or not accepted.rejected
        if not accepted.rejected:
            assert_columns(signal, scan(signal, data, 0), data)
        block = builder.build(0)
        assert block.count == accepted.records
        if block.count:
            assert_columns(signal, block, bytes(block.payload))

    return check


def _seeds(signal: Signal) -> Callable[[], Iterator[bytes]]:
    def seeds() -> Iterator[bytes]:
        yield b""
        for count in (1, 2, 6):
            yield BUILDERS[signal](count)
        for seed in range(40):
            made = message(signal.request_type.DESCRIPTOR, Random(seed)).SerializeToString()
            if len(made) < 3000:
                yield bytes(made)

    return seeds


def _mutate(data: bytes, length_max: int, seed: int) -> bytes:
    return wire.mutate(data, Random(seed))[:length_max]


TARGETS = [
    Target(f"protobuf-{signal.name}", _check(signal), _seeds(signal), (b"service.name", b"\x0a\x00"), mutate=_mutate)
    for signal in SIGNALS
]
