from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS: tuple[str, ...]

def levels(payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.uint8]: ...
def level_of(line: bytes) -> int: ...
