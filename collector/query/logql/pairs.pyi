from typing import Any

import numpy as np
from numpy.typing import NDArray

def logfmt_member(
    buffer: bytes | bytearray,
    starts: NDArray[Any],
    lengths: NDArray[Any],
    name: bytes,
    keep_empty: bool,
    strict: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32]]: ...
def logfmt_status(
    buffer: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint32]]: ...
def logfmt_members(line: bytes, strict: bool) -> list[tuple[bytes, int, int, int]]: ...
