from collections.abc import Callable
from typing import TypeVar

from collector.otlp.block import Block

_T = TypeVar("_T")

def around(
    block: Block, kinds: bytes | None, fields: bytes, make: Callable[[bytes, bytes, bytes, bytes, int], _T]
) -> list[_T]: ...
