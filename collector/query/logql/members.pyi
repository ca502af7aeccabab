from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

NONE: int
PLAIN: int
ESCAPED: int
SCALAR: int
OBJECT: int
ARRAY: int
NULL: int

NESTING_MAX: int

OK: int
BAD_OBJECT: int
BAD_JSON: int
BAD_ARRAY: int
BAD_STRING: int
BAD_ESCAPE: int
BAD_VALUE: int
TOO_DEEP: int

Found: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32]]

def json_member(buffer: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any], name: bytes) -> Found: ...
def json_status(buffer: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.uint8]: ...
def json_members(line: bytes) -> tuple[list[tuple[bytes, int, int, int]], int]: ...
def json_path(
    buffer: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any], path: list[bytes | int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint8]]: ...
def json_top(line: bytes) -> tuple[list[tuple[bytes, int, int, int]], int]: ...
