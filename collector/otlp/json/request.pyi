from typing import Final

from collector.otlp.signals import Signal

DEPTH: Final[int]

def to_protobuf(signal: Signal, body: bytes | bytearray) -> bytes: ...
