from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from collector.otlp.block import Block

BODY: Final[int]
ATTRIBUTE: Final[int]
BODY_NUMBER: Final[int]
BODY_OPAQUE: Final[int]
ATTRIBUTE_OPAQUE: Final[int]
BODY_LONG: Final[int]
ATTRIBUTE_LONG: Final[int]

class TextExtents(NamedTuple):
    row: NDArray[Any]
    kind: NDArray[Any]
    start: NDArray[Any]
    length: NDArray[Any]
    flags: NDArray[Any]

def texts(block: Block) -> TextExtents: ...
def container_texts(block: Block) -> TextExtents: ...
