from collector.otlp.block import Block
from collector.otlp.signals import Signal

REASONS: tuple[str, ...]

class Added:
    canonical: bool
    records: int
    rejected: list[int] | None
    reasons: list[int] | None
    strindex: bool

class BlockBuilder:
    signal: Signal
    payloads: list[bytes | bytearray]
    size: int
    def __init__(self, signal: Signal) -> None: ...
    @property
    def records(self) -> int: ...
    def add(self, payload: bytes | bytearray) -> Added: ...
    def build(self, base_offset: int) -> Block: ...

def scan(signal: Signal, payload: bytes | bytearray, base_offset: int) -> Block: ...
