"""The chunked transfer coding (RFC 9112, 7.1), decoded strictly. No I/O.

    size in hexadecimal [; extensions] CR LF, that many bytes, CR LF, and so on; a size of 0 ends the chunks;
    then trailer lines, which are ignored, and an empty line.

Own code because the position where a body ends must be known, for the request that follows it, and because every
part of the coding needs its limit: lines and trailers would otherwise go on for ever. A bare LF ends no line.
"""

from __future__ import annotations

from typing import Final

from collector.errors import Malformed

LINE_BYTES_MAX: Final = 256
"""Bytes of the line with a chunk's size, its extensions included."""
TRAILER_BYTES_MAX: Final = 8 * 1024
"""Bytes of all trailer lines."""
_SIZE_DIGITS_MAX = 8
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")


class ChunkDecoder:
    """Decodes one body, appending it to `body`."""

    __slots__ = ("_after_data", "_in_trailers", "_left", "_line", "_trailer_bytes", "body", "complete")

    def __init__(self) -> None:
        """Expect the first chunk's size."""
        self.body = bytearray()
        self.complete = False
        self._left = 0  # bytes of the current chunk's data still to come
        self._line = b""  # of the line that is being read, what came before
        self._after_data = False  # the line being read is the empty one that ends a chunk's data
        self._in_trailers = False
        self._trailer_bytes = 0

    def feed(self, data: bytes, at: int) -> int:
        """Decode from `data[at:]`; return where the body ends, or `len(data)` when it goes on.

        Raises Malformed; where the next request begins is then unknown.
        """
        end = len(data)
        while at < end and not self.complete:
            if self._left:
                stop = min(end, at + self._left)
                self.body += memoryview(data)[at:stop]
                self._left -= stop - at
                at = stop
                self._after_data = not self._left
            else:
                at = self._feed_line(data, at)
        return at

    def _feed_line(self, data: bytes, at: int) -> int:
        limit = TRAILER_BYTES_MAX if self._in_trailers else LINE_BYTES_MAX
        found = data.find(b"\n", at)
        stop = found + 1 if found >= 0 else len(data)
        if len(self._line) + stop - at > limit:
            raise Malformed(f"not a valid chunked body: a line is longer than {limit} bytes")
        line = self._line + data[at:stop]
        if found < 0:
            self._line = line
            return stop
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise Malformed("not a valid chunked body: a line ends without CR")
        self._take_line(line[:-2])
        return stop

    def _take_line(self, line: bytes) -> None:
        if self._after_data:
            if line:
                raise Malformed("not a valid chunked body: a chunk is longer than its size says")
            self._after_data = False
        elif self._in_trailers:
            self._trailer_bytes += len(line) + len(b"\r\n")
            if self._trailer_bytes > TRAILER_BYTES_MAX:
                raise Malformed(f"not a valid chunked body: trailers are longer than {TRAILER_BYTES_MAX} bytes")
            self.complete = not line
        else:
            digits = line.partition(b";")[0].rstrip(b" \t")
            if not 0 < len(digits) <= _SIZE_DIGITS_MAX or not _HEXADECIMAL.issuperset(digits):
                raise Malformed("not a valid chunked body: a chunk's size is not a hexadecimal number below 4 GiB")
            self._left = int(digits, 16)
            self._in_trailers = not self._left
