"""Files of records as streams: opened through the seam, decompressed by what they hold, bounded in memory."""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING, Final, cast

import zstandard

if TYPE_CHECKING:
    from collector.wal.files import Files

BUFFER_BYTES: Final = 1024 * 1024
GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"


class FileStream(io.RawIOBase):
    """A file of the seam, as Python's readers want it."""

    def __init__(self, files: Files, path: str) -> None:
        """Open it. Raises OSError."""
        self._files = files
        self._handle = files.open(path)
        self.size: Final = files.size(self._handle)
        self.position = 0
        """Bytes that were read."""

    def readable(self) -> bool:
        """See io."""
        return True

    def readinto(self, buffer: object) -> int:
        """See io."""
        view = memoryview(cast("bytearray", buffer))
        data = self._files.pread(self._handle, len(view), self.position)
        view[: len(data)] = data
        self.position += len(data)
        return len(data)

    def close(self) -> None:
        """See io."""
        if not self.closed:
            self._files.close(self._handle)
        super().close()


def decompressed(raw: FileStream) -> io.BufferedIOBase:
    """Return what a file holds, decompressed if it is gzip or zstd, several members or frames too. Raises OSError."""
    plain = io.BufferedReader(raw, BUFFER_BYTES)
    head = plain.peek(4)[:4]
    if head.startswith(GZIP):
        return cast("io.BufferedIOBase", gzip.GzipFile(fileobj=plain))
    if head == ZSTD:
        reader = zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True)
        return io.BufferedReader(cast("io.RawIOBase", reader), BUFFER_BYTES)
    return plain
