import numpy as np
from numpy.typing import NDArray

class Numbering:
    count: int
    def __len__(self) -> int: ...
    def add(self, first: NDArray[np.integer], second: NDArray[np.integer]) -> NDArray[np.int32]: ...
    def find(self, first: NDArray[np.integer], second: NDArray[np.integer]) -> NDArray[np.int32]: ...

def below(
    node: NDArray[np.int32], parent: NDArray[np.int32], nodes: int, sources: NDArray[np.bool_]
) -> NDArray[np.bool_]: ...
def above(
    node: NDArray[np.int32], parent: NDArray[np.int32], nodes: int, sources: NDArray[np.bool_]
) -> NDArray[np.bool_]: ...
def nested_sets(
    trace: NDArray[np.integer],
    parent_row: NDArray[np.integer],
    roots: NDArray[np.bool_],
    order: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]: ...
