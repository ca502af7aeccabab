from typing import Any

from collector.otlp.block import Block

def points(block: Block, first: int, end: int) -> dict[str, list[Any]]: ...
