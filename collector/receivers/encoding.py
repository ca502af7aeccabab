"""Content encodings of OTLP/HTTP bodies, inflated in a stream and never beyond a limit.

gzip may have several members. `deflate` means the zlib format (RFC 9110); raw deflate, which some clients send
under that name, is told apart by its first byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isal import isal_zlib

from collector.errors import Malformed, TooLarge, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

ENCODINGS = ("identity", "gzip", "deflate")
"""What a Content-Encoding header may say."""

CHUNK_BYTES = 256 * 1024
"""How much is inflated at a time, and so by how much a bomb can pass the limit before it is noticed."""

_GZIP, _ZLIB, _RAW = 31, 15, -15
_ISAL_ERROR: Any = isal_zlib.error


def inflate(body: bytes | bytearray, encoding: str, bytes_max: int, grow: Callable[[int], None]) -> bytes | bytearray:
    """Return the body without its content encoding.

    `grow(size)` is called before each step of `size` bytes and may raise, as when the budget is used up. Raises
    TooLarge beyond `bytes_max`, Malformed for bytes that do not inflate, and Unsupported for other encodings.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Unsupported(f"Content-Encoding {encoding[:100]!r} is not supported; use one of {', '.join(ENCODINGS)}")
    bits = _GZIP if encoding == "gzip" else _ZLIB if body and body[0] & 0x0F == 8 else _RAW
    out = bytearray()
    left: bytes | bytearray | memoryview = body
    while True:
        inflater = isal_zlib.decompressobj(bits)
        while not inflater.eof:
            grow(CHUNK_BYTES)
            try:
                piece = inflater.decompress(left, CHUNK_BYTES)
            except _ISAL_ERROR as error:
                raise Malformed(f"the {encoding} body does not inflate: {error}") from error
            out += piece
            if len(out) > bytes_max:
                raise TooLarge(
                    f"the request is larger than {bytes_max} bytes after decompression "
                    "(receivers.otlp.protocols.http.max_request_body_size)"
                )
            left = inflater.unconsumed_tail
            if not piece and not left and not inflater.eof:
                raise Malformed(f"the {encoding} body ends too early")
        left = inflater.unused_data
        if not left or bits != _GZIP:
            return out
