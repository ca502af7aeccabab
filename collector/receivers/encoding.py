"""Content encodings of OTLP's bodies and messages, inflated in steps and never far beyond a limit.

gzip may have several members, as when a client compresses piece by piece. `deflate` means the zlib format
(RFC 9110, 8.4.1.2); raw deflate, which some clients send under that name, is told apart by the two bytes of
zlib's header; so is `zlib`, which is what the Collector calls it. Checksums are verified. `zstd.py` has zstd.

Cost: 60 µs for a request of 200 KB (isal; zlib 93). Input is given to the inflater in windows, so that what is
copied stays linear in the body's size for any mixture of members, and a bomb costs at most one step more than
the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from isal import igzip_lib

from collector.errors import Malformed, TooLarge, Unsupported
from collector.receivers import zstd

COMPRESSIONS: Final = ("gzip", "zstd", "deflate", "zlib")
"""What a Content-Encoding header may say beside identity, if it is not configured otherwise."""
GRPC_ENCODINGS: Final = ("identity", "gzip", "deflate", "zstd")
"""What grpc-encoding may say."""
STEP_BYTES: Final = 256 * 1024
"""How much is inflated at a time, and so by how much a bomb can pass the limit before it is noticed."""
MEMBERS_MAX: Final = 4096
"""Members of one gzip body."""

_FAILURE: Any = igzip_lib.IsalError  # the stubs declare it as an instance


def inflate(
    body: bytes | bytearray, encoding: str, bytes_max: int, limit_key: str, grow: Callable[[int], None]
) -> bytes | bytearray:
    """Return the body without its content encoding; the same object when it has none.

    `limit_key` is the configuration's name of `bytes_max`, for the message.
    `grow(size)` is told of each piece of `size` bytes that has been inflated and may raise, as when a budget is
    used up. Raises TooLarge beyond `bytes_max`, and Malformed for bytes that do not inflate.
    """
    if encoding in ("", "identity"):
        return body
    pieces: list[bytes] = []
    size = 0
    for piece in zstd.inflated(body, STEP_BYTES) if encoding == "zstd" else _pieces(body, encoding):
        size += len(piece)
        if size > bytes_max:
            raise TooLarge(f"the request is larger than {bytes_max} bytes after decompression ({limit_key})")
        grow(len(piece))
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def check_encoding(encoding: str, accepted: Collection[str]) -> None:
    """Raise Unsupported for an encoding that is not accepted. None, an empty string, is identity, which always is."""
    if encoding and encoding != "identity" and encoding not in accepted:
        known = ", ".join(("identity", *accepted))
        raise Unsupported(f"Content-Encoding {encoding[:100]!r} is not supported; use one of {known}")


def _pieces(body: bytes | bytearray, encoding: str) -> Iterator[bytes]:
    """Yield what the body inflates to, in pieces of at most `STEP_BYTES`."""
    view = memoryview(body)
    form = igzip_lib.DECOMP_GZIP if encoding == "gzip" else _deflate_form(body)
    at = 0
    for _ in range(MEMBERS_MAX):
        inflater = igzip_lib.IgzipDecompressor(form)
        while not inflater.eof:
            window = view[at : at + STEP_BYTES] if inflater.needs_input else b""
            at += len(window)
            if inflater.needs_input and not window:
                raise Malformed(f"the {encoding} body ends too early")
            try:
                piece = inflater.decompress(window, STEP_BYTES)
            except _FAILURE as error:
                raise Malformed(f"the {encoding} body does not inflate: {error}") from error
            if piece:
                yield piece
        at -= len(inflater.unused_data)
        if at == len(body):
            return
        if encoding != "gzip":
            raise Malformed(f"{len(body) - at} bytes follow the end of the {encoding} body")
    raise Malformed(f"the gzip body has more than {MEMBERS_MAX} members")


def _deflate_form(body: bytes | bytearray) -> int:
    """Tell the zlib format from raw deflate by its header: method 8, and a multiple of 31."""
    is_zlib = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return int(igzip_lib.DECOMP_ZLIB if is_zlib else igzip_lib.DECOMP_DEFLATE)
