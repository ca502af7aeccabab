from typing import NamedTuple

from numpy.typing import NDArray

class Values(NamedTuple):
    type: NDArray
    integer: NDArray
    double: NDArray
    start: NDArray
    length: NDArray

ABSENT: int
STRING: int
BOOL: int
INT: int
DOUBLE: int
ARRAY: int
KVLIST: int
BYTES: int
EMPTY: int

def attribute(payload: bytes | bytearray, starts: NDArray, lengths: NDArray, field: int, key: bytes) -> Values: ...
def any_value(payload: bytes | bytearray, starts: NDArray, lengths: NDArray) -> Values: ...
def equal(payload: bytes | bytearray, starts: NDArray, lengths: NDArray, needle: bytes) -> NDArray: ...
def contains(
    payload: bytes | bytearray, starts: NDArray, lengths: NDArray, needle: bytes, ignore_case: bool = ...
) -> NDArray: ...
def string_field(
    payload: bytes | bytearray, starts: NDArray, lengths: NDArray, field: int
) -> tuple[NDArray, NDArray]: ...
def strings(payload: bytes | bytearray, starts: NDArray, lengths: NDArray) -> list[str]: ...
def keys(payload: bytes | bytearray, starts: NDArray, lengths: NDArray, field: int) -> set[bytes]: ...
