from collections.abc import Callable, Iterable

ATTRIBUTES_MAX: int

def read(
    payload: bytes | bytearray,
    start: int,
    length: int,
    stream: dict[str, str],
    name_of: Callable[[bytes], str],
    flatten: Callable[[str, bytes], Iterable[tuple[str, str]]],
    text_of: Callable[[bytes], bytes],
) -> tuple[bytes, int, dict[str, str]] | None: ...
