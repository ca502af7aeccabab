from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from collector.otlp.block import Layout

NO_CONNECTION: int
MESSAGING: int
DATABASE: int
VIRTUAL: int
USER: int
OVERFLOW: int

def bucket_of(took: int, first: int, bounds: int) -> int: ...

class LabelSets:
    counts: NDArray[np.uint32]
    sums: NDArray[np.float64]
    folded: int
    capacity: int
    def __init__(self, capacity: int, counts: int, sums: int) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def free(self) -> int: ...
    def take_fresh(self) -> list[tuple[int, int, int, int, int]]: ...
    def retire(self, slots: Iterable[int]) -> None: ...
    def release(self, slots: Iterable[int]) -> None: ...

class Tally:
    calls: LabelSets
    edges: LabelSets
    names: dict[int, str]
    expired: int
    def __init__(
        self,
        records: Layout,
        groups: Layout,
        calls: LabelSets,
        call_bounds: tuple[int, int],
        edges: LabelSets,
        edge_bounds: tuple[int, int],
        waiting: int,
        names: int,
    ) -> None: ...
    @property
    def waiting(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def add(
        self,
        payload: bytes | bytearray,
        records: bytes,
        count: int,
        groups: bytes,
        group_count: int,
        begin: int,
        end: int,
    ) -> None: ...
    def turn(self) -> None: ...
    def names_known(self) -> int: ...
    def forget_names(self) -> None: ...
