from array import array

def marks(
    offsets: array[int],
    positions: array[int],
    base: int,
    start: int,
    wanted: tuple[int, int],
    end: tuple[int, int],
) -> list[tuple[int, int]]: ...
