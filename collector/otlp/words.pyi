from typing import Final, NamedTuple

WORD_BYTES_MAX: Final[int]

class Found(NamedTuple):
    start: int
    end: int
    folded: bytes

def words(text: bytes) -> list[Found]: ...
def fold(text: bytes) -> bytes: ...
