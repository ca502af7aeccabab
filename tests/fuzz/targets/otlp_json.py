"""OTLP/JSON: on any text the verdict of a plain transcoder (tests/otlp/json_oracle.py), and the same message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from collector.errors import Malformed
from collector.otlp.json.request import to_protobuf
from collector.otlp.signals import SIGNALS, Signal
from collector.testing.otlp import BUILDERS, to_json
from tests.fuzz.target import Target
from tests.otlp import json_oracle
from tests.otlp.messages import message

_WORDS = (
    *(b'"resourceSpans"', b'"scopeSpans"', b'"spans"', b'"traceId"', b'"attributes"', b'"key"', b'"value"'),
    *(b'"stringValue"', b'"intValue"', b'"doubleValue"', b'"bytesValue"', b'"arrayValue"', b'"kvlistValue"'),
    *(b'"values"', b'"boolValue"', b'"resourceLogs"', b'"resourceMetrics"', b'"NaN"', b'"-Infinity"', b"null"),
    *(b"true", b"false", b"1e308", b"-0.0", b"18446744073709551616", b"\\ud800", b"\\u0000", b"[{", b"}]", b'":"'),
)


def _check(signal: Signal) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        try:
            expected = json_oracle.parse(signal, data)
        except json_oracle.Refused:
            expected = None
        try:
            found = to_protobuf(signal, data)
        except Malformed as error:
            str(error).encode()
            assert expected is None, f"refused: {error}"
            return
        assert expected is not None, "accepted"
        made = signal.request_type.FromString(found)
        assert made.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)

    return check


def _seeds(signal: Signal) -> Callable[[], Iterator[bytes]]:
    def seeds() -> Iterator[bytes]:
        yield b"{}"
        yield to_json(signal, BUILDERS[signal](2))
        for seed in range(60):
            made = to_json(signal, bytes(message(signal.request_type.DESCRIPTOR, Random(seed)).SerializeToString()))
            if len(made) < 3000:
                yield made

    return seeds


TARGETS = [Target(f"json-{signal.name}", _check(signal), _seeds(signal), _WORDS) for signal in SIGNALS]
