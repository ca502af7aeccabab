from typing import Any

import numpy as np
from numpy.typing import NDArray

COUNT_MAX: int

class Dictionary:
    count: int
    text_bytes: int
    nbytes: int
    def __len__(self) -> int: ...
    def add(
        self,
        payload: bytes | bytearray,
        kinds: NDArray[np.uint8],
        integers: NDArray[np.int64],
        doubles: NDArray[np.float64],
        starts: NDArray[np.uint32],
        lengths: NDArray[np.uint32],
        count_max: int,
        text_bytes_max: int,
    ) -> NDArray[np.uint16] | None: ...
    def seen(self, numbers: NDArray[np.uint16], first: int) -> None: ...
    def last(self) -> NDArray[np.int64]: ...
    def columns(
        self,
    ) -> tuple[
        NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64], NDArray[np.uint32], NDArray[np.uint32], bytes
    ]: ...

def counted(numbers: NDArray[Any], cells: NDArray[np.int32], counts: NDArray[np.int64]) -> None: ...
