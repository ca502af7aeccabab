from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from collector.otlp.block import Block

COLUMNS_MAX: int
PARTS: tuple[str, ...]

def pick(parts: Sequence[tuple[Block, NDArray[np.intp]]]) -> Block: ...
