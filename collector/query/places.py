"""The places of records in the order of answers: numbers that stay the same from one query to the next.

A record that ring or log holds has its offset. One from a backend has none, and stands instead by a number made of its
bytes, negative, before all that is held; so pages of an answer fit together, and records of one time keep their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.otlp.records import record_bytes
from collector.otlp.wire import hash_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.otlp.block import Block


def place_of(content: bytes) -> int:
    """Return the place of what has these bytes in a backend: from -(2**62) to -1."""
    return -1 - (hash_key(content) >> 2)


def places(block: Block, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the places of rows of a block; a backend's blocks have negative offsets."""
    if block.base_offset >= 0:
        return rows.astype(np.int64) + block.base_offset
    return np.array([place_of(record_bytes(block, row)) for row in rows.tolist()], np.int64)
