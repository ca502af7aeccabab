from collections.abc import Callable, Iterable, Mapping

ATTRIBUTES_MAX: int

def read(
    payload: bytes | bytearray,
    start: int,
    length: int,
    stream: dict[str, str],
    names: Mapping[bytes, str],
    flatten: Callable[[str, bytes], Iterable[tuple[str, str]]],
    text_of: Callable[[bytes], bytes],
) -> tuple[bytes, int, dict[str, str]] | None: ...
