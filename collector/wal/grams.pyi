from typing import Final

from collector.otlp.block import Block

ROWS: Final[int]
SET_BYTES: Final[int]
LONG_MAX: Final[int]
DOCUMENTS: Final[int]
OPAQUE_BODIES: Final[int]
OPAQUE_ATTRIBUTES: Final[int]
DENSE: Final[int]

def add(grams: bytearray, block: Block) -> int: ...
def rows_of(needle: bytes) -> tuple[int, ...]: ...
def long_rows_of(needle: bytes) -> tuple[int, ...]: ...
def transposed(sets: bytearray, count: int) -> bytes: ...
