from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

class Values(NamedTuple):
    type: NDArray[Any]
    integer: NDArray[Any]
    double: NDArray[Any]
    start: NDArray[Any]
    length: NDArray[Any]

ABSENT: int
STRING: int
BOOL: int
INT: int
DOUBLE: int
ARRAY: int
KVLIST: int
BYTES: int
EMPTY: int
KEYS_MAX: int

def checked(
    payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def attribute(
    payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any], field: int, key: bytes
) -> Values: ...
def attributes(
    payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any], field: int, keys: list[bytes]
) -> list[Values]: ...
def any_value(payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any]) -> Values: ...
def equal(payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any], needle: bytes) -> NDArray[Any]: ...
def contains(
    payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any], needle: bytes, ignore_case: bool = ...
) -> NDArray[Any]: ...
def string_field(
    payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any], field: int
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def children(
    payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any], field: int
) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any]]: ...
def fixed64(payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any], field: int) -> NDArray[Any]: ...
def hashes(payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.uint64]: ...
def strings(payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any]) -> list[str]: ...
def keys(payload: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any], field: int) -> set[bytes]: ...
def distinct(
    payload: bytes | bytearray, *extents: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]: ...
